//! The rules of the policy, one test each, with addresses worked out by hand.

use pypool::{Before310, Current, Price};

use crate::sources::{Narrow, TestAllocator, allocator};

const POOL: usize = 16 << 10;
const HEADER: usize = 48;
const BLOCKS_512: usize = 31;
const POOLS: usize = 64;

type Pymalloc = TestAllocator<Current>;

fn place(pymalloc: &mut Pymalloc, block: *mut u8) -> (usize, usize) {
    pymalloc.source().place(block).expect("a block of an arena")
}

fn take(pymalloc: &mut Pymalloc, bytes: usize) -> (usize, usize) {
    let block = pymalloc.allocate(bytes);
    place(pymalloc, block)
}

fn free(pymalloc: &mut Pymalloc, block: *mut u8) {
    // SAFETY: the tests pass each live block once.
    unsafe { pymalloc.free(block) }
}

/// Fills whole pools of 512-byte blocks; the blocks of pool `i` are `blocks[i]`.
fn fill_pools(pymalloc: &mut Pymalloc, pools: usize) -> Vec<Vec<*mut u8>> {
    (0..pools).map(|_| (0..BLOCKS_512).map(|_| pymalloc.allocate(512)).collect()).collect()
}

fn free_pool(pymalloc: &mut Pymalloc, blocks: &mut Vec<*mut u8>) {
    blocks.drain(..).for_each(|block| free(pymalloc, block));
}

#[test]
fn blocks_are_carved_in_address_order_and_classes_have_their_own_pools() {
    let mut pymalloc = allocator::<Current>(0);
    assert_eq!(take(&mut pymalloc, 1), (0, HEADER));
    assert_eq!(take(&mut pymalloc, 16), (0, HEADER + 16));
    assert_eq!(take(&mut pymalloc, 17), (0, POOL + HEADER), "17 bytes are of the next class");
    assert_eq!(take(&mut pymalloc, 512), (0, 2 * POOL + HEADER));
    assert_eq!(take(&mut pymalloc, 497), (0, 2 * POOL + HEADER + 512));
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn zero_and_big_requests_are_the_raw_allocators() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks = [0, 513, 100_000].map(|bytes| pymalloc.allocate(bytes));
    assert_eq!(pymalloc.raw().requests_bytes, [1, 513, 100_000], "0 is asked for as 1");
    for block in blocks {
        // SAFETY: live.
        assert_eq!(unsafe { pymalloc.usable_size(block) }, None);
        free(&mut pymalloc, block);
    }
    assert_eq!(pymalloc.raw().live, 0);
    assert_eq!(pymalloc.statistics().arenas.mapped_total, 0);
    assert!(pymalloc.allocate(usize::MAX).is_null());
    assert!(pymalloc.allocate(isize::MAX as usize + 1).is_null());
}

#[test]
fn last_freed_comes_first() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks = [40; 4].map(|bytes| pymalloc.allocate(bytes));
    for index in [1, 3, 2] {
        free(&mut pymalloc, blocks[index]);
    }
    assert_eq!([40; 3].map(|bytes| pymalloc.allocate(bytes)), [blocks[2], blocks[3], blocks[1]]);
    assert_eq!(take(&mut pymalloc, 40), (0, HEADER + 4 * 48), "carving goes on where it stopped");
}

#[test]
fn a_full_pool_leaves_the_list_and_comes_back_at_the_front() {
    let mut pymalloc = allocator::<Current>(0);
    let pools = fill_pools(&mut pymalloc, 1);
    assert_eq!(take(&mut pymalloc, 512), (0, POOL + HEADER), "31 blocks of 512 bytes fill a pool");
    free(&mut pymalloc, pools[0][5]);
    assert_eq!(take(&mut pymalloc, 512), (0, HEADER + 5 * 512), "the pool that was full is asked first");
    assert_eq!(take(&mut pymalloc, 512), (0, POOL + HEADER + 512));
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn a_recycled_pool_keeps_its_order_for_the_same_class_only() {
    for (bytes, expected) in [(64, [176, 112, 48, 240]), (80, [48, 128, 208, 288])] {
        let mut pymalloc = allocator::<Current>(0);
        [64; 3].map(|bytes| pymalloc.allocate(bytes)).into_iter().for_each(|block| free(&mut pymalloc, block));
        assert_eq!([bytes; 4].map(|bytes| take(&mut pymalloc, bytes)), expected.map(|offset| (0, offset)));
    }
}

#[test]
fn empty_pools_are_reused_before_virgin_ones_last_emptied_first() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks = [16, 32, 48].map(|bytes| pymalloc.allocate(bytes));
    free(&mut pymalloc, blocks[0]);
    free(&mut pymalloc, blocks[1]);
    let taken = [64, 80, 96].map(|bytes| take(&mut pymalloc, bytes));
    assert_eq!(taken, [(0, POOL + HEADER), (0, HEADER), (0, 3 * POOL + HEADER)]);
}

