//! A sequence per rule of the policy, by hand.
//!
//! **Invariant:** a sequence loses no block: it allocates into new slots only and frees each at most once.

use std::ops::Range;

use libpython::oracle::Call;

/// Blocks of 512 bytes that fill a pool.
const BLOCKS_512: usize = 31;

/// A sequence that is being written.
#[derive(Default)]
struct Script {
    calls: Vec<Call>,
    slots: usize,
}

impl Script {
    fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    fn malloc(&mut self, bytes: usize) -> usize {
        let slot = self.slot();
        self.calls.push(Call::malloc(slot, bytes));
        slot
    }

    fn calloc(&mut self, count: usize, bytes: usize) -> usize {
        let slot = self.slot();
        self.calls.push(Call::calloc(slot, count, bytes));
        slot
    }

    fn realloc(&mut self, slot: usize, bytes: usize) {
        self.calls.push(Call::realloc(slot, bytes));
    }

    fn free(&mut self, slot: usize) {
        self.calls.push(Call::free(slot));
    }

    fn fill(&mut self, bytes: usize, blocks: usize) -> Range<usize> {
        let first = self.slots;
        (0..blocks).for_each(|_| {
            self.malloc(bytes);
        });
        first..self.slots
    }

    /// Whole pools of 512-byte blocks, a range of slots each.
    fn pools(&mut self, pools: usize) -> Vec<Range<usize>> {
        (0..pools).map(|_| self.fill(512, BLOCKS_512)).collect()
    }

    fn free_all(&mut self, slots: Range<usize>) {
        slots.for_each(|slot| self.free(slot));
    }
}

/// Three full arenas, then one pool free in each: each enters the usable list at the front, which then reads 2, 1, 0.
fn three_arenas(script: &mut Script, per_arena: usize) -> Vec<Range<usize>> {
    let pools = script.pools(3 * per_arena);
    for arena in 0..3 {
        script.free_all(pools[arena * per_arena].clone());
    }
    pools
}

type Rule = fn(&mut Script, usize);

