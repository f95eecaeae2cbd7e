//! What the recorder itself costs: calls of Python's hooks over an allocator that does nothing, with the program's own
//! windows and the session that empties them.
//!
//! A look at a block's pages takes microseconds, each its own: those are timed where they are made.
//!
//! Invariant: the calls reach no allocator of the program; the converter leaves their records out, which name a block
//! that no program has.

use crate::life;
use crate::python_api::Allocator;
use crate::raw::word;
use crate::{recording, sys};
use core::ffi::c_void;
use core::hint::black_box;
use core::ptr::{from_ref, null_mut};
use core::sync::atomic::{AtomicU64, Ordering};

/// Pairs of an allocation and a free: some thirty windows.
const PAIRS: u64 = 8_192;
const BYTES: usize = 48;

/// The block of every call.
static BLOCK: u64 = 0;
/// Picoseconds of one record; 0 before it was measured.
static RECORD_PS: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" fn malloc(_context: *mut c_void, _bytes: usize) -> *mut c_void {
    from_ref(&BLOCK).cast_mut().cast()
}

unsafe extern "C" fn calloc(_context: *mut c_void, _count: usize, _bytes: usize) -> *mut c_void {
    from_ref(&BLOCK).cast_mut().cast()
}

unsafe extern "C" fn realloc(_context: *mut c_void, block: *mut c_void, _bytes: usize) -> *mut c_void {
    block
}

unsafe extern "C" fn free(_context: *mut c_void, _block: *mut c_void) {}

/// An allocator that does nothing.
pub const NOTHING: Allocator = Allocator { context: null_mut(), malloc, calloc, realloc, free };

/// Picoseconds of one record, if that was measured in this process or its parent.
pub fn record_ps() -> Option<u64> {
    Some(RECORD_PS.load(Ordering::Relaxed)).filter(|&ps| ps != 0)
}

/// Measures what a record costs; `hooked` is the hook over [`NOTHING`].
pub fn measure(hooked: &Allocator) {
    recording::set(word::CALIBRATION, from_ref(&BLOCK) as u64);
    let all = life::own(|| time(hooked));
    let calls = life::own(|| time(&NOTHING));
    let ps = all.saturating_sub(calls) * 1000 / (PAIRS * 2);
    RECORD_PS.store(ps, Ordering::Relaxed);
    recording::set(word::OWN_PS, ps);
}

/// CPU time of all pairs, nanoseconds.
fn time(allocator: &Allocator) -> u64 {
    let begin = sys::clock_ns(sys::CLOCK_THREAD_CPUTIME_ID);
    for _ in 0..PAIRS {
        let allocator = black_box(allocator);
        // SAFETY: an allocator that does nothing, or the hook over one.
        unsafe {
            let block = (allocator.malloc)(allocator.context, BYTES);
            (allocator.free)(allocator.context, black_box(block));
        }
    }
    sys::clock_ns(sys::CLOCK_THREAD_CPUTIME_ID) - begin
}
