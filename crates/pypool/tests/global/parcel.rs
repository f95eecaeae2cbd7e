//! A block with its layout and what it is filled with, which may change hands.
//!
//! **Invariant:** the block is live and filled, and closed to the sanitizer but for the moments in which it is looked
//! at.

use std::alloc::{GlobalAlloc, Layout};

use crate::{POOL, shadow};

/// Pools serve requests up to these limits.
pub(crate) const SMALL_BYTES_MAX: usize = 512;
pub(crate) const SMALL_ALIGNMENT_BYTES_MAX: usize = 16;

pub(crate) struct Parcel {
    block: *mut u8,
    layout: Layout,
    fill: u8,
}

// SAFETY: a parcel is the only way to its block.
unsafe impl Send for Parcel {}

impl Parcel {
    /// A new block. A zeroed one has to be zeroed.
    pub(crate) fn new(bytes: usize, alignment_bytes: usize, fill: u8, zeroed: bool) -> Self {
        let layout = Layout::from_size_align(bytes, alignment_bytes).unwrap();
        // SAFETY: the size is not zero.
        let block = unsafe { if zeroed { POOL.alloc_zeroed(layout) } else { POOL.alloc(layout) } };
        let parcel = Self { block, layout, fill };
        parcel.assert_in_place();
        if zeroed {
            parcel.assert_filled(bytes, 0);
        }
        parcel.fill_anew()
    }

    /// Another length; the content stays.
    pub(crate) fn resized(mut self, bytes: usize) -> Self {
        self.open();
        // SAFETY: a live block of this layout; the new size is small and not zero.
        let block = unsafe { POOL.realloc(self.block, self.layout, bytes) };
        let kept_bytes = bytes.min(self.layout.size());
        self.layout = Layout::from_size_align(bytes, self.layout.align()).unwrap();
        self.block = block;
        self.assert_in_place();
        self.assert_filled(kept_bytes, self.fill);
        self.fill_anew()
    }

    /// Asks for so much that it has to be refused; the block stays.
    pub(crate) fn resized_in_vain(self) -> Self {
        self.open();
        let bytes = isize::MAX as usize - self.layout.align() + 1 - 4096;
        // SAFETY: a live block of this layout; the new size is a layout's.
        let block = unsafe { POOL.realloc(self.block, self.layout, bytes) };
        assert!(block.is_null(), "nobody has so much memory");
        self.assert_filled(self.layout.size(), self.fill);
        self.fill_anew()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// Looks at the content and gives the block back.
    pub(crate) fn free(self) {
        self.open();
        // SAFETY: a live block of this layout.
        unsafe { POOL.dealloc(self.block, self.layout) };
    }

    /// Opens the block to the sanitizer. Its content has to be whole.
    fn open(&self) {
        shadow::open(self.block, self.pool_bytes());
        self.assert_filled(self.layout.size(), self.fill);
    }

    fn fill_anew(self) -> Self {
        // SAFETY: the block is live and so long.
        unsafe { self.block.write_bytes(self.fill, self.layout.size()) };
        shadow::close(self.block, self.pool_bytes());
        self
    }

    /// Bytes that are the block's alone; of a block of `malloc` the sanitizer knows by itself.
    fn pool_bytes(&self) -> usize {
        if self.is_small() { self.layout.size().next_multiple_of(16) } else { 0 }
    }

    fn is_small(&self) -> bool {
        self.layout.size() <= SMALL_BYTES_MAX && self.layout.align() <= SMALL_ALIGNMENT_BYTES_MAX
    }

    fn assert_in_place(&self) {
        assert!(!self.block.is_null(), "there is memory for {:?}", self.layout);
        assert!(self.block.addr().is_multiple_of(self.layout.align()), "{:?} is aligned", self.layout);
        assert_eq!(POOL.shard_of(self.block).is_some(), self.is_small(), "{:?} is where it belongs", self.layout);
    }

    fn assert_filled(&self, bytes: usize, fill: u8) {
        // SAFETY: the block is live, and `bytes` is not more than it has.
        let content = unsafe { std::slice::from_raw_parts(self.block, bytes) };
        assert!(content.iter().all(|&byte| byte == fill), "the content of a live block has changed");
    }
}
