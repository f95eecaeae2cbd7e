//! Memory runs out at each single step at which it can, and nothing is half done afterwards.

use std::cell::Cell;
use std::ptr;

use pypool::{Allocator, ArenaSource, Current, Geometry, LibcRaw, Price, RawAllocator};

use crate::sources::{TestAllocator, allocator};

/// Address space that one leaf of the address map covers.
const LEAF_SPAN_BYTES: usize = 16 << 30;
const BLOCKS_PER_ARENA: usize = 64 * 31;

/// A first small request with memory for so many requests to the raw allocator: its block, if there is any.
fn first_request(raw_requests: usize) -> (Box<TestAllocator<Current>>, *mut u8) {
    let mut pymalloc = allocator::<Current>(0);
    pymalloc.raw().patience.set(raw_requests);
    let block = pymalloc.allocate(8);
    pymalloc.check(Price::Full).unwrap();
    (pymalloc, block)
}

#[test]
fn the_first_arena_needs_three_tables() {
    // Descriptors, middle node, leaf; without one of them the raw allocator is asked for the block itself, and refuses.
    for (raw_requests, arenas_tried) in [(0, 0), (1, 1), (2, 1)] {
        let (mut pymalloc, block) = first_request(raw_requests);
        assert!(block.is_null());
        assert_eq!(pymalloc.source().released.len(), arenas_tried, "an arena that cannot be marked goes back at once");
        assert_eq!(pymalloc.source().mapped(), 0);
        assert_eq!(pymalloc.statistics().raw_blocks, 0);

        pymalloc.raw().patience.set(usize::MAX);
        let block = pymalloc.allocate(8);
        assert!(pymalloc.owns(block), "with memory again it serves from its first arena");
        pymalloc.check(Price::Full).unwrap();
    }
    let (pymalloc, block) = first_request(3);
    assert_eq!(pymalloc.source().place(block), Some((0, 48)));
}

#[test]
fn a_table_that_is_missing_sends_the_request_to_the_raw_allocator() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks: Vec<_> = (0..16 * BLOCKS_PER_ARENA).map(|_| pymalloc.allocate(512)).collect();
    assert_eq!(pymalloc.source().mapped(), 16);
    // The 17th arena needs a longer vector of descriptors.
    pymalloc.raw().patience.set(0);
    assert!(pymalloc.allocate(512).is_null());
    assert!(pymalloc.allocate_zeroed(1, 512).is_null());
    // SAFETY: live. It has to move, and there is nowhere to.
    assert!(unsafe { pymalloc.reallocate(blocks[0], 8) }.is_null());
    pymalloc.check(Price::Full).unwrap();
    assert_eq!(pymalloc.statistics().arenas.mapped, 16);
    for block in blocks {
        // SAFETY: live: what could not be moved is still there.
        unsafe { pymalloc.free(block) };
    }
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn a_block_that_cannot_move_stays_as_it_is() {
    let mut pymalloc = allocator::<Current>(0);
    let (small, big) = (pymalloc.allocate(64), pymalloc.allocate(600));
    // SAFETY: live.
    unsafe {
        small.write_bytes(0x5A, 64);
        big.write_bytes(0xA5, 600);
    }
    pymalloc.raw().patience.set(0);
    pymalloc.source().patience.set(0);
    for bytes in [0, 513, isize::MAX as usize, isize::MAX as usize + 1, usize::MAX] {
        // SAFETY: live, since no call succeeds.
        let moved = unsafe { [pymalloc.reallocate(small, bytes), pymalloc.reallocate(big, bytes.max(601))] };
        assert_eq!(moved, [ptr::null_mut(); 2], "{bytes} bytes");
    }
    // SAFETY: live.
    unsafe {
        assert_eq!(std::slice::from_raw_parts(small, 64), [0x5A; 64]);
        assert_eq!(std::slice::from_raw_parts(big, 600), [0xA5; 600]);
        pymalloc.free(small);
        pymalloc.free(big);
    }
    assert_eq!(pymalloc.statistics().raw_blocks, 0);
}

/// One arena across the border between two leaves of the address map.
struct AcrossLeaves {
    reserved: *mut u8,
    mapped: Cell<bool>,
}

impl AcrossLeaves {
    const RESERVED_BYTES: usize = LEAF_SPAN_BYTES + 4 * Current::ARENA_BYTES;

