//! One recording from start to end: prepare, run, convert, say what was caught and what was lost.
//!
//! Invariant: the recorded program's output and exit code are its own; whatever the recorder has to say goes to the
//! caller's `say` or into the report. Raw data lies on a disk beside the output and is removed once it is converted.

use crate::child;
use crate::convert::{self, Converted, Outside};
use crate::error::RecordError;
use crate::output::check_output;
use crate::reader::RawFile;
use crate::{host, library, program};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trace::MemoryReading;

/// Python images with room for at least this many records get a trace of their own.
const WORKER_RECORDS_MIN: u64 = 50_000;
/// How often the program's memory is looked at from outside.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

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
    /// Room for records in its raw file: an upper bound of its events.
    pub records_max: u64,
    /// Its trace and what is in it, if it got one.
    pub trace: Option<(PathBuf, Converted)>,
}

/// What a recording gave.
#[derive(Clone, Debug)]
pub struct Report {
    /// Exit code of the program, as a shell would give it.
    pub exit_code: u8,
    /// Every image, in the order of their start.
    pub images: Vec<Image>,
    /// Index of the image whose trace is the output.
    pub main: usize,
}

impl Report {
    /// What the main trace holds.
    #[must_use]
    pub fn converted(&self) -> Option<&Converted> {
        self.images.get(self.main)?.trace.as_ref().map(|trace| &trace.1)
    }
}

