//! One result against another, cell by cell: the same configuration on the same workload, measured twice.
//!
//! Nothing pairs two results, so the interval is that of the difference of two medians over processes. Two results were
//! measured at different times, which no number of processes within them makes up for: time has a wider floor here than
//! within a result, widened again by what the null allocator moved, and decides nothing unless it was asked for.
//!
//! Invariant: every cell that either result measured is in exactly one of the two lists, compared or alone; a result
//! against itself is never better or worse.

use super::likeness::Likeness;
use super::{Estimate, Random, Verdict, compare, stats};
use crate::metric::{self, Floor, Metric, Unit};
use crate::run::{Environment, Outcome, Run};
use serde::Serialize;

/// Version of the comparison as JSON.
pub const COMPARISON_SCHEMA: u32 = 1;

/// From which difference on time may be called better or worse between two results: 5 %.
const TIME_FLOOR: f64 = 0.05;
/// How far beyond what the null allocator moved a time must have moved.
const NULL_MOVES: f64 = 2.0;

/// What to compare, and from which difference on.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only these; all that can get a verdict when empty.
    pub metrics: Vec<&'static Metric>,
    /// Replaces the share of every floor.
    pub floor_relative: Option<f64>,
    /// Replaces the bytes of the floors of memory.
    pub floor_bytes: Option<f64>,
}

/// A result as [`between`] takes it.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// As stored.
    pub environment: &'a Environment,
    /// As stored.
    pub runs: &'a [Run],
}

/// One result against another.
#[derive(Clone, Debug, Serialize)]
pub struct Between {
    /// [`COMPARISON_SCHEMA`].
    pub schema: u32,
    /// The older result.
    pub old: Side,
    /// The newer result.
    pub new: Side,
    /// What differs between their environments.
    pub likeness: Likeness,
    /// Every comparison, in the order of the older result.
    pub cells: Vec<Cell>,
    /// What only one of them measured.
    pub alone: Vec<Alone>,
    /// Verdicts given, which intervals are corrected for.
    pub verdicts: u32,
    /// Chance that any of their intervals misses.
    pub miss_chance: f64,
    /// Resamples behind each standard error.
    pub resamples: usize,
}

/// Where one side comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Milliseconds since the epoch when it began.
    pub started_unix_ms: u64,
    /// Version of the harness.
    pub harness_version: String,
    /// Its seed.
    pub seed: u64,
    /// Runs that measured.
    pub ok_runs: u32,
    /// Runs that did not.
    pub failed_runs: u32,
}

/// One metric of one configuration on one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Workload.
    pub workload: String,
    /// Configuration.
    pub config: String,
    /// Key of the metric.
    pub metric: &'static str,
    /// In the older result, with its own interval of 95 %.
    pub old: Estimate,
    /// In the newer one.
    pub new: Estimate,
    /// New over old; null where either holds a zero.
    pub ratio: Option<Estimate>,
    /// New less old, in the metric's unit; its interval decides where there is no ratio.
    pub difference: Estimate,
    /// The smallest share that counts.
    pub floor_relative: f64,
    /// The smallest difference that counts, in the metric's unit.
    pub floor_absolute: f64,
    /// What may be said.
    pub verdict: Verdict,
    /// Whether it decides the exit code.
    pub decides: bool,
}

/// A cell that only one result measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alone {
    /// Workload.
    pub workload: String,
    /// Configuration.
    pub config: String,
    /// Key of the metric.
    pub metric: &'static str,
    /// Whether the newer result has it.
    pub in_new: bool,
    /// Whether the other result ran it, and every run failed.
    pub failed: bool,
}

impl Between {
    /// Comparisons that decide the exit code and have this verdict.
    pub fn deciding(&self, verdict: Verdict) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.decides && cell.verdict == verdict)
    }

    /// What the older result measured and the newer one failed to.
    pub fn broken(&self) -> impl Iterator<Item = &Alone> {
        self.alone.iter().filter(|alone| alone.failed && !alone.in_new)
    }
}

