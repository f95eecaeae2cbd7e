//! A second, naive statement of the policy, written from its description alone, and random sequences on both.
//!
//! It keeps every list as a `Vec` and finds places by search. Two programs that share no idea but the rules have to
//! return the same (arena ordinal, pool, block) for every operation, send the same ones to the raw allocator, and
//! release the same arenas at the same time, also while arenas are refused.

use proptest::prelude::*;
use pypool::{Before310, Current, Geometry, Price};

use crate::sources::{Narrow, TestAllocator, Tiny, Wide, allocator};

/// (arena ordinal, pool, block), or `None` for the raw allocator's.
type Place = Option<(usize, usize, usize)>;

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
    /// Distance of two classes, and what it rounds the header to.
    spacing: usize,
    header: usize,
    /// Blocks per pool of each class.
    capacity: Vec<usize>,
    pools_per_arena: usize,
    arenas: Vec<Option<NaiveArena>>,
    usable: Vec<usize>,
    used: Vec<Vec<(usize, usize)>>,
    released: Vec<usize>,
    /// How many more arenas can be had.
    arenas_left: usize,
}

impl Naive {
    fn new<G: Geometry>(aligned: bool) -> Self {
        let spacing = G::ALIGNMENT_BYTES;
        let header = 48_usize.next_multiple_of(spacing);
        let classes = G::SMALL_BYTES_MAX / spacing;
        Self {
            spacing,
            header,
            capacity: (1..=classes).map(|class| (G::POOL_BYTES - header) / (spacing * class)).collect(),
            pools_per_arena: G::ARENA_BYTES / G::POOL_BYTES - usize::from(!aligned),
            arenas: Vec::new(),
            usable: Vec::new(),
            used: vec![Vec::new(); classes],
            released: Vec::new(),
            arenas_left: usize::MAX,
        }
    }

    /// Offset of a block from its pool's start.
    fn offset(&self, class: usize, block: usize) -> usize {
        self.header + block * self.spacing * (class + 1)
    }

    fn arena(&mut self, ordinal: usize) -> &mut NaiveArena {
        self.arenas[ordinal].as_mut().unwrap()
    }

    fn allocate(&mut self, bytes: usize) -> Place {
        if bytes == 0 || bytes > self.spacing * self.capacity.len() {
            return None;
        }
        let class = (bytes - 1) / self.spacing;
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
            return Some((ordinal, index, block));
        }
        if self.usable.is_empty() {
            if self.arenas_left == 0 {
                return None;
            }
            self.arenas_left -= 1;
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
        Some((ordinal, index, block))
    }

    /// The raw allocator keeps what it has; a pool keeps what fits and fills more than three quarters of its block.
    fn reallocate(&mut self, place: Place, bytes: usize) -> Place {
        let (ordinal, index, _) = place?;
        let block_bytes = self.spacing * (self.arena(ordinal).pools[index].class + 1);
        if bytes <= block_bytes && bytes * 4 > block_bytes * 3 {
            return place;
        }
        let moved = self.allocate(bytes);
        self.free(place);
        moved
    }

