//! The floor: what the harness costs when the allocator costs nothing.
//!
//! `null` goes through the contestants' own call path and returns addresses from a ring whose OS pages are all
//! present. `loop` calls nothing; it is only a name that the replay looks for.
//!
//! Invariant: every address handed out has room for the largest request of the image, in pages that never fault.

use super::{Backend, LOOP_KEY, Need, Ready, Role};
use crate::heap::Entry;
use libc::c_void;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const ENTRY: Entry = Entry { malloc, calloc, realloc, free, aligned, usable_size, sized: None };

/// `null`.
pub(super) const BACKEND: Backend = Backend { key: "null", label: "null (floor)", role: Role::Floor, prepare };

/// `loop`.
pub(super) const LOOP: Backend =
    Backend { key: LOOP_KEY, label: "loop (floor)", role: Role::Floor, prepare: |_| Ok(ready()) };

/// Blocks start within so many bytes: they stay in the first-level cache, and so cost as little as a block can.
const RING_BYTES: usize = 16 * 1024;
/// Physical memory behind the ring and everything that follows it.
const MEMORY_BYTES: usize = 256 * 1024;
/// Requests above this fail: a ring for them would need page tables beyond reason.
const BLOCK_BYTES_MAX: u64 = 8 << 30;

/// Where the ring is mapped; 0 before [`prepare`].
static BASE: AtomicUsize = AtomicUsize::new(0);
/// Largest request that fits behind every offset of the ring.
static LARGEST: AtomicUsize = AtomicUsize::new(0);
/// Offset of the next block.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Maps the same memory again and again, so that a block of any size that the image asks for fits behind every offset.
fn prepare(need: &Need) -> Result<Ready, String> {
    if need.block_bytes_max > BLOCK_BYTES_MAX {
        return Err(format!("the null allocator serves blocks up to {BLOCK_BYTES_MAX} bytes; leave it out with -c"));
    }
    let copies = (need.block_bytes_max as usize).div_ceil(MEMORY_BYTES) + 2;
    let base = crate::probe::sys::map_repeatedly(MEMORY_BYTES, copies)
        .map_err(|error| format!("the null allocator's ring cannot be mapped ({error}); free some memory"))?;
    BASE.store(base, Relaxed);
    LARGEST.store((copies - 1) * MEMORY_BYTES, Relaxed);
    Ok(ready())
}

fn ready() -> Ready {
    Ready::new(ENTRY, || format!("{RING_BYTES} byte ring"), BTreeMap::new, || {})
}

unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    let at = NEXT.load(Relaxed);
    NEXT.store((at + size + 15) & (RING_BYTES - 16), Relaxed);
    if size > LARGEST.load(Relaxed) {
        return std::ptr::null_mut();
    }
    (BASE.load(Relaxed) + at) as *mut c_void
}

unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: no precondition. The ring's content is what was last written there: the floor keeps no promise.
    unsafe { malloc(count.saturating_mul(size)) }
}

unsafe extern "C" fn realloc(_: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: no precondition.
    unsafe { malloc(size) }
}

unsafe extern "C" fn free(_: *mut c_void) {}

/// Alignments above an OS page are asked of the offset only: the ring's own address keeps no more.
unsafe extern "C" fn aligned(alignment: usize, size: usize) -> *mut c_void {
    let step = alignment.clamp(16, RING_BYTES);
    NEXT.store((NEXT.load(Relaxed) + step - 1) & !(step - 1) & (RING_BYTES - 1), Relaxed);
    // SAFETY: no precondition.
    unsafe { malloc(size) }
}

/// It keeps no sizes.
unsafe extern "C" fn usable_size(_: *mut c_void) -> usize {
    0
}
