//! The pools as the allocator of a whole Rust program, with threads.
//!
//! # Layers, bottom first
//! - `lock`: a lock that does not allocate.
//! - `owners`, `arenas`: arenas that are aligned to their size, and a table that says whose they are.
//! - `homes`: which shard a thread allocates from.
//! - `front`: shards behind locks, and the way of a block back to its own.
//! - this module: the one front of the process, what of a request goes there, and what holds across a `fork`.
//!
//! # Why the state is not in the value
//! [`GlobalPool`] is a name for a state that the process has once, as `std::alloc::System` is. A block must be freed by
//! the front that gave it; a value that held the state could be moved or dropped below its blocks, and is 4 MiB large.
//!
//! **Invariant:** size and alignment alone say whether a request is the pools' or the system's, so a block that is
//! freed or reallocated goes where it came from without a look at its address.

mod arenas;
mod front;
mod homes;
mod lock;
mod owners;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use crate::check::{Price, Violation};
use crate::geometry::Current;
use crate::statistics::Statistics;
use front::Front;
use homes::{HOMES, SHARDS};

static FRONT: Front<Current> = Front::new();

/// Largest alignment that is served from pools: theirs, and that of every block of the C library.
const ALIGNMENT_BYTES_MAX: usize = 16;

/// pymalloc as the global allocator of a Rust program.
///
/// ```
/// use pypool::{GlobalPool, Price};
///
/// #[global_allocator]
/// static POOL: GlobalPool = GlobalPool::new();
///
/// fn main() {
///     let words: Vec<String> = std::thread::spawn(|| vec!["to".to_owned(), "be".to_owned()]).join().unwrap();
///     let blocks = |pool: &GlobalPool| -> usize {
///         pool.statistics().map(|shard| shard.classes().iter().map(|class| class.blocks_in_use).sum::<usize>()).sum()
///     };
///     let before = blocks(&POOL);
///     drop(words);
///     assert_eq!(before - blocks(&POOL), 3, "two strings, and a vector of 48 bytes, freed by another thread");
///     POOL.check(Price::Full).unwrap();
/// }
/// ```
///
/// Requests of up to 512 bytes that are aligned to 16 bytes at most come from pools, everything else from
/// [`System`]; a block that is reallocated across that border moves. All values of this type are the same allocator.
///
/// # Threads
/// There are [`SHARDS`](Self::SHARDS) allocators of this crate, each with arenas and a lock of its own. A thread
/// allocates from the one that the fewest other threads use; when that is busy, from another. Any thread may free a
/// block: it goes back to the shard that owns it, which a table without locks tells from the address.
///
/// # What it costs
/// An allocation and a free take a lock each, which the bare allocator does not: two atomic exchanges. Each shard in
/// use keeps the last of its arenas and partly used pools of its own, so *n* threads that do the work of one hold up to
/// *n* MiB more, 16 at most. Frees by other threads wait for each other and for the owner.
///
/// # Limits
/// - After a `fork`, parent and child may go on allocating, whatever other threads were doing: the forking thread holds
///   all locks meanwhile. Not so after `vfork` or a bare `clone`.
/// - As with `malloc`, a signal handler must not allocate.
/// - When no arena can be had, small blocks come from `malloc`; when that has none either, the result is null.
#[derive(Debug, Clone, Copy, Default)]
pub struct GlobalPool;

impl GlobalPool {
    /// Number of allocators behind the front.
    pub const SHARDS: usize = SHARDS;

    /// A name for the process's pools.
    pub const fn new() -> Self {
        Self
    }

    /// What each shard holds, by its number. Each is true for the moment at which the iterator returns it.
    ///
    /// [`Statistics::raw_blocks`] counts small blocks that are `malloc`'s for lack of an arena; the count of one shard
    /// may be below zero, for blocks are not counted where they came from. Their sum is right.
    pub fn statistics(&self) -> impl Iterator<Item = Statistics> + use<> {
        (0..SHARDS).map(|shard| FRONT.statistics(shard))
    }

    /// Walks the invariants of all shards and of the table of owners, while every other thread that wants a block
    /// waits.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self, price: Price) -> Result<(), Violation> {
        FRONT.check(price)
    }

    /// The number of the shard that a live block belongs to; none if it is not in a pool.
    ///
    /// `block` is live, else the answer may be out of date.
    pub fn shard_of(&self, block: *const u8) -> Option<usize> {
        FRONT.owner_of(block)
    }
}

// SAFETY: pools and the system keep the contract, and each block goes back to where it came from. Nothing here unwinds.
unsafe impl GlobalAlloc for GlobalPool {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match small_bytes(layout) {
            Some(bytes) => FRONT.allocate(home(), bytes),
            // SAFETY: by contract.
            None => unsafe { System.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(bytes) = small_bytes(layout) else {
            // SAFETY: by contract.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let block = FRONT.allocate(home(), bytes);
        if !block.is_null() {
            // SAFETY: the block is new and at least so long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match small_bytes(layout) {
            // SAFETY: a live block, and with this layout the front's.
            Some(_) => unsafe { FRONT.free(block) },
            // SAFETY: a live block, and with this layout the system's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the new size is a layout's.
        let new = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        match (small_bytes(layout), small_bytes(new)) {
            // SAFETY: a live block of the front.
            (Some(_), Some(bytes)) => unsafe { FRONT.reallocate(block, bytes) },
            // SAFETY: a live block of the system.
            (None, None) => unsafe { System.realloc(block, layout, bytes) },
            // SAFETY: a live block.
            _ => unsafe { self.move_across(block, layout, new) },
        }
    }
}

impl GlobalPool {
    /// Moves a block from the pools to the system, or back.
    ///
    /// # Safety
    /// `block` is a live block of the layout `old`; it is gone unless null is returned.
    #[cold]
    #[inline(never)]
    unsafe fn move_across(&self, block: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        // SAFETY: both blocks are live, distinct, and as long as their layouts.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, old.size().min(new.size()));
                self.dealloc(block, old);
            }
            moved
        }
    }
}

/// What to ask the pools for, if a request is theirs.
///
/// At least as many bytes as the alignment: should the block come from `malloc`, it is aligned as its size demands.
#[inline(always)]
fn small_bytes(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align());
    (bytes <= Front::<Current>::SMALL_BYTES_MAX && layout.align() <= ALIGNMENT_BYTES_MAX).then_some(bytes)
}

#[inline(always)]
fn home() -> usize {
    homes::home().unwrap_or_else(settle)
}

#[cold]
#[inline(never)]
fn settle() -> usize {
    let (home, is_first) = homes::settle();
    if is_first {
        // It may allocate, but from the C library. If it fails there is no memory, and a child may find a lock held.
        // SAFETY: the handlers live as long as the program.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    }
    home
}

/// A lock that another thread holds at the moment of a fork would be held for ever in the child, which has no such
/// thread. So the thread that forks takes all of them, and both processes give them back.
unsafe extern "C" fn before_fork() {
    HOMES.keep();
    FRONT.keep_all();
}

unsafe extern "C" fn after_fork() {
    // SAFETY: `before_fork` has run in this thread, or in the one that this process was forked from.
    unsafe {
        FRONT.give_all_back();
        HOMES.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    #[test]
    fn size_and_alignment_decide_whose_a_request_is() {
        for (size, align, bytes) in
            [(1, 1, Some(1)), (1, 16, Some(16)), (512, 8, Some(512)), (513, 1, None), (8, 32, None), (0, 1, Some(1))]
        {
            assert_eq!(small_bytes(layout(size, align)), bytes, "{size} bytes aligned to {align}");
        }
    }
}
