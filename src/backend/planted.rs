//! Known differences, planted on purpose: what the harness must find when it is asked to compare them with `system`.
//!
//! Invariant: each differs from `system` in exactly the one thing that its name says.

use super::{Backend, Need, Ready, Role, system};
use crate::heap::Entry;
use crate::probe::clock;
use libc::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

const SLOW: Entry = Entry {
    malloc: slow_malloc,
    calloc: slow_calloc,
    realloc: slow_realloc,
    free: slow_free,
    aligned: slow_aligned,
    usable_size: libc::malloc_usable_size,
    sized: None,
};

/// `planted-10ns`: every call takes 10 ns longer.
pub(super) const TEN_NS: Backend =
    Backend { key: "planted-10ns", label: "system + 10 ns per call", role: Role::Instrument, prepare: calibrate };

const LARGER: Entry = Entry {
    malloc: larger_malloc,
    calloc: larger_calloc,
    realloc: larger_realloc,
    free: libc::free,
    aligned: larger_aligned,
    usable_size: libc::malloc_usable_size,
    sized: None,
};

/// `planted-10pct`: every request is 10 % larger.
pub(super) const TEN_PERCENT: Backend = Backend {
    key: "planted-10pct",
    label: "system + 10 % on every size",
    role: Role::Instrument,
    prepare: |_| system::ready(LARGER),
};

const HOLDING: Entry = Entry {
    malloc: holding_malloc,
    calloc: holding_calloc,
    realloc: libc::realloc,
    free: libc::free,
    aligned: holding_aligned,
    usable_size: libc::malloc_usable_size,
    sized: None,
};

/// `planted-64mib`: 64 MiB are mapped and touched at the first call and never given back.
pub(super) const SIXTY_FOUR_MIB: Backend = Backend {
    key: "planted-64mib",
    label: "system + 64 MiB held",
    role: Role::Instrument,
    prepare: |_| system::ready(HOLDING),
};

const DELAY_NS: f64 = 10.0;
/// Turns of [`spin`]'s loop that take [`DELAY_NS`]; set by [`calibrate`].
static TURNS: AtomicU32 = AtomicU32::new(32);

/// A loop and not the time stamp counter, which on some hosts moves in steps of 26 cycles.
#[inline(never)]
fn spin() {
    for turn in 0..TURNS.load(Relaxed) {
        black_box(turn);
    }
}

/// Finds the number of turns whose whole call takes 10 ns: bisection over the fastest of five batches.
fn calibrate(_: &Need) -> Result<Ready, String> {
    const CALLS: u32 = 4_000;
    let per_call_ns = |turns| {
        TURNS.store(turns, Relaxed);
        let batch = || {
            let start = clock::now_ns();
            (0..CALLS).for_each(|_| spin());
            clock::now_ns() - start
        };
        (0..5).map(|_| batch()).min().unwrap_or(0) as f64 / f64::from(CALLS)
    };
    let (mut low, mut high) = (1, 1_024);
    while low < high {
        let middle = u32::midpoint(low, high);
        if per_call_ns(middle) < DELAY_NS { low = middle + 1 } else { high = middle }
    }
    TURNS.store(low, Relaxed);
    system::ready(SLOW)
}

const HELD_BYTES: usize = 64 << 20;
static HELD: AtomicBool = AtomicBool::new(false);

#[inline]
fn hold() {
    if !HELD.load(Relaxed) {
        hold_now();
    }
}

#[cold]
fn hold_now() {
    HELD.store(true, Relaxed);
    crate::probe::sys::hold_anonymous(HELD_BYTES);
}

const fn larger(size: usize) -> usize {
    size.saturating_add(size.div_ceil(10))
}

unsafe extern "C" fn slow_malloc(size: usize) -> *mut c_void {
    spin();
    // SAFETY: the caller's promise, here and below.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn slow_calloc(count: usize, size: usize) -> *mut c_void {
    spin();
    // SAFETY: as above.
    unsafe { libc::calloc(count, size) }
}

unsafe extern "C" fn slow_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    spin();
    // SAFETY: as above.
    unsafe { libc::realloc(block, size) }
}

unsafe extern "C" fn slow_free(block: *mut c_void) {
    spin();
    // SAFETY: as above.
    unsafe { libc::free(block) }
}

unsafe extern "C" fn slow_aligned(alignment: usize, size: usize) -> *mut c_void {
    spin();
    // SAFETY: as above.
    unsafe { libc::memalign(alignment, size) }
}

unsafe extern "C" fn larger_malloc(size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { libc::malloc(larger(size)) }
}

unsafe extern "C" fn larger_calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { libc::calloc(count, larger(size)) }
}

unsafe extern "C" fn larger_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { libc::realloc(block, larger(size)) }
}

unsafe extern "C" fn larger_aligned(alignment: usize, size: usize) -> *mut c_void {
    // SAFETY: as above.
    unsafe { libc::memalign(alignment, larger(size)) }
}

unsafe extern "C" fn holding_malloc(size: usize) -> *mut c_void {
    hold();
    // SAFETY: as above.
    unsafe { libc::malloc(size) }
}

unsafe extern "C" fn holding_calloc(count: usize, size: usize) -> *mut c_void {
    hold();
    // SAFETY: as above.
    unsafe { libc::calloc(count, size) }
}

unsafe extern "C" fn holding_aligned(alignment: usize, size: usize) -> *mut c_void {
    hold();
    // SAFETY: as above.
    unsafe { libc::memalign(alignment, size) }
}
