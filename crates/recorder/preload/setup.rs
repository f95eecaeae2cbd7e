//! What the session asked for, read from the environment once.
//!
//! Invariant: written by the one thread that starts the recording, read-only afterwards. The C library's own copy of
//! the environment may not be set up yet at the first `malloc`, so the kernel's is read.

use crate::lock::Guarded;
use crate::raw;
use crate::sys;
use core::ffi::CStr;

const PATH_MAX: usize = 1024;
const ENVIRONMENT_MAX: usize = 512 * 1024;

/// What the session asked for.
pub struct Setup {
    is_read: bool,
    folder: [u8; PATH_MAX],
    folder_bytes: usize,
    hash_seed: [u8; 32],
    /// Most bytes of raw data.
    pub max_bytes: u64,
    /// `--after`, nanoseconds; 0 for none.
    pub after_ns: u64,
    /// `--for`, nanoseconds; 0 for none.
    pub for_ns: u64,
}

static SETUP: Guarded<Setup> = Guarded::new(Setup {
    is_read: false,
    folder: [0; PATH_MAX],
    folder_bytes: 0,
    hash_seed: [0; 32],
    max_bytes: u64::MAX,
    after_ns: 0,
    for_ns: 0,
});
/// Used once, by the thread that starts the recording.
static ENVIRONMENT: Guarded<[u8; ENVIRONMENT_MAX]> = Guarded::new([0; ENVIRONMENT_MAX]);

/// What the session asked for; defaults before [`read`].
pub fn get() -> &'static Setup {
    // SAFETY: written only by `read`, which one thread runs.
    unsafe { SETUP.get() }
}

impl Setup {
    /// The folder of the raw data, without a trailing slash; empty when nothing is to be recorded.
    pub fn folder(&self) -> &[u8] {
        &self.folder[..self.folder_bytes]
    }

    /// `PYTHONHASHSEED`.
    pub fn hash_seed(&self) -> &[u8] {
        until_nul(&self.hash_seed)
    }

    /// The NUL-terminated path of the session file.
    pub fn session_path(&self) -> [u8; PATH_MAX + 16] {
        let mut path = [0; PATH_MAX + 16];
        let name_at = self.folder_bytes + 1;
        path[..self.folder_bytes].copy_from_slice(self.folder());
        path[self.folder_bytes] = b'/';
        path[name_at..name_at + raw::SESSION_FILE.len()].copy_from_slice(raw::SESSION_FILE.as_bytes());
        path
    }
}

/// Reads the environment unless that was done. Runs in the thread that starts the recording.
pub fn read() {
    // SAFETY: the only thread that is here.
    let (setup, buffer) = unsafe { (SETUP.get(), ENVIRONMENT.get()) };
    if setup.is_read {
        return;
    }
    setup.is_read = true;
    let bytes = read_file(c"/proc/self/environ", buffer);
    for entry in buffer[..bytes].split(|&byte| byte == 0) {
        let Some(equals) = entry.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = (&entry[..equals], &entry[equals + 1..]);
        match name {
            b"PYALLOC_RECORD_FOLDER" if value.len() < PATH_MAX && value.first() == Some(&b'/') => {
                setup.folder[..value.len()].copy_from_slice(value);
                setup.folder_bytes = value.len();
            }
            b"PYALLOC_RECORD_MAX_BYTES" => setup.max_bytes = parse(value).unwrap_or(u64::MAX),
            b"PYALLOC_RECORD_AFTER_NS" => setup.after_ns = parse(value).unwrap_or(0),
            b"PYALLOC_RECORD_FOR_NS" => setup.for_ns = parse(value).unwrap_or(0),
            b"PYTHONHASHSEED" => {
                let kept = value.len().min(setup.hash_seed.len() - 1);
                setup.hash_seed[..kept].copy_from_slice(&value[..kept]);
            }
            _ => {}
        }
    }
}

/// Reads a file from its start into `buffer`; the number of bytes.
fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { sys::open(path.as_ptr(), sys::O_RDONLY_CLOEXEC) };
    if fd < 0 {
        return 0;
    }
    let mut filled = 0;
    while filled < buffer.len() {
        // SAFETY: the rest of `buffer`.
        let got = unsafe { sys::read(fd, buffer[filled..].as_mut_ptr().cast(), buffer.len() - filled) };
        if got <= 0 {
            break;
        }
        filled += got as usize;
    }
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
    filled
}

/// The decimal number in these bytes.
pub fn parse(bytes: &[u8]) -> Option<u64> {
    let digit = |sum: u64, &byte: &u8| sum.checked_mul(10)?.checked_add(u64::from(byte.checked_sub(b'0')?));
    (!bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)).then(|| bytes.iter().try_fold(0, digit)).flatten()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..length]
}
