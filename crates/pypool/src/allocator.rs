//! The policy's entry points: allocate, reallocate, free.
//!
//! The common case of each is a handful of loads and stores on one cache line, the pool's header; everything that
//! happens once per pool or arena is out of line, in functions that the short ones end with a jump to. They are
//! `extern "C"` because such functions never unwind (a panic in a source of memory aborts): without a frame to clean
//! up, a jump is possible, and the common case saves no registers. The names of the CPython functions that do the same:
//! `pymalloc_alloc`, `allocate_from_new_pool`, `pymalloc_free`, `insert_to_usedpool`, `insert_to_freepool`,
//! `pymalloc_realloc`.
//!
//! **Invariant:** `used[c]` lists exactly the pools of class `c` that have blocks both in use and free, each with a
//! non-null free list. Only its front pool is allocated from; pools enter it at the front.

use std::fmt;
use std::ptr;

use crate::arena::ArenaTable;
use crate::geometry::{CLASSES_MAX, Current, Derived, Geometry};
use crate::pool::{self, PoolHeader};
use crate::radix::AddressMap;
use crate::source::{ArenaSource, LibcRaw, MappedArenas, RawAllocator};

/// Largest request that is tried at all, as in CPython (`PY_SSIZE_T_MAX`).
const REQUEST_BYTES_MAX: usize = isize::MAX as usize;

/// An allocator with pymalloc's policy, over a raw allocator and an arena source.
///
/// Not thread-safe, as pymalloc is not: the caller provides the lock that the GIL is for CPython (see
/// [`GilCell`](crate::GilCell)). The address map's root makes it about 260 KiB large; keep it in a `static` (it is all
/// zeros at first) or in a box. Dropping it releases its arenas and with them all blocks that came from pools.
pub struct Allocator<R: RawAllocator = LibcRaw, A: ArenaSource = MappedArenas, G: Geometry = Current> {
    /// Front of the list of used pools, per class.
    pub(crate) used: [*mut PoolHeader; CLASSES_MAX],
    /// Live blocks of the raw allocator that were handed out, without those that it did not hand out itself.
    pub(crate) raw_blocks: isize,
    pub(crate) map: AddressMap<G>,
    pub(crate) arenas: ArenaTable,
    raw: R,
    source: A,
}

// SAFETY: all pointers lead into memory that the allocator owns alone; it may move to another thread with them.
unsafe impl<R: RawAllocator + Send, A: ArenaSource + Send, G: Geometry> Send for Allocator<R, A, G> {}

#[allow(improper_ctypes_definitions, reason = "called from Rust only; the ABI is chosen because it never unwinds")]
impl<R: RawAllocator, A: ArenaSource, G: Geometry> Allocator<R, A, G> {
    /// An allocator without arenas. Takes no memory until the first small request.
    pub const fn new(raw: R, source: A) -> Self {
        const { Derived::<G>::VALID };
        Self {
            used: [ptr::null_mut(); CLASSES_MAX],
            raw_blocks: 0,
            map: AddressMap::new(),
            arenas: ArenaTable::new(),
            raw,
            source,
        }
    }

    /// A block of `bytes`, aligned to `G::ALIGNMENT_BYTES` if it comes from a pool, else as the raw allocator does.
    ///
    /// Requests of 0 bytes and of more than `G::SMALL_BYTES_MAX` go to the raw allocator; 0 bytes as 1. Null if there
    /// is no memory or `bytes` exceeds `isize::MAX`.
    #[inline]
    pub fn allocate(&mut self, bytes: usize) -> *mut u8 {
        // One comparison for both ends: 0 wraps around.
        if bytes.wrapping_sub(1) >= G::SMALL_BYTES_MAX {
            return self.allocate_raw(bytes);
        }
        let class = Derived::<G>::class_of(bytes);
        let pool = self.used[class];
        if pool.is_null() {
            return self.allocate_from_new_pool(class, bytes);
        }
        // SAFETY: a used pool's header is initialised, its free list not empty.
        unsafe {
            (*pool).in_use += 1;
            let block = (*pool).free;
            let next = pool::link(block);
            (*pool).free = next;
            if next.is_null() && !pool::carve::<G>(pool, class) {
                return self.unlink_full(pool, class, block);
            }
            block
        }
    }

