//! Percentiles and survival curves of timed calls, beside those of the empty timer.
//!
//! Invariant: nothing is subtracted; what the clock cannot tell from itself is shown as the clock's bound, and nothing
//! is said about the ten slowest calls but the slowest of all.

use super::{LatencyAnalysis, LatencyRow, Percentile};
use crate::run::{CallKind, Histogram, Latency, LatencyCell, Observation, Outcome, Run, lower_bound};
use std::collections::BTreeMap;

/// Percentiles in 100,000ths, and how reports name them; the fifth column is the maximum.
pub const PERCENTILES: [(u32, &str); 4] = [(50_000, "p50"), (90_000, "p90"), (99_000, "p99"), (99_900, "p99.9")];

/// Calls that must lie beyond a percentile, or a point of a survival curve.
const BEYOND: u64 = 10;

/// The latency passes among some runs.
pub fn passes<'a>(runs: &'a [&'a Run]) -> impl Iterator<Item = &'a Latency> {
    runs.iter().filter_map(|run| match &run.outcome {
        Outcome::Ok(Observation::Latency(latency)) => Some(latency),
        _ => None,
    })
}

/// The empty timer, pooled over every latency pass given.
#[must_use]
pub fn clock<'a>(passes: impl Iterator<Item = &'a Latency>) -> Option<Pooled> {
    let mut pool = Pool::default();
    for pass in passes {
        pool.add(pass, [&pass.clock]);
    }
    pool.finish()
}

/// Latency of one configuration; `None` without a latency pass.
#[must_use]
pub fn latency(passes: &[&Latency], clock: Option<&Pooled>) -> Option<LatencyAnalysis> {
    let bounds = clock.map(|clock| clock.raw_percentiles());
    let row = |kind, class, fault, keep: &dyn Fn(&LatencyCell) -> bool| {
        let pooled = pool(passes, keep)?;
        Some(LatencyRow {
            kind,
            class,
            fault,
            calls: pooled.histogram.total(),
            percentiles: bounded(pooled.raw_percentiles(), bounds),
        })
    };
    let mut rows: Vec<LatencyRow> =
        CallKind::ALL.into_iter().filter_map(|kind| row(Some(kind), None, None, &|cell| cell.kind == kind)).collect();
    let mut keys: Vec<(CallKind, u8, bool)> =
        passes.iter().flat_map(|p| &p.cells).map(|cell| (cell.kind, cell.class, cell.fault)).collect();
    keys.sort_unstable();
    keys.dedup();
    rows.extend(keys.into_iter().filter_map(|key| {
        let (kind, class, fault) = key;
        row(Some(kind), Some(class), Some(fault), &|cell| (cell.kind, cell.class, cell.fault) == key)
    }));
    let curve = |free| pool(passes, &|cell| (cell.kind == CallKind::Free) == free).map(|p| p.survival());
    let (allocate, free) = (curve(false).unwrap_or_default(), curve(true).unwrap_or_default());
    (!passes.is_empty()).then_some(LatencyAnalysis { rows, allocate, free })
}

fn pool(passes: &[&Latency], keep: &dyn Fn(&LatencyCell) -> bool) -> Option<Pooled> {
    let mut pool = Pool::default();
    for pass in passes {
        pool.add(pass, pass.cells.iter().filter(|cell| keep(cell)).map(|cell| &cell.histogram));
    }
    pool.finish()
}

/// Histograms being added up.
#[derive(Default)]
struct Pool {
    histogram: Histogram,
    ticks_per_second: BTreeMap<u64, u32>,
}

impl Pool {
    fn add<'a>(&mut self, pass: &Latency, histograms: impl IntoIterator<Item = &'a Histogram>) {
        for histogram in histograms {
            self.histogram.merge(histogram);
        }
        *self.ticks_per_second.entry(pass.ticks_per_second).or_default() += 1;
    }

    /// One machine has one counter; its calibrations differ in the sixth digit, and the middle one is taken.
    fn finish(self) -> Option<Pooled> {
        let rates: Vec<u64> =
            self.ticks_per_second.into_iter().flat_map(|(rate, times)| vec![rate; times as usize]).collect();
        let rate = *rates.get(rates.len() / 2).filter(|rate| **rate > 0)?;
        (self.histogram.total() > 0).then_some(Pooled { histogram: self.histogram, ns_per_tick: 1e9 / rate as f64 })
    }
}

/// Histograms of several processes as one.
#[derive(Clone, Debug)]
pub struct Pooled {
    histogram: Histogram,
    ns_per_tick: f64,
}

impl Pooled {
    /// The row of the empty timer.
    #[must_use]
    pub fn clock_row(&self) -> LatencyRow {
        let percentiles = self.raw_percentiles().map(|p| p.map(Percentile::Ns));
        LatencyRow { kind: None, class: None, fault: None, calls: self.histogram.total(), percentiles }
    }

