//! What `live` found, as text, and the one sentence that every report of the same trace quotes.
//!
//! Invariant: bytes are heap bytes (resident anonymous memory less what no allocator handed out) unless a heading says
//! otherwise; every figure outside its bar is listed with what is known of the reason.

use super::table::Table;
use super::words;
use crate::analysis::fidelity::{
    self, Judgement, ORDER_BYTES, ORDER_SHARE, WIDEN_BYTES, What,
    cpu::{self, Span},
    judge, predicted_rss_bytes_peak,
};
use crate::analysis::modes::Mode;
use crate::metric::Unit;
use crate::run::{Fidelity, FidelityConfig, Time};
use crate::units;
use std::fmt::Write;

/// `peak`, `end`, `rest 1 s`.
fn name(what: What) -> String {
    match what {
        What::Peak => "peak".to_owned(),
        What::End => "end".to_owned(),
        What::Rest(delay) => format!("rest {}", units::delay(delay)),
    }
}

fn signed(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// What a report of the same trace says, without a full stop; `None` when nothing was judged.
#[must_use]
pub fn quote(found: &Fidelity) -> Option<String> {
    let judged = judge(found);
    if judged.judged == 0 {
        return None;
    }
    let configs = found.configs.iter().filter(|config| !config.real.is_empty()).count();
    Some(format!(
        "predicted memory was within {} (or {} MiB) of the real program's range in {} of {} figures (live, {}, {} \
         each, {})",
        words::percent(judged.widen_share),
        units::mib(WIDEN_BYTES),
        judged.inside,
        judged.judged,
        words::plural(configs, "configuration"),
        words::plural(judged.runs_min, "run"),
        words::date(found.started_unix_ms)
    ))
}

/// The whole comparison.
#[must_use]
pub fn compared(found: &Fidelity) -> String {
    let judged = judge(found);
    let mut text = format!("{}: the real program beside its replay\n", found.workload);
    text.push_str(&head(found));
    text.push('\n');
    let figures = figures(found, &judged);
    text.push_str(&figures.text());
    text.push('\n');
    text.push_str(&process(found).text());
    text.push('\n');
    text.push_str(&legend(&figures));
    text.push_str(&verdict(found, &judged));
    text
}

/// The replays alone.
#[must_use]
pub fn predictions(found: &Fidelity) -> String {
    let mut headings = vec!["configuration".to_owned(), ">peak MiB".into(), ">end".into()];
    headings.extend(found.idle_ms.iter().map(|delay| format!(">{}", name(What::Rest(*delay)))));
    headings.extend([">CPU s".to_owned(), ">of all".into(), ">process peak (VmHWM) MiB".into()]);
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new("Predictions", &headings);
    for config in &found.configs {
        let whats = [What::Peak, What::End].into_iter().chain(found.idle_ms.iter().map(|delay| What::Rest(*delay)));
        let heap = whats.map(|what| {
            let modes = fidelity::predicted_modes(found, config, what, true);
            either(&modes).unwrap_or_else(|| mib(fidelity::predicted(found, config, what, true)))
        });
        let cpu = [Span::Steady, Span::All].map(|span| seconds(cpu::predicted_ns(found, config, span)));
        let rest = cpu.into_iter().chain([mib(predicted_rss_bytes_peak(found, config))]);
        table.row([config.name.clone()].into_iter().chain(heap).chain(rest));
    }
    let mut text = format!("{}: what the replay predicts\n", found.workload);
    text.push_str(&head(found));
    text.push('\n');
    text.push_str(&table.text());
    text.push('\n');
    text.push_str(&legend(&table));
    text.push_str(&failures(found));
    text.push_str("Nothing real was run: add `-- CMD` to hold these figures against the program.\n");
    text
}

const LEGEND: &str = "\
Heap MiB: anonymous resident memory less written file pages, zero-initialised data and stacks. CPU s: of `steady`, and
of all up to the mark that rest follows; the recorded program's CPU time, less the replay of what it ran under, plus the
replay of this configuration. Process peak: heap of the replay and what the recorded process held beside its heap. The
last two have no bar.
";

/// Where a cell of a table has two values.
const BIMODAL: &str = "\
`39.0 or 44.0`: bimodal, each run comes out at one of the two. Modes of the real runs have to be modes of the replays.
";

fn legend(table: &Table) -> String {
    let has_modes = table.rows.iter().flatten().any(|cell| cell.contains(words::OR));
    format!("{LEGEND}{}", if has_modes { BIMODAL } else { "" })
}

/// MiB of the two modes of a figure that has two.
fn either(modes: &[Mode]) -> Option<String> {
    words::bimodal(Unit::Bytes, modes)
}

fn head(found: &Fidelity) -> String {
    let runs = |count: usize, what: &str| words::plural(count, what);
    let most = |of: fn(&FidelityConfig) -> usize| found.configs.iter().map(of).max().unwrap_or(0);
    let real = most(|config| config.real.len());
    let mut parts = vec![runs(found.configs.len(), "configuration")];
    if real > 0 {
        parts.push(runs(real, "real run"));
    }
    parts.push(format!("{} each", runs(most(|config| config.replayed.len()), "replay")));
    parts.push(match found.threads {
        0 | 1 => "one thread allocates".to_owned(),
        n => format!("{n} threads allocate"),
    });
    // Without the remark in parentheses, which is about time.
    let name = |mode| words::mode(mode).split(" (").next().unwrap_or_default();
    parts.extend(found.mode.map(|mode| format!("threads replayed {}", name(mode))));
    parts.extend(times(found));
    let mut replays = found.configs.iter().flat_map(|config| &config.replayed);
    let from = replays.next();
    parts.extend(from.map(|run| format!("rest after {}", run.rest_from)));
    let mut text = format!("{}\n", parts.join(" · "));
    text.push_str(&super::trust::of_fidelity(found));
    for note in found.notes.iter().chain(&ends(found)) {
        let _ = writeln!(text, "NOTE: {note}");
    }
    if let Some(bytes) = fidelity::mapped_bytes_not_followed(found) {
        let _ = writeln!(
            text,
            "NOTE: {} MiB at {} are memory that libraries mapped for themselves, such as a private allocator's. What \
             becomes of it while the program idles is not recorded, so what comes after is not predicted.",
            units::mib(bytes),
            from.map_or("rest", |run| &run.rest_from)
        );
    }
    text
}

/// Which time the allocators of the replays for memory met.
fn times(found: &Fidelity) -> Vec<String> {
    let is_in = |time: Time| move |config: &&FidelityConfig| config.replayed.iter().any(|run| run.time == Some(time));
    let names = |time: Time| {
        let names: Vec<&str> = found.configs.iter().filter(is_in(time)).map(|config| config.name.as_str()).collect();
        if names.len() == found.configs.len() { String::new() } else { format!(" ({})", names.join(", ")) }
    };
    let some = |time: Time, text: String| {
        found.configs.iter().find(is_in(time)).map(|_| format!("memory {text}{}", names(time)))
    };
    let gaps = match found.pace {
        0 | 1 => "with the recorded gaps between calls".to_owned(),
        factor => format!("with the recorded gaps between calls, {factor} times shorter"),
    };
    // Files from before there was virtual time.
    let is_old = found.configs.iter().flat_map(|config| &config.replayed).all(|run| run.time.is_none());
    let old = (is_old && found.pace > 0).then(|| format!("memory {gaps}"));
    let times = [
        some(Time::Virtual, "in virtual time".to_owned()),
        some(Time::Real, format!("in real time {gaps}")),
        some(Time::None, "back to back".to_owned()),
    ];
    times.into_iter().flatten().chain(old).collect()
}

/// How the real programs ended, where that was not by code 0.
fn ends(found: &Fidelity) -> Vec<String> {
    let runs = || found.configs.iter().flat_map(|config| &config.real);
    let mut ends: Vec<&str> = runs().filter_map(|run| run.ended.as_deref()).collect();
    ends.sort_unstable();
    let all = runs().count();
    let note =
        |own: &[&str]| format!("the program ended {} in {} of {all} runs, after its rest was read", own[0], own.len());
    ends.chunk_by(|one, other| one == other).map(note).collect()
}

fn figures(found: &Fidelity, judged: &Judgement) -> Table {
    let mut table = Table::new(
        "Heap MiB: real runs and replays",
        &["configuration", "figure", ">real", ">range", ">with allowance", ">replayed", ">error", "verdict"],
    );
    for row in &judged.rows {
        let range = |(low, high)| format!("{} - {}", units::mib(low), units::mib(high));
        table.row([
            found.configs[row.config].name.clone(),
            name(row.what),
            either(&row.real_modes).unwrap_or_else(|| units::mib(row.real)),
            range(row.range),
            range(row.widened),
            either(&row.predicted_modes).unwrap_or_else(|| mib(row.predicted)),
            row.error.map_or(words::UNKNOWN.to_owned(), signed),
            match row.inside {
                Some(true) => "inside",
                Some(false) => "OUTSIDE",
                None => words::UNKNOWN,
            }
            .to_owned(),
        ]);
    }
    table
}

fn process(found: &Fidelity) -> Table {
    let mut table = Table::new(
        "Time of `steady` and of all, and process memory; no bar",
        &[
            "configuration",
            ">CPU s",
            ">replayed",
            ">of all",
            ">replayed",
            ">wall s",
            ">process peak (VmHWM) MiB",
            ">replayed",
        ],
    );
    for config in &found.configs {
        let of =
            |value: fn(&crate::run::RealRun) -> Option<u64>| fidelity::median(config.real.iter().filter_map(value));
        table.row([
            config.name.clone(),
            seconds(cpu::real_ns(config, Span::Steady)),
            seconds(cpu::predicted_ns(found, config, Span::Steady)),
            seconds(cpu::real_ns(config, Span::All)),
            seconds(cpu::predicted_ns(found, config, Span::All)),
            seconds(of(|run| run.wall_ns)),
            mib(of(|run| Some(run.rss_bytes_peak))),
            mib(predicted_rss_bytes_peak(found, config)),
        ]);
    }
    table
}

fn mib(bytes: Option<f64>) -> String {
    bytes.map_or(words::UNKNOWN.to_owned(), units::mib)
}

fn seconds(ns: Option<f64>) -> String {
    ns.map_or(words::UNKNOWN.to_owned(), |ns| units::significant(ns / 1e9))
}

fn verdict(found: &Fidelity, judged: &Judgement) -> String {
    let of = |config: usize| found.configs[config].name.as_str();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "figures: {} of {} inside the range of the real runs widened by {} of their median, at least {} MiB",
        judged.inside,
        judged.judged,
        words::percent(judged.widen_share),
        units::mib(WIDEN_BYTES)
    );
    let right = judged.pairs.iter().filter(|pair| pair.right).count();
    let _ = writeln!(
        text,
        "order: {right} of {} pairs that really differ (ranges apart, medians by {} and {} MiB) are in the right order",
        judged.pairs.len(),
        words::percent(ORDER_SHARE),
        units::mib(ORDER_BYTES)
    );
    for pair in judged.pairs.iter().filter(|pair| !pair.right) {
        let _ = writeln!(
            text,
            "  WRONG: {} of {} is really below that of {}",
            name(pair.what),
            of(pair.less),
            of(pair.more)
        );
    }
    let cpu = &judged.cpu;
    if cpu.absolute.of > 0 {
        let _ = writeln!(
            text,
            "CPU: {} of {} times within {} of the real median; {} of {} ratios to the recorded configuration within \
             {}, of those where the real ratio is further from 1",
            cpu.absolute.near,
            cpu.absolute.of,
            words::percent(cpu::ABSOLUTE_SHARE),
            cpu.ratios.near,
            cpu.ratios.of,
            words::percent(cpu::RATIO_SHARE)
        );
    }
    for pick in &judged.picks {
        let bad = if pick.good { "" } else { "TOO FAR: " };
        let overlap = if pick.overlap && pick.chosen != pick.best { " (their ranges overlap)" } else { "" };
        let (what, above) = (name(pick.what), words::percent(pick.above));
        let (chosen, best) = (of(pick.chosen), of(pick.best));
        let _ = writeln!(
            text,
            "{bad}the replay would pick {chosen} for {what}; really it is {above} above the best, {best}{overlap}"
        );
    }
    for same in &judged.same {
        let apart: Vec<String> =
            same.apart.iter().map(|(what, share)| format!("{} {}", name(*what), signed(*share))).collect();
        let (one, other) = (of(same.one), of(same.other));
        let _ = writeln!(text, "A/A: {one} and {other} are the same to this trace; real medians: {}", apart.join(", "));
    }
    text.push_str(&misses(found, judged));
    text.push_str(&failures(found));
    text
}

