//! The address map against a list of arenas, at the places where a tree could go wrong.
//!
//! Only addresses are used, so the arenas may lie where no process could have one: at the borders of every level of
//! the tree, in the upper half of the address space, at its very end.

use proptest::prelude::*;

use super::AddressMap;
use crate::geometry::Geometry;
use crate::source::{LibcRaw, RawAllocator};
use crate::{Before310, Current};

/// Starts of what one leaf, one middle node and half the tree cover, and the last leaf; 0 as well.
const BORDERS: [usize; 6] = [0, 16 << 30, 1 << 47, 1 << 49, 1 << 63, usize::MAX - (16 << 30) + 1];

/// Gives so many nodes, then none.
struct Nodes(usize);

// SAFETY: delegates to the C library.
unsafe impl RawAllocator for Nodes {
    fn allocate(&mut self, _bytes: usize) -> *mut u8 {
        unreachable!("nodes are zeroed")
    }

    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        if self.0 == 0 {
            return std::ptr::null_mut();
        }
        self.0 -= 1;
        LibcRaw.allocate_zeroed(count, element_bytes)
    }

    unsafe fn reallocate(&mut self, _block: *mut u8, _bytes: usize) -> *mut u8 {
        unreachable!("nodes stay as they are")
    }

    unsafe fn free(&mut self, block: *mut u8) {
        // SAFETY: by contract.
        unsafe { LibcRaw.free(block) }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// An arena so many bytes behind (or before) a border; the map gets so many nodes at most.
    Mark {
        border: usize,
        offset_bytes: isize,
        nodes: usize,
    },
    Unmark(usize),
}

fn steps(arena_bytes: usize) -> impl Strategy<Value = Vec<Step>> {
    let arena_bytes = arena_bytes as isize;
    let misalignment = prop_oneof![Just(0), Just(4096), Just(arena_bytes - 4096), 0..arena_bytes];
    let offset_bytes = (-4_isize..4, misalignment).prop_map(move |(arenas, bytes)| arenas * arena_bytes + bytes);
    let nodes = prop_oneof![1 => 0_usize..4, 3 => Just(usize::MAX)];
    let mark = (0..BORDERS.len(), offset_bytes, nodes).prop_map(|(border, offset_bytes, nodes)| Step::Mark {
        border,
        offset_bytes,
        nodes,
    });
    prop::collection::vec(prop_oneof![3 => mark, 1 => any::<usize>().prop_map(Step::Unmark)], 1..40)
}

fn agrees<G: Geometry>(steps: &[Step]) {
    let mut map = Box::new(AddressMap::<G>::new());
    let mut arenas: Vec<usize> = Vec::new();
    let mut seen: Vec<usize> = vec![0, usize::MAX];
    for step in steps {
        match *step {
            Step::Mark { border, offset_bytes, nodes } => {
                let start = BORDERS[border].wrapping_add_signed(offset_bytes);
                // An arena may end with the address space, but not reach over its end.
                let fits = start.wrapping_add(G::ARENA_BYTES - 1) >= start;
                let apart = |&other: &usize| start.abs_diff(other) >= G::ARENA_BYTES;
                if fits && arenas.iter().all(apart) {
                    seen.extend([start, start.wrapping_add(G::ARENA_BYTES)]);
                    if map.mark(start, &mut Nodes(nodes)) {
                        arenas.push(start);
                    } else {
                        assert!(nodes < 4, "two leaves and their middle nodes are enough");
                    }
                }
            }
            Step::Unmark(index) if !arenas.is_empty() => map.unmark(arenas.swap_remove(index % arenas.len())),
            Step::Unmark(_) => {}
        }
        for &border in &seen {
            for address in [border.wrapping_sub(1), border, border.wrapping_add(G::ARENA_BYTES / 2)] {
                let expected = arenas.iter().any(|&start| address.wrapping_sub(start) < G::ARENA_BYTES);
                assert_eq!(map.finds(address), expected, "{address:#x}");
                assert_eq!(map.covers(address), expected, "{address:#x}, with the leaf that is remembered");
            }
        }
        assert!(map.remembers_rightly());
    }
    assert!(map.counts_nodes_rightly());
    map.clear(&mut LibcRaw);
    assert!(map.remembers_rightly() && map.counts_nodes_rightly() && !map.covers(arenas.first().copied().unwrap_or(0)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arenas_of_one_mebibyte_are_covered_exactly(steps in steps(Current::ARENA_BYTES)) {
        agrees::<Current>(&steps);
    }

    #[test]
    fn older_arenas_are_covered_exactly(steps in steps(Before310::ARENA_BYTES)) {
        agrees::<Before310>(&steps);
    }
}
