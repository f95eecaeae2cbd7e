//! The legend: a sample of each mark beside its name, in rows across the page.
//!
//! Invariant: every entry is written out in full wherever its words fit the page; no entry overlaps another.

use super::figure::{LegendEntry, Mark};
use super::font;
use super::labels::wrap;
use super::layout::{Page, TEXT};
use super::panel;
use super::scene::{Anchor, Scene, Shape, TextBox};
use super::theme::{self, Ink};

/// From row to row.
const LINE: f64 = 21.0;
/// Between a sample and its name.
const GAP: f64 = 8.0;
/// Between entries.
const APART: f64 = 24.0;

/// Draws entries in rows below each other; returns the foot of the last one.
pub(super) fn draw(entries: &[LegendEntry], first_baseline: f64, page: Page, scene: &mut Scene) -> f64 {
    let (mut x, mut baseline) = (page.margin, first_baseline);
    for entry in entries {
        let sample = swatch_width(entry);
        let wide = sample + GAP + font::width(&entry.text, TEXT);
        if x > page.margin && x + wide > page.right() {
            (x, baseline) = (page.margin, baseline + LINE);
        }
        swatch(entry, (x, baseline - TEXT * 0.36), sample, scene);
        let words: Vec<String> = entry.text.split(' ').map(String::from).collect();
        // Beside a wide sample little is left for a text: it goes below.
        let below = x + wide > page.right() && sample > page.inner() / 3.0;
        let left = if below { page.margin } else { x + sample + GAP };
        baseline += if below { LINE } else { 0.0 };
        for (i, line) in wrap(&words, " ", TEXT, page.right() - left).into_iter().enumerate() {
            baseline += if i == 0 { 0.0 } else { LINE };
            scene.texts.push(TextBox::new(line, (left, baseline), Anchor::Start, TEXT, Ink::Text));
        }
        x = if x + wide > page.right() { page.right() } else { x + wide + APART };
    }
    if entries.is_empty() { first_baseline - LINE } else { baseline + TEXT * 0.24 }
}

fn swatch_width(entry: &LegendEntry) -> f64 {
    match entry.mark {
        Mark::Line | Mark::Step | Mark::LineDots | Mark::Link => 30.0,
        Mark::Area | Mark::Shade => 22.0,
        Mark::Cells if entry.inks.len() > 1 => scale_width(entry.inks.len()),
        Mark::Cells => 13.0,
        Mark::Bar(_) => (7.0 * entry.inks.len() as f64).clamp(22.0, 56.0),
        Mark::Dot | Mark::Ring => 13.0,
        Mark::Tick => 4.0,
    }
}

/// A sample of what an entry stands for, its middle at the height `y`. Bars show each of their colours; other marks of
/// several colours are drawn in that of text.
fn swatch(entry: &LegendEntry, (x, y): (f64, f64), wide: f64, scene: &mut Scene) {
    let ink = if let [ink] = entry.inks[..] { ink } else { Ink::Muted };
    let middle = (x + wide / 2.0, y);
    let (dash, marker) = panel::look(ink);
    let mut block = |from: f64, to: f64, half: f64, ink, alpha| {
        scene.shapes.push(Shape::Rect { from: (from, y - half), to: (to, y + half), ink, alpha });
    };
    match entry.mark {
        Mark::Line | Mark::Step | Mark::LineDots => {
            let points = vec![(x, y), (x + wide, y)];
            scene.shapes.push(Shape::Path { points, width: panel::LINE, ink, dash });
            if entry.mark == Mark::LineDots {
                scene.marker(marker, middle, 4.0, ink);
            }
        }
        Mark::Area => block(x, x + wide, 6.5, ink, panel::AREA_ALPHA),
        Mark::Shade => block(x, x + wide, 6.5, ink, panel::BAND_ALPHA),
        Mark::Bar(alpha) => {
            let each = wide / entry.inks.len() as f64;
            for (i, ink) in entry.inks.iter().enumerate() {
                block(x + each * i as f64, x + each * (i + 1) as f64, 6.5, *ink, alpha);
            }
        }
        Mark::Cells => scale(&entry.inks, (x, y), scene),
        Mark::Link => block(x, x + wide, 2.5, ink, panel::LINK_ALPHA),
        Mark::Dot => scene.marker(theme::Marker::Disc, middle, panel::DOT, ink),
        Mark::Ring => scene.ring(theme::Marker::Disc, middle, panel::DOT, ink),
        Mark::Tick => scene.line((middle.0, y - 8.0), (middle.0, y + 8.0), panel::TICK, ink),
    }
}

/// Width of one step of a scale.
const STEP: f64 = 15.0;
/// What stands at both ends of a scale, and the space beside it.
const SCALE_ENDS: [&str; 2] = ["0 %", "100 %"];
const SCALE_GAP: f64 = 6.0;

fn scale_width(steps: usize) -> f64 {
    let ends: f64 = SCALE_ENDS.iter().map(|text| font::width(text, TEXT) + SCALE_GAP).sum();
    ends + STEP * steps as f64
}

/// One step, or a row of them between what they stand for.
fn scale(inks: &[Ink], (x, y): (f64, f64), scene: &mut Scene) {
    let text = |text: &str, x: f64, scene: &mut Scene| {
        scene.texts.push(TextBox::new(text, (x, y + TEXT * 0.36), Anchor::Start, TEXT, Ink::Muted));
        x + font::width(text, TEXT)
    };
    let labelled = inks.len() > 1;
    let mut from = if labelled { text(SCALE_ENDS[0], x, scene) + SCALE_GAP } else { x };
    let wide = if labelled { STEP } else { 13.0 };
    for ink in inks {
        scene.shapes.push(Shape::Rect { from: (from, y - 6.5), to: (from + wide, y + 6.5), ink: *ink, alpha: 1.0 });
        from += wide;
    }
    if labelled {
        text(SCALE_ENDS[1], from + SCALE_GAP, scene);
    }
}
