//! The way to the sampler: one connection to an abstract socket for each mark, held until the sampler answers.
//!
//! The variable holds `NAME/SECRET`. A message is `SECRET PID CPU_NS WALL_NS NAME` and a line end: process id, CPU time
//! of the process, monotonic clock. A connection that lives only during the mark survives programs that close their
//! descriptors, and the process id distinguishes forked children.
//!
//! Invariant: allocates nothing; without a listener a mark is nothing.

use crate::sys;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

const AF_UNIX: u16 = 1;
const STREAM_CLOEXEC: c_int = 1 | 0o2_000_000;
const EINTR: c_int = 4;
const NOSIGNAL: c_int = 0x4000;
const NAME_BYTES: usize = 107;

/// `struct sockaddr_un` of an abstract name: a zero byte stands before it.
#[repr(C)]
struct Address {
    family: u16,
    path: [u8; 1 + NAME_BYTES],
}

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const Address, bytes: u32) -> c_int;
    fn send(fd: c_int, bytes: *const u8, count: usize, flags: c_int) -> isize;
    fn recv(fd: c_int, bytes: *mut c_void, count: usize, flags: c_int) -> isize;
}

const SECRET_BYTES: usize = 16;

/// Where the sampler listens, and what shows it that a message is ours.
static ADDRESS: OnceLock<(Address, [u8; SECRET_BYTES])> = OnceLock::new();
/// Bytes of the address that count; 0 when nobody listens.
static ADDRESS_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Notes where the sampler listens. Runs in the constructor.
pub fn open() {
    // SAFETY: a NUL-terminated name; nothing else runs yet that could change the environment.
    let value = unsafe { getenv(c"PYALLOC_LIVE_SOCKET".as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: a string of the environment.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    let Some(slash) = value.iter().position(|&byte| byte == b'/') else { return };
    let (name, secret) = (&value[..slash], &value[slash + 1..]);
    let Ok(secret) = <[u8; SECRET_BYTES]>::try_from(secret) else { return };
    if name.is_empty() || name.len() > NAME_BYTES {
        return;
    }
    let mut address = Address { family: AF_UNIX, path: [0; 1 + NAME_BYTES] };
    address.path[1..=name.len()].copy_from_slice(name);
    if ADDRESS.set((address, secret)).is_ok() {
        ADDRESS_BYTES.store(size_of::<u16>() + 1 + name.len(), Ordering::Release);
    }
}

/// Whether a sampler was named.
pub fn is_open() -> bool {
    ADDRESS_BYTES.load(Ordering::Acquire) != 0
}

/// Tells the sampler of a mark and waits for its answer.
pub fn announce(name: &[u8]) {
    let (Some((address, secret)), bytes) = (ADDRESS.get(), ADDRESS_BYTES.load(Ordering::Acquire)) else { return };
    let mut message = Message { bytes: [0; 128], used: 0 };
    message.text(secret);
    message.text(b" ");
    // SAFETY: no preconditions.
    message.number(unsafe { sys::getpid() } as u64);
    message.number(sys::clock_ns(sys::CLOCK_PROCESS_CPUTIME_ID));
    message.number(sys::clock_ns(sys::CLOCK_MONOTONIC));
    message.text(name);
    message.text(b"\n");
    // SAFETY: plain system calls on a descriptor of our own and on live buffers.
    unsafe {
        let fd = socket(c_int::from(AF_UNIX), STREAM_CLOEXEC, 0);
        if fd < 0 {
            return;
        }
        if connect(fd, address, bytes as u32) == 0
            && send(fd, message.bytes.as_ptr(), message.used, NOSIGNAL) == message.used as isize
        {
            let mut answer = 0_u8;
            while recv(fd, (&raw mut answer).cast(), 1, 0) < 0 && *sys::__errno_location() == EINTR {}
        }
        sys::close(fd);
    }
}

struct Message {
    bytes: [u8; 128],
    used: usize,
}

impl Message {
    fn text(&mut self, text: &[u8]) {
        let kept = text.len().min(self.bytes.len() - self.used);
        self.bytes[self.used..self.used + kept].copy_from_slice(&text[..kept]);
        self.used += kept;
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [b' '; 21];
        let mut at = 20;
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.text(&digits[at..]);
    }
}
