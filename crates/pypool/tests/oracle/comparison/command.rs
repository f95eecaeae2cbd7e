//! The command line of the tests, which have a `main` of their own: a driver has to be this program too.
//!
//! **Invariant:** whatever is not compared on this machine is said, with the reason.

use std::io::ErrorKind;
use std::process::ExitCode;

use libpython::oracle::{self, Original};
use libpython::{FindError, Interpreter};

/// First and last minor version whose pools are compared on everything.
const MINORS: std::ops::RangeInclusive<u32> = 10..=13;
/// The one of smaller arenas, which `pypool::Before310` is the model of.
const MINOR_BEFORE_310: u32 = 9;

/// What is compared with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `pypool` with every original there is, and with the golden logs.
    Everything,
    /// `pypool` with the originals; an error if there is none.
    LiveOnly,
    /// `pypool` with the golden logs.
    GoldenOnly,
    /// The originals with each other; their answers become the golden logs.
    WriteGolden,
}

impl Mode {
    /// Whether golden logs are compared.
    pub(crate) const fn checks_golden(self) -> bool {
        matches!(self, Self::Everything | Self::GoldenOnly)
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "--live-only" => Some(Self::LiveOnly),
            "--golden-only" => Some(Self::GoldenOnly),
            "--write-golden" => Some(Self::WriteGolden),
            _ => None,
        }
    }
}

/// The `main` of a test: drives if it is told to, else runs the test with the interpreters to compare with.
pub(crate) fn main(name: &str, test: fn(Mode, &[Interpreter]) -> Result<(), String>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == oracle::DRIVE) {
        // SAFETY: nothing has run in this process but Rust's start-up code, and nothing else will.
        return exit_code(unsafe { oracle::drive() });
    }
    // The arguments that `cargo test` passes to every test: a list of names, or a filter.
    if words.iter().any(|word| word == "--list") {
        println!("{name}: test");
        return ExitCode::SUCCESS;
    }
    if words.iter().any(|word| !word.starts_with('-')) && !words.iter().any(|word| name.contains(word.as_str())) {
        println!("{name}: filtered out");
        return ExitCode::SUCCESS;
    }
    let mode = words.iter().find_map(|word| Mode::of(word)).unwrap_or(Mode::Everything);
    exit_code(originals(mode).and_then(|originals| test(mode, &originals)))
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    result.map_or_else(
        |sentence| {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// The interpreters of this machine with a pool to compare with. Says what is missing.
fn originals(mode: Mode) -> Result<Vec<Interpreter>, String> {
    if mode == Mode::GoldenOnly {
        println!("live oracle: not run (--golden-only).");
        return Ok(Vec::new());
    }
    let (mut found, refused) = libpython::distinct();
    found.retain(|interpreter| MINORS.contains(&interpreter.minor));
    if mode == Mode::WriteGolden {
        // The first one is the reference, and 3.10 prints another address map than all later versions.
        found.reverse();
        if found.first().is_none_or(|newest| newest.minor == 10) {
            return Err("Golden logs are written by CPython 3.11 or later, and none was found. Install one.".to_owned());
        }
    }
    if found.is_empty() {
        let is_libraryless = |why: &&FindError| matches!(why, FindError::NoLibrary(..));
        let why: Vec<String> = refused.iter().filter(is_libraryless).map(ToString::to_string).collect();
        let why = if why.is_empty() { "No CPython 3.10 to 3.13 was found.".to_owned() } else { why.join(" ") };
        if mode == Mode::LiveOnly {
            return Err(format!("The live oracle cannot run. {why}"));
        }
        println!(
            "live oracle: not run. {why} Golden logs alone are compared. PYALLOC_BENCH_REQUIRE_PYTHON does not make \
             this a failure: it asks for an interpreter, not for a shared libpython."
        );
        return Ok(found);
    }
    for minor in MINORS.filter(|minor| !found.iter().any(|interpreter| interpreter.minor == *minor)) {
        println!("live oracle: without CPython 3.{minor}, of which no shared libpython was found.");
    }
    Ok(found)
}

/// The interpreters of this machine with the arenas that were usual before 3.10. Says if there is none.
#[allow(dead_code, reason = "the test of the workloads compares later versions alone")]
pub(crate) fn originals_before_310(mode: Mode) -> Vec<Interpreter> {
    if mode == Mode::GoldenOnly {
        return Vec::new();
    }
    let (mut found, _) = libpython::distinct_since(MINOR_BEFORE_310);
    found.retain(|interpreter| interpreter.minor == MINOR_BEFORE_310);
    if found.is_empty() {
        println!("live oracle: without CPython 3.{MINOR_BEFORE_310}, of which no shared libpython was found.");
    }
    found
}

/// Starts a driver for each interpreter, except those that turn out to have other pools.
pub(crate) fn start(interpreters: &[Interpreter]) -> Result<Vec<Original>, String> {
    let mut originals = Vec::new();
    for interpreter in interpreters {
        let name = format!("{} ({})", interpreter.describe(), interpreter.libpython.display());
        match Original::start(interpreter) {
            Ok(original) => originals.push(original),
            Err(error) if error.kind() == ErrorKind::Unsupported => println!("live oracle: without {name}: {error}."),
            Err(error) => return Err(format!("{name} cannot be driven: {error}. What it said stands above.")),
        }
    }
    Ok(originals)
}

/// The same; an error if that leaves none where one is asked for.
pub(crate) fn start_for(interpreters: &[Interpreter], mode: Mode) -> Result<Vec<Original>, String> {
    let originals = start(interpreters)?;
    if originals.is_empty() && mode == Mode::LiveOnly {
        return Err("The live oracle cannot run: no interpreter has pools to compare with.".to_owned());
    }
    Ok(originals)
}
