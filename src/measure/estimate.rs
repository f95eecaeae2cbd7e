//! How long a run will take: from one pilot child per workload, then from what the run has taken so far.
//!
//! Invariant: an estimate only; it decides nothing about what is measured.

use super::plan::Cell;
use super::{Pass, Prepared};
use crate::run::Outcome;
use std::time::Duration;

/// A pilot that failed says nothing; this is what its workload's children are then taken to cost.
const UNKNOWN_NS: f64 = 1e9;
/// Share of the expected work that must be done before the pace so far counts.
const PACE_FROM: f64 = 0.05;

/// Costs of a child relative to the pilot's, as measured on the bundled workloads.
const FLOOR_COST: f64 = 0.6;
const LATENCY_COST: f64 = 2.0;
const FOOTPRINT_COST: f64 = 1.5;

/// Expected and real cost of a run.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    pilot_ns: Vec<f64>,
    floors: Vec<bool>,
    expected_ns: f64,
    done_ns: f64,
    /// Footprint children idle side by side, so that their idle time counts once.
    idle_ns: f64,
    pace: f64,
}

impl Estimate {
    /// Runs one throughput child per workload. It is not kept: it also warms the page cache.
    pub(super) fn by_pilot(prepared: &Prepared, cells: &[Cell]) -> Self {
        let config = prepared.configs.iter().position(|config| !config.floor).unwrap_or(0);
        let pilot = |workload| {
            let cell = Cell { workload, config, pass: Pass::Throughput, block: 0, padding_bytes: 0 };
            let measured = prepared.measure(&cell);
            if matches!(measured.outcome, Outcome::Ok(_)) { measured.wall_ns as f64 } else { UNKNOWN_NS }
        };
        let pilot_ns = (0..prepared.images.len()).map(pilot).collect();
        Self::new(pilot_ns, prepared.floors(), cells, prepared.idle().as_millis() as u64)
    }

    fn new(pilot_ns: Vec<f64>, floors: Vec<bool>, cells: &[Cell], idle_ms: u64) -> Self {
        let idles = cells.iter().any(|cell| cell.pass == Pass::Footprint);
        let idle_ns = if idles { idle_ms as f64 * 1e6 } else { 0.0 };
        let mut estimate = Self { pilot_ns, floors, expected_ns: 0.0, done_ns: 0.0, idle_ns, pace: 1.0 };
        estimate.expected_ns = cells.iter().map(|cell| estimate.cost_ns(cell)).sum();
        estimate
    }

    fn cost_ns(&self, cell: &Cell) -> f64 {
        let relative = match cell.pass {
            Pass::Throughput if self.floors[cell.config] => FLOOR_COST,
            Pass::Throughput => 1.0,
            Pass::Latency => LATENCY_COST,
            Pass::Footprint => FOOTPRINT_COST,
        };
        relative * self.pilot_ns[cell.workload]
    }

    /// All of it.
    pub(super) fn total(&self) -> Duration {
        Duration::from_nanos((self.expected_ns + self.idle_ns) as u64)
    }

    /// A child has ended, `elapsed` after the first was started.
    pub(super) fn finished(&mut self, cell: &Cell, elapsed: Duration) {
        self.done_ns += self.cost_ns(cell);
        // While footprint children idle, time passes without work; the pace stays what the timed passes set.
        if cell.pass != Pass::Footprint && self.done_ns >= PACE_FROM * self.expected_ns {
            self.pace = elapsed.as_nanos() as f64 / self.done_ns;
        }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        let work = (self.expected_ns - self.done_ns).max(0.0) * self.pace;
        let idle = if self.done_ns < self.expected_ns * (1.0 - 1e-9) { self.idle_ns } else { 0.0 };
        Duration::from_nanos((work + idle) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(workload: usize, config: usize, pass: Pass) -> Cell {
        Cell { workload, config, pass, block: 0, padding_bytes: 0 }
    }

    #[test]
    fn the_total_adds_up_and_the_rest_follows_the_pace() {
        let cells = [
            cell(0, 0, Pass::Throughput),
            cell(1, 0, Pass::Throughput),
            cell(1, 1, Pass::Throughput),
            cell(0, 0, Pass::Footprint),
        ];
        let mut estimate = Estimate::new(vec![1e9, 2e9], vec![false, true], &cells, 10_000);
        // 1 + 2 + 1.2 + 1.5 seconds of work and 10 of idling.
        assert_eq!(estimate.total().as_millis(), 15_700);
        estimate.finished(&cells[0], Duration::from_secs(2)); // twice as slow as the pilot
        assert_eq!(estimate.left().as_millis(), 19_400);
        for done in &cells[1..] {
            estimate.finished(done, Duration::from_secs(4));
        }
        assert_eq!(estimate.left(), Duration::ZERO);
    }
}
