//! `fragmentation-W`: resident over live bytes along the recording, and what resident bytes are made of at peak and at
//! rest.
//!
//! Invariant: no ratio where less than 4 MiB is live; the parts of a bar add up to the resident bytes of that reading,
//! and bars start from zero. Free blocks and retained OS pages cannot be told apart from outside: they are one part.

use super::Drawing;
use super::axis;
use super::figure::{EndLabels, Mark, Note, Owned, Panel, Series, Tick};
use super::subject::{Subject, Words, shown_runs};
use super::theme::Ink;
use crate::analysis::{Analysis, ConfigAnalysis, MemoryAnalysis};
use crate::run::MemoryPoint;
use crate::units;
use trace::Phase;

/// Below this many live bytes the ratio says nothing.
const LIVE_LEAST: u64 = 4 << 20;

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let configs = subject.with_memory();
    let (_, first) = configs.first()?;
    let left = ratio_panel(&subject, &configs);
    let right = parts_panel(&subject, &configs);
    let blank = match left {
        Some(_) => "The ratio is blank below 4 MiB live and during exit.",
        None => "Less than 4 MiB is ever live, so no ratio is drawn.",
    };
    let words = Words {
        title: format!("{}: where resident memory goes", subject.workload.name),
        subtitle: format!(
            "Held free is what no live block covers: free blocks, and OS pages not given back. Rest is after {} idle. \
             {blank}",
            units::delay(first.rest_after_ms)
        ),
        alt: alt(&subject, &configs),
        plot_height: (GROUP * 20.0 * configs.len() as f64).max(200.0),
    };
    let panels = left.into_iter().chain([right]).collect();
    Some(Drawing::new(subject.figure(words, panels, shown_runs(&configs))))
}

type Configs<'a> = [(&'a ConfigAnalysis, &'a MemoryAnalysis)];

/// Resident over live; `None` when too little is ever live.
fn ratio_panel(subject: &Subject<'_>, configs: &Configs<'_>) -> Option<Panel> {
    let lines: Vec<Series> = configs
        .iter()
        .map(|(config, memory)| {
            let line = Series::new(&config.label, subject.ink(config), Mark::Line, Vec::new());
            Series { pieces: ratio_pieces(subject, &memory.curve), end: config.name.clone(), ..line }
        })
        .collect();
    let values = lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|(_, ratio)| *ratio);
    let max = values.fold(f64::NAN, f64::max);
    if max.is_nan() {
        return None;
    }
    let y = axis::from_zero("resident / live requested, ratio", max.max(1.2), 6.0);
    let mut panel = Panel::new(1.0, axis::progress(), y);
    panel.x.label = "progress of the recording, %".into();
    panel.series = lines;
    panel.end_labels = EndLabels::Gutter;
    panel.rules = subject.phase_rules();
    Some(panel)
}

/// The ratio along a curve, in pieces where enough is live.
fn ratio_pieces(subject: &Subject<'_>, curve: &[MemoryPoint]) -> Vec<Vec<(f64, f64)>> {
    // While the interpreter exits, live bytes fall and the ratio says nothing about a program that goes on.
    let before_exit = subject.facts.image.phase_ops[Phase::Finalising as usize].unwrap_or(u64::MAX);
    curve[..curve.partition_point(|point| point.op <= before_exit)]
        .chunk_by(|a, b| (a.requested_bytes >= LIVE_LEAST) == (b.requested_bytes >= LIVE_LEAST))
        .filter(|piece| piece[0].requested_bytes >= LIVE_LEAST)
        .map(|piece| super::subject::curve(subject, piece, |p| p.resident_bytes as f64 / p.requested_bytes as f64))
        .collect()
}

/// What resident bytes are made of, from zero upwards: text of the legend, strength of colour.
const PARTS: [(&str, f64); 4] = [
    ("live, requested", 0.6),
    ("rounding up to usable size", 1.0),
    ("held free", 0.5),
    ("held free, marked MADV_FREE", 0.22),
];

