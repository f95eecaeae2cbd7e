//! `peak-rest-W`: a dumbbell per allocator from rest to peak, sorted by rest; often they rank opposite ways.
//!
//! Invariant: the axis starts from zero; every printed value is the median that its dot shows.

use super::Drawing;
use super::axis;
use super::figure::{Column, Mark, Owned, Panel, Series, Tick};
use super::subject::{Subject, Words, processes, with_spread};
use super::theme::Ink;
use crate::analysis::{Analysis, ConfigAnalysis, Estimate, MemoryAnalysis};
use crate::units;

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let mut configs = subject.with_memory();
    configs.sort_by(|a, b| a.1.rest.value.median.total_cmp(&b.1.rest.value.median));
    let (_, first) = configs.first()?;
    let high = |m: &MemoryAnalysis| m.peak.value.high.max(m.rest.value.high).max(m.peak_live_bytes);
    let max = configs.iter().map(|(_, memory)| high(memory)).fold(0.0, f64::max);
    let unit = axis::byte_unit(max);
    let ticks = configs.iter().enumerate().map(|(row, (config, _))| Tick {
        at: row as f64,
        text: config.label.clone(),
        ink: Ink::SeriesText(subject.slot(config)),
        name: true,
    });
    let x = axis::from_zero(&format!("resident memory, {}", unit.name), max / unit.bytes, 7.0);
    let mut panel = Panel::new(1.0, x, axis::rows("allocator", configs.len() as f64, ticks.collect()));
    let rest_key = format!("at rest, {} idle", units::delay(first.rest_after_ms));
    for (row, (config, memory)) in configs.iter().enumerate() {
        push_row(&mut panel, &Row { subject: &subject, config, memory, at: row as f64, unit: unit.bytes }, &rest_key);
    }
    let cells = |value: fn(&MemoryAnalysis) -> &Estimate| -> Vec<(f64, String)> {
        let rows = configs.iter().enumerate();
        rows.map(|(row, (_, memory))| (row as f64, with_spread(value(memory), unit.bytes))).collect()
    };
    panel.columns = vec![
        Column { heading: format!("rest, {}", unit.name), cells: cells(|m| &m.rest.value) },
        Column { heading: format!("peak, {}", unit.name), cells: cells(|m| &m.peak.value) },
    ];
    let estimates: Vec<Estimate> = configs.iter().flat_map(|(_, m)| [m.peak.value, m.rest.value]).collect();
    let words = Words {
        title: format!("{}: resident memory at peak and at rest", subject.workload.name),
        subtitle: "Sorted by rest, least first. Grey ticks: what the program itself holds live at rest and at peak."
            .into(),
        alt: alt(&subject, &configs),
        plot_height: 46.0 * configs.len() as f64,
    };
    Some(Drawing::new(subject.figure(words, vec![panel], processes(&estimates, "95 % bootstrap interval"))))
}

struct Row<'a> {
    subject: &'a Subject<'a>,
    config: &'a ConfigAnalysis,
    memory: &'a MemoryAnalysis,
    at: f64,
    unit: f64,
}

fn push_row(panel: &mut Panel, row: &Row<'_>, rest_key: &str) {
    let (memory, unit, at) = (row.memory, row.unit, row.at);
    let ink = row.subject.ink(row.config);
    let (slot, name) = (row.subject.slot(row.config), row.config.label.clone());
    panel.owned.push(Owned { from: at - 0.5, to: at + 0.5, slot, name });
    let (rest, peak) = (memory.rest.value, memory.peak.value);
    // Both ticks look alike: at rest less is live than at peak.
    let live = [memory.rest_live_bytes, memory.peak_live_bytes].map(|bytes| (bytes / unit, at));
    panel.series.push(Series::new("live requested bytes, at rest and at peak", Ink::Live, Mark::Tick, live.into()));
    let link = Series::new("from rest to peak", ink, Mark::Link, vec![(peak.median / unit, at)]);
    panel.series.push(Series { spans: vec![(rest.median / unit, peak.median / unit)], ..link });
    for (key, mark, value) in [(rest_key, Mark::Dot, rest), ("at peak", Mark::Ring, peak)] {
        let series = Series::new(key, ink, mark, vec![(value.median / unit, at)]);
        let spans = if value.n > 1 { vec![(value.low / unit, value.high / unit)] } else { Vec::new() };
        panel.series.push(Series { spans, ..series });
    }
}

fn alt(subject: &Subject<'_>, configs: &[(&ConfigAnalysis, &MemoryAnalysis)]) -> String {
    let each: Vec<String> = configs
        .iter()
        .map(|(config, memory)| {
            let (rest, peak) = (units::mib(memory.rest.value.median), units::mib(memory.peak.value.median));
            format!("{} {rest} MiB at rest and {peak} MiB at peak", config.name)
        })
        .collect();
    let name = &subject.workload.name;
    format!("Resident memory of {name}, least at rest first: {}.{}", each.join("; "), subject.extremes())
}
