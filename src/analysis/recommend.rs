//! What to deploy: candidates, constraints, and a decision that never says more than the runs do.
//!
//! Invariant: only what variables alone bring about is ever chosen; "better" rests on a verdict of the analysis, and
//! where there is none the decision is `Inconclusive`, whatever the medians say.

mod candidates;

pub use candidates::{fit, process_bytes, today_first, words_of};

use super::{Analysis, Comparison, Estimate, Percentile, Verdict, WorkloadAnalysis};
use crate::metric::{self, Floor};
use crate::run::{RestState, Run};
use serde::Serialize;

/// Version of the JSON.
pub const RECOMMEND_SCHEMA: u32 = 1;

/// What is to be low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Resident memory at its peak.
    Peak,
    /// Resident memory at rest.
    Rest,
    /// Time per call.
    Speed,
    /// The slow calls: the worst p99.9 of any entry point.
    Latency,
}

impl Objective {
    /// Every objective.
    pub const ALL: [Self; 4] = [Self::Rest, Self::Peak, Self::Speed, Self::Latency];
}

/// What the user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Wish {
    /// What is to be low.
    pub objective: Objective,
    /// Most bytes that the process may have resident.
    pub limit_bytes: Option<u64>,
    /// Most nanoseconds that the worst p99.9 may be.
    pub p999_ns_max: Option<f64>,
}

/// Whether a prediction fits into a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// With more room than predictions are allowed to be off.
    Yes,
    /// By less than that.
    Tight,
    /// Its upper end does not.
    No,
}

/// Why a configuration is out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Exclusion {
    /// The predicted process peak lies above the limit.
    TooLarge,
    /// How large the process is beside its heap is unknown, so nobody can say whether it fits.
    SizeUnknown,
    /// The worst p99.9 lies above what is allowed, nanoseconds.
    TooSlow(f64),
    /// The clock of the latency pass is too coarse to tell, or there was none.
    LatencyUnknown,
    /// So many of its runs failed.
    Failed(u32),
    /// It could not serve some allocations.
    OutOfMemory,
    /// Nothing measured what the objective is about.
    NotMeasured,
    /// It looks for mistakes in the program; nobody runs a service with it.
    Diagnostic,
}

/// A configuration as a choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Name.
    pub name: String,
    /// Index into the configurations of the environment.
    #[serde(skip)]
    pub facts: usize,
    /// Index into [`WorkloadAnalysis::configs`].
    #[serde(skip)]
    pub config: usize,
    /// The variables to set; `None` for a what-if.
    pub deploy: Option<Vec<(String, String)>>,
    /// Whether it was measured as a what-if that on this trace is the same as [`Self::deploy`].
    pub is_stand_in: bool,
    /// Settings that no allocator confirmed.
    pub unverified: Vec<String>,
    /// Predicted peak of the whole process, bytes.
    pub process_bytes: Option<Estimate>,
    /// Whether that fits, where a limit was given.
    pub fit: Option<Fit>,
    /// Worst p99.9 of any entry point.
    pub p999: Option<Percentile>,
    /// Median of each objective, as [`Objective::ALL`]; bytes or nanoseconds.
    pub values: [Option<f64>; 4],
    /// Verdict on each objective against what runs today, as [`Objective::ALL`].
    pub versus: [Option<Comparison>; 4],
    /// Why it may not be chosen.
    pub exclusions: Vec<Exclusion>,
}

impl Candidate {
    /// Its median of an objective.
    #[must_use]
    pub fn value(&self, objective: Objective) -> Option<f64> {
        self.values[objective.index()]
    }

    /// Whether it may be chosen.
    #[must_use]
    pub fn is_eligible(&self) -> bool {
        self.deploy.is_some() && self.exclusions.is_empty()
    }

    /// Whether it is what runs without any variable.
    #[must_use]
    pub fn is_today(&self) -> bool {
        self.deploy.as_ref().is_some_and(Vec::is_empty)
    }

