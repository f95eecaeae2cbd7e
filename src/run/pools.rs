//! What an allocator that is made of pools held over a trace: a map of its arenas, and where every byte was at three
//! moments.
//!
//! Invariant: no address is kept, since addresses change with every process: an arena is its rank by address among all
//! that were ever seen. The parts of [`PoolStatistics`] add up to its arenas.

use serde::{Deserialize, Serialize};

/// The pools of one footprint pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// Arenas over the trace.
    pub map: ArenaMap,
    /// At the resident peak that [`super::Footprint::peak`] holds.
    pub at_peak: PoolStatistics,
    /// At the `drained` mark; null without that mark.
    pub at_drained: Option<PoolStatistics>,
    /// At [`super::Footprint::end`].
    pub at_end: PoolStatistics,
}

/// Readings of every mapped arena, evenly spaced over the trace, at the marks and at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaMap {
    /// Index of the op before each reading, ascending.
    pub ops: Vec<u64>,
    /// Every arena that some reading saw, in address order.
    pub arenas: Vec<ArenaRow>,
    /// Op at which there were more arenas than there was room for, so that readings end before it; null when they go
    /// on to the end.
    pub stopped_at: Option<u64>,
}

/// One arena over the readings of a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaRow {
    /// Pools that it holds.
    pub pools: u32,
    /// `[readings, pools in use]`, one after the other: so many readings saw so many pools with a block in use; null
    /// while the arena was not mapped. The readings add up to those of the map.
    pub in_use: Vec<(u32, Option<u32>)>,
}

impl ArenaRow {
    /// Pools in use at each reading.
    pub fn at_each_reading(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.in_use.iter().flat_map(|(readings, in_use)| std::iter::repeat_n(*in_use, *readings as usize))
    }
}

/// Where every byte of the arenas is at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatistics {
    /// Size of an arena.
    pub arena_bytes: u64,
    /// Size of a pool.
    pub pool_bytes: u64,
    /// Arenas mapped at this moment.
    pub arenas_mapped: u64,
    /// Most arenas mapped at a time until then.
    pub arenas_mapped_peak: u64,
    /// Arenas mapped until then, each time counted.
    pub arenas_mapped_total: u64,
    /// Bytes of blocks in use.
    pub allocated_bytes: u64,
    /// Bytes of free blocks in pools that have blocks in use.
    pub available_bytes: u64,
    /// Pools without a block in use.
    pub unused_pools: u64,
    /// Bytes of the headers of pools that have blocks in use.
    pub pool_header_bytes: u64,
    /// Bytes behind the last block of those pools.
    pub quantization_bytes: u64,
    /// Bytes of arenas that do not begin where a pool can.
    pub arena_alignment_bytes: u64,
    /// Every size class, smallest first.
    pub classes: Vec<PoolClass>,
}

/// One size class of a pool allocator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolClass {
    /// Size of its blocks.
    pub block_bytes: u64,
    /// Pools with a block in use.
    pub pools: u64,
    /// Blocks in use.
    pub blocks_in_use: u64,
    /// Free blocks of those pools.
    pub blocks_available: u64,
}

impl PoolStatistics {
    /// Name and bytes of each part of the arenas.
    #[must_use]
    pub fn budget(&self) -> [(&'static str, u64); 6] {
        [
            ("allocated blocks", self.allocated_bytes),
            ("available blocks", self.available_bytes),
            ("unused pools", self.unused_pools * self.pool_bytes),
            ("pool headers", self.pool_header_bytes),
            ("quantization", self.quantization_bytes),
            ("arena alignment", self.arena_alignment_bytes),
        ]
    }

    /// Bytes of all arenas, which the parts add up to.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.arenas_mapped * self.arena_bytes
    }
}
