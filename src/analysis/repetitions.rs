//! How often to repeat each pass, chosen from a pilot and a budget of time.
//!
//! The pilot's values are not kept in the result: whether to go on is then decided by other numbers than those that are
//! reported, and a lucky pilot cannot make its own result look sure.
//!
//! Invariant: a pure function; the same pilot and budget give the same choice, and a larger budget never fewer runs.

use super::{Selection, compare, stats};
use crate::metric::{self, Metric};
use crate::run::{Environment, Run};
use std::time::Duration;

/// More runs of a pass than this are never chosen: what then still differs too little to be seen is a question of the
/// machine, not of patience.
const RUNS_MAX: u32 = 200;
/// Standard error of the median of normal values, by that of their mean.
const MEDIAN_COST: f64 = 1.2533;
/// A latency child in throughput children.
const LATENCY_COST: f64 = 2.0;
/// The least that gives verdicts.
const LEAST: u32 = stats::VALUES_FOR_INTERVAL as u32;

/// What a pilot showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Pilot {
    /// Time that one block of throughput children takes.
    pub block: Duration,
    /// Time that one round of footprint children takes, without their idling.
    pub footprints: Duration,
    /// Time for which footprint children idle, once for all rounds.
    pub idle: Duration,
    /// Spread (standard deviation of the logarithm) of the ratio of times to the baseline, on the noisiest workload.
    pub time_spread: f64,
    /// The same of resident memory; the largest of peak, end and rest.
    pub memory_spread: f64,
    /// Verdicts that the result will give.
    pub verdicts: u32,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repetitions {
    /// Throughput blocks.
    pub blocks: u32,
    /// Latency runs per cell.
    pub latency_runs: u32,
    /// Footprint runs per cell.
    pub footprint_runs: u32,
    /// Sentences for people.
    pub reasons: Vec<String>,
}

impl Pilot {
    /// Reads the spreads off a pilot's runs; the times are as the pilot took them.
    #[must_use]
    pub fn read(environment: &Environment, runs: &[Run], [block, footprints, idle]: [Duration; 3]) -> Self {
        let result = Selection { environment, runs };
        let spread = |metrics: &[&Metric]| metrics.iter().map(|m| result.spread(m)).fold(0.0, f64::max);
        let with_floor = metric::ALL.iter().filter(|metric| metric.floor.is_some()).count();
        let cells: usize = environment.workloads.iter().map(|w| result.contestants_of(&w.name).skip(1).count()).sum();
        Self {
            block,
            footprints,
            idle,
            time_spread: spread(&[metric::NS_PER_CALL]),
            memory_spread: spread(&[metric::RSS_BYTES_PEAK, metric::RSS_BYTES_END, metric::RSS_BYTES_REST]),
            verdicts: (cells * with_floor) as u32,
        }
    }

    fn cost(&self, blocks: u32, latency_runs: u32, footprint_runs: u32) -> Duration {
        let idle = if footprint_runs > 0 { self.idle } else { Duration::ZERO };
        self.block * blocks + self.block.mul_f64(LATENCY_COST) * latency_runs + self.footprints * footprint_runs + idle
    }

    /// The expected half-width of the interval of a ratio, as a share.
    fn half_width(&self, spread: f64, runs: u32) -> f64 {
        if runs < LEAST {
            return f64::INFINITY;
        }
        let miss = stats::MISS_CHANCE / f64::from(self.verdicts.max(1));
        stats::student(miss, runs as usize / 2) * MEDIAN_COST * spread / f64::from(runs).sqrt()
    }

