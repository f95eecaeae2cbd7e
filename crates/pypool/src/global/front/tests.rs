//! The front by itself, with arenas of four pools, so that they come and go all the time.
//!
//! **Invariant:** each test has a front of its own and leaves it without a block in use.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicPtr, Ordering};
use std::{ptr, thread};

use super::*;

/// Four pools of 4 KiB an arena.
struct Tiny;

impl Geometry for Tiny {
    const POOL_BYTES: usize = 4 << 10;
    const ARENA_BYTES: usize = 16 << 10;
}

/// Threads that a test starts: more than most machines have cores, and than there are homes in use.
const THREADS: usize = 8;

fn blocks_in_use<G: Geometry>(front: &Front<G>) -> isize {
    let of = |statistics: Statistics| {
        let in_pools: usize = statistics.classes().iter().map(|class| class.blocks_in_use).sum();
        in_pools as isize + statistics.raw_blocks
    };
    (0..SHARDS).map(|shard| of(front.statistics(shard))).sum()
}

fn finish<G: Geometry>(front: &Front<G>) {
    front.check(Price::Full).unwrap();
    assert_eq!(blocks_in_use(front), 0);
    let mapped: Vec<usize> = (0..SHARDS).map(|shard| front.statistics(shard).arenas.mapped).collect();
    assert!(mapped.iter().all(|&arenas| arenas <= 1), "each shard keeps its last arena at most: {mapped:?}");
}

#[test]
fn a_block_comes_from_its_home_and_goes_back_there() {
    static FRONT: Front<Tiny> = Front::new();
    let blocks: Vec<(usize, *mut u8)> =
        (0..4_000).map(|n| (n % SHARDS, FRONT.allocate(n % SHARDS, 1 + n % 512))).collect();
    for &(home, block) in &blocks {
        assert_eq!(FRONT.owner_of(block), Some(home));
    }
    FRONT.check(Price::Full).unwrap();
    assert_eq!(blocks_in_use(&FRONT), 4_000);
    for (_, block) in blocks {
        // SAFETY: live until here.
        unsafe { FRONT.free(block) };
    }
    finish(&FRONT);
}

#[test]
fn a_busy_home_is_passed_over() {
    static FRONT: Front<Tiny> = Front::new();
    let busy = [FRONT.shards[14].0.lock(), FRONT.shards[15].0.lock(), FRONT.shards[0].0.lock()];
    let block = FRONT.allocate(14, 48);
    assert_eq!(FRONT.owner_of(block), Some(1), "14, 15 and 0 are busy");
    drop(busy);
    let next = FRONT.allocate(14, 48);
    assert_eq!(FRONT.owner_of(next), Some(14), "a thread does not move because of one encounter");
    // SAFETY: both live until here.
    unsafe {
        FRONT.free(block);
        FRONT.free(next);
    }
    finish(&FRONT);
}

#[test]
fn a_thread_waits_when_all_shards_are_busy_and_gets_its_home() {
    static FRONT: Front<Tiny> = Front::new();
    FRONT.keep_all();
    let waiting = thread::spawn(|| FRONT.allocate(6, 48).expose_provenance());
    // Whether the thread is asleep already does not matter: it cannot get a block before this.
    // SAFETY: kept above.
    unsafe { FRONT.give_all_back() };
    let block = ptr::with_exposed_provenance_mut(waiting.join().unwrap());
    assert!(FRONT.owner_of(block).is_some());
    // SAFETY: live until here.
    unsafe { FRONT.free(block) };
    finish(&FRONT);
}

#[test]
fn without_arenas_blocks_are_the_c_librarys_and_are_counted() {
    static FRONT: Front<Tiny> = Front::new();
    let pooled = FRONT.allocate(2, 24);
    // All of the arena's pools, so that the next request of any class needs another arena.
    let filling: Vec<*mut u8> = (0..3).map(|n| FRONT.allocate(2, 100 + 100 * n)).collect();
    FRONT.refuse_arenas(true);
    let raw = FRONT.allocate(2, 500);
    assert!(FRONT.owner_of(pooled) == Some(2) && FRONT.owner_of(raw).is_none());
    // SAFETY: live, and at least so long; each is given up once.
    unsafe {
        raw.write_bytes(0x3C, 500);
        let grown = FRONT.reallocate(raw, 512);
        assert!((0..500).all(|at| grown.add(at).read() == 0x3C));
        assert_eq!(FRONT.owner_of(grown), None, "what is malloc's stays malloc's");
        pooled.write_bytes(0x4D, 24);
        let moved = FRONT.reallocate(pooled, 400);
        assert_eq!(FRONT.owner_of(moved), None, "no pool of its class, no arena");
        assert!((0..24).all(|at| moved.add(at).read() == 0x4D));
        assert_eq!(blocks_in_use(&FRONT), 5);
        FRONT.refuse_arenas(false);
        [grown, moved].into_iter().chain(filling).for_each(|block| FRONT.free(block));
    }
    finish(&FRONT);
}

