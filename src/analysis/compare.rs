//! One configuration against another, paired by block, and what may be said of it.
//!
//! Invariant: a verdict other than `Inconclusive` rests on [`stats::VALUES_FOR_INTERVAL`] pairs or more, and on an
//! interval that is corrected for every verdict of the result (Bonferroni).

use super::{Comparison, Estimate, Figure, Random, Verdict, stats};
use crate::metric::{Floor, Metric};
use crate::run::Run;
use std::collections::BTreeMap;

/// How sure intervals are, and where their random numbers come from.
#[derive(Clone, Copy, Debug)]
pub struct Confidence {
    /// The result's seed.
    pub seed: u64,
    /// Chance that one ratio's interval misses: [`stats::MISS_CHANCE`] shared out among the verdicts.
    pub miss_ratio: f64,
}

impl Confidence {
    /// For a result in which this many verdicts are given.
    #[must_use]
    pub fn shared_by(seed: u64, verdicts: u32) -> Self {
        Self { seed, miss_ratio: stats::MISS_CHANCE / f64::from(verdicts.max(1)) }
    }
}

/// A metric's values by block; a block measured twice keeps its first value.
#[must_use]
pub fn values(metric: &Metric, runs: &[&Run]) -> BTreeMap<u32, f64> {
    let mut by_block = BTreeMap::new();
    for run in runs.iter().filter(|run| run.pass == metric.pass) {
        if let Some(value) = (metric.of)(run).filter(|value| value.is_finite()) {
            by_block.entry(run.block).or_insert(value);
        }
    }
    by_block
}

/// Value and baseline of every block that has both, and whose ratio exists. Zero against zero is a ratio of 1; zero
/// against anything else has no ratio.
#[must_use]
pub fn pairs(values: &BTreeMap<u32, f64>, baseline: &BTreeMap<u32, f64>) -> Vec<(f64, f64)> {
    let both = values.iter().filter_map(|(block, value)| Some((*value, *baseline.get(block)?)));
    both.filter(|(value, base)| (*value > 0.0 && *base > 0.0) || (*value == 0.0 && *base == 0.0)).collect()
}

/// Whether a metric of two configurations has enough pairs for a verdict.
#[must_use]
pub fn decidable(metric: &Metric, runs: &[&Run], baseline: &[&Run]) -> bool {
    metric.floor.is_some()
        && pairs(&values(metric, runs), &values(metric, baseline)).len() >= stats::VALUES_FOR_INTERVAL
}

/// A metric of one configuration, against the baseline where there is one. `names` tell this cell's random numbers
/// from every other cell's.
#[must_use]
pub fn figure(
    metric: &Metric,
    runs: &[&Run],
    baseline: Option<&[&Run]>,
    names: &[&str],
    confidence: Confidence,
) -> Option<Figure> {
    let own = values(metric, runs);
    let mut random = Random::new(confidence.seed, &[names, &[metric.key, "value"]].concat());
    let samples: Vec<f64> = own.values().copied().collect();
    let mut value = stats::estimate(&samples, stats::MISS_CHANCE, &mut random)?;
    value.low = value.low.max(0.0); // no metric can be negative
    let versus = baseline.zip(metric.floor).and_then(|(baseline, floor)| {
        let mut random = Random::new(confidence.seed, &[names, &[metric.key, "ratio"]].concat());
        compare(&pairs(&own, &values(metric, baseline)), floor, confidence.miss_ratio, &mut random)
    });
    Some(Figure { value, versus })
}

/// The ratio of pairs of (value, baseline) and its verdict; `None` without pairs.
#[must_use]
pub fn compare(pairs: &[(f64, f64)], floor: Floor, miss: f64, random: &mut Random) -> Option<Comparison> {
    let ratios: Vec<f64> = pairs.iter().map(|(value, base)| if *base == 0.0 { 1.0 } else { value / base }).collect();
    let moved = stats::median(pairs.iter().map(|(value, base)| value - base))?;
    let ratio = stats::estimate_ratio(&ratios, miss, random)?;
    Some(Comparison { ratio, verdict: verdict(&ratio, moved, floor) })
}

