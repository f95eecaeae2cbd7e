//! What a worker reads of blocks with debug hooks.
//!
//! Invariant: pools, sizes and owners are those of the very child that was replayed.

use super::{Image, footprint};
use pyalloc_bench::run::Footprint;
use trace::image::OpKind;
use trace::{Domain, Phase};

#[test]
fn debug_hooks_take_24_bytes_of_every_block_from_the_allocator_below() {
    let mut image = Image::default();
    image.phase(Phase::Steady);
    for slot in 0..3_000 {
        // In pools; too large for them with the hooks' bytes; the C library's from the start.
        image.push(
            OpKind::Alloc,
            [Domain::Mem, Domain::Obj][slot as usize % 2],
            slot,
            [40, 500, 1_000][slot as usize % 3],
        );
    }
    image.phase(Phase::Drained);
    image.phase(Phase::Finalising);
    let plain = footprint("pool", &image);
    let hooked = footprint("pool-debug", &image);
    let on_malloc = footprint("malloc-debug", &image);
    let classes = |seen: &Footprint| -> Vec<(u64, u64)> {
        let classes = seen.pools.as_ref().unwrap().at_drained.as_ref().unwrap().classes.iter();
        classes.filter(|class| class.blocks_in_use > 0).map(|class| (class.block_bytes, class.blocks_in_use)).collect()
    };
    assert_eq!(classes(&plain), [(48, 1_000), (512, 1_000)]);
    assert_eq!(classes(&hooked), [(64, 1_000)]);
    assert!(on_malloc.pools.is_none());
    for seen in [&hooked, &on_malloc] {
        assert_eq!((seen.end.usable_bytes, seen.end.requested_bytes), (1_540_000, 1_540_000));
    }
    // What is on the C library is in its heap, whatever lies between.
    let own = |seen: &Footprint, small: bool| -> Vec<String> {
        let owned = seen.owners[0].owned.iter().filter(|owned| owned.small == small && owned.blocks > 0);
        owned.map(|owned| owned.allocator.clone()).collect()
    };
    assert_eq!(
        (own(&hooked, true), own(&hooked, false)),
        (vec!["pool-debug".to_owned(); 2], vec!["system".to_owned(); 2])
    );
    assert_eq!(own(&on_malloc, true), ["system", "system"]);
}
