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
    /// Arenas: the lists of usable arenas and of unused descriptors, the table of group ends, counters, bounds, and
    /// the leaf that the address map remembers. Takes time in proportion to the arenas.
    Cheap,
    /// Also every pool, every free block, and whether the address map covers the arenas and ends where they end. Takes
    /// time in proportion to the memory, and to the square of the number of arenas where they touch each other.
    Full,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What should hold.
    pub invariant: &'static str,
    /// Address of the arena, pool or block at which it does not; 0 if it is the allocator's own state.
    pub address: usize,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the pool allocator is damaged at {:#x}: it should hold that {}; ", self.address, self.invariant)?;
        write!(f, "look for a write outside a block or a double free before this point")
    }
}

impl std::error::Error for Violation {}

pub(crate) fn ensure(holds: bool, invariant: &'static str, address: usize) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, address }) }
}

impl<R: RawAllocator, A: ArenaSource, G: Geometry> Allocator<R, A, G> {
    /// Walks the invariants, as many as the price pays for.
    ///
    /// What a link leads to is looked at only after the link has been found to lead to a descriptor or a pool, so a
    /// damaged list ends in a violation, not in a crash. Only the address map's own links are taken on trust.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self, price: Price) -> Result<(), Violation> {
        if price >= Price::Cheap {
            self.check_descriptors()?;
            self.check_unused_list()?;
            self.check_usable_list()?;
            ensure(self.map.remembers_rightly(), "the address map remembers a leaf for its own addresses", 0)?;
        }
        if price >= Price::Full {
            self.check_map()?;
            self.check_pools()?;
            self.check_used_lists()?;
        }
        Ok(())
    }

    fn check_descriptors(&self) -> Result<(), Violation> {
        let counts = self.arenas.counts;
        let table = self.arenas.descriptors().as_ptr().addr();
        ensure(self.mapped_arenas().count() == counts.mapped, "the count of mapped arenas is right", table)?;
        ensure(counts.mapped <= counts.mapped_peak, "the peak is not below the present count", table)?;
        ensure(counts.mapped_peak <= counts.mapped_total, "the peak is not above the count of all arenas", table)?;
        for arena in self.mapped_arenas() {
            let address = arena.start.addr();
            let skipped_bytes = address.wrapping_neg() % G::POOL_BYTES;
            let pools_max = Derived::<G>::POOLS_PER_ARENA - usize::from(skipped_bytes != 0);
            ensure(arena.total_pools as usize == pools_max, "an arena holds all pools that fit", address)?;
            ensure(arena.free_pools <= arena.total_pools, "no more pools are free than there are", address)?;
            let next_virgin = arena.next_virgin.addr();
            ensure(next_virgin.is_multiple_of(G::POOL_BYTES), "pools are aligned", next_virgin)?;
            // An address in front of the first pool wraps around to a distance that is no pool's either.
            let carved_bytes = next_virgin.wrapping_sub(address.wrapping_add(skipped_bytes));
            ensure(carved_bytes <= pools_max * G::POOL_BYTES, "virgin pools lie in the arena", next_virgin)?;
        }
        Ok(())
    }

    fn check_unused_list(&self) -> Result<(), Violation> {
        let expected = self.arenas.descriptors().len() - self.arenas.counts.mapped;
        let mut listed = 0;
        let mut current = self.arenas.unused;
        while !current.is_null() && listed <= expected {
            ensure(self.is_descriptor(current), "the list of unused descriptors links descriptors", current.addr())?;
            // SAFETY: a descriptor of the vector, as has just been checked.
            let arena = unsafe { &*current };
            ensure(arena.start.is_null(), "an unused descriptor has no arena", current.addr())?;
            listed += 1;
            current = arena.next;
        }
        ensure(listed == expected, "every descriptor without an arena is listed once", current.addr())
    }

    fn check_usable_list(&self) -> Result<(), Violation> {
        let mut last_with = [std::ptr::null_mut(); POOLS_PER_ARENA_MAX + 1];
        let mut previous: *mut Arena = std::ptr::null_mut();
        let mut current = self.arenas.usable;
        let (mut listed, mut free_before) = (0, 0);
        while !current.is_null() {
            ensure(self.is_descriptor(current), "the usable list links descriptors", current.addr())?;
            // SAFETY: a descriptor of the vector, as has just been checked.
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
            listed += 1;
            (previous, current) = (current, arena.next);
        }
        let usable = self.mapped_arenas().filter(|arena| arena.free_pools > 0).count();
        ensure(listed == usable, "every arena with a free pool is in the usable list", self.arenas.usable.addr())?;
        for (expected, actual) in last_with.into_iter().zip(self.arenas.last_with) {
            ensure(expected == actual, "the table names the last arena of each group", actual.addr())?;
        }
        Ok(())
    }

    /// Both ends of every arena, from either side.
    fn check_map(&self) -> Result<(), Violation> {
        ensure(self.map.counts_nodes_rightly(), "the address map has as many nodes as it says", 0)?;
        for arena in self.mapped_arenas() {
            let (first, behind) = (arena.start.addr(), arena.start.addr().wrapping_add(G::ARENA_BYTES));
            for inside in [first, behind.wrapping_sub(1)] {
                ensure(self.map.finds(inside), "the address map covers every arena", inside)?;
            }
            for outside in [first.wrapping_sub(1), behind] {
                let covered = self.map.finds(outside) && !self.is_in_arena(outside);
                ensure(!covered, "the address map covers nothing but arenas", outside)?;
            }
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
                ensure(is_carved::<G>(arena, pool), "a list of empty pools links its arena's pools", pool.addr())?;
                // SAFETY: a carved pool, as has just been checked.
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
                ensure(self.is_pool(pool), "a list of used pools links pools", pool.addr())?;
                // SAFETY: a carved pool, as has just been checked.
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

    fn is_descriptor(&self, arena: *const Arena) -> bool {
        let descriptors = self.arenas.descriptors().as_ptr_range();
        let offset = arena.addr().wrapping_sub(descriptors.start.addr());
        descriptors.contains(&arena) && offset.is_multiple_of(size_of::<Arena>())
    }

    fn is_in_arena(&self, address: usize) -> bool {
        self.mapped_arenas().any(|arena| address.wrapping_sub(arena.start.addr()) < G::ARENA_BYTES)
    }

    /// Whether an address is that of a carved pool. The pools themselves have been checked to name their arenas.
    fn is_pool(&self, pool: *mut PoolHeader) -> bool {
        // An arena may end within a pool's header.
        let header_end = pool.addr().wrapping_add(Derived::<G>::HEADER_BYTES - 1);
        let is_inside = self.map.finds(pool.addr()) && self.map.finds(header_end);
        if !pool.addr().is_multiple_of(G::POOL_BYTES) || !is_inside {
            return false;
        }
        // SAFETY: readable, for both its ends lie in arenas; whether it is a header is seen below.
        let index = unsafe { (*pool).arena } as usize;
        self.arenas.descriptors().get(index).is_some_and(|arena| !arena.start.is_null() && is_carved::<G>(arena, pool))
    }
}

/// Whether an address is that of a pool of this arena that has been used at some time.
fn is_carved<G: Geometry>(arena: &Arena, pool: *mut PoolHeader) -> bool {
    let aligned = pool.addr().is_multiple_of(G::POOL_BYTES);
    aligned && (arena.start.addr()..arena.next_virgin.addr()).contains(&pool.addr())
}

/// Walks a pool's free list.
fn check_blocks<G: Geometry>(pool: *mut PoolHeader) -> Result<(), Violation> {
    // SAFETY: the caller passes a carved pool.
    let header = unsafe { &*pool };
    ensure(header.class != NO_CLASS, "a carved pool has a class", pool.addr())?;
    let class = header.class as usize;
    ensure(class < Derived::<G>::CLASSES, "a class is one of the geometry's", pool.addr())?;
    let block_bytes = Derived::<G>::block_bytes(class);
    ensure(header.last_virgin as usize == G::POOL_BYTES - block_bytes, "carving ends with the pool", pool.addr())?;
    // An offset inside the header wraps around to more bytes than a pool has.
    let carved_bytes = (header.next_virgin as usize).wrapping_sub(Derived::<G>::HEADER_BYTES);
    let carved = carved_bytes / block_bytes;
    let whole = carved_bytes.is_multiple_of(block_bytes) && carved <= Derived::<G>::blocks_per_pool(class);
    ensure(whole, "whole blocks of the pool have been carved", pool.addr())?;
    let first = pool.addr() + Derived::<G>::HEADER_BYTES;
    let mut free = 0;
    let mut block = header.free;
    while !block.is_null() {
        let address = block.addr();
        let offset = address.wrapping_sub(first);
        ensure(offset < carved_bytes, "a free block lies among the carved blocks", address)?;
        ensure(offset.is_multiple_of(block_bytes), "a free block starts where a block starts", address)?;
        free += 1;
        ensure(free <= carved, "the free list has no loop", address)?;
        // SAFETY: the address has just been checked to be that of a carved block.
        block = unsafe { pool::link(block) };
    }
    ensure(header.in_use == (carved - free) as u64, "a carved block is in use or on the free list", pool.addr())?;
    let dry = header.free.is_null() && header.next_virgin <= header.last_virgin;
    ensure(!dry, "a pool without free blocks has no virgin blocks", pool.addr())
}

#[cfg(test)]
mod damage;