    fn raw_percentiles(&self) -> [Option<f64>; 5] {
        let mut all = [None; 5];
        for (slot, (per_100k, _)) in all.iter_mut().zip(PERCENTILES) {
            *slot = self.histogram.percentile(per_100k).map(|ticks| ticks * self.ns_per_tick);
        }
        all[4] = Some(self.histogram.max as f64 * self.ns_per_tick);
        all
    }

    /// Share of calls slower than each duration in nanoseconds, ascending, ending where fewer than ten calls are.
    #[must_use]
    pub fn survival(&self) -> Vec<(f64, f64)> {
        let total = self.histogram.total();
        let mut beyond = total;
        let mut points = Vec::new();
        for (bucket, count) in &self.histogram.counts {
            let low = lower_bound(usize::from(*bucket)).max(1);
            if points.is_empty() && total >= BEYOND {
                points.push((low as f64 * self.ns_per_tick, 1.0));
            }
            beyond -= count;
            if beyond < BEYOND {
                break;
            }
            let high = lower_bound(usize::from(*bucket) + 1).max(low + 1);
            points.push((high as f64 * self.ns_per_tick, beyond as f64 / total as f64));
        }
        points
    }
}

/// Replaces what is not above twice the empty timer's own percentile by that bound.
fn bounded(raw: [Option<f64>; 5], clock: Option<[Option<f64>; 5]>) -> [Option<Percentile>; 5] {
    let mut bounded = [None; 5];
    for (i, slot) in bounded.iter_mut().enumerate() {
        let bound = clock.and_then(|clock| clock[i]).map(|ns| 2.0 * ns);
        *slot = raw[i].map(|ns| match bound {
            Some(bound) if ns <= bound => Percentile::Below(bound),
            _ => Percentile::Ns(ns),
        });
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{BUCKETS, SealReport, bucket};

    fn histogram(values: &[(u64, u64)]) -> Histogram {
        let mut dense = vec![0; BUCKETS];
        for (ticks, count) in values {
            dense[bucket(*ticks)] += count;
        }
        Histogram::from_dense(&dense, values.iter().map(|v| v.0).max().unwrap_or(0))
    }

    fn pass(clock: &[(u64, u64)], malloc: &[(u64, u64)]) -> Latency {
        let cell = LatencyCell { kind: CallKind::Malloc, class: 0, fault: false, histogram: histogram(malloc) };
        let seal = SealReport::default();
        Latency { ticks_per_second: 1_000_000_000, clock: histogram(clock), cells: vec![cell], threads: None, seal }
    }

    #[test]
    fn what_the_clock_cannot_tell_prints_as_its_bound() {
        let passes = [pass(&[(10, 20_000)], &[(12, 8_000), (100, 1_980), (1_000, 20)])];
        let clock = clock(passes.iter()).expect("a clock");
        let refs: Vec<&Latency> = passes.iter().collect();
        let found = latency(&refs, Some(&clock)).expect("a pass");
        let row = &found.rows[0];
        assert_eq!((row.kind, row.class, row.calls), (Some(CallKind::Malloc), None, 10_000));
        assert_eq!(row.percentiles[0], Some(Percentile::Below(20.0)));
        assert!(matches!(row.percentiles[1], Some(Percentile::Ns(ns)) if (96.0..104.0).contains(&ns)));
        assert!(matches!(row.percentiles[3], Some(Percentile::Ns(ns)) if (960.0..1040.0).contains(&ns)));
        assert_eq!(row.percentiles[4], Some(Percentile::Ns(1000.0)));
        assert_eq!(clock.clock_row().percentiles[0], Some(Percentile::Ns(10.0)));
    }

    #[test]
    fn processes_are_pooled_and_nothing_goes_past_ten_calls() {
        let passes = [pass(&[(10, 50)], &[(50, 500), (5_000, 5)]), pass(&[(10, 50)], &[(50, 500), (9_000, 4)])];
        let refs: Vec<&Latency> = passes.iter().collect();
        let found = latency(&refs, None).expect("passes");
        assert_eq!(found.rows[0].calls, 1_009);
        assert_eq!(found.rows[0].percentiles[3], None);
        assert_eq!(found.rows[0].percentiles[4], Some(Percentile::Ns(9_000.0)));
        assert_eq!(found.allocate, [(50.0, 1.0)], "9 calls lie beyond, which is not enough for a point");
        assert!(found.free.is_empty());
    }

    #[test]
    fn survival_falls_and_ends_at_ten() {
        let passes = [pass(&[(10, 50)], &[(20, 900), (40, 60), (80, 25), (160, 15)])];
        let refs: Vec<&Latency> = passes.iter().collect();
        let curve = latency(&refs, None).expect("a pass").allocate;
        let shares: Vec<f64> = curve.iter().map(|p| p.1).collect();
        assert_eq!(shares, [1.0, 0.1, 0.04, 0.015]);
        assert!(curve.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
