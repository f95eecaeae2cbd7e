//! What the allocator holds, as data and as the text of `sys._debugmallocstats()`.
//!
//! Taking statistics walks the header of every pool that has been used; it allocates nothing.
//!
//! **Invariant:** the byte budget is complete: [`Statistics::total_bytes`] equals mapped arenas times arena size.

use std::fmt;

use crate::Allocator;
use crate::arena::{Arena, ArenaCounts};
use crate::geometry::{CLASSES_MAX, Derived, Geometry};
use crate::pool::PoolHeader;
use crate::radix::MapStatistics;
use crate::source::{ArenaSource, RawAllocator};

/// One size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassStatistics {
    /// Size of the class's blocks.
    pub block_bytes: usize,
    /// Pools with at least one block in use.
    pub pools: usize,
    /// Blocks in use.
    pub blocks_in_use: usize,
    /// Free blocks of those pools, carved or not.
    pub blocks_available: usize,
}

/// One mapped arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArenaOccupancy {
    /// Address of the mapping.
    pub address: usize,
    /// Pools that the mapping holds.
    pub pools_total: u32,
    /// Pools with at least one block in use.
    pub pools_in_use: u32,
    /// Pools that have been used at some time.
    pub pools_carved: u32,
}

/// The state of an allocator at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Counters of arenas.
    pub arenas: ArenaCounts,
    /// Size of an arena.
    pub arena_bytes: usize,
    /// Size of a pool.
    pub pool_bytes: usize,
    /// Largest request that pools serve.
    pub small_bytes_max: usize,
    /// Bytes in blocks in use.
    pub allocated_bytes: usize,
    /// Bytes in free blocks of pools with blocks in use.
    pub available_bytes: usize,
    /// Empty and virgin pools.
    pub unused_pools: usize,
    /// Bytes in headers of pools with blocks in use.
    pub pool_header_bytes: usize,
    /// Bytes left over behind the last block of those pools.
    pub quantization_bytes: usize,
    /// Bytes lost in arenas that are not aligned to a pool.
    pub arena_alignment_bytes: usize,
    /// The address map.
    pub map: MapStatistics,
    /// Blocks handed out by the raw allocator less blocks given back to it, as CPython counts them.
    pub raw_blocks: isize,
    pub(crate) classes: [ClassStatistics; CLASSES_MAX],
    pub(crate) classes_len: usize,
}

impl Statistics {
    /// All size classes, smallest first.
    pub fn classes(&self) -> &[ClassStatistics] {
        &self.classes[..self.classes_len]
    }

    /// Bytes in unused pools.
    pub fn unused_pool_bytes(&self) -> usize {
        self.unused_pools * self.pool_bytes
    }

    /// Sum of the byte budget.
    pub fn total_bytes(&self) -> usize {
        self.allocated_bytes
            + self.available_bytes
            + self.unused_pool_bytes()
            + self.pool_header_bytes
            + self.quantization_bytes
            + self.arena_alignment_bytes
    }
}

/// The pools of an arena that have been used at some time, in address order.
pub(crate) fn carved_pools<G: Geometry>(arena: &Arena) -> impl Iterator<Item = *mut PoolHeader> {
    let skipped_bytes = arena.start.addr().wrapping_neg() % G::POOL_BYTES;
    let first = arena.start.wrapping_add(skipped_bytes);
    let count = (arena.next_virgin.addr() - first.addr()) / G::POOL_BYTES;
    (0..count).map(move |index| first.wrapping_add(index * G::POOL_BYTES).cast())
}