    /// Chooses what fits into the budget: first what verdicts need at least, then more of whichever pass is further
    /// from seeing its effect floor, until both would see it or the time is used up.
    #[must_use]
    pub fn choose(&self, budget: Duration) -> Repetitions {
        let Some((blocks, footprint_runs)) = self.least(budget) else { return self.too_little(budget) };
        let (mut blocks, mut footprint_runs) = (blocks, footprint_runs);
        let (time_floor, memory_floor) = (floor(metric::NS_PER_CALL), floor(metric::RSS_BYTES_REST));
        loop {
            let time = self.half_width(self.time_spread, blocks) / time_floor;
            let memory = self.half_width(self.memory_spread, footprint_runs) / memory_floor;
            let more_blocks = (time > 1.0 && blocks < RUNS_MAX, time, (blocks + 1, footprint_runs));
            let more_memory = (memory > 1.0 && footprint_runs < RUNS_MAX, memory, (blocks, footprint_runs + 1));
            let mut wishes = [more_blocks, more_memory];
            wishes.sort_by(|a, b| b.1.total_cmp(&a.1));
            let fits = |(b, f): (u32, u32)| self.cost(b, 1, f) <= budget;
            // The first wish or none: a cheaper one in its place would have larger budgets choose less of it.
            match wishes.into_iter().find(|(wanted, ..)| *wanted).filter(|(_, _, sizes)| fits(*sizes)) {
                Some((_, _, sizes)) => (blocks, footprint_runs) = sizes,
                None => break,
            }
        }
        let reasons = vec![
            self.reason("time", self.time_spread, blocks, "blocks", time_floor),
            self.reason("memory", self.memory_spread, footprint_runs, "footprint runs", memory_floor),
            format!(
                "about {} s of the {} s left after the pilot",
                self.cost(blocks, 1, footprint_runs).as_secs_f64().ceil(),
                budget.as_secs()
            ),
        ];
        Repetitions { blocks, latency_runs: 1, footprint_runs, reasons }
    }

    /// The least that gives verdicts on time and memory, if it fits.
    fn least(&self, budget: Duration) -> Option<(u32, u32)> {
        (self.cost(LEAST, 1, LEAST) <= budget).then_some((LEAST, LEAST))
    }

    /// As much as fits, which is less than verdicts on both need: memory once, whatever it takes, since a result that
    /// is silent on it answers nobody; then verdicts on time.
    fn too_little(&self, budget: Duration) -> Repetitions {
        let footprint_runs = 1;
        let latency_runs = u32::from(self.cost(LEAST, 1, 1) <= budget);
        let fits = |blocks: &u32| self.cost(*blocks, latency_runs, footprint_runs) <= budget;
        let blocks = (1..=LEAST).rev().find(fits).unwrap_or(1);
        let what = if blocks < LEAST { "verdicts" } else { "verdicts on memory" };
        let needed = self.cost(LEAST, 1, LEAST).as_secs_f64().ceil();
        let reason = format!(
            "too little time for {what}: {LEAST} blocks and {LEAST} footprint runs would take about {needed} s; \
             {} s are left after the pilot",
            budget.as_secs()
        );
        Repetitions { blocks, latency_runs, footprint_runs, reasons: vec![reason] }
    }

    fn reason(&self, what: &str, spread: f64, runs: u32, unit: &str, floor: f64) -> String {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let half = self.half_width(spread, runs);
        let met = if half <= floor { "within" } else { "not within" };
        format!(
            "{what}: {runs} {unit}, as the ratio spreads by {} in the pilot; expected interval +-{}, {met} the floor \
             of {}",
            percent(spread),
            percent(half),
            percent(floor)
        )
    }
}

fn floor(metric: &Metric) -> f64 {
    metric.floor.map_or(1.0, |floor| floor.relative)
}

impl Selection<'_> {
    /// Indices of the contestants that ran on a workload, the baseline first.
    fn contestants_of<'s>(&'s self, workload: &'s str) -> impl Iterator<Item = usize> + 's {
        self.contestants().filter(move |index| {
            let name = &self.environment.configs[*index].name;
            self.runs.iter().any(|run| run.workload == workload && run.config == *name)
        })
    }

    /// Standard deviation of the logarithm of ratios to the baseline within blocks, pooled over a workload's
    /// contestants; the largest of any workload. 0 where nothing can be compared.
    fn spread(&self, metric: &Metric) -> f64 {
        let of_workload = |workload: &str| {
            let Some(baseline) = self.contestants_of(workload).next() else { return 0.0 };
            let against = compare::values(metric, &self.of(workload, &self.environment.configs[baseline].name));
            let (mut squares, mut freedom) = (0.0, 0.0);
            for config in self.contestants_of(workload).skip(1) {
                let own = compare::values(metric, &self.of(workload, &self.environment.configs[config].name));
                let pairs = compare::pairs(&own, &against);
                let logs: Vec<f64> =
                    pairs.iter().filter(|(_, base)| *base > 0.0).map(|(value, base)| (value / base).ln()).collect();
                let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
                squares += logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>();
                freedom += logs.len().saturating_sub(1) as f64;
            }
            if freedom > 0.0 { (squares / freedom).sqrt() } else { 0.0 }
        };
        self.environment.workloads.iter().map(|workload| of_workload(&workload.name)).fold(0.0, f64::max)
    }
}

