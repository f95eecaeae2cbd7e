//! The reserved addresses: where pools and their headers are.
//!
//! **Invariant:** pool `i` begins at `base + i * POOL_BYTES`, and what lies in `span_bytes` from `base` on belongs to
//! pools alone. Neither address changes once there is one.

use std::ptr;

use super::policy;
use super::pool::Header;
use crate::arena::ArenaCounts;
use crate::source::Space;

/// Size of a pool, as in pymalloc since 3.10.
pub(super) const POOL_BYTES: usize = 1 << POOL_LOG2;
const POOL_LOG2: u32 = 14;
/// Size of an arena: the step by which the span grows.
pub(super) const ARENA_BYTES: usize = 1 << 20;
pub(super) const POOLS_PER_ARENA: usize = ARENA_BYTES / POOL_BYTES;
const HEADER_BYTES: usize = size_of::<Header>();

pub(super) struct Range<const POLICIES: u32> {
    /// First address of pool 0; null before anything is reserved.
    base: *mut u8,
    /// Bytes of arenas behind `base`.
    span_bytes: usize,
    /// Header of pool 0, with [`policy::PACKED`].
    headers: *mut u8,
    /// What `span_bytes` may grow to; what is wished for until something is reserved.
    room_bytes: usize,
    space: Space,
}

impl<const POLICIES: u32> Range<POLICIES> {
    const IS_PACKED: bool = POLICIES & policy::PACKED != 0;
    /// Bytes at a pool's start that hold no block.
    pub(super) const SKIPPED_BYTES: usize = if Self::IS_PACKED { 0 } else { HEADER_BYTES };

    pub(super) const fn new(room_bytes: usize) -> Self {
        Self {
            base: ptr::null_mut(),
            span_bytes: 0,
            headers: ptr::null_mut(),
            room_bytes: if room_bytes < ARENA_BYTES { ARENA_BYTES } else { room_bytes / ARENA_BYTES * ARENA_BYTES },
            space: Space::NONE,
        }
    }

    /// Whether an address lies in an arena. Any may be asked about.
    #[inline(always)]
    pub(super) fn covers(&self, address: usize) -> bool {
        address.wrapping_sub(self.base.addr()) < self.span_bytes
    }

    /// The header of the pool that a block lies in.
    #[inline(always)]
    pub(super) fn header_of(&self, block: *mut u8) -> *mut Header {
        if Self::IS_PACKED {
            let offset = block.addr().wrapping_sub(self.base.addr());
            // The pool's number times the size of a header.
            self.headers.wrapping_add((offset >> (POOL_LOG2 - HEADER_BYTES.ilog2())) & !(HEADER_BYTES - 1)).cast()
        } else {
            block.map_addr(|address| address & !(POOL_BYTES - 1)).cast()
        }
    }

    /// The header of pool `index`.
    pub(super) fn header(&self, index: usize) -> *mut Header {
        if Self::IS_PACKED { self.headers.wrapping_add(index * HEADER_BYTES).cast() } else { self.pool(index).cast() }
    }

    /// The number of a pool.
    pub(super) fn index(&self, header: *mut Header) -> usize {
        if Self::IS_PACKED {
            (header.addr() - self.headers.addr()) / HEADER_BYTES
        } else {
            (header.addr() - self.base.addr()) / POOL_BYTES
        }
    }

    /// Where pool `index` begins.
    pub(super) fn pool(&self, index: usize) -> *mut u8 {
        self.base.wrapping_add(index * POOL_BYTES)
    }

    /// Pools of all arenas.
    pub(super) fn pools(&self) -> usize {
        self.span_bytes / POOL_BYTES
    }

    /// One more arena, and its first address; null if no address space is left.
    pub(super) fn grow(&mut self) -> *mut u8 {
        if self.base.is_null() && !self.reserve() || self.span_bytes == self.room_bytes {
            return ptr::null_mut();
        }
        let arena = self.base.wrapping_add(self.span_bytes);
        self.span_bytes += ARENA_BYTES;
        arena
    }

    /// Takes the last arena back, of which no pool was ever taken.
    pub(super) fn shrink(&mut self) {
        self.span_bytes -= ARENA_BYTES;
    }

    /// Arenas behind `base`. None is ever unmapped: pools go back one by one.
    pub(super) fn arenas(&self) -> ArenaCounts {
        let count = self.span_bytes / ARENA_BYTES;
        ArenaCounts { mapped_total: count, mapped: count, mapped_peak: count }
    }

    /// Reserves what is wished for, or the half, until the kernel agrees: a limit on address space may be set.
    #[cold]
    fn reserve(&mut self) -> bool {
        while self.room_bytes >= ARENA_BYTES {
            let table_bytes = if Self::IS_PACKED { self.room_bytes / POOL_BYTES * HEADER_BYTES } else { 0 };
            // An arena more than needed, since the kernel aligns to an OS page only.
            let space = Space::reserve(table_bytes + ARENA_BYTES + self.room_bytes);
            if !space.is_none() {
                self.headers = space.start();
                self.base = space.start().wrapping_add(table_bytes).map_addr(|at| at.next_multiple_of(ARENA_BYTES));
                self.space = space;
                return true;
            }
            self.room_bytes = self.room_bytes / 2 / ARENA_BYTES * ARENA_BYTES;
        }
        false
    }

    /// Has the kernel make the OS pages of a pool present.
    pub(super) fn populate(&self, index: usize) {
        self.space.populate(self.pool(index), POOL_BYTES);
    }

    /// Gives the OS pages of `count` pools from `first` on back to the kernel. What they held is lost, but for a
    /// header.
    ///
    /// # Safety
    /// No block of these pools is in use, and their free lists are forgotten.
    pub(super) unsafe fn discard(&self, first: usize, count: usize) {
        if Self::IS_PACKED {
            // SAFETY: by contract; the pools lie in the space.
            return unsafe { self.space.discard(self.pool(first), count * POOL_BYTES) };
        }
        for index in first..first + count {
            let kept = OS_PAGE_BYTES.max(Self::SKIPPED_BYTES);
            // SAFETY: as above; the page with the header stays.
            unsafe { self.space.discard(self.pool(index).wrapping_add(kept), POOL_BYTES - kept) };
        }
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// No pool and no header is used any more.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: by contract.
        unsafe { self.space.release() };
        *self = Self::new(self.room_bytes);
    }
}

/// What blocks are carved by, and the least that can be given back.
pub(super) const OS_PAGE_BYTES: usize = 4096;
