//! Runs in, numbers with intervals and verdicts out. Knows no screen and no chart.
//!
//! Invariant: the same runs give the same analysis, bit for bit (bootstrap seeds derive from the result's own seed);
//! the unit of replication is the process.

pub mod between;
pub mod compare;
mod control;
pub mod fidelity;
#[doc(hidden)]
pub mod fixture;
pub mod knobs;
pub mod latency;
pub mod likeness;
pub mod memory;
pub mod modes;
pub mod owners;
pub mod pools;
mod price;
mod random;
pub mod recommend;
pub mod repetitions;
pub mod shape;
pub mod stats;
pub mod threads;
pub mod trust;

pub use control::{Drift, Noise, Twins};
pub use price::{program_cpu_ns, program_cpu_ns_all};
pub use random::Random;

use crate::metric;
use crate::run::{
    CallKind, Environment, MemoryPoint, Mode, Outcome, Pass, RestPoint, Run, Time, WorkloadFacts, recorded_marks,
};
use compare::Confidence;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::HashMap;
use trace::Phase;

/// A median with what is known of its spread.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Median over processes.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Processes.
    pub n: u32,
    /// Whether low and high are a bootstrap interval (6 processes and more) or just the range. A value's interval holds
    /// with 95 %; the intervals of the ratios that verdicts rest on hold with 95 % all together.
    pub interval: bool,
}

/// The four allowed answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval of the ratio lies below 1, and its median is further from 1 than the effect floor.
    Better,
    /// The interval of the ratio lies above 1, and its median is further from 1 than the effect floor.
    Worse,
    /// The interval of the ratio contains 1, or its median lies within the effect floor.
    NoDifference,
    /// Too few processes to say.
    Inconclusive,
}

/// A configuration against the baseline (the first contestant), paired by block.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Ratio to the baseline.
    pub ratio: Estimate,
    /// What may be said.
    pub verdict: Verdict,
}

/// A metric of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The value.
    pub value: Estimate,
    /// Against the baseline; `None` for the baseline itself.
    pub versus: Option<Comparison>,
}

/// A whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// As stored (and not stored again with the analysis).
    #[serde(skip)]
    pub environment: Environment,
    /// In the order of the environment.
    pub workloads: Vec<WorkloadAnalysis>,
    /// Runs that failed: workload, configuration, pass, reason, and how many for each, in the order of the first.
    pub failures: Vec<Failure>,
    /// Runs that failed, those included whose reasons [`Self::failures`] has no room for.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed_runs: u32,
    /// Runs that measured.
    pub ok_runs: u32,
    /// Verdicts given, which the intervals are corrected for.
    pub verdicts: u32,
    /// How threads were replayed, each mode once.
    pub modes: Vec<Mode>,
    /// How an allocator compares with itself under a second name (`NAME` and `NAME-again`); none in old results.
    pub twins: Option<Twins>,
    /// How noisy it was.
    pub noise: Noise,
}

/// Serde wants a function of a reference.
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Most kinds of failure that are kept; every reason is in `runs.jsonl`.
const FAILURES_MAX: usize = 64;
/// Most characters of a reason that are kept.
const REASON_CHARS_MAX: usize = 1000;

/// Runs that failed in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Workload.
    pub workload: String,
    /// Configuration.
    pub config: String,
    /// Pass.
    pub pass: String,
    /// Stage and reason, a sentence.
    pub reason: String,
    /// How many.
    pub runs: u32,
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadAnalysis {
    /// Name.
    pub name: String,
    /// Index into `environment.workloads`.
    pub facts: usize,
    /// Whether the headline covers `steady` alone; without that mark it covers everything, start-up and exit included.
    pub steady: bool,
    /// Calls that the headline covers.
    pub calls: u64,
    /// Contestants in the order of the environment; one without any ok run is absent.
    pub configs: Vec<ConfigAnalysis>,
    /// Index into `environment.configs` of the baseline: the first contestant that was run here, whether it measured or
    /// not.
    pub baseline: Option<usize>,
    /// ns per call of decode and slot alone (`loop`), steady.
    pub floor_loop: Option<Estimate>,
    /// ns per call of the null allocator with the same touch, steady.
    pub floor_null: Option<Estimate>,
    /// The replay of what it was recorded under, held against the recording; none in results from before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<trust::Check>,
    /// CPU nanoseconds of the recorded program in steady, less the recorder's calibrated own cost.
    pub program_cpu_ns: Option<f64>,
    /// The empty timer, ns: p50, p90, p99, p99.9, max.
    pub clock: Option<LatencyRow>,
    /// Survival curve of the empty timer: ns, share slower.
    pub clock_survival: Vec<(f64, f64)>,
}

