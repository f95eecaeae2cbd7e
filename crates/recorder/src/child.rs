//! Runs the recorded program: its standard streams are ours, signals are passed on, its end is its exit code.
//!
//! Invariant: one child at a time in a process. A signal that the terminal sent to the whole process group reached
//! the child already and is not sent again.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Signals that are passed on.
const PASSED: [i32; 6] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

static CHILD: AtomicI32 = AtomicI32::new(0);
/// Signals, by bit, that came before the child was there.
static WAITING: AtomicU32 = AtomicU32::new(0);

extern "C" fn pass_on(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid pointer to a handler with SA_SIGINFO.
    if unsafe { (*info).si_code } == libc::SI_KERNEL {
        return;
    }
    let child = CHILD.load(Ordering::SeqCst);
    if child > 0 {
        // SAFETY: async-signal-safe; the child is not reaped before CHILD is reset.
        unsafe { libc::kill(child, signal) };
    } else if child == 0 {
        WAITING.fetch_or(1 << signal, Ordering::SeqCst);
    }
}

/// Signals whose being ignored a program inherits: the caller's disposition is read before ours changes.
#[derive(Clone, Copy)]
struct Ignored {
    child: bool,
    pipe: bool,
}

impl Ignored {
    fn read() -> Self {
        Self { child: is_ignored(libc::SIGCHLD), pipe: is_ignored(libc::SIGPIPE) }
    }

    /// Has the command start with these dispositions. Where SIGCHLD is ignored here, nobody could wait for it.
    fn hand_down(self, command: &mut Command) {
        use std::os::unix::process::CommandExt;
        if self.child {
            // SAFETY: a valid disposition.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        }
        let restore = move || {
            for (signal, is_ignored) in [(libc::SIGCHLD, self.child), (libc::SIGPIPE, self.pipe)] {
                if is_ignored {
                    // SAFETY: async-signal-safe, in the child before it is replaced.
                    unsafe { libc::signal(signal, libc::SIG_IGN) };
                }
            }
            Ok(())
        };
        if self.child || self.pipe {
            // SAFETY: the closure only calls `signal`.
            unsafe { command.pre_exec(restore) };
        }
    }
}

/// What is done about a signal.
fn disposition(signal: i32) -> libc::sigaction {
    // SAFETY: all-zero is a valid sigaction; asking changes nothing.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut now);
        now
    }
}

fn is_ignored(signal: i32) -> bool {
    disposition(signal).sa_sigaction == libc::SIG_IGN
}

/// The handlers that pass signals on, as long as it lives.
struct Handlers(Vec<(i32, libc::sigaction)>);

impl Handlers {
    fn install() -> Self {
        let mut before = Vec::new();
        for signal in PASSED {
            // What the caller ignores (nohup) the program shall ignore too.
            if is_ignored(signal) {
                continue;
            }
            let old = disposition(signal);
            // SAFETY: all-zero is a valid sigaction.
            let mut new: libc::sigaction = unsafe { std::mem::zeroed() };
            new.sa_sigaction = pass_on as *const () as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            // SAFETY: the handler does only what a handler may.
            unsafe { libc::sigaction(signal, &new, std::ptr::null_mut()) };
            before.push((signal, old));
        }
        Self(before)
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for (signal, old) in &self.0 {
            // SAFETY: puts back what was there.
            unsafe { libc::sigaction(*signal, old, std::ptr::null_mut()) };
        }
    }
}

/// Runs the command to its end. `started` is called once it runs.
pub(crate) fn run(command: &mut Command, started: impl FnOnce(u32)) -> io::Result<ExitStatus> {
    Ignored::read().hand_down(command);
    let handlers = Handlers::install();
    CHILD.store(0, Ordering::SeqCst);
    let mut child = command.spawn()?;
    CHILD.store(child.id() as i32, Ordering::SeqCst);
    let waiting = WAITING.swap(0, Ordering::SeqCst);
    for signal in PASSED.into_iter().filter(|signal| waiting & 1 << signal != 0) {
        // SAFETY: the child has not been reaped.
        unsafe { libc::kill(child.id() as i32, signal) };
    }
    started(child.id());
    let status = wait(&mut child);
    drop(handlers);
    status
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    // Waits without reaping first, so that the process id stays the child's while signals may be sent to it.
    // SAFETY: all-zero is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `info` is valid; the child is ours.
        let answer = unsafe { libc::waitid(libc::P_PID, child.id(), &mut info, libc::WEXITED | libc::WNOWAIT) };
        if answer == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
    CHILD.store(-1, Ordering::SeqCst);
    child.wait()
}

/// The exit code as a shell would give it: 128 and the signal for a program that was killed.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.map_or(255, |code| code as u8)
}
