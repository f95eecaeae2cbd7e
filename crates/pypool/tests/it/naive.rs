//! A second, naive statement of the policy, written from its description alone, and random sequences on both.
//!
//! It keeps every list as a `Vec` and finds places by search. Two programs that share no idea but the rules have to
//! return the same (arena ordinal, pool, block) for every operation and release the same arenas at the same time.

use proptest::prelude::*;
use pypool::{Current, Geometry, Price};

use crate::sources::{Tiny, allocator};

const HEADER: usize = 48;

struct NaivePool {
    class: usize,
    in_use: usize,
    /// Free carved blocks, last freed last.
    free: Vec<usize>,
    virgin: usize,
}

struct NaiveArena {
    pools: Vec<NaivePool>,
    empty: Vec<usize>,
    total: usize,
}

impl NaiveArena {
    fn free_pools(&self) -> usize {
        self.total - self.pools.len() + self.empty.len()
    }
}

struct Naive {
    /// Blocks per pool of each class.
    capacity: Vec<usize>,
    pools_per_arena: usize,
    arenas: Vec<Option<NaiveArena>>,
    usable: Vec<usize>,
    used: Vec<Vec<(usize, usize)>>,
    released: Vec<usize>,
}

impl Naive {
    fn new<G: Geometry>(aligned: bool) -> Self {
        let classes = G::SMALL_BYTES_MAX / 16;
        Self {
            capacity: (1..=classes).map(|class| (G::POOL_BYTES - HEADER) / (16 * class)).collect(),
            pools_per_arena: G::ARENA_BYTES / G::POOL_BYTES - usize::from(!aligned),
            arenas: Vec::new(),
            usable: Vec::new(),
            used: vec![Vec::new(); classes],
            released: Vec::new(),
        }
    }

    fn arena(&mut self, ordinal: usize) -> &mut NaiveArena {
        self.arenas[ordinal].as_mut().unwrap()
    }

    fn allocate(&mut self, class: usize) -> (usize, usize, usize) {
        let capacity = self.capacity[class];
        if let Some(&(ordinal, index)) = self.used[class].first() {
            let pool = &mut self.arena(ordinal).pools[index];
            pool.in_use += 1;
            let block = pool.free.pop().unwrap();
            if pool.free.is_empty() {
                if pool.virgin < capacity {
                    pool.free.push(pool.virgin);
                    pool.virgin += 1;
                } else {
                    self.used[class].remove(0);
                }
            }
            return (ordinal, index, block);
        }
        if self.usable.is_empty() {
            let arena = NaiveArena { pools: Vec::new(), empty: Vec::new(), total: self.pools_per_arena };
            let ordinal = self.arenas.iter().position(Option::is_none).unwrap_or(self.arenas.len());
            if ordinal == self.arenas.len() {
                self.arenas.push(None);
            }
            self.arenas[ordinal] = Some(arena);
            self.usable.push(ordinal);
        }
        let ordinal = self.usable[0];
        let arena = self.arena(ordinal);
        let index = arena.empty.pop().unwrap_or_else(|| {
            arena.pools.push(NaivePool { class: usize::MAX, in_use: 0, free: Vec::new(), virgin: 0 });
            arena.pools.len() - 1
        });
        let pool = &mut arena.pools[index];
        if pool.class != class {
            *pool = NaivePool { class, in_use: 0, free: vec![1, 0], virgin: 2 };
        }
        pool.in_use = 1;
        let block = pool.free.pop().unwrap();
        if arena.free_pools() == 0 {
            self.usable.remove(0);
        }
        self.used[class].insert(0, (ordinal, index));
        (ordinal, index, block)
    }

    fn free(&mut self, (ordinal, index, block): (usize, usize, usize)) {
        let pool = &mut self.arena(ordinal).pools[index];
        let class = pool.class;
        let was_full = pool.free.is_empty();
        pool.free.push(block);
        pool.in_use -= 1;
        let emptied = pool.in_use == 0;
        if was_full {
            self.used[class].insert(0, (ordinal, index));
        } else if emptied {
            self.used[class].retain(|&pool| pool != (ordinal, index));
            self.arena(ordinal).empty.push(index);
            self.place_again(ordinal);
        }
    }

