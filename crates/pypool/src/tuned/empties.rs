//! Pools without a block in use: which one is taken next, and when the kernel gets memory back.
//!
//! The pool emptied last is taken first, since its memory is the warmest. With [`policy::PURGE`] the pools at the other
//! end of the stack go back to the kernel when there are too many: half of what is allowed is left, so that a program
//! at the limit does not give and take with every pool, and neighbours go with one system call.
//!
//! **Invariant:** `dirty` pools are linked both ways from `newest` to `oldest`, all of them empty and none purged.

use std::ptr;

use super::policy;
use super::pool::{Header, NO_CLASS, state};
use super::range::{POOLS_PER_ARENA, Range};

/// Empty pools that may be kept however few are in use: 512 KiB.
const KEPT_MIN: usize = 32;
/// One for so many pools in use may be kept.
const IN_USE_PER_KEPT: usize = 8;

pub(super) struct Empties<const POLICIES: u32> {
    pub(super) newest: *mut Header,
    pub(super) oldest: *mut Header,
    /// Empty pools whose memory may be present.
    pub(super) dirty: usize,
    /// Pools whose memory the kernel has back, linked one way.
    pub(super) purged: *mut Header,
    /// The first pool that was never taken.
    pub(super) virgin: usize,
    /// Pools that are used or full.
    pub(super) in_use: usize,
}

impl<const POLICIES: u32> Empties<POLICIES> {
    const PURGES: bool = POLICIES & policy::PURGE != 0;
    const POPULATES: bool = POLICIES & policy::POPULATE != 0;

    pub(super) const fn new() -> Self {
        Self {
            newest: ptr::null_mut(),
            oldest: ptr::null_mut(),
            dirty: 0,
            purged: ptr::null_mut(),
            virgin: 0,
            in_use: 0,
        }
    }

    /// Whether there is no pool to take before the range grows.
    pub(super) fn is_dry(&self, range: &Range<POLICIES>) -> bool {
        self.newest.is_null() && self.purged.is_null() && self.virgin == range.pools()
    }

    /// Whether there is a pool that is empty and has its memory.
    pub(super) fn has_warm(&self) -> bool {
        !self.newest.is_null()
    }

    /// A pool for a class; `is_growing` when it will probably fill it.
    ///
    /// The caller sets state, links and countdown. Class, free list and carve state are those of the pool's last life,
    /// or [`NO_CLASS`].
    ///
    /// # Safety
    /// The pools are not dry, and `range` is the one that all pools in here come from.
    pub(super) unsafe fn take(&mut self, range: &Range<POLICIES>, is_growing: bool) -> *mut Header {
        self.in_use += 1;
        // SAFETY: whatever is linked here is the header of an empty or purged pool of this range.
        unsafe {
            let newest = self.newest;
            if !newest.is_null() {
                self.unlink(newest);
                return newest;
            }
            let mut fresh = self.purged;
            if fresh.is_null() {
                fresh = range.header(self.virgin);
                self.virgin += 1;
            } else {
                self.purged = (*fresh).next;
            }
            if Self::POPULATES && is_growing {
                range.populate(range.index(fresh));
            }
            (*fresh).class = NO_CLASS;
            fresh
        }
    }

    /// Takes a pool back whose last block has been freed.
    ///
    /// # Safety
    /// `header` came from `take`, no block of its pool is in use, and it is in no list.
    pub(super) unsafe fn put(&mut self, header: *mut Header, range: &Range<POLICIES>) {
        self.in_use -= 1;
        // SAFETY: by contract; links of the stack are headers.
        unsafe {
            (*header).state = state::EMPTY;
            (*header).next = self.newest;
            (*header).previous = ptr::null_mut();
            if self.newest.is_null() {
                self.oldest = header;
            } else {
                (*self.newest).previous = header;
            }
        }
        self.newest = header;
        self.dirty += 1;
        if Self::PURGES {
            let kept_max = KEPT_MIN.max(self.in_use / IN_USE_PER_KEPT);
            if self.dirty > kept_max {
                // SAFETY: the range is that of all pools.
                unsafe { self.purge(range, kept_max / 2) };
            }
        } else {
            // SAFETY: as above.
            unsafe { self.discard_arena_of(header, range) };
        }
    }

    /// Gives the pools that have been empty longest back to the kernel, with their empty neighbours, until `kept` are
    /// left or fewer.
    ///
    /// # Safety
    /// `range` is the one that all pools in here come from.
    pub(super) unsafe fn purge(&mut self, range: &Range<POLICIES>, kept: usize) {
        while self.dirty > kept {
            let oldest = range.index(self.oldest);
            // One call stays within an arena, so that a single free does not give back without bound.
            let first_of_arena = oldest / POOLS_PER_ARENA * POOLS_PER_ARENA;
            let end_of_arena = self.virgin.min(first_of_arena + POOLS_PER_ARENA);
            // SAFETY: pools below `virgin` have headers.
            let is_empty = |index: &usize| unsafe { (*range.header(*index)).state == state::EMPTY };
            let before = (first_of_arena..oldest).rev().take_while(is_empty).count();
            let behind = (oldest..end_of_arena).take_while(is_empty).count();
            // SAFETY: these pools are empty.
            unsafe { self.discard(range, oldest - before, before + behind) };
        }
    }

    /// Gives the empty pools of a wholly free arena back, as long as another arena has a pool to give.
    ///
    /// # Safety
    /// As for [`purge`](Self::purge).
    unsafe fn discard_arena_of(&mut self, header: *mut Header, range: &Range<POLICIES>) {
        let first = range.index(header) / POOLS_PER_ARENA * POOLS_PER_ARENA;
        let end = self.virgin.min(first + POOLS_PER_ARENA);
        let free = range.pools() - self.in_use;
        // SAFETY: pools below `virgin` have headers.
        let is_used = |index: usize| unsafe { matches!((*range.header(index)).state, state::USED | state::FULL) };
        if free <= POOLS_PER_ARENA || (first..end).any(is_used) {
            return;
        }
        // SAFETY: as above.
        let is_empty = |index: &usize| unsafe { (*range.header(*index)).state == state::EMPTY };
        let mut at = first;
        while at < end {
            let run = (at..end).take_while(is_empty).count();
            if run > 0 {
                // SAFETY: these pools are empty.
                unsafe { self.discard(range, at, run) };
            }
            at += run.max(1);
        }
    }

    /// Gives `count` pools from `first` on back to the kernel.
    ///
    /// # Safety
    /// All of them are in the stack.
    unsafe fn discard(&mut self, range: &Range<POLICIES>, first: usize, count: usize) {
        // SAFETY: by contract.
        unsafe {
            for header in (first..first + count).map(|index| range.header(index)) {
                self.unlink(header);
                (*header).state = state::PURGED;
                (*header).class = NO_CLASS;
                (*header).free = ptr::null_mut();
                (*header).next = self.purged;
                self.purged = header;
            }
            range.discard(first, count);
        }
    }

    /// # Safety
    /// `header` is in the stack.
    unsafe fn unlink(&mut self, header: *mut Header) {
        // SAFETY: links of the stack are headers.
        unsafe {
            let (next, previous) = ((*header).next, (*header).previous);
            if previous.is_null() {
                self.newest = next;
            } else {
                (*previous).next = next;
            }
            if next.is_null() {
                self.oldest = previous;
            } else {
                (*next).previous = previous;
            }
        }
        self.dirty -= 1;
    }
}
