//! How figures, verdicts and names read, in every report alike.
//!
//! Invariant: a number never stands without what is known of its spread, and no verdict is worded outside this page.

use crate::analysis::memory::RATIO_LIVE_BYTES_MIN;
use crate::analysis::modes;
use crate::analysis::threads::ThreadsAnalysis;
use crate::analysis::{
    Analysis, Comparison, ConfigAnalysis, Estimate, Figure, Percentile, ShownRun, Verdict, WorkloadAnalysis,
};
use crate::metric::{self, Unit};
use crate::run::{ConfigFacts, Mode, Time, WorkloadFacts};
use crate::units;

/// What prints where nothing is known.
pub const UNKNOWN: &str = "–";

/// The word of a verdict.
#[must_use]
pub const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifference => "no difference",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// A value in the unit of its metric, without the unit's name.
#[must_use]
pub fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Nanoseconds => units::significant(value),
        Unit::Bytes => units::mib(value),
        Unit::Count => units::count(value),
    }
}

/// The unit's name as a heading carries it.
#[must_use]
pub const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "MiB",
        Unit::Count => "",
    }
}

/// `6.80 [6.71 6.92]`; a range stands in round brackets.
#[must_use]
pub fn estimate(in_unit: Unit, e: &Estimate) -> String {
    let text = |v| value(in_unit, v);
    if e.n < 2 {
        return text(e.median);
    }
    let (open, close) = brackets(e);
    format!("{} {open}{} {}{close}", text(e.median), text(e.low), text(e.high))
}

const fn brackets(e: &Estimate) -> (char, char) {
    if e.interval { ('[', ']') } else { ('(', ')') }
}

/// Between the two values of a figure that has two modes.
pub const OR: &str = " or ";

/// `39.2 or 43.9`; `None` of a figure that has one mode.
#[must_use]
pub fn bimodal(in_unit: Unit, modes: &[modes::Mode]) -> Option<String> {
    match modes {
        [low, high] => Some(format!("{}{OR}{}", value(in_unit, low.median), value(in_unit, high.median))),
        _ => None,
    }
}

/// `bimodal: resident at rest of today is 39.2 or 43.9 MiB (3 and 2 of 5 runs)`, for each such figure.
#[must_use]
pub fn bimodal_lines(workload: &WorkloadAnalysis) -> Vec<String> {
    let figures = workload.configs.iter().flat_map(|config| config.modes.iter().map(move |found| (config, found)));
    let line = |(config, (key, modes)): (&ConfigAnalysis, &(&str, Vec<modes::Mode>))| {
        let metric = metric::ALL.iter().find(|metric| metric.key == *key)?;
        let ([low, high], values) = (&modes[..], bimodal(metric.unit, modes)?) else { return None };
        Some(format!(
            "bimodal: {} of {} is {values} {} ({} and {} of {} runs)",
            metric.label,
            config.name,
            unit(metric.unit),
            low.runs,
            high.runs,
            low.runs + high.runs
        ))
    };
    figures.filter_map(line).collect()
}

/// `0.72 [0.70 0.74] better`; the baseline prints as 1.
#[must_use]
pub fn versus(figure: Option<&Figure>, is_baseline: bool) -> String {
    match figure.map(|figure| &figure.versus) {
        Some(Some(c)) => {
            let (open, close) = brackets(&c.ratio);
            let (low, high) = (ratio(c.ratio.low), ratio(c.ratio.high));
            format!("{} {open}{low} {high}{close} {}", ratio(c.ratio.median), verdict(c.verdict))
        }
        Some(None) if is_baseline => "1.00".to_owned(),
        _ => UNKNOWN.to_owned(),
    }
}

/// A ratio with two decimals, fewer where it is large; unknown where it is not a number.
#[must_use]
pub fn ratio(ratio: f64) -> String {
    if ratio.is_finite() { units::significant(ratio) } else { UNKNOWN.to_owned() }
}

/// `11 %`, `0.4 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() >= 9.95 { format!("{percent:.0} %") } else { format!("{percent:.1} %") }
}

/// `0.31 us`, or `< 40.0 ns` under the clock.
#[must_use]
pub fn percentile(percentile: Option<Percentile>) -> String {
    match percentile {
        Some(Percentile::Ns(ns)) => units::nanoseconds(ns),
        Some(Percentile::Below(ns)) => format!("< {}", units::nanoseconds(ns)),
        None => UNKNOWN.to_owned(),
    }
}

