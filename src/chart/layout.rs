//! From a figure to a scene: where title, legend, panels and caption go.
//!
//! Invariant: everything is measured with the real font before it is placed; the same figure gives the same scene.

use super::figure::{EndLabels, Figure, LegendEntry, Mark, Panel};
use super::font;
use super::labels::{self, shorten, wrap};
use super::panel;
use super::scene::{Anchor, Area, Scene, Shape, TextBox};
use super::theme::{self, Ink};

/// Width of every picture.
pub(super) const WIDTH: f64 = 1000.0;
/// Empty space around.
pub(super) const MARGIN: f64 = 26.0;
/// Em of tick labels, end labels and cells.
pub(super) const TEXT: f64 = 13.0;
/// Em of axis labels and headings.
pub(super) const LABEL: f64 = 12.5;
const TITLE: f64 = 21.0;
const SUBTITLE: f64 = 13.5;
const CAPTION: f64 = 10.5;
const LEGEND_LINE: f64 = 21.0;
const LABEL_LINE: f64 = 17.0;
const PANEL_GAP: f64 = 30.0;
/// Between panels that share an axis: room for the tick labels at their ends.
const SHARED_GAP: f64 = 46.0;
/// Between tick labels and plot: more than the radius of a dot at zero.
pub(super) const TICK_GAP: f64 = 11.0;
/// Longest tick label left of a panel; longer ones are cut.
pub(super) const TICK_MOST: f64 = 220.0;
/// Longest name right of a line.
pub(super) const END_MOST: f64 = 130.0;
/// Height of tick labels and axis label below a plot.
const AXIS: f64 = 44.0;
const CAPTION_LINE: f64 = 14.5;
/// Space between columns of cells.
const COLUMN_GAP: f64 = 20.0;

/// Where one panel's parts go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    /// The plotting area.
    pub(super) plot: Area,
    /// Left edge of everything that belongs to the panel.
    pub(super) left: f64,
    /// Baseline of axis label and column headings, the same for all panels.
    pub(super) heading: f64,
}

/// Lays a figure out. The plots keep their height; legend and caption make the picture as high as they need.
#[must_use]
pub(super) fn scene(figure: &Figure) -> Scene {
    let mut scene = Scene { size: (WIDTH, 0.0), ..Scene::default() };
    let top = header(figure, &mut scene);
    let mut foot = top;
    for (panel, frame) in figure.panels.iter().zip(frames(&figure.panels, top, figure.plot_height)) {
        panel::draw(panel, &frame, &mut scene);
        foot = frame.plot.bottom + AXIS;
    }
    scene.size.1 = footer(figure, foot, &mut scene).ceil();
    scene
}

/// Title, subtitle and legend; returns where they end.
fn header(figure: &Figure, scene: &mut Scene) -> f64 {
    let wide = WIDTH - 2.0 * MARGIN;
    let mut y = MARGIN + TITLE * 0.76;
    let title = shorten(&figure.title, TITLE, wide);
    scene.texts.push(TextBox::new(title, (MARGIN, y), Anchor::Start, TITLE, Ink::Text));
    y += 7.0;
    let words: Vec<String> = figure.subtitle.split(' ').map(String::from).collect();
    for line in labels::balanced(&words, SUBTITLE, wide) {
        y += 18.0;
        scene.texts.push(TextBox::new(line, (MARGIN, y), Anchor::Start, SUBTITLE, Ink::Muted));
    }
    legend(&figure.legend, y + 27.0, scene) + 14.0
}