/// Compares two results. `likeness` is what [`super::likeness::likeness`] found.
#[must_use]
pub fn between(old: Measured<'_>, new: Measured<'_>, likeness: Likeness, asked: &Asked) -> Between {
    let (pairs, alone) = cells(old, new, asked);
    let decidable = |pair: &&Pair| pair.old.len().min(pair.new.len()) >= stats::VALUES_FOR_INTERVAL;
    let verdicts = pairs.iter().filter(decidable).count() as u32;
    let seed = old.environment.plan.seed ^ new.environment.plan.seed.rotate_left(32);
    let miss = stats::MISS_CHANCE / f64::from(verdicts.max(1));
    let cells = pairs.iter().filter_map(|pair| compared(pair, asked, seed, miss)).collect();
    Between {
        schema: COMPARISON_SCHEMA,
        old: side(old),
        new: side(new),
        likeness,
        cells,
        alone,
        verdicts,
        miss_chance: stats::MISS_CHANCE,
        resamples: stats::RESAMPLES,
    }
}

fn side(of: Measured<'_>) -> Side {
    let ok_runs = of.runs.iter().filter(|run| is_ok(run)).count();
    Side {
        started_unix_ms: of.environment.plan.started_unix_ms,
        harness_version: of.environment.harness.version.clone(),
        seed: of.environment.plan.seed,
        ok_runs: ok_runs as u32,
        failed_runs: (of.runs.len() - ok_runs) as u32,
    }
}

fn is_ok(run: &Run) -> bool {
    matches!(run.outcome, Outcome::Ok(_))
}

/// The values of a cell that both results measured.
struct Pair {
    workload: String,
    config: String,
    metric: &'static Metric,
    old: Vec<f64>,
    new: Vec<f64>,
    floor: Floor,
}

/// Every cell of either result: those of both, and those of one.
fn cells(old: Measured<'_>, new: Measured<'_>, asked: &Asked) -> (Vec<Pair>, Vec<Alone>) {
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for workload in names(old, new, |e| e.workloads.iter().map(|w| &w.name).collect()) {
        for config in names(old, new, |e| e.configs.iter().filter(|c| !c.floor).map(|c| &c.name).collect()) {
            for (metric, floor) in metric::ALL.iter().filter_map(|metric| Some((*metric, metric.floor?))) {
                if !asked.metrics.is_empty() && asked.metrics.iter().all(|asked| asked.key != metric.key) {
                    continue;
                }
                let of = |side: Measured<'_>| values(side, workload, config, metric);
                let (workload, config) = (workload.clone(), config.clone());
                match (of(old), of(new)) {
                    (a, b) if a.is_empty() && b.is_empty() => {}
                    (a, b) if a.is_empty() || b.is_empty() => {
                        let in_new = a.is_empty();
                        let other = if in_new { old } else { new };
                        let failed = other.runs.iter().any(|run| {
                            run.workload == workload && run.config == config && run.pass == metric.pass && !is_ok(run)
                        });
                        alone.push(Alone { workload, config, metric: metric.key, in_new, failed });
                    }
                    (a, b) => {
                        let floor = floor_between(metric, floor, asked, null_moved(old, new, &workload));
                        pairs.push(Pair { workload, config, metric, old: a, new: b, floor });
                    }
                }
            }
        }
    }
    (pairs, alone)
}

