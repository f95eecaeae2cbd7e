//! Records a Python program's allocations: the preloaded library, the session around it, the converter.
//!
//! The library (`preload/`, compiled by the build script and embedded here) fills windows of a mapped file while the
//! program runs; [`record`] starts the program with it, takes full windows into logs, and converts these into traces.
//! A second library (`announcer/`) records nothing and only says when marks fall. A third (`handler/`) is loaded by the
//! program itself: NumPy's data-memory handler.
//!
//! Invariant: the recorded program behaves as without the recorder, whatever becomes of the recording.

mod child;
mod convert;
mod drain;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod host;
mod images;
mod library;
mod output;
mod packages;
mod program;
mod raw;
mod raw_folder;
mod reader;
mod sampler;
mod session;
mod sites;
mod slot;
mod summary;
mod walk;

pub use convert::Converted;
pub use error::RecordError;
pub use library::PlacedLibrary;
pub use output::check_output;
pub use session::{Image, Options, Report, discard, record, recover};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Writes the library that announces marks to whom `live` has listen: to the user's cache folder, or else to a private
/// folder that is removed when the value is dropped.
///
/// # Errors
/// Where the library does not work, or when no folder is of this user alone.
pub fn announcer() -> Result<PlacedLibrary, RecordError> {
    library::announcer()
}

/// Writes NumPy's data-memory handler and the Python module that installs it to `folder`; the files. A process that has
/// one of an earlier version loaded keeps it.
///
/// # Errors
/// Where the library does not work, or when a file cannot be written.
pub fn write_numpy_handler(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    library::write_numpy_handler(folder)
}

/// Finds the program of a command and checks that a library can be preloaded into it; its path.
///
/// # Errors
/// A sentence about what is in the way.
pub fn check(command: &[OsString]) -> Result<PathBuf, RecordError> {
    program::check(command)
}
