//! One recording from start to end: prepare, run, convert, say what was caught and what was lost.
//!
//! Invariant: the recorded program's output and exit code are its own; whatever the recorder has to say goes to the
//! caller's `say` or into the report. Raw data lies on a disk beside the output and is removed once it is converted.

use crate::child;
use crate::convert::{Converted, Outside};
use crate::drain::{Drainer, SessionFile};
use crate::error::RecordError;
use crate::images::{self, Wanted};
use crate::output::check_output;
use crate::raw_folder::{self, RawFolder};
use crate::sampler::Sampler;
use crate::{host, library, program};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What to record, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The trace to write.
    pub output: PathBuf,
    /// Stop recording after this long (counted from the end of `after`); the program goes on.
    pub run_for: Option<Duration>,
    /// What happens before counts as start-up.
    pub after: Option<Duration>,
    /// Most raw bytes per process; then recording stops and the program goes on.
    pub max_bytes: Option<u64>,
    /// Whether every Python process gets a trace, however small.
    pub all: bool,
    /// Program and arguments.
    pub command: Vec<OsString>,
}

/// One exec image (or forked child) that was recorded.
#[derive(Clone, Debug)]
pub struct Image {
    /// Process id.
    pub pid: u32,
    /// Name of the program.
    pub program: String,
    /// Version of the interpreter, if it was one.
    pub python: Option<String>,
    /// Whether it is a forked child.
    pub is_forked: bool,
    /// Whether it was seen to exit.
    pub has_exited: bool,
    /// Room for records in its raw data: an upper bound of its events.
    pub records_max: u64,
    /// Its trace and what is in it, if it got one.
    pub trace: Option<(PathBuf, Converted)>,
}

/// What a recording gave.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Exit code of the program, as a shell would give it.
    pub exit_code: u8,
    /// Every image, in the order of their start.
    pub images: Vec<Image>,
    /// Index of the image whose trace is the output.
    pub main: usize,
    /// What went wrong with the recording: sentences that end with what to do.
    pub problems: Vec<String>,
    /// The folder of raw data, where it was kept because a trace could not be written.
    pub raw_data: Option<PathBuf>,
}

impl Report {
    /// The main trace, if it was written.
    #[must_use]
    pub fn trace(&self) -> Option<&Path> {
        self.images.get(self.main)?.trace.as_ref().map(|trace| trace.0.as_path())
    }

    /// What the main trace holds.
    #[must_use]
    pub fn converted(&self) -> Option<&Converted> {
        self.images.get(self.main)?.trace.as_ref().map(|trace| &trace.1)
    }
}

