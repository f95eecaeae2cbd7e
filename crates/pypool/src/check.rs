//! Walking the allocator's invariants.
//!
//! **Invariant:** checking changes nothing and allocates nothing, so it may run between any two calls.

use std::fmt;

use crate::Allocator;
use crate::arena::Arena;
use crate::geometry::{Derived, Geometry, POOLS_PER_ARENA_MAX};
use crate::pool::{self, NO_CLASS, PoolHeader};
use crate::source::{ArenaSource, RawAllocator};
use crate::statistics::carved_pools;

/// How much a check may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Price {
    /// Nothing is checked.
    None,
    /// Arenas: order of the usable list, the table of group ends, counters. Takes time in proportion to the arenas.
    Cheap,
    /// Also every pool and every free block. Takes time in proportion to the memory.
    Full,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What should hold.
    pub invariant: &'static str,
    /// Address of the arena, pool or block at which it does not.
    pub address: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool allocator is damaged at {:#x}: it should hold that {}; ", self.address, self.invariant)?;
        write!(f, "look for a write outside a block or a double free before this point")
    }
}

impl std::error::Error for Violation {}

fn ensure(holds: bool, invariant: &'static str, address: usize) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, address }) }
}

impl<R: RawAllocator, A: ArenaSource, G: Geometry> Allocator<R, A, G> {
    /// Walks the invariants, as many as the price pays for.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self, price: Price) -> Result<(), Violation> {
        if price >= Price::Cheap {
            self.check_usable_list()?;
            self.check_descriptors()?;
        }
        if price >= Price::Full {
            self.check_pools()?;
            self.check_used_lists()?;
        }
        Ok(())
    }

    fn check_usable_list(&self) -> Result<(), Violation> {
        let mut last_with = [std::ptr::null_mut(); POOLS_PER_ARENA_MAX + 1];
        let mut previous: *mut Arena = std::ptr::null_mut();
        let mut current = self.arenas.usable;
        let mut free_before = 0;
        while !current.is_null() {
            // SAFETY: the list links live descriptors.
            let arena = unsafe { &*current };
            let address = arena.start.addr();
            ensure(!arena.start.is_null(), "a usable arena is mapped", current.addr())?;
            ensure(arena.previous == previous, "links of the usable list go both ways", address)?;
            ensure(arena.free_pools > 0, "a usable arena has a free pool", address)?;
            ensure(arena.free_pools >= free_before, "the usable list ascends by free pools", address)?;
            let wholly_free_inside = arena.free_pools == arena.total_pools && !arena.next.is_null();
            ensure(!wholly_free_inside, "only the last usable arena may be wholly free", address)?;
            free_before = arena.free_pools;
            last_with[arena.free_pools as usize] = current;
            (previous, current) = (current, arena.next);
        }
        for (expected, actual) in last_with.into_iter().zip(self.arenas.last_with) {
            ensure(expected == actual, "the table names the last arena of each group", actual.addr())?;
        }
        Ok(())
    }

    fn check_descriptors(&self) -> Result<(), Violation> {
        let counts = self.arenas.counts;
        let table = self.arenas.descriptors().as_ptr().addr();
        ensure(self.mapped_arenas().count() == counts.mapped, "the count of mapped arenas is right", table)?;
        ensure(counts.mapped <= counts.mapped_peak, "the peak is not below the present count", table)?;
        for arena in self.mapped_arenas() {
            let address = arena.start.addr();
            let pools_max =
                (Derived::<G>::POOLS_PER_ARENA - usize::from(!address.is_multiple_of(G::POOL_BYTES))) as u32;
            ensure(arena.total_pools == pools_max, "an arena holds all pools that fit", address)?;
            ensure(arena.free_pools <= arena.total_pools, "no more pools are free than there are", address)?;
            let next_virgin = arena.next_virgin.addr();
            ensure(next_virgin.is_multiple_of(G::POOL_BYTES), "pools are aligned", next_virgin)?;
            ensure(next_virgin <= address + G::ARENA_BYTES, "virgin pools lie in the arena", next_virgin)?;
        }
        Ok(())
    }

    fn check_pools(&self) -> Result<(), Violation> {
        for (index, arena) in self.arenas.descriptors().iter().enumerate().filter(|(_, arena)| !arena.start.is_null()) {
            let mut carved = 0;
            let mut empty = 0;
            for pool in carved_pools::<G>(arena) {
                // SAFETY: a carved pool of a mapped arena has an initialised header.
                let header = unsafe { &*pool };
                carved += 1;
                empty += u32::from(header.in_use == 0);
                ensure(header.arena as usize == index, "a pool names its arena", pool.addr())?;
                check_blocks::<G>(pool)?;
            }
            let virgin = arena.total_pools - carved;
            ensure(empty + virgin == arena.free_pools, "free pools are the empty and the virgin", arena.start.addr())?;
            let mut linked = 0;
            let mut pool = arena.empty;
            while !pool.is_null() && linked <= empty {
                // SAFETY: the list links carved pools of this arena.
                let header = unsafe { &*pool };
                ensure(header.in_use == 0, "a pool on the empty list has no block in use", pool.addr())?;
                linked += 1;
                pool = header.next;
            }
            ensure(linked == empty, "every empty pool is on its arena's list", arena.start.addr())?;
        }
        Ok(())
    }

    fn check_used_lists(&self) -> Result<(), Violation> {
        let mut linked = 0;
        for class in 0..Derived::<G>::CLASSES {
            let mut previous: *mut PoolHeader = std::ptr::null_mut();
            let mut pool = self.used[class];
            while !pool.is_null() {
                // SAFETY: the list links carved pools.
                let header = unsafe { &*pool };
                ensure(header.class as usize == class, "a used pool is in the list of its class", pool.addr())?;
                ensure(header.previous == previous, "links of used pools go both ways", pool.addr())?;
                ensure(header.in_use > 0, "a used pool has a block in use", pool.addr())?;
                ensure(!header.free.is_null(), "a used pool has a free block on its list", pool.addr())?;
                linked += 1;
                (previous, pool) = (pool, header.next);
            }
        }
        // SAFETY: carved pools have initialised headers.
        let is_used = |&pool: &*mut PoolHeader| unsafe { (*pool).in_use > 0 && !(*pool).free.is_null() };
        let used = self.mapped_arenas().flat_map(carved_pools::<G>).filter(is_used).count();
        ensure(linked == used, "every used pool is in its class's list", self.used.as_ptr().addr())
    }
}

