//! The session file as this process sees it: the page of session words, and the slot of this exec image or child.
//!
//! Invariant: no descriptor stays open. The first process opens the file by name, before any code of the program runs;
//! a forked child maps its slot through the inherited page of session words, so that it may have closed every
//! descriptor, left its root or given up its rights before.

use crate::raw::{self, SESSION_BYTES, SLOT_BYTES, session};
use crate::setup;
use crate::sys;
use core::ffi::{c_char, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The page of session words, kept over forks.
static WORDS: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());

/// A session word, when there is a session.
pub fn word(index: usize) -> Option<&'static AtomicU64> {
    let base = WORDS.load(Ordering::Acquire);
    // SAFETY: the mapping is one page of words and is never unmapped.
    (!base.is_null()).then(|| unsafe { &*base.add(index) })
}

/// Why the session wants every process to stop recording; 0 while it does not.
pub fn closed() -> u64 {
    word(session::CLOSED).map_or(0, |cell| cell.load(Ordering::Acquire))
}

/// Maps a slot that no process had before, with its tables writable for sure; null where there is none.
pub fn claim_slot() -> *mut u8 {
    if word(0).is_none() {
        WORDS.store(open_words(), Ordering::Release);
    }
    let (Some(slots), Some(most)) = (word(session::SLOTS), word(session::SLOTS_MAX)) else { return null_mut() };
    if closed() != 0 {
        return null_mut();
    }
    let index = slots.fetch_add(1, Ordering::AcqRel);
    if index >= most.load(Ordering::Relaxed) {
        return null_mut();
    }
    let slot = map_slot(raw::slot_at(index));
    if !slot.is_null() {
        // The file is a hole: reading ahead would fill the page cache with zeros.
        // SAFETY: the mapping of the slot, whole.
        unsafe { sys::syscall(sys::SYS_MADVISE, slot, SLOT_BYTES, sys::MADV_RANDOM) };
    }
    if !slot.is_null() && populate(slot, raw::WINDOWS_AT) != 0 {
        release_slot(slot);
        return null_mut();
    }
    slot
}

/// Gives a slot's mapping back.
pub fn release_slot(slot: *mut u8) {
    // SAFETY: a mapping made by `claim_slot`, which nobody uses any more.
    unsafe { sys::munmap(slot.cast::<c_void>(), SLOT_BYTES) };
}

/// Has the file system provide the pages of a mapped range of zeros. The system's error number where it refuses; a
/// write to such a page would end the process.
pub fn populate(at: *mut u8, bytes: usize) -> i32 {
    // SAFETY: a mapping of ours.
    if unsafe { sys::syscall(sys::SYS_MADVISE, at, bytes, sys::MADV_POPULATE_WRITE) } == 0 {
        return 0;
    }
    let error = sys::errno();
    if error != sys::EINVAL {
        return error;
    }
    // Before Linux 5.14: the kernel's own write to a page fails where ours would end the process.
    for page in (0..bytes).step_by(sys::OS_PAGE) {
        // SAFETY: inside the range; the kernel writes 16 bytes.
        let at = unsafe { at.add(page) };
        // SAFETY: as above.
        if unsafe { sys::syscall(sys::SYS_CLOCK_GETTIME, i64::from(sys::CLOCK_MONOTONIC), at) } != 0 {
            return sys::errno();
        }
        // SAFETY: the page is there now.
        unsafe { at.write_bytes(0, 16) };
    }
    0
}

/// Opens the session file by name; -1 where that fails.
fn open() -> i32 {
    let path = setup::get().session_path();
    // SAFETY: the path ends with a NUL.
    unsafe { sys::open(path.as_ptr().cast::<c_char>(), sys::O_RDWR_CLOEXEC | sys::O_NOFOLLOW) }
}

/// Maps a range of an open file; null where that fails.
fn map(fd: i32, offset: u64, bytes: usize) -> *mut u8 {
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let at = unsafe { sys::mmap(null_mut(), bytes, sys::PROT_READ_WRITE, sys::MAP_SHARED, fd, offset as i64) };
    if at as isize == -1 { null_mut() } else { at.cast() }
}

/// The session words of the file of that name; null where it is none.
fn open_words() -> *mut AtomicU64 {
    let fd = open();
    if fd < 0 {
        return null_mut();
    }
    let at = map(fd, 0, SESSION_BYTES).cast::<AtomicU64>();
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
    // SAFETY: a page of words of a file that the session made and never shrinks.
    if at.is_null() || unsafe { (*at).load(Ordering::Relaxed) } == raw::SESSION_MAGIC {
        return at;
    }
    // SAFETY: mapped above.
    unsafe { sys::munmap(at.cast::<c_void>(), SESSION_BYTES) };
    null_mut()
}

/// Maps a slot through the session words: a second mapping of their page, as long as a slot, moved to the slot.
fn map_slot(offset: u64) -> *mut u8 {
    let words = WORDS.load(Ordering::Acquire);
    // SAFETY: a size of zero copies a shared mapping instead of moving it.
    let at = unsafe { sys::syscall(sys::SYS_MREMAP, words, 0_usize, SLOT_BYTES, sys::MREMAP_MAYMOVE) };
    if at == -1 {
        return map_slot_by_name(offset);
    }
    let page = offset / sys::OS_PAGE as u64;
    // SAFETY: the mapping above, whole.
    if unsafe { sys::syscall(sys::SYS_REMAP_FILE_PAGES, at, SLOT_BYTES, 0_usize, page, sys::MAP_NONBLOCK) } == 0 {
        return at as *mut u8;
    }
    // SAFETY: the mapping above.
    unsafe { sys::munmap(at as *mut c_void, SLOT_BYTES) };
    map_slot_by_name(offset)
}

/// For kernels without `remap_file_pages`. In another root that name may be another file: its token tells.
fn map_slot_by_name(offset: u64) -> *mut u8 {
    let fd = open();
    if fd < 0 {
        return null_mut();
    }
    let found = map(fd, 0, SESSION_BYTES).cast::<AtomicU64>();
    let mut slot = null_mut();
    if !found.is_null() {
        // SAFETY: a page of words.
        let token = unsafe { (*found.add(session::TOKEN)).load(Ordering::Relaxed) };
        if word(session::TOKEN).is_some_and(|own| own.load(Ordering::Relaxed) == token) {
            slot = map(fd, offset, SLOT_BYTES);
        }
        // SAFETY: mapped above.
        unsafe { sys::munmap(found.cast::<c_void>(), SESSION_BYTES) };
    }
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
    slot
}