/// The rules; each is given the number of pools of an arena.
const RULES: &[(&str, Rule)] = &[
    ("32 classes, each with a full pool and one block more", |script, _| {
        for bytes in (16..=512).step_by(16) {
            script.fill(bytes - bytes / 16 % 16, (16384 - 48) / bytes + 1);
        }
    }),
    ("0, 512 and 513 bytes", |script, _| {
        let slots = [0, 512, 513, 1, 100_000].map(|bytes| script.malloc(bytes));
        slots.into_iter().for_each(|slot| script.free(slot));
    }),
    ("the block freed last comes first, then carving goes on", |script, _| {
        let slots = script.fill(40, 4);
        [1, 3, 2].into_iter().for_each(|index| script.free(slots.start + index));
        script.fill(40, 6);
    }),
    ("a full pool that gets a block back goes to the front", |script, _| {
        let pools = script.pools(2);
        script.fill(512, 2);
        script.free(pools[0].start + 5);
        script.free(pools[1].start + 7);
        script.fill(512, 4);
    }),
    ("a pool leaves the middle of its list", |script, _| {
        let pools = script.pools(2);
        script.fill(512, 1);
        script.free(pools[0].start);
        script.free(pools[1].start);
        script.free_all(pools[0].start + 1..pools[0].end);
        script.fill(512, 2 * BLOCKS_512);
    }),
    ("a recycled pool keeps its free list for its class", |script, _| {
        let slots = script.fill(64, 5);
        script.malloc(32);
        script.free_all(slots);
        script.fill(64, 7);
    }),
    ("a recycled pool begins anew for another class", |script, _| {
        let slots = script.fill(64, 5);
        script.malloc(32);
        script.free_all(slots);
        script.fill(80, 7);
    }),
    ("empty pools before virgin ones, last emptied first", |script, _| {
        let slots = [16, 32, 48].map(|bytes| script.malloc(bytes));
        script.free(slots[0]);
        script.free(slots[1]);
        for bytes in [64, 80, 96] {
            script.malloc(bytes);
        }
    }),
    ("an arena and one block", |script, per_arena| {
        script.pools(per_arena);
        script.malloc(512);
    }),
    ("the only usable arena stays when it is emptied", |script, per_arena| {
        let only = script.malloc(8);
        script.free(only);
        let pools = script.pools(2 * per_arena);
        pools[per_arena..].iter().for_each(|pool| script.free_all(pool.clone()));
        script.malloc(8);
    }),
    ("an arena goes when it is emptied before the last one of the list", |script, per_arena| {
        let pools = script.pools(2 * per_arena);
        pools[per_arena..].iter().for_each(|pool| script.free_all(pool.clone()));
        pools[..per_arena].iter().for_each(|pool| script.free_all(pool.clone()));
        script.malloc(8);
    }),
    ("an arena that is emptied as the last one stays beside others, the next one goes", |script, per_arena| {
        let pools = script.pools(3 * per_arena);
        script.free_all(pools[0].clone());
        pools[per_arena..].iter().for_each(|pool| script.free_all(pool.clone()));
        script.pools(3);
    }),
    ("a released arena's place is taken again", |script, per_arena| {
        let pools = script.pools(2 * per_arena);
        (0..pools[per_arena].start).rev().for_each(|slot| script.free(slot));
        script.free_all(pools[per_arena].start..script.slots);
        script.pools(3 * per_arena);
    }),
    ("an arena with its first free pool goes to the front", |script, per_arena| {
        three_arenas(script, per_arena);
        script.pools(4);
    }),
    ("an arena moves behind all that had as many free pools", |script, per_arena| {
        let pools = three_arenas(script, per_arena);
        script.free_all(pools[2 * per_arena + 1].clone());
        script.pools(5);
    }),
    ("the last arena of a group stays and leads the next group", |script, per_arena| {
        let pools = three_arenas(script, per_arena);
        script.free_all(pools[2 * per_arena + 1].clone());
        script.free_all(pools[1].clone());
        script.pools(6);
    }),
    ("ties in free pools, made and broken in turn", |script, per_arena| {
        let pools = three_arenas(script, per_arena);
        for (arena, pool) in [(0, 1), (1, 1), (2, 1), (1, 2), (0, 2), (2, 2), (0, 3)] {
            script.free_all(pools[arena * per_arena + pool].clone());
        }
        script.pools(3);
        script.free_all(pools[per_arena + 3].clone());
        script.pools(9);
    }),
    ("realloc at three quarters of every class", |script, _| {
        for class_bytes in (16..=512).step_by(16) {
            let slot = script.malloc(class_bytes);
            let quarters = class_bytes / 4 * 3;
            for bytes in [quarters + 1, class_bytes, quarters, class_bytes, class_bytes + 1, class_bytes - 15] {
                script.realloc(slot, bytes);
            }
        }
    }),
    ("realloc across the borders of the pools", |script, _| {
        let raw = script.malloc(1000);
        [8, 0, 513, 2000].into_iter().for_each(|bytes| script.realloc(raw, bytes));
        let small = script.malloc(8);
        [513, 8, 512].into_iter().for_each(|bytes| script.realloc(small, bytes));
        let emptied = script.malloc(100);
        [0, 100].into_iter().for_each(|bytes| script.realloc(emptied, bytes));
        [raw, small, emptied].into_iter().for_each(|slot| script.free(slot));
        script.fill(100, 2);
    }),
    ("null is freed and reallocated", |script, _| {
        let slots = [script.slot(), script.slot(), script.slot()];
        script.free(slots[0]);
        for (slot, bytes) in slots.into_iter().zip([40, 600, 0]) {
            script.realloc(slot, bytes);
            script.free(slot);
        }
        script.realloc(slots[0], 33);
    }),
    ("a list grows", |script, _| {
        let slot = script.malloc(8);
        for length in 2..90 {
            script.realloc(slot, 8 * length);
            script.malloc(8 * length);
        }
    }),
    ("realloc releases the arena that it leaves", |script, per_arena| {
        let pools = script.pools(2 * per_arena);
        script.free_all(pools[per_arena].start..script.slots);
        script.malloc(16);
        let mover = pools[0].start;
        script.free_all(mover + 1..pools[per_arena].start);
        script.realloc(mover, 16);
    }),
    ("calloc: products, nothing, and too much for a pool", |script, _| {
        let slots = [(7, 7), (1, 512), (255, 2), (0, 8), (8, 0), (3, 171), (1, 4096), (0, 0)]
            .map(|(count, bytes)| script.calloc(count, bytes));
        slots.into_iter().for_each(|slot| script.free(slot));
    }),
    ("no memory for the largest size", |script, _| {
        let refused = script.malloc(usize::MAX);
        script.realloc(refused, usize::MAX);
        script.realloc(refused, 64);
        script.realloc(refused, usize::MAX);
        let raw = script.malloc(5000);
        script.realloc(raw, usize::MAX);
        [refused, raw].into_iter().for_each(|slot| script.free(slot));
    }),
    ("17 arenas make the descriptor vector grow, and go in turn", |script, per_arena| {
        let pools = script.pools(16 * per_arena + 1);
        for pool in pools.iter().step_by(per_arena) {
            script.free_all(pool.clone());
        }
        for pool in pools.chunks(per_arena).flat_map(|arena| &arena[1..]) {
            script.free_all(pool.clone());
        }
        script.pools(2);
    }),
];

/// Name and calls of each rule's sequence, for arenas with so many pools.
pub(crate) fn rules(pools_per_arena: usize) -> impl Iterator<Item = (&'static str, Vec<Call>)> {
    RULES.iter().map(move |(name, write)| {
        let mut script = Script::default();
        write(&mut script, pools_per_arena);
        (*name, script.calls)
    })
}
