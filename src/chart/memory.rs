//! `memory-W`: resident memory over the recording, then at rest; live bytes as the ground it stands on.
//!
//! Invariant: both panels share one y axis from zero; every line is of one run of its allocator, which the caption
//! names.

use super::Drawing;
use super::axis::{self, ByteUnit};
use super::figure::{Axis, EndLabels, Mark, Panel, Rule, Series};
use super::subject::{Subject, Words, curve, shown_runs};
use super::theme::Ink;
use crate::analysis::{Analysis, MemoryAnalysis};
use crate::run::{RestPoint, RestState};
use crate::units;

/// Width of the place of a step after the idle time, as a share of that time.
const SLOT: f64 = 0.56;

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let configs = subject.with_memory();
    let (_, first) = configs.first()?;
    let readings = configs.iter().flat_map(|(_, m)| m.curve.iter().chain(m.rest_curve.iter().map(|r| &r.memory)));
    let max = readings.map(|point| point.resident_bytes.max(point.requested_bytes)).max().unwrap_or(0) as f64;
    let unit = axis::byte_unit(max);

    let y = axis::from_zero(&format!("resident memory, {}", unit.name), max / unit.bytes, 6.0);
    let mut left = Panel::new(1.9, axis::progress(), y.clone());
    let live = curve(&subject, &first.curve, |point| point.requested_bytes as f64 / unit.bytes);
    left.series.push(Series::new("live requested bytes", Ink::Live, Mark::Area, live));
    subject.shade_collections(&mut left);
    left.rules = subject.phase_rules();

    let rest = RestAxis::new(&configs);
    let mut right = Panel::new(1.0, rest.axis(first), axis_shared(y, unit));
    right.end_labels = EndLabels::Gutter;
    right.rules.extend(rest.steps.iter().map(|step| Rule { at: step.from, label: String::new(), dashed: true }));
    for (config, memory) in &configs {
        let ink = subject.ink(config);
        let points = curve(&subject, &memory.curve, |point| point.resident_bytes as f64 / unit.bytes);
        left.series.push(Series::new(&config.label, ink, Mark::Line, points));
        let points = rest.points(&memory.rest_curve, unit);
        let value = points.last().map(|(_, y)| units::significant(*y)).unwrap_or_default();
        let series = Series::new(&config.label, ink, Mark::LineDots, points);
        right.series.push(Series { end: config.name.clone(), value, ..series });
    }
    let mut panels = vec![left];
    if right.series.iter().any(|series| series.last().is_some()) {
        panels.push(right);
    }
    let words = Words {
        title: format!("{}: resident memory over the recording, then at rest", subject.workload.name),
        subtitle: subtitle(first),
        alt: alt(&subject),
        plot_height: 290.0,
    };
    Some(Drawing::new(subject.figure(words, panels, shown_runs(&configs))))
}

fn axis_shared(axis: Axis, unit: ByteUnit) -> Axis {
    Axis { label: format!("at rest, same scale, {}", unit.name), shared: true, ..axis }
}

fn subtitle(memory: &MemoryAnalysis) -> String {
    format!(
        "Grey is what the program holds live; what lies above it is the allocator's. At rest: idle after {}, \
         then a trickle of small requests, then an explicit release.",
        moment(&memory.rest_from)
    )
}

/// The moment that rest follows, as a phrase.
fn moment(rest_from: &str) -> String {
    match rest_from {
        "last op" => "the last call".into(),
        mark => format!("“{mark}”"),
    }
}

fn alt(subject: &Subject<'_>) -> String {
    let each: Vec<String> = subject
        .with_memory()
        .iter()
        .map(|(config, memory)| {
            let (peak, rest) = (units::mib(memory.peak.value.median), units::mib(memory.rest.value.median));
            format!(
                "{} {peak} MiB at peak and {rest} MiB after {} idle",
                config.name,
                units::delay(memory.rest_after_ms)
            )
        })
        .collect();
    let name = &subject.workload.name;
    format!("Resident memory of {name} over its recording and at rest: {}.{}", each.join("; "), subject.extremes())
}

/// The x axis of the right panel: seconds of idle, then a place for each later step.
struct RestAxis {
    idle_s: f64,
    steps: Vec<Step>,
}

/// What follows the idle time.
struct Step {
    state: RestState,
    from: f64,
    at: f64,
}

impl RestAxis {
    fn new(configs: &[(&crate::analysis::ConfigAnalysis, &MemoryAnalysis)]) -> Self {
        let readings = || configs.iter().flat_map(|(_, memory)| &memory.rest_curve);
        let idle = readings().filter(|reading| reading.state == RestState::Idle).map(|reading| reading.after_ms);
        let idle_s = idle.max().unwrap_or(0).max(1) as f64 / 1000.0;
        let present = [RestState::Trickle, RestState::Release]
            .into_iter()
            .filter(|state| readings().any(|reading| reading.state == *state));
        let steps = present.enumerate().map(|(i, state)| {
            let from = idle_s * (1.12 + SLOT * i as f64);
            Step { state, from, at: from + idle_s * SLOT / 2.0 }
        });
        Self { idle_s, steps: steps.collect() }
    }

    fn axis(&self, memory: &MemoryAnalysis) -> Axis {
        let steps: Vec<(f64, String)> = self.steps.iter().map(|step| (step.at, name(step.state).to_string())).collect();
        let high = self.steps.last().map_or(self.idle_s * 1.04, |step| step.at + self.idle_s * SLOT / 2.0);
        axis::rest(&format!("idle time after {}, s", moment(&memory.rest_from)), self.idle_s, high, &steps)
    }

    fn points(&self, readings: &[RestPoint], unit: ByteUnit) -> Vec<(f64, f64)> {
        let place = |reading: &RestPoint| match self.steps.iter().find(|step| step.state == reading.state) {
            Some(step) => step.at,
            None => reading.after_ms as f64 / 1000.0,
        };
        readings.iter().map(|reading| (place(reading), reading.memory.resident_bytes as f64 / unit.bytes)).collect()
    }
}

fn name(state: RestState) -> &'static str {
    match state {
        RestState::Idle => "idle",
        RestState::Trickle => "trickle",
        RestState::Release => "release",
    }
}
