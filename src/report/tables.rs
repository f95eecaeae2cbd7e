//! Which tables a report has, and what stands in their cells.
//!
//! Invariant: tables list configurations in the order of the environment, and every one that measured anything.

use super::table::Table;
use super::words::{self, UNKNOWN};
use super::{pools, shapes};
use crate::analysis::{Analysis, ConfigAnalysis, Estimate, Figure, LatencyRow, WorkloadAnalysis};
use crate::metric::{self, Unit};
use crate::run::{AllocatorFacts, CallKind, RestPoint, RestState, SIZE_CLASS_BOUNDS, WorkloadFacts};
use crate::units;
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use trace::Phase;

/// A table of one workload; `None` where its runs know nothing of it.
pub type Maker = fn(&Analysis, &WorkloadAnalysis) -> Option<Table>;

/// The tables of a workload in the full report, in order; the overview stands before them.
pub const DETAILS: &[Maker] = &[
    speed,
    threads,
    phases,
    memory,
    at_rest,
    shapes::table,
    shapes::owners,
    shapes::held,
    shapes::reach,
    fragmentation,
    pools::budget,
    price,
    latency_by_kind,
    every_metric,
];

/// Characters of a name in the overview: those of `cpython:python3.11`.
const NAME_CHARACTERS: usize = 18;

/// The name that a row begins with.
#[must_use]
pub fn name(analysis: &Analysis, config: &ConfigAnalysis) -> String {
    words::allocator(&analysis.environment.configs[config.config])
}

/// As [`name`], in a column as narrow as a terminal wants it: the version goes before the name is cut.
fn short_name(analysis: &Analysis, config: &ConfigAnalysis) -> String {
    let whole = name(analysis, config);
    if whole.chars().count() <= NAME_CHARACTERS { whole } else { words::cut(&config.name, NAME_CHARACTERS) }
}

fn or_unknown<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), text)
}

fn median(figure: Option<&Figure>, unit: Unit) -> String {
    or_unknown(figure, |figure| words::value(unit, figure.value.median))
}

fn spread(figure: Option<&Figure>, unit: Unit) -> String {
    or_unknown(figure, |figure| words::estimate(unit, &figure.value))
}

fn is_baseline(workload: &WorkloadAnalysis, config: &ConfigAnalysis) -> bool {
    Some(config.config) == workload.baseline
}

fn versus(workload: &WorkloadAnalysis, config: &ConfigAnalysis, figure: Option<&Figure>) -> String {
    words::versus(figure, is_baseline(workload, config))
}

/// The table that everybody sees first.
#[must_use]
pub fn overview(analysis: &Analysis, workload: &WorkloadAnalysis) -> Table {
    let against = format!("vs {} [95 %]", words::cut(words::baseline(analysis, workload), NAME_CHARACTERS));
    let headings = ["allocator", ">ns/call", &against, ">p99.9 malloc", ">peak", ">rest MiB", ">res/live", ">faults"];
    let caption =
        format!("{}: time, tail, memory at peak and at rest (res/live: resident over live, at rest)", workload.name);
    let mut table = Table::new(caption, &headings);
    for config in &workload.configs {
        let memory = config.memory.as_ref();
        let malloc = kind_row(config, CallKind::Malloc);
        table.row([
            short_name(analysis, config),
            median(config.ns_per_call.as_ref(), Unit::Nanoseconds),
            versus(workload, config, config.ns_per_call.as_ref()),
            words::percentile(malloc.and_then(|row| row.percentiles[3])),
            median(memory.map(|m| &m.peak), Unit::Bytes),
            median(memory.map(|m| &m.rest), Unit::Bytes),
            or_unknown(memory, |m| words::resident_over_live(m.rest.value.median, m.rest_live_bytes)),
            median(config.faults.as_ref(), Unit::Count),
        ]);
    }
    table
}

