//! Every violation, provoked: one deliberate damage per invariant that `check` walks.
//!
//! **Invariant:** the table below names each invariant of `check.rs`; a test compares the two.

use std::ptr;

use super::Price;
use crate::arena::Arena;
use crate::geometry::Geometry;
use crate::pool::{self, NO_CLASS, PoolHeader};
use crate::{Allocator, ArenaSource, LibcRaw, MappedArenas};

/// Four pools to an arena, seven blocks of the largest class to a pool.
struct Small;

impl Geometry for Small {
    const SMALL_BYTES_MAX: usize = 128;
    const POOL_BYTES: usize = 1 << 10;
    const ARENA_BYTES: usize = 4 << 10;
}

/// Arenas with a gap on either side.
struct Spaced;

// SAFETY: each arena is the middle of a mapping of its own.
unsafe impl ArenaSource for Spaced {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        MappedArenas.map(3 * bytes).wrapping_add(bytes)
    }

    unsafe fn unmap(&mut self, arena: *mut u8, bytes: usize) {
        // SAFETY: by contract.
        unsafe { MappedArenas.unmap(arena.wrapping_sub(bytes), 3 * bytes) }
    }
}

const LARGEST: usize = 7;
const BLOCKS: usize = 7;
const POOLS: usize = 4;

/// Five arenas of which three have free pools, in this order: one, two, three. Pools 12 and 13 have two blocks free;
/// all other pools of arenas 3 and 4 are full. One pool has held three small blocks, and one of those is free.
struct Scene {
    pymalloc: Box<Allocator<LibcRaw, Spaced, Small>>,
    /// A block of each pool that was filled with blocks of the largest class, in the order of the pools.
    pools: Vec<*mut u8>,
    small: *mut u8,
}

impl Scene {
    fn new() -> Self {
        let mut pymalloc = Box::new(Allocator::new(LibcRaw, Spaced));
        let mut fill = || -> Vec<*mut u8> { (0..BLOCKS).map(|_| pymalloc.allocate(128)).collect() };
        let blocks: Vec<_> = (0..5 * POOLS).map(|_| fill()).collect();
        let emptied = [0, 1, 4, 5, 8, 9, 10].into_iter().flat_map(|pool| &blocks[pool]);
        let thinned = [12, 13].into_iter().flat_map(|pool| &blocks[pool][..2]);
        for &block in emptied.chain(thinned) {
            // SAFETY: live.
            unsafe { pymalloc.free(block) };
        }
        let small: Vec<_> = (0..3).map(|_| pymalloc.allocate(8)).collect();
        // SAFETY: live.
        unsafe { pymalloc.free(small[1]) };
        Self { pymalloc, pools: blocks.iter().map(|blocks| blocks[BLOCKS - 1]).collect(), small: small[0] }
    }

    fn pool_at(&self, index: usize) -> *mut PoolHeader {
        pool::of_block::<Small>(self.pools[index])
    }

    fn pool(&mut self, index: usize) -> &mut PoolHeader {
        // SAFETY: arenas with a block in use stay mapped; nothing else uses the header while `self` is borrowed.
        unsafe { &mut *self.pool_at(index) }
    }

    fn small_pool(&mut self) -> &mut PoolHeader {
        // SAFETY: as in `pool`.
        unsafe { &mut *pool::of_block::<Small>(self.small) }
    }

    fn usable_at(&self, place: usize) -> *mut Arena {
        // SAFETY: three arenas are listed.
        (0..place).fold(self.pymalloc.arenas.usable, |arena, _| unsafe { (*arena).next })
    }

    fn usable(&mut self, place: usize) -> &mut Arena {
        // SAFETY: the vector stays where it is; nothing else uses the descriptor while `self` is borrowed.
        unsafe { &mut *self.usable_at(place) }
    }

    fn full_arena(&mut self) -> &mut Arena {
        let index = self.pool(19).arena;
        // SAFETY: as in `usable`.
        unsafe { &mut *self.pymalloc.arenas.descriptor(index) }
    }

    fn link_used(&mut self, class: usize, pool: usize) {
        self.pool(pool).previous = ptr::null_mut();
        self.pymalloc.used[class] = self.pool_at(pool);
    }
}

type Damage = fn(&mut Scene);