/// One configuration on one workload.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigAnalysis {
    /// Index into `environment.configs`.
    pub config: usize,
    /// Name.
    pub name: String,
    /// How charts label it.
    pub label: String,
    /// Every metric of [`metric::ALL`] that its runs know, by key, in that order.
    pub metrics: Vec<(&'static str, Figure)>,
    /// ns per call, steady, touch included.
    pub ns_per_call: Option<Figure>,
    /// ns per call of the other phases.
    pub ns_per_call_phase: Vec<(Phase, Estimate)>,
    /// Minor faults in steady.
    pub faults: Option<Figure>,
    /// Latency; `None` too where [waiting dominates](threads::ThreadsAnalysis::withholds_latency).
    pub latency: Option<LatencyAnalysis>,
    /// Its threads, where they were replayed as threads.
    pub threads: Option<threads::ThreadsAnalysis>,
    /// Memory.
    pub memory: Option<MemoryAnalysis>,
    /// The modes of each metric of memory that has two, by its key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<(&'static str, Vec<modes::Mode>)>,
    /// Calls by which the program steered its allocator and that its replay left out, by function.
    pub unreplayed: std::collections::BTreeMap<String, u64>,
    /// This allocator's own time (above the null floor) as a share of the program's CPU, 0 to 1.
    pub program_share: Option<f64>,
    /// "Switching from this to the best saves at most this share of the program's CPU", 0 to 1.
    pub saves_at_most: Option<f64>,
}

/// Percentiles of one histogram, nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LatencyRow {
    /// Entry point; `None` for the clock or for all calls together.
    pub kind: Option<CallKind>,
    /// Size class, index into [`crate::run::SIZE_CLASS_BOUNDS`]; `None` for all.
    pub class: Option<u8>,
    /// Fault or no fault; `None` for both.
    pub fault: Option<bool>,
    /// Calls.
    pub calls: u64,
    /// p50, p90, p99, p99.9 and max; `None` where fewer than ten calls lie beyond.
    pub percentiles: [Option<Percentile>; 5],
}

/// A percentile, or the clock's bound on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Percentile {
    /// Nanoseconds.
    Ns(f64),
    /// Not above twice the empty timer's own percentile: prints as `< X ns`.
    Below(f64),
}

/// Latency of one configuration.
#[derive(Clone, Debug, Serialize)]
pub struct LatencyAnalysis {
    /// By kind; then by kind, class and fault. Pooled over processes.
    pub rows: Vec<LatencyRow>,
    /// Survival curve of allocations (malloc, calloc, aligned, realloc): ns ascending, share of calls slower.
    pub allocate: Vec<(f64, f64)>,
    /// Survival curve of frees.
    pub free: Vec<(f64, f64)>,
}

/// Memory of one configuration. Bytes.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryAnalysis {
    /// Resident at peak of steady.
    pub peak: Figure,
    /// Resident at interpreter exit, live set still live.
    pub end: Figure,
    /// Resident at rest after [`MemoryAnalysis::rest_after_ms`] idle.
    pub rest: Figure,
    /// Resident after the explicit release.
    pub released: Option<Estimate>,
    /// The longest idle delay.
    pub rest_after_ms: u64,
    /// `drained`, `finalising` or `last op`.
    pub rest_from: String,
    /// Which time the allocators met in the median run; `None` in results from before there was a choice.
    pub time: Option<Time>,
    /// Live requested bytes at rest.
    pub rest_live_bytes: f64,
    /// Live requested bytes at the live peak of steady.
    pub peak_live_bytes: f64,
    /// The run that curves, owners and pools are of: the one nearest to the medians of peak and rest.
    pub shown: ShownRun,
    /// Curve of that run.
    pub curve: Vec<MemoryPoint>,
    /// Readings at rest of the same run.
    pub rest_curve: Vec<RestPoint>,
    /// The median of every reading at rest.
    pub rest_readings: Vec<RestPoint>,
    /// The median reading at peak.
    pub at_peak: MemoryPoint,
    /// The median reading at rest.
    pub at_rest: MemoryPoint,
    /// Internal fragmentation at peak: usable / requested. NaN (`null` in files) when nothing was requested.
    pub internal: f64,
    /// External fragmentation at peak: resident / usable. NaN (`null` in files) when nothing was usable.
    pub external: f64,
    /// Johnstone and Wilson's four ratios of resident to requested (METHODOLOGY states each). NaN (`null` in
    /// files) where no reading qualifies.
    pub johnstone_wilson: [f64; 4],
    /// What its pools held in the same run; `None` of an allocator that cannot tell.
    pub pools: Option<pools::PoolsAnalysis>,
    /// What happens to it after the work, by the medians.
    pub rest_shape: Option<shape::RestShape>,
    /// The ends of cycles in the same run, and their shape; none where the work was not repeated.
    pub cycles: Vec<MemoryPoint>,
    /// See [`Self::cycles`].
    pub cycles_shape: Option<shape::CyclesShape>,
    /// Who owned the bytes in the same run.
    pub owners: Option<owners::OwnersAnalysis>,
}