/// Names of the older result, then those that only the newer one has.
fn names<'a>(old: Measured<'a>, new: Measured<'a>, of: impl Fn(&'a Environment) -> Vec<&'a String>) -> Vec<&'a String> {
    let mut names = of(old.environment);
    for name in of(new.environment) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn values(side: Measured<'_>, workload: &str, config: &str, metric: &Metric) -> Vec<f64> {
    let runs: Vec<&Run> = side.runs.iter().filter(|run| run.workload == workload && run.config == config).collect();
    compare::values(metric, &runs).into_values().collect()
}

/// What the null allocator's time changed by on a workload, as a share: the machine, or the harness, and no allocator.
fn null_moved(old: Measured<'_>, new: Measured<'_>, workload: &str) -> f64 {
    let median = |side| stats::median(values(side, workload, "null", metric::NS_PER_CALL));
    match (median(old), median(new)) {
        (Some(old), Some(new)) if old > 0.0 => (new / old - 1.0).abs(),
        _ => 0.0,
    }
}

fn floor_between(metric: &Metric, floor: Floor, asked: &Asked, null_moved: f64) -> Floor {
    let is_time = metric.unit == Unit::Nanoseconds;
    let relative = asked.floor_relative.unwrap_or(if is_time { TIME_FLOOR } else { floor.relative });
    let absolute = asked.floor_bytes.filter(|_| metric.unit == Unit::Bytes).unwrap_or(floor.absolute);
    Floor { relative: if is_time { relative.max(NULL_MOVES * null_moved) } else { relative }, absolute }
}

fn compared(pair: &Pair, asked: &Asked, seed: u64, miss: f64) -> Option<Cell> {
    let Pair { workload, config, metric, old, new, floor } = pair;
    let names = [workload.as_str(), config.as_str(), metric.key];
    let random = |what: &str| Random::new(seed, &[&names[..], &[what]].concat());
    let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<f64>>();
    let has_ratio = old.iter().chain(new).all(|value| *value > 0.0);
    let ratio = if has_ratio {
        let on_log = stats::estimate_between(&logs(old), &logs(new), miss, &mut random("ratio"))?;
        let (median, low, high) = (on_log.median.exp(), on_log.low.exp(), on_log.high.exp());
        Some(Estimate { median, low, high, ..on_log })
    } else {
        None
    };
    let difference = stats::estimate_between(old, new, miss, &mut random("difference"))?;
    let asked_for = asked.metrics.iter().any(|asked| asked.key == metric.key);
    Some(Cell {
        workload: workload.clone(),
        config: config.clone(),
        metric: metric.key,
        old: stats::estimate(old, stats::MISS_CHANCE, &mut random("old"))?,
        new: stats::estimate(new, stats::MISS_CHANCE, &mut random("new"))?,
        verdict: verdict(ratio.as_ref(), &difference, *floor),
        ratio,
        difference,
        floor_relative: floor.relative,
        floor_absolute: floor.absolute,
        decides: metric.unit != Unit::Nanoseconds || asked_for,
    })
}

/// The rule of [`compare::verdict`]; where a value is zero there is no ratio, and the difference alone decides.
fn verdict(ratio: Option<&Estimate>, difference: &Estimate, floor: Floor) -> Verdict {
    match ratio {
        Some(ratio) => compare::verdict(ratio, difference.median, floor),
        None if !difference.interval => Verdict::Inconclusive,
        None if difference.low <= 0.0 && difference.high >= 0.0 => Verdict::NoDifference,
        None if difference.median.abs() < floor.absolute => Verdict::NoDifference,
        None if difference.median < 0.0 => Verdict::Better,
        None => Verdict::Worse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::fixture::{Invention, environment, runs};
    use crate::run::{Observation, Pass};

    const WHAT: Invention = Invention { blocks: 12, latency_runs: 1, footprint_runs: 6, steady: true, failures: false };

    fn result(what: &Invention) -> (Environment, Vec<Run>) {
        (environment(what), runs(what))
    }

    fn compare_all(old: &(Environment, Vec<Run>), new: &(Environment, Vec<Run>), asked: &Asked) -> Between {
        let [old, new] = [old, new].map(|(environment, runs)| Measured { environment, runs });
        between(old, new, Likeness::default(), asked)
    }

    fn raise(runs: &mut [Run], config: &str, pass: Pass, factor: f64) {
        let scale = |value: &mut u64| *value = (*value as f64 * factor) as u64;
        for run in runs.iter_mut().filter(|run| run.config == config && run.pass == pass) {
            match &mut run.outcome {
                Outcome::Ok(Observation::Throughput(t)) => t.phases.iter_mut().for_each(|p| scale(&mut p.wall_ns)),
                Outcome::Ok(Observation::Footprint(f)) => {
                    f.rest.iter_mut().for_each(|point| scale(&mut point.memory.resident_bytes));
                }
                _ => {}
            }
        }
    }

    fn found(between: &Between, verdict: Verdict) -> Vec<(&str, &str)> {
        between.cells.iter().filter(|c| c.verdict == verdict).map(|c| (c.config.as_str(), c.metric)).collect()
    }

    #[test]
    fn a_result_against_itself_is_neither_better_nor_worse() {
        for what in [WHAT, Invention { failures: true, ..WHAT }, Invention { blocks: 3, footprint_runs: 1, ..WHAT }] {
            let one = result(&what);
            let same = compare_all(&one, &one, &Asked::default());
            assert!(found(&same, Verdict::Better).is_empty() && found(&same, Verdict::Worse).is_empty());
            assert_eq!((same.cells.len(), same.alone.len()), (2 * 4 * 5, 0));
            let few = what.blocks < 6;
            assert_eq!(found(&same, Verdict::Inconclusive).len(), if few { 40 } else { 0 });
            assert_eq!(same.verdicts, if few { 0 } else { 40 });
        }
    }

    #[test]
    fn what_was_planted_is_found_and_time_decides_only_where_asked() {
        let old = result(&WHAT);
        let mut new = old.clone();
        raise(&mut new.1, "jemalloc", Pass::Footprint, 1.3);
        raise(&mut new.1, "system", Pass::Throughput, 1.3);
        let all = compare_all(&old, &new, &Asked::default());
        let (rest, time) = (("jemalloc", "rss_bytes_rest"), ("system", "ns_per_call"));
        assert_eq!(found(&all, Verdict::Worse), [time, rest, time, rest]);
        let deciding: Vec<&str> = all.deciding(Verdict::Worse).map(|cell| cell.metric).collect();
        assert_eq!(deciding, ["rss_bytes_rest"; 2]);
        let time_alone = compare_all(&old, &new, &Asked { metrics: vec![metric::NS_PER_CALL], ..Asked::default() });
        assert_eq!((time_alone.cells.len(), time_alone.deciding(Verdict::Worse).count()), (8, 2));
        // A floor above the change, and the change the other way round.
        let floor = Asked { floor_relative: Some(0.5), ..Asked::default() };
        assert!(found(&compare_all(&old, &new, &floor), Verdict::Worse).is_empty());
        let floor = Asked { floor_bytes: Some(1e12), ..Asked::default() };
        assert_eq!(found(&compare_all(&old, &new, &floor), Verdict::Worse), [time, time]);
        assert_eq!(found(&compare_all(&new, &old, &Asked::default()), Verdict::Better).len(), 4);
    }

    #[test]
    fn a_slower_machine_is_not_a_slower_allocator() {
        let old = result(&WHAT);
        let mut new = old.clone();
        for config in ["pool", "system", "mimalloc", "jemalloc", "null", "loop"] {
            raise(&mut new.1, config, Pass::Throughput, 1.2);
        }
        assert!(found(&compare_all(&old, &new, &Asked::default()), Verdict::Worse).is_empty());
    }

    #[test]
    fn nothing_is_dropped_in_silence() {
        let old = result(&WHAT);
        let mut new = old.clone();
        new.0.configs[3].name = "jemalloc-new".into();
        new.1.iter_mut().filter(|run| run.config == "jemalloc").for_each(|run| run.config = "jemalloc-new".into());
        for run in new.1.iter_mut().filter(|run| run.config == "pool" && run.pass == Pass::Footprint) {
            run.outcome = Outcome::Failed { stage: "replay".into(), reason: "It was killed.".into() };
        }
        let all = compare_all(&old, &new, &Asked::default());
        // Of two workloads: three metrics of `pool` that failed, five of `jemalloc` on either side.
        assert_eq!((all.cells.len(), all.alone.len(), all.broken().count()), (2 * 12, 2 * 13, 2 * 3));
        assert!(all.broken().all(|alone| alone.config == "pool"));
    }

    #[test]
    fn zeros_are_compared_by_their_difference() {
        let zero = Estimate { median: 0.0, low: 0.0, high: 0.0, n: 6, interval: true };
        let more = Estimate { median: 500.0, low: 400.0, high: 600.0, n: 6, interval: true };
        let floor = Floor { relative: 0.01, absolute: 128.0 };
        assert_eq!(verdict(None, &zero, floor), Verdict::NoDifference);
        assert_eq!(verdict(None, &more, floor), Verdict::Worse);
        assert_eq!(verdict(None, &Estimate { interval: false, ..more }, floor), Verdict::Inconclusive);
        assert_eq!(verdict(None, &more, Floor { absolute: 501.0, ..floor }), Verdict::NoDifference);
    }
}
