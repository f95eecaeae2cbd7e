//! Which child runs when: every configuration of every workload once per block, in an order that the seed shuffles.
//!
//! Invariant: the same seed and sizes give the same plan; within a pass every contestant of a workload runs equally
//! often, and a block holds all of them, so that drift of the machine hits all alike.

use crate::run::{Pass, PlanFacts};

/// How often each pass repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Throughput blocks; below 6 readers give a range instead of an interval.
    pub blocks: u32,
    /// Latency runs per cell.
    pub latency_runs: u32,
    /// Footprint runs per cell.
    pub footprint_runs: u32,
}

impl Sizes {
    /// The default run.
    pub const DEFAULT: Self = Self { blocks: 12, latency_runs: 1, footprint_runs: 1 };
    /// `--quick`: a first look, not a verdict.
    pub const QUICK: Self = Self { blocks: 3, latency_runs: 1, footprint_runs: 1 };

    /// Those that a result's plan states.
    #[must_use]
    pub const fn planned(plan: &PlanFacts) -> Self {
        Self { blocks: plan.blocks, latency_runs: plan.latency_runs, footprint_runs: plan.footprint_runs }
    }

    /// Repetitions of a pass.
    #[must_use]
    pub const fn of(&self, pass: Pass) -> u32 {
        match pass {
            Pass::Throughput => self.blocks,
            Pass::Latency => self.latency_runs,
            Pass::Footprint => self.footprint_runs,
        }
    }
}

/// The passes in the order in which they run: what needs a quiet machine first.
pub(super) const PASSES: [Pass; 3] = [Pass::Throughput, Pass::Latency, Pass::Footprint];

/// Largest random padding of a child's environment, bytes: two OS pages shift the stack by every offset in a page.
pub(super) const PADDING_BYTES_MAX: u32 = 8192;

/// One child to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Index of the workload.
    pub workload: usize,
    /// Index of the configuration.
    pub config: usize,
    /// What to measure.
    pub pass: Pass,
    /// Repetition within the pass, from 0.
    pub block: u32,
    /// Random padding of the child's environment, 0 to `PADDING_BYTES_MAX` bytes.
    pub padding_bytes: u32,
}

/// Every child in order. `floors[i]` says whether configuration `i` belongs to the floor, which only the throughput
/// pass needs.
#[must_use]
pub fn plan(seed: u64, workloads: usize, floors: &[bool], sizes: Sizes) -> Vec<Cell> {
    let mut random = SplitMix(seed);
    let mut cells = Vec::new();
    for pass in PASSES {
        for block in 0..sizes.of(pass) {
            let mut one_block: Vec<Cell> = (0..workloads)
                .flat_map(|workload| (0..floors.len()).map(move |config| (workload, config)))
                .filter(|(_, config)| pass == Pass::Throughput || !floors[*config])
                .map(|(workload, config)| Cell { workload, config, pass, block, padding_bytes: 0 })
                .collect();
            random.shuffle(&mut one_block);
            for cell in &mut one_block {
                cell.padding_bytes = random.below(u64::from(PADDING_BYTES_MAX) + 1) as u32;
            }
            cells.append(&mut one_block);
        }
    }
    cells
}

/// Steele, Lea and Flood's generator: tiny, and good enough to shuffle.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is above 0 and so small that the bias does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const FLOORS: [bool; 6] = [false, false, false, false, true, true];
    const SIZES: Sizes = Sizes { blocks: 12, latency_runs: 2, footprint_runs: 1 };

    #[test]
    fn every_block_holds_every_cell_once() {
        let mut blocks: BTreeMap<(Pass, u32), Vec<(usize, usize)>> = BTreeMap::new();
        for cell in plan(7, 3, &FLOORS, SIZES) {
            blocks.entry((cell.pass, cell.block)).or_default().push((cell.workload, cell.config));
        }
        assert_eq!(blocks.len(), 15);
        for ((pass, _), mut cells) in blocks {
            cells.sort_unstable();
            let configs = if pass == Pass::Throughput { 6 } else { 4 };
            let expected: Vec<_> = (0..3).flat_map(|w| (0..configs).map(move |c| (w, c))).collect();
            assert_eq!(cells, expected);
        }
    }

    #[test]
    fn blocks_are_not_interleaved_with_each_other() {
        let cells = plan(7, 3, &FLOORS, SIZES);
        let order: Vec<_> = cells.iter().map(|c| (PASSES.iter().position(|p| *p == c.pass), c.block)).collect();
        assert!(order.is_sorted());
    }

    #[test]
    fn the_seed_decides_the_order() {
        let one = plan(1, 3, &FLOORS, SIZES);
        assert_eq!(one, plan(1, 3, &FLOORS, SIZES));
        assert_ne!(one, plan(2, 3, &FLOORS, SIZES));
        let first: Vec<_> = one[..18].iter().map(|c| (c.workload, c.config)).collect();
        let second: Vec<_> = one[18..36].iter().map(|c| (c.workload, c.config)).collect();
        assert_ne!(first, second, "blocks are shuffled one by one");
    }

    #[test]
    fn no_configuration_is_favoured_by_its_place() {
        let mut first = [0u32; 6];
        for seed in 0..600 {
            first[plan(seed, 1, &FLOORS, Sizes { blocks: 1, ..SIZES })[0].config] += 1;
        }
        // 100 expected each, standard deviation 9.1.
        assert!(first.iter().all(|n| (55..=145).contains(n)), "{first:?}");
    }

    #[test]
    fn padding_covers_its_range() {
        let paddings: Vec<u32> = plan(3, 5, &FLOORS, SIZES).iter().map(|c| c.padding_bytes).collect();
        assert!(paddings.iter().all(|p| *p <= PADDING_BYTES_MAX));
        assert!(paddings.iter().any(|p| *p < 2048) && paddings.iter().any(|p| *p > 6144));
    }
}
