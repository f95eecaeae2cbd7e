//! `latency-W`: which share of calls took longer than a time, for allocations and for frees, beside the clock alone.
//!
//! Invariant: a curve ends where the analysis ends it, at ten calls; the clock's own curve is in both panels.

use super::Drawing;
use super::axis;
use super::figure::{EndLabels, Mark, Panel, Series};
use super::subject::{Subject, Words};
use super::theme::Ink;
use crate::analysis::{Analysis, ConfigAnalysis, LatencyAnalysis};
use crate::units;

/// A survival curve: nanoseconds, share slower.
type Curve = [(f64, f64)];

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let configs: Vec<(&ConfigAnalysis, &LatencyAnalysis)> =
        subject.workload.configs.iter().filter_map(|config| Some((config, config.latency.as_ref()?))).collect();
    if configs.iter().all(|(_, latency)| latency.allocate.is_empty() && latency.free.is_empty()) {
        return None;
    }
    let clock: &Curve = &subject.workload.clock_survival;
    let curves = || configs.iter().flat_map(|(_, l)| [l.allocate.as_slice(), l.free.as_slice()]).chain([clock]);
    let drawn = || curves().flatten().filter(|(ns, share)| *ns > 0.0 && *share > 0.0);
    let low = drawn().map(|(ns, _)| *ns).fold(f64::INFINITY, f64::min);
    let high = drawn().map(|(ns, _)| *ns).fold(0.0, f64::max);
    let least = drawn().map(|(_, share)| *share).fold(1e-5, f64::min);

    let panels = ["allocate", "free"].map(|call| {
        let x = axis::nanoseconds(&format!("{call}: time of a call, ns (log)"), low / 1.15, high * 1.2);
        let y = axis::share_slower(&format!("{call}: share of calls that took longer, % (log)"), least);
        let mut panel = Panel::new(1.0, x, y);
        panel.end_labels = EndLabels::Gutter;
        panel.series.push(step("clock alone", "", Ink::Live, clock));
        for (config, latency) in &configs {
            let curve = if call == "free" { &latency.free } else { &latency.allocate };
            panel.series.push(step(&config.label, &config.name, subject.ink(config), curve));
        }
        panel
    });
    let [allocate, mut free] = panels;
    free.y.shared = true;
    let words = Words {
        title: format!("{}: latency of single calls", subject.workload.name),
        subtitle:
            "Further left is quicker. Lower down are the rare slow calls: p99 is the 1 % line. A curve ends where \
                   fewer than ten calls lie beyond it. Grey is timing itself."
                .into(),
        alt: alt(&subject, &configs),
        plot_height: 310.0,
    };
    Some(Drawing::new(subject.figure(words, vec![allocate, free], subject.latency_processes())))
}

fn step(key: &str, end: &str, ink: Ink, curve: &Curve) -> Series {
    let points = curve.iter().copied().filter(|(ns, share)| *ns > 0.0 && *share > 0.0).collect();
    Series { end: end.into(), ..Series::new(key, ink, Mark::Step, points) }
}

fn alt(subject: &Subject<'_>, configs: &[(&ConfigAnalysis, &LatencyAnalysis)]) -> String {
    let each: Vec<String> = configs
        .iter()
        .map(|(config, latency)| {
            let p999 = |curve: &Curve| match at_share(curve, 1e-3) {
                Some(ns) => units::nanoseconds(ns),
                None => "unknown".into(),
            };
            format!("{} {} to allocate and {} to free", config.name, p999(&latency.allocate), p999(&latency.free))
        })
        .collect();
    let clock = at_share(&subject.workload.clock_survival, 1e-3).map_or(String::new(), |ns| {
        format!(" Of timing itself, one in 1000 takes longer than {}.", units::nanoseconds(ns))
    });
    let name = &subject.workload.name;
    format!("Latency of single calls of {name}. One call in 1000 takes longer than: {}.{clock}", each.join("; "))
}

/// The first time that at most a share of calls exceeds.
fn at_share(curve: &Curve, share: f64) -> Option<f64> {
    curve.iter().find(|(_, slower)| *slower <= share).map(|(ns, _)| *ns)
}
