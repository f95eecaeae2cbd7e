//! Which slot an allocation gets: the last one that was freed, or else the next one never used.
//!
//! Invariant: the slots in use are dense; a slot that was never used is handed out only when no freed one is left,
//! so the number of slots ever used is the largest number of blocks that were live at once.

use crate::SLOTS_MAX;

/// The LIFO free list that makes the slot of an allocation implicit.
///
/// It trusts its caller: freeing a slot that is not in use hands it out twice.
#[derive(Clone, Debug, Default)]
pub struct SlotAllocator {
    free: Vec<u32>,
    used: u32,
}

impl SlotAllocator {
    /// No slot in use.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The slot that [`Self::next`] would give; [`SLOTS_MAX`] when none is left.
    #[inline]
    #[must_use]
    pub fn peek(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.used)
    }

    /// Takes a slot; `None` when [`SLOTS_MAX`] blocks are live.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "it is not an iteration: slots come back")]
    pub fn next(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.used == SLOTS_MAX {
            return None;
        }
        self.used += 1;
        Some(self.used - 1)
    }

    /// Gives a slot back.
    #[inline]
    pub fn free(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Slots ever used: the highest one plus one.
    #[inline]
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Slots in use now.
    #[inline]
    #[must_use]
    pub fn live(&self) -> u32 {
        self.used - self.free.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_freed_slot_comes_first() {
        let mut slots = SlotAllocator::new();
        assert_eq!((slots.next(), slots.next(), slots.next()), (Some(0), Some(1), Some(2)));
        slots.free(0);
        slots.free(2);
        assert_eq!(slots.peek(), 2);
        assert_eq!((slots.next(), slots.next(), slots.next()), (Some(2), Some(0), Some(3)));
        assert_eq!((slots.used(), slots.live()), (4, 4));
    }

    #[test]
    fn the_last_slot_is_the_largest_that_an_op_can_name() {
        let mut slots = SlotAllocator { free: Vec::new(), used: SLOTS_MAX - 1 };
        assert_eq!((slots.next(), slots.next()), (Some(SLOTS_MAX - 1), None));
    }
}