#[test]
fn a_table_of_owners_that_is_wrong_is_found() {
    static FRONT: Front<Tiny> = Front::new();
    let block = FRONT.allocate(4, 48);
    let arena = block.addr() & !(Tiny::ARENA_BYTES - 1);
    let found = |price| FRONT.check(price).err().map(|violation| violation.invariant);
    for wrong in [None, Some(5)] {
        FRONT.owners.forget(arena);
        assert!(wrong.is_none_or(|shard| FRONT.owners.note(arena, shard)));
        assert_eq!(found(Price::None), None);
        assert_eq!(found(Price::Cheap), Some("the table of owners names an arena's shard"));
    }
    assert!(FRONT.owners.note(arena, 4) && FRONT.owners.note(7 * Tiny::ARENA_BYTES, 0));
    assert_eq!(found(Price::Cheap), None);
    assert_eq!(found(Price::Full), Some("the table of owners names mapped arenas alone"));
    FRONT.owners.forget(7 * Tiny::ARENA_BYTES);
    // SAFETY: live until here.
    unsafe { FRONT.free(block) };
    finish(&FRONT);
}

/// A block that says how long it is and what fills it, so that whoever finds it can tell whether it is whole.
#[derive(Clone, Copy)]
struct Parcel(*mut u8);

const LABEL_BYTES: usize = size_of::<[usize; 2]>();

impl Parcel {
    /// # Safety
    /// The block is the caller's and `bytes`, at least a label, long.
    unsafe fn pack(block: *mut u8, bytes: usize, fill: u8) -> Self {
        // SAFETY: by contract; blocks are aligned to 16 bytes.
        unsafe {
            block.cast::<[usize; 2]>().write([bytes, usize::from(fill)]);
            block.add(LABEL_BYTES).write_bytes(fill, bytes - LABEL_BYTES);
        }
        Self(block)
    }

    /// Length and fill, if the first `bytes` are as they were packed.
    ///
    /// # Safety
    /// The block was packed, and has been the caller's alone since.
    unsafe fn open(self, bytes: usize) -> (usize, u8) {
        // SAFETY: by contract.
        let ([packed_bytes, fill], content) = unsafe {
            let content = self.0.add(LABEL_BYTES);
            (self.0.cast::<[usize; 2]>().read(), std::slice::from_raw_parts(content, bytes - LABEL_BYTES))
        };
        assert!(content.iter().all(|&byte| usize::from(byte) == fill), "the content of a live block has changed");
        (packed_bytes, fill as u8)
    }
}

/// A place where one thread leaves a block, and another finds it.
type Slot = AtomicPtr<u8>;

/// Allocates, reallocates, frees and exchanges blocks, as the seed has it.
fn exchange<G: Geometry>(front: &'static Front<G>, slots: &[Slot], seed: usize, steps: usize) {
    let mut state = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    for _ in 0..steps {
        let bytes = LABEL_BYTES + below(G::SMALL_BYTES_MAX - LABEL_BYTES + 1);
        let block = front.allocate(seed % 3, bytes);
        assert!(!block.is_null());
        // SAFETY: a new block. What is found in a slot was left there whole, and is whoever's who takes it out.
        unsafe {
            let mut parcel = Parcel::pack(block, bytes, below(256) as u8);
            if below(4) == 0 {
                let longer = LABEL_BYTES + below(G::SMALL_BYTES_MAX - LABEL_BYTES + 1);
                parcel = Parcel(front.reallocate(parcel.0, longer));
                let (_, fill) = parcel.open(bytes.min(longer));
                parcel = Parcel::pack(parcel.0, longer, fill);
            }
            let found = slots[below(slots.len())].swap(parcel.0, Ordering::AcqRel);
            if !found.is_null() {
                let found_bytes = found.cast::<usize>().read();
                Parcel(found).open(found_bytes);
                front.free(found);
            }
        }
    }
}

fn stress<G: Geometry>(front: &'static Front<G>, slots: usize, rounds: usize, steps: usize) {
    let slots: Vec<Slot> = (0..slots).map(|_| Slot::default()).collect();
    for round in 0..rounds {
        // A scope ends when all its threads have, so one that fails stops no other.
        thread::scope(|scope| {
            for seed in 0..THREADS {
                let slots = &slots;
                scope.spawn(move || exchange(front, slots, round * THREADS + seed, steps));
            }
        });
        front.check(Price::Full).unwrap();
        let waiting = slots.iter().filter(|slot| !slot.load(Ordering::Acquire).is_null()).count();
        assert_eq!(blocks_in_use(front), waiting as isize);
    }
    for slot in slots {
        let block = slot.into_inner();
        if !block.is_null() {
            // SAFETY: the threads are gone; what they left is this one's.
            unsafe {
                Parcel(block).open(block.cast::<usize>().read());
                front.free(block);
            }
        }
    }
    finish(front);
}

/// Few blocks at a time: arenas come and go with almost every one of them.
#[test]
fn threads_exchange_blocks_while_arenas_come_and_go() {
    static FRONT: Front<Tiny> = Front::new();
    stress(&FRONT, 24, 5, 6_000);
    let mapped: usize = (0..SHARDS).map(|shard| FRONT.statistics(shard).arenas.mapped_total).sum();
    assert!(mapped > 100, "only {mapped} arenas came and went");
}

/// Thousands of blocks at a time, in arenas of the usual size.
#[test]
fn threads_exchange_blocks_of_full_arenas() {
    static FRONT: Front<crate::Current> = Front::new();
    stress(&FRONT, 20_000, 3, 10_000);
}
