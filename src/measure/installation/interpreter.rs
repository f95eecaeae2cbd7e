//! What an interpreter says of itself: version, build, C library, where its packages are, and which allocator serves
//! its objects.
//!
//! Invariant: the interpreter answers; nothing is concluded from its file name. No package of it is imported.

use crate::measure::spawn::{ChildSpec, Ending, Running, answer};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use std::time::Duration;

/// An answer takes milliseconds, a large library a second.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Folders of the working directory are taken off first: a module there must not stand in for the library's.
const QUESTION: &str = "
import sys
sys.path = [path for path in sys.path if path]
import json, os, sysconfig
get = sysconfig.get_config_var
folders = [os.path.realpath(path) for path in sys.path if os.path.isdir(path)]
library = {os.path.realpath(sysconfig.get_path(name)) for name in ('stdlib', 'platstdlib')}
maps = (line.split(None, 5)[-1].strip() for line in open('/proc/self/maps'))
shared = sorted({path for path in maps if 'libpython3' in path})
try: libc = os.confstr('CS_GNU_LIBC_VERSION')
except (ValueError, OSError): libc = None
print(json.dumps({
    'program': sys.executable,
    'implementation': sys.implementation.name,
    'version': '%d.%d.%d' % sys.version_info[:3],
    'has_pymalloc': bool(get('WITH_PYMALLOC')),
    'has_mimalloc': bool(get('WITH_MIMALLOC')),
    'is_free_threaded': bool(get('Py_GIL_DISABLED')),
    'is_debug': hasattr(sys, 'gettotalrefcount'),
    'libc': libc,
    'code': shared[0] if shared else os.path.realpath(sys.executable),
    'folders': [path for path in folders if path not in library],
}))
";
/// Has the interpreter print what its object allocator holds; without `site`, and before any package.
const STATISTICS: [&str; 3] = ["-S", "-c", "import sys; sys._debugmallocstats()"];

/// An interpreter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// Its program, as it names itself: inside its virtual environment.
    pub program: PathBuf,
    /// `cpython`, or another.
    pub implementation: String,
    /// Such as `3.11.7`.
    pub version: String,
    /// Whether pymalloc is compiled in.
    pub has_pymalloc: bool,
    /// Whether it was configured with mimalloc (3.13 and later).
    pub has_mimalloc: bool,
    /// Whether it runs without the GIL.
    pub is_free_threaded: bool,
    /// Whether it is a debug build, whose default allocators check every block.
    pub is_debug: bool,
    /// Such as `glibc 2.36`; `None` where it is another C library.
    pub libc: Option<String>,
    /// The file that its code is in: the program, or a shared libpython.
    pub code: PathBuf,
    /// Where it looks for modules, without its own standard library.
    pub folders: Vec<PathBuf>,
    /// Which allocator serves objects without any variable: `pymalloc`, `malloc`, `mimalloc`. `None`: it did not say.
    #[serde(default)]
    pub default_allocator: Option<String>,
}

impl Python {
    /// Asks a program, or the one in a virtual environment's folder.
    ///
    /// # Errors
    /// A sentence: there is none, or it is no CPython 3.
    pub(super) fn find(place: &str) -> Result<Self, String> {
        let program = program(place)?;
        let not_python = |why: &str| {
            format!("{place} does not answer as Python 3 does ({why}). Name an interpreter or its virtual environment.")
        };
        let output = answer(&program, ["-c", QUESTION]);
        let output = output.map_err(|error| not_python(&error.to_string()))?;
        if !output.status.success() {
            return Err(not_python("it ended with an error"));
        }
        let mut python: Self = serde_json::from_slice(&output.stdout).map_err(|_| not_python("no facts"))?;
        if python.implementation != "cpython" {
            let what = format!("{} {}", python.implementation, python.version);
            return Err(format!("{place} is {what}, whose memory no variable here steers. Name a CPython."));
        }
        python.default_allocator = python.serving(&[]).ok();
        Ok(python)
    }

    /// Which allocator serves objects with these variables.
    ///
    /// # Errors
    /// What the interpreter says when it does not start with them.
    pub(super) fn serving(&self, variables: &[(String, OsString)]) -> Result<String, String> {
        let answer = self.run(&STATISTICS, variables)?;
        // mimalloc and pymalloc both speak of blocks; only one has arenas, only the other large objects.
        let name = match () {
            () if answer.contains("Large object max size") => "mimalloc",
            () if answer.contains("arenas") => "pymalloc",
            () => "malloc",
        };
        Ok(name.to_owned())
    }

    /// Has it run something in an environment of nothing but `variables`; what it wrote to its error output.
    ///
    /// # Errors
    /// The end of what it said, when it did not end well.
    pub(super) fn run(&self, arguments: &[&str], variables: &[(String, OsString)]) -> Result<String, String> {
        let spec = ChildSpec { exe: &self.program, arguments, input: b"", padding_bytes: 0, variables, inherit: &[] };
        let finished = Running::start(&spec).and_then(|child| child.wait(TIMEOUT)).map_err(|e| e.to_string())?;
        if finished.ending == Ending::Exited(0) {
            return Ok(finished.errors);
        }
        // A traceback says most in its last line, a fatal error in its first.
        let mut lines = finished.errors.lines().map(str::trim).filter(|line| !line.is_empty());
        let said = if finished.errors.contains("Traceback") { lines.next_back() } else { lines.next() };
        Err(said.unwrap_or("it gave no reason").to_owned())
    }
}

/// The program that a place means.
fn program(place: &str) -> Result<PathBuf, String> {
    let path = Path::new(place);
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let inside = ["bin/python", "bin/python3"].map(|name| path.join(name));
    inside.into_iter().find(|program| program.exists()).ok_or_else(|| {
        format!("The folder {place} holds no bin/python. Name an interpreter, or the folder of a virtual environment.")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_place_without_python_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        for (place, expected) in [
            (empty.path().to_str().unwrap(), "holds no bin/python"),
            ("/nonexistent/python", "does not answer"),
            ("false", "ended with an error"),
            ("true", "no facts"),
        ] {
            let error = Python::find(place).unwrap_err();
            assert!(error.contains(expected) && error.contains("Name an interpreter"), "{error}");
        }
    }
}
