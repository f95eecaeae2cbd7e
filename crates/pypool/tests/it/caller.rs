//! A caller that keeps account of its blocks: no overlap, alignment, contents that stay, null only when there is cause.
//!
//! **Invariant:** every live block is filled with a byte of its own, and closed to the sanitizer, between two steps.

use std::collections::BTreeMap;

use crate::shadow;
use crate::subject::Subject;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Allocate(usize),
    /// Number of elements, bytes of one.
    AllocateZeroed(usize, usize),
    /// The live block at this index modulo their number, and its new length.
    Reallocate(usize, usize),
    /// Frees the live block at this index modulo their number.
    Free(usize),
    /// Frees a run of blocks, oldest first.
    FreeOldest(usize),
    /// So many more arenas and requests to the raw allocator are served, until the next step of this kind.
    Starve(usize, usize),
    /// Drops the allocator with all blocks of its pools and goes on with a new one.
    Drop,
}

/// A live block: where it is, how long, and the byte that fills it.
#[derive(Clone, Copy)]
struct Live {
    block: *mut u8,
    bytes: usize,
    fill: u8,
}

impl Live {
    fn write(&self) {
        // SAFETY: the block is live and `bytes` long.
        unsafe { self.block.write_bytes(self.fill, self.bytes) };
    }

    fn assert_filled(&self, bytes: usize) {
        // SAFETY: as above, and `bytes` is not more.
        let content = unsafe { std::slice::from_raw_parts(self.block, bytes) };
        assert!(content.iter().all(|&byte| byte == self.fill), "content of a live block has changed");
    }
}

pub(crate) struct Caller<S: Subject> {
    pymalloc: Box<S>,
    place: usize,
    live: Vec<Live>,
    /// Start and length of every live block.
    ranges: BTreeMap<usize, usize>,
    fill: u8,
    refusals: usize,
}

impl<S: Subject> Caller<S> {
    /// `place` is the subject's: where its arenas lie, or how much room there is for them.
    pub(crate) fn new(place: usize) -> Self {
        Self { pymalloc: S::fresh(place), place, live: Vec::new(), ranges: BTreeMap::new(), fill: 0, refusals: 0 }
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Allocate(bytes) => {
                let block = self.pymalloc.allocate(bytes);
                self.add(block, bytes, false);
            }
            Step::AllocateZeroed(count, element_bytes) => {
                let block = self.pymalloc.allocate_zeroed(count, element_bytes);
                let bytes = count.saturating_mul(element_bytes);
                if !block.is_null() {
                    Live { block, bytes, fill: 0 }.assert_filled(bytes);
                }
                self.add(block, bytes, false);
            }
            Step::Reallocate(index, bytes) => self.reallocate(index, bytes),
            Step::Free(index) => {
                if !self.live.is_empty() {
                    let old = self.live.swap_remove(index % self.live.len());
                    self.free(old);
                }
            }
            Step::FreeOldest(count) => {
                let oldest: Vec<_> = self.live.drain(..count.min(self.live.len())).collect();
                oldest.into_iter().for_each(|old| self.free(old));
            }
            Step::Starve(arenas, raw) => self.pymalloc.starve(arenas, raw),
            Step::Drop => self.start_anew(),
        }
        self.refusals = self.pymalloc.refusals();
    }

    /// Walks all invariants and the byte budget.
    pub(crate) fn check(&self) {
        let statistics = self.pymalloc.checked();
        assert_eq!(statistics.total_bytes(), statistics.arenas.mapped * statistics.arena_bytes);
        let blocks: usize = statistics.classes().iter().map(|row| row.blocks_in_use).sum();
        assert_eq!(blocks + statistics.raw_blocks as usize, self.live.len());
    }

    /// Frees everything, some of it from the middle; the last arena may stay.
    pub(crate) fn finish(mut self) {
        while !self.live.is_empty() {
            self.step(Step::Free(self.live.len() / 2));
        }
        self.check();
        self.pymalloc.assert_drained();
    }

    fn usable_size(&mut self, block: *mut u8) -> Option<usize> {
        // SAFETY: all callers pass live blocks.
        unsafe { self.pymalloc.usable_size(block) }
    }

    /// Takes a block over, or null, for which there must be a cause.
    fn add(&mut self, block: *mut u8, bytes: usize, may_be_raw: bool) {
        let refused = self.pymalloc.refusals() > self.refusals;
        if block.is_null() {
            return assert!(refused || bytes > isize::MAX as usize, "null without a cause");
        }
        let small = (1..=S::SMALL_BYTES_MAX).contains(&bytes);
        let usable = self.usable_size(block);
        match usable {
            Some(usable) => {
                assert!((1..=S::POOLED_BYTES_MAX).contains(&bytes), "pools serve small requests only");
                assert!(block.addr().is_multiple_of(S::ALIGNMENT_BYTES));
                assert!(bytes <= usable && (usable < bytes + S::step_bytes(bytes) || usable * 3 < bytes * 4));
            }
            None => {
                assert!(block.addr().is_multiple_of(8));
                assert!(!small || refused || may_be_raw, "a small request goes elsewhere for lack of an arena only");
            }
        }
        let (start, end) = (block.addr(), block.addr() + bytes.max(1));
        if let Some((before, length)) = self.ranges.range(..end).next_back() {
            assert!(before + length <= start, "a new block overlaps a live one");
        }
        self.ranges.insert(start, bytes.max(1));
        self.fill = self.fill.wrapping_add(1);
        self.keep(Live { block, bytes, fill: self.fill });
    }

    fn keep(&mut self, live: Live) {
        live.write();
        if let Some(usable) = self.usable_size(live.block) {
            shadow::close(live.block, usable);
        }
        self.live.push(live);
    }

    /// Opens a block that has just been taken off the list, and looks at its content.
    fn inspect(&mut self, live: Live) -> Option<usize> {
        let usable = self.usable_size(live.block);
        shadow::open(live.block, usable.unwrap_or(0));
        live.assert_filled(live.bytes);
        usable
    }

    fn reallocate(&mut self, index: usize, bytes: usize) {
        if self.live.is_empty() {
            return self.step(Step::Allocate(bytes));
        }
        let old = self.live.swap_remove(index % self.live.len());
        let was_raw = self.inspect(old).is_none();
        // SAFETY: live until here.
        let block = unsafe { self.pymalloc.reallocate(old.block, bytes) };
        if block.is_null() {
            old.assert_filled(old.bytes);
            self.keep(old);
        } else {
            Live { block, ..old }.assert_filled(bytes.min(old.bytes));
            self.ranges.remove(&old.block.addr());
        }
        self.add(block, bytes, was_raw);
    }

    fn free(&mut self, old: Live) {
        self.inspect(old);
        self.ranges.remove(&old.block.addr());
        // SAFETY: live until here.
        unsafe { self.pymalloc.free(old.block) };
    }

    fn start_anew(&mut self) {
        for live in std::mem::take(&mut self.live) {
            if self.inspect(live).is_none() {
                self.free(live);
            }
        }
        self.ranges.clear();
        // Both sources assert, when they are dropped, that everything has come back.
        self.pymalloc = S::fresh(self.place);
    }
}
