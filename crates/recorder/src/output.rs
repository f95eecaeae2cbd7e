//! The check of a recording's output, before the program runs.
//!
//! Invariant: what passes is absent, or an older trace; a device, a pipe, a link, a folder and any other file stay as
//! they are.

use crate::error::RecordError;
use files::Kind;
use std::path::Path;

/// Checks that a trace could be put there. It leaves nothing behind.
///
/// # Errors
/// A sentence that names the output and ends with what to do.
pub fn check_output(output: &Path) -> Result<(), RecordError> {
    Ok(files::check_target(output, Kind::Trace)?)
}
