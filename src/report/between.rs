//! One result against another as text, Markdown and JSON.
//!
//! Invariant: what makes the two incomparable, and what is inconclusive, is said before anyone can read a table as an
//! all-clear; a cell that only one result has is named.

use super::table::Table;
use super::words;
use crate::analysis::between::{Alone, Between, Cell, Side};
use crate::analysis::likeness::Difference;
use crate::analysis::{Estimate, Verdict};
use crate::metric::{self, Metric, Unit};
use crate::units;
use std::fmt::Write;

/// For a terminal.
#[must_use]
pub fn text(between: &Between) -> String {
    let mut text = String::new();
    for line in head(between) {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    if !between.cells.is_empty() {
        text.push_str(&table(between).text());
        text.push('\n');
    }
    for line in foot(between) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// For a merge request: the answer first.
#[must_use]
pub fn markdown(between: &Between) -> String {
    let mut text = format!("**{}**\n\n", super::markdown::escape(&summary(between)));
    if !between.cells.is_empty() {
        let _ = writeln!(text, "{}", table(between).markdown());
    }
    for line in head(between).into_iter().chain(foot(between)).filter(|line| *line != summary(between)) {
        let _ = writeln!(text, "- {}", super::markdown::escape(&line));
    }
    text
}

/// For programs; `schema` says which fields to expect.
///
/// # Errors
/// When a value cannot be put into JSON.
pub fn json(between: &Between) -> serde_json::Result<String> {
    serde_json::to_string_pretty(between).map(|text| text + "\n")
}

/// `7 compared: 1 WORSE (rest of service on arrow-service), 2 better, 3 no difference, 1 INCONCLUSIVE`.
#[must_use]
pub fn summary(between: &Between) -> String {
    let of = |verdict| between.deciding(verdict).count();
    let mut parts = Vec::new();
    let broken = between.broken().count();
    if broken > 0 {
        parts.push(format!("{broken} FAILED"));
    }
    for (verdict, word) in [
        (Verdict::Worse, "WORSE"),
        (Verdict::Better, "better"),
        (Verdict::NoDifference, "no difference detected"),
        (Verdict::Inconclusive, "INCONCLUSIVE"),
    ] {
        if of(verdict) > 0 {
            parts.push(format!("{} {word}", of(verdict)));
        }
    }
    let told = between.cells.iter().filter(|cell| !cell.decides).count();
    if told > 0 {
        parts.push(format!("{told} told only"));
    }
    format!("{} compared: {}", between.cells.len(), if parts.is_empty() { "nothing".into() } else { parts.join(", ") })
}

/// Where both come from and what differs between them.
fn head(between: &Between) -> Vec<String> {
    let mut lines = vec![side("old", &between.old), side("new", &between.new)];
    let likeness = &between.likeness;
    if !likeness.unlike.is_empty() {
        lines.push(format!(
            "WARNING: UNLIKE ENVIRONMENTS, compared all the same (--force): {}",
            differences(&likeness.unlike)
        ));
    }
    lines.push(match likeness.under_test.as_slice() {
        [] => "under test: the same configurations, measured again".to_owned(),
        changes => format!("under test: {}", differences(changes)),
    });
    if !likeness.remarks.is_empty() {
        lines.push(format!("also different: {}", differences(&likeness.remarks)));
    }
    lines
}

fn side(what: &str, side: &Side) -> String {
    format!(
        "{what}: {}, pyalloc-bench {}, seed {}, {}, {} failed",
        words::date(side.started_unix_ms),
        side.harness_version,
        side.seed,
        words::plural(side.ok_runs as usize, "run"),
        side.failed_runs
    )
}

/// `host.cpus 2 -> 4; host.thp madvise -> always`.
#[must_use]
pub fn differences(differences: &[Difference]) -> String {
    let each = differences.iter().map(|d| format!("{} {} -> {}", d.what, d.old, d.new));
    each.collect::<Vec<_>>().join("; ")
}

fn metric_of(key: &str) -> Option<&'static Metric> {
    metric::ALL.iter().copied().find(|metric| metric.key == key)
}

fn table(between: &Between) -> Table {
    let headings = ["workload", "configuration", "metric", ">old", ">new", ">new / old", "verdict"];
    let mut table = Table::new("One result against another", &headings);
    for cell in &between.cells {
        let unit = metric_of(cell.metric).map_or(Unit::Count, |metric| metric.unit);
        table.row([
            cell.workload.clone(),
            cell.config.clone(),
            label(cell.metric),
            words::value(unit, cell.old.median),
            words::value(unit, cell.new.median),
            change(cell, unit),
            verdict(cell),
        ]);
    }
    table
}

/// `resident at rest, MiB`.
fn label(key: &str) -> String {
    let Some(metric) = metric_of(key) else { return key.to_owned() };
    match words::unit(metric.unit) {
        "" => metric.label.to_owned(),
        unit => format!("{}, {unit}", metric.label),
    }
}

fn change(cell: &Cell, unit: Unit) -> String {
    let bracketed = |e: &Estimate, text: &dyn Fn(f64) -> String| {
        let (open, close) = if e.interval { ('[', ']') } else { ('(', ')') };
        format!("{} {open}{} {}{close}", text(e.median), text(e.low), text(e.high))
    };
    match &cell.ratio {
        Some(ratio) => bracketed(ratio, &|value| format!("{value:.3}")),
        None => bracketed(&cell.difference, &|value| {
            let sign = if value < 0.0 { "-" } else { "+" };
            format!("{sign}{}", words::value(unit, value.abs()))
        }),
    }
}

/// The verdict, and why it decides nothing where it does not.
fn verdict(cell: &Cell) -> String {
    let word = words::verdict(cell.verdict);
    match cell.verdict {
        Verdict::Inconclusive => format!("INCONCLUSIVE, {} and {} runs", cell.old.n, cell.new.n),
        _ if !cell.decides => format!("{word} (told only)"),
        Verdict::Worse => "WORSE".to_owned(),
        _ => word.to_owned(),
    }
}

/// What the brackets mean, what was not compared, and the answer.
fn foot(between: &Between) -> Vec<String> {
    let mut lines = Vec::new();
    if between.verdicts > 0 {
        lines.push(format!(
            "[low high]: 95 % for all {} together, bootstrap over processes; (low high): the range",
            words::plural(between.verdicts as usize, "verdict")
        ));
    }
    lines.extend(floors(between));
    if between.cells.iter().any(|cell| !cell.decides) {
        lines.push(
            "time is told only: two results were measured at different times. --metric ns_per_call has it decide"
                .to_owned(),
        );
    }
    lines.extend(alone(between));
    lines.extend(hidden(between));
    let inconclusive = between.deciding(Verdict::Inconclusive).count();
    if inconclusive > 0 {
        lines.push(format!(
            "INCONCLUSIVE: {inconclusive} of {} have fewer than {} runs on one side. Measure with --footprint-runs 6 \
             or --budget",
            between.cells.iter().filter(|cell| cell.decides).count(),
            crate::analysis::stats::VALUES_FOR_INTERVAL
        ));
    }
    lines.push(summary(between));
    lines
}

/// `time 5.0 %, page faults 1.0 % and 128, memory 1.0 % and 0.50 MiB, time 12 % on mixed`, each floor once.
fn floors(between: &Between) -> Option<String> {
    let mut said: Vec<String> = Vec::new();
    let of_time = between.cells.iter().filter(|cell| cell.metric == metric::NS_PER_CALL.key);
    let least = of_time.map(|cell| cell.floor_relative).fold(f64::INFINITY, f64::min);
    for cell in &between.cells {
        let unit = metric_of(cell.metric).map_or(Unit::Count, |metric| metric.unit);
        let (what, absolute) = match unit {
            // The null allocator moved by more on this workload.
            Unit::Nanoseconds if cell.floor_relative > least => ("time".to_owned(), format!(" on {}", cell.workload)),
            Unit::Nanoseconds => ("time".to_owned(), String::new()),
            Unit::Bytes => ("memory".to_owned(), format!(" and {} MiB", units::mib(cell.floor_absolute))),
            Unit::Count => ("page faults".to_owned(), format!(" and {}", cell.floor_absolute)),
        };
        let line = format!("{what} {}{absolute}", words::percent(cell.floor_relative));
        if !said.contains(&line) {
            said.push(line);
        }
    }
    (!said.is_empty()).then(|| format!("smallest difference that counts: {}", said.join(", ")))
}

/// How much worse something could be although no difference was detected: the widest interval among them.
fn hidden(between: &Between) -> Option<String> {
    let widest = between
        .deciding(Verdict::NoDifference)
        .filter_map(|cell| Some((cell, cell.ratio?.high - 1.0)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(cell, high)| *high > cell.floor_relative)?;
    let (cell, high) = widest;
    Some(format!(
        "no difference detected is not equal: {} of {} on {} could be up to {} higher",
        metric_of(cell.metric).map_or(cell.metric, |metric| metric.label),
        cell.config,
        cell.workload,
        words::percent(high)
    ))
}

/// What only one of them has, by configuration and workload.
fn alone(between: &Between) -> Vec<String> {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for one in &between.alone {
        let Alone { workload, config, metric, in_new, failed } = one;
        let (has, lacks) = if *in_new { ("new", "old") } else { ("old", "new") };
        let why = if *failed { format!(": every run FAILED in {lacks}") } else { String::new() };
        let line = format!("only in {has}: {config} on {workload}{why}");
        let label = metric_of(metric).map_or(*metric, |metric| metric.label);
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, labels)) => labels.push(label),
            None => lines.push((line, vec![label])),
        }
    }
    lines.into_iter().map(|(line, labels)| format!("{line} ({})", labels.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::analysis::between::{Asked, Measured, between};
    use crate::analysis::fixture::{Invention, environment, runs};
    use crate::analysis::likeness::{Likeness, likeness};
    use crate::run::{Observation, Outcome};

    /// `mimalloc` holds twice as much at rest, `jemalloc` is gone, and few footprints were measured of anything.
    fn compared(footprint_runs: u32) -> Between {
        let what = Invention { footprint_runs, ..Invention::default() };
        let (old, old_runs) = (environment(&what), runs(&what));
        let (mut new, mut new_runs) = (old.clone(), old_runs.clone());
        new.configs.retain(|config| config.name != "jemalloc");
        new_runs.retain(|run| run.config != "jemalloc");
        new.configs[2].words = "MIMALLOC_PURGE_DELAY=-1".into();
        for run in new_runs.iter_mut().filter(|run| run.config == "mimalloc") {
            if let Outcome::Ok(Observation::Footprint(f)) = &mut run.outcome {
                f.rest.iter_mut().for_each(|point| point.memory.resident_bytes *= 2);
            }
        }
        let found = likeness((&old, &old_runs), (&new, &new_runs));
        let side = |environment, runs| Measured { environment, runs };
        between(side(&old, &old_runs), side(&new, &new_runs), found, &Asked::default())
    }

    #[test]
    fn nothing_that_matters_goes_unsaid() {
        let found = compared(6);
        for text in [text(&found), markdown(&found)] {
            for expected in [
                "MIMALLOC_PURGE_DELAY not set -> -1",
                "only in old: jemalloc on small-objects (time per call, page faults, resident at peak",
                "2 WORSE",
                "time is told only",
                "smallest difference that counts",
            ] {
                assert!(text.contains(expected), "{expected}: {text}");
            }
            assert!(!text.contains("INCONCLUSIVE") && !text.contains("UNLIKE"), "{text}");
        }
        assert!(markdown(&found).starts_with("**30 compared: 2 WORSE"), "{}", markdown(&found));
    }

    #[test]
    fn too_few_runs_are_said_loudly() {
        let found = compared(2);
        let text = text(&found);
        assert!(text.contains("INCONCLUSIVE, 2 and 2 runs") && text.contains("18 INCONCLUSIVE"), "{text}");
        assert!(text.contains("--footprint-runs 6"), "{text}");
    }

    #[test]
    fn unlike_environments_are_said_before_the_table() {
        let what = "host.cpus".to_owned();
        let unlike = vec![Difference { what, old: "2".into(), new: "4".into() }];
        let found = Between { likeness: Likeness { unlike, ..Likeness::default() }, ..compared(6) };
        let text = text(&found);
        assert!(text.find("UNLIKE").unwrap() < text.find("configuration").unwrap(), "{text}");
        assert!(text.contains("host.cpus 2 -> 4"), "{text}");
    }

    #[test]
    fn programs_read_a_versioned_form() {
        let value: serde_json::Value = serde_json::from_str(&json(&compared(6)).unwrap()).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["cells"].as_array().unwrap().len(), 30);
        assert_eq!(value["alone"].as_array().unwrap().len(), 10);
    }
}
