//! Under construction.
mod job;
pub use job::*;
