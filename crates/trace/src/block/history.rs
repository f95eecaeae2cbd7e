//! What a reference column leans on: the slots of the latest allocations, and the slot last named.
//!
//! Invariant: writer and reader keep it alike, event by event, across blocks.

use crate::format::AGE_RING;

/// Slots of the latest [`AGE_RING`] allocations.
#[derive(Clone, Debug)]
pub(crate) struct History {
    ring: Box<[u32; AGE_RING]>,
    /// Allocations so far.
    born: usize,
    /// Slot that the last allocation, free, reallocation or advice named.
    pub(crate) last: u32,
}

impl History {
    pub(crate) fn new() -> Self {
        let ring = vec![0; AGE_RING].into_boxed_slice();
        Self { ring: ring.try_into().expect("the length is the array's"), born: 0, last: 0 }
    }

    /// Notes an allocation.
    #[inline(always)]
    pub(crate) fn alloc(&mut self, slot: u32) {
        self.ring[self.born % AGE_RING] = slot;
        self.born += 1;
        self.last = slot;
    }

    /// The slot of the `age`-th last allocation; the newest has age 1.
    #[inline(always)]
    pub(crate) fn slot_of_age(&self, age: usize) -> u32 {
        self.ring[self.born.wrapping_sub(age) % AGE_RING]
    }

    /// Allocations so far.
    pub(crate) fn born(&self) -> usize {
        self.born
    }
}
