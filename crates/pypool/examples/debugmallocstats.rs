//! A burst of small objects, and what is left of it: one survivor in each arena keeps all of them mapped.
//!
//! Prints the report of `sys._debugmallocstats()` at the peak, after all but a few blocks have been freed, and after
//! those have gone as well, each with the occupancy of the arenas. Run it with
//! `cargo run -p pypool --example debugmallocstats`.

use pypool::{Allocator, LibcRaw, MappedArenas};

/// Blocks of 48 bytes, enough for a bit more than four arenas.
const BLOCKS: usize = 100_000;
/// One block in so many survives, the first from the middle of an arena: 64 pools of 340 blocks hold so many.
const SURVIVOR_EVERY: usize = 64 * 340;

fn main() {
    let mut pymalloc: Box<Allocator> = Box::new(Allocator::new(LibcRaw, MappedArenas));
    let burst: Vec<*mut u8> = (0..BLOCKS).map(|_| pymalloc.allocate(48)).collect();
    assert!(burst.iter().all(|block| !block.is_null()), "no memory for {BLOCKS} blocks of 48 bytes");
    show("at the peak", &pymalloc);

    let (mut survivors, mut freed) = (Vec::new(), Vec::new());
    for (index, block) in burst.into_iter().enumerate() {
        if index % SURVIVOR_EVERY == SURVIVOR_EVERY / 2 { &mut survivors } else { &mut freed }.push(block);
    }
    for block in freed {
        // SAFETY: live until here.
        unsafe { pymalloc.free(block) };
    }
    show(&format!("with {} survivors", survivors.len()), &pymalloc);

    for block in survivors {
        // SAFETY: live until here.
        unsafe { pymalloc.free(block) };
    }
    show("with none", &pymalloc);
}

/// The report, and how many pools of each arena are in use.
fn show(when: &str, pymalloc: &Allocator) {
    let statistics = pymalloc.statistics();
    println!("==== {when}\n{statistics}");
    for arena in pymalloc.occupancy() {
        let share = 100 * arena.pools_in_use / arena.pools_total;
        let (used, total) = (arena.pools_in_use, arena.pools_total);
        println!("arena {:#x}: {used:>2} of {total} pools in use, {share:>3} %", arena.address);
    }
    let mapped_bytes = statistics.arenas.mapped * statistics.arena_bytes;
    println!("{} bytes in blocks keep {mapped_bytes} bytes mapped\n", statistics.allocated_bytes);
}
