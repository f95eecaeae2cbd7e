//! Instructions per call inside an allocator, counted by valgrind's callgrind in a worker of its own.
//!
//! Counts do not depend on what else the machine does, so one run is enough. They say how much work a call is, and
//! nothing about caches, branches and faults, which the time beside them contains.
//!
//! Invariant: a figure is given only if callgrind saw exactly the calls that the recording makes.

use pyalloc_bench::measure::{Cell, Config, Image, PACE_LIMIT, Settings, Worker};
use pyalloc_bench::run::{Outcome, Pass, Time};
use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The functions that the replay calls, by the backend that serves the mem and obj domains.
const ENTRIES: [(&str, [&str; 4]); 2] = [
    ("cpython", ["PyObject_Malloc", "PyObject_Calloc", "PyObject_Realloc", "PyObject_Free"]),
    (
        "pool",
        [
            "pyalloc_bench::backend::pool::malloc",
            "pyalloc_bench::backend::pool::calloc",
            "pyalloc_bench::backend::pool::realloc",
            "pyalloc_bench::backend::pool::free",
        ],
    ),
];
/// What the functions that call them are called: the replay's own.
const CALLERS: &str = "pyalloc_bench::";

/// Where valgrind is, if it is on `PATH`.
pub(crate) fn valgrind() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join("valgrind")).find(|path| path.is_file())
}

/// Instructions per call of the whole recording, start-up and exit included.
///
/// # Errors
/// A sentence when nothing could be counted.
pub(crate) fn per_call(
    valgrind: &Path,
    exe: &Path,
    folder: &Path,
    image: &Image,
    config: &Config,
) -> Result<f64, String> {
    let counted = folder.join(format!("{}-{}.callgrind", image.workload.name, config.name));
    let wrapper = folder.join("under-callgrind");
    write_wrapper(&wrapper, valgrind, exe, &counted)?;
    let settings =
        Settings { idle_ms: Vec::new(), time: Time::None, pace: 1, pace_limit: PACE_LIMIT, allow_debug: false };
    let cell = Cell { workload: 0, config: 0, pass: Pass::Throughput, block: 0, padding_bytes: 0 };
    let measured = Worker::start(&wrapper, image, config, &cell, &settings).map_or_else(|failed| *failed, Worker::wait);
    if let Outcome::Failed { stage, reason } = measured.outcome {
        return Err(format!("the worker under callgrind failed, {stage}: {reason}"));
    }
    let (_, entries) = ENTRIES
        .iter()
        .find(|(key, _)| config.keys().contains(key))
        .ok_or_else(|| format!("{} has no entry points that callgrind could be asked about", config.name))?;
    let unreadable = |e: std::io::Error| format!("callgrind's counts cannot be read ({e})");
    let file = fs::File::open(&counted).map_err(unreadable)?;
    let counts = Counts::read(BufReader::new(file), entries).map_err(unreadable)?;
    let expected: u64 = image.compiled.summary.calls_by_phase.iter().sum();
    if counts.calls != expected {
        return Err(format!("callgrind saw {} calls of {expected}", counts.calls));
    }
    Ok(counts.instructions as f64 / counts.calls as f64)
}

/// A worker's environment is empty and its program fixed, so a script stands in for it.
fn write_wrapper(wrapper: &Path, valgrind: &Path, exe: &Path, counted: &Path) -> Result<(), String> {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let script = format!(
        "#!/bin/sh\nexec {} -q --tool=callgrind --compress-strings=yes --callgrind-out-file={} {} \"$@\"\n",
        quoted(valgrind),
        quoted(counted),
        quoted(exe)
    );
    let written =
        fs::write(wrapper, script).and_then(|()| fs::set_permissions(wrapper, fs::Permissions::from_mode(0o755)));
    written.map_err(|e| format!("{} cannot be written ({e})", wrapper.display()))
}

/// What was executed in some functions and in all that they call, when the harness called them.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    calls: u64,
    instructions: u64,
}

impl Counts {
    /// Adds up the edges of callgrind's call graph that lead from the harness to one of `entries`. Its format names a
    /// function once, as `fn=(7) name`, and then by its number; an edge is `cfn=`, `calls=COUNT TARGET`, and a line
    /// whose last number is the inclusive cost.
    fn read(from: impl BufRead, entries: &[&str]) -> std::io::Result<Self> {
        let mut names: HashMap<String, String> = HashMap::new();
        let mut resolve = |text: &str| -> String {
            let (number, name) = text.split_once(' ').unwrap_or((text, ""));
            if !name.is_empty() {
                names.insert(number.to_owned(), name.to_owned());
            }
            names.get(number).cloned().unwrap_or_default()
        };
        let (mut counts, mut is_own, mut is_entry, mut calls) = (Self::default(), false, false, None);
        for line in from.lines() {
            let line = line?;
            if let Some(function) = line.strip_prefix("fn=") {
                is_own = resolve(function).starts_with(CALLERS);
            } else if let Some(function) = line.strip_prefix("cfn=") {
                is_entry = entries.contains(&resolve(function).as_str());
            } else if let Some(count) = line.strip_prefix("calls=") {
                calls = count.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            } else if let Some(calls) = calls.take().filter(|_| is_own && is_entry) {
                let cost = line.rsplit(' ').next().and_then(|cost| cost.parse::<u64>().ok());
                counts.calls += calls;
                counts.instructions += cost.unwrap_or(0);
            }
        }
        Ok(counts)
    }
}
