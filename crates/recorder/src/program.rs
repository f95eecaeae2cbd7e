//! Looks at the command before it is started: is it there, can a library be preloaded into it, does it ask for what
//! would hide its allocations.
//!
//! Invariant: whatever would give a silently empty or wrong recording is refused here with a sentence.

use crate::error::RecordError;
use object::Endianness;
use object::elf::{EM_X86_64, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const SETUID_OR_SETGID: u32 = 0o6000;
const EXECUTABLE: u32 = 0o111;

/// Finds the program and checks that it can be recorded; its path.
pub(crate) fn check(command: &[OsString]) -> Result<PathBuf, RecordError> {
    let Some(name) = command.first() else {
        return Err(RecordError::NotFound("(no command)".to_owned()));
    };
    let shown = name.to_string_lossy().into_owned();
    let path = find(name).ok_or_else(|| RecordError::NotFound(shown.clone()))?;
    let unfit = |why: &str| RecordError::NotRunnable { program: shown.clone(), why: why.to_owned() };
    let facts = fs::metadata(&path).map_err(|_| RecordError::NotFound(shown.clone()))?;
    if !facts.is_file() || facts.mode() & EXECUTABLE == 0 {
        return Err(unfit("not an executable file; make it one with chmod +x, or name its interpreter first"));
    }
    if facts.mode() & SETUID_OR_SETGID != 0 {
        let why =
            "runs with another user's rights, and the loader preloads nothing there; run it as that user".to_owned();
        return Err(RecordError::CannotRecord { program: shown, why });
    }
    check_format(&path, &shown, true)?;
    if is_python(&path, name) && asks_for_dev_mode(&command[1..]) {
        return Err(RecordError::DevMode);
    }
    Ok(path)
}

fn find(name: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    let folders = std::env::var_os("PATH")?;
    let candidates = std::env::split_paths(&folders).map(|folder| folder.join(name));
    let is_executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.mode() & EXECUTABLE != 0);
    candidates.into_iter().find(is_executable)
}

/// Whether the loader will preload the recorder. A script is judged by the interpreter that its first line names.
fn check_format(path: &Path, shown: &str, may_be_script: bool) -> Result<(), RecordError> {
    let mut head = Vec::new();
    // An unreadable program still runs; the loader will tell.
    let Ok(file) = File::open(path) else { return Ok(()) };
    if file.take(64 * 1024).read_to_end(&mut head).is_err() {
        return Ok(());
    }
    let cannot = |why: &str| Err(RecordError::CannotRecord { program: shown.to_owned(), why: why.to_owned() });
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        let interpreter = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let interpreter = Path::new(OsStr::from_bytes(interpreter));
        return if may_be_script && interpreter.exists() { check_format(interpreter, shown, false) } else { Ok(()) };
    }
    let Ok(header) = FileHeader64::<Endianness>::parse(head.as_slice()) else { return Ok(()) };
    if header.endian().is_ok_and(|endian| header.e_machine(endian) != EM_X86_64) {
        return cannot("not an x86-64 program; take it to a machine of its own kind once that is supported");
    }
    match loader(&head) {
        None => cannot("statically linked, so that no library can be preloaded; use a dynamically linked build"),
        Some(loader) if loader.windows(4).any(|part| part == b"musl") => {
            cannot("built for musl, and the recorder calls glibc's own functions; take a glibc build of it")
        }
        Some(_) => Ok(()),
    }
}

/// The loader that an ELF file names.
fn loader(head: &[u8]) -> Option<&[u8]> {
    let header = FileHeader64::<Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let mut entries = header.program_headers(endian, head).ok()?.iter();
    entries.find_map(|entry| entry.interpreter(endian, head).ok()?)
}

fn is_python(path: &Path, name: &OsStr) -> bool {
    [path.file_name(), Path::new(name).file_name()]
        .into_iter()
        .flatten()
        .any(|base| base.to_string_lossy().starts_with("python"))
}

/// `-X dev` among the interpreter's own options, which end at the script, `-c` or `-m`.
fn asks_for_dev_mode(arguments: &[OsString]) -> bool {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        if argument == "-X" {
            if arguments.next().is_some_and(|value| value == "dev") {
                return true;
            }
        } else if argument == "-Xdev" {
            return true;
        } else if argument == "-W" {
            arguments.next();
        } else if !argument.starts_with('-') || argument == "-" || argument == "--" || ends_options(&argument) {
            return false;
        }
    }
    false
}

/// `-c` and `-m`, also at the end of a cluster such as `-Ic`.
fn ends_options(argument: &str) -> bool {
    !argument.starts_with("--") && argument.contains(['c', 'm'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(arguments: &[&str]) -> bool {
        asks_for_dev_mode(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn dev_mode_is_seen_among_the_interpreters_options_only() {
        assert!(asks(&["-X", "dev", "a.py"]));
        assert!(asks(&["-I", "-Xdev", "-c", "pass"]));
        assert!(asks(&["-W", "error", "-X", "dev"]));
        assert!(!asks(&["a.py", "-X", "dev"]));
        assert!(!asks(&["-c", "pass", "-X", "dev"]));
        assert!(!asks(&["-X", "utf8", "a.py"]));
    }

    #[test]
    fn damaged_programs_are_left_to_the_loader_or_refused() {
        assert_eq!(loader(b"\x7fELF\x02"), None);
        assert_eq!(loader(&[0xff; 64]), None);
        let own = std::fs::read("/proc/self/exe").unwrap_or_default();
        let named = loader(&own[..own.len().min(64 * 1024)]).unwrap_or_default();
        assert!(named.starts_with(b"/") && !named.ends_with(b"\0"), "{}", String::from_utf8_lossy(named));
    }
}
