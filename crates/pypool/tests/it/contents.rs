//! What any allocator owes its caller: no overlap, alignment, contents that stay; and everything returned at the end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use pypool::{Before310, Current, Geometry, Price};

use crate::sources::{TestAllocator, Tiny, allocator};

#[derive(Debug, Clone, Copy)]
enum Step {
    Allocate(usize),
    AllocateZeroed(usize, usize),
    Reallocate(usize, usize),
    Free(usize),
}

/// A live block: where it is, how long, and the byte that fills it.
#[derive(Clone, Copy)]
struct Live {
    block: *mut u8,
    bytes: usize,
    fill: u8,
}

impl Live {
    fn write(&self) {
        // SAFETY: the block is live and `bytes` long.
        unsafe { self.block.write_bytes(self.fill, self.bytes) };
    }

    fn assert_filled(&self, bytes: usize) {
        // SAFETY: as above, and `bytes` is not more.
        let content = unsafe { std::slice::from_raw_parts(self.block, bytes) };
        assert!(content.iter().all(|&byte| byte == self.fill), "content of a live block has changed");
    }
}

fn assert_disjoint(ranges: &BTreeMap<usize, usize>, block: *mut u8, bytes: usize) {
    let (start, end) = (block.addr(), block.addr() + bytes.max(1));
    if let Some((before, length)) = ranges.range(..end).next_back() {
        assert!(before + length <= start, "a new block overlaps a live one");
    }
}

struct Model<G: Geometry> {
    pymalloc: Box<TestAllocator<G>>,
    live: Vec<Live>,
    ranges: BTreeMap<usize, usize>,
    fill: u8,
}

impl<G: Geometry> Model<G> {
    fn add(&mut self, block: *mut u8, bytes: usize) {
        assert!(!block.is_null());
        let alignment_bytes = if self.pymalloc.owns(block) { G::ALIGNMENT_BYTES } else { 8 };
        assert_eq!(block.addr() % alignment_bytes, 0);
        // SAFETY: live.
        if let Some(usable) = unsafe { self.pymalloc.usable_size(block) } {
            assert!(bytes <= usable && usable < bytes + G::ALIGNMENT_BYTES || usable * 3 < bytes * 4);
        }
        assert_disjoint(&self.ranges, block, bytes);
        self.ranges.insert(block.addr(), bytes.max(1));
        self.fill = self.fill.wrapping_add(1);
        let live = Live { block, bytes, fill: self.fill };
        live.write();
        self.live.push(live);
    }

    fn remove(&mut self, index: usize) -> Option<Live> {
        if self.live.is_empty() {
            return None;
        }
        let index = index % self.live.len();
        let live = self.live.swap_remove(index);
        live.assert_filled(live.bytes);
        self.ranges.remove(&live.block.addr());
        Some(live)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Allocate(bytes) => {
                let block = self.pymalloc.allocate(bytes);
                self.add(block, bytes);
            }
            Step::AllocateZeroed(count, element_bytes) => {
                let bytes = count * element_bytes;
                let block = self.pymalloc.allocate_zeroed(count, element_bytes);
                Live { block, bytes, fill: 0 }.assert_filled(bytes);
                self.add(block, bytes);
            }
            Step::Reallocate(index, bytes) => {
                let Some(old) = self.remove(index) else { return };
                // SAFETY: live until here.
                let block = unsafe { self.pymalloc.reallocate(old.block, bytes) };
                Live { block, ..old }.assert_filled(bytes.min(old.bytes));
                self.add(block, bytes);
            }
            Step::Free(index) => {
                let Some(old) = self.remove(index) else { return };
                // SAFETY: live until here.
                unsafe { self.pymalloc.free(old.block) };
            }
        }
    }

    fn assert_budget(&self) {
        let statistics = self.pymalloc.statistics();
        assert_eq!(statistics.total_bytes(), statistics.arenas.mapped * G::ARENA_BYTES);
        let blocks: usize = statistics.classes().iter().map(|row| row.blocks_in_use).sum();
        assert_eq!(blocks + statistics.raw_blocks as usize, self.live.len());
    }
}

fn keeps_its_promises<G: Geometry>(steps: &[Step], shift_bytes: usize) {
    let pymalloc = allocator::<G>(shift_bytes);
    let mut model = Model { pymalloc, live: Vec::new(), ranges: BTreeMap::new(), fill: 0 };
    for (index, &step) in steps.iter().enumerate() {
        model.step(step);
        if index % 64 == 0 {
            model.pymalloc.check(Price::Full).unwrap();
            model.assert_budget();
        }
    }
    while !model.live.is_empty() {
        model.step(Step::Free(model.live.len() / 2));
    }
    model.assert_budget();
    model.pymalloc.check(Price::Full).unwrap();
    assert!(model.pymalloc.source().mapped() <= 1, "at most the last arena stays");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![8 => 0_usize..=160, 4 => 0_usize..=520, 1 => 500_usize..5_000];
    let step = prop_oneof![
        8 => bytes.clone().prop_map(Step::Allocate),
        2 => (0_usize..20, 0_usize..40).prop_map(|(count, bytes)| Step::AllocateZeroed(count, bytes)),
        4 => (any::<usize>(), bytes).prop_map(|(index, bytes)| Step::Reallocate(index, bytes)),
        7 => any::<usize>().prop_map(Step::Free),
    ];
    prop::collection::vec(step, 1..1_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn tiny_arenas_keep_their_promises(steps in steps()) {
        keeps_its_promises::<Tiny>(&steps, 512);
    }

    #[test]
    fn cpythons_geometry_keeps_its_promises(steps in steps()) {
        keeps_its_promises::<Current>(&steps, 4096);
    }

    #[test]
    fn the_older_geometry_keeps_its_promises(steps in steps()) {
        keeps_its_promises::<Before310>(&steps, 0);
    }
}