/// One run of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ShownRun {
    /// From 1, in the order of their blocks.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl ConfigAnalysis {
    /// The figure of a metric, by its key.
    #[must_use]
    pub fn metric(&self, key: &str) -> Option<&Figure> {
        self.metrics.iter().find(|(own, _)| *own == key).map(|(_, figure)| figure)
    }
}

/// Everything that can be said about a result.
#[must_use]
pub fn analyse(environment: Environment, runs: &[Run]) -> Analysis {
    let result = Selection { environment: &environment, runs };
    let verdicts = result.verdicts();
    let confidence = Confidence::shared_by(environment.plan.seed, verdicts);
    let workloads: Vec<WorkloadAnalysis> =
        (0..environment.workloads.len()).into_par_iter().map(|i| result.workload(i, confidence)).collect();
    let mut modes = Vec::new();
    for run in runs.iter().filter(|run| matches!(run.outcome, Outcome::Ok(_))) {
        if !modes.contains(&run.mode) {
            modes.push(run.mode);
        }
    }
    let (twins, noise, failures) = (result.twins(confidence), result.noise(confidence), failures(runs));
    let ok_runs = runs.iter().filter(|run| matches!(run.outcome, Outcome::Ok(_))).count() as u32;
    let failed_runs = runs.len() as u32 - ok_runs;
    Analysis { workloads, failures, failed_runs, ok_runs, verdicts, modes, twins, noise, environment }
}

fn failures(runs: &[Run]) -> Vec<Failure> {
    let mut failures: Vec<Failure> = Vec::new();
    let mut known: HashMap<(&str, &str, Pass, &str, &str), usize> = HashMap::new();
    for run in runs {
        let Outcome::Failed { stage, reason } = &run.outcome else { continue };
        let key = (run.workload.as_str(), run.config.as_str(), run.pass, stage.as_str(), reason.as_str());
        if let Some(at) = known.get(&key) {
            failures[*at].runs += 1;
        } else if failures.len() < FAILURES_MAX {
            known.insert(key, failures.len());
            let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
            failures.push(Failure {
                workload: run.workload.clone(),
                config: run.config.clone(),
                pass: format!("{:?}", run.pass).to_lowercase(),
                reason: format!("{stage}: {reason}"),
                runs: 1,
            });
        }
    }
    failures
}

impl Analysis {
    /// Failed runs whose reasons [`Self::failures`] has no room for.
    #[must_use]
    pub fn failed_runs_untold(&self) -> u32 {
        self.failures.iter().fold(self.failed_runs, |left, failure| left.saturating_sub(failure.runs))
    }
}

/// What [`analyse`] was given.
struct Selection<'a> {
    environment: &'a Environment,
    runs: &'a [Run],
}

