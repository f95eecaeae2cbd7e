//! What the readings say about why a figure is outside its bar.
//!
//! Invariant: a reason is a reading; where none shows a cause, what was measured is said instead.

use super::{Row, WIDEN_BYTES, What, as_recorded, is_much_mapped, mapped_bytes, median};
use crate::run::{Fidelity, FidelityConfig, Mode, RealRun, ReplayedRun};
use trace::Phase;

/// Memory of the recorded process that no recorded call accounts for is worth a word above this share and
/// [`UNSEEN_BYTES`].
const UNSEEN_SHARE: f64 = 0.10;
const UNSEEN_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// A program whose runs differ by more than this share of their median is said to vary.
const VARIES_SHARE: f64 = 0.10;

/// What the readings say about why a figure is outside: causes that they show, else what was measured.
pub(super) fn reasons(found: &Fidelity, row: &Row) -> Vec<String> {
    let config = &found.configs[row.config];
    let mut reasons = Vec::new();
    let is_merged = found.threads > 1 && found.mode == Some(Mode::Merged);
    if is_merged {
        reasons.push(format!("{} threads were replayed on one (merged)", found.threads));
    }
    // Where threads share what they had apart, the replay itself may be what lacks it.
    let is_less = row.error.is_some_and(|error| error < 0.0) && !is_merged;
    if let Some(unseen) = unseen_bytes(found).filter(|_| is_less) {
        reasons.push(format!(
            "the recorded process held {} MiB more at its peak than its recorded calls explain (a library's own \
             allocator, or memory mapped directly)",
            crate::units::mib(unseen)
        ));
    }
    if row.what == What::Peak && row.predicted.is_some_and(|bytes| is_much_mapped(found, row.what, "", bytes)) {
        reasons.push(format!(
            "{} MiB of the prediction were mapped by libraries for themselves and read at marks alone: between two \
             marks they may have been more",
            crate::units::mib(mapped_bytes(found, row.what, ""))
        ));
    }
    if let Some(more) = start_up_bytes(found, config).filter(|more| more.abs() > WIDEN_BYTES && !is_merged) {
        reasons.push(format!(
            "before its work the program already holds {} MiB {} than the recording did; is it the same interpreter \
             with the same packages?",
            crate::units::mib(more.abs()),
            if more > 0.0 { "more" } else { "less" }
        ));
    }
    let froms = |from: &str| config.replayed.first().is_some_and(|run| run.rest_from == from);
    if let Some(run) = config.real.first().filter(|run| !froms(&run.rest_from)) {
        reasons.push(format!("rest follows `{}` here and another mark in the recording", run.rest_from));
    }
    if row.what == What::Peak && config.real.iter().any(|run| !run.has_steady) {
        reasons.push("the program does not mark `steady`, so that its peak may be of start-up".to_owned());
    }
    match (&row.real_modes[..], &row.predicted_modes[..]) {
        ([low, high], replayed) => reasons.push(format!(
            "the program itself has two modes, around {} and {} MiB, and the replays have {}",
            crate::units::mib(low.median),
            crate::units::mib(high.median),
            replayed.iter().map(|mode| crate::units::mib(mode.median)).collect::<Vec<_>>().join(" and "),
        )),
        (_, _) if (row.range.1 - row.range.0) / row.real > VARIES_SHARE => {
            reasons
                .push(format!("the program itself varies by more than {:.0} % from run to run", VARIES_SHARE * 100.0));
        }
        _ => {}
    }
    reasons.extend(huge_reason(config));
    let untouched = median(config.replayed.iter().filter_map(|run| run.untouched_bytes));
    if let Some(bytes) = untouched.filter(|bytes| *bytes > WIDEN_BYTES && row.error.is_some_and(|error| error < 0.0)) {
        reasons.push(format!(
            "{} MiB that were live at the replay's peak count as never touched",
            crate::units::mib(bytes)
        ));
    }
    if reasons.is_empty() {
        reasons.push(measured(found, config));
    }
    reasons
}

/// That the kernel gave the program another amount of huge pages than the replay.
fn huge_reason(config: &FidelityConfig) -> Option<String> {
    let real = median(config.real.iter().filter_map(|run| run.huge_bytes))?;
    let replayed = median(config.replayed.iter().filter_map(|run| run.huge_bytes))?;
    let text = format!(
        "huge pages: {} MiB in the program, {} in the replay",
        crate::units::mib(real),
        crate::units::mib(replayed)
    );
    ((real - replayed).abs() > WIDEN_BYTES).then_some(text)
}

/// What was measured beside the figures, for a reader who looks for the cause.
fn measured(found: &Fidelity, config: &FidelityConfig) -> String {
    let real = |of: fn(&RealRun) -> Option<u64>| median(config.real.iter().filter_map(of));
    let replayed = |of: fn(&ReplayedRun) -> Option<u64>| median(config.replayed.iter().filter_map(of));
    let mut parts = Vec::new();
    if let (Some(real), Some(replayed)) = (real(|run| run.faults_minor), replayed(|run| run.faults_minor)) {
        parts.push(format!("{real:.0} page faults in the process, {replayed:.0} in the replay"));
    }
    if let (Some(real), Some(replayed)) = (real(|run| run.huge_bytes), replayed(|run| run.huge_bytes)) {
        parts.push(format!("huge pages {} and {} MiB", crate::units::mib(real), crate::units::mib(replayed)));
    }
    if let Some(bytes) = replayed(|run| run.untouched_bytes) {
        parts.push(format!("{} MiB live at the peak and never touched", crate::units::mib(bytes)));
    }
    if let Some(ns) = real(|run| run.wall_ns) {
        let how = if found.pace == 0 { "back to back" } else { "with the recorded gaps" };
        parts.push(format!("`steady` took {} s and is replayed {how}", crate::units::significant(ns / 1e9)));
    }
    parts.push("the real runs have one mode".to_owned());
    format!("no cause shows in what was measured for {}: {}", config.name, parts.join(", "))
}

/// How much more the program holds at `steady` than its replay and what libraries had mapped by then, bytes.
fn start_up_bytes(found: &Fidelity, config: &FidelityConfig) -> Option<f64> {
    let real = median(config.real.iter().filter_map(|run| run.steady_bytes))?;
    let mapped = found.mapped_bytes.as_ref().and_then(|at_marks| at_marks.get(Phase::Steady.name()));
    let mapped = mapped.map_or(0.0, |bytes| *bytes as f64);
    Some(real - mapped - median(config.replayed.iter().filter_map(|run| run.steady_bytes))?)
}

/// Heap of the recorded process at its peak that the replay of the same configuration does not have.
fn unseen_bytes(found: &Fidelity) -> Option<f64> {
    let recorded = found.recorded_heap_bytes? as f64;
    let replayed = median(as_recorded(found)?.replayed.iter().map(|run| run.peak_bytes_all))?;
    let unseen = recorded - replayed - mapped_bytes(found, What::Peak, "");
    (unseen > UNSEEN_BYTES.max(UNSEEN_SHARE * recorded)).then_some(unseen)
}