/// All of these workloads in one table: the baseline's figures, and those of the other configurations with the ratio to
/// them. Without names every configuration is in it.
///
/// # Errors
/// No workload has a configuration of a name.
pub fn versus_baseline(analysis: &Analysis, about: &[&WorkloadAnalysis], names: &[String]) -> Result<Table> {
    let configs = || about.iter().flat_map(|workload| &workload.configs);
    if let Some(name) = names.iter().find(|name| configs().all(|config| config.name != **name)) {
        let mut known: Vec<&str> = configs().map(|config| config.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        bail!("The result has no configuration {name:?}. Give one of: {}.", known.join(", "));
    }
    let headings = ["workload", "allocator", ">ns/call", ">peak MiB", ">rest MiB", ">faults"];
    let mut table = Table::new("time, memory and faults against the first of each workload".to_owned(), &headings);
    for workload in about {
        let is_shown = |config: &&ConfigAnalysis| {
            is_baseline(workload, config) || names.is_empty() || names.contains(&config.name)
        };
        for config in workload.configs.iter().filter(is_shown) {
            let cell = |figure: Option<&Figure>, unit| match is_baseline(workload, config) {
                true => median(figure, unit),
                false => format!("{} · {}", median(figure, unit), versus(workload, config, figure)),
            };
            let memory = config.memory.as_ref();
            table.row([
                workload.name.clone(),
                name(analysis, config),
                cell(config.ns_per_call.as_ref(), Unit::Nanoseconds),
                cell(memory.map(|memory| &memory.peak), Unit::Bytes),
                cell(memory.map(|memory| &memory.rest), Unit::Bytes),
                cell(config.faults.as_ref(), Unit::Count),
            ]);
        }
    }
    Ok(table)
}

fn kind_row(config: &ConfigAnalysis, kind: CallKind) -> Option<&LatencyRow> {
    let rows = &config.latency.as_ref()?.rows;
    rows.iter().find(|row| row.kind == Some(kind) && row.class.is_none() && row.fault.is_none())
}

fn speed(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let against = format!("against {}", words::baseline(analysis, workload));
    let headings = ["allocator", ">ns per call", &against, ">page faults", &against, ">runs"];
    let mut table = Table::new(format!("{}: time per call with the touch, and page faults", workload.name), &headings);
    for config in workload.configs.iter().filter(|c| c.ns_per_call.is_some()) {
        table.row([
            name(analysis, config),
            spread(config.ns_per_call.as_ref(), Unit::Nanoseconds),
            versus(workload, config, config.ns_per_call.as_ref()),
            spread(config.faults.as_ref(), Unit::Count),
            versus(workload, config, config.faults.as_ref()),
            or_unknown(config.ns_per_call, |figure| figure.value.n.to_string()),
        ]);
    }
    for (label, floor) in
        [("null allocator, same touch", workload.floor_null), ("loop, nothing called", workload.floor_loop)]
    {
        if let Some(floor) = floor {
            let cells = [label.to_owned(), words::estimate(Unit::Nanoseconds, &floor)];
            table.row(cells.into_iter().chain([UNKNOWN; 3].map(str::to_owned)).chain([floor.n.to_string()]));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// What the threads did, where they were replayed as threads.
fn threads(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings = [
        "allocator",
        ">threads in all",
        ">running at a time",
        ">share of lives waiting",
        ">hand-overs",
        "single calls",
    ];
    let caption = format!("{}: threads replayed as threads, in the runs that measure time", workload.name);
    let mut table = Table::new(caption, &headings);
    for (config, threads) in workload.configs.iter().filter_map(|config| Some((config, config.threads?))) {
        table.row([
            name(analysis, config),
            threads.threads.to_string(),
            words::ratio(threads.concurrency),
            words::percent(threads.waiting),
            words::value(Unit::Count, threads.hand_overs),
            words::standstill(&threads),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Start-up, the time after the work, and interpreter exit: rows of their own, never the answer.
fn phases(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings = ["allocator", ">start-up", ">after the work", ">interpreter exit"];
    let mut table = Table::new(format!("{}: ns per call outside the steady work", workload.name), &headings);
    for config in workload.configs.iter().filter(|c| !c.ns_per_call_phase.is_empty()) {
        let of = |phase| {
            let found: Option<&Estimate> = config.ns_per_call_phase.iter().find(|(p, _)| *p == phase).map(|(_, e)| e);
            or_unknown(found, |e| words::estimate(Unit::Nanoseconds, e))
        };
        table.row([name(analysis, config), of(Phase::Startup), of(Phase::Drained), of(Phase::Finalising)]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn memory(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let with_memory = || workload.configs.iter().filter_map(|c| Some((c, c.memory.as_ref()?)));
    let (_, first) = with_memory().next()?;
    let against = format!("against {}", words::baseline(analysis, workload));
    let rest = format!(">at rest, {}", words::idle(first.rest_after_ms));
    let headings = ["allocator", ">at peak", &against, ">at end", &against, &rest, &against, ">runs"];
    let time = words::time_met(workload).map_or_else(String::new, |time| format!("; {time}"));
    let caption = format!(
        "{}: resident MiB; live {} at peak, {} at rest; rest follows {}{time}",
        workload.name,
        units::mib(first.peak_live_bytes),
        units::mib(first.rest_live_bytes),
        first.rest_from
    );
    let mut table = Table::new(caption, &headings);
    for (config, m) in with_memory() {
        let mut cells = vec![name(analysis, config)];
        for figure in [&m.peak, &m.end, &m.rest] {
            cells.extend([spread(Some(figure), Unit::Bytes), versus(workload, config, Some(figure))]);
        }
        cells.push(m.peak.value.n.to_string());
        table.row(cells);
    }
    Some(table)
}

/// What happens after the work: the median of every reading at rest.
fn at_rest(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let with_rest = || workload.configs.iter().filter_map(|c| Some((c, c.memory.as_ref()?)));
    let (_, first) = with_rest().find(|(_, m)| !m.rest_readings.is_empty())?;
    let headings: Vec<String> = first
        .rest_readings
        .iter()
        .map(|p| match p.state {
            RestState::Idle => format!(">{}", words::idle(p.after_ms)),
            RestState::Trickle => ">trickle of calls".to_owned(),
            RestState::Release => ">explicit release".to_owned(),
        })
        .collect();
    let headings: Vec<&str> = ["allocator"]
        .into_iter()
        .chain(headings.iter().map(String::as_str))
        .chain([">of rest, lazily freed", ">of rest, huge pages"])
        .collect();
    let caption = format!("{}: resident MiB after the work, medians over processes", workload.name);
    let mut table = Table::new(caption, &headings);
    for (config, m) in with_rest() {
        let mut cells = vec![name(analysis, config)];
        // Readings correspond by their state and place; the delay itself is as measured and differs by milliseconds.
        let same = |i: usize, p: &RestPoint| m.rest_readings.get(i).filter(|own| own.state == p.state).copied();
        let readings = first.rest_readings.iter().enumerate().map(|(i, p)| same(i, p));
        cells.extend(readings.map(|p| or_unknown(p, |p| units::mib(p.memory.resident_bytes as f64))));
        cells.push(units::mib(m.at_rest.lazy_free_bytes as f64));
        cells.push(units::mib(m.at_rest.huge_bytes as f64));
        table.row(cells);
    }
    Some(table)
}

fn fragmentation(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings = [
        "allocator",
        ">requested",
        ">usable",
        ">resident",
        ">internal: usable/requested",
        ">external: resident/usable",
        ">J&W 1: mean",
        ">J&W 2: at most live",
        ">J&W 3: at most resident",
        ">J&W 4: most over most",
    ];
    let caption = format!(
        "{}: fragmentation at peak, MiB and ratios, medians over processes; \
         Johnstone and Wilson's four are resident over requested, {}",
        workload.name,
        words::shown_runs(&workload.configs)
    );
    let mut table = Table::new(caption, &headings);
    for config in &workload.configs {
        let Some(m) = &config.memory else { continue };
        let at = &m.at_peak;
        let bytes = [at.requested_bytes, at.usable_bytes, at.resident_bytes].map(|b| units::mib(b as f64));
        let ratios = [m.internal, m.external].into_iter().chain(m.johnstone_wilson).map(words::ratio);
        table.row([name(analysis, config)].into_iter().chain(bytes).chain(ratios));
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The price at program scale.
fn price(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let cpu = workload.program_cpu_ns?;
    let headings = ["allocator", ">share of the program's CPU", ">switching to the fastest saves at most"];
    let caption = format!(
        "{}: price at program scale, of {} CPU time that the recorded program spent in steady",
        workload.name,
        units::nanoseconds(cpu)
    );
    let mut table = Table::new(caption, &headings);
    for config in workload.configs.iter().filter(|c| c.ns_per_call.is_some()) {
        let shares = [config.program_share, config.saves_at_most];
        table.row([name(analysis, config)].into_iter().chain(shares.map(|share| or_unknown(share, words::percent))));
    }
    (!table.rows.is_empty()).then_some(table)
}

const LATENCY_HEADINGS: [&str; 6] = [">calls", ">p50", ">p90", ">p99", ">p99.9", ">max"];

fn latency_cells(row: &LatencyRow) -> impl Iterator<Item = String> {
    [units::count(row.calls as f64)].into_iter().chain(row.percentiles.map(words::percentile))
}

/// Latency of every call kind, the clock alone first.
fn latency_by_kind(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let headings: Vec<&str> = ["allocator", "call"].into_iter().chain(LATENCY_HEADINGS).collect();
    let caption = format!("{}: duration of single calls, the clock's own cost included", workload.name);
    let mut table = Table::new(caption, &headings);
    if let Some(clock) = &workload.clock {
        table.row(["clock alone".to_owned(), UNKNOWN.to_owned()].into_iter().chain(latency_cells(clock)));
    }
    for config in &workload.configs {
        for row in config.latency.iter().flat_map(|l| &l.rows).filter(|row| row.class.is_none()) {
            let kind = row.kind.map_or(UNKNOWN, CallKind::name);
            table.row([name(analysis, config), kind.to_owned()].into_iter().chain(latency_cells(row)));
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Latency of one configuration by call kind, size class, and fault or no fault.
#[must_use]
pub fn latency_by_class(analysis: &Analysis, workload: &WorkloadAnalysis, config: &ConfigAnalysis) -> Option<Table> {
    let headings: Vec<&str> = ["call", "size", "page fault"].into_iter().chain(LATENCY_HEADINGS).collect();
    let name = name(analysis, config);
    let caption = format!("{}: {name}, duration of single calls by size class and page fault", workload.name);
    let mut table = Table::new(caption, &headings);
    for row in config.latency.as_ref()?.rows.iter() {
        let (Some(kind), Some(class), Some(fault)) = (row.kind, row.class, row.fault) else { continue };
        let fault = if fault { "yes" } else { "no" };
        table.row([kind.name().to_owned(), size_class(class), fault.to_owned()].into_iter().chain(latency_cells(row)));
    }
    (!table.rows.is_empty()).then_some(table)
}

/// `65 to 512 B`, `over 8 MiB`.
#[must_use]
pub fn size_class(class: u8) -> String {
    let text = |bytes: u64| match bytes {
        b if b >= 1 << 20 => format!("{} MiB", b >> 20),
        b if b >= 1 << 10 => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    };
    let class = usize::from(class);
    match (class.checked_sub(1).and_then(|below| SIZE_CLASS_BOUNDS.get(below)), SIZE_CLASS_BOUNDS.get(class)) {
        (Some(below), Some(&u64::MAX)) => format!("over {}", text(*below)),
        (Some(below), Some(bound)) => format!("over {} to {}", text(*below), text(*bound)),
        (None, Some(bound)) => format!("to {}", text(*bound)),
        (_, None) => UNKNOWN.to_owned(),
    }
}

/// Every metric of every configuration.
fn every_metric(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<Table> {
    let names: Vec<String> = workload.configs.iter().map(|config| format!(">{}", name(analysis, config))).collect();
    let headings: Vec<&str> = ["metric"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let mut table = Table::new(format!("{}: every metric, median and spread", workload.name), &headings);
    for metric in metric::ALL {
        if workload.configs.iter().all(|config| config.metric(metric.key).is_none()) {
            continue;
        }
        let unit = words::unit(metric.unit);
        let label = if unit.is_empty() { metric.label.to_owned() } else { format!("{}, {unit}", metric.label) };
        table
            .row([label].into_iter().chain(workload.configs.iter().map(|c| spread(c.metric(metric.key), metric.unit))));
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Who asks: what a knob that reaches only some domains can change at most.
#[must_use]
pub fn domains(facts: &WorkloadFacts) -> Option<Table> {
    let shape = &facts.shape;
    let headings =
        ["domain", ">calls in steady", ">of all", ">MiB requested in steady", ">live MiB at peak", ">of all"];
    let mut table = Table::new(format!("{}: who asks for memory", facts.name), &headings);
    let share = |part: Option<&u64>, all: &BTreeMap<String, u64>| {
        let total: f64 = all.values().map(|n| *n as f64).sum();
        or_unknown(part.filter(|_| total > 0.0), |n| words::percent(*n as f64 / total))
    };
    for domain in trace::Domain::ALL.map(trace::Domain::name) {
        let (calls, peak) = (shape.steady_calls_by_domain.get(domain), shape.peak_bytes_by_domain.get(domain));
        if calls.is_none() && peak.is_none() {
            continue;
        }
        table.row([
            domain.to_owned(),
            or_unknown(calls, |n| units::count(*n as f64)),
            share(calls, &shape.steady_calls_by_domain),
            or_unknown(shape.steady_bytes_by_domain.get(domain), |bytes| units::mib(*bytes as f64)),
            or_unknown(peak, |bytes| units::mib(*bytes as f64)),
            share(peak, &shape.peak_bytes_by_domain),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// What serves each domain in each configuration, with versions.
#[must_use]
pub fn configurations(analysis: &Analysis) -> Table {
    let headings: Vec<&str> =
        ["configuration"].into_iter().chain(trace::Domain::ALL.map(trace::Domain::name)).collect();
    let headings: Vec<&str> = headings.into_iter().chain(["versions, as the libraries report them"]).collect();
    let mut table = Table::new("Which allocator serves which domain", &headings);
    for config in analysis.environment.configs.iter().filter(|config| !config.floor) {
        let domains = trace::Domain::ALL.map(|d| or_unknown(config.domains.get(d.name()), String::clone));
        let versions: Vec<String> = config.allocators.iter().map(|a| format!("{} {}", a.key, a.version)).collect();
        let is_expanded = config.words.is_empty() || config.words == config.name;
        let name = if is_expanded { config.name.clone() } else { format!("{} ({})", config.name, config.words) };
        table.row([name].into_iter().chain(domains).chain([versions.join(", ")]));
    }
    table
}

/// Effective options, as the libraries report them.
#[must_use]
pub fn options(analysis: &Analysis) -> Option<Table> {
    let mut table = Table::new("Effective options, as the libraries report them", &["allocator", "option", "value"]);
    let mut seen: Vec<(&AllocatorFacts, &str)> = Vec::new();
    for config in &analysis.environment.configs {
        for facts in &config.allocators {
            if seen.iter().all(|(other, _)| *other != facts) {
                seen.push((facts, &config.name));
            }
        }
    }
    for (facts, config) in &seen {
        // One allocator in two versions is two; in one version it is two where a configuration sets it.
        let same = || seen.iter().filter(|(other, _)| other.key == facts.key);
        let of_version = same().filter(|(other, _)| other.version == facts.version).count();
        let name = match (same().count(), of_version) {
            (1, _) => facts.key.clone(),
            (_, 1) => format!("{} {}", facts.key, facts.release()),
            _ => format!("{} {} in {config}", facts.key, facts.release()),
        };
        for (option, value) in &facts.options {
            table.row([name.clone(), option.clone(), value.clone()]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// The machine and the plan.
#[must_use]
pub fn provenance(analysis: &Analysis) -> Table {
    let environment = &analysis.environment;
    let (host, plan, harness) = (&environment.host, &environment.plan, &environment.harness);
    let text = |value: &Option<String>| or_unknown(value.as_ref(), String::clone);
    let mib = |value: Option<u64>| or_unknown(value, |bytes| format!("{} MiB", units::mib(bytes as f64)));
    let idle: Vec<String> = plan.idle_ms.iter().map(|ms| words::idle(*ms)).collect();
    let modes: Vec<&str> = analysis.modes.iter().map(|mode| words::mode(*mode)).collect();
    let mut table = Table::new("Where and how this was measured", &["what", "value"]);
    for (what, value) in [
        ("date", words::date(plan.started_unix_ms)),
        ("harness", format!("pyalloc-bench {}, {} build", harness.version, harness.profile)),
        ("revision", text(&harness.revision)),
        ("compiler", text(&harness.rustc)),
        ("CPU", format!("{}, {} usable", text(&host.cpu_model), words::plural(host.cpus as usize, "CPU"))),
        ("kernel", text(&host.kernel)),
        ("C library", text(&host.libc)),
        ("memory", mib(host.memory_bytes)),
        ("memory limit of the control group", mib(host.cgroup_limit_bytes)),
        ("OS page", format!("{} B", host.page_bytes)),
        ("transparent huge pages", text(&host.thp)),
        ("overcommit", text(&host.overcommit)),
        ("address space randomisation", text(&host.aslr)),
        ("frequency governor", text(&host.governor)),
        ("clock source", text(&host.clock_source)),
        ("load average at start", or_unknown(host.load_hundredths, |load| format!("{:.2}", load as f64 / 100.0))),
        ("seed of order and padding", plan.seed.to_string()),
        ("throughput blocks", plan.blocks.to_string()),
        ("latency runs per cell", plan.latency_runs.to_string()),
        ("footprint runs per cell", plan.footprint_runs.to_string()),
        ("readings at rest", idle.join(", ")),
        ("traces", if plan.quick { "small cuts" } else { "whole" }.to_owned()),
        ("replay mode", modes.join(", ")),
        ("runs", format!("{} measured, {} failed", analysis.ok_runs, analysis.failed_runs)),
        ("verdicts that intervals are corrected for", analysis.verdicts.to_string()),
    ] {
        table.row([what.to_owned(), value]);
    }
    table
}

/// Where the workloads come from.
#[must_use]
pub fn workloads(analysis: &Analysis) -> Table {
    let headings = ["workload", "what", "recorded with", ">calls in steady", ">trace", "SHA-256 of the trace"];
    let mut table = Table::new("The workloads", &headings);
    for facts in &analysis.environment.workloads {
        let python = facts.metadata.python.as_ref().map(|p| format!("{} {}", p.implementation, p.version));
        let packages = facts.metadata.packages.iter().map(|(name, version)| format!("{name} {version}"));
        let with: Vec<String> = python.into_iter().chain(packages).collect();
        table.row([
            facts.name.clone(),
            facts.title.clone(),
            if with.is_empty() { UNKNOWN.to_owned() } else { with.join(", ") },
            units::count(facts.image.calls_by_phase[Phase::Steady as usize] as f64),
            format!("{} MiB", units::mib(facts.trace_bytes as f64)),
            facts.sha256.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_leave_no_gap() {
        assert_eq!(size_class(0), "to 64 B");
        assert_eq!(size_class(1), "over 64 B to 512 B");
        assert_eq!(size_class(3), "over 4 KiB to 32 KiB");
        assert_eq!(size_class(7), "over 8 MiB");
        assert_eq!(size_class(8), UNKNOWN);
    }
}
