//! The raw file: made at the first recorded call, mapped, extended chunk by chunk, closed by a reason.
//!
//! Invariant: space is reserved (`posix_fallocate`) before it is mapped, so a full disk is an error that ends the
//! recording and never a signal that ends the program; and the file is opened by name for each chunk, so that a
//! program that closes all descriptors loses nothing.

use crate::lock::Guarded;
use crate::raw::{self, flag, stop, text, word};
use crate::stream;
use crate::sys;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// No call has been recorded yet.
pub const UNSTARTED: u32 = 0;
const STARTING: u32 = 1;
/// Records are being written.
pub const ACTIVE: u32 = 2;
/// Recording ended, or was never asked for.
pub const OFF: u32 = 3;

static STATE: AtomicU32 = AtomicU32::new(UNSTARTED);
static HEADER: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
static CHUNKS_NEXT: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

const PATH_MAX: usize = 1024;
const ENVIRONMENT_MAX: usize = 512 * 1024;

/// What the session asked for, and where the file is. Written by the one thread that starts the recording (or by a
/// forked child, which has one thread), read-only afterwards.
struct Setup {
    read: bool,
    folder: [u8; PATH_MAX],
    folder_bytes: usize,
    path: [u8; PATH_MAX],
    name_at: usize,
    parent_name: [u8; 96],
    hash_seed: [u8; 32],
    max_bytes: u64,
    after_ns: u64,
    for_ns: u64,
    fork_seq: u64,
}

static SETUP: Guarded<Setup> = Guarded::new(Setup {
    read: false,
    folder: [0; PATH_MAX],
    folder_bytes: 0,
    path: [0; PATH_MAX],
    name_at: 0,
    parent_name: [0; 96],
    hash_seed: [0; 32],
    max_bytes: u64::MAX,
    after_ns: 0,
    for_ns: 0,
    fork_seq: 0,
});
/// Used once, by the thread that starts the recording.
static ENVIRONMENT: Guarded<[u8; ENVIRONMENT_MAX]> = Guarded::new([0; ENVIRONMENT_MAX]);

fn setup() -> &'static mut Setup {
    // SAFETY: written only while `STATE` is `STARTING` by the thread that set it, or in a fresh child.
    unsafe { SETUP.get() }
}

/// Whether records are being written.
#[inline]
pub fn is_active() -> bool {
    STATE.load(Ordering::Relaxed) == ACTIVE
}

/// A header word, when there is a file.
pub fn header(index: usize) -> Option<&'static AtomicU64> {
    let base = HEADER.load(Ordering::Acquire);
    // SAFETY: the mapping is `CHUNKS_AT` bytes of words and is unmapped only in a fresh forked child.
    (!base.is_null()).then(|| unsafe { &*base.add(index) })
}

/// Stores a header word, when there is a file.
pub fn set(index: usize, value: u64) {
    if let Some(cell) = header(index) {
        cell.store(value, Ordering::Relaxed);
    }
}

/// Adds bits to the header's flags.
pub fn add_flags(bits: u64) {
    if let Some(cell) = header(word::FLAGS) {
        cell.fetch_or(bits, Ordering::Relaxed);
    }
}

/// The bytes from `at`, `bytes` long, of the mapped head of the file.
///
/// # Safety
/// The caller is the only one to use that range (the lock of the table that lies there).
pub unsafe fn area(at: usize, bytes: usize) -> Option<&'static mut [u8]> {
    let base = HEADER.load(Ordering::Acquire).cast::<u8>();
    debug_assert!(at + bytes <= raw::CHUNKS_AT);
    // SAFETY: inside the mapping; exclusive by the caller's word.
    (!base.is_null()).then(|| unsafe { core::slice::from_raw_parts_mut(base.add(at), bytes) })
}

/// Copies text into a fixed field of the header, cut to its room.
pub fn set_text((at, room): (usize, usize), bytes: &[u8]) {
    // SAFETY: a field is written by the one thread that starts the recording or runs the interpreter.
    if let Some(field) = unsafe { area(at, room) } {
        let kept = bytes.len().min(room - 1);
        field[..kept].copy_from_slice(&bytes[..kept]);
        field[kept] = 0;
    }
}

/// The folder of the raw files, without a trailing slash.
pub fn folder() -> &'static [u8] {
    let setup = setup();
    &setup.folder[..setup.folder_bytes]
}

/// The delays that the session asked for: (`--after`, `--for`), nanoseconds, 0 for none.
pub fn delays_ns() -> (u64, u64) {
    (setup().after_ns, setup().for_ns)
}

/// Wall time since the file was made, nanoseconds.
pub fn elapsed_ns() -> u64 {
    let start = header(word::MONOTONIC_START_NS).map_or(0, |cell| cell.load(Ordering::Relaxed));
    sys::clock_ns(sys::CLOCK_MONOTONIC).saturating_sub(start)
}

/// Notes both clocks, so that the converter can tell how fast the time stamp counter ticks.
pub fn stamp_clocks() {
    set(word::TSC_END, sys::ticks());
    set(word::MONOTONIC_END_NS, sys::clock_ns(sys::CLOCK_MONOTONIC));
    set(word::LOST, LOST.load(Ordering::Relaxed));
}