/// The rule. `moved` is the median difference in the metric's unit.
#[must_use]
pub fn verdict(ratio: &Estimate, moved: f64, floor: Floor) -> Verdict {
    let contains_one = ratio.low <= 1.0 && ratio.high >= 1.0;
    let below_floor = (ratio.median - 1.0).abs() < floor.relative || moved.abs() < floor.absolute;
    if !ratio.interval {
        Verdict::Inconclusive
    } else if contains_one || below_floor {
        Verdict::NoDifference
    } else if ratio.median < 1.0 {
        Verdict::Better
    } else {
        Verdict::Worse
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric;

    const FLOOR: Floor = Floor { relative: 0.01, absolute: 5.0 };

    fn ratio(low: f64, median: f64, high: f64, interval: bool) -> Estimate {
        Estimate { median, low, high, n: if interval { 12 } else { 3 }, interval }
    }

    #[test]
    fn the_rule_of_verdicts() {
        assert_eq!(verdict(&ratio(1.1, 1.2, 1.3, false), 100.0, FLOOR), Verdict::Inconclusive);
        assert_eq!(verdict(&ratio(1.1, 1.2, 1.3, true), 100.0, FLOOR), Verdict::Worse);
        assert_eq!(verdict(&ratio(0.7, 0.8, 0.9, true), -100.0, FLOOR), Verdict::Better);
        assert_eq!(verdict(&ratio(0.9, 1.2, 1.3, true), 100.0, FLOOR), Verdict::NoDifference);
        assert_eq!(verdict(&ratio(1.001, 1.005, 1.009, true), 100.0, FLOOR), Verdict::NoDifference);
        assert_eq!(verdict(&ratio(1.1, 1.2, 1.3, true), 4.0, FLOOR), Verdict::NoDifference);
    }

    #[test]
    fn pairs_need_both_sides_and_a_ratio() {
        let a = BTreeMap::from([(0, 2.0), (1, 0.0), (2, 4.0), (3, 0.0)]);
        let b = BTreeMap::from([(0, 1.0), (1, 0.0), (3, 7.0), (4, 1.0)]);
        assert_eq!(pairs(&a, &b), [(2.0, 1.0), (0.0, 0.0)]);
    }

    /// Twelve blocks of a program under noise that drifts between blocks and has outliers within them.
    fn blocks(random: &mut Random, n: usize, factor: f64, added: f64) -> Vec<(f64, f64)> {
        let mut drift = 0.0;
        (0..n)
            .map(|_| {
                drift = 0.8 * drift + 0.05 * random.normal();
                let mut child = |scale: f64| {
                    let outlier = if random.unit() < 0.05 { 0.3 * random.unit() } else { 0.0 };
                    scale * (drift + outlier + 0.01 * random.normal()).exp()
                };
                (child(12.0) * factor + added, child(12.0))
            })
            .collect()
    }

    #[test]
    fn twins_come_out_alike_and_planted_differences_are_found() {
        let floor = metric::NS_PER_CALL.floor.expect("time gets verdicts");
        let mut random = Random::new(2026, &["twins"]);
        let mut count = |n: usize, factor: f64, added: f64, trials: u32, verdicts: u32| {
            let miss = Confidence::shared_by(0, verdicts).miss_ratio;
            let (mut worse, mut better) = (0, 0);
            for _ in 0..trials {
                let compared = compare(&blocks(&mut random, n, factor, added), floor, miss, &mut random.clone());
                match compared.expect("there are pairs").verdict {
                    Verdict::Worse => worse += 1,
                    Verdict::Better => better += 1,
                    _ => {}
                }
            }
            (worse, better)
        };
        // 400 verdicts on twins, corrected as if each stood in a result of 40, and not corrected at all.
        let (worse, better) = count(12, 1.0, 0.0, 400, 40);
        assert!(worse + better <= 4, "{worse} worse, {better} better of 400 on twins");
        let (worse, better) = count(12, 1.0, 0.0, 400, 1);
        assert!(worse + better <= 20, "{worse} worse, {better} better of 400 on twins, uncorrected");
        // 10 ns on top of 12, and a tenth more of everything.
        assert!(count(12, 1.0, 10.0, 100, 75).0 >= 95);
        assert!(count(12, 1.1, 0.0, 100, 75).0 >= 95);
        assert!(count(6, 1.0, 10.0, 100, 75).0 >= 95);
    }
}
