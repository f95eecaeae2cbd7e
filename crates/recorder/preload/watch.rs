//! The process's own memory at its maxima: what a replay of the recording has to reach.
//!
//! The kernel's counters are cheap and may lag by some pages. Where they are well above the last reading, an exact one
//! is made, as a mark with the name [`crate::raw::READING`].
//!
//! Invariant: readings cost a fixed time and a fixed share of the program's, and leave room for the marks of others;
//! none is made within a mark.

use crate::raw::{READING, mark};
use crate::{life, probe, recording, sys};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A new maximum exceeds the last reading by this and by a fiftieth, bytes.
const STEP_BYTES: u64 = 1 << 20;
const STEP_SHARE: u64 = 50;
/// Each time that so many readings were made, the step doubles.
const STEPS_ALIKE: u64 = 64;
/// Shortest time between two looks at the counters.
const LOOK_EVERY_NS: u64 = 1_000_000;
/// Readings may take so long, and beyond that a fiftieth of the time since recording began.
const COST_NS: u64 = 30_000_000;
const COST_SHARE: u64 = 50;

/// Largest anonymous memory that was read, by the counters, bytes.
static HIGHEST: AtomicU64 = AtomicU64::new(0);
static READINGS: AtomicU64 = AtomicU64::new(0);
static SPENT_NS: AtomicU64 = AtomicU64::new(0);
static LOOKED_NS: AtomicU64 = AtomicU64::new(0);
static IS_READING: AtomicBool = AtomicBool::new(false);
/// Marks that are being made.
static MARKS: AtomicU32 = AtomicU32::new(0);

/// In a forked child.
pub fn begin_anew() {
    for cell in [&HIGHEST, &READINGS, &SPENT_NS, &LOOKED_NS] {
        cell.store(0, Ordering::Relaxed);
    }
    IS_READING.store(false, Ordering::Relaxed);
    MARKS.store(0, Ordering::Relaxed);
}

/// Makes a mark. What it records may need another window, and a thread that is given one looks at the counters: within
/// a mark that would be a mark in a mark, which waits for locks that its own thread holds.
pub fn while_marking(body: impl FnOnce()) {
    MARKS.fetch_add(1, Ordering::Acquire);
    body();
    MARKS.fetch_sub(1, Ordering::Release);
}

/// Looks whether there is a new maximum, unless somebody has just looked.
pub fn look(now_ns: u64) {
    if now_ns.saturating_sub(LOOKED_NS.load(Ordering::Relaxed)) >= LOOK_EVERY_NS {
        look_now(now_ns);
    }
}

/// A block of so many bytes is about to go. One as large as a step may be a maximum by itself.
#[cold]
pub fn before_free(bytes: u64) {
    if !recording::is_active() {
        return;
    }
    let now = recording::elapsed_ns();
    if bytes >= step() { look_now(now) } else { look(now) }
}

fn step() -> u64 {
    let step = STEP_BYTES.max(HIGHEST.load(Ordering::Relaxed) / STEP_SHARE);
    step << (READINGS.load(Ordering::Relaxed) / STEPS_ALIKE).min(20)
}

fn look_now(now_ns: u64) {
    LOOKED_NS.store(now_ns, Ordering::Relaxed);
    let may_cost = COST_NS + now_ns / COST_SHARE;
    if SPENT_NS.load(Ordering::Relaxed) > may_cost || MARKS.load(Ordering::Acquire) != 0 {
        return;
    }
    if IS_READING.swap(true, Ordering::AcqRel) {
        return;
    }
    let bytes = probe::anonymous_bytes();
    if bytes > HIGHEST.load(Ordering::Relaxed) + step() {
        HIGHEST.store(bytes, Ordering::Relaxed);
        READINGS.fetch_add(1, Ordering::Relaxed);
        let begin = sys::clock_ns(sys::CLOCK_MONOTONIC);
        life::mark(READING.as_bytes(), mark::AT_MAXIMUM);
        SPENT_NS.fetch_add(sys::clock_ns(sys::CLOCK_MONOTONIC) - begin, Ordering::Relaxed);
    }
    IS_READING.store(false, Ordering::Release);
}