/// Walks a pool's free list.
fn check_blocks<G: Geometry>(pool: *mut PoolHeader) -> Result<(), Violation> {
    // SAFETY: the caller passes a carved pool.
    let header = unsafe { &*pool };
    ensure(header.class != NO_CLASS, "a carved pool has a class", pool.addr())?;
    let class = header.class as usize;
    ensure(class < Derived::<G>::CLASSES, "a class is one of the geometry's", pool.addr())?;
    let block_bytes = Derived::<G>::block_bytes(class);
    let first = pool.addr() + Derived::<G>::HEADER_BYTES;
    let virgin = pool.addr() + header.next_virgin as usize;
    let carved = (virgin - first) / block_bytes;
    let mut free = 0;
    let mut block = header.free;
    while !block.is_null() {
        let address = block.addr();
        ensure((first..virgin).contains(&address), "a free block lies among the carved blocks", address)?;
        ensure((address - first).is_multiple_of(block_bytes), "a free block starts where a block starts", address)?;
        free += 1;
        ensure(free <= carved, "the free list has no loop", address)?;
        // SAFETY: the address has just been checked to be that of a carved block.
        block = unsafe { pool::link(block) };
    }
    ensure(header.in_use as usize + free == carved, "a carved block is in use or on the free list", pool.addr())?;
    let dry = header.free.is_null() && header.next_virgin <= header.last_virgin;
    ensure(!dry, "a pool without free blocks has no virgin blocks", pool.addr())
}
