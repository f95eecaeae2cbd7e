//! What the tests of the recorder share: the interpreters of this machine, a virtual environment with pinned
//! packages, one recording at a time, and its events.
//!
//! Invariant: an interpreter counts only after it ran; what cannot be tested here is said as `NOT RUN` with its
//! reason, and fails when `PYALLOC_BENCH_REQUIRE_PYTHON=1`.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use recorder::{Options, Report};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use trace::{Event, Metadata, TraceReader};

/// Packages of the virtual environment. NumPy 2.4 takes array data from `malloc`; Arrow 25 and later exports its pool.
const REQUIREMENTS: [&str; 3] = ["numpy==2.4.6", "pyarrow==26.0.1", "gunicorn==23.0.0"];
/// Versions of CPython for which all of [`REQUIREMENTS`] have wheels.
const VENV_MINORS: [u32; 3] = [12, 13, 11];

/// An interpreter that was seen to run.
#[derive(Clone, Debug)]
pub(crate) struct Interpreter {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    pub(crate) minor: u32,
    pub(crate) is_static: bool,
}

impl Interpreter {
    pub(crate) fn label(&self) -> String {
        let build = if self.is_static { "static" } else { "shared" };
        format!("CPython {} {build} ({})", self.version, self.path.display())
    }
}

/// Every CPython 3.9 and later among [`libpython::candidates`] that runs. The list is printed once.
pub(crate) fn interpreters() -> &'static [Interpreter] {
    static FOUND: OnceLock<Vec<Interpreter>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: BTreeMap<PathBuf, Interpreter> = BTreeMap::new();
        for candidate in libpython::candidates() {
            match ask(&candidate) {
                Some(interpreter) => {
                    found.entry(interpreter.path.clone()).or_insert(interpreter);
                }
                None => println!("absent: {} does not run as CPython 3.9 or later", candidate.display()),
            }
        }
        for interpreter in found.values() {
            println!("covered: {}", interpreter.label());
        }
        for minor in 10..=14 {
            if !found.values().any(|interpreter| interpreter.minor == minor) {
                println!("absent: CPython 3.{minor}");
            }
        }
        found.into_values().collect()
    })
}

fn ask(candidate: &Path) -> Option<Interpreter> {
    let code = "import sys, os; v = sys.version_info; \
                print(os.path.realpath(sys.executable)); print('%d.%d.%d' % v[:3]); print(v[1]); \
                print(sys.implementation.name, v[0]); print('libpython' in open('/proc/self/maps').read())";
    let output = Command::new(candidate).args(["-I", "-c", code]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let mut lines = text.lines();
    let (path, version) = (PathBuf::from(lines.next()?), lines.next()?.to_owned());
    let minor = lines.next()?.parse().ok()?;
    let is_cpython = lines.next()? == "cpython 3";
    (is_cpython && minor >= 9).then_some(Interpreter { path, version, minor, is_static: lines.next()? == "False" })
}

/// Any interpreter, the tested versions first; none after saying `NOT RUN`.
pub(crate) fn any_interpreter() -> Option<&'static Interpreter> {
    let best =
        interpreters().iter().max_by_key(|interpreter| ((10..=13).contains(&interpreter.minor), interpreter.minor));
    if best.is_none() {
        not_run("no CPython 3.9 or later was found");
    }
    best
}

/// Says that a test did not run, and why; fails where that is not allowed.
pub(crate) fn not_run(why: &str) {
    assert!(std::env::var_os("PYALLOC_BENCH_REQUIRE_PYTHON").is_none_or(|value| value != "1"), "NOT RUN: {why}");
    println!("NOT RUN: {why}");
}

/// The interpreter of a virtual environment with [`REQUIREMENTS`], made once below the target folder; none after
/// saying `NOT RUN`.
pub(crate) fn python_with_packages() -> Option<PathBuf> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match MADE.get_or_init(make_environment) {
        Ok(python) => Some(python.clone()),
        Err(why) => {
            not_run(why);
            None
        }
    }
}

fn make_environment() -> Result<PathBuf, String> {
    let base = VENV_MINORS
        .iter()
        .find_map(|minor| {
            interpreters().iter().find(|interpreter| interpreter.minor == *minor && has_venv(interpreter))
        })
        .ok_or("no CPython 3.11 to 3.13 with the venv module was found")?;
    // Beside the test binary's own folder: `target/<profile>/deps` and up.
    let target = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = target.ancestors().nth(3).ok_or("the test does not run from a target folder")?;
    let name = format!("python-{}-{}", base.version, REQUIREMENTS.join("-").replace("==", "-"));
    let folder = target.join(name);
    let python = folder.join("bin/python3");
    // Several test binaries may want it at once.
    let lock = File::create(folder.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if folder.join("complete").exists() {
        return Ok(python);
    }
    run(Command::new(&base.path).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"];
    run(Command::new(&python).args(pip).args(REQUIREMENTS))?;
    File::create(folder.join("complete")).map_err(|error| error.to_string())?;
    Ok(python)
}

fn has_venv(interpreter: &Interpreter) -> bool {
    let status = Command::new(&interpreter.path).args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("making the virtual environment failed: {}", text.lines().last().unwrap_or("no message")))
}

/// Recordings pass signals on through process-wide state, so there is one at a time.
pub(crate) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Options for recording `python -c code` (or another command) into `folder`.
pub(crate) fn options(folder: &Path, python: &Path, arguments: &[&str]) -> Options {
    let mut command: Vec<OsString> = vec![python.into()];
    command.extend(arguments.iter().map(OsString::from));
    Options { output: folder.join("test.trace"), command, ..Options::default() }
}

/// Records, and insists that the recorder itself did not fail.
pub(crate) fn record(options: &Options) -> Report {
    let mut said = Vec::new();
    let report = recorder::record(options, &mut |line| said.push(line.to_owned()));
    report.unwrap_or_else(|error| panic!("{error} (after saying {said:?})"))
}

/// Metadata and events of a trace, which is read to its checked end.
pub(crate) fn read(path: &Path) -> (Metadata, Vec<Event>) {
    let mut reader = TraceReader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let events: Vec<Event> = reader.by_ref().collect::<Result<_, _>>().unwrap();
    let mut metadata = reader.metadata().clone();
    metadata.totals = reader.totals().unwrap().clone();
    (metadata, events)
}
