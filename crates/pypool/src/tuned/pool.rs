//! A pool of the tuned allocator, as far as its header knows it.
//!
//! **Invariant:** blocks in use + length of `free` + `virgin` = blocks per pool of the class, unless the pool is purged
//! or virgin itself.

use std::ptr;

/// Where a pool stands. Zero is what a header holds that was never written.
pub(super) mod state {
    pub(in crate::tuned) const VIRGIN: u8 = 0;
    pub(in crate::tuned) const USED: u8 = 1;
    pub(in crate::tuned) const FULL: u8 = 2;
    pub(in crate::tuned) const EMPTY: u8 = 3;
    pub(in crate::tuned) const PURGED: u8 = 4;
}

/// Class of a pool whose free list and carve state mean nothing.
pub(super) const NO_CLASS: u8 = u8::MAX;

/// Half a cache line, so that no header shares its line with more than one other.
#[repr(C, align(32))]
pub(super) struct Header {
    /// Freed and carved blocks, last freed first.
    pub(super) free: *mut u8,
    /// Next used pool of the class, or next in the stack of empty or the list of purged pools.
    pub(super) next: *mut Header,
    /// Previous in the list of the class or in the stack; null at the front.
    pub(super) previous: *mut Header,
    /// Frees until something has to happen: the blocks in use, or 1 while the pool is full. So a free makes one test,
    /// where pymalloc makes two: whether the pool was full, and whether it is empty now.
    pub(super) countdown: u16,
    /// Blocks that have never been handed out.
    pub(super) virgin: u16,
    /// Size class, or [`NO_CLASS`].
    pub(super) class: u8,
    /// One of [`state`].
    pub(super) state: u8,
}

/// What a class without a used pool has at the front of its list: a pool without a free block, so that an allocation
/// need not test whether there is one. It is never written.
pub(super) struct Nobody(Header);

// SAFETY: nobody writes it, and its pointers are null.
unsafe impl Sync for Nobody {}

static NOBODY: Nobody = Nobody(Header {
    free: ptr::null_mut(),
    next: ptr::null_mut(),
    previous: ptr::null_mut(),
    countdown: 0,
    virgin: 0,
    class: NO_CLASS,
    state: state::VIRGIN,
});

/// The front of an empty list.
pub(super) const NONE: *mut Header = (&raw const NOBODY.0).cast_mut();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_headers_share_a_cache_line() {
        assert_eq!(size_of::<Header>(), 32);
    }
}