/// What a pilot repeats: blocks of throughput, and rounds of footprints that do not idle. Enough for a spread, pooled
/// over configurations.
pub const PILOT_BLOCKS: u32 = 4;
/// See [`PILOT_BLOCKS`].
pub const PILOT_FOOTPRINT_RUNS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::fixture::{Invention, environment, runs};

    const PILOT: Pilot = Pilot {
        block: Duration::from_secs(4),
        footprints: Duration::from_secs(5),
        idle: Duration::from_secs(10),
        time_spread: 0.02,
        memory_spread: 0.004,
        verdicts: 80,
    };

    fn sizes(chosen: &Repetitions) -> (u32, u32, u32) {
        (chosen.blocks, chosen.latency_runs, chosen.footprint_runs)
    }

    #[test]
    fn a_budget_is_kept_and_what_is_further_from_its_floor_gets_it() {
        let chosen = PILOT.choose(Duration::from_secs(300));
        assert!(PILOT.cost(chosen.blocks, 1, chosen.footprint_runs) <= Duration::from_secs(300), "{chosen:?}");
        assert!(PILOT.cost(chosen.blocks + 1, 1, chosen.footprint_runs) > Duration::from_secs(300), "{chosen:?}");
        assert!(chosen.blocks > 30 && chosen.footprint_runs >= 6, "{chosen:?}");
        assert_eq!(chosen, PILOT.choose(Duration::from_secs(300)));
        assert!(chosen.reasons[0].contains("not within"), "{chosen:?}");
        // As noisy the other way round, memory gets the time.
        let noisy = Pilot { time_spread: 0.0001, memory_spread: 0.05, ..PILOT }.choose(Duration::from_secs(300));
        assert!(noisy.blocks == 6 && noisy.footprint_runs > 20, "{noisy:?}");
    }

    #[test]
    fn time_that_is_not_needed_is_not_used() {
        let quiet = Pilot { time_spread: 0.0, memory_spread: 0.0, ..PILOT };
        let chosen = quiet.choose(Duration::from_secs(36_000));
        assert_eq!(sizes(&chosen), (6, 1, 6));
        assert!(chosen.reasons.iter().take(2).all(|reason| reason.contains(", within the floor")), "{chosen:?}");
        let hopeless = Pilot { time_spread: 9.0, ..quiet }.choose(Duration::from_secs(1 << 40));
        assert_eq!(sizes(&hopeless), (RUNS_MAX, 1, 6));
    }

    #[test]
    fn too_little_time_is_said_and_more_never_gives_less() {
        let little = PILOT.choose(Duration::from_secs(50));
        assert_eq!(sizes(&little), (6, 1, 1));
        assert!(little.reasons[0].contains("too little time for verdicts on memory"), "{little:?}");
        let less = PILOT.choose(Duration::from_secs(20));
        assert!(less.blocks < 6 && less.reasons[0].contains("too little time for verdicts:"), "{less:?}");
        assert_eq!(sizes(&PILOT.choose(Duration::ZERO)), (1, 0, 1));
        let mut before = (0, 0, 0);
        for seconds in 0..600 {
            let now = sizes(&PILOT.choose(Duration::from_secs(seconds)));
            assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2, "{seconds}: {before:?} {now:?}");
            before = now;
        }
    }

    #[test]
    fn a_pilot_is_read_from_its_runs() {
        let what = Invention { blocks: 4, latency_runs: 0, footprint_runs: 3, ..Invention::default() };
        let pilot = Pilot::read(&environment(&what), &runs(&what), [1, 2, 3].map(Duration::from_secs));
        // Two workloads, three contestants beside the baseline, five metrics with a floor.
        assert_eq!(pilot.verdicts, 30);
        assert!((0.0005..0.2).contains(&pilot.time_spread) && pilot.memory_spread < 0.2, "{pilot:?}");
        assert_eq!((pilot.block.as_secs(), pilot.footprints.as_secs(), pilot.idle.as_secs()), (1, 2, 3));
    }
}
