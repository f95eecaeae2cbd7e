//! Runs in, numbers with intervals and verdicts out. Knows no screen and no chart.
//!
//! Invariant: the same runs give the same analysis, bit for bit (bootstrap seeds derive from the result's own seed);
//! the unit of replication is the process.

use crate::run::{CallKind, Environment, MemoryPoint, RestPoint};
use serde::Serialize;
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
    /// Whether low and high are a 95 % bootstrap interval (6 processes and more) or just the range.
    pub interval: bool,
}

/// The four allowed answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Certainly and by more than the effect floor below the baseline.
    Better,
    /// Certainly and by more than the effect floor above it.
    Worse,
    /// The interval of the ratio contains 1, or lies within the effect floor.
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
    /// As stored.
    pub environment: Environment,
    /// In the order of the environment.
    pub workloads: Vec<WorkloadAnalysis>,
    /// Runs that failed: workload, configuration, pass, reason.
    pub failures: Vec<Failure>,
    /// Runs that measured.
    pub ok_runs: u32,
    /// Verdicts given, which the intervals are corrected for.
    pub verdicts: u32,
}

/// A failed run.
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
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct WorkloadAnalysis {
    /// Name.
    pub name: String,
    /// Index into `environment.workloads`.
    pub facts: usize,
    /// Contestants in the order of the environment; one without any ok run is absent.
    pub configs: Vec<ConfigAnalysis>,
    /// ns per call of decode and slot alone (`loop`), steady.
    pub floor_loop: Option<Estimate>,
    /// ns per call of the null allocator with the same touch, steady.
    pub floor_null: Option<Estimate>,
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
    /// ns per call, steady, touch included.
    pub ns_per_call: Option<Figure>,
    /// ns per call of the other phases.
    pub ns_per_call_phase: Vec<(Phase, Estimate)>,
    /// Minor faults in steady.
    pub faults: Option<Figure>,
    /// Latency.
    pub latency: Option<LatencyAnalysis>,
    /// Memory.
    pub memory: Option<MemoryAnalysis>,
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
    /// Live requested bytes at rest.
    pub rest_live_bytes: f64,
    /// Live requested bytes at the live peak of steady.
    pub peak_live_bytes: f64,
    /// Curve of the median run (by peak).
    pub curve: Vec<MemoryPoint>,
    /// Readings at rest of the same run.
    pub rest_curve: Vec<RestPoint>,
    /// The reading at peak of the same run.
    pub at_peak: MemoryPoint,
    /// The reading at rest of the same run.
    pub at_rest: MemoryPoint,
    /// Internal fragmentation at peak: usable / requested.
    pub internal: f64,
    /// External fragmentation at peak: resident / usable.
    pub external: f64,
    /// Johnstone and Wilson's four ratios of resident to requested (METHODOLOGY states each).
    pub johnstone_wilson: [f64; 4],
}
