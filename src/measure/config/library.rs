//! Files that are given as allocators: whether this machine's loader could take one at all.
//!
//! Invariant: read only; what a library does is learned from a child that has loaded it, never in this process.

use crate::run::bounded;
use object::Endianness;
use object::elf::{DF_STATIC_TLS, DT_FLAGS, FileHeader64, PT_TLS};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What the loader of glibc surely has left for libraries that come late; it keeps 1,664 bytes for everybody.
const SPARE_TLS_BYTES: u64 = 512;
/// Bytes of an ELF header that tell what it is for.
const HEADER_BYTES: usize = 20;
/// Where the class is, and what it must be: 64 bits.
const CLASS: (usize, u8) = (4, 2);
/// Where the byte order is, and what it must be.
const ORDER: (usize, u8) = (5, if cfg!(target_endian = "little") { 1 } else { 2 });
/// Where the kind of file is, and what it must be: a shared object.
const KIND: (usize, u16) = (16, 3);
/// Where the machine is.
const MACHINE: usize = 18;
/// Machines by the number in the header.
const MACHINES: &[(u16, &str)] =
    &[(3, "x86"), (21, "powerpc64"), (22, "s390x"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64")];

/// The absolute path of a library that a word names.
///
/// # Errors
/// As [`check`].
pub(super) fn path(text: &str, word: &str) -> Result<PathBuf, String> {
    check(text, word)?;
    std::path::absolute(text).map_err(|error| format!("{word}: {text} has no absolute path ({error}). Give that."))
}

/// Whether a library could be loaded; a name without a folder is left to the loader, which knows its own folders.
///
/// # Errors
/// A sentence: no such file, no library, or one for another machine.
pub(crate) fn check(text: &str, word: &str) -> Result<(), String> {
    if !text.contains('/') {
        return Ok(());
    }
    // A pipe or a terminal would let its reader wait.
    if Path::new(text).metadata().is_ok_and(|file| !file.is_file()) {
        return Err(format!("{word}: that is no regular file. Give a shared library."));
    }
    let mut header = [0; HEADER_BYTES];
    let read = bounded::open(Path::new(text)).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("{word}: there is no such file, and Python would run without it. Correct the path."));
        }
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(format!("{word}: the library cannot be read ({error}). Give a shared library."));
        }
        _ => {}
    }
    described(&header).map_err(|what| format!("{word}: the file is {what}. Give a shared library for this machine."))
}

/// What is wrong with a header.
fn described(header: &[u8; HEADER_BYTES]) -> Result<(), String> {
    let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    if !header.starts_with(b"\x7fELF") {
        return Err("no shared library".to_owned());
    }
    if header[CLASS.0] != CLASS.1 || header[ORDER.0] != ORDER.1 {
        return Err(format!("for another architecture: this machine is {}", std::env::consts::ARCH));
    }
    let machine = MACHINES.iter().find(|(number, _)| *number == half(MACHINE)).map_or("unknown", |(_, name)| name);
    if machine != std::env::consts::ARCH {
        return Err(format!("for another architecture: {machine}, where this machine is {}", std::env::consts::ARCH));
    }
    if half(KIND.0) != KIND.1 {
        return Err("a program or an object file and no shared library".to_owned());
    }
    Ok(())
}

/// Whether a library is built to be linked and has more thread-local variables than the loader keeps room for beside
/// those that are there from the start: it can then be loaded late only if room was made. One that cannot be read says
/// no.
pub(crate) fn needs_static_tls(path: &str) -> bool {
    bounded::read(Path::new(path), bounded::LIBRARY_BYTES_MAX)
        .ok()
        .and_then(|bytes| static_tls_bytes(&bytes).ok())
        .is_some_and(|bytes| bytes > SPARE_TLS_BYTES)
}

/// Thread-local bytes that have to lie beside those of the program; none of a library that can have them elsewhere.
fn static_tls_bytes(file: &[u8]) -> object::Result<u64> {
    let header = FileHeader64::<Endianness>::parse(file)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, file)?;
    let mut is_static = false;
    for segment in segments {
        let entries = segment.dynamic(endian, file)?.unwrap_or_default();
        let mut flags = entries.iter().filter(|entry| entry.tag(endian) == DT_FLAGS).map(|entry| entry.val(endian));
        is_static |= flags.any(|flags| flags & DF_STATIC_TLS.0 != 0);
    }
    let tls = segments.iter().filter(|segment| segment.p_type(endian) == PT_TLS).map(|tls| tls.p_memsz(endian));
    Ok(if is_static { tls.sum() } else { 0 })
}

/// A word without the folders of the files in it: results name no machine.
pub(super) fn without_folders(word: &str) -> String {
    let (left, right) = word.split_once('=').map_or((None, word), |(left, right)| (Some(left), right));
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let right =
        if right.contains('/') { right.split(':').map(base).collect::<Vec<_>>().join(":") } else { right.to_owned() };
    left.map_or(right.clone(), |left| format!("{left}={right}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_library_for_this_machine_will_do() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::fs::read("/proc/self/exe").unwrap()[..64].to_vec();
        let changed = |at: usize, value: u8| {
            let mut header = own.clone();
            (header[KIND.0], header[at]) = (3, value);
            header
        };
        for (name, bytes, expected) in [
            ("text.so", b"#!/bin/sh\nexit 0 # nothing\n".to_vec(), "no shared library"),
            ("short.so", b"\x7fELF".to_vec(), "another architecture"),
            ("32.so", changed(CLASS.0, 1), "another architecture"),
            ("big.so", changed(ORDER.0, 3 - ORDER.1), "another architecture"),
            ("s390.so", changed(MACHINE, 22), "s390x"),
            ("object.o", changed(KIND.0, 1), "object file"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = check(path.to_str().unwrap(), "numpy=it").unwrap_err();
            assert!(error.starts_with("numpy=it: the file is") && error.contains(expected), "{name}: {error}");
        }
        let right = folder.path().join("right.so");
        std::fs::write(&right, changed(KIND.0, 3)).unwrap();
        assert_eq!(check(right.to_str().unwrap(), ""), Ok(()));
        assert_eq!(check("libjemalloc.so.2", ""), Ok(()), "the loader's to find");
        for other in ["/dev/null", folder.path().to_str().unwrap()] {
            assert!(check(other, "numpy=it").unwrap_err().contains("no regular file"), "{other}");
        }
    }

    #[test]
    fn a_word_loses_its_folders_and_nothing_else() {
        for (word, short) in [
            ("LD_PRELOAD=/usr/lib/liba.so:/opt/libb.so", "LD_PRELOAD=liba.so:libb.so"),
            ("numpy=/opt/x/lib.so", "numpy=lib.so"),
            ("MALLOC_CONF=a:1,b:2", "MALLOC_CONF=a:1,b:2"),
            ("pool", "pool"),
        ] {
            assert_eq!(without_folders(word), short);
        }
    }
}
