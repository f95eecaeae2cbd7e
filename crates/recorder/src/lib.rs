//! Records a Python program's allocations: the preloaded library, the session around it, the converter.
//!
//! The library (`preload/`, compiled by the build script and embedded here) writes raw files while the program runs;
//! [`record`] starts the program with it, waits, and converts what it left into traces.
//!
//! Invariant: the recorded program behaves as without the recorder, whatever becomes of the recording.

mod child;
mod convert;
mod error;
mod host;
mod library;
mod packages;
mod program;
mod raw;
mod reader;
mod session;
mod sites;
mod summary;
mod walk;

pub use convert::Converted;
pub use error::RecordError;
pub use session::{Image, Options, Report, record};
