//! The configurations of a result as choices: the variables that bring each about, and what constraints say of it.
//!
//! Invariant: a what-if counts as deployable only where the trace cannot tell it from a configuration of variables,
//! and then it says so.

use super::{Candidate, Exclusion, Fit, Objective, Wish, metric_of};
use crate::analysis::fidelity::widen_share;
use crate::analysis::{Analysis, ConfigAnalysis, Estimate, Percentile, Random, WorkloadAnalysis, control, stats};
use crate::metric;
use crate::run::{ConfigFacts, Environment, Footprint, Outcome, Run, WorkloadFacts};
use trace::{Domain, Metadata, Phase};

/// Index of p99.9 among [`crate::analysis::LatencyRow::percentiles`].
const P999: usize = 3;
/// The variables that choose allocators.
const PYTHON_VARIABLE: &str = "PYTHONMALLOC";
/// What ends its values with debug hooks.
const HOOKED: &str = "debug";
const ARROW_VARIABLE: &str = "ARROW_DEFAULT_MEMORY_POOL";
/// Names of what-ifs that variables may stand for, and how Python's own domains are served in them.
const STAND_INS: [&str; 2] = ["pool", "system"];

/// Puts what runs without any variable first, and its twin on programs without Arrow second, so that everything is
/// compared with it.
pub fn today_first(environment: &mut Environment) {
    let rank = |config: &ConfigFacts| match words_of(config) {
        Some(words) if words.is_empty() => 0,
        _ if config.name == STAND_INS[0] => 1,
        _ => 2,
    };
    environment.configs.sort_by_key(rank);
}

/// The variables that a configuration is deployed by; `None` for a what-if.
#[must_use]
pub fn words_of(config: &ConfigFacts) -> Option<Vec<(String, String)>> {
    if !config.deployable {
        return None;
    }
    // Results from before words were kept have them as the name, unless that is the name of none.
    let text = if config.words.is_empty() && config.name.contains('=') { &config.name } else { &config.words };
    let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split_whitespace().map(pair).collect()
}

/// The variables that bring about the same as a what-if, on a trace: `pool` is what runs today where Arrow is
/// not asked.
fn stands_for(config: &ConfigFacts, metadata: &Metadata) -> Option<Vec<(String, String)>> {
    let is_plain =
        STAND_INS.contains(&config.name.as_str()) && (config.words.is_empty() || config.words == config.name);
    if !is_plain || config.floor {
        return None;
    }
    let calls = |domain: Domain| metadata.totals.calls_by_domain.get(domain.name()).is_some_and(|calls| *calls > 0);
    let mut words = Vec::new();
    if config.name == STAND_INS[1] {
        words.push((PYTHON_VARIABLE.to_owned(), "malloc".to_owned()));
    }
    if calls(Domain::Arrow) {
        words.push((ARROW_VARIABLE.to_owned(), "system".to_owned()));
    }
    Some(words)
}

/// Every configuration that measured something on a workload.
pub(super) fn candidates(
    analysis: &Analysis,
    runs: &[Run],
    workload: &WorkloadAnalysis,
    wish: &Wish,
) -> Vec<Candidate> {
    let environment = &analysis.environment;
    let own: Vec<Vec<(String, String)>> = environment.configs.iter().filter_map(words_of).collect();
    // A second name for the same configuration is there to see whether it comes out alike.
    let is_twin = |name: &str| control::original(&environment.configs, name).is_some();
    let all = workload.configs.iter().enumerate().filter(|(_, config)| !is_twin(&config.name));
    all.map(|(index, config)| {
        let facts = &environment.configs[config.config];
        let metadata = &environment.workloads[workload.facts].metadata;
        let typed = words_of(facts);
        let measured = |words: &Vec<(String, String)>| {
            let same = |config: &ConfigAnalysis| words_of(&environment.configs[config.config]).as_ref() == Some(words);
            own.contains(words) && workload.configs.iter().any(same)
        };
        let stand_in = || stands_for(facts, metadata).filter(|words| !measured(words));
        let is_stand_in = typed.is_none() && stand_in().is_some();
        let mut candidate = Candidate {
            name: config.name.clone(),
            facts: config.config,
            config: index,
            deploy: typed.or_else(stand_in),
            is_stand_in,
            unverified: facts.unverified.clone(),
            process_bytes: process_bytes(analysis, runs, workload, &config.name),
            fit: None,
            p999: worst_p999(config),
            values: Objective::ALL.map(|objective| value(config, objective)),
            versus: Objective::ALL.map(|o| metric_of(o).and_then(|m| config.metric(m.key)?.versus)),
            exclusions: Vec::new(),
        };
        constrain(&mut candidate, &environment.workloads[workload.facts], wish);
        candidate.exclusions.extend(faults(config, runs, workload, wish.objective));
        let is_hooked = |(name, value): &(String, String)| name == PYTHON_VARIABLE && value.ends_with(HOOKED);
        candidate.exclusions.extend(candidate.deploy.iter().flatten().any(is_hooked).then_some(Exclusion::Diagnostic));
        candidate
    })
    .collect()
}

fn value(config: &ConfigAnalysis, objective: Objective) -> Option<f64> {
    match metric_of(objective) {
        Some(metric) => config.metric(metric.key).map(|figure| figure.value.median),
        None => worst_p999(config).map(|p999| match p999 {
            Percentile::Ns(ns) | Percentile::Below(ns) => ns,
        }),
    }
}