/// Entries in rows; returns the foot of the last one.
fn legend(entries: &[LegendEntry], first_baseline: f64, scene: &mut Scene) -> f64 {
    const GAP: f64 = 8.0;
    let (mut x, mut baseline) = (MARGIN, first_baseline);
    for entry in entries {
        let swatch_wide = swatch_width(entry);
        let wide = swatch_wide + GAP + font::width(&entry.text, TEXT);
        if x > MARGIN && x + wide > WIDTH - MARGIN {
            (x, baseline) = (MARGIN, baseline + LEGEND_LINE);
        }
        swatch(entry, (x, baseline - TEXT * 0.36), swatch_wide, scene);
        let text = shorten(&entry.text, TEXT, WIDTH - MARGIN - x - swatch_wide - GAP);
        scene.texts.push(TextBox::new(text, (x + swatch_wide + GAP, baseline), Anchor::Start, TEXT, Ink::Text));
        x += wide + 24.0;
    }
    if entries.is_empty() { first_baseline - LEGEND_LINE } else { baseline + TEXT * 0.24 }
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

/// The caption below `top`; returns the foot of the picture.
fn footer(figure: &Figure, top: f64, scene: &mut Scene) -> f64 {
    let mut baseline = top + 8.0;
    for line in wrap(&figure.provenance, " · ", CAPTION, WIDTH - 2.0 * MARGIN) {
        baseline += CAPTION_LINE;
        scene.texts.push(TextBox::new(line, (MARGIN, baseline), Anchor::Start, CAPTION, Ink::Muted));
    }
    baseline + 18.0
}

/// Plotting areas side by side, with equal tops and feet.
fn frames(panels: &[Panel], top: f64, plot_height: f64) -> Vec<Frame> {
    let last = panels.len() - 1;
    let gap = |i: usize| if i < last && !panels[i + 1].y.shared { PANEL_GAP } else { 0.0 };
    let gutters: Vec<(f64, f64)> =
        panels.iter().enumerate().map(|(i, panel)| (left_gutter(panel), right_gutter(panel) + gap(i))).collect();
    let fixed: f64 = gutters.iter().map(|(l, r)| l + r).sum();
    let room = (WIDTH - 2.0 * MARGIN - fixed).max(60.0);
    let weights: f64 = panels.iter().map(|panel| panel.weight).sum();
    let widths: Vec<f64> = panels.iter().map(|panel| room * panel.weight / weights).collect();

    let rule_rows = panels.iter().zip(&widths).map(|(panel, width)| rule_rows(panel, *width)).max().unwrap_or(0);
    let heading = top + LABEL;
    let top = heading + 11.0 + LABEL_LINE * rule_rows as f64;
    let bottom = top + plot_height;

    let mut x = MARGIN;
    let mut frames = Vec::new();
    for ((before, after), width) in gutters.into_iter().zip(widths) {
        let plot = Area { left: x + before, top, right: x + before + width, bottom };
        frames.push(Frame { plot, left: x, heading });
        x = plot.right + after;
    }
    frames
}

/// Rows of labels above a panel of a width.
fn rule_rows(panel: &Panel, width: f64) -> usize {
    let labels = panel::rule_labels(panel, 0.0, width);
    labels::stack(&labels, LABEL, 0.0, width).into_iter().map(|(row, _)| row + 1).max().unwrap_or(0)
}

/// Width of tick labels left of a panel.
fn left_gutter(panel: &Panel) -> f64 {
    if panel.y.shared {
        return SHARED_GAP;
    }
    let widest = panel.y.ticks.iter().map(|tick| font::width(&tick.text, TEXT)).fold(0.0, f64::max);
    if widest > 0.0 { widest.min(TICK_MOST) + TICK_GAP } else { 0.0 }
}

/// Width of end labels or columns right of a panel.
fn right_gutter(panel: &Panel) -> f64 {
    let columns: f64 = panel.columns.iter().map(|column| column_width(column) + COLUMN_GAP).sum();
    let ends = match panel.end_labels {
        EndLabels::Gutter => panel.series.iter().map(|series| font::width(&series.end, TEXT)).fold(0.0, f64::max),
        EndLabels::None => 0.0,
    };
    columns + if ends > 0.0 { ends.min(END_MOST) + panel::LEADER } else { 0.0 }
}

/// Width of a column of cells.
fn column_width(column: &super::figure::Column) -> f64 {
    let cells = column.cells.iter().map(|(_, text)| font::width(text, TEXT)).fold(0.0, f64::max);
    cells.max(font::width(&column.heading, LABEL))
}

/// Right edges of the columns of a panel.
#[must_use]
pub(super) fn column_edges(panel: &Panel, plot_right: f64) -> Vec<f64> {
    panel
        .columns
        .iter()
        .scan(plot_right, |x, column| {
            *x += COLUMN_GAP + column_width(column);
            Some(*x)
        })
        .collect()
}
