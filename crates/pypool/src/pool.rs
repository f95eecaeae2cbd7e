//! A pool: one header, then blocks of one size class.
//!
//! ```text
//! 0        48        48+s      48+2s                    next_virgin             POOL_BYTES
//! | header | block 0 | block 1 | ...  in use or on `free` | never handed out ... | rest < s |
//! ```
//!
//! A free block's first word links to the next free block. Blocks are carved off the virgin part one at a time, and
//! only when the free list has run dry, so a pool touches its OS pages in address order.
//!
//! **Invariant:** `in_use` + length of `free` + uncarved blocks = blocks per pool of the class.

use std::ptr;

use crate::geometry::{Derived, Geometry};

/// A free block: nothing but the link to the next one.
pub(crate) type Block = *mut u8;

/// Class of a pool that has not been used yet.
pub(crate) const NO_CLASS: u32 = u32::MAX;

/// The first 48 bytes of a pool, field for field as CPython lays them out.
///
/// A pool is in one of three states:
/// - *used* (some blocks in use, some free): linked in the list of its class, `free` is not null;
/// - *full* (no block free): linked nowhere, `free` is null;
/// - *empty* (no block in use): linked through `next` in its arena's list of empty pools; it keeps class, free list and
///   carve state for the case that the same class takes it again.
#[repr(C)]
pub(crate) struct PoolHeader {
    /// Blocks handed out.
    pub(crate) in_use: u64,
    /// Freed and carved blocks, last freed first.
    pub(crate) free: Block,
    /// Next used pool of the class, or next empty pool of the arena.
    pub(crate) next: *mut PoolHeader,
    /// Previous used pool of the class; null at the front.
    pub(crate) previous: *mut PoolHeader,
    /// Index of the arena's descriptor.
    pub(crate) arena: u32,
    /// Size class, or [`NO_CLASS`].
    pub(crate) class: u32,
    /// Offset of the first block that has never been handed out.
    pub(crate) next_virgin: u32,
    /// Largest offset at which a whole block still fits.
    pub(crate) last_virgin: u32,
}

/// The pool that a block lies in.
#[inline(always)]
pub(crate) fn of_block<G: Geometry>(block: *mut u8) -> *mut PoolHeader {
    block.map_addr(|address| address & !(G::POOL_BYTES - 1)).cast()
}

/// Reads the link that a free block holds.
///
/// # Safety
/// `block` is a free block of a pool.
#[inline(always)]
pub(crate) unsafe fn link(block: Block) -> Block {
    // SAFETY: a free block is at least one aligned word long and belongs to the allocator.
    unsafe { block.cast::<Block>().read() }
}

/// Makes `block` link to `next`.
///
/// # Safety
/// `block` is a block of a pool that nobody outside the allocator uses any more.
#[inline(always)]
pub(crate) unsafe fn set_link(block: Block, next: Block) {
    // SAFETY: as for `link`.
    unsafe { block.cast::<Block>().write(next) }
}

/// Readies a pool for `class`: hands out its first block, puts the second on the free list, leaves the rest uncarved.
///
/// # Safety
/// `pool` starts a pool of which no block is in use.
pub(crate) unsafe fn initialise<G: Geometry>(pool: *mut PoolHeader, class: usize) -> Block {
    let block_bytes = Derived::<G>::block_bytes(class);
    let header_bytes = Derived::<G>::HEADER_BYTES;
    // SAFETY: the pool is `POOL_BYTES` long and a geometry leaves room for at least two blocks after the header.
    unsafe {
        let first = pool.cast::<u8>().add(header_bytes);
        let second = first.add(block_bytes);
        (*pool).class = class as u32;
        (*pool).next_virgin = (header_bytes + 2 * block_bytes) as u32;
        (*pool).last_virgin = (G::POOL_BYTES - block_bytes) as u32;
        (*pool).free = second;
        set_link(second, ptr::null_mut());
        first
    }
}

/// Carves one more block and makes it the whole free list. False if there is no virgin block left.
///
/// # Safety
/// `pool` is a pool of `class` with an empty free list.
#[inline(always)]
pub(crate) unsafe fn carve<G: Geometry>(pool: *mut PoolHeader, class: usize) -> bool {
    // SAFETY: `next_virgin` <= `last_virgin` says that a whole block lies at that offset.
    unsafe {
        let offset = (*pool).next_virgin;
        if offset > (*pool).last_virgin {
            return false;
        }
        (*pool).next_virgin = offset + Derived::<G>::block_bytes(class) as u32;
        let fresh = pool.cast::<u8>().add(offset as usize);
        (*pool).free = fresh;
        set_link(fresh, ptr::null_mut());
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_as_long_as_in_cpython() {
        assert_eq!(size_of::<PoolHeader>(), 48);
    }
}
