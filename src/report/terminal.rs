//! What the default run prints when it has finished: one table per workload, floor, failures.
//!
//! Invariant: no line is longer than [`WIDTH`] characters, and what failed is said before the reader can miss it.

use super::words;
use super::{shapes, tables, trust};
use crate::analysis::{Analysis, Failure, WorkloadAnalysis};
use crate::metric::Unit;
use crate::run::{RestState, unreplayed_notes};
use crate::units;
use std::fmt::Write;
use trace::Phase;

/// Characters in the longest line.
pub const WIDTH: usize = 110;

/// Failures that are listed; the rest is counted.
const FAILURES_SHOWN: usize = 12;

/// The whole analysis as text for a terminal.
#[must_use]
pub fn terminal(analysis: &Analysis) -> String {
    let mut text = head(analysis);
    for workload in &analysis.workloads {
        text.push('\n');
        text.push_str(&one(analysis, workload));
    }
    text.push('\n');
    text.push_str(&foot(analysis));
    text
}

fn head(analysis: &Analysis) -> String {
    let environment = &analysis.environment;
    let contestants = environment.configs.iter().filter(|config| !config.floor).count();
    let host = &environment.host;
    let thp = host.thp.as_ref().map(|thp| format!("THP {thp}"));
    let parts: Vec<String> = [
        Some(format!(
            "{} x {}, {}",
            words::plural(environment.workloads.len(), "workload"),
            words::plural(contestants, "allocator"),
            words::plural((analysis.ok_runs + analysis.failed_runs) as usize, "run")
        )),
        Some(words::plural(host.cpus as usize, "core")),
        host.kernel.as_ref().map(|kernel| format!("Linux {kernel}")),
        thp,
        host.libc.clone(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut text = wrap(&parts.join(" · "), "");
    if let Some(modes) = words::modes(analysis) {
        text.push_str(&wrap(&modes, ""));
    }
    for warning in warnings(analysis) {
        text.push_str(&wrap(&warning, ""));
    }
    text
}

/// What must be known before any figure is read.
#[must_use]
pub fn warnings(analysis: &Analysis) -> Vec<String> {
    let environment = &analysis.environment;
    let mut warnings = Vec::new();
    if environment.harness.profile != "release" {
        warnings.push("WARNING: a debug build measured this; no figure below means anything.".to_owned());
    }
    for config in environment.configs.iter().filter(|c| !c.unverified.is_empty() && c.control_of.is_none()) {
        let words = config.unverified.join(" ");
        warnings.push(format!("WARNING: {}: no allocator could confirm {words}; it is taken on trust.", config.name));
    }
    if environment.plan.quick {
        warnings.push(
            "NOTE: small cuts of the traces were replayed (--quick, or no clone); whole traces may rank otherwise."
                .to_owned(),
        );
    }
    for drift in &analysis.noise.drifts {
        let ratio = drift.ratio;
        let direction = if ratio.median > 1.0 { "slower" } else { "faster" };
        warnings.push(format!(
            "WARNING: drift: {} on {} was {} {direction} in the later half of the blocks than in the earlier \
             ({} [{} {}]); pairing within blocks takes most of it out of ratios, not out of nanoseconds.",
            drift.config,
            drift.workload,
            words::percent((ratio.median - 1.0).abs()),
            words::ratio(ratio.median),
            words::ratio(ratio.low),
            words::ratio(ratio.high)
        ));
    }
    if analysis.failed_runs > 0 {
        let failed = words::plural(analysis.failed_runs as usize, "FAILED run");
        warnings.push(format!("WARNING: {failed}; the reasons stand at the end, the figures are of what measured."));
    }
    for workload in &analysis.workloads {
        let doubt = workload.check.as_ref().and_then(trust::doubt);
        warnings.extend(doubt.map(|doubt| format!("WARNING: {}: {doubt}", workload.name)));
        let unreplayed = workload.configs.iter().map(|config| (config.name.as_str(), &config.unreplayed));
        let notes = unreplayed_notes(unreplayed);
        warnings.extend(notes.iter().map(|note| format!("NOTE: {}: {note}.", workload.name)));
        for config in &workload.configs {
            let failed = config.metric("failed_allocations").map_or(0.0, |figure| figure.value.high);
            if failed > 0.0 {
                let count = units::count(failed);
                warnings.push(format!("WARNING: {} failed {count} allocations on {}.", config.name, workload.name));
            }
        }
    }
    warnings
}

/// One workload: its table and the lines below it.
#[must_use]
pub fn one(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    let mut text = wrap(&format!("{}   {}", workload.name, words::workload_line(analysis, workload)), "  ");
    if workload.configs.is_empty() {
        text.push_str("  nothing measured\n");
        return text;
    }
    text.push_str(&tables::overview(analysis, workload).text());
    let startup: Vec<String> = workload
        .configs
        .iter()
        .filter_map(|config| {
            let (_, estimate) = config.ns_per_call_phase.iter().find(|(phase, _)| *phase == Phase::Startup)?;
            Some(format!("{} {}", config.name, words::value(Unit::Nanoseconds, estimate.median)))
        })
        .collect();
    if workload.steady && !startup.is_empty() {
        text.push_str(&wrap(&format!("  start-up, ns/call: {}", startup.join(", ")), "    "));
    }
    if let Some(threads) = words::threads_line(workload) {
        text.push_str(&wrap(&format!("  {threads}"), "    "));
    }
    for line in shapes::lines(analysis, workload) {
        text.push_str(&wrap(&format!("  {line}"), "    "));
    }
    text.push_str(&wrap(&format!("  {}", floor_line(workload)), "    "));
    if let Some(check) = trust::of_workload(analysis, workload) {
        text.push_str(&wrap(&format!("  {check}"), "    "));
    }
    if let Some(fidelity) = words::fidelity(analysis, workload) {
        text.push_str(&wrap(&format!("  {fidelity}"), "    "));
    }
    text
}

/// `floor: loop 1.10 ns, null allocator 2.20 ns per call · clock 20.0 ns · rest: 10 s idle after drained`.
#[must_use]
pub fn floor_line(workload: &WorkloadAnalysis) -> String {
    let ns = |e: &crate::analysis::Estimate| format!("{} ns", units::significant(e.median));
    let mut floors = Vec::new();
    floors.extend(workload.floor_loop.as_ref().map(|e| format!("loop {}", ns(e))));
    floors.extend(workload.floor_null.as_ref().map(|e| format!("null allocator with the touch {}", ns(e))));
    let mut parts = Vec::new();
    if !floors.is_empty() {
        parts.push(format!("floor: {} per call", floors.join(", ")));
    }
    if let Some(median) = workload.clock.as_ref().and_then(|clock| clock.percentiles[0]) {
        parts.push(format!("clock {}", words::percentile(Some(median))));
    }
    let memory = workload.configs.iter().find_map(|config| config.memory.as_ref());
    parts.extend(memory.map(|m| {
        let last = m.rest_curve.iter().any(|point| point.state == RestState::Idle);
        let after = if last { words::idle(m.rest_after_ms) } else { "not idle".to_owned() };
        format!("rest: {after} after {}", m.rest_from)
    }));
    parts.extend(words::time_met(workload));
    if parts.is_empty() { "floor: not measured".to_owned() } else { parts.join(" · ") }
}

fn foot(analysis: &Analysis) -> String {
    let mut parts = Vec::new();
    parts.extend(words::control(analysis));
    parts.push(format!("{} failed", analysis.failed_runs));
    parts.push(intervals(analysis));
    let mut text = wrap(&parts.join(" · "), "  ");
    for failure in analysis.failures.iter().take(FAILURES_SHOWN) {
        let Failure { workload, config, pass, reason, runs } = failure;
        let line = format!("FAILED {config} on {workload} ({pass}): {reason}{}", words::times(*runs));
        text.push_str(&wrap(&line, "  "));
    }
    let told: u32 = analysis.failures.iter().take(FAILURES_SHOWN).map(|failure| failure.runs).sum();
    if let Some(more) = analysis.failed_runs.checked_sub(told).filter(|more| *more > 0) {
        let _ = writeln!(text, "FAILED {more} more; every reason is in runs.jsonl.");
    }
    text
}

/// What the brackets mean.
#[must_use]
pub fn intervals(analysis: &Analysis) -> String {
    match analysis.verdicts {
        0 if analysis.environment.configs.iter().filter(|config| !config.floor).count() < 2 => {
            "[low high]: bootstrap over processes, 95 %; (low high): the range; nothing was compared".to_owned()
        }
        0 => "(low high): the range; too few blocks for a verdict".to_owned(),
        n => format!("[low high]: bootstrap over blocks, 95 % for all {n} verdicts together; (low high): the range"),
    }
}

/// Breaks a text at spaces so that it fits [`WIDTH`]; later lines begin with `indent`.
#[must_use]
pub fn wrap(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for (i, word) in text.split(' ').enumerate() {
        let fits = line.chars().count() + 1 + word.chars().count() <= WIDTH;
        if i > 0 && fits {
            line.push(' ');
        } else if i > 0 {
            lines.push_str(line.trim_end());
            lines.push('\n');
            indent.clone_into(&mut line);
        }
        // A word longer than a line is cut where the line ends.
        let room = WIDTH - line.chars().count();
        line.push_str(&words::cut(word, room));
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_wrap_and_endless_words_are_cut() {
        let text = format!("{} {} end", "word ".repeat(30), "x".repeat(300));
        let wrapped = wrap(&text, "  ");
        assert!(wrapped.lines().all(|line| line.chars().count() <= WIDTH), "{wrapped}");
        assert!(wrapped.ends_with("end\n"), "{wrapped}");
        assert_eq!(wrap("  a   b", "  "), "  a   b\n");
    }
}
