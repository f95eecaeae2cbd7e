//! The byte budget, the text report, and that damage is found.

use pypool::{Current, Price};

use crate::sources::allocator;

/// Worked out by hand from the sizes of pool, header and block; the layout is that of `sys._debugmallocstats()`.
const REPORT: &str = "\
Small block threshold = 512, in 32 size classes.

class   size   num pools   blocks in use  avail blocks
-----   ----   ---------   -------------  ------------
    0     16           1               1          1020
    3     64           2             256           254

# arenas allocated total           =                    1
# arenas reclaimed                 =                    0
# arenas highwater mark            =                    1
# arenas allocated current         =                    1
1 arenas * 1048576 bytes/arena     =            1,048,576

# bytes in allocated blocks        =               16,400
# bytes in available blocks        =               32,576
60 unused pools * 16384 bytes      =              983,040
# bytes lost to pool headers       =                  144
# bytes lost to quantization       =                   32
# bytes lost to arena alignment    =               16,384
Total                              =            1,048,576

arena map counts
# arena map mid nodes              =                    1
# arena map bot nodes              =                    1

# bytes lost to arena map root     =              262,144
# bytes lost to arena map mid      =              262,144
# bytes lost to arena map bot      =              131,072
Total                              =              655,360
";

#[test]
fn the_report_reads_as_cpythons() {
    let mut pymalloc = allocator::<Current>(4096);
    pymalloc.allocate(1);
    (0..256).for_each(|_| assert!(!pymalloc.allocate(60).is_null()));
    let emptied = pymalloc.allocate(300);
    // SAFETY: live.
    unsafe { pymalloc.free(emptied) };
    assert_eq!(pymalloc.statistics().to_string(), REPORT);
}

#[test]
fn occupancy_names_each_arena() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks: Vec<_> = (0..65 * 31).map(|_| pymalloc.allocate(512)).collect();
    // SAFETY: live.
    blocks[..31].iter().for_each(|&block| unsafe { pymalloc.free(block) });
    let rows: Vec<_> = pymalloc.occupancy().map(|row| (row.pools_total, row.pools_in_use, row.pools_carved)).collect();
    assert_eq!(rows, [(64, 63, 64), (64, 1, 1)]);
}

#[test]
fn damage_is_found_at_the_price_that_pays_for_it() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks = [40; 3].map(|bytes| pymalloc.allocate(bytes));
    // SAFETY: live.
    unsafe { pymalloc.free(blocks[1]) };
    assert_eq!(pymalloc.check(Price::Full), Ok(()));
    // SAFETY: a deliberate write into a freed block: its link now leads eight bytes beside a block.
    unsafe { blocks[1].cast::<*mut u8>().write(blocks[0].wrapping_add(8)) };
    assert_eq!(pymalloc.check(Price::None), Ok(()));
    assert_eq!(pymalloc.check(Price::Cheap), Ok(()));
    let violation = pymalloc.check(Price::Full).unwrap_err();
    assert_eq!(violation.invariant, "a free block starts where a block starts");
    assert_eq!(violation.address, blocks[0].addr() + 8);
    assert!(violation.to_string().contains("double free"));
}

#[test]
fn a_double_free_is_found() {
    let mut pymalloc = allocator::<Current>(0);
    let blocks = [40; 3].map(|bytes| pymalloc.allocate(bytes));
    // SAFETY: a deliberate double free; the block's memory stays mapped.
    unsafe {
        pymalloc.free(blocks[1]);
        pymalloc.free(blocks[1]);
    }
    assert_eq!(pymalloc.check(Price::Full).unwrap_err().invariant, "the free list has no loop");
}

#[test]
fn dropping_returns_everything() {
    use pypool::{Allocator, ArenaSource, MappedArenas, RawAllocator};
    use std::cell::Cell;

    struct Tally<'a>(&'a Cell<isize>);
    // SAFETY: delegates to the kernel.
    unsafe impl ArenaSource for Tally<'_> {
        fn map(&mut self, bytes: usize) -> *mut u8 {
            self.0.set(self.0.get() + 1);
            MappedArenas.map(bytes)
        }
        unsafe fn unmap(&mut self, arena: *mut u8, bytes: usize) {
            self.0.set(self.0.get() - 1);
            // SAFETY: by contract.
            unsafe { MappedArenas.unmap(arena, bytes) }
        }
    }
    // SAFETY: delegates to the C library.
    unsafe impl RawAllocator for Tally<'_> {
        fn allocate(&mut self, bytes: usize) -> *mut u8 {
            self.0.set(self.0.get() + 1);
            pypool::LibcRaw.allocate(bytes)
        }
        fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
            self.0.set(self.0.get() + 1);
            pypool::LibcRaw.allocate_zeroed(count, element_bytes)
        }
        unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
            // SAFETY: by contract.
            unsafe { pypool::LibcRaw.reallocate(block, bytes) }
        }
        unsafe fn free(&mut self, block: *mut u8) {
            self.0.set(self.0.get() - 1);
            // SAFETY: by contract.
            unsafe { pypool::LibcRaw.free(block) }
        }
    }

    let (raw, arenas) = (Cell::new(0), Cell::new(0));
    let mut pymalloc: Box<Allocator<_, _, Current>> = Box::new(Allocator::new(Tally(&raw), Tally(&arenas)));
    (0..5_000).for_each(|_| assert!(!pymalloc.allocate(512).is_null()));
    // The descriptors' table, and nodes of the map: how many leaves depends on where the kernel put the arenas.
    let nodes = pymalloc.statistics().map;
    assert_eq!((raw.get(), arenas.get()), ((1 + nodes.middle_nodes + nodes.leaf_nodes) as isize, 3));
    drop(pymalloc);
    assert_eq!((raw.get(), arenas.get()), (0, 0));
}
