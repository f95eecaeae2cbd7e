//! The built binary, and what it said, for the tests that use it as people do.
//!
//! Invariant: it never waits for input.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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

/// Waits until `found` gives something.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(started.elapsed() < limit, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
