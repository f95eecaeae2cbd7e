//! What a result knows of its own noise: how an allocator compares with itself, which difference the run could see, and
//! whether the machine drifted while it measured.
//!
//! Invariant: a control (`NAME-again`) is judged by the rule of the contestants, and is no contestant.

use super::compare::{self, Confidence};
use super::{Random, Selection, Verdict, stats};
use crate::metric;
use crate::run::ConfigFacts;
use serde::Serialize;

/// What a twin's name adds to that of its original.
const AGAIN: &str = "-again";

/// Verdicts on one allocator under two names: each that differs is false.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Twins {
    /// Verdicts other than inconclusive.
    pub verdicts: u32,
    /// Of these, better or worse.
    pub different: u32,
}

/// How noisy a result is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Noise {
    /// By workload: the smallest difference in time per call that could have been told from none, as a share. It is
    /// the further end of the interval of the control's ratio, and never below the effect floor. Empty without a
    /// control, or where it has too few blocks for an interval.
    pub time_seen: Vec<(String, f64)>,
    /// Workloads whose baseline was not as fast in the later half of the blocks as in the earlier.
    pub drifts: Vec<Drift>,
}

/// A change of the baseline's own time per call within one result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Workload.
    pub workload: String,
    /// The baseline.
    pub config: String,
    /// Time per call in the later half over that in the earlier half.
    pub ratio: super::Estimate,
}

/// The `NAME` of a `NAME-again`, if there is one.
pub(super) fn original<'a>(configs: &[ConfigFacts], twin: &'a str) -> Option<&'a str> {
    twin.strip_suffix(AGAIN).filter(|original| configs.iter().any(|config| config.name == *original))
}

impl Selection<'_> {
    /// Every `NAME-again` with its `NAME`.
    fn pairs_of_twins(&self) -> impl Iterator<Item = (&str, &str)> {
        let configs = &self.environment.configs;
        configs.iter().filter_map(|config| Some((config.name.as_str(), original(configs, &config.name)?)))
    }

    /// Every `NAME-again` against its `NAME`.
    pub(super) fn twins(&self, confidence: Confidence) -> Option<Twins> {
        let mut twins = Twins::default();
        let mut found = false;
        for (twin, original) in self.pairs_of_twins() {
            found = true;
            for workload in &self.environment.workloads {
                for metric in metric::ALL {
                    let Some(versus) = self.twin(&workload.name, twin, original, metric, confidence) else { continue };
                    twins.verdicts += u32::from(versus.verdict != Verdict::Inconclusive);
                    twins.different += u32::from(matches!(versus.verdict, Verdict::Better | Verdict::Worse));
                }
            }
        }
        found.then_some(twins)
    }

    fn twin(
        &self,
        workload: &str,
        twin: &str,
        original: &str,
        metric: &metric::Metric,
        confidence: Confidence,
    ) -> Option<super::Comparison> {
        let (runs, against) = (self.of(workload, twin), self.of(workload, original));
        compare::figure(metric, &runs, Some(&against), &[workload, twin, "twin"], confidence)?.versus
    }

    /// What the controls and the baseline say about noise.
    pub(super) fn noise(&self, confidence: Confidence) -> Noise {
        let mut noise = Noise::default();
        let metric = metric::NS_PER_CALL;
        let floor = metric.floor.map_or(0.0, |floor| floor.relative);
        for workload in &self.environment.workloads {
            let ratios = self.pairs_of_twins().filter_map(|(twin, original)| {
                let ratio = self.twin(&workload.name, twin, original, metric, confidence)?.ratio;
                ratio.interval.then(|| (ratio.high - 1.0).abs().max((ratio.low - 1.0).abs()).max(floor))
            });
            noise.time_seen.extend(ratios.reduce(f64::max).map(|seen| (workload.name.clone(), seen)));
            noise.drifts.extend(self.drift(&workload.name));
        }
        noise
    }

    /// The earlier half of the baseline's blocks against the later one; `None` when they are alike, or too few.
    fn drift(&self, workload: &str) -> Option<Drift> {
        let config = &self.environment.configs[self.baseline(workload)?].name;
        let values: Vec<f64> = compare::values(metric::NS_PER_CALL, &self.of(workload, config)).into_values().collect();
        let logs: Vec<f64> = values.iter().filter(|value| **value > 0.0).map(|value| value.ln()).collect();
        let (early, late) = logs.split_at(logs.len() / 2);
        let mut random = Random::new(self.environment.plan.seed, &[workload, config, "drift"]);
        let miss = stats::MISS_CHANCE / self.environment.workloads.len().max(1) as f64;
        let on_log = stats::estimate_between(early, late, miss, &mut random)?;
        let (median, low, high) = (on_log.median.exp(), on_log.low.exp(), on_log.high.exp());
        let ratio = super::Estimate { median, low, high, ..on_log };
        let verdict = compare::verdict(&ratio, f64::INFINITY, metric::NS_PER_CALL.floor?);
        let drifts = matches!(verdict, Verdict::Better | Verdict::Worse);
        drifts.then(|| Drift { workload: workload.to_owned(), config: config.clone(), ratio })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{analyse, fixture};
    use crate::run::{Observation, Outcome, Pass, Run};

    /// An invented result whose `pool` (the baseline) is `factor` times as slow from block 6 on, and its twin.
    fn with_twin(factor: f64) -> (crate::run::Environment, Vec<Run>) {
        let what = fixture::Invention::default();
        let (mut environment, mut runs) = (fixture::environment(&what), fixture::runs(&what));
        let twin = crate::run::ConfigFacts { floor: true, ..environment.configs[0].clone() };
        environment.configs.push(crate::run::ConfigFacts { name: "pool-again".into(), ..twin });
        for run in runs.iter_mut().filter(|run| run.block >= 6 && run.pass == Pass::Throughput) {
            if let Outcome::Ok(Observation::Throughput(t)) = &mut run.outcome {
                t.phases.iter_mut().for_each(|phase| phase.wall_ns = (phase.wall_ns as f64 * factor) as u64);
            }
        }
        let again = |run: &Run| Run { config: "pool-again".into(), block: (run.block + 1) % 12, ..run.clone() };
        let twins: Vec<Run> =
            runs.iter().filter(|r| r.config == "pool" && r.pass == Pass::Throughput).map(again).collect();
        runs.extend(twins);
        (environment, runs)
    }

    #[test]
    fn a_control_tells_the_noise_and_is_no_contestant() {
        let (environment, runs) = with_twin(1.0);
        let analysis = analyse(environment, &runs);
        assert_eq!(analysis.twins, Some(Twins { verdicts: 4, different: 0 }));
        assert_eq!(analysis.noise.time_seen.len(), 2);
        assert!(analysis.noise.time_seen.iter().all(|(_, seen)| (0.01..0.2).contains(seen)), "{:?}", analysis.noise);
        assert!(analysis.noise.drifts.is_empty(), "{:?}", analysis.noise.drifts);
        assert!(analysis.workloads.iter().all(|w| w.configs.iter().all(|config| config.name != "pool-again")));
    }

    #[test]
    fn a_machine_that_slows_down_is_named() {
        let (environment, runs) = with_twin(1.5);
        let drifts = analyse(environment, &runs).noise.drifts;
        assert_eq!(drifts.len(), 2);
        assert!(drifts.iter().all(|d| d.config == "pool" && (1.3..1.7).contains(&d.ratio.median)), "{drifts:?}");
    }
}