/// Each cause once, with the figures that it is a cause of.
fn misses(found: &Fidelity, judged: &Judgement) -> String {
    let mut causes: Vec<(&str, Vec<(usize, String)>)> = Vec::new();
    for miss in &judged.misses {
        let row = &judged.rows[miss.row];
        for reason in &miss.reasons {
            let known = causes.iter().position(|(cause, _)| cause == reason).unwrap_or_else(|| {
                causes.push((reason, Vec::new()));
                causes.len() - 1
            });
            causes[known].1.push((row.config, name(row.what)));
        }
    }
    let mut text = String::new();
    for (cause, figures) in causes {
        let whose: Vec<String> = figures
            .chunk_by(|(one, _), (other, _)| one == other)
            .map(|own| {
                let figures: Vec<&str> = own.iter().map(|(_, figure)| figure.as_str()).collect();
                format!("{} of {}", figures.join(", "), found.configs[own[0].0].name)
            })
            .collect();
        let _ = writeln!(text, "MISS: {}: {cause}", whose.join("; "));
    }
    text
}

/// Failed runs of each configuration that are printed.
const FAILURES_SHOWN: usize = 12;

fn failures(found: &Fidelity) -> String {
    let mut text = String::new();
    for config in &found.configs {
        for failure in config.failures.iter().take(FAILURES_SHOWN) {
            let _ = writeln!(text, "FAILED under {}: {failure}", config.name);
        }
        if let Some(more) = config.failures.len().checked_sub(FAILURES_SHOWN).filter(|more| *more > 0) {
            let _ = writeln!(text, "FAILED under {}: {more} more", config.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RealRun, ReplayedRun};

    fn found() -> Fidelity {
        let mib = 1 << 20;
        let run = |peak: u64| RealRun {
            peak_bytes: peak * mib,
            end_bytes: Some(20 * mib),
            rest: vec![(0, 10 * mib), (1_000, 10 * mib)],
            rest_from: "drained".into(),
            has_steady: true,
            ..RealRun::default()
        };
        let replayed = ReplayedRun {
            steady_bytes: None,
            peak_bytes: 40 * mib,
            peak_bytes_all: 40 * mib,
            end_bytes: 20 * mib,
            rest: vec![(0, 10 * mib), (1_000, 10 * mib)],
            rest_from: "drained".into(),
            ..ReplayedRun::default()
        };
        let config = FidelityConfig {
            name: "today".into(),
            real: vec![run(30), run(31)],
            replayed: vec![replayed],
            failures: vec!["It ended with code 3.".into()],
            ..FidelityConfig::default()
        };
        Fidelity {
            workload: "app".into(),
            threads: 1,
            idle_ms: vec![0, 1_000],
            configs: vec![config],
            started_unix_ms: 1_790_000_000_000,
            ..Fidelity::default()
        }
    }

    #[test]
    fn the_quote_counts_figures() {
        assert_eq!(
            quote(&found()).as_deref(),
            Some(
                "predicted memory was within 3.0 % (or 0.50 MiB) of the real program's range in 3 of 4 figures (live, \
                 1 configuration, 2 runs each, 2026-09-21 14:13 UTC)"
            )
        );
        assert_eq!(quote(&Fidelity::default()), None);
    }

    #[test]
    fn a_cause_is_printed_once_with_its_figures() {
        let mut found = found();
        found.configs[0].real.iter_mut().for_each(|run| {
            run.rest = vec![(0, 30 << 20), (1_000, 30 << 20)];
            run.ended = Some("with code 3".into());
            run.huge_bytes = Some(20 << 20);
        });
        found.configs[0].replayed[0].huge_bytes = Some(0);
        found.configs.push(FidelityConfig { name: "nopool".into(), ..found.configs[0].clone() });
        let text = compared(&found);
        let misses: Vec<&str> = text.lines().filter(|line| line.starts_with("MISS")).collect();
        let cause = "huge pages: 20.0 MiB in the program, 0.00 in the replay";
        let figures = "peak, rest 0 ms, rest 1 s of";
        assert_eq!(misses, [format!("MISS: {figures} today; {figures} nopool: {cause}")]);
        assert!(text.contains("NOTE: the program ended with code 3 in 4 of 4 runs"), "{text}");
    }

    #[test]
    fn every_miss_and_failure_is_printed() {
        let text = compared(&found());
        for line in [
            "peak       30.5  30.0 - 31.0",
            "+31.1 %  OUTSIDE",
            "figures: 3 of 4 inside",
            "MISS: peak of today: no cause shows in what was measured for today: the real runs have one mode",
            "FAILED under today: It ended with code 3.",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let text = predictions(&found());
        assert!(text.contains("rest 1 s") && text.contains("Nothing real was run"), "{text}");
    }
}
