//! One child process: the same binary under a hidden verb, with an emptied environment, a job on its standard input
//! and its answer on its standard output.
//!
//! Invariant: a child inherits exactly the descriptors given, whatever other threads spawn meanwhile, and whatever
//! becomes of it (crash, kill, silence) ends as an [`Ending`], never as a panic or a hang of the parent. A child does
//! not outlive the thread that started it, so that thread waits for it.

use super::fitness;
use crate::probe::sys;
use rustix::io::{FdFlags, fcntl_setfd};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Variables that a child keeps, because without them the loader may not find the C library.
const KEPT_VARIABLES: &[&str] = &["LD_LIBRARY_PATH"];
/// The variable that shifts the child's stack by a random amount.
pub(super) const PADDING_VARIABLE: &str = "PYALLOC_BENCH_PADDING";
/// Most bytes of a child's error output that are kept.
const STDERR_BYTES_MAX: u64 = 16 * 1024;
/// Stack of a thread that reads a pipe: it has a buffer of 8 KiB and two calls.
const DRAIN_STACK_BYTES: usize = 256 << 10;
/// How often a child that closed its output but lives on is looked at.
const POLL: Duration = Duration::from_micros(200);

/// Held while descriptors are inheritable, so that no other child gets them.
static SPAWNING: Mutex<()> = Mutex::new(());

/// What to start.
#[derive(Debug)]
pub struct ChildSpec<'a> {
    /// The binary.
    pub exe: &'a Path,
    /// The hidden verb and its arguments.
    pub arguments: &'a [&'a str],
    /// What it reads on its standard input.
    pub input: &'a [u8],
    /// Random padding of its environment, bytes.
    pub padding_bytes: u32,
    /// Variables of its environment besides those that every child has.
    pub variables: &'a [(String, OsString)],
    /// Descriptors that it inherits under their own numbers.
    pub inherit: &'a [BorrowedFd<'a>],
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It ran past its time and was killed.
    TimedOut,
}

/// What a child left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// All of its standard output.
    pub output: Vec<u8>,
    /// The beginning of its error output, trimmed.
    pub errors: String,
    /// From before the start to after the end, nanoseconds.
    pub wall_ns: u64,
}

/// A started child.
#[derive(Debug)]
pub struct Running {
    child: Child,
    started: Instant,
    output: Receiver<Vec<u8>>,
    errors: Receiver<Vec<u8>>,
}

impl Running {
    /// Starts a child.
    ///
    /// # Errors
    /// When the process cannot be made.
    pub fn start(spec: &ChildSpec<'_>) -> std::io::Result<Self> {
        let mut command = Command::new(spec.exe);
        command.args(spec.arguments).env_clear();
        for name in KEPT_VARIABLES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(spec.variables.iter().map(|(name, value)| (name, value)));
        command.env(PADDING_VARIABLE, "x".repeat(spec.padding_bytes as usize));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C reaches the parent alone: a child's end is then never taken for a failed run.
        command.process_group(0);
        sys::tie_to_this_thread(&mut command);
        let started = Instant::now();
        let mut child = spawn_with(&mut command, spec.inherit)?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let (output, errors) = drain_both(pipes, [u64::MAX, STDERR_BYTES_MAX]).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        if let Some(mut input) = child.stdin.take() {
            // A child that dies before it reads its job says so by how it ends.
            let _ = input.write_all(spec.input);
        }
        Ok(Self { child, started, output, errors })
    }

    /// The child's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end, at most until `timeout` after the start; then kills the child.
    ///
    /// # Errors
    /// When the kernel cannot say how the child ended.
    pub fn wait(mut self, timeout: Duration) -> std::io::Result<Finished> {
        let deadline = self.started + timeout;
        let output = self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut timed_out = matches!(output, Err(RecvTimeoutError::Timeout));
        let status = loop {
            if timed_out {
                let _ = self.child.kill();
                break self.child.wait()?;
            }
            // The output has ended, so the child has too, or is about to.
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            timed_out = Instant::now() >= deadline;
            thread::sleep(POLL);
        };
        let wall_ns = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let errors = self.errors.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        Ok(Finished {
            ending: if timed_out { Ending::TimedOut } else { ending(status) },
            output: output.unwrap_or_default(),
            errors: String::from_utf8_lossy(&errors).trim().to_owned(),
            wall_ns,
        })
    }