/// Makes sure that recording has begun, if it is wanted; false when nothing is to be recorded.
pub fn start() -> bool {
    match STATE.compare_exchange(UNSTARTED, STARTING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let made = make();
            STATE.store(if made { ACTIVE } else { OFF }, Ordering::Release);
            made
        }
        Err(state) => state == ACTIVE,
    }
}

fn make() -> bool {
    let setup = setup();
    if !setup.read {
        read_environment(setup);
        setup.read = true;
    }
    if setup.folder_bytes == 0 {
        return false;
    }
    // SAFETY: no preconditions.
    let (pid, parent) = unsafe { (sys::getpid() as u64, sys::getppid() as u64) };
    if !create(setup, pid) {
        return false;
    }
    CHUNKS_NEXT.store(raw::CHUNKS_AT as u64, Ordering::Relaxed);
    LOST.store(0, Ordering::Relaxed);
    for (index, value) in [
        (word::PID, pid),
        (word::PARENT_PID, parent),
        (word::TSC_START, sys::ticks()),
        (word::MONOTONIC_START_NS, sys::clock_ns(sys::CLOCK_MONOTONIC)),
        (word::FORK_SEQ, setup.fork_seq),
        (word::FLAGS, if setup.fork_seq != 0 { flag::FORKED } else { 0 }),
    ] {
        set(index, value);
    }
    set_text(text::HASH_SEED, until_nul(&setup.hash_seed));
    set_text(text::PARENT_FILE, until_nul(&setup.parent_name));
    let mut comm = [0; 64];
    let bytes = read_file(c"/proc/self/comm", &mut comm);
    set_text(text::PROGRAM, comm[..bytes].trim_ascii_end());
    stream::begin(sys::ticks(), setup.after_ns != 0 || setup.for_ns != 0);
    set(word::OWN_PS, stream::calibrate_ps());
    set(word::MAGIC, raw::MAGIC);
    crate::python::note_identity();
    true
}

/// Creates and maps the head of a file of a name that no image has used.
fn create(setup: &mut Setup, pid: u64) -> bool {
    let folder_bytes = setup.folder_bytes;
    setup.path[..folder_bytes].copy_from_slice(&setup.folder[..folder_bytes]);
    setup.path[folder_bytes] = b'/';
    setup.name_at = folder_bytes + 1;
    let mut at = write_number(&mut setup.path, setup.name_at, pid);
    setup.path[at] = b'-';
    at = write_number(&mut setup.path, at + 1, sys::clock_ns(sys::CLOCK_MONOTONIC));
    setup.path[at..at + 5].copy_from_slice(b".raw\0");
    // SAFETY: the path ends with a NUL.
    let fd = unsafe { sys::open(setup.path.as_ptr().cast::<c_char>(), sys::O_RDWR_CREAT_EXCL_CLOEXEC, 0o600) };
    if fd < 0 {
        return false;
    }
    let mapped = reserve_and_map(fd, 0, raw::CHUNKS_AT, 0);
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
    HEADER.store(mapped.cast(), Ordering::Release);
    !mapped.is_null()
}

/// Whether the file may grow to this many bytes. Past this limit the kernel would send SIGXFSZ, which ends most
/// programs.
fn may_grow_to(bytes: u64) -> bool {
    let mut limits = [u64::MAX; 2];
    // SAFETY: `limits` has the layout of `struct rlimit`.
    unsafe { sys::getrlimit(sys::RLIMIT_FSIZE, &mut limits) };
    bytes <= limits[0]
}

/// Maps `bytes` from `offset` with their space reserved; null when the file system or a limit refuses.
fn reserve_and_map(fd: i32, offset: u64, bytes: usize, extra_flags: i32) -> *mut u8 {
    // SAFETY: an open descriptor; the limit was checked.
    if !may_grow_to(offset + bytes as u64) || unsafe { sys::posix_fallocate(fd, offset as i64, bytes as i64) } != 0 {
        return null_mut();
    }
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let at =
        unsafe { sys::mmap(null_mut(), bytes, sys::PROT_READ_WRITE, sys::MAP_SHARED | extra_flags, fd, offset as i64) };
    if at as isize == -1 { null_mut() } else { at.cast() }
}

/// Calls `body` with a descriptor of the file and the offset of the next `bytes`; ends the recording when there are
/// none, or when `body` says that the file system refused.
fn extend(bytes: usize, body: impl FnOnce(i32, u64) -> bool) -> bool {
    let room = bytes.next_multiple_of(sys::OS_PAGE) as u64;
    let offset = CHUNKS_NEXT.fetch_add(room, Ordering::Relaxed);
    if offset + room > setup().max_bytes {
        end(stop::SIZE);
        return false;
    }
    // SAFETY: the path ends with a NUL.
    let fd = unsafe { sys::open(setup().path.as_ptr().cast::<c_char>(), sys::O_RDWR_CLOEXEC) };
    let done = fd >= 0 && body(fd, offset);
    if fd >= 0 {
        // SAFETY: opened above.
        unsafe { sys::close(fd) };
    }
    if !done {
        end(stop::DISK);
    }
    done
}

