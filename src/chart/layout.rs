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
pub const WIDTH: f64 = 1000.0;
/// Empty space around.
pub const MARGIN: f64 = 26.0;
/// Em of tick labels, end labels and cells.
pub const TEXT: f64 = 13.0;
/// Em of axis labels and headings.
pub const LABEL: f64 = 12.5;
const TITLE: f64 = 21.0;
const SUBTITLE: f64 = 13.5;
const CAPTION: f64 = 10.5;
const LEGEND_LINE: f64 = 21.0;
const LABEL_LINE: f64 = 17.0;
const PANEL_GAP: f64 = 30.0;
/// Space between columns of cells.
const COLUMN_GAP: f64 = 20.0;

/// Where one panel's parts go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// The plotting area.
    pub plot: Area,
    /// Left edge of everything that belongs to the panel.
    pub left: f64,
    /// Right edge of the same.
    pub right: f64,
}

/// Lays a figure out.
#[must_use]
pub fn scene(figure: &Figure) -> Scene {
    let mut scene = Scene { size: (WIDTH, figure.height), ..Scene::default() };
    let top = header(figure, &mut scene);
    let bottom = footer(figure, &mut scene);
    let inside = Area { left: MARGIN, top, right: WIDTH - MARGIN, bottom };
    for (panel, frame) in figure.panels.iter().zip(frames(&figure.panels, inside)) {
        panel::draw(panel, &frame, &mut scene);
    }
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
    for line in wrap(&words, " ", SUBTITLE, wide) {
        y += 18.0;
        scene.texts.push(TextBox::new(line, (MARGIN, y), Anchor::Start, SUBTITLE, Ink::Muted));
    }
    legend(&figure.legend, y + 27.0, scene) + 6.0
}

/// Entries in rows; returns the foot of the last one.
fn legend(entries: &[LegendEntry], first_baseline: f64, scene: &mut Scene) -> f64 {
    const SWATCH: f64 = 30.0;
    let (mut x, mut baseline) = (MARGIN, first_baseline);
    for entry in entries {
        let wide = SWATCH + 7.0 + font::width(&entry.text, TEXT);
        if x > MARGIN && x + wide > WIDTH - MARGIN {
            (x, baseline) = (MARGIN, baseline + LEGEND_LINE);
        }
        swatch(entry, (x, baseline - TEXT * 0.36), SWATCH, scene);
        let text = shorten(&entry.text, TEXT, WIDTH - MARGIN - x - SWATCH - 7.0);
        scene.texts.push(TextBox::new(text, (x + SWATCH + 7.0, baseline), Anchor::Start, TEXT, Ink::Text));
        x += wide + 22.0;
    }
    if entries.is_empty() { first_baseline - LEGEND_LINE } else { baseline + TEXT * 0.24 }
}

/// A sample of what an entry stands for, its middle at the height `y`.
fn swatch(entry: &LegendEntry, (x, y): (f64, f64), wide: f64, scene: &mut Scene) {
    let ink = entry.ink;
    let middle = (x + wide / 2.0, y);
    let block = |scene: &mut Scene, ink, alpha| {
        scene.shapes.push(Shape::Rect { from: (x + 8.0, y - 6.5), to: (x + wide - 2.0, y + 6.5), ink, alpha });
    };
    let (dash, marker) = panel::look(ink);
    match entry.mark {
        Mark::Line | Mark::Step | Mark::LineDots => {
            let points = vec![(x, y), (x + wide, y)];
            scene.shapes.push(Shape::Path { points, width: panel::LINE, ink, dash });
            if entry.mark == Mark::LineDots {
                scene.marker(marker, middle, 4.0, ink);
            }
        }
        Mark::Area => block(scene, ink, panel::AREA_ALPHA),
        Mark::Shade => block(scene, ink, panel::BAND_ALPHA),
        Mark::Bar(alpha) => block(scene, ink, alpha),
        Mark::Dot => scene.marker(theme::Marker::Disc, (x + wide - 9.0, y), 6.0, ink),
        Mark::Ring => scene.ring(theme::Marker::Disc, (x + wide - 9.0, y), 6.0, ink),
        Mark::Tick => scene.line((x + wide - 6.0, y - 8.0), (x + wide - 6.0, y + 8.0), panel::TICK, ink),
        Mark::Link => scene.shapes.push(Shape::Rect { from: (x, y - 2.5), to: (x + wide, y + 2.5), ink, alpha: 0.4 }),
    }
}

