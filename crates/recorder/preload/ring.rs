//! The windows of the slot: taken by threads, filled, put into the queue, made free again by the session.
//!
//! Invariant: a window is written by the thread that took it and by nobody else until the session has made it free;
//! its pages are there before anyone writes to it, so that a full disk is an error and never a signal.

use crate::raw::{self, CHUNK_HEADER_BYTES, RING_AT, WINDOW_BYTES, WINDOWS, WINDOWS_AT, chunk, ring, session, stop};
use crate::recording;
use crate::{session_file, stream, sys};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// After this long without any window taken out of a queue the session counts as gone.
const UNREAD_NS: u64 = 1_000_000_000;
const SLEEP_NS_MAX: u64 = 1_000_000;

/// The system's error number of the last window that the file system had no room for.
static REFUSED: AtomicI32 = AtomicI32::new(0);

fn word(index: usize) -> Option<&'static AtomicU64> {
    recording::header(RING_AT / 8 + index)
}

fn window_at(index: usize) -> *mut u8 {
    recording::slot().wrapping_add(WINDOWS_AT + index * WINDOW_BYTES)
}

fn index_of(window: *mut u8) -> usize {
    (window as usize - recording::slot() as usize - WINDOWS_AT) / WINDOW_BYTES
}

/// Makes every window of a fresh slot free.
pub fn begin() {
    REFUSED.store(0, Ordering::Relaxed);
    for index in 0..ring::MAP_WORDS {
        if let Some(map) = word(ring::FREE + index) {
            map.store(u64::MAX, Ordering::Release);
        }
    }
}

/// A window for the thread of this serial number; null when recording is over. Waits while every window is full and
/// the session takes some.
pub fn take(serial: u32) -> *mut u8 {
    let mut wait = Wait::new();
    loop {
        match session_file::closed() {
            0 => {}
            reason => {
                recording::end(reason, 0);
                return null_mut();
            }
        }
        if let Some(index) = take_free() {
            if !provide(index) {
                continue; // The window stays taken: nobody may write to it.
            }
            let window = window_at(index);
            // Without its magic number the window is nobody's, so that a kill in between leaves no mixture.
            for (index, value) in [
                (chunk::MAGIC, 0),
                (chunk::SERIAL, u64::from(serial)),
                (chunk::BYTES, 0),
                (chunk::FIRST_SEQ, stream::sequence()),
                (chunk::MAGIC, raw::CHUNK_MAGIC),
            ] {
                // SAFETY: inside the window, which is this thread's.
                unsafe { window.cast::<u64>().add(index).write_volatile(value) };
            }
            return window;
        }
        if let Err(reason) = wait.once() {
            recording::end(reason, REFUSED.load(Ordering::Relaxed));
            return null_mut();
        }
    }
}

/// Puts a window with this many bytes of records into the queue, or makes it free when it has none.
pub fn give(window: *mut u8, record_bytes: usize) {
    let index = index_of(window);
    if record_bytes == 0 {
        if let Some(map) = word(ring::FREE + index / 64) {
            map.fetch_or(1 << (index % 64), Ordering::Release);
        }
        return;
    }
    let bytes = (CHUNK_HEADER_BYTES + record_bytes) as u64;
    // SAFETY: inside the window, which is this thread's until the queue has it.
    unsafe { window.cast::<u64>().add(chunk::BYTES).write_volatile(bytes) };
    let (Some(head), Some(sum)) = (word(ring::HEAD), word(ring::BYTES)) else { return };
    let sum = sum.fetch_add(bytes, Ordering::Relaxed) + bytes;
    let place = head.fetch_add(1, Ordering::AcqRel) as usize % WINDOWS;
    if let Some(entry) = word(ring::QUEUE + place) {
        entry.store(index as u64 + 1, Ordering::Release);
    }
    if sum > crate::setup::get().max_bytes {
        recording::end(stop::SIZE, 0);
    }
}

/// The first free window, so that the same few are used again while the session keeps up.
fn take_free() -> Option<usize> {
    for index in 0..ring::MAP_WORDS {
        let map = word(ring::FREE + index)?;
        let mut free = map.load(Ordering::Relaxed);
        while free != 0 {
            let bit = free.trailing_zeros();
            match map.compare_exchange_weak(free, free & !(1 << bit), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(index * 64 + bit as usize),
                Err(now) => free = now,
            }
        }
    }
    None
}

/// Makes sure that the window's pages are there.
fn provide(index: usize) -> bool {
    let Some(map) = word(ring::POPULATED + index / 64) else { return false };
    let bit = 1 << (index % 64);
    if map.load(Ordering::Relaxed) & bit != 0 {
        return true;
    }
    match session_file::populate(window_at(index), WINDOW_BYTES) {
        0 => {
            map.fetch_or(bit, Ordering::Release);
            true
        }
        error => {
            REFUSED.store(error, Ordering::Relaxed);
            false
        }
    }
}

/// A wait for the session to take windows out of the queue.
struct Wait {
    began_ns: u64,
    sleep_ns: u64,
    beat: u64,
    beat_ns: u64,
    was_empty: bool,
}

impl Wait {
    fn new() -> Self {
        Self { began_ns: 0, sleep_ns: 50_000, beat: 0, beat_ns: 0, was_empty: false }
    }

    /// Sleeps a little; or the reason for which no window will come.
    fn once(&mut self) -> Result<(), u64> {
        let now = sys::clock_ns(sys::CLOCK_MONOTONIC);
        let beat = session_file::word(session::BEAT).map_or(0, |cell| cell.load(Ordering::Acquire));
        if self.began_ns == 0 || beat != self.beat {
            (self.beat, self.beat_ns) = (beat, now);
        }
        if self.began_ns == 0 {
            self.began_ns = now;
        }
        let queue = |index| word(index).map_or(0, |cell| cell.load(Ordering::Acquire));
        let is_empty = queue(ring::TAIL) >= queue(ring::HEAD);
        if is_empty && self.was_empty {
            // The session makes a window free before it counts it as taken: threads hold all there are.
            return Err(if REFUSED.load(Ordering::Relaxed) != 0 { stop::DISK } else { stop::THREADS });
        }
        self.was_empty = is_empty;
        if now - self.beat_ns > UNREAD_NS {
            return Err(stop::UNREAD);
        }
        let sleep = sys::Timespec { seconds: 0, nanoseconds: self.sleep_ns as i64 };
        // SAFETY: a live timespec; the rest is not asked for.
        unsafe { sys::syscall(sys::SYS_NANOSLEEP, &raw const sleep, null_mut::<u8>()) };
        self.sleep_ns = (self.sleep_ns * 2).min(SLEEP_NS_MAX);
        if let Some(waited) = word(ring::WAITED_NS) {
            waited.fetch_add(sys::clock_ns(sys::CLOCK_MONOTONIC) - now, Ordering::Relaxed);
        }
        Ok(())
    }
}