/// Records a program. `say` gets a line for each thing that the user should know before the program starts.
///
/// # Errors
/// Only what keeps the program from being started; [`RecordError::exit_code`] gives the code to leave with. What goes
/// wrong later is in the report, with the program's own exit code.
pub fn record(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report, RecordError> {
    let path = program::check(&options.command)?;
    check_output(&options.output)?;
    for left in raw_folder::leftovers(&options.output) {
        say(&left);
    }
    let folder = RawFolder::create(options)?;
    if folder.is_copy_on_write() {
        say("raw data lies on a copy-on-write file system: if its disk fills up, the program may end by SIGBUS. Keep \
             100 MiB free, or give -o a path on another file system");
    }
    let report = record_into(options, &path, &folder, say);
    match report {
        Ok(report) if report.raw_data.is_some() => Ok(report),
        other => {
            folder.remove();
            other
        }
    }
}

/// Turns the raw data of a recording that was killed, or whose trace could not be written, into a trace. `output`: in
/// the place of the one that was asked for then.
///
/// # Errors
/// When the folder holds no raw data of this version, or its recording still runs.
pub fn recover(folder: &Path, output: Option<&Path>) -> Result<Report, RecordError> {
    let folder = RawFolder::open(folder)?;
    let unreadable = |error| RecordError::Raw { path: folder.path().to_owned(), error };
    let Some(mut session) = SessionFile::open(folder.path()).map_err(unreadable)? else {
        folder.remove();
        let problem = "nothing is left to recover: `record` was killed before it started the program, or after it \
                       wrote the trace. The folder is removed";
        return Ok(Report { problems: vec![problem.to_owned()], ..Report::default() });
    };
    let kept = folder.kept().map_err(unreadable)?;
    let output = output.map(Path::to_owned).or_else(|| kept.output.clone().map(PathBuf::from));
    let output = output.ok_or_else(|| RecordError::NoOutput(folder.path().to_owned()))?;
    check_output(&output)?;
    let outside = Outside { options: kept.options, host: kept.host, ..Outside::default() };
    let report = images::convert_all(&mut session, folder.path(), &Wanted { output: &output, all: kept.all }, outside);
    let report = Report { exit_code: 0, ..report };
    if report.raw_data.is_none() {
        folder.remove();
    }
    Ok(report)
}

/// Removes raw data without a trace.
///
/// # Errors
/// When the folder holds no raw data, or its recording still runs.
pub fn discard(folder: &Path) -> Result<(), RecordError> {
    RawFolder::open(folder)?.discard()
}

fn record_into(
    options: &Options,
    program: &Path,
    folder: &RawFolder,
    say: &mut dyn FnMut(&str),
) -> Result<Report, RecordError> {
    let library = library::extract(&library::RECORDER, folder.path())?;
    let mut command = Command::new(program);
    command.args(&options.command[1..]);
    set_name(&mut command, &options.command[0]);
    set_environment(&mut command, options, folder.path(), &library, say);
    let session = SessionFile::create(folder.path())
        .map_err(|error| RecordError::Output { path: folder.path().to_owned(), error })?;
    let drainer =
        Drainer::start(session).map_err(|error| RecordError::Output { path: folder.path().to_owned(), error })?;
    let sampler = Sampler::new(folder.path(), &library);
    let status = child::run(&mut command, |started| {
        drainer.set_main_pid(started);
        sampler.start(started);
    });
    let peak = sampler.finish();
    let mut session = drainer.finish();
    let name = options.command[0].to_string_lossy().into_owned();
    let status = status.map_err(|error| RecordError::Start { program: name, error })?;
    let outside = Outside { options: shaping(options), peak, host: host::read(), ..Outside::default() };
    let wanted = Wanted { output: &options.output, all: options.all };
    let report = images::convert_all(&mut session, folder.path(), &wanted, outside);
    Ok(Report { exit_code: child::exit_code(status), ..report })
}

/// The program sees the name that it was called by.
fn set_name(command: &mut Command, name: &OsString) {
    use std::os::unix::process::CommandExt;
    command.arg0(name);
}

fn set_environment(command: &mut Command, options: &Options, folder: &Path, library: &Path, say: &mut dyn FnMut(&str)) {
    let mut preload = library.as_os_str().to_owned();
    if let Some(before) = std::env::var_os("LD_PRELOAD").filter(|before| !before.is_empty()) {
        say(
            "LD_PRELOAD was set: the recorder goes in front, and an allocator preloaded there serves nothing meanwhile",
        );
        preload.push(":");
        preload.push(before);
    }
    command.env("LD_PRELOAD", preload).env("PYALLOC_RECORD_FOLDER", folder);
    for name in ["PYTHONMALLOC", "PYTHONDEVMODE"] {
        if std::env::var_os(name).is_some() {
            say(&format!("{name} is left out of the program's environment: it would take the recorder's hooks away"));
            command.env_remove(name);
        }
    }
    if std::env::var_os("PYTHONHASHSEED").is_none() {
        command.env("PYTHONHASHSEED", "0");
    }
    let limits = [
        ("PYALLOC_RECORD_MAX_BYTES", options.max_bytes),
        ("PYALLOC_RECORD_AFTER_NS", options.after.map(nanoseconds)),
        ("PYALLOC_RECORD_FOR_NS", options.run_for.map(nanoseconds)),
    ];
    for (name, value) in limits {
        match value {
            Some(value) => command.env(name, value.to_string()),
            None => command.env_remove(name),
        };
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The options that shape the events, for the metadata.
pub(crate) fn shaping(options: &Options) -> BTreeMap<String, String> {
    let seconds = |duration: Duration| format!("{}s", duration.as_secs_f64());
    [
        ("for", options.run_for.map(seconds)),
        ("after", options.after.map(seconds)),
        ("max_size", options.max_bytes.map(|bytes| bytes.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), value?)))
    .collect()
}
