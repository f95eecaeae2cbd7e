//! Integration tests, in one binary: a module per subject.
#![allow(clippy::unwrap_used, reason = "tests")]

mod lock;
mod making;
mod package;
mod reading;
mod source;
mod tidy;