    fn verdict(&self, objective: Objective) -> Option<Verdict> {
        self.versus[objective.index()].map(|versus| versus.verdict)
    }
}

impl Objective {
    fn index(self) -> usize {
        Self::ALL.iter().position(|own| *own == self).unwrap_or(0)
    }

    /// From which difference on two medians count as apart.
    const fn floor(self) -> Floor {
        match self {
            Self::Rest | Self::Peak => Floor { relative: 0.01, absolute: 512.0 * 1024.0 },
            Self::Speed => Floor { relative: 0.01, absolute: 0.0 },
            // Buckets of the histograms are this wide.
            Self::Latency => Floor { relative: 0.10, absolute: 0.0 },
        }
    }

    fn is_lower(self, value: f64, than: f64) -> bool {
        let floor = self.floor();
        than - value > (floor.relative * than).max(floor.absolute)
    }
}

/// What to do. Indices are into [`Recommendation::candidates`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// `to` is better than what runs today; `peers` are better too, and their intervals overlap with its.
    Switch {
        /// The lowest median among the better ones.
        to: usize,
        /// Those that the runs do not tell from it.
        peers: Vec<usize>,
    },
    /// Nothing that can be deployed is better than what runs today.
    Keep {
        /// What runs today.
        today: usize,
    },
    /// What runs today does not meet the constraints, or was not measured; `to` has the lowest median of what does.
    OnlyFit {
        /// It.
        to: usize,
    },
    /// `leader` has the lowest median, and too few runs say so.
    Inconclusive {
        /// It.
        leader: usize,
    },
    /// Nothing that can be deployed meets the constraints.
    NothingFits,
    /// No variables stand for anything that was measured.
    NothingDeployable,
}

impl Decision {
    /// The configuration that it is about.
    #[must_use]
    pub const fn subject(&self) -> Option<usize> {
        match self {
            Self::Switch { to, .. } | Self::OnlyFit { to } => Some(*to),
            Self::Keep { today } => Some(*today),
            Self::Inconclusive { leader } => Some(*leader),
            Self::NothingFits | Self::NothingDeployable => None,
        }
    }
}

/// Who leads under another question; names are of candidates that can be deployed and are not excluded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// By objective: the lowest median.
    pub objectives: Vec<(Objective, String)>,
    /// By idle delay in milliseconds, of the medians: the lowest resident memory.
    pub delays: Vec<(u64, String)>,
    /// After a trickle of calls.
    pub trickle: Option<String>,
    /// After an explicit release.
    pub release: Option<String>,
    /// The lowest median of the objective when no constraint holds.
    pub unconstrained: Option<String>,
    /// The smallest limit of the process that the subject of the decision still fits, bytes.
    pub limit_bytes_min: Option<u64>,
    /// What-ifs with a lower median of the objective than anything that can be deployed.
    pub what_ifs: Vec<String>,
}

/// What is recommended for one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// Workload.
    pub workload: String,
    /// SHA-256 of its trace.
    pub trace_sha256: String,
    /// What was asked for.
    pub wish: Wish,
    /// What everything is compared with.
    pub baseline: Option<usize>,
    /// Whether that is what runs without any variable.
    pub baseline_is_today: bool,
    /// Every configuration that measured something here.
    pub candidates: Vec<Candidate>,
    /// What to do.
    pub decision: Decision,
    /// Candidates that none beats in peak, rest and time at once, what-ifs included.
    pub front: Vec<usize>,
    /// Who leads under another question.
    pub flips: Flips,
    /// Memory of the recorded process that is no heap, which every prediction adds, bytes.
    pub no_heap_bytes: Option<u64>,
    /// How far a prediction may be off, as a share: the bar that `live` holds it against.
    pub allowance: f64,
}

