//! Interpreters of this machine, and the shared library that holds the pools of each.
//!
//! **Invariant:** an [`Interpreter`] exists only after its program ran and said what it is, and its library is a file.

use crate::pymalloc::MINOR_WITH_LARGE_ARENAS;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How an interpreter's program came to the code of CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// It loads the library.
    Shared,
    /// It contains the code; the library is a second build of the same version beside it.
    Static,
}

impl Linkage {
    /// `shared` or `static`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Static => "static",
        }
    }

    /// What the library is to the program, in words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Shared => "shared libpython",
            Self::Static => "shared libpython beside a static interpreter",
        }
    }
}

/// A CPython with the GIL, version 3.10 or later, and its shared library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The program, links resolved.
    pub program: PathBuf,
    /// Such as `3.11.7`.
    pub version: String,
    /// The 11 of it.
    pub minor: u32,
    /// How the program is linked; the pools that can be driven are always the library's.
    pub linkage: Linkage,
    /// The shared library.
    pub libpython: PathBuf,
    /// Value of `PYTHONHOME` with which the library finds its modules.
    pub home: String,
    /// What its build was configured with beyond the compiler's level: `PGO and LTO`, `PGO`, `LTO`, or nothing. A
    /// distribution may have added either in another way, which no interpreter tells.
    pub optimisations: String,
}

/// Why an interpreter's pools cannot be driven. The texts name the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindError {
    /// It does not run.
    NotRunnable(PathBuf, String),
    /// It is not a CPython of 3.10 or later with the GIL; what it is instead.
    NotFit(PathBuf, String),
    /// No shared library of its version was found.
    NoLibrary(PathBuf, String),
    /// Its library lies where the loader cannot be told of it.
    NotPreloadable(PathBuf, PathBuf),
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunnable(program, why) => {
                write!(f, "{} does not run as Python ({why}). Name another interpreter.", program.display())
            }
            Self::NotFit(program, what) => write!(
                f,
                "{} is {what}; its pools are not those of 3.10 and later. Name a CPython 3.10 or later with the GIL.",
                program.display()
            ),
            Self::NotPreloadable(program, libpython) => write!(
                f,
                "The library of {}, {}, cannot be preloaded: the loader takes spaces and colons in a path for borders. \
                 Name an interpreter in a folder without them.",
                program.display(),
                libpython.display()
            ),
            Self::NoLibrary(program, version) => write!(
                f,
                "{} (CPython {version}) is linked statically, and no shared libpython of its version was found. \
                 Install it (Debian: apt-get install libpython{}), or name an interpreter built with --enable-shared.",
                program.display(),
                version.rsplit_once('.').map_or(version.as_str(), |(minor, _)| minor)
            ),
        }
    }
}

impl std::error::Error for FindError {}

/// Prints, a line each: program, implementation, version, whether the GIL is missing, home, how it is linked, the
/// optimisations it was configured with, and the places where a library may be.
const QUESTION: &str = "
import os, sys, sysconfig
get = sysconfig.get_config_var
loaded = sorted({line.split(None, 5)[-1].strip() for line in open('/proc/self/maps') if 'libpython3' in line})
print(os.path.realpath(sys.executable))
print(sys.implementation.name)
print('%d.%d.%d' % sys.version_info[:3])
print(get('Py_GIL_DISABLED') or 0)
print(sys.base_prefix + ':' + sys.base_exec_prefix)
print('shared' if loaded else 'static')
words = get('CONFIG_ARGS') or ''
print(' and '.join([name for name, word in (('PGO', 'enable-optimizations'), ('LTO', 'with-lto')) if word in words]))
name = 'libpython%d.%d.so.1.0' % sys.version_info[:2]
lib, arch = get('LIBDIR') or '', get('MULTIARCH') or ''
folders = [lib, os.path.join(lib, arch), os.path.join(sys.base_prefix, 'lib')]
for path in loaded + [os.path.join(folder, name) for folder in folders if folder]:
    print(os.path.realpath(path))
";

impl Interpreter {
    /// Asks a program (a name on `PATH`, or a path) what it is, and finds its library.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn find(program: &Path) -> Result<Self, FindError> {
        Self::find_since(program, MINOR_WITH_LARGE_ARENAS)
    }

    /// The same for versions since 3.`minor_min`. 3.9, the oldest that can be driven, has arenas of 256 KiB and pools
    /// of 4 KiB.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn find_since(program: &Path, minor_min: u32) -> Result<Self, FindError> {
        let not_runnable = |why: &str| FindError::NotRunnable(program.to_owned(), why.to_owned());
        let output = Command::new(program).args(["-I", "-c", QUESTION]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| not_runnable(&error.to_string()))?;
        if !output.status.success() {
            return Err(not_runnable(&complaint(&String::from_utf8_lossy(&output.stderr))));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        read(program, &text, minor_min)
    }

    /// Variables with which a process has this interpreter's library in it and the library finds its modules.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.libpython.clone().into()),
            ("PYTHONHOME".to_owned(), self.home.clone().into()),
        ]
    }

    /// Such as `CPython 3.11.7, shared libpython`.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("CPython {}, {}", self.version, self.linkage.describe())
    }
}

/// The line of an error output that says most, cut short: the last of a traceback, else the first. A program that
/// prints the question back is no Python, and what it says of it is of no use.
fn complaint(errors: &str) -> String {
    let mut lines = errors.lines().map(str::trim).filter(|line| !line.is_empty());
    if errors.contains("sysconfig") && !errors.starts_with("Traceback") {
        return "it does not understand -c".to_owned();
    }
    let line = if errors.starts_with("Traceback") { lines.next_back() } else { lines.next() };
    line.unwrap_or("it ended with an error and no message").chars().take(100).collect()
}