    /// Ends a child that is no longer wanted; how it had ended by itself, if it had.
    pub fn kill(self) -> Option<Ending> {
        self.kill_after(Duration::ZERO)
    }

    /// The same, once the child had so long to end by itself: the kernel closes a killed child's pipes before its end
    /// can be seen.
    pub fn kill_after(mut self, grace: Duration) -> Option<Ending> {
        let until = Instant::now() + grace;
        let ended = loop {
            let ended = self.child.try_wait().ok().flatten().map(ending);
            if ended.is_some() || Instant::now() >= until {
                break ended;
            }
            thread::sleep(POLL);
        };
        let _ = self.child.kill();
        let _ = self.child.wait();
        ended
    }
}

/// What another program answers to these arguments. It reads nothing, and ends with this thread.
pub(super) fn answer(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    sys::tie_to_this_thread(&mut command);
    command.args(arguments).stdin(Stdio::null()).output()
}

/// Makes `inherit` inheritable for exactly this one spawn.
fn spawn_with(command: &mut Command, inherit: &[BorrowedFd<'_>]) -> std::io::Result<Child> {
    let _alone = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    let opened = inherit.iter().try_for_each(|fd| fcntl_setfd(fd, FdFlags::empty()));
    // `spawn` returns only after the child has called exec, so nothing is inherited later.
    let child = opened.map_err(std::io::Error::from).and_then(|()| command.spawn());
    for fd in inherit {
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
    }
    child
}

/// Reads a pipe to its end in a thread of its own; keeps the first `keep` bytes.
fn drain(pipe: Option<impl Read + Send + 'static>, keep: u64) -> std::io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = channel();
    if let Some(mut pipe) = pipe {
        thread::Builder::new().stack_size(DRAIN_STACK_BYTES).spawn(move || {
            let mut kept = Vec::new();
            let _ = pipe.by_ref().take(keep).read_to_end(&mut kept);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            let _ = sender.send(kept);
        })?;
    }
    Ok(receiver)
}

/// What a child writes to its output and its error output, the first bytes of each.
pub(super) type Written = (Receiver<Vec<u8>>, Receiver<Vec<u8>>);

/// Reads both pipes of a child to their ends; keeps the first `keep` bytes of each.
///
/// # Errors
/// When there is no memory for the threads that read.
pub(super) fn drain_both(
    (output, errors): (Option<ChildStdout>, Option<ChildStderr>),
    keep: [u64; 2],
) -> std::io::Result<Written> {
    Ok((drain(output, keep[0])?, drain(errors, keep[1])?))
}

pub(super) fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Signalled(signal.unwrap_or(0)),
    }
}

/// What to do about a child that failed: `otherwise`, unless this process runs under a limit on address space that a
/// child may have met.
#[must_use]
pub(super) fn remedy(otherwise: &str) -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    match limit.filter(|bytes| *bytes < fitness::ADDRESS_SPACE_BYTES_WANTED) {
        None => otherwise.to_owned(),
        Some(bytes) => format!(
            "The limit on address space is {} MiB here, which may be too little. Raise it with `ulimit -v unlimited`.",
            bytes >> 20
        ),
    }
}

/// Signals that end processes, by their numbers on Linux.
const SIGNALS: &[(i32, &str)] = &[
    (1, "SIGHUP"),
    (2, "SIGINT"),
    (3, "SIGQUIT"),
    (4, "SIGILL"),
    (5, "SIGTRAP"),
    (6, "SIGABRT"),
    (7, "SIGBUS"),
    (8, "SIGFPE"),
    (9, "SIGKILL"),
    (11, "SIGSEGV"),
    (13, "SIGPIPE"),
    (15, "SIGTERM"),
    (24, "SIGXCPU"),
    (25, "SIGXFSZ"),
    (31, "SIGSYS"),
];

