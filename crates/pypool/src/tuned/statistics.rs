//! What the tuned allocator holds, in the words of the faithful one.
//!
//! **Invariant:** the byte budget is complete: it adds up to the arenas, which the table of headers is not part of.

use super::Tuned;
use super::pool::{Header, state};
use super::range::{ARENA_BYTES, POOL_BYTES, POOLS_PER_ARENA, Range};
use crate::geometry::CLASSES_MAX;
use crate::source::RawAllocator;
use crate::statistics::{ArenaOccupancy, ClassStatistics, Statistics};

impl<R: RawAllocator, const POLICIES: u32> Tuned<R, POLICIES> {
    /// Where every byte of the arenas is now. Empty, purged and virgin pools are unused ones; a lingering pool is not.
    pub fn statistics(&self) -> Statistics {
        let mut classes = [ClassStatistics::default(); CLASSES_MAX];
        for (class, row) in classes.iter_mut().enumerate().take(Self::CLASSES) {
            row.block_bytes = Self::block_bytes(class);
        }
        for header in self.headers(0, self.empties.virgin) {
            // SAFETY: a taken pool has an initialised header.
            let (state, class) = unsafe { ((*header).state, (*header).class as usize) };
            if matches!(state, state::USED | state::FULL) {
                let in_use = Self::in_use(header);
                classes[class].pools += 1;
                classes[class].blocks_in_use += in_use;
                classes[class].blocks_available += Self::blocks_per_pool(class) - in_use;
            }
        }
        let rows = &classes[..Self::CLASSES];
        let sum = |bytes: fn(&ClassStatistics) -> usize| rows.iter().map(bytes).sum::<usize>();
        let room_bytes = POOL_BYTES - Range::<POLICIES>::SKIPPED_BYTES;
        Statistics {
            arenas: self.range.arenas(),
            arena_bytes: ARENA_BYTES,
            pool_bytes: POOL_BYTES,
            small_bytes_max: Self::POOL_REQUEST_BYTES_MAX,
            allocated_bytes: sum(|row| row.blocks_in_use * row.block_bytes),
            available_bytes: sum(|row| row.blocks_available * row.block_bytes),
            unused_pools: self.range.pools() - sum(|row| row.pools),
            pool_header_bytes: sum(|row| row.pools) * Range::<POLICIES>::SKIPPED_BYTES,
            quantization_bytes: rows.iter().map(|row| row.pools * (room_bytes % row.block_bytes)).sum(),
            arena_alignment_bytes: 0,
            map: self.lookup.statistics(),
            raw_blocks: self.raw_blocks,
            classes,
            classes_len: Self::CLASSES,
        }
    }

    /// How full each arena is, in address order. A carved pool may have been given back since.
    pub fn occupancy(&self) -> impl Iterator<Item = ArenaOccupancy> + '_ {
        (0..self.range.arenas().mapped).map(|arena| {
            let first = arena * POOLS_PER_ARENA;
            let carved = self.empties.virgin.saturating_sub(first).min(POOLS_PER_ARENA);
            // SAFETY: a taken pool has an initialised header.
            let is_used = |header: &*mut Header| matches!(unsafe { (**header).state }, state::USED | state::FULL);
            ArenaOccupancy {
                address: self.range.pool(first).addr(),
                pools_total: POOLS_PER_ARENA as u32,
                pools_in_use: self.headers(first, carved).filter(is_used).count() as u32,
                pools_carved: carved as u32,
            }
        })
    }

    /// Bytes of pools whose memory may be present: those in use and the empty ones.
    pub fn present_bytes_max(&self) -> usize {
        (self.empties.in_use + self.empties.dirty) * POOL_BYTES
    }

    /// Headers of `count` pools from `first` on.
    pub(super) fn headers(&self, first: usize, count: usize) -> impl Iterator<Item = *mut Header> + '_ {
        (first..first + count).map(|index| self.range.header(index))
    }

    /// Blocks in use of a used or full pool.
    pub(super) fn in_use(header: *mut Header) -> usize {
        // SAFETY: callers pass an initialised header.
        let (state, class, countdown) =
            unsafe { ((*header).state, (*header).class as usize, (*header).countdown as usize) };
        if state == state::FULL { Self::blocks_per_pool(class) } else { countdown }
    }
}
