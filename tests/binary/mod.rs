//! The built binary, and what it said, for the tests that use it as people do.
//!
//! Invariant: it never waits for input.

use std::process::{Command, Output, Stdio};

/// The binary, without arguments.
pub(crate) fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command: its exit code (-1 when a signal ended it), its output and its error output.
pub(crate) fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}