/// Name and version of what a configuration is about: `mimalloc 3.3.2`, `cpython:python3.13 3.13.0`. The whole version
/// is in the table of configurations.
#[must_use]
pub fn allocator(config: &ConfigFacts) -> String {
    let (key, of) = config.name.split_once(':').unwrap_or((&config.name, ""));
    let Some(facts) = config.allocators.iter().find(|a| a.key == key) else { return config.name.clone() };
    let release = facts.release();
    // `pypool` and `CPython` say again what the name says, as does the version in `cpython:3.13.0`.
    let words = release.split_whitespace().filter(|word| !word.to_lowercase().ends_with(key) && !of.starts_with(word));
    [config.name.as_str()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// Resident over live bytes; unknown where so little is live that the ratio says nothing.
#[must_use]
pub fn resident_over_live(resident: f64, live: f64) -> String {
    if live >= RATIO_LIVE_BYTES_MIN as f64 { ratio(resident / live) } else { UNKNOWN.to_owned() }
}

/// Cuts a text to a number of characters, the last of them saying so.
#[must_use]
pub fn cut(text: &str, characters: usize) -> String {
    if text.chars().count() <= characters {
        return text.to_owned();
    }
    let kept: String = text.chars().take(characters.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// How threads were replayed.
#[must_use]
pub const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Merged => "merged (all threads' calls on one thread, back to back)",
        Mode::Gil => "gil (recorded threads, Python's own calls in the recorded order)",
        Mode::Free => "free (recorded threads, waiting only for each other's blocks)",
    }
}

/// How the workloads' threads were replayed; `None` when nothing was.
#[must_use]
pub fn modes(analysis: &Analysis) -> Option<String> {
    let modes: Vec<&str> = analysis.modes.iter().map(|kind| mode(*kind)).collect();
    (!modes.is_empty()).then(|| format!("threads: {}", modes.join(", ")))
}

/// What may be said of single calls where threads wait for each other.
#[must_use]
pub fn standstill(threads: &ThreadsAnalysis) -> String {
    match threads.standstill {
        None => "not timed".to_owned(),
        Some(share) if threads.withholds_latency() => {
            format!("latency withheld: no thread ran for {} of the time", percent(share))
        }
        Some(_) => "timed".to_owned(),
    }
}

/// Threads of a workload in one line; `None` where one thread replayed everything.
#[must_use]
pub fn threads_line(workload: &WorkloadAnalysis) -> Option<String> {
    let configs = || workload.configs.iter().filter_map(|config| Some((config, config.threads?)));
    let (_, first) = configs().next()?;
    let each = configs().map(|(config, threads)| {
        format!("{} {} ({})", config.name, ratio(threads.concurrency), percent(threads.waiting))
    });
    let withheld = configs().filter(|(_, threads)| threads.withholds_latency());
    let withheld: Vec<String> =
        withheld.map(|(config, threads)| format!(" · {}: {}", config.name, standstill(&threads))).collect();
    let each = each.collect::<Vec<_>>().join(", ");
    let count = plural(first.threads as usize, "thread");
    Some(format!("{count} in all; running at a time (share of their lives waiting): {each}{}", withheld.concat()))
}

/// `1 run`, `2 runs`.
#[must_use]
pub fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// What is to be said of failed runs that are not listed.
#[must_use]
pub fn untold(analysis: &Analysis) -> Option<String> {
    let more = analysis.failed_runs_untold();
    let runs = plural(more as usize, "more run");
    (more > 0).then(|| format!("{runs} failed for other reasons. Each reason is in {}.", crate::run::RUNS_FILE))
}

/// ` (12 runs)` behind what several runs failed with.
#[must_use]
pub fn times(runs: u32) -> String {
    if runs > 1 { format!(" ({runs} runs)") } else { String::new() }
}

/// A moment in milliseconds since the epoch as `2026-01-31 12:00 UTC`.
#[must_use]
pub fn date(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    let (year, month, day) = units::civil_from_days(minutes / 1440);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// The facts of a workload.
#[must_use]
pub fn facts<'a>(analysis: &'a Analysis, workload: &WorkloadAnalysis) -> &'a WorkloadFacts {
    &analysis.environment.workloads[workload.facts]
}

/// Name of the baseline of a workload.
#[must_use]
pub fn baseline<'a>(analysis: &'a Analysis, workload: &WorkloadAnalysis) -> &'a str {
    workload.baseline.map_or("the first", |i| &analysis.environment.configs[i].name)
}

/// `3.1 M calls · live 14.1 MiB at peak, 5.90 at rest · pool = 11 % of the program's CPU`.
#[must_use]
pub fn workload_line(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    let mut parts = vec![format!("{} calls", units::count(workload.calls as f64))];
    let peak = facts(analysis, workload).image.live_bytes_peak_steady as f64;
    let rest = workload.configs.iter().find_map(|c| c.memory.as_ref()).map(|m| m.rest_live_bytes);
    parts.push(match rest {
        Some(rest) => format!("live {} MiB at peak, {} at rest", units::mib(peak), units::mib(rest)),
        None => format!("live {} MiB at peak", units::mib(peak)),
    });
    let first = workload.configs.iter().find(|c| Some(c.config) == workload.baseline);
    if let Some(share) = first.and_then(|first| first.program_share) {
        parts.push(format!("{} = {} of the program's CPU", baseline(analysis, workload), percent(share)));
    }
    if !workload.steady {
        parts.push("no `steady` mark: everything counts".to_owned());
    }
    parts.join(" · ")
}