/// The caption; returns where it begins.
fn footer(figure: &Figure, scene: &mut Scene) -> f64 {
    let lines = wrap(&figure.provenance, " · ", CAPTION, WIDTH - 2.0 * MARGIN);
    let first = figure.height - 16.0 - CAPTION * 0.24 - 14.5 * (lines.len().max(1) - 1) as f64;
    for (i, line) in lines.iter().enumerate() {
        let at = (MARGIN, first + 14.5 * i as f64);
        scene.texts.push(TextBox::new(line.clone(), at, Anchor::Start, CAPTION, Ink::Muted));
    }
    first - CAPTION - 8.0
}

/// Plotting areas side by side, with equal tops and feet.
fn frames(panels: &[Panel], inside: Area) -> Vec<Frame> {
    let gaps = PANEL_GAP * (panels.len().max(1) - 1) as f64;
    let gutters: Vec<(f64, f64)> = panels.iter().map(|panel| (left_gutter(panel), right_gutter(panel))).collect();
    let fixed: f64 = gutters.iter().map(|(l, r)| l + r).sum();
    let room = (inside.right - inside.left - gaps - fixed).max(60.0);
    let weights: f64 = panels.iter().map(|panel| panel.weight).sum();
    let widths: Vec<f64> = panels.iter().map(|panel| room * panel.weight / weights).collect();

    let heading = panels.iter().any(|panel| !panel.y.label.is_empty() || !panel.columns.is_empty());
    let rule_rows = panels.iter().zip(&widths).map(|(panel, width)| rule_rows(panel, *width)).max().unwrap_or(0);
    let top = inside.top + if heading { LABEL_LINE + 5.0 } else { 0.0 } + LABEL_LINE * rule_rows as f64;
    let bottom = inside.bottom - 44.0;

    let mut x = inside.left;
    let mut frames = Vec::new();
    for ((before, after), width) in gutters.into_iter().zip(widths) {
        let plot = Area { left: x + before, top, right: x + before + width, bottom };
        frames.push(Frame { plot, left: x, right: plot.right + after });
        x = plot.right + after + PANEL_GAP;
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
        return 0.0;
    }
    let widest = panel.y.ticks.iter().map(|tick| font::width(&tick.text, TEXT)).fold(0.0, f64::max);
    if widest > 0.0 { widest + 10.0 } else { 0.0 }
}

/// Width of end labels or columns right of a panel.
fn right_gutter(panel: &Panel) -> f64 {
    let columns: f64 = panel.columns.iter().map(|column| column_width(column) + COLUMN_GAP).sum();
    let ends = match panel.end_labels {
        EndLabels::Gutter => panel.series.iter().map(|series| font::width(&series.end, TEXT)).fold(0.0, f64::max),
        EndLabels::None | EndLabels::Inside => 0.0,
    };
    columns + if ends > 0.0 { ends + panel::LEADER } else { 0.0 }
}

/// Width of a column of cells.
fn column_width(column: &super::figure::Column) -> f64 {
    let cells = column.cells.iter().map(|(_, text)| font::width(text, TEXT)).fold(0.0, f64::max);
    cells.max(font::width(&column.heading, LABEL))
}

/// Right edges of the columns of a panel.
#[must_use]
pub fn column_edges(panel: &Panel, plot_right: f64) -> Vec<f64> {
    panel
        .columns
        .iter()
        .scan(plot_right, |x, column| {
            *x += COLUMN_GAP + column_width(column);
            Some(*x)
        })
        .collect()
}
