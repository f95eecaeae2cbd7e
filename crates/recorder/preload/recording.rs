//! The recording of this process: begun at the first recorded call, ended by a reason.
//!
//! Invariant: what is written to is mapped and provided from the start, so that a full disk, a limit, another user or
//! another root is an error that ends the recording and never a signal that ends the program.

use crate::raw::{self, flag, stop, text, word};
use crate::{calibration, ring, session_file, setup, stream, sys};
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
/// The mapped slot.
static SLOT: AtomicPtr<AtomicU64> = AtomicPtr::new(null_mut());
static LOST: AtomicU64 = AtomicU64::new(0);
/// In a forked child, the sequence number at the fork.
static FORK_SEQ: AtomicU64 = AtomicU64::new(0);

/// Whether records are being written.
#[inline]
pub fn is_active() -> bool {
    STATE.load(Ordering::Relaxed) == ACTIVE
}

/// Where the slot is mapped; null when there is none.
pub fn slot() -> *mut u8 {
    SLOT.load(Ordering::Acquire).cast()
}

/// A word of the slot, when there is one.
pub fn header(index: usize) -> Option<&'static AtomicU64> {
    let base = SLOT.load(Ordering::Acquire);
    // SAFETY: the mapping is `SLOT_BYTES` of words and is unmapped only in a fresh forked child.
    (!base.is_null()).then(|| unsafe { &*base.add(index) })
}

/// Stores a header word, when there is a slot.
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

/// The bytes from `at`, `bytes` long, of the slot's tables.
///
/// # Safety
/// The caller is the only one to use that range (the lock of the table that lies there).
pub unsafe fn area(at: usize, bytes: usize) -> Option<&'static mut [u8]> {
    let base = slot();
    debug_assert!(at + bytes <= raw::TABLES_BYTES);
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

/// Wall time since recording began, nanoseconds.
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
    setup::read();
    let setup = setup::get();
    if setup.folder().is_empty() {
        return false;
    }
    let slot = session_file::claim_slot();
    if slot.is_null() {
        return false;
    }
    SLOT.store(slot.cast(), Ordering::Release);
    LOST.store(0, Ordering::Relaxed);
    ring::begin();
    // SAFETY: no preconditions.
    let (pid, parent) = unsafe { (sys::getpid() as u64, sys::getppid() as u64) };
    let fork_seq = FORK_SEQ.load(Ordering::Relaxed);
    for (index, value) in [
        (word::PID, pid),
        (word::PARENT_PID, parent),
        (word::TSC_START, sys::ticks()),
        (word::MONOTONIC_START_NS, sys::clock_ns(sys::CLOCK_MONOTONIC)),
        (word::FORK_SEQ, fork_seq),
        (word::FLAGS, if fork_seq != 0 { flag::FORKED } else { 0 }),
    ] {
        set(index, value);
    }
    set_text(text::HASH_SEED, setup.hash_seed());
    set_text(text::PROGRAM, &sys::process_name());
    stream::begin(sys::ticks(), setup.after_ns != 0 || setup.for_ns != 0);
    set(word::OWN_PS, calibration::record_ps().unwrap_or_else(stream::calibrate_ps));
    set(word::MAGIC, raw::MAGIC);
    crate::python::note_identity();
    true
}

/// Ends the recording for a reason of [`stop`]; the program goes on.
/// `error` is the system's error number behind it, or 0.
pub fn end(reason: u64, error: i32) {
    if STATE.compare_exchange(ACTIVE, OFF, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        set(word::STOP_SEQ, stream::sequence());
        set(word::STOP_ERRNO, error as u64);
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
    let is_want = |reason| matches!(reason, stop::SIZE | stop::DISK | stop::UNREAD | stop::THREADS);
    header(word::STOP).is_some_and(|cell| is_want(cell.load(Ordering::Relaxed)))
}

/// In a fresh forked child: forgets the parent's slot, so that the next record takes one of its own.
pub fn forget_after_fork(fork_seq: u64) {
    let slot = SLOT.swap(null_mut(), Ordering::AcqRel);
    if slot.is_null() {
        return;
    }
    // The child has one thread and no reference into it.
    session_file::release_slot(slot.cast());
    FORK_SEQ.store(fork_seq, Ordering::Relaxed);
    let _ = STATE.compare_exchange(ACTIVE, UNSTARTED, Ordering::AcqRel, Ordering::Acquire);
}