/// A fresh window of `bytes`, mapped and with its header written; null when recording is over.
pub fn window(bytes: usize, serial: u32) -> *mut u8 {
    let mut at = null_mut::<u8>();
    extend(bytes, |fd, offset| {
        at = reserve_and_map(fd, offset, bytes, sys::MAP_POPULATE);
        !at.is_null()
    });
    if !at.is_null() {
        for (index, value) in [raw::WINDOW_MAGIC, u64::from(serial), bytes as u64].into_iter().enumerate() {
            // SAFETY: the window is longer than its header and page-aligned.
            unsafe { at.cast::<u64>().add(index).write(value) };
        }
    }
    at
}

/// Writes the first `bytes` of records of a window to the file as a log chunk; false when recording is over.
pub fn log(records: *const u8, bytes: usize, serial: u32) -> bool {
    let whole = raw::CHUNK_HEADER_BYTES + bytes;
    let mut header = [0_u64; raw::CHUNK_HEADER_BYTES / 8];
    header[..3].copy_from_slice(&[raw::LOG_MAGIC, u64::from(serial), whole as u64]);
    extend(whole, |fd, offset| {
        let parts = [
            sys::Part { at: header.as_ptr().cast(), bytes: raw::CHUNK_HEADER_BYTES },
            sys::Part { at: records.cast(), bytes },
        ];
        // SAFETY: both parts are readable; the limit is checked first.
        may_grow_to(offset + whole as u64)
            && unsafe { sys::pwritev(fd, parts.as_ptr(), 2, offset as i64) } == whole as isize
    })
}

/// Gives a window's mapping back; its records are in the file.
pub fn release(window: *mut u8, bytes: usize) {
    if !window.is_null() {
        // SAFETY: a mapping made by `window`, which its thread uses no more.
        unsafe { sys::munmap(window.cast::<c_void>(), bytes) };
    }
}

/// Ends the recording for a reason of [`stop`]; the program goes on.
pub fn end(reason: u64) {
    if STATE.compare_exchange(ACTIVE, OFF, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        set(word::STOP_SEQ, stream::sequence());
        set(word::STOP, reason);
        crate::probe::snapshot_mappings();
        stamp_clocks();
    }
}

/// Counts a record that found no room.
#[inline]
pub fn count_lost() {
    LOST.fetch_add(1, Ordering::Relaxed);
}

/// Whether the recording ended for want of room.
pub fn ended_for_want_of_room() -> bool {
    header(word::STOP).is_some_and(|cell| matches!(cell.load(Ordering::Relaxed), stop::SIZE | stop::DISK))
}

/// In a fresh forked child: forgets the parent's file, so that the next record starts one of its own.
pub fn forget_after_fork(fork_seq: u64) {
    let head = HEADER.swap(null_mut(), Ordering::AcqRel);
    if head.is_null() {
        return;
    }
    // SAFETY: the parent's mapping, of this size; the child has one thread and no reference into it.
    unsafe { sys::munmap(head.cast::<c_void>(), raw::CHUNKS_AT) };
    let setup = setup();
    let name = until_nul(&setup.path[setup.name_at..]);
    let kept = name.len().min(setup.parent_name.len() - 1);
    let mut parent_name = [0; 96];
    parent_name[..kept].copy_from_slice(&name[..kept]);
    setup.parent_name = parent_name;
    setup.fork_seq = fork_seq;
    let _ = STATE.compare_exchange(ACTIVE, UNSTARTED, Ordering::AcqRel, Ordering::Acquire);
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..length]
}

fn write_number(to: &mut [u8], at: usize, number: u64) -> usize {
    let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = number;
    for place in (0..digits).rev() {
        to[at + place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    at + digits
}

/// Reads a file from its start into `buffer`; the number of bytes.
fn read_file(path: &core::ffi::CStr, buffer: &mut [u8]) -> usize {
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { sys::open(path.as_ptr(), sys::O_RDONLY) };
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

/// Takes the session's wishes from the environment. The C library's own copy may not be set up yet at the first
/// `malloc`, so the kernel's is read.
fn read_environment(setup: &mut Setup) {
    // SAFETY: runs once, in the thread that starts the recording.
    let buffer = unsafe { ENVIRONMENT.get() };
    let bytes = read_file(c"/proc/self/environ", buffer);
    for entry in buffer[..bytes].split(|&byte| byte == 0) {
        let Some(equals) = entry.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = (&entry[..equals], &entry[equals + 1..]);
        match name {
            b"PYALLOC_RECORD_FOLDER" if value.len() < PATH_MAX - 64 && value.first() == Some(&b'/') => {
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

/// The decimal number in these bytes.
pub fn parse(bytes: &[u8]) -> Option<u64> {
    let digit = |sum: u64, &byte: &u8| sum.checked_mul(10)?.checked_add(u64::from(byte.checked_sub(b'0')?));
    (!bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)).then(|| bytes.iter().try_fold(0, digit)).flatten()
}