/// `was ended by SIGSEGV`, and what the user can do about it.
#[must_use]
pub(super) fn ended_by(signal: i32) -> String {
    let todo = match signal {
        9 => ", as the kernel does when memory runs out. Free memory, or leave this workload out.".to_owned(),
        _ => format!(". {}", remedy("Please report this.")),
    };
    format!("was ended by {}{todo}", signal_name(signal))
}

/// A signal's name, or its number.
#[must_use]
pub(super) fn signal_name(signal: i32) -> String {
    let named = SIGNALS.iter().find(|(number, _)| *number == signal);
    named.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::fd::AsFd;

    const SHELL: &str = "/bin/sh";

    fn shell(script: &str, input: &[u8], inherit: &[BorrowedFd<'_>], timeout: Duration) -> Finished {
        let variables = &[("GIVEN".to_owned(), "to the child".into())];
        let arguments = &["-c", script];
        let spec = ChildSpec { exe: Path::new(SHELL), arguments, input, padding_bytes: 3, variables, inherit };
        Running::start(&spec).unwrap().wait(timeout).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_child_reads_its_job_and_answers() {
        let done = shell("cat; echo no >&2; exit 3", b"job", &[], LONG);
        assert_eq!((done.ending, done.output.as_slice(), done.errors.as_str()), (Ending::Exited(3), &b"job"[..], "no"));
        assert!(done.wall_ns > 0);
    }

    #[test]
    fn its_environment_is_empty_but_for_the_padding_and_what_was_given() {
        let done = shell("/usr/bin/env", b"", &[], LONG);
        let text = String::from_utf8(done.output).unwrap();
        assert!(text.lines().any(|line| line == "PYALLOC_BENCH_PADDING=xxx"), "{text}");
        assert!(text.lines().any(|line| line == "GIVEN=to the child"), "{text}");
        assert!(!text.contains("HOME=") && !text.contains("CARGO"), "{text}");
    }

    #[test]
    fn a_killed_child_is_told_by_its_signal() {
        let done = shell("kill -SEGV $$", b"", &[], LONG);
        assert_eq!(done.ending, Ending::Signalled(11));
        assert_eq!(signal_name(11), "SIGSEGV");
        assert_eq!(signal_name(64), "signal 64");
    }

    #[test]
    fn a_silent_child_is_ended() {
        for script in ["exec sleep 100", "exec >&-; exec sleep 100"] {
            let done = shell(script, b"", &[], Duration::from_millis(200));
            assert_eq!(done.ending, Ending::TimedOut, "{script}");
        }
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let start = || {
            let arguments = &["-c", "exec sleep 600"];
            let spec = ChildSpec {
                exe: Path::new(SHELL),
                arguments,
                input: b"",
                padding_bytes: 0,
                variables: &[],
                inherit: &[],
            };
            Running::start(&spec).unwrap()
        };
        let running = thread::spawn(start).join().unwrap();
        assert_eq!(running.wait(LONG).unwrap().ending, Ending::Signalled(9));
    }

    #[test]
    fn only_the_named_descriptor_is_inherited() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (other, _other_writer) = std::io::pipe().unwrap();
        writer.write_all(b"through").unwrap();
        drop(writer);
        use std::os::fd::AsRawFd;
        let script = format!("cat <&{}; [ -e /proc/self/fd/{} ] && echo leaked", reader.as_raw_fd(), other.as_raw_fd());
        let done = shell(&script, b"", &[reader.as_fd()], LONG);
        assert_eq!(done.output, b"through");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let spec = ChildSpec {
            exe: Path::new("/nonexistent/program"),
            arguments: &[],
            input: b"",
            padding_bytes: 0,
            variables: &[],
            inherit: &[],
        };
        assert!(Running::start(&spec).is_err());
    }
}