/// Decides for one workload of an analysis whose environment went through [`today_first`].
#[must_use]
pub fn recommend(analysis: &Analysis, runs: &[Run], workload: &WorkloadAnalysis, wish: &Wish) -> Recommendation {
    let facts = &analysis.environment.workloads[workload.facts];
    let allowance = candidates::allowance(facts);
    let candidates = candidates::candidates(analysis, runs, workload, wish);
    let baseline = candidates.iter().position(|candidate| Some(candidate.facts) == workload.baseline);
    let decision = decide(&candidates, workload, wish.objective);
    Recommendation {
        workload: workload.name.clone(),
        trace_sha256: facts.sha256.clone(),
        wish: *wish,
        baseline,
        baseline_is_today: baseline.is_some_and(|i| candidates[i].is_today()),
        front: front(&candidates),
        flips: flips(&candidates, workload, wish, &decision),
        no_heap_bytes: candidates::no_heap_bytes(&facts.metadata),
        allowance,
        decision,
        candidates,
    }
}

/// The candidate with the lowest median among some; of equal ones the first.
fn leader(candidates: &[Candidate], objective: Objective, may: impl Fn(&Candidate) -> bool) -> Option<usize> {
    let of = |index: usize| candidates[index].value(objective);
    let known = (0..candidates.len()).filter(|i| may(&candidates[*i]) && of(*i).is_some());
    known.min_by(|a, b| of(*a).unwrap_or(f64::MAX).total_cmp(&of(*b).unwrap_or(f64::MAX)))
}

fn decide(candidates: &[Candidate], workload: &WorkloadAnalysis, objective: Objective) -> Decision {
    if !candidates.iter().any(|candidate| candidate.deploy.is_some()) {
        return Decision::NothingDeployable;
    }
    let Some(lowest) = leader(candidates, objective, Candidate::is_eligible) else { return Decision::NothingFits };
    let is_baseline = |candidate: &Candidate| Some(candidate.facts) == workload.baseline;
    let today = candidates.iter().position(|c| c.is_today() && c.is_eligible() && is_baseline(c));
    let Some(today) = today else { return Decision::OnlyFit { to: lowest } };
    let is_better = |c: &Candidate| c.is_eligible() && c.verdict(objective) == Some(Verdict::Better);
    if let Some(to) = leader(candidates, objective, is_better) {
        let interval = |i: usize| {
            let figure = candidates[i].versus[objective.index()].map(|versus| versus.ratio);
            figure.map_or((f64::MIN, f64::MAX), |ratio| (ratio.low, ratio.high))
        };
        let (_, high) = interval(to);
        let overlaps = |i: &usize| *i != to && is_better(&candidates[*i]) && interval(*i).0 <= high;
        return Decision::Switch { to, peers: (0..candidates.len()).filter(overlaps).collect() };
    }
    // Nobody is known to be better. Whoever seems to be, with too few runs, is named, and called that.
    let own = candidates[today].value(objective);
    let seems = |c: &Candidate| {
        let undecided = matches!(c.verdict(objective), None | Some(Verdict::Inconclusive));
        c.is_eligible() && undecided && own.zip(c.value(objective)).is_some_and(|(own, v)| objective.is_lower(v, own))
    };
    match leader(candidates, objective, seems) {
        Some(leader) => Decision::Inconclusive { leader },
        None => Decision::Keep { today },
    }
}

/// Candidates that no other is at least as low as in peak, rest and time, and lower than in one of them.
fn front(candidates: &[Candidate]) -> Vec<usize> {
    const ABOUT: [Objective; 3] = [Objective::Peak, Objective::Rest, Objective::Speed];
    let known = |c: &Candidate| ABOUT.iter().all(|objective| c.value(*objective).is_some());
    let beats = |one: &Candidate, other: &Candidate| {
        let pairs = || ABOUT.iter().filter_map(|o| Some((*o, one.value(*o)?, other.value(*o)?)));
        pairs().all(|(o, a, b)| !o.is_lower(b, a)) && pairs().any(|(o, a, b)| o.is_lower(a, b))
    };
    let stands =
        |i: &usize| known(&candidates[*i]) && !candidates.iter().any(|c| known(c) && beats(c, &candidates[*i]));
    (0..candidates.len()).filter(stands).collect()
}

