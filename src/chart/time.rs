//! `time-W`: time per call of each allocator as a ratio to the baseline, with its interval and the floor.
//!
//! Invariant: ratios are those of the analysis (paired by block), never of two medians; the baseline is exactly 1.

use super::Drawing;
use super::axis;
use super::figure::{Column, Mark, Owned, Panel, Rule, Series, Tick};
use super::subject::{Subject, Words, processes};
use super::theme::Ink;
use crate::analysis::{Analysis, ConfigAnalysis, Estimate, Figure, Verdict};
use crate::units;

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let configs: Vec<(&ConfigAnalysis, &Figure)> =
        subject.workload.configs.iter().filter_map(|config| Some((config, config.ns_per_call.as_ref()?))).collect();
    let shown: Vec<(&ConfigAnalysis, &Figure, Option<Estimate>)> =
        configs.iter().map(|(config, figure)| (*config, *figure, ratio(&subject, config, figure))).collect();
    let ratios = || shown.iter().filter_map(|(_, _, ratio)| *ratio);
    ratios().next()?;
    let floor = floor(&subject, &configs);
    let low = ratios().map(|r| r.low).chain(floor).fold(f64::INFINITY, f64::min);
    let high = ratios().map(|r| r.high).fold(0.0, f64::max);

    let ticks = shown.iter().enumerate().map(|(row, (config, _, _))| Tick {
        at: row as f64,
        text: config.label.clone(),
        ink: Ink::SeriesText(subject.slot(config)),
        name: true,
    });
    let x = axis::ratio(&format!("time per call, ratio to {} (log)", subject.baseline_label()), low, high);
    let mut panel = Panel::new(1.0, x, axis::rows("allocator", shown.len() as f64, ticks.collect()));
    panel.rules.push(Rule { at: 1.0, label: format!("1 = {}", subject.baseline_label()), dashed: false });
    for (row, (config, _, ratio)) in shown.iter().enumerate() {
        let at = row as f64;
        let (slot, name) = (subject.slot(config), config.label.clone());
        panel.owned.push(Owned { from: at - 0.5, to: at + 0.5, slot, name });
        if let Some(floor) = floor {
            panel.series.push(Series::new(FLOOR, Ink::Live, Mark::Tick, vec![(floor, at)]));
        }
        if let Some(ratio) = ratio {
            let spans = if ratio.low < ratio.high { vec![(ratio.low, ratio.high)] } else { Vec::new() };
            let series = Series::new(MEDIAN, subject.ink(config), Mark::Dot, vec![(ratio.median, at)]);
            panel.series.push(Series { spans, ..series });
        }
    }
    panel.columns = columns(&shown);
    // The baseline's own ratio has no spread.
    let drawn = configs.iter().filter_map(|(_, figure)| figure.versus);
    let mut estimates: Vec<Estimate> = drawn.map(|versus| versus.ratio).collect();
    if estimates.is_empty() {
        estimates.extend(configs.iter().map(|(_, figure)| Estimate { interval: false, ..figure.value }));
    }
    let interval = "bootstrap interval, 95 % for all verdicts together";
    let words = Words {
        title: format!("{}: time per call against {}", subject.workload.name, subject.baseline_label()),
        subtitle: subtitle(&subject, floor.is_some()),
        alt: alt(&subject, &shown),
        plot_height: 46.0 * shown.len() as f64,
    };
    Some(Drawing::new(subject.figure(words, vec![panel], processes(&estimates, interval))))
}

const FLOOR: &str = "floor: the null allocator";
const MEDIAN: &str = "median of ratios paired by block";

/// The ratio to the baseline; that of the baseline itself is 1 without a spread.
fn ratio(subject: &Subject<'_>, config: &ConfigAnalysis, figure: &Figure) -> Option<Estimate> {
    match figure.versus {
        Some(versus) => Some(versus.ratio),
        None if Some(config.config) == subject.baseline() => {
            Some(Estimate { median: 1.0, low: 1.0, high: 1.0, n: figure.value.n, interval: false })
        }
        None => None,
    }
}

/// The null allocator's time as a ratio to the baseline's.
fn floor(subject: &Subject<'_>, configs: &[(&ConfigAnalysis, &Figure)]) -> Option<f64> {
    let (_, baseline) = configs.iter().find(|(config, _)| Some(config.config) == subject.baseline())?;
    let ratio = subject.workload.floor_null?.median / baseline.value.median;
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

fn columns(shown: &[(&ConfigAnalysis, &Figure, Option<Estimate>)]) -> Vec<Column> {
    let rows = || shown.iter().enumerate().map(|(row, shown)| (row as f64, shown));
    let time = rows().map(|(row, (_, figure, _))| (row, units::significant(figure.value.median)));
    let ratio = rows().map(|(row, (_, _, ratio))| (row, ratio.map_or("unknown".into(), |ratio| ratio_text(&ratio))));
    let verdict = rows().map(|(row, (_, figure, _))| {
        (row, figure.versus.map_or("baseline".to_string(), |versus| verdict(versus.verdict).to_string()))
    });
    vec![
        Column { heading: "ns per call".into(), cells: time.collect() },
        Column { heading: "ratio [spread]".into(), cells: ratio.collect() },
        Column { heading: "verdict".into(), cells: verdict.collect() },
    ]
}

fn ratio_text(ratio: &Estimate) -> String {
    let [median, low, high] = [ratio.median, ratio.low, ratio.high].map(units::significant);
    if ratio.low < ratio.high { format!("{median} [{low}, {high}]") } else { median }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::NoDifference => "no difference",
        Verdict::Inconclusive => "inconclusive",
    }
}

fn subtitle(subject: &Subject<'_>, floor_drawn: bool) -> String {
    let floor = subject.workload.floor_null.filter(|_| floor_drawn).map_or(String::new(), |floor| {
        format!(" Grey: {} per call for replay and touch alone.", units::nanoseconds(floor.median))
    });
    format!("Steady phase, first touch included. Left of 1: quicker than {}.{floor}", subject.baseline_label())
}

fn alt(subject: &Subject<'_>, shown: &[(&ConfigAnalysis, &Figure, Option<Estimate>)]) -> String {
    let each: Vec<String> = shown
        .iter()
        .map(|(config, figure, ratio)| {
            let ratio = ratio.map_or("unknown".into(), |ratio| ratio_text(&ratio));
            let verdict = figure.versus.map_or("the baseline", |versus| verdict(versus.verdict));
            format!("{} {} ns, ratio {ratio}, {verdict}", config.name, units::significant(figure.value.median))
        })
        .collect();
    let floor = subject.workload.floor_null.map_or(String::new(), |floor| {
        format!(" Replay and touch alone take {} per call.", units::nanoseconds(floor.median))
    });
    let (name, baseline) = (&subject.workload.name, subject.baseline_label());
    format!("Time per call of {name} against {baseline}: {}.{floor}", each.join("; "))
}