/// What should hold, and what is done so that it does not. The cheap ones.
const OF_ARENAS: &[(&str, Damage)] = &[
    ("the count of mapped arenas is right", |scene| scene.pymalloc.arenas.counts.mapped += 1),
    ("the peak is not below the present count", |scene| scene.pymalloc.arenas.counts.mapped_peak = 0),
    ("the peak is not above the count of all arenas", |scene| scene.pymalloc.arenas.counts.mapped_total = 0),
    ("an arena holds all pools that fit", |scene| scene.usable(0).total_pools -= 1),
    ("no more pools are free than there are", |scene| scene.usable(0).free_pools = 5),
    ("pools are aligned", |scene| scene.usable(0).next_virgin = scene.usable(0).next_virgin.wrapping_add(8)),
    ("virgin pools lie in the arena", |scene| scene.usable(0).next_virgin = scene.usable(0).start.wrapping_sub(1024)),
    ("the list of unused descriptors links descriptors", |scene| {
        scene.pymalloc.arenas.unused = scene.pymalloc.arenas.unused.wrapping_byte_add(8);
    }),
    ("an unused descriptor has no arena", |scene| scene.pymalloc.arenas.unused = scene.usable_at(0)),
    ("every descriptor without an arena is listed once", |scene| scene.pymalloc.arenas.unused = ptr::null_mut()),
    ("the usable list links descriptors", |scene| scene.usable(1).next = scene.pool_at(0).cast()),
    ("a usable arena is mapped", |scene| scene.pymalloc.arenas.usable = scene.pymalloc.arenas.unused),
    ("links of the usable list go both ways", |scene| scene.usable(1).previous = ptr::null_mut()),
    ("a usable arena has a free pool", |scene| scene.usable(0).free_pools = 0),
    ("the usable list ascends by free pools", |scene| scene.usable(0).free_pools = 3),
    ("only the last usable arena may be wholly free", |scene| scene.usable(0).free_pools = 4),
    ("every arena with a free pool is in the usable list", |scene| scene.usable(1).next = ptr::null_mut()),
    ("the table names the last arena of each group", |scene| scene.pymalloc.arenas.last_with[1] = ptr::null_mut()),
    ("the address map remembers a leaf for its own addresses", |scene| scene.pymalloc.map.shift_window()),
];

/// The same for what only the full price finds.
const OF_POOLS: &[(&str, Damage)] = &[
    ("the address map has as many nodes as it says", |scene| scene.pymalloc.map.miscount_leaves()),
    ("the address map covers every arena", |scene| {
        let start = scene.full_arena().start.addr();
        scene.pymalloc.map.unmark(start);
    }),
    ("the address map covers nothing but arenas", |scene| {
        let behind = scene.full_arena().start.addr() + Small::ARENA_BYTES;
        assert!(scene.pymalloc.map.mark(behind, &mut LibcRaw));
    }),
    ("a pool names its arena", |scene| scene.pool(12).arena += 1),
    ("free pools are the empty and the virgin", |scene| {
        scene.full_arena().next_virgin = scene.full_arena().next_virgin.wrapping_sub(Small::POOL_BYTES);
    }),
    ("a list of empty pools links its arena's pools", |scene| scene.usable(0).empty = scene.pool_at(8)),
    ("a pool on the empty list has no block in use", |scene| scene.usable(2).empty = scene.pool_at(11)),
    ("every empty pool is on its arena's list", |scene| scene.usable(2).empty = ptr::null_mut()),
    ("a list of used pools links pools", |scene| scene.pymalloc.used[LARGEST] = scene.pools[12].cast()),
    ("a used pool is in the list of its class", |scene| scene.link_used(0, 13)),
    ("links of used pools go both ways", |scene| scene.pool(12).previous = scene.pool_at(12)),
    ("a used pool has a block in use", |scene| scene.link_used(LARGEST, 8)),
    ("a used pool has a free block on its list", |scene| scene.link_used(LARGEST, 14)),
    ("every used pool is in its class's list", |scene| scene.pymalloc.used[LARGEST] = ptr::null_mut()),
    ("a carved pool has a class", |scene| scene.pool(12).class = NO_CLASS),
    ("a class is one of the geometry's", |scene| scene.pool(12).class = 8),
    ("carving ends with the pool", |scene| scene.pool(12).last_virgin += 16),
    ("whole blocks of the pool have been carved", |scene| scene.pool(12).next_virgin = 0),
    ("a free block lies among the carved blocks", |scene| scene.pool(12).free = scene.pool_at(12).cast()),
    ("a free block starts where a block starts", |scene| {
        scene.pool(12).free = scene.pool(12).free.wrapping_add(8);
    }),
    ("the free list has no loop", |scene| {
        let first = scene.pool(12).free;
        // SAFETY: a free block, of which the damage is done.
        unsafe { pool::set_link(first, first) }
    }),
    ("a carved block is in use or on the free list", |scene| scene.pool(12).in_use += 1),
    ("a pool without free blocks has no virgin blocks", |scene| {
        scene.small_pool().free = ptr::null_mut();
        scene.small_pool().in_use += 2;
    }),
];

#[test]
fn each_damage_is_found_at_its_price() {
    assert_eq!(Scene::new().pymalloc.check(Price::Full), Ok(()), "the scene itself is in order");
    for (damages, cheaper, price) in [(OF_ARENAS, Price::None, Price::Cheap), (OF_POOLS, Price::Cheap, Price::Full)] {
        for (invariant, damage) in damages {
            let mut scene = Scene::new();
            damage(&mut scene);
            assert_eq!(scene.pymalloc.check(cheaper), Ok(()), "found too cheaply: {invariant}");
            let found = scene.pymalloc.check(price).map_err(|violation| violation.invariant);
            assert_eq!(found, Err(*invariant));
        }
    }
}

/// The texts of the invariants, as `check.rs` names them.
#[test]
fn no_invariant_is_without_its_damage() {
    let texts = include_str!("../check.rs").split("ensure(").skip(1).filter_map(|call| call.split('"').nth(1));
    let mut walked: Vec<&str> = texts.filter(|text| text.contains(' ')).collect();
    let mut damaged: Vec<&str> = OF_ARENAS.iter().chain(OF_POOLS).map(|(invariant, _)| *invariant).collect();
    walked.sort_unstable();
    damaged.sort_unstable();
    assert_eq!(walked, damaged);
}
