//! What each policy of the tuned allocator does, seen from outside: addresses, statistics and resident memory.
//!
//! **Invariant:** every test would fail without the policy that it is about.

use pypool::{LibcRaw, Price, RawAllocator, Tuned, policy};

const POOL_BYTES: usize = 16 << 10;

fn tuned<const POLICIES: u32>() -> Box<Tuned<LibcRaw, POLICIES>> {
    Box::new(Tuned::with_room(LibcRaw, 64 << 20))
}

fn blocks<R: RawAllocator, const POLICIES: u32>(
    pool: &mut Tuned<R, POLICIES>,
    bytes: usize,
    count: usize,
) -> Vec<*mut u8> {
    (0..count).map(|_| pool.allocate(bytes)).collect()
}

fn free<R: RawAllocator, const POLICIES: u32>(pool: &mut Tuned<R, POLICIES>, blocks: Vec<*mut u8>) {
    // SAFETY: callers pass live blocks of this allocator and give them up.
    blocks.into_iter().for_each(|block| unsafe { pool.free(block) });
}

/// OS pages of a range of addresses that are present.
fn present_pages(start: *mut u8, bytes: usize) -> usize {
    let mut pages = vec![0_u8; bytes / 4096];
    // SAFETY: a mapped range, aligned to an OS page, and an entry for each of its pages.
    let code = unsafe { libc::mincore(start.cast(), bytes, pages.as_mut_ptr()) };
    assert_eq!(code, 0);
    pages.iter().filter(|page| **page & 1 != 0).count()
}

#[test]
fn packed_headers_leave_a_pool_to_its_blocks() {
    let mut pool = tuned::<{ policy::ALL }>();
    let first = pool.allocate(16);
    assert!(first.addr().is_multiple_of(POOL_BYTES));
    let more = blocks(&mut pool, 16, POOL_BYTES / 16 - 1);
    assert_eq!(more.last().unwrap().addr() - first.addr(), POOL_BYTES - 16);
    let mut plain = tuned::<{ policy::ALL & !policy::PACKED }>();
    assert_eq!(plain.allocate(16).addr() % POOL_BYTES, 32);
}

#[test]
fn blocks_are_handed_out_in_the_order_of_pymalloc() {
    let mut pool = tuned::<{ policy::ALL }>();
    let all = blocks(&mut pool, 48, 200);
    assert!(all.windows(2).all(|pair| pair[1].addr() - pair[0].addr() == 48), "virgin blocks come in address order");
    // SAFETY: live.
    unsafe { pool.free(all[3]) };
    // SAFETY: live.
    unsafe { pool.free(all[7]) };
    assert_eq!((pool.allocate(48), pool.allocate(48)), (all[7], all[3]), "the block freed last comes first");
}

#[test]
fn batches_do_not_touch_the_next_os_page() {
    let mut pool = tuned::<{ policy::ALL }>();
    let first = pool.allocate(48);
    // Blocks 0 to 84 end on the first page; the 86th, which begins on it, ends on the second.
    let _ = blocks(&mut pool, 48, 84);
    assert_eq!(present_pages(first, POOL_BYTES), 1);
    let _ = pool.allocate(48);
    assert_eq!(present_pages(first, POOL_BYTES), 2);
}

#[test]
fn the_last_pool_of_a_class_lingers() {
    let pools_in_use = |with_linger: bool| {
        let (mut lingering, mut retiring) = (tuned::<{ policy::ALL }>(), tuned::<{ policy::ALL & !policy::LINGER }>());
        let block = lingering.allocate(100);
        // SAFETY: live.
        unsafe { lingering.free(block) };
        let block = retiring.allocate(100);
        // SAFETY: live.
        unsafe { retiring.free(block) };
        let statistics = if with_linger { lingering.statistics() } else { retiring.statistics() };
        statistics.classes().iter().map(|row| row.pools).sum::<usize>()
    };
    assert_eq!((pools_in_use(true), pools_in_use(false)), (1, 0));
}

#[test]
fn a_lingering_pool_serves_another_class_before_memory_is_taken() {
    let mut pool = tuned::<{ policy::ALL }>();
    let block = pool.allocate(100);
    // SAFETY: live.
    unsafe { pool.free(block) };
    assert_eq!(pool.allocate(48), block, "the same pool, of another class");
    assert_eq!(pool.statistics().unused_pools, 63);
    pool.check(Price::Full).unwrap();
}

#[test]
fn empty_pools_go_back_to_the_kernel_though_their_arenas_stay() {
    let mut pool = tuned::<{ policy::ALL }>();
    // Four arenas; one block of each pool's worth survives in the last arena alone.
    let mut all = blocks(&mut pool, 512, 4 * 64 * 32);
    let first = all[0];
    let last = all.pop().unwrap();
    assert_eq!(present_pages(first, 4 << 20), 1024);
    free(&mut pool, all);
    pool.check(Price::Full).unwrap();
    let kept = present_pages(first, 4 << 20);
    assert!(kept <= 33 * 4, "at most 512 KiB of empty pools stay, and the pool of the survivor: {kept} pages");
    assert!(kept > 4, "some are kept for the next request");
    pool.release();
    assert_eq!(present_pages(first, 4 << 20), 4);
    // What was given back serves again, before any virgin pool.
    let arenas = pool.statistics().arenas.mapped;
    let again = blocks(&mut pool, 512, 4 * 64 * 32 - 1);
    assert_eq!(pool.statistics().arenas.mapped, arenas);
    free(&mut pool, again);
    free(&mut pool, vec![last]);
    pool.check(Price::Full).unwrap();
}