/// The largest p99.9 of any entry point whose calls are enough for one.
fn worst_p999(config: &ConfigAnalysis) -> Option<Percentile> {
    let rows = &config.latency.as_ref()?.rows;
    let own = rows.iter().filter(|row| row.kind.is_some() && row.class.is_none() && row.fault.is_none());
    let ns = |p: &Percentile| match p {
        Percentile::Ns(ns) | Percentile::Below(ns) => *ns,
    };
    own.filter_map(|row| row.percentiles[P999]).max_by(|a, b| ns(a).total_cmp(&ns(b)))
}

fn constrain(candidate: &mut Candidate, facts: &WorkloadFacts, wish: &Wish) {
    if let Some(limit) = wish.limit_bytes {
        candidate.fit = candidate.process_bytes.map(|process| fit(&process, limit, allowance(facts)));
        match candidate.fit {
            None => candidate.exclusions.push(Exclusion::SizeUnknown),
            Some(Fit::No) => candidate.exclusions.push(Exclusion::TooLarge),
            Some(Fit::Yes | Fit::Tight) => {}
        }
    }
    if let Some(most) = wish.p999_ns_max {
        match candidate.p999 {
            Some(Percentile::Ns(ns)) if ns > most => candidate.exclusions.push(Exclusion::TooSlow(ns)),
            // It is below this bound, which is above what is allowed: both may be true.
            Some(Percentile::Below(ns)) if ns > most => candidate.exclusions.push(Exclusion::LatencyUnknown),
            None => candidate.exclusions.push(Exclusion::LatencyUnknown),
            Some(_) => {}
        }
    }
}

/// Whether a process fits into a limit: its upper end has to.
#[must_use]
pub fn fit(process: &Estimate, limit_bytes: u64, allowance: f64) -> Fit {
    let limit = limit_bytes as f64;
    match process.high {
        high if high > limit => Fit::No,
        high if high * (1.0 + allowance) > limit => Fit::Tight,
        _ => Fit::Yes,
    }
}

/// What speaks against a configuration whatever was asked for.
fn faults(config: &ConfigAnalysis, runs: &[Run], workload: &WorkloadAnalysis, objective: Objective) -> Vec<Exclusion> {
    let is_own = |run: &&Run| run.workload == workload.name && run.config == config.name;
    let failed = runs.iter().filter(is_own).filter(|run| matches!(run.outcome, Outcome::Failed { .. })).count();
    let footprint_failed = runs.iter().filter(is_own).filter_map(metric::footprint).any(|f| f.failed_allocations > 0);
    let failed_allocations = config.metric("failed_allocations").is_some_and(|figure| figure.value.high > 0.0);
    let mut found = Vec::new();
    if failed > 0 {
        found.push(Exclusion::Failed(failed as u32));
    }
    if footprint_failed || failed_allocations {
        found.push(Exclusion::OutOfMemory);
    }
    if value(config, objective).is_none() {
        found.push(Exclusion::NotMeasured);
    }
    found
}

/// How far predictions of a trace may be off before `live` calls them wrong, as a share.
pub(super) fn allowance(facts: &WorkloadFacts) -> f64 {
    let threads = facts.fidelity.as_ref().map_or(facts.shape.threads, |found| found.threads);
    widen_share(threads)
}

/// Memory of the recorded process at its peak that is no heap: file pages, relocations, stacks, and what libraries map
/// for themselves (the largest reading at a mark). `None` when the recording does not say.
pub(super) fn no_heap_bytes(metadata: &Metadata) -> Option<u64> {
    let peak = metadata.process.as_ref()?.peak?;
    let mapped = metadata.mark_readings.iter().filter_map(|reading| reading.mapped_bytes.as_ref());
    let mapped = mapped.map(|modules| modules.values().sum::<u64>()).max().unwrap_or(0);
    Some(peak.file_bytes + peak.relocated_bytes + peak.stack_bytes + mapped)
}

/// The predicted peak of the whole process under a configuration, bytes: the largest heap of each replay before the
/// interpreter begins to exit, and [`no_heap_bytes`].
#[must_use]
pub fn process_bytes(analysis: &Analysis, runs: &[Run], workload: &WorkloadAnalysis, config: &str) -> Option<Estimate> {
    let facts = &analysis.environment.workloads[workload.facts];
    let beside = no_heap_bytes(&facts.metadata)? as f64;
    let last = facts.image.phase_ops[Phase::Finalising as usize].unwrap_or(u64::MAX);
    let heap = |run: &Footprint| {
        let curve = run.curve.iter().filter(|point| point.op <= last).map(|point| point.resident_bytes);
        let marks =
            run.high_water_bytes.iter().filter(|(phase, _)| *phase != Phase::Finalising).map(|(_, bytes)| *bytes);
        curve.chain(marks).chain([run.peak.resident_bytes]).max().unwrap_or(0) as f64
    };
    let own = runs.iter().filter(|run| run.workload == workload.name && run.config == config);
    let values: Vec<f64> = own.filter_map(metric::footprint).map(|run| heap(run) + beside).collect();
    let mut random = Random::new(analysis.environment.plan.seed, &[&workload.name, config, "process"]);
    stats::estimate(&values, stats::MISS_CHANCE, &mut random)
}