    /// A zeroed block of `count` elements of `element_bytes`; null also if the product exceeds `isize::MAX`.
    #[inline]
    pub fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(element_bytes).filter(|&bytes| bytes <= REQUEST_BYTES_MAX) else {
            return ptr::null_mut();
        };
        if bytes.wrapping_sub(1) >= G::SMALL_BYTES_MAX {
            return self.allocate_zeroed_raw(count, element_bytes);
        }
        if self.used[Derived::<G>::class_of(bytes)].is_null() && !self.has_free_pool() {
            return self.allocate_zeroed_raw(count, element_bytes);
        }
        let block = self.allocate(bytes);
        // SAFETY: it comes from a pool and is at least `bytes` long. The rest of it is left as it is.
        unsafe { block.write_bytes(0, bytes) };
        block
    }

    /// Gives a block back. Null is allowed and does nothing.
    ///
    /// # Safety
    /// `block` is null, a live block of this allocator, or a live block of its raw allocator. It is the pointer that
    /// was returned, not one made from a reference to the content: it has to reach the pool's header.
    #[inline]
    pub unsafe fn free(&mut self, block: *mut u8) {
        if self.map.covers_nearby(block.addr()) {
            // SAFETY: the block lies in an arena; the caller gives it up.
            unsafe { self.free_to_pool(block) }
        } else {
            // SAFETY: by contract.
            unsafe { self.free_far(block) }
        }
    }

    /// # Safety
    /// `block` is a live block of a pool.
    #[inline(always)]
    unsafe fn free_to_pool(&mut self, block: *mut u8) {
        let pool = pool::of_block::<G>(block);
        // SAFETY: the block lies in an arena, so its pool's header is initialised; the caller gives the block up.
        unsafe {
            let first = (*pool).free;
            pool::set_link(block, first);
            (*pool).free = block;
            let in_use = (*pool).in_use - 1;
            (*pool).in_use = in_use;
            if first.is_null() {
                // This test comes before the one for an empty pool, as in CPython.
                self.relink_full(pool);
            } else if in_use == 0 {
                self.retire(pool);
            }
        }
    }

    /// Makes a block `bytes` long, perhaps moving it; the content up to the smaller length stays. Null leaves it alone.
    ///
    /// A pool block stays where it is if `bytes` fits it and more than three quarters of it would be used. A block of
    /// the raw allocator stays with the raw allocator, however small it gets. `reallocate(null, n)` is `allocate(n)`.
    ///
    /// # Safety
    /// As for [`free`](Self::free); the old block is gone unless null is returned.
    #[inline]
    pub unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        if self.map.covers_nearby(block.addr()) {
            // SAFETY: the block lies in an arena and is live.
            unsafe { self.reallocate_in_pool(block, bytes) }
        } else {
            // SAFETY: by contract.
            unsafe { self.reallocate_far(block, bytes) }
        }
    }

    /// # Safety
    /// `block` is a live block of a pool.
    #[inline(always)]
    unsafe fn reallocate_in_pool(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: the block lies in an arena, so its pool's header is initialised.
        let old_bytes = Derived::<G>::block_bytes(unsafe { (*pool::of_block::<G>(block)).class } as usize);
        if bytes <= old_bytes && 4 * bytes > 3 * old_bytes {
            return block;
        }
        // SAFETY: a live block of a pool, `old_bytes` long.
        unsafe { self.reallocate_by_move(block, old_bytes, bytes) }
    }

    /// Bytes that a pool block really has; `None` if `block` is not in an arena of this allocator.
    ///
    /// # Safety
    /// If `block` lies in an arena it is a live block.
    #[inline]
    pub unsafe fn usable_size(&mut self, block: *mut u8) -> Option<usize> {
        // SAFETY: a live block's pool has an initialised header.
        self.owns(block).then(|| Derived::<G>::block_bytes(unsafe { (*pool::of_block::<G>(block)).class } as usize))
    }

    /// Whether an address lies in an arena of this allocator. Any address may be asked about.
    #[inline]
    pub fn owns(&mut self, address: *const u8) -> bool {
        self.map.covers(address.addr())
    }

    /// The raw allocator. Shared only: in its place another one would be given back memory that it never gave.
    pub fn raw(&self) -> &R {
        &self.raw
    }

    /// The arena source; shared only, as [`raw`](Self::raw).
    pub fn source(&self) -> &A {
        &self.source
    }

    #[inline(never)]
    extern "C" fn allocate_from_new_pool(&mut self, class: usize, bytes: usize) -> *mut u8 {
        if !self.has_free_pool() {
            return self.allocate_raw(bytes);
        }
        // SAFETY: there is a usable arena, and the pool that it gives belongs to this class from now on.
        unsafe {
            let pool = self.arenas.take_pool::<G>();
            (*pool).in_use = 1;
            self.link_front(pool, class);
            if (*pool).class as usize != class {
                return pool::initialise::<G>(pool, class);
            }
            // The pool's last life was in this class: its free list, of at least two blocks, is still good.
            let block = (*pool).free;
            (*pool).free = pool::link(block);
            block
        }
    }

    /// Whether an arena can give a pool, perhaps after one was mapped.
    fn has_free_pool(&mut self) -> bool {
        !self.arenas.usable.is_null() || self.arenas.map(&mut self.map, &mut self.raw, &mut self.source)
    }

    /// # Safety
    /// `pool` is in no list and belongs to `class`.
    #[inline(always)]
    unsafe fn link_front(&mut self, pool: *mut PoolHeader, class: usize) {
        let front = self.used[class];
        // SAFETY: listed pools have initialised headers.
        unsafe {
            (*pool).next = front;
            (*pool).previous = ptr::null_mut();
            if !front.is_null() {
                (*front).previous = pool;
            }
        }
        self.used[class] = pool;
    }

    /// Takes a pool off the front of its list, since its last block is being handed out, and returns that block.
    ///
    /// # Safety
    /// `pool` is at the front of the list of `class`.
    #[inline(never)]
    unsafe extern "C" fn unlink_full(&mut self, pool: *mut PoolHeader, class: usize, last: *mut u8) -> *mut u8 {
        debug_assert!(self.used[class] == pool, "only the front pool can become full");
        // SAFETY: listed pools have initialised headers.
        unsafe {
            let next = (*pool).next;
            self.used[class] = next;
            if !next.is_null() {
                (*next).previous = ptr::null_mut();
            }
        }
        last
    }

    /// Puts a pool that was full at the front of its class's list.
    ///
    /// # Safety
    /// `pool` was full until a block was freed just now.
    #[inline(never)]
    unsafe extern "C" fn relink_full(&mut self, pool: *mut PoolHeader) {
        // SAFETY: a full pool is in no list; its class is one of the geometry's.
        unsafe { self.link_front(pool, (*pool).class as usize) };
    }

    /// Gives a pool whose last block has been freed back to its arena.
    ///
    /// # Safety
    /// `pool` is in its class's list and no block of it is in use.
    #[inline(never)]
    unsafe extern "C" fn retire(&mut self, pool: *mut PoolHeader) {
        // SAFETY: listed pools have initialised headers.
        unsafe {
            let (next, previous) = ((*pool).next, (*pool).previous);
            if previous.is_null() {
                self.used[(*pool).class as usize] = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            if let Some(arena) = self.arenas.return_pool(pool) {
                self.map.unmark(arena.addr());
                self.source.unmap(arena, G::ARENA_BYTES);
            }
        }
    }

    #[inline(never)]
    extern "C" fn allocate_raw(&mut self, bytes: usize) -> *mut u8 {
        if bytes > REQUEST_BYTES_MAX {
            return ptr::null_mut();
        }
        let block = self.raw.allocate(bytes.max(1));
        self.raw_blocks += isize::from(!block.is_null());
        block
    }

    #[inline(never)]
    extern "C" fn allocate_zeroed_raw(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        let (count, element_bytes) = if count == 0 || element_bytes == 0 { (1, 1) } else { (count, element_bytes) };
        let block = self.raw.allocate_zeroed(count, element_bytes);
        self.raw_blocks += isize::from(!block.is_null());
        block
    }

    /// Frees a block that does not lie near the last one: the raw allocator's, or one in an arena far away.
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[inline(never)]
    unsafe extern "C" fn free_far(&mut self, block: *mut u8) {
        if self.map.covers_by_walk(block.addr()) {
            // SAFETY: the block lies in an arena; the caller gives it up.
            unsafe { self.free_to_pool(block) }
        } else {
            // SAFETY: an address outside the arenas can only be the raw allocator's, by contract, or null.
            unsafe { self.free_raw(block) }
        }
    }

    /// # Safety
    /// `block` is null or a live block of the raw allocator.
    unsafe fn free_raw(&mut self, block: *mut u8) {
        if block.is_null() {
            return;
        }
        self.raw_blocks -= 1;
        // SAFETY: by contract.
        unsafe { self.raw.free(block) }
    }

    /// # Safety
    /// `block` is a live block of a pool, `old_bytes` long.
    #[inline(never)]
    unsafe extern "C" fn reallocate_by_move(&mut self, block: *mut u8, old_bytes: usize, bytes: usize) -> *mut u8 {
        let moved = self.allocate(bytes);
        if !moved.is_null() {
            // SAFETY: both blocks are live, distinct and at least as long as the part that is copied.
            unsafe {
                ptr::copy_nonoverlapping(block, moved, bytes.min(old_bytes));
                self.free(block);
            }
        }
        moved
    }

    /// Reallocates what does not lie near the last block: null, the raw allocator's, or one in an arena far away.
    ///
    /// # Safety
    /// As for [`reallocate`](Self::reallocate).
    #[inline(never)]
    unsafe extern "C" fn reallocate_far(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        if block.is_null() {
            return self.allocate(bytes);
        }
        if self.map.covers_by_walk(block.addr()) {
            // SAFETY: the block lies in an arena and is live.
            return unsafe { self.reallocate_in_pool(block, bytes) };
        }
        if bytes > REQUEST_BYTES_MAX {
            return ptr::null_mut();
        }
        // SAFETY: an address outside the arenas can only be the raw allocator's, by contract.
        unsafe { self.raw.reallocate(block, bytes.max(1)) }
    }
}

impl<R: RawAllocator, A: ArenaSource, G: Geometry> Drop for Allocator<R, A, G> {
    fn drop(&mut self) {
        self.arenas.clear::<G>(&mut self.raw, &mut self.source);
        self.map.clear(&mut self.raw);
    }
}

impl<R: RawAllocator, A: ArenaSource, G: Geometry> fmt::Debug for Allocator<R, A, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("arenas", &self.arenas.counts)
            .field("raw_blocks", &self.raw_blocks)
            .finish_non_exhaustive()
    }
}