    fn free(&mut self, place: Place) {
        let Some((ordinal, index, block)) = place else { return };
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
    AllocateZeroed(usize),
    /// The live block at this index modulo their number, and its new length.
    Reallocate(usize, usize),
    /// Frees the live block at this index modulo their number.
    Free(usize),
    /// Frees a run of blocks, oldest first.
    FreeOldest(usize),
    /// So many more arenas can be had.
    Arenas(usize),
}

fn steps(small_bytes_max: usize) -> impl Strategy<Value = Vec<Step>> {
    // A few sizes at a time fill pools; all sizes reach every class, and both ends of what pools serve.
    let favourite = 1..=small_bytes_max;
    let any_bytes = move || 0..small_bytes_max + 3;
    let step = move |favourite: usize| {
        prop_oneof![
            60 => Just(Step::Allocate(favourite)),
            60 => any_bytes().prop_map(Step::Allocate),
            10 => any_bytes().prop_map(Step::AllocateZeroed),
            20 => (any::<usize>(), any_bytes()).prop_map(|(index, bytes)| Step::Reallocate(index, bytes)),
            10 => any::<usize>().prop_map(move |index| Step::Reallocate(index, favourite * 3 / 4)),
            80 => any::<usize>().prop_map(Step::Free),
            10 => (1_usize..60).prop_map(Step::FreeOldest),
            1 => (0_usize..3).prop_map(Step::Arenas),
            2 => Just(Step::Arenas(usize::MAX)),
        ]
    };
    prop::collection::vec(favourite.prop_flat_map(move |bytes| prop::collection::vec(step(bytes), 1..120)), 1..12)
        .prop_map(|parts| parts.concat())
}

/// The two programs side by side.
struct Both<G: Geometry> {
    pymalloc: Box<TestAllocator<G>>,
    naive: Naive,
    first_pool: usize,
    live: Vec<(*mut u8, Place)>,
}

impl<G: Geometry> Both<G> {
    fn new(shift_bytes: usize) -> Self {
        Self {
            pymalloc: allocator::<G>(shift_bytes),
            naive: Naive::new::<G>(shift_bytes.is_multiple_of(G::POOL_BYTES)),
            first_pool: shift_bytes.next_multiple_of(G::POOL_BYTES),
            live: Vec::new(),
        }
    }

    fn add(&mut self, block: *mut u8, place: Place) {
        let expected = place.map(|(ordinal, pool, index)| {
            let class = self.naive.arena(ordinal).pools[pool].class;
            (ordinal, self.first_pool + pool * G::POOL_BYTES + self.naive.offset(class, index))
        });
        assert!(!block.is_null());
        assert_eq!(self.pymalloc.source().place(block), expected);
        self.live.push((block, place));
    }

    fn free(&mut self, (block, place): (*mut u8, Place)) {
        // SAFETY: off the list of live blocks, and given up.
        unsafe { self.pymalloc.free(block) };
        self.naive.free(place);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate(bytes) => {
                let (block, place) = (self.pymalloc.allocate(bytes), self.naive.allocate(bytes));
                self.add(block, place);
            }
            Step::AllocateZeroed(bytes) => {
                let (block, place) = (self.pymalloc.allocate_zeroed(bytes, 1), self.naive.allocate(bytes));
                self.add(block, place);
            }
            Step::Arenas(arenas) => {
                self.pymalloc.source().patience.set(arenas);
                self.naive.arenas_left = arenas;
            }
            Step::Reallocate(..) | Step::Free(_) | Step::FreeOldest(_) if self.live.is_empty() => {}
            Step::Reallocate(index, bytes) => {
                let (old, place) = self.live.swap_remove(index % self.live.len());
                // SAFETY: live.
                let block = unsafe { self.pymalloc.reallocate(old, bytes) };
                let place = self.naive.reallocate(place, bytes);
                self.add(block, place);
            }
            Step::Free(index) => {
                let old = self.live.swap_remove(index % self.live.len());
                self.free(old);
            }
            Step::FreeOldest(count) => {
                let oldest: Vec<_> = self.live.drain(..count.min(self.live.len())).collect();
                oldest.into_iter().for_each(|old| self.free(old));
            }
        }
    }
}

fn same_places<G: Geometry>(steps: &[Step], shift_bytes: usize) {
    let mut both = Both::<G>::new(shift_bytes);
    for &step in steps {
        both.step(step);
        assert_eq!(both.pymalloc.source().released, both.naive.released);
        both.pymalloc.check(Price::Cheap).unwrap();
    }
    both.pymalloc.check(Price::Full).unwrap();
    both.step(Step::FreeOldest(usize::MAX));
    assert_eq!(both.pymalloc.source().released, both.naive.released);
    both.pymalloc.check(Price::Full).unwrap();
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

    #[test]
    fn older_arenas_agree_with_the_naive_policy(steps in steps(512)) {
        same_places::<Before310>(&steps, 0);
    }

    #[test]
    fn narrow_and_wide_blocks_agree_with_the_naive_policy(narrow in steps(512), wide in steps(Wide::SMALL_BYTES_MAX)) {
        same_places::<Narrow>(&narrow, 0);
        same_places::<Wide>(&wide, 4096);
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