impl<R: RawAllocator, A: ArenaSource, G: Geometry> Allocator<R, A, G> {
    /// Where every byte of the arenas is now.
    pub fn statistics(&self) -> Statistics {
        let mut classes = [ClassStatistics::default(); CLASSES_MAX];
        for (class, row) in classes.iter_mut().enumerate() {
            row.block_bytes = Derived::<G>::block_bytes(class);
        }
        let (mut unused_pools, mut arena_alignment_bytes) = (0, 0);
        for arena in self.mapped_arenas() {
            unused_pools += arena.free_pools as usize;
            if !arena.start.addr().is_multiple_of(G::POOL_BYTES) {
                arena_alignment_bytes += G::POOL_BYTES;
            }
            for pool in carved_pools::<G>(arena) {
                // SAFETY: a carved pool of a mapped arena has an initialised header.
                let (in_use, class) = unsafe { ((*pool).in_use as usize, (*pool).class as usize) };
                if in_use > 0 {
                    classes[class].pools += 1;
                    classes[class].blocks_in_use += in_use;
                    classes[class].blocks_available += Derived::<G>::blocks_per_pool(class) - in_use;
                }
            }
        }
        let sum = |bytes: fn(&ClassStatistics) -> usize| classes.iter().map(bytes).sum::<usize>();
        let room_bytes = G::POOL_BYTES - Derived::<G>::HEADER_BYTES;
        Statistics {
            arenas: self.arenas.counts,
            arena_bytes: G::ARENA_BYTES,
            pool_bytes: G::POOL_BYTES,
            small_bytes_max: G::SMALL_BYTES_MAX,
            allocated_bytes: sum(|row| row.blocks_in_use * row.block_bytes),
            available_bytes: sum(|row| row.blocks_available * row.block_bytes),
            unused_pools,
            pool_header_bytes: sum(|row| row.pools) * Derived::<G>::HEADER_BYTES,
            quantization_bytes: classes.iter().map(|row| row.pools * (room_bytes % row.block_bytes)).sum(),
            arena_alignment_bytes,
            map: self.map.statistics(),
            raw_blocks: self.raw_blocks,
            classes,
            classes_len: Derived::<G>::CLASSES,
        }
    }

    /// How full each mapped arena is, in the order of the descriptors, which is not address order.
    pub fn occupancy(&self) -> impl Iterator<Item = ArenaOccupancy> + '_ {
        self.mapped_arenas().map(|arena| ArenaOccupancy {
            address: arena.start.addr(),
            pools_total: arena.total_pools,
            pools_in_use: arena.total_pools - arena.free_pools,
            pools_carved: carved_pools::<G>(arena).count() as u32,
        })
    }

    pub(crate) fn mapped_arenas(&self) -> impl Iterator<Item = &Arena> {
        self.arenas.descriptors().iter().filter(|arena| !arena.start.is_null())
    }
}

/// The report of `sys._debugmallocstats()`, line for line as CPython 3.11 and later print it.
impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Small block threshold = {}, in {} size classes.", self.small_bytes_max, self.classes_len)?;
        writeln!(f, "\nclass   size   num pools   blocks in use  avail blocks")?;
        writeln!(f, "-----   ----   ---------   -------------  ------------")?;
        for (class, row) in self.classes().iter().enumerate().filter(|(_, row)| row.pools > 0) {
            let ClassStatistics { block_bytes, pools, blocks_in_use, blocks_available } = row;
            writeln!(f, "{class:>5} {block_bytes:>6} {pools:>11} {blocks_in_use:>15} {blocks_available:>13}")?;
        }
        let ArenaCounts { mapped_total, mapped, mapped_peak } = self.arenas;
        writeln!(f)?;
        line(f, "# arenas allocated total", mapped_total)?;
        line(f, "# arenas reclaimed", mapped_total - mapped)?;
        line(f, "# arenas highwater mark", mapped_peak)?;
        line(f, "# arenas allocated current", mapped)?;
        line(f, &format!("{mapped} arenas * {} bytes/arena", self.arena_bytes), mapped * self.arena_bytes)?;
        writeln!(f)?;
        line(f, "# bytes in allocated blocks", self.allocated_bytes)?;
        line(f, "# bytes in available blocks", self.available_bytes)?;
        line(f, &format!("{} unused pools * {} bytes", self.unused_pools, self.pool_bytes), self.unused_pool_bytes())?;
        line(f, "# bytes lost to pool headers", self.pool_header_bytes)?;
        line(f, "# bytes lost to quantization", self.quantization_bytes)?;
        line(f, "# bytes lost to arena alignment", self.arena_alignment_bytes)?;
        line(f, "Total", self.total_bytes())?;
        let MapStatistics { middle_nodes, leaf_nodes, root_bytes, middle_node_bytes, leaf_node_bytes } = self.map;
        let (middle_bytes, leaf_bytes) = (middle_nodes * middle_node_bytes, leaf_nodes * leaf_node_bytes);
        writeln!(f, "\narena map counts")?;
        line(f, "# arena map mid nodes", middle_nodes)?;
        line(f, "# arena map bot nodes", leaf_nodes)?;
        writeln!(f)?;
        line(f, "# bytes lost to arena map root", root_bytes)?;
        line(f, "# bytes lost to arena map mid", middle_bytes)?;
        line(f, "# bytes lost to arena map bot", leaf_bytes)?;
        line(f, "Total", root_bytes + middle_bytes + leaf_bytes)
    }
}

/// One line of the report: a label, `=`, and the value with thousands separators in 21 columns.
fn line(f: &mut fmt::Formatter<'_>, label: &str, value: usize) -> fmt::Result {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    writeln!(f, "{label:<35}={grouped:>21}")
}