#[test]
fn a_misaligned_arena_holds_one_pool_less() {
    let mut pymalloc = allocator::<Current>(4096);
    assert_eq!(take(&mut pymalloc, 512), (0, POOL + HEADER), "the first pool starts at the next multiple of a pool");
    fill_pools(&mut pymalloc, POOLS - 2);
    let last = (0..BLOCKS_512 - 1).map(|_| take(&mut pymalloc, 512)).last();
    assert_eq!(last, Some((0, (POOLS - 1) * POOL + HEADER + 30 * 512)));
    assert_eq!(take(&mut pymalloc, 512), (1, POOL + HEADER));
    let statistics = pymalloc.statistics();
    assert_eq!(statistics.arena_alignment_bytes, 2 * POOL);
    assert_eq!(statistics.total_bytes(), 2 << 20);
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn a_wholly_free_arena_goes_unless_it_is_the_last_of_the_list() {
    let mut pymalloc = allocator::<Current>(0);
    let only = pymalloc.allocate(8);
    free(&mut pymalloc, only);
    assert!(pymalloc.source().released.is_empty(), "the only arena stays");

    let mut pools = fill_pools(&mut pymalloc, 2 * POOLS);
    let (first, second) = pools.split_at_mut(POOLS);
    second.iter_mut().for_each(|blocks| free_pool(&mut pymalloc, blocks));
    assert!(pymalloc.source().released.is_empty(), "the first arena is full, hence not in the list");
    let last = first[63].pop().unwrap();
    first.iter_mut().for_each(|blocks| free_pool(&mut pymalloc, blocks));
    assert!(pymalloc.source().released.is_empty());
    free(&mut pymalloc, last);
    assert_eq!(pymalloc.source().released, [0], "the first arena went with its last block; the second one stays");
    assert!(!pymalloc.owns(last));
    pymalloc.check(Price::Full).unwrap();
    assert_eq!(take(&mut pymalloc, 8).0, 1);
}

/// Three full arenas, then one pool free in each: each enters at the front, so the list reads 2, 1, 0.
fn three_arenas(pymalloc: &mut Pymalloc) -> Vec<Vec<*mut u8>> {
    let mut pools = fill_pools(pymalloc, 3 * POOLS);
    for arena in 0..3 {
        free_pool(pymalloc, &mut pools[arena * POOLS]);
    }
    pools
}

/// The arenas that give the next pools, asked by filling one pool after the other.
fn next_arenas(pymalloc: &mut Pymalloc, pools: usize) -> Vec<usize> {
    fill_pools(pymalloc, pools).iter().map(|blocks| place(pymalloc, blocks[0]).0).collect()
}

#[test]
fn an_arena_that_gets_its_first_free_pool_goes_to_the_front() {
    let mut pymalloc = allocator::<Current>(0);
    three_arenas(&mut pymalloc);
    assert_eq!(next_arenas(&mut pymalloc, 4), [2, 1, 0, 3]);
}

#[test]
fn an_arena_moves_just_behind_its_old_group() {
    let mut pymalloc = allocator::<Current>(0);
    let mut pools = three_arenas(&mut pymalloc);
    free_pool(&mut pymalloc, &mut pools[2 * POOLS + 1]);
    pymalloc.check(Price::Cheap).unwrap();
    assert_eq!(next_arenas(&mut pymalloc, 5), [1, 0, 2, 2, 3], "2 went behind both arenas with one free pool");
}

#[test]
fn the_last_of_a_group_stays_where_it_is_and_so_leads_the_next_group() {
    let mut pymalloc = allocator::<Current>(0);
    let mut pools = three_arenas(&mut pymalloc);
    free_pool(&mut pymalloc, &mut pools[2 * POOLS + 1]);
    free_pool(&mut pymalloc, &mut pools[1]);
    pymalloc.check(Price::Cheap).unwrap();
    assert_eq!(next_arenas(&mut pymalloc, 6), [1, 0, 0, 2, 2, 3]);
}

#[test]
fn realloc_stays_above_three_quarters() {
    let mut pymalloc = allocator::<Current>(0);
    let block = pymalloc.allocate(64);
    // SAFETY: each block is live when it is passed.
    unsafe {
        assert_eq!(pymalloc.reallocate(block, 49), block, "4 * 49 > 3 * 64");
        assert_eq!(pymalloc.reallocate(block, 64), block, "growth within the block");
        let moved = pymalloc.reallocate(block, 48);
        assert_eq!(place(&mut pymalloc, moved), (0, POOL + HEADER), "4 * 48 is not above 3 * 64");
        let grown = pymalloc.reallocate(moved, 65);
        assert_eq!(place(&mut pymalloc, grown).1 % POOL, HEADER);
        assert_eq!(pymalloc.usable_size(grown), Some(80));
    }
}

#[test]
fn realloc_at_the_borders_of_the_pools() {
    let mut pymalloc = allocator::<Current>(0);
    // SAFETY: each block is live when it is passed.
    unsafe {
        let big = pymalloc.allocate(1000);
        let shrunk = pymalloc.reallocate(big, 8);
        assert_eq!(pymalloc.usable_size(shrunk), None, "a raw block stays raw");
        pymalloc.free(shrunk);

        let small = pymalloc.reallocate(std::ptr::null_mut(), 8);
        assert_eq!(pymalloc.usable_size(small), Some(16), "from null it is an allocation");
        small.write_bytes(7, 16);
        let big = pymalloc.reallocate(small, 513);
        assert_eq!(pymalloc.usable_size(big), None);
        assert_eq!(std::slice::from_raw_parts(big, 16), [7; 16]);
        pymalloc.free(big);

        let small = pymalloc.allocate(8);
        let nothing = pymalloc.reallocate(small, 0);
        assert_eq!(pymalloc.usable_size(nothing), None, "to 0 bytes it moves to the raw allocator");
        assert!(pymalloc.reallocate(nothing, usize::MAX).is_null());
        assert!(!pymalloc.raw().requests_bytes.contains(&usize::MAX), "nobody is asked for more than isize::MAX");
        pymalloc.free(nothing);
        pymalloc.free(std::ptr::null_mut());
    }
    assert_eq!(pymalloc.statistics().raw_blocks, 0);
}

#[test]
fn calloc_zeroes_the_product_and_no_more() {
    let mut pymalloc = allocator::<Current>(0);
    let dirty = pymalloc.allocate(64);
    // SAFETY: the block is live and 64 bytes long.
    unsafe { dirty.write_bytes(0xAA, 64) };
    free(&mut pymalloc, dirty);
    let block = pymalloc.allocate_zeroed(7, 7);
    assert_eq!(block, dirty);
    // SAFETY: as above.
    let bytes = unsafe { std::slice::from_raw_parts(block, 64) };
    assert_eq!((&bytes[..49], &bytes[49..]), (&[0; 49][..], &[0xAA; 15][..]));

    assert!(pymalloc.allocate_zeroed(usize::MAX, 2).is_null(), "the product overflows");
    assert!(pymalloc.allocate_zeroed(1 << 62, 2).is_null(), "the product exceeds isize::MAX");
    let nothing = pymalloc.allocate_zeroed(0, 8);
    assert_eq!(pymalloc.raw().requests_bytes.last(), Some(&1));
    free(&mut pymalloc, nothing);
}

#[test]
fn tables_come_from_the_raw_allocator() {
    let mut pymalloc = allocator::<Current>(0);
    pymalloc.allocate(512);
    assert_eq!(pymalloc.raw().requests_bytes, [16 * 48, 256 << 10, 128 << 10], "vector, middle node, leaf");
    fill_pools(&mut pymalloc, 16 * POOLS);
    assert_eq!(pymalloc.raw().requests_bytes[3..], [32 * 48], "the vector doubles at the 17th arena");
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn without_an_arena_the_raw_allocator_serves() {
    let mut pymalloc = allocator::<Current>(0);
    pymalloc.source().patience.set(0);
    let block = pymalloc.allocate(8);
    assert!(!block.is_null() && !pymalloc.owns(block));
    assert_eq!(pymalloc.statistics().raw_blocks, 1);
    free(&mut pymalloc, block);
    pymalloc.source().patience.set(1);
    assert_eq!(take(&mut pymalloc, 8), (0, HEADER));
}

#[test]
fn other_geometries() {
    let mut before = allocator::<Before310>(0);
    let blocks = [512; 8].map(|bytes| before.allocate(bytes));
    assert_eq!(before.source().place(blocks[6]), Some((0, HEADER + 6 * 512)));
    assert_eq!(before.source().place(blocks[7]), Some((0, 4096 + HEADER)), "7 blocks of 512 bytes fill 4 KiB");
    assert_eq!(before.statistics().arena_bytes, 256 << 10);

    let mut narrow = allocator::<Narrow>(0);
    let blocks = [8, 1, 9].map(|bytes| narrow.allocate(bytes));
    let places = blocks.map(|block| narrow.source().place(block).unwrap());
    assert_eq!(places, [(0, HEADER), (0, HEADER + 8), (0, 4096 + HEADER)]);
    narrow.check(Price::Full).unwrap();
}