impl<'a> Selection<'a> {
    /// The runs of a workload and configuration that measured.
    fn of(&self, workload: &str, config: &str) -> Vec<&'a Run> {
        let ok = |run: &&Run| matches!(run.outcome, Outcome::Ok(_)) && run.workload == workload && run.config == config;
        self.runs.iter().filter(ok).collect()
    }

    /// The first contestant that was run on a workload. Not every configuration is for every workload.
    fn baseline(&self, workload: &str) -> Option<usize> {
        let is_run = |index: &usize| {
            let name = &self.environment.configs[*index].name;
            self.runs.iter().any(|run| run.workload == workload && run.config == *name)
        };
        self.contestants().find(is_run)
    }

    /// The runs of the baseline, unless `config` is the baseline itself.
    fn against(&self, workload: &str, config: usize) -> Option<Vec<&'a Run>> {
        let baseline = self.baseline(workload).filter(|baseline| *baseline != config)?;
        Some(self.of(workload, &self.environment.configs[baseline].name))
    }

    fn contestants(&self) -> impl Iterator<Item = usize> {
        (0..self.environment.configs.len()).filter(|i| !self.environment.configs[*i].floor)
    }

    /// Verdicts that this result can give.
    fn verdicts(&self) -> u32 {
        let mut count = 0;
        for workload in &self.environment.workloads {
            for config in self.contestants() {
                let Some(baseline) = self.against(&workload.name, config) else { continue };
                let runs = self.of(&workload.name, &self.environment.configs[config].name);
                count += metric::ALL.iter().filter(|m| compare::decidable(m, &runs, &baseline)).count();
            }
        }
        count as u32
    }

    fn workload(&self, facts: usize, confidence: Confidence) -> WorkloadAnalysis {
        let workload = &self.environment.workloads[facts];
        let all: Vec<&Run> = self.runs.iter().filter(|run| run.workload == workload.name).collect();
        let clock = latency::clock(latency::passes(&all));
        let contestants: Vec<usize> = self.contestants().collect();
        let mut configs: Vec<ConfigAnalysis> =
            contestants.into_par_iter().filter_map(|i| self.config(i, workload, clock.as_ref(), confidence)).collect();
        let floor = |name: &str| {
            let runs = self.of(&workload.name, name);
            compare::figure(metric::NS_PER_CALL, &runs, None, &[&workload.name, name], confidence).map(|f| f.value)
        };
        let (floor_loop, floor_null) = (floor("loop"), floor("null"));
        let calls = all.iter().find_map(|run| metric::headline_calls(run)).unwrap_or(0);
        let steady = workload.image.phase_ops[Phase::Steady as usize].is_some();
        let program_cpu_ns = price::program_cpu_ns(&workload.metadata).filter(|_| steady);
        price::fill(&mut configs, floor_null.map(|f| f.median), calls, program_cpu_ns);
        WorkloadAnalysis {
            name: workload.name.clone(),
            facts,
            steady,
            calls,
            configs,
            baseline: self.baseline(&workload.name),
            floor_loop,
            floor_null,
            check: self.check(workload, &all),
            program_cpu_ns,
            clock: clock.as_ref().map(latency::Pooled::clock_row),
            clock_survival: clock.map(|clock| clock.survival()).unwrap_or_default(),
        }
    }

    /// What a program is recorded under are no variables, or the pool alone where Arrow's own pool is not used.
    fn check(&self, workload: &WorkloadFacts, all: &[&Run]) -> Option<trust::Check> {
        all.iter().find_map(|run| metric::at_marks(run).filter(|readings| !readings.is_empty()))?;
        let calls = &workload.metadata.totals;
        let has_arrow = calls.calls_by_domain.get(trace::Domain::Arrow.name()).is_some_and(|calls| *calls > 0);
        let names = [Some("today"), (!has_arrow).then_some("pool")];
        let mut runs = names.into_iter().flatten().map(|name| self.of(&workload.name, name));
        let runs = runs.find(|runs| !runs.is_empty()).unwrap_or_default();
        let replays: Vec<&[[u64; 2]]> = runs.iter().filter_map(|run| metric::at_marks(run)).collect();
        Some(trust::check(&recorded_marks(&workload.metadata), &replays, calls.threads()))
    }

    /// One contestant; `None` when no run of it measured.
    fn config(
        &self,
        index: usize,
        workload: &WorkloadFacts,
        clock: Option<&latency::Pooled>,
        confidence: Confidence,
    ) -> Option<ConfigAnalysis> {
        let facts = &self.environment.configs[index];
        let names = [workload.name.as_str(), facts.name.as_str()];
        let (runs, baseline) = (self.of(names[0], names[1]), self.against(names[0], index));
        if runs.is_empty() {
            return None;
        }
        let figure = |metric| compare::figure(metric, &runs, baseline.as_deref(), &names, confidence);
        let metrics: Vec<_> = metric::ALL.par_iter().filter_map(|m| Some((m.key, figure(m)?))).collect();
        let of = |metric: &metric::Metric| metrics.iter().find(|(key, _)| *key == metric.key).map(|(_, f)| *f);
        let phases = Phase::ALL.into_iter().filter_map(|phase| {
            let values: Vec<f64> = runs.iter().filter_map(|run| metric::ns_per_call_in(run, phase)).collect();
            let mut random = Random::new(confidence.seed, &[names[0], names[1], phase.name()]);
            Some((phase, stats::estimate(&values, stats::MISS_CHANCE, &mut random)?))
        });
        let threads = threads::threads(&runs);
        let withholds = threads.is_some_and(|threads| threads.withholds_latency());
        let passes: Vec<_> = latency::passes(&runs).filter(|_| !withholds).collect();
        let footprint = runs.iter().find_map(|run| metric::footprint(run));
        Some(ConfigAnalysis {
            config: index,
            name: facts.name.clone(),
            label: facts.label.clone(),
            ns_per_call: of(metric::NS_PER_CALL),
            ns_per_call_phase: phases.filter(|(phase, _)| *phase != Phase::Steady).collect(),
            faults: of(metric::FAULTS_MINOR),
            latency: latency::latency(&passes, clock),
            threads,
            memory: memory::memory(&runs, &metrics, &workload.image, facts),
            modes: memory::bimodal(&runs, workload.metadata.totals.threads()),
            metrics,
            unreplayed: footprint.map(|footprint| footprint.unreplayed.clone()).unwrap_or_default(),
            program_share: None,
            saves_at_most: None,
        })
    }
}