/// What the result knows of its own noise, in one line: `A/A: no difference in 10 verdicts · smallest difference in
/// time that could be seen: 1.2 % (mixed) to 3.1 % (arrow-service)`; `None` without a control, as in old results.
#[must_use]
pub fn control(analysis: &Analysis) -> Option<String> {
    let twins = analysis.twins?;
    let verdicts = plural(twins.verdicts as usize, "verdict");
    let mut parts = vec![match (twins.verdicts, twins.different) {
        (0, _) => "A/A: inconclusive, too few blocks".to_owned(),
        (_, 0) => format!("A/A: no difference in {verdicts}"),
        (_, different) => format!("A/A: {different} OF {verdicts} DIFFER: distrust small differences"),
    }];
    let seen = || analysis.noise.time_seen.iter();
    let by_share = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
    if let (Some(least), Some(most)) = (seen().min_by(by_share), seen().max_by(by_share)) {
        let one = |(workload, share): &(String, f64)| format!("{} ({workload})", percent(*share));
        let range = if seen().count() == 1 { one(least) } else { format!("{} to {}", one(least), one(most)) };
        parts.push(format!("smallest difference in time that could be seen: {range}"));
    }
    Some(parts.join(" · "))
}

/// `in the run nearest to the medians of peak and rest (pool run 2, system run 5, of 6)`: what curves and owners are
/// of.
#[must_use]
pub fn shown_runs<'a>(configs: impl IntoIterator<Item = &'a ConfigAnalysis>) -> String {
    let shown: Vec<(&str, ShownRun)> =
        configs.into_iter().filter_map(|config| Some((config.name.as_str(), config.memory.as_ref()?.shown))).collect();
    let most = shown.iter().map(|(_, run)| run.of).max().unwrap_or(0);
    if most < 2 {
        return "in the one run that there is".to_owned();
    }
    let runs: Vec<String> = shown.iter().map(|(name, run)| format!("{name} run {}", run.number)).collect();
    format!("in the run nearest to the medians of peak and rest ({}, of {most})", runs.join(", "))
}

