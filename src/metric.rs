//! What can be read off one run: every number that a table, a verdict or a comparison of results is about.
//!
//! Invariant: a metric looks at one run only and gives `None` where the run does not know; every metric is a cost, so
//! lower is better.

use crate::run::{Footprint, Observation, Outcome, Pass, PhaseCost, RestState, Run, Throughput};
use trace::Phase;

/// A number derived from one run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name in files.
    pub key: &'static str,
    /// Name on screens.
    pub label: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The pass whose runs know it.
    pub pass: Pass,
    /// From which difference on it may be called better or worse; `None` for a metric that gets no verdict.
    pub floor: Option<Floor>,
    /// Reads it.
    pub of: fn(&Run) -> Option<f64>,
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes; printed as MiB.
    Bytes,
    /// Things.
    Count,
}

/// The smallest difference worth a verdict: both bounds must be passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// As a share of the baseline.
    pub relative: f64,
    /// In the metric's unit.
    pub absolute: f64,
}

/// Time: 1 %.
const TIME: Option<Floor> = Some(Floor { relative: 0.01, absolute: 0.0 });
/// Memory: 1 % and 512 KiB.
const MEMORY: Option<Floor> = Some(Floor { relative: 0.01, absolute: 512.0 * 1024.0 });
/// Faults: 1 % and 512 KiB worth of OS pages.
const FAULTS: Option<Floor> = Some(Floor { relative: 0.01, absolute: 128.0 });

/// Nanoseconds per call of the headline: `steady`, or everything in a trace without that mark.
pub const NS_PER_CALL: &Metric = &Metric {
    key: "ns_per_call",
    label: "time per call",
    unit: Unit::Nanoseconds,
    pass: Pass::Throughput,
    floor: TIME,
    of: |run| throughput(run).and_then(|t| ns_per_call(headline(t))),
};

/// Minor page faults of the headline.
pub const FAULTS_MINOR: &Metric = &Metric {
    key: "faults_minor",
    label: "page faults",
    unit: Unit::Count,
    pass: Pass::Throughput,
    floor: FAULTS,
    of: |run| throughput(run).map(|t| headline(t).map(|cost| cost.faults_minor as f64).sum()),
};

/// Resident bytes at the peak of the headline.
pub const RSS_BYTES_PEAK: &Metric = &Metric {
    key: "rss_bytes_peak",
    label: "resident at peak",
    unit: Unit::Bytes,
    pass: Pass::Footprint,
    floor: MEMORY,
    of: |run| footprint(run).map(|f| f.peak.resident_bytes as f64),
};

/// Resident bytes at interpreter exit.
pub const RSS_BYTES_END: &Metric = &Metric {
    key: "rss_bytes_end",
    label: "resident at end",
    unit: Unit::Bytes,
    pass: Pass::Footprint,
    floor: MEMORY,
    of: |run| footprint(run).map(|f| f.end.resident_bytes as f64),
};

/// Resident bytes at rest, after the longest idle delay.
pub const RSS_BYTES_REST: &Metric = &Metric {
    key: "rss_bytes_rest",
    label: "resident at rest",
    unit: Unit::Bytes,
    pass: Pass::Footprint,
    floor: MEMORY,
    of: |run| footprint(run).map(|f| at_rest(f).memory.resident_bytes as f64),
};

/// Resident bytes after the trickle of small requests.
pub const RSS_BYTES_TRICKLED: &Metric = &Metric {
    key: "rss_bytes_trickled",
    label: "resident after a trickle of calls",
    unit: Unit::Bytes,
    pass: Pass::Footprint,
    floor: None,
    of: |run| footprint(run).and_then(|f| last_in(f, RestState::Trickle)),
};

/// Resident bytes after the explicit release.
pub const RSS_BYTES_RELEASED: &Metric = &Metric {
    key: "rss_bytes_released",
    label: "resident after explicit release",
    unit: Unit::Bytes,
    pass: Pass::Footprint,
    floor: None,
    of: |run| footprint(run).and_then(|f| last_in(f, RestState::Release)),
};

/// Every metric, in the order in which tables list them.
pub const ALL: &[&Metric] = &[
    NS_PER_CALL,
    NS_PER_CALL_STARTUP,
    NS_PER_CALL_DRAINED,
    NS_PER_CALL_FINALISING,
    KERNEL_NS_TOTAL,
    FAULTS_MINOR,
    FAULTS_MAJOR,
    RSS_BYTES_PEAK,
    RSS_BYTES_END,
    RSS_BYTES_REST,
    RSS_BYTES_TRICKLED,
    RSS_BYTES_RELEASED,
    MAPPED_BYTES_PEAK,
    FAILED_ALLOCATIONS,
];

const NS_PER_CALL_STARTUP: &Metric = &Metric {
    key: "ns_per_call_startup",
    label: "time per call, start-up",
    of: |run| throughput(run).and_then(|t| ns_per_call(in_phase(t, Phase::Startup))),
    floor: None,
    ..*NS_PER_CALL
};

const NS_PER_CALL_DRAINED: &Metric = &Metric {
    key: "ns_per_call_drained",
    label: "time per call, after the work",
    of: |run| throughput(run).and_then(|t| ns_per_call(in_phase(t, Phase::Drained))),
    floor: None,
    ..*NS_PER_CALL
};

