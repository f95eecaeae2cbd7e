//! Throughput: how long each phase takes, from clock reads at its marks and nowhere else.
//!
//! Invariant: between two marks nothing is read, noted or checked; while a window is awaited the clock stands still.

use super::{Heap, Pass};
use crate::probe::{clock, usage::Usage};
use crate::run::PhaseCost;
use trace::Phase;
use trace::image::ImageSummary;

/// Costs by phase, as they add up.
pub(crate) struct ThroughputPass {
    costs: [Cost; 4],
    phase: usize,
    since_ns: u64,
    since: Usage,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    begun: bool,
    wall_ns: u64,
    used: Usage,
}

impl ThroughputPass {
    /// The clock starts now, in `startup`.
    pub(crate) fn start() -> Self {
        let mut costs = [Cost::default(); 4];
        costs[0].begun = true;
        Self { costs, phase: 0, since: Usage::now(), since_ns: clock::now_ns() }
    }

    /// Costs of the phases that were reached.
    pub(crate) fn costs(&self, image: &ImageSummary) -> Vec<PhaseCost> {
        let calls = image.calls_by_phase;
        let reached = Phase::ALL.iter().zip(self.costs).zip(calls).filter(|((_, cost), _)| cost.begun);
        let cost = |((phase, cost), calls): ((&Phase, Cost), u64)| PhaseCost {
            phase: *phase,
            calls,
            wall_ns: cost.wall_ns,
            user_ns: cost.used.user_ns,
            system_ns: cost.used.system_ns,
            faults_minor: cost.used.faults_minor,
            faults_major: cost.used.faults_major,
        };
        reached.map(cost).collect()
    }
}

impl Pass for ThroughputPass {
    /// A phase never begins twice nor after a later one; the program's own marks are no phases.
    fn mark(&mut self, mark: u32, _op: u64, _heap: &mut Heap) -> bool {
        if let Some(phase) = Phase::from_mark(mark).map(|phase| phase as usize).filter(|phase| *phase > self.phase) {
            self.pause();
            self.phase = phase;
            self.costs[phase].begun = true;
            self.resume();
        }
        true
    }

    fn pause(&mut self) {
        let wall_ns = clock::now_ns() - self.since_ns;
        let used = Usage::now().since(self.since);
        let cost = &mut self.costs[self.phase];
        cost.wall_ns += wall_ns;
        cost.used.user_ns += used.user_ns;
        cost.used.system_ns += used.system_ns;
        cost.used.faults_minor += used.faults_minor;
        cost.used.faults_major += used.faults_major;
    }

    fn resume(&mut self) {
        self.since = Usage::now();
        self.since_ns = clock::now_ns();
    }

    fn finish(&mut self, _ops: u64, _heap: &mut Heap) {
        self.pause();
    }
}