/// Makes sense of the answer to [`QUESTION`].
fn read(asked: &Path, answer: &str, minor_min: u32) -> Result<Interpreter, FindError> {
    let mut lines = answer.lines();
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (program, implementation, version) = (PathBuf::from(line()), line(), line());
    let (gil_disabled, home, linkage, optimisations) = (line() != "0", line(), line(), line());
    let not_fit = |what: String| FindError::NotFit(asked.to_owned(), what);
    let minor = version.strip_prefix("3.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if implementation != "cpython" {
        return Err(not_fit(format!("{implementation} {version}")));
    }
    let Some(minor) = minor.filter(|minor| *minor >= minor_min) else {
        return Err(not_fit(format!("CPython {version}")));
    };
    if gil_disabled {
        return Err(not_fit(format!("a free-threaded CPython {version}")));
    }
    let libpython = lines.map(PathBuf::from).find(|path| path.is_file());
    let libpython = libpython.ok_or_else(|| FindError::NoLibrary(program.clone(), version.clone()))?;
    if libpython.to_string_lossy().contains([' ', '\t', ':']) {
        return Err(FindError::NotPreloadable(program, libpython));
    }
    let linkage = if linkage == "shared" { Linkage::Shared } else { Linkage::Static };
    Ok(Interpreter { program, version, minor, linkage, libpython, home, optimisations })
}

/// Programs that may be a CPython, whether they run or not: `python3` and `python3.9` to `python3.14` in the folders of
/// `PATH`, in those of pyenv and uv, and what `PYALLOC_BENCH_PYTHONS` names, separated by colons.
#[must_use]
pub fn candidates() -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        list.push(folder.join("python3"));
        list.extend((9..=14).map(|minor| folder.join(format!("python3.{minor}"))));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let pyenv = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    for folder in [pyenv.join("versions"), home.join(".local/share/uv/python")] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        list.extend(entries.map(|entry| entry.path().join("bin/python3")));
    }
    list.extend(std::env::split_paths(&std::env::var_os("PYALLOC_BENCH_PYTHONS").unwrap_or_default()));
    list.retain(|candidate| candidate.exists());
    list
}

/// Asks all [`candidates`]: one interpreter per shared library, oldest version first, and why each other is none.
#[must_use]
pub fn distinct() -> (Vec<Interpreter>, Vec<FindError>) {
    distinct_since(MINOR_WITH_LARGE_ARENAS)
}

/// The same with versions since 3.`minor_min`; see [`Interpreter::find_since`].
#[must_use]
pub fn distinct_since(minor_min: u32) -> (Vec<Interpreter>, Vec<FindError>) {
    let (mut found, mut refused): (Vec<Interpreter>, Vec<FindError>) = (Vec::new(), Vec::new());
    let mut asked = std::collections::BTreeSet::new();
    for candidate in candidates() {
        // Links of one program need one answer.
        if !asked.insert(candidate.canonicalize().unwrap_or_else(|_| candidate.clone())) {
            continue;
        }
        match Interpreter::find_since(&candidate, minor_min) {
            Ok(interpreter) if found.iter().any(|known| known.libpython == interpreter.libpython) => {}
            Ok(interpreter) => found.push(interpreter),
            Err(why) => refused.push(why),
        }
    }
    found.sort_by(|one, other| (one.minor, &one.version).cmp(&(other.minor, &other.version)));
    (found, refused)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn answer(implementation: &str, version: &str, gil_disabled: &str, linkage: &str, library: &str) -> String {
        format!(
            "/python3\n{implementation}\n{version}\n{gil_disabled}\n/usr:/usr\n{linkage}\nPGO\n/none.so\n{library}\n"
        )
    }

    #[test]
    fn an_answer_is_read() {
        let here = std::env::current_exe().unwrap();
        let here = here.to_str().unwrap();
        let found = read("python3".as_ref(), &answer("cpython", "3.12.1", "0", "shared", here), 10).unwrap();
        assert_eq!((found.minor, found.linkage, found.home.as_str()), (12, Linkage::Shared, "/usr:/usr"));
        assert_eq!(found.optimisations, "PGO");
        assert_eq!(found.describe(), "CPython 3.12.1, shared libpython");
        assert_eq!(found.environment()[0], ("LD_PRELOAD".to_owned(), here.into()));
    }

    #[test]
    fn what_cannot_be_driven_says_why() {
        let here = std::env::current_exe().unwrap();
        let here = here.to_str().unwrap();
        let said = |answer: &str| read("python3".as_ref(), answer, 10).unwrap_err().to_string();
        assert!(said(&answer("pypy", "3.10.2", "0", "shared", here)).contains("pypy 3.10.2"));
        assert!(said(&answer("cpython", "3.9.18", "0", "shared", here)).contains("CPython 3.9.18"));
        assert!(said(&answer("cpython", "3.13.0", "1", "shared", here)).contains("free-threaded"));
        assert!(said(&answer("cpython", "3.11.2", "0", "static", "/none")).contains("apt-get install libpython3.11"));
        assert!(said("").contains("Name a CPython"));
        assert_eq!(
            complaint("\nshim: python3.13: command not found\n\nNote: x\n"),
            "shim: python3.13: command not found"
        );
        assert_eq!(complaint("Traceback (most recent call last):\n  File\nImportError: x\n"), "ImportError: x");
        let error = Interpreter::find("/nonexistent/python".as_ref()).unwrap_err().to_string();
        assert!(error.contains("does not run"), "{error}");
    }
}