/// The parts of a reading, bytes; they add up to what is resident. Live bytes that the program never touched are not
/// resident and in no part.
fn parts(point: &MemoryPoint) -> [u64; 4] {
    let resident = point.resident_bytes;
    let requested = point.requested_bytes.min(resident);
    let usable = point.usable_bytes.clamp(requested, resident);
    let lazy = point.lazy_free_bytes.min(resident - usable);
    [requested, usable - requested, resident - usable - lazy, lazy]
}

/// Rows that a configuration takes: its name, a bar at peak, a bar at rest, half a row of air.
const GROUP: f64 = 3.1;

fn parts_panel(subject: &Subject<'_>, configs: &Configs<'_>) -> Panel {
    let moments = |m: &'_ MemoryAnalysis| [("peak", m.at_peak), ("rest", m.at_rest)];
    let readings = configs.iter().flat_map(|(_, memory)| moments(memory));
    let max = readings.map(|(_, point)| point.resident_bytes).max().unwrap_or(0) as f64;
    let unit = axis::byte_unit(max);
    let mut ticks = Vec::new();
    let (mut notes, mut owned) = (Vec::new(), Vec::new());
    let mut series: Vec<Series> = Vec::new();
    for (i, (config, memory)) in configs.iter().enumerate() {
        let head = i as f64 * GROUP;
        let (slot, name) = (subject.slot(config), config.label.clone());
        owned.push(Owned { from: head - 0.5, to: head - 0.5 + GROUP, slot, name });
        let name_ink = Ink::SeriesText(slot);
        notes.push(Note { x: 0.0, y: head, text: config.label.clone(), ink: name_ink });
        for (row, (moment, point)) in (1..).map(|n| head + f64::from(n) * 0.95).zip(moments(memory)) {
            ticks.push(Tick { at: row, text: moment.into(), ink: Ink::Muted, name: true });
            let mut from = 0.0;
            for ((key, strength), bytes) in PARTS.iter().zip(parts(&point)) {
                let ink = if *key == PARTS[0].0 { Ink::Live } else { subject.ink(config) };
                let to = from + bytes as f64 / unit.bytes;
                let bar = Series::new(key, ink, Mark::Bar(*strength), vec![(to, row)]);
                series.push(Series { spans: vec![(from, to)], ..bar });
                from = to;
            }
            let resident = point.resident_bytes as f64 / unit.bytes;
            notes.push(Note { x: resident, y: row, text: units::significant(resident), ink: Ink::Text });
        }
    }
    let nothing_lazy = series.iter().filter(|bar| bar.key == PARTS[3].0).all(|bar| bar.spans[0].0 == bar.spans[0].1);
    if nothing_lazy {
        series.retain(|bar| bar.key != PARTS[3].0);
    }
    let mut x = axis::from_zero(&format!("resident memory, {}", unit.name), max / unit.bytes, 4.0);
    // Room for the printed value of the longest bar.
    x.high *= 1.16;
    let mut panel = Panel::new(1.0, x, axis::rows("", configs.len() as f64 * GROUP, ticks));
    panel.y.label = "allocator, moment".into();
    panel.series = series;
    panel.notes = notes;
    panel.owned = owned;
    panel
}

fn alt(subject: &Subject<'_>, configs: &Configs<'_>) -> String {
    let each: Vec<String> = configs
        .iter()
        .map(|(config, memory)| {
            let of = |point: &MemoryPoint| {
                let [requested, rounding, held, lazy] = parts(point).map(|bytes| units::mib(bytes as f64));
                format!("{requested} live, {rounding} rounding, {held} held free, {lazy} held free lazily")
            };
            format!("{} at peak {}; at rest {}", config.name, of(&memory.at_peak), of(&memory.at_rest))
        })
        .collect();
    format!("Resident MiB of {} by what they are: {}.", subject.workload.name, each.join(". "))
}
