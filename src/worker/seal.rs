//! The harness's own heap, and the seal that keeps it out of what is measured.
//!
//! In a worker every Rust allocation of the harness comes from an arena of shared memory: it never enters the C
//! library's heap, and shared pages do not count as anonymous memory. Once sealed, an allocation is a violation.
//!
//! Invariant: an address is given back to the heap that it came from, told by address range, whatever the mode is by
//! then.

use crate::probe::sys::Mapping;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The binary's global allocator.
pub struct HarnessAllocator;

/// Before `main` nobody has said yet what this process is.
const UNDECIDED: u8 = 0;
/// A worker: the arena.
const ARENA: u8 = 1;
/// Any other verb: the C library.
const SYSTEM: u8 = 2;

static MODE: AtomicU8 = AtomicU8::new(UNDECIDED);
static SEALED: AtomicU8 = AtomicU8::new(0);
static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// Room for what Rust code may want before `main`.
const EARLY_BYTES: usize = 64 * 1024;
/// Address space of the arena; only what is used becomes memory.
const ARENA_BYTES: usize = 1 << 30;

#[repr(align(4096))]
struct Early(UnsafeCell<[u8; EARLY_BYTES]>);

// SAFETY: only reached through the addresses that `bump` hands out, each once.
unsafe impl Sync for Early {}

static EARLY: Early = Early(UnsafeCell::new([0; EARLY_BYTES]));
static EARLY_USED: AtomicUsize = AtomicUsize::new(0);
static ARENA_BASE: AtomicUsize = AtomicUsize::new(0);
static ARENA_USED: AtomicUsize = AtomicUsize::new(0);

/// This process is a worker: from now on the harness allocates from the arena.
///
/// # Errors
/// The system's, when the arena's address space cannot be had.
pub fn use_arena() -> std::io::Result<()> {
    let arena = Mapping::shared(ARENA_BYTES)?;
    ARENA_BASE.store(arena.base().as_ptr() as usize, Ordering::Relaxed);
    MODE.store(ARENA, Ordering::Release);
    Ok(())
}

/// This process is no worker: the C library's heap will do.
pub fn use_system() {
    MODE.store(SYSTEM, Ordering::Release);
}

/// From now on an allocation by the harness is a violation.
pub(super) fn seal() {
    VIOLATIONS.store(0, Ordering::Relaxed);
    SEALED.store(1, Ordering::Release);
}

/// The replay is over. Returns the number of violations.
pub(super) fn unseal() -> u64 {
    SEALED.store(0, Ordering::Release);
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Takes the next `layout` bytes of a region.
fn bump(used: &AtomicUsize, base: usize, room: usize, layout: Layout) -> *mut u8 {
    let mut at = used.load(Ordering::Relaxed);
    loop {
        let start = (base + at).next_multiple_of(layout.align()) - base;
        let Some(end) = start.checked_add(layout.size()).filter(|end| *end <= room) else { return null_mut() };
        match used.compare_exchange_weak(at, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return (base + start) as *mut u8,
            Err(now) => at = now,
        }
    }
}

fn from_arena(layout: Layout) -> *mut u8 {
    bump(&ARENA_USED, ARENA_BASE.load(Ordering::Relaxed), ARENA_BYTES, layout)
}

/// Whether the address belongs to the early buffer or the arena, neither of which takes anything back.
fn is_ours(block: *mut u8) -> bool {
    let address = block as usize;
    let early = EARLY.0.get() as usize;
    let arena = ARENA_BASE.load(Ordering::Relaxed);
    (early..early + EARLY_BYTES).contains(&address) || (arena != 0 && (arena..arena + ARENA_BYTES).contains(&address))
}

fn note() {
    if SEALED.load(Ordering::Relaxed) != 0 {
        VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: blocks come from `System`, or are cut once from a region with the wanted size and alignment; a block goes
// back to the region it came from.
unsafe impl GlobalAlloc for HarnessAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        match MODE.load(Ordering::Acquire) {
            // SAFETY: the caller's promise.
            SYSTEM => unsafe { System.alloc(layout) },
            ARENA => from_arena(layout),
            _ => bump(&EARLY_USED, EARLY.0.get() as usize, EARLY_BYTES, layout),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_ours(block) {
            // SAFETY: what is not ours came from `System`.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_ours(block) {
            note();
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(block, layout, size) };
        }
        if size <= layout.size() {
            return block;
        }
        // The last block of the arena grows where it is: vectors that grow would else use up address space.
        let end = (block as usize).wrapping_sub(ARENA_BASE.load(Ordering::Relaxed)).wrapping_add(layout.size());
        let grown = end + (size - layout.size());
        let (relaxed, used) = (Ordering::Relaxed, &ARENA_USED);
        if grown <= ARENA_BYTES && used.compare_exchange(end, grown, relaxed, relaxed).is_ok() {
            note();
            return block;
        }
        // SAFETY: the caller's promise makes size and alignment a valid layout.
        let fresh = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !fresh.is_null() {
            // SAFETY: both blocks are live and have `layout.size()` bytes; they do not overlap.
            unsafe { fresh.copy_from_nonoverlapping(block, layout.size()) };
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_hands_out_aligned_disjoint_blocks_and_then_nothing() {
        let used = AtomicUsize::new(0);
        let layout = |bytes, align| Layout::from_size_align(bytes, align).expect("a layout");
        let base = 0x10_0010;
        let first = bump(&used, base, 256, layout(24, 8)) as usize;
        let second = bump(&used, base, 256, layout(64, 64)) as usize;
        assert_eq!((first, second), (base, 0x10_0040));
        assert!(bump(&used, base, 256, layout(200, 1)).is_null());
        assert!(!bump(&used, base, 256, layout(100, 1)).is_null());
    }

    #[test]
    fn an_allocation_while_sealed_is_a_violation_and_a_free_is_not() {
        let layout = Layout::from_size_align(64, 16).expect("a layout");
        // SAFETY: the layout is not empty, and each block goes back where it came from.
        unsafe {
            let before = HarnessAllocator.alloc(layout);
            seal();
            let within = HarnessAllocator.alloc(layout);
            HarnessAllocator.dealloc(before, layout);
            assert_eq!(unseal(), 1);
            HarnessAllocator.dealloc(within, layout);
        }
    }

    #[test]
    fn the_heap_of_the_c_library_shows_what_it_took() {
        // SAFETY: a block is taken and given back.
        unsafe { libc::free(libc::malloc(100)) };
        assert!(crate::probe::sys::libc_heap_bytes().is_some_and(|bytes| bytes > 0));
    }
}
