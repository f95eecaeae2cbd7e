//! The sampler's end of the way to the announcer: marks come in one at a time, each held until it is answered.
//!
//! Invariant: a mark that is dropped is answered, so that no program waits for a sampler that went away.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The variable that tells the announcer where to connect.
pub(super) const VARIABLE: &str = "PYALLOC_LIVE_SOCKET";
/// A message that is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message of the announcer.
const MESSAGE_BYTES_MAX: usize = 256;

/// Where marks arrive.
#[derive(Debug)]
pub(super) struct Channel {
    listener: UnixListener,
    name: String,
}

/// A mark of a process that waits for the answer.
#[derive(Debug)]
pub(super) struct Mark {
    /// Who made it.
    pub pid: u32,
    /// CPU time of that process, nanoseconds.
    pub cpu_ns: u64,
    /// Monotonic clock, nanoseconds.
    pub wall_ns: u64,
    /// Which.
    pub name: String,
    stream: UnixStream,
}

impl Channel {
    pub(super) fn open() -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pyalloc-live-{}-{number}", std::process::id());
        let listener = SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|e| {
                format!("No socket can be had for the program's marks: {e}. Raise the limit on descriptors.")
            })?;
        Ok(Self { listener, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next mark, or `None` when there is none within `wait`.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Mark>, String> {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&wait));
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Mark::read(stream)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) => Err(format!("The program's marks cannot be heard: {e}. Raise the limit on descriptors.")),
        }
    }
}

/// Process, CPU time, clock and name of a message.
pub(crate) fn parse(message: &[u8]) -> Option<(u32, u64, u64, String)> {
    let message = std::str::from_utf8(message).ok()?;
    let mut words = message.trim_end().splitn(4, ' ');
    let pid = words.next()?.parse().ok()?;
    let (cpu_ns, wall_ns) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((pid, cpu_ns, wall_ns, words.next()?.to_owned()))
}

impl Mark {
    /// Reads a message; `None` for anything but the announcer's.
    fn read(mut stream: UnixStream) -> Option<Self> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut message = Vec::new();
        while !message.ends_with(b"\n") && message.len() < MESSAGE_BYTES_MAX {
            let mut part = [0; MESSAGE_BYTES_MAX];
            match stream.read(&mut part).ok()? {
                0 => return None,
                bytes => message.extend_from_slice(&part[..bytes]),
            }
        }
        let (pid, cpu_ns, wall_ns, name) = parse(&message)?;
        Some(Self { pid, cpu_ns, wall_ns, name, stream })
    }

    /// Lets the program go on.
    pub(super) fn go(mut self) {
        // A program that was killed meanwhile hears nothing.
        let _ = self.stream.write_all(b"x");
    }
}