    fn new() -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an inaccessible anonymous mapping at an address of the kernel's choice touches nothing.
        let reserved = unsafe { libc::mmap(ptr::null_mut(), Self::RESERVED_BYTES, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(reserved, libc::MAP_FAILED, "no address space for the test's arena");
        Self { reserved: reserved.cast(), mapped: Cell::new(false) }
    }

    /// The first border in the reserved range that has room on both sides.
    fn border(&self) -> *mut u8 {
        let inside = self.reserved.wrapping_add(2 * Current::ARENA_BYTES);
        inside.wrapping_add(inside.addr().wrapping_neg() % LEAF_SPAN_BYTES)
    }
}

impl Drop for AcrossLeaves {
    fn drop(&mut self) {
        assert!(!self.mapped.get() || std::thread::panicking());
        // SAFETY: the allocator that used the arena is gone.
        unsafe { libc::munmap(self.reserved.cast(), Self::RESERVED_BYTES) };
    }
}

// SAFETY: one arena at a time, inside the reserved range.
unsafe impl ArenaSource for AcrossLeaves {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        if self.mapped.replace(true) {
            return ptr::null_mut();
        }
        let arena = self.border().wrapping_sub(bytes / 2 + 4096);
        // SAFETY: the range lies in the reserved mapping.
        let code = unsafe { libc::mprotect(arena.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(code, 0);
        arena
    }

    unsafe fn unmap(&mut self, _arena: *mut u8, _bytes: usize) {
        self.mapped.set(false);
    }
}

/// Serves so many requests for tables; blocks have none.
struct FewTables(Cell<usize>);

// SAFETY: delegates to the C library.
unsafe impl RawAllocator for FewTables {
    fn allocate(&mut self, bytes: usize) -> *mut u8 {
        // The descriptors are the only table that need not be zeroed, and larger than any block of this test.
        if bytes <= Current::SMALL_BYTES_MAX { ptr::null_mut() } else { LibcRaw.allocate(bytes) }
    }

    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        if self.0.get() == 0 {
            return ptr::null_mut();
        }
        self.0.set(self.0.get() - 1);
        LibcRaw.allocate_zeroed(count, element_bytes)
    }

    unsafe fn reallocate(&mut self, _block: *mut u8, _bytes: usize) -> *mut u8 {
        unreachable!("one vector of descriptors is enough")
    }

    unsafe fn free(&mut self, block: *mut u8) {
        // SAFETY: by contract.
        unsafe { LibcRaw.free(block) }
    }
}

#[test]
fn an_arena_across_two_leaves_needs_both() {
    let source = AcrossLeaves::new();
    let border = source.border();
    let mut pymalloc: Box<Allocator<_, _, Current>> = Box::new(Allocator::new(FewTables(Cell::new(2)), source));
    assert!(pymalloc.allocate(8).is_null(), "there is a leaf for the first half only");
    assert!(!pymalloc.source().mapped.get() && !pymalloc.owns(border) && !pymalloc.owns(border.wrapping_sub(1)));
    pymalloc.check(Price::Full).unwrap();

    pymalloc.raw().0.set(1);
    let blocks: Vec<_> = (0..63 * 31).map(|_| pymalloc.allocate(512)).collect();
    assert!(blocks.iter().any(|&block| block < border) && blocks.iter().any(|&block| block > border));
    assert!(blocks.iter().all(|&block| pymalloc.owns(block)));
    assert_eq!(pymalloc.statistics().map.leaf_nodes, 2);
    pymalloc.check(Price::Full).unwrap();
    assert!(pymalloc.allocate(512).is_null(), "that was the only arena");
    for block in blocks {
        // SAFETY: live.
        unsafe { pymalloc.free(block) };
    }
    pymalloc.check(Price::Full).unwrap();
}

#[test]
fn any_address_may_be_asked_about() {
    let mut pymalloc = allocator::<Current>(4096);
    let block = pymalloc.allocate(8);
    for _ in 0..2 {
        for address in [0, 1, 4096, 1 << 47, 1 << 63, usize::MAX, usize::MAX - (1 << 20)] {
            let foreign = ptr::without_provenance_mut(address);
            assert!(!pymalloc.owns(foreign), "{address:#x}");
            // SAFETY: it lies in no arena.
            assert_eq!(unsafe { pymalloc.usable_size(foreign) }, None);
        }
        let local = 0_u8;
        assert!(!pymalloc.owns(&local) && pymalloc.owns(block));
    }
}