/// Records a program. `say` gets a line for each thing that the user should know before the program starts.
///
/// # Errors
/// Only the recorder's own failures; [`RecordError::exit_code`] gives the code to leave with.
pub fn record(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report, RecordError> {
    let path = program::check(&options.command)?;
    check_output(&options.output)?;
    let folder = raw_folder(&options.output)?;
    let result = record_into(options, &path, &folder, say);
    // Raw data that could not be converted is kept for another try.
    if !matches!(result, Err(RecordError::Trace(_) | RecordError::Raw { .. } | RecordError::Output { .. })) {
        let _ = fs::remove_dir_all(&folder);
    }
    result
}

fn record_into(
    options: &Options,
    program: &Path,
    folder: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Report, RecordError> {
    let library = library::extract(&library::RECORDER, folder)?;
    let mut command = Command::new(program);
    command.args(&options.command[1..]);
    set_name(&mut command, &options.command[0]);
    set_environment(&mut command, options, folder, &library, say);
    let sampler = Sampler::new(folder, &library);
    let mut pid = 0;
    let status = child::run(&mut command, |started| {
        pid = started;
        sampler.start(started);
    });
    let peak = sampler.finish();
    let name = options.command[0].to_string_lossy().into_owned();
    let status = status.map_err(|error| RecordError::Start { program: name, error })?;
    let outside = Outside { options: shaping(options), peak, notes: Vec::new(), host: host::read() };
    convert_all(options, folder, pid, child::exit_code(status), outside)
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
fn shaping(options: &Options) -> BTreeMap<String, String> {
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

fn partial(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    output.with_file_name(name)
}

/// Makes the folder for raw data: beside the output, or in the temporary folder when that is in memory.
fn raw_folder(output: &Path) -> Result<PathBuf, RecordError> {
    let beside = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let candidates = [beside.clone(), std::env::temp_dir(), PathBuf::from("/var/tmp")];
    let Some(base) = candidates.into_iter().find(|base| base.is_dir() && !host::is_memory_file_system(base)) else {
        return Err(RecordError::MemoryFileSystem(beside));
    };
    let failed = |error| RecordError::Output { path: beside.clone(), error };
    let base = fs::canonicalize(&base).map_err(failed)?;
    let folder = base.join(format!(".pyalloc-raw-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
    Ok(folder)
}

fn convert_all(
    options: &Options,
    folder: &Path,
    pid: u32,
    exit_code: u8,
    outside: Outside,
) -> Result<Report, RecordError> {
    let raws = open_all(folder)?;
    let why = "the program made no call that the recorder could see; is it a wrapper that clears LD_PRELOAD?";
    let main = main_of(&raws, pid).ok_or_else(|| RecordError::Nothing(why.to_owned()))?;
    let mut images = Vec::new();
    for (index, raw) in raws.iter().enumerate() {
        let python = convert::python(raw);
        let is_wanted = index == main || (python.is_some() && (options.all || raw.records_max() >= WORKER_RECORDS_MIN));
        let trace = if is_wanted {
            let to =
                if index == main { options.output.clone() } else { worker_output(&options.output, raw.pid(), index) };
            let outside = if raw.pid() == pid { outside.clone() } else { Outside { peak: None, ..outside.clone() } };
            let partial = partial(&to);
            let converted =
                convert::convert(raw, &partial, &outside).inspect_err(|_| drop(fs::remove_file(&partial)))?;
            fs::rename(&partial, &to).map_err(|error| RecordError::Output { path: to.clone(), error })?;
            Some((to, converted))
        } else {
            None
        };
        images.push(Image {
            pid: raw.pid(),
            program: raw.program(),
            python: python.map(|python| python.version),
            is_forked: raw.has_flag(crate::raw::flag::FORKED),
            has_exited: raw.has_exited(),
            records_max: raw.records_max(),
            trace,
        });
    }
    Ok(Report { exit_code, images, main })
}

/// Every readable raw file, in the order of their start.
fn open_all(folder: &Path) -> Result<Vec<RawFile>, RecordError> {
    let list = fs::read_dir(folder).map_err(|error| RecordError::Raw { path: folder.to_owned(), error })?;
    let mut paths: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "raw"));
    paths.sort_by_key(|path| {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        stem.split_once('-').and_then(|(_, time)| time.parse::<u64>().ok())
    });
    // A file that was never finished being made belongs to a process that was killed in its first instant.
    Ok(paths.iter().filter_map(|path| RawFile::open(path).ok()).collect())
}

/// The image that is the program: of those whose Python hooks took, the largest in the main process, or else the
/// largest of all; without Python, the last image of the main process.
fn main_of(raws: &[RawFile], pid: u32) -> Option<usize> {
    let is_python = |raw: &RawFile| raw.has_flag(crate::raw::flag::PYTHON);
    let rank = |raw: &RawFile| (is_python(raw), raw.pid() == pid, raw.records_max());
    (0..raws.len()).max_by_key(|&index| rank(&raws[index]))
}

/// `app.trace` becomes `app.1234.trace`; a second image of that process gets its place in the list as well.
fn worker_output(output: &Path, pid: u32, index: usize) -> PathBuf {
    let with = |label: String| match output.extension() {
        Some(extension) => output.with_extension(format!("{label}.{}", extension.to_string_lossy())),
        None => output.with_extension(label),
    };
    let plain = with(pid.to_string());
    if plain.exists() { with(format!("{pid}-{index}")) } else { plain }
}

/// Watches the main process's memory from outside, for its peak.
struct Sampler {
    folder: PathBuf,
    preload: PathBuf,
    is_over: Arc<AtomicBool>,
    peak: Arc<Mutex<Option<MemoryReading>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Sampler {
    fn new(folder: &Path, library: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            preload: library.to_owned(),
            is_over: Arc::default(),
            peak: Arc::default(),
            thread: Mutex::default(),
        }
    }

    fn start(&self, pid: u32) {
        let (folder, library) = (self.folder.clone(), self.preload.clone());
        let (is_over, peak) = (Arc::clone(&self.is_over), Arc::clone(&self.peak));
        let watch = move || {
            let mut highest = 0;
            while !is_over.load(Ordering::Relaxed) {
                // The split by kind costs milliseconds of the program's memory lock: only for a new peak.
                let now = host::anonymous_bytes(pid).unwrap_or(0);
                if now > highest + highest / 256 {
                    highest = now;
                    if let (Some(reading), Ok(mut peak)) = (host::memory(pid, &folder, &library), peak.lock()) {
                        let is_higher = |old: MemoryReading| reading.rss_anon_bytes > old.rss_anon_bytes;
                        if peak.is_none_or(is_higher) {
                            *peak = Some(reading);
                        }
                    }
                }
                std::thread::park_timeout(SAMPLE_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("sampler".to_owned()).spawn(watch).ok();
        if let Ok(mut slot) = self.thread.lock() {
            *slot = thread;
        }
    }

    fn finish(self) -> Option<MemoryReading> {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.into_inner().ok().flatten() {
            thread.thread().unpark();
            let _ = thread.join();
        }
        self.peak.lock().ok().and_then(|peak| *peak)
    }
}