/// What `live` found about this trace, without a full stop; `None` when it never compared anything.
#[must_use]
pub fn fidelity(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<String> {
    super::fidelity::quote(facts(analysis, workload).fidelity.as_deref()?)
}

/// One sentence per configuration and workload: what may be said against the baseline.
#[must_use]
pub fn sentence(analysis: &Analysis, workload: &WorkloadAnalysis, config: &ConfigAnalysis) -> Option<String> {
    let memory = config.memory.as_ref();
    let rest = memory.map_or(String::new(), |m| format!("resident after {}", idle(m.rest_after_ms)));
    let parts: Vec<String> = [
        ("time per call".to_owned(), config.ns_per_call.as_ref()),
        ("resident at peak".to_owned(), memory.map(|m| &m.peak)),
        (rest, memory.map(|m| &m.rest)),
        ("page faults".to_owned(), config.faults.as_ref()),
    ]
    .into_iter()
    .filter_map(|(name, figure)| Some(format!("{name} {}", change(figure?.versus.as_ref()?))))
    .collect();
    let facts = &analysis.environment.configs[config.config];
    let baseline = baseline(analysis, workload);
    (!parts.is_empty()).then(|| format!("{} against {baseline}: {}.", allocator(facts), parts.join("; ")))
}

/// `28 % lower (26 % to 30 %), better`.
#[must_use]
pub fn change(comparison: &Comparison) -> String {
    let Estimate { median, low, high, n, .. } = comparison.ratio;
    let word = verdict(comparison.verdict);
    let direction = if median < 1.0 { "lower" } else { "higher" };
    let by = percent((median - 1.0).abs());
    match comparison.verdict {
        Verdict::Better | Verdict::Worse => {
            let (near, far) = if median < 1.0 { (1.0 - high, 1.0 - low) } else { (low - 1.0, high - 1.0) };
            format!("{by} {direction} ({} to {}), {word}", percent(near), percent(far))
        }
        Verdict::Inconclusive if n == 1 => format!("{by} {direction} in the one run of each, {word}"),
        Verdict::NoDifference => format!("no difference detected (ratio {} to {})", ratio(low), ratio(high)),
        Verdict::Inconclusive => {
            let pairs = plural(n as usize, "pair");
            format!("inconclusive (ratio {}, {} to {} in {pairs})", ratio(median), ratio(low), ratio(high))
        }
    }
}

/// `10 s idle`, `1.5 s idle`, `100 ms idle`; a delay overslept by less than 50 ms reads as it was meant.
#[must_use]
pub fn idle(ms: u64) -> String {
    format!("{} idle", units::delay(ms))
}

/// Which time the allocators met in the footprint passes of a workload; `None` where no result says so.
pub fn time_met(workload: &WorkloadAnalysis) -> Option<String> {
    let of = |config: &ConfigAnalysis| config.memory.as_ref().and_then(|memory| memory.time);
    let known = || workload.configs.iter().filter_map(|config| Some((of(config)?, config.label.as_str())));
    let mut parts: Vec<String> = Vec::new();
    for (time, text) in [
        (Time::Virtual, "memory in virtual time"),
        (Time::Real, "memory in real time"),
        (Time::None, "memory back to back"),
    ] {
        let names: Vec<&str> = known().filter(|(own, _)| *own == time).map(|(_, name)| name).collect();
        if names.len() == known().count() && !names.is_empty() {
            return Some(text.to_owned());
        }
        // Of the usual time no name is needed.
        match (names.is_empty(), time) {
            (true, _) => {}
            (false, Time::Virtual) => parts.push(text.to_owned()),
            (false, _) => parts.push(format!("{text}: {}", names.join(", "))),
        }
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(low: f64, median: f64, high: f64, verdict: Verdict) -> Comparison {
        let n = if verdict == Verdict::Inconclusive { 3 } else { 12 };
        Comparison { ratio: Estimate { median, low, high, n, interval: n > 5 }, verdict }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_767_225_599_999), "2025-12-31 23:59 UTC");
        assert_eq!(date(1_790_000_000_000), "2026-09-21 14:13 UTC");
    }

    #[test]
    fn changes_read_from_the_near_end_to_the_far_one() {
        let say = |low, median, high, verdict| change(&comparison(low, median, high, verdict));
        assert_eq!(say(0.70, 0.72, 0.74, Verdict::Better), "28 % lower (26 % to 30 %), better");
        assert_eq!(say(1.5, 2.0, 3.0, Verdict::Worse), "100 % higher (50 % to 200 %), worse");
        assert_eq!(say(0.99, 1.0, 1.02, Verdict::NoDifference), "no difference detected (ratio 0.99 to 1.02)");
        let few = say(0.9, 1.1, 1.2, Verdict::Inconclusive);
        assert_eq!(few, "inconclusive (ratio 1.10, 0.90 to 1.20 in 3 pairs)");
        let mut one = comparison(1.95, 1.95, 1.95, Verdict::Inconclusive);
        one.ratio.n = 1;
        assert_eq!(change(&one), "95 % higher in the one run of each, inconclusive");
    }

    #[test]
    fn delays_read_as_they_were_meant() {
        assert_eq!(
            [0, 101, 1000, 1536, 10_004].map(idle),
            ["0 ms", "101 ms", "1 s", "1.5 s", "10 s"].map(|t| format!("{t} idle"))
        );
    }

    #[test]
    fn a_tiny_base_gives_no_ratio() {
        assert_eq!(resident_over_live(8e6, 1e6), UNKNOWN);
        assert_eq!(resident_over_live(16e6, 8e6), "2.00");
    }

    #[test]
    fn a_version_is_said_once() {
        let facts = |key: &str, version: &str| crate::run::AllocatorFacts {
            key: key.into(),
            version: version.into(),
            ..Default::default()
        };
        let config = |version: &str| ConfigFacts {
            name: "mimalloc".into(),
            allocators: vec![facts("system", "glibc 2.36"), facts("mimalloc", version)],
            ..Default::default()
        };
        assert_eq!(allocator(&config("3.3.2")), "mimalloc 3.3.2");
        assert_eq!(allocator(&config("mimalloc 3.3.2")), "mimalloc 3.3.2");
        assert_eq!(allocator(&config("3.3.2-0-g81034ce")), "mimalloc 3.3.2");
        assert_eq!(allocator(&config("3.3.2 over glibc 2.36")), "mimalloc 3.3.2");
        assert_eq!(allocator(&config("")), "mimalloc");
        let cpython = |name: &str| ConfigFacts {
            name: name.into(),
            allocators: vec![facts("cpython", "CPython 3.13.0 (shared libpython) over glibc 2.36")],
            ..Default::default()
        };
        assert_eq!(allocator(&cpython("cpython")), "cpython 3.13.0");
        assert_eq!(allocator(&cpython("cpython:python3.13")), "cpython:python3.13 3.13.0");
        assert_eq!(allocator(&cpython("cpython:3.13.0-2")), "cpython:3.13.0-2");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