#[test]
fn without_purge_a_wholly_free_arena_goes_and_a_pinned_one_stays() {
    let mut pool = tuned::<{ policy::ALL & !policy::PURGE }>();
    let all = blocks(&mut pool, 512, 4 * 64 * 32);
    let first = all[0];
    let (arenas, mut pinned) = (all.chunks(64 * 32).map(<[_]>::to_vec).collect::<Vec<_>>(), Vec::new());
    for mut arena in arenas.into_iter().take(3) {
        pinned.push(arena.pop().unwrap());
        free(&mut pool, arena);
    }
    assert_eq!(present_pages(first, 3 << 20), 768, "one block pins an arena");
    free(&mut pool, pinned);
    assert!(present_pages(first, 3 << 20) < 768, "wholly free arenas go");
    pool.check(Price::Full).unwrap();
}

#[test]
fn a_pool_of_a_growing_class_comes_with_all_its_pages() {
    let present = |pool: &mut Tuned<LibcRaw, { policy::ALL }>, full_pools: usize| {
        let _ = blocks(pool, 256, full_pools * 64);
        let next = pool.allocate(256);
        present_pages(next, POOL_BYTES)
    };
    assert_eq!(present(&mut tuned(), 31), 1, "31 full pools do not make it grow");
    let grown = present(&mut tuned(), 32);
    // A kernel before 5.14 cannot populate.
    assert!(grown == 4 || !populates(), "{grown} pages of the 33rd pool");
}

/// Whether this kernel knows `MADV_POPULATE_WRITE`.
fn populates() -> bool {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping of its own, which is left to the process.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0);
        libc::madvise(page, 4096, libc::MADV_POPULATE_WRITE) == 0
    }
}

#[test]
fn wide_requests_come_from_pools_and_others_do_not() {
    let (mut wide, mut small) = (tuned::<{ policy::ALL }>(), tuned::<{ policy::ALL & !policy::WIDE }>());
    for (bytes, usable) in [(1, 16), (512, 512), (513, 640), (640, 640), (641, 768), (2048, 2048)] {
        if bytes > 512 {
            let few = blocks(&mut wide, bytes, 256);
            let is_first_of_class = bytes != 640;
            assert!(!is_first_of_class || few.iter().all(|block| !wide.owns(*block)), "seldom asked: {bytes}");
            free(&mut wide, few);
        }
        let block = wide.allocate(bytes);
        // SAFETY: live.
        assert_eq!(unsafe { wide.usable_size(block) }, Some(usable), "{bytes}");
    }
    for bytes in [0, 2049] {
        let block = wide.allocate(bytes);
        assert!(!wide.owns(block), "{bytes}");
        free(&mut wide, vec![block]);
    }
    let block = small.allocate(513);
    assert!(!small.owns(block));
    free(&mut small, vec![block]);
}

#[test]
fn without_room_the_raw_allocator_serves() {
    let mut pool: Box<Tuned> = Box::new(Tuned::with_room(LibcRaw, 1 << 20));
    let all = blocks(&mut pool, 512, 64 * 32 + 10);
    assert!(all.iter().all(|block| !block.is_null()));
    assert_eq!(all.iter().filter(|block| !pool.owns(**block)).count(), 10);
    assert_eq!(pool.statistics().raw_blocks, 10);
    free(&mut pool, all);
    assert_eq!(pool.statistics().raw_blocks, 0);
}

#[test]
fn the_byte_budget_adds_up_and_occupancy_tells_of_each_arena() {
    let mut pool = tuned::<{ policy::ALL }>();
    let all: Vec<*mut u8> = (0..20_000).map(|place| pool.allocate(place % 2048 + 1)).collect();
    let statistics = pool.statistics();
    assert_eq!(statistics.total_bytes(), statistics.arenas.mapped << 20);
    let in_use: u32 = pool.occupancy().map(|arena| arena.pools_in_use).sum();
    assert_eq!(in_use as usize, statistics.classes().iter().map(|row| row.pools).sum::<usize>());
    assert_eq!(pool.occupancy().count(), statistics.arenas.mapped);
    free(&mut pool, all);
}

#[test]
fn damage_is_found() {
    let damaged = |damage: fn(&mut Tuned<LibcRaw, { policy::ALL }>, &[*mut u8])| {
        let mut pool = tuned::<{ policy::ALL }>();
        let all = blocks(&mut pool, 48, 1_000);
        damage(&mut pool, &all);
        pool.check(Price::Full).unwrap_err().invariant
    };
    // SAFETY: in all of these, what is wrong with them is what the test is about; the pools are dropped afterwards.
    let twice = damaged(|pool, all| unsafe {
        pool.free(all[5]);
        pool.free(all[5]);
    });
    assert_eq!(twice, "a free list ends");
    // SAFETY: as above.
    let overwritten = damaged(|pool, all| unsafe {
        pool.free(all[5]);
        all[4].add(48).cast::<usize>().write(0x7878_7878);
    });
    assert_eq!(overwritten, "a free list links carved blocks of its pool");
    // SAFETY: as above.
    let inside = damaged(|pool, all| unsafe { pool.free(all[5].add(16)) });
    assert_eq!(inside, "a free list links carved blocks of its pool");
}
