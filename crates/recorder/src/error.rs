//! What can go wrong with a recording, each as a sentence that ends with what the user can do.
//!
//! Invariant: nothing here is about the recorded program: its own failures are passed through as its exit code.

use std::io;
use std::path::PathBuf;

/// Why a recording could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// No such program.
    #[error("{0}: no such program; give a path, or a name that PATH has")]
    NotFound(String),
    /// The program cannot be run.
    #[error("{program}: {why}")]
    NotRunnable {
        /// The program as given.
        program: String,
        /// Why, with what to do.
        why: String,
    },
    /// The program runs, but nothing can be preloaded into it.
    #[error("{program}: {why}")]
    CannotRecord {
        /// The program as given.
        program: String,
        /// Why, with what to do.
        why: String,
    },
    /// This build carries no recorder.
    #[error("recording works on x86-64 Linux with glibc only; record there and replay the trace here")]
    Unsupported,
    /// The command asks for something that would disable the recorder.
    #[error("`-X dev` makes Python replace its allocators, which hides them from the recorder; leave it out")]
    DevMode,
    /// The raw data would go to memory.
    #[error(
        "{0} is on a memory file system, where raw data would count as memory; \
         give -o a path on a disk (or set TMPDIR to one)"
    )]
    MemoryFileSystem(PathBuf),
    /// The output is something that no trace may replace.
    #[error(transparent)]
    Target(#[from] files::Refusal),
    /// A folder or file of the recorder's own.
    #[error("{path} cannot be written: {error}. {}", advice(error))]
    Output {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// No folder for the preloaded library.
    #[error(
        "the library to preload cannot be written to a folder that only this user can change ({0}); set XDG_CACHE_HOME \
         to such a folder"
    )]
    NoPlace(String),
    /// The program could not be started.
    #[error("{program} could not be started: {error}; try the command without `record` first")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// There is nothing to recover there.
    #[error("{0} holds no raw data of a recording; name the folder .pyalloc-raw-... that a killed `record` left")]
    NoRawData(PathBuf),
    /// The session of the raw data is alive.
    #[error("{0} belongs to a recording that still runs; wait for its end")]
    StillRecording(PathBuf),
    /// Raw data stays where it is.
    #[error("{path} cannot be removed: {error}. Remove it by hand")]
    NotRemoved {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It is not known where the trace goes.
    #[error("{0} does not say where its trace goes; give -o FILE")]
    NoOutput(PathBuf),
    /// Raw data cannot be read.
    #[error("the raw data in {path} cannot be read: {error}; record again")]
    Raw {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The trace cannot be written.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
}

impl RecordError {
    /// The exit code: 127 for a missing program, 126 for one that cannot be run, 125 for the recorder's own failures.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::NotRunnable { .. } | Self::Start { .. } => 126,
            _ => 125,
        }
    }
}

/// What to do about a file that could not be written.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => "Make room there, or give -o a path on another disk",
        Some(libc::EFBIG) => "Raise the limit on files: ulimit -f unlimited",
        Some(libc::EMFILE) => "Raise the limit on descriptors: ulimit -n 1024",
        Some(libc::ENOENT) => "Leave its folder where it is while the program runs",
        _ => "Give -o a path in a writable folder",
    }
}