    /// Puts an arena that has one more free pool where it belongs.
    fn place_again(&mut self, ordinal: usize) {
        let free = self.arena(ordinal).free_pools();
        if free == self.arena(ordinal).total && self.usable.last() != Some(&ordinal) {
            self.usable.retain(|&other| other != ordinal);
            self.arenas[ordinal] = None;
            self.released.push(ordinal);
        } else if free == 1 {
            self.usable.insert(0, ordinal);
        } else {
            let old_group = |other: &usize| self.arenas[*other].as_ref().unwrap().free_pools() == free - 1;
            let place = self.usable.iter().position(|&other| other == ordinal).unwrap();
            if let Some(last) = self.usable.iter().rposition(old_group).filter(|&last| last > place) {
                self.usable.remove(place);
                self.usable.insert(last, ordinal);
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Allocate(usize),
    /// Frees the live block at this index modulo their number.
    Free(usize),
    /// Frees a run of blocks, oldest first.
    FreeOldest(usize),
}

fn steps(small_bytes_max: usize) -> impl Strategy<Value = Vec<Step>> {
    // A few sizes at a time fill pools; all sizes reach every class.
    let favourite = 1..=small_bytes_max;
    let step = move |favourite: usize| {
        prop_oneof![
            6 => Just(Step::Allocate(favourite)),
            6 => (1..=small_bytes_max).prop_map(Step::Allocate),
            9 => any::<usize>().prop_map(Step::Free),
            1 => (1_usize..60).prop_map(Step::FreeOldest),
        ]
    };
    prop::collection::vec(favourite.prop_flat_map(move |bytes| prop::collection::vec(step(bytes), 1..120)), 1..12)
        .prop_map(|parts| parts.concat())
}

fn same_places<G: Geometry>(steps: &[Step], shift_bytes: usize) {
    let mut pymalloc = allocator::<G>(shift_bytes);
    let mut naive = Naive::new::<G>(shift_bytes.is_multiple_of(G::POOL_BYTES));
    let first_pool = shift_bytes.next_multiple_of(G::POOL_BYTES);
    let mut live = Vec::new();
    for &step in steps {
        match step {
            Step::Allocate(bytes) => {
                let class = (bytes - 1) / 16;
                let block = pymalloc.allocate(bytes);
                let (ordinal, pool, index) = naive.allocate(class);
                let offset = first_pool + pool * G::POOL_BYTES + HEADER + index * 16 * (class + 1);
                assert_eq!(pymalloc.source().place(block), Some((ordinal, offset)));
                live.push((block, (ordinal, pool, index)));
            }
            Step::Free(_) | Step::FreeOldest(_) if live.is_empty() => {}
            Step::Free(index) => {
                let (block, place) = live.swap_remove(index % live.len());
                // SAFETY: live.
                unsafe { pymalloc.free(block) };
                naive.free(place);
            }
            Step::FreeOldest(count) => {
                for (block, place) in live.drain(..count.min(live.len())) {
                    // SAFETY: live.
                    unsafe { pymalloc.free(block) };
                    naive.free(place);
                }
            }
        }
        assert_eq!(pymalloc.source().released, naive.released);
        pymalloc.check(Price::Cheap).unwrap();
    }
    pymalloc.check(Price::Full).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn tiny_arenas_agree_with_the_naive_policy(steps in steps(Tiny::SMALL_BYTES_MAX), aligned in any::<bool>()) {
        // The source aligns to OS pages; half an arena's pool is misaligned enough for this geometry.
        same_places::<Tiny>(&steps, if aligned { 0 } else { 512 });
    }

    #[test]
    fn cpythons_arenas_agree_with_the_naive_policy(steps in steps(512), aligned in any::<bool>()) {
        same_places::<Current>(&steps, if aligned { 0 } else { 4096 });
    }
}

/// Random sequences seldom fill arenas of 1 MiB; this one fills and drains them, in three orders.
#[test]
fn arenas_of_one_mebibyte_fill_and_drain() {
    for order in 0..3 {
        let mut steps: Vec<Step> = (0..9_000).map(|index| Step::Allocate(1 + index * 7 % 512)).collect();
        steps.extend((0..9_000_usize).map(|index| match order {
            0 => Step::FreeOldest(1),
            1 => Step::Free(index.wrapping_mul(0x9E37_79B9)),
            _ => Step::Free(8_999 - index),
        }));
        same_places::<Current>(&steps, 4096 * (order % 2));
    }
}