const NS_PER_CALL_FINALISING: &Metric = &Metric {
    key: "ns_per_call_finalising",
    label: "time per call, interpreter exit",
    of: |run| throughput(run).and_then(|t| ns_per_call(in_phase(t, Phase::Finalising))),
    floor: None,
    ..*NS_PER_CALL
};

const KERNEL_NS_TOTAL: &Metric = &Metric {
    key: "kernel_ns_total",
    label: "CPU time in the kernel",
    of: |run| throughput(run).map(|t| headline(t).map(|cost| cost.system_ns as f64).sum()),
    floor: None,
    ..*NS_PER_CALL
};

const FAULTS_MAJOR: &Metric = &Metric {
    key: "faults_major",
    label: "major page faults",
    of: |run| throughput(run).map(|t| headline(t).map(|cost| cost.faults_major as f64).sum()),
    floor: None,
    ..*FAULTS_MINOR
};

const MAPPED_BYTES_PEAK: &Metric = &Metric {
    key: "mapped_bytes_peak",
    label: "address space at peak",
    of: |run| footprint(run).map(|f| f.peak.mapped_bytes as f64),
    floor: None,
    ..*RSS_BYTES_PEAK
};

const FAILED_ALLOCATIONS: &Metric = &Metric {
    key: "failed_allocations",
    label: "allocations that failed",
    of: |run| throughput(run).map(|t| t.failed_allocations as f64),
    floor: None,
    ..*FAULTS_MINOR
};

/// The time per call of one phase, whatever the headline covers.
#[must_use]
pub fn ns_per_call_in(run: &Run, phase: Phase) -> Option<f64> {
    throughput(run).and_then(|t| ns_per_call(in_phase(t, phase)))
}

/// Calls that the headline covers.
#[must_use]
pub fn headline_calls(run: &Run) -> Option<u64> {
    throughput(run).map(|t| headline(t).map(|cost| cost.calls).sum())
}

/// What a footprint pass saw, if the run is one.
#[must_use]
pub fn footprint(run: &Run) -> Option<&Footprint> {
    match &run.outcome {
        Outcome::Ok(Observation::Footprint(footprint)) => Some(footprint),
        _ => None,
    }
}

/// Resident and requested bytes at every mark, if the run is a footprint pass.
#[must_use]
pub fn at_marks(run: &Run) -> Option<&[[u64; 2]]> {
    footprint(run).map(|footprint| footprint.at_marks.as_slice())
}

/// The reading at rest: the last one of the idle time. A child that did not idle was last read at the mark which rest
/// follows, and that reading is 0 ms after it.
#[must_use]
pub fn at_rest(footprint: &Footprint) -> crate::run::RestPoint {
    let idle = footprint.rest.iter().rfind(|point| point.state == RestState::Idle);
    idle.copied().unwrap_or_else(|| {
        let drained = footprint.at_phase.iter().find(|(phase, _)| phase.name() == footprint.rest_from);
        let memory = drained.map_or(footprint.end, |(_, memory)| *memory);
        crate::run::RestPoint { state: RestState::Idle, after_ms: 0, memory }
    })
}

fn last_in(footprint: &Footprint, state: RestState) -> Option<f64> {
    footprint.rest.iter().rfind(|point| point.state == state).map(|point| point.memory.resident_bytes as f64)
}

fn throughput(run: &Run) -> Option<&Throughput> {
    match &run.outcome {
        Outcome::Ok(Observation::Throughput(throughput)) => Some(throughput),
        _ => None,
    }
}

/// `steady`, or every phase where the trace has no such mark.
fn headline(throughput: &Throughput) -> impl Iterator<Item = &PhaseCost> {
    let steady = throughput.phases.iter().any(|cost| cost.phase == Phase::Steady);
    throughput.phases.iter().filter(move |cost| !steady || cost.phase == Phase::Steady)
}

fn in_phase(throughput: &Throughput, phase: Phase) -> impl Iterator<Item = &PhaseCost> {
    throughput.phases.iter().filter(move |cost| cost.phase == phase)
}

fn ns_per_call<'a>(costs: impl Iterator<Item = &'a PhaseCost>) -> Option<f64> {
    let (wall, calls) = costs.fold((0.0, 0.0), |(wall, calls), c| (wall + c.wall_ns as f64, calls + c.calls as f64));
    (calls > 0.0).then(|| wall / calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::fixture::{Invention, runs};

    #[test]
    fn keys_are_unique_and_say_their_unit() {
        for (i, metric) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.key != metric.key), "{}", metric.key);
            assert_eq!(metric.unit == Unit::Bytes, metric.key.contains("_bytes_"), "{}", metric.key);
            assert_eq!(metric.unit == Unit::Nanoseconds, metric.key.contains("ns_"), "{}", metric.key);
        }
    }

    #[test]
    fn a_metric_knows_its_own_pass_only() {
        for run in runs(&Invention::default()) {
            for metric in ALL {
                assert!(metric.pass == run.pass || (metric.of)(&run).is_none(), "{}", metric.key);
            }
        }
    }

    #[test]
    fn the_headline_is_steady_or_everything() {
        let calls = |steady| {
            let runs = runs(&Invention { steady, ..Invention::default() });
            runs.iter().find_map(headline_calls).expect("throughput runs")
        };
        assert_eq!(calls(true), 3_100_000);
        assert_eq!(calls(false), 3_600_000);
    }
}
