//! The sampler's end of the way to the announcer: marks come in one at a time, each held until it is answered.
//!
//! Invariant: a mark that is dropped is answered, so that no program waits for a sampler that went away. Every user of
//! the host sees the socket's name; a message counts only with the secret that the program alone was given.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
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
    /// Name and secret, as the announcer gets them.
    address: String,
    secret: String,
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
        let drawn = files::random().and_then(|name| Ok((format!("pyalloc-live-{name}"), files::random()?)));
        let (name, secret) = drawn.map_err(|e| format!("cannot draw a random name: {e}. Free some memory."))?;
        let listener = SocketAddr::from_abstract_name(&name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|e| {
                format!("cannot create a socket for the program's marks: {e}. Raise the limit on descriptors.")
            })?;
        Ok(Self { listener, address: format!("{name}/{secret}"), secret })
    }

    /// The value of [`VARIABLE`].
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The next mark, or `None` when there is none within `wait`.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Mark>, String> {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&wait));
        match self.listener.accept() {
            Ok((stream, _)) => Ok(Mark::read(stream, &self.secret)),
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
    fn read(mut stream: UnixStream, secret: &str) -> Option<Self> {
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut message = Vec::new();
        while !message.ends_with(b"\n") && message.len() < MESSAGE_BYTES_MAX {
            let mut part = [0; MESSAGE_BYTES_MAX];
            match stream.read(&mut part).ok()? {
                0 => return None,
                bytes => message.extend_from_slice(&part[..bytes]),
            }
        }
        let message = message.strip_prefix(secret.as_bytes())?.strip_prefix(b" ")?;
        let (pid, cpu_ns, wall_ns, name) = parse(message)?;
        Some(Self { pid, cpu_ns, wall_ns, name, stream })
    }

    /// Lets the program go on.
    pub(super) fn go(mut self) {
        // A program that was killed meanwhile hears nothing.
        let _ = self.stream.write_all(b"x");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_message_without_the_secret_is_no_mark() {
        let channel = Channel::open().unwrap();
        let (name, secret) = channel.address().split_once('/').unwrap();
        let address = SocketAddr::from_abstract_name(name).unwrap();
        for (text, is_mark) in [
            (format!("{secret} 7 8 9 drained\n"), true),
            ("7 8 9 drained\n".to_owned(), false),
            (format!("{} 7 8 9 drained\n", secret.replace(|_| true, "0")), false),
        ] {
            let mut stream = UnixStream::connect_addr(&address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let found = channel.next(PATIENCE).unwrap();
            assert_eq!(found.map(|mark| (mark.pid, mark.name)), is_mark.then(|| (7, "drained".to_owned())), "{text}");
        }
    }
}