fn flips(candidates: &[Candidate], workload: &WorkloadAnalysis, wish: &Wish, decision: &Decision) -> Flips {
    let name = |index: usize| candidates[index].name.clone();
    let objectives = Objective::ALL
        .into_iter()
        .filter_map(|objective| Some((objective, name(leader(candidates, objective, Candidate::is_eligible)?))));
    // Medians without an interval, so no verdict; only who is lowest.
    let lowest = |bytes: &dyn Fn(&super::MemoryAnalysis) -> Option<u64>| {
        let eligible = candidates.iter().filter(|candidate| candidate.is_eligible());
        let read = eligible.filter_map(|c| Some((bytes(workload.configs[c.config].memory.as_ref()?)?, c.name.clone())));
        read.min_by_key(|(bytes, _)| *bytes).map(|(_, name)| name)
    };
    let reading = |state: RestState, after_ms: Option<u64>| {
        move |memory: &super::MemoryAnalysis| {
            let is_it = |p: &&crate::run::RestPoint| p.state == state && after_ms.is_none_or(|ms| near(p.after_ms, ms));
            memory.rest_readings.iter().rfind(is_it).map(|point| point.memory.resident_bytes)
        }
    };
    let mut delays: Vec<u64> = Vec::new();
    for memory in workload.configs.iter().filter_map(|config| config.memory.as_ref()).take(1) {
        delays.extend(memory.rest_readings.iter().filter(|p| p.state == RestState::Idle).map(|p| p.after_ms));
    }
    let deployable = leader(candidates, wish.objective, Candidate::is_eligible);
    let best = deployable.and_then(|i| candidates[i].value(wish.objective));
    let is_lower =
        |c: &&Candidate| best.zip(c.value(wish.objective)).is_none_or(|(b, v)| wish.objective.is_lower(v, b));
    let what_ifs = candidates.iter().filter(|c| c.deploy.is_none() && c.value(wish.objective).is_some());
    use Exclusion::{Diagnostic, Failed, NotMeasured, OutOfMemory};
    let whatever_is_asked = |e: &Exclusion| matches!(e, Failed(_) | OutOfMemory | NotMeasured | Diagnostic);
    let unconstrained = |c: &Candidate| c.deploy.is_some() && !c.exclusions.iter().any(whatever_is_asked);
    Flips {
        objectives: objectives.collect(),
        delays: delays.into_iter().filter_map(|ms| Some((ms, lowest(&reading(RestState::Idle, Some(ms)))?))).collect(),
        trickle: lowest(&reading(RestState::Trickle, None)),
        release: lowest(&reading(RestState::Release, None)),
        unconstrained: leader(candidates, wish.objective, unconstrained).map(name),
        limit_bytes_min: decision
            .subject()
            .and_then(|subject| candidates[subject].process_bytes)
            .map(|process| process.high as u64),
        what_ifs: what_ifs.filter(is_lower).map(|candidate| candidate.name.clone()).collect(),
    }
}

/// Whether a reading was meant to be at this delay: sleeps end a little late.
fn near(after_ms: u64, asked_ms: u64) -> bool {
    after_ms.abs_diff(asked_ms) <= 50.max(asked_ms / 20)
}

/// The metric behind an objective; `None` for the percentile.
#[must_use]
pub const fn metric_of(objective: Objective) -> Option<&'static metric::Metric> {
    match objective {
        Objective::Peak => Some(metric::RSS_BYTES_PEAK),
        Objective::Rest => Some(metric::RSS_BYTES_REST),
        Objective::Speed => Some(metric::NS_PER_CALL),
        Objective::Latency => None,
    }
}

#[cfg(test)]
mod tests;
