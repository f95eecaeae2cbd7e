//! One panel: grid, axes, marks and the texts around them.
//!
//! Invariant: marks stay within the plotting area; a value outside its axis is drawn at the edge.

use super::figure::{EndLabels, Mark, Note, Panel, Series};
use super::fit::{TICK_GAP, column_edges};
use super::font;
use super::labels;
use super::layout::{Frame, LABEL, LABEL_LINE, TEXT};
use super::scene::{Anchor, Area, Point, Scene, Shape, TextBox};
use super::theme::{self, Ink, Marker};

/// Thickness of data lines.
pub(super) const LINE: f64 = 2.2;
/// Thickness of ticks through rows.
pub(super) const TICK: f64 = 2.4;
/// Strength of areas.
pub(super) const AREA_ALPHA: f64 = 0.35;
/// Strength of shades.
pub(super) const BAND_ALPHA: f64 = 0.45;
/// Room for the line that leads to an end label.
pub(super) const LEADER: f64 = 22.0;
const LINE_HEIGHT: f64 = 16.5;
/// Radius of dots.
pub(super) const DOT: f64 = 5.5;
/// Strength of what joins two dots.
pub(super) const LINK_ALPHA: f64 = 0.4;
/// Half the height of a bar, as a share of a row.
const BAR_HALF: f64 = 0.38;

/// Dash and marker of an ink.
#[must_use]
pub(super) fn look(ink: Ink) -> (&'static [f64], Marker) {
    match ink {
        Ink::Series(slot) => (theme::dash(slot), theme::marker(slot)),
        _ => (&[], Marker::Disc),
    }
}

/// Places of the labels above a panel, ascending.
#[must_use]
pub(super) fn rule_labels(panel: &Panel, left: f64, right: f64) -> Vec<(f64, &str)> {
    let labelled = panel.rules.iter().filter(|rule| !rule.label.is_empty());
    let mut labels: Vec<(f64, &str)> =
        labelled.map(|rule| (left + panel.x.place(rule.at) * (right - left), rule.label.as_str())).collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    labels
}

/// A panel being drawn.
struct Canvas<'a> {
    panel: &'a Panel,
    frame: &'a Frame,
    scene: &'a mut Scene,
}

/// Draws a panel into its frame.
pub(super) fn draw(panel: &Panel, frame: &Frame, scene: &mut Scene) {
    let mut canvas = Canvas { panel, frame, scene };
    canvas.scene.plots.push(frame.plot);
    canvas.owned();
    canvas.bands_and_areas();
    canvas.cells();
    canvas.grid();
    canvas.rules();
    for series in &panel.series {
        canvas.series(series);
    }
    canvas.axis_labels();
    canvas.columns();
    panel.notes.iter().for_each(|note| canvas.note(note));
    match panel.end_labels {
        EndLabels::None => {}
        EndLabels::Gutter => canvas.gutter_labels(),
    }
}

impl Canvas<'_> {
    fn x(&self, value: f64) -> f64 {
        let plot = self.frame.plot;
        plot.left + self.panel.x.place(value) * (plot.right - plot.left)
    }

    fn y(&self, value: f64) -> f64 {
        let plot = self.frame.plot;
        let share = self.panel.y.place(value);
        if self.panel.y.down {
            plot.top + share * (plot.bottom - plot.top)
        } else {
            plot.bottom - share * (plot.bottom - plot.top)
        }
    }

    fn place(&self, x: f64, y: f64) -> Point {
        (self.x(x), self.y(y))
    }

    fn text(&mut self, text: &str, at: Point, anchor: Anchor, size: f64, ink: Ink) {
        self.scene.texts.push(TextBox::new(text, at, anchor, size, ink));
    }

    fn rect(&mut self, from: Point, to: Point, ink: Ink, alpha: f64) {
        self.scene.shapes.push(Shape::Rect { from, to, ink, alpha });
    }

    /// Rows reach from the panel's left edge to that of the picture: names and columns are about an allocator too.
    fn owned(&mut self) {
        for owned in &self.panel.owned {
            let (one, other) = (self.y(owned.from), self.y(owned.to));
            let (left, right) = (self.frame.left, self.scene.size.0);
            let area = Area { left, top: one.min(other), right, bottom: one.max(other) };
            self.scene.owned.push((area, owned.slot));
        }
    }

    fn bands_and_areas(&mut self) {
        let plot = self.frame.plot;
        for series in self.panel.series.iter().filter(|series| series.mark == Mark::Area) {
            for piece in &series.pieces {
                let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
                let mut points: Vec<Point> = piece.iter().map(|(x, y)| self.place(*x, *y)).collect();
                points.push((self.x(last.0), plot.bottom));
                points.push((self.x(first.0), plot.bottom));
                self.scene.shapes.push(Shape::Polygon { points, ink: series.ink, alpha: AREA_ALPHA });
            }
        }
        let foot = self.panel.bands_above.map_or(plot.bottom, |y| self.y(y));
        for band in &self.panel.bands {
            let (left, right) = (self.x(band.from), self.x(band.to));
            let right = right.max(left + 1.0).min(plot.right);
            self.rect((left.min(right - 1.0), plot.top), (right, foot), Ink::Band, BAND_ALPHA * band.strength);
        }
    }

    /// Edges lie on half pixels: neighbours meet without a seam. Rows are parted by lines and not by gaps, which would
    /// come and go in a picture that is shown smaller.
    fn cells(&mut self) {
        for series in self.panel.series.iter().filter(|series| series.mark == Mark::Cells) {
            let corner = |(x, y): (f64, f64)| {
                let (x, y) = self.place(x, y);
                ((x * 2.0).round() / 2.0, (y * 2.0).round() / 2.0)
            };
            let cells: Vec<(Point, Point)> = series
                .pieces
                .iter()
                .filter_map(|piece| Some((corner(*piece.first()?), corner(*piece.last()?))))
                .map(|((left, bottom), (right, top))| ((left, top), (right, bottom)))
                .filter(|(from, to)| from.0 < to.0 && from.1 < to.1)
                .collect();
            if !cells.is_empty() {
                self.scene.shapes.push(Shape::Cells { cells, ink: series.ink });
            }
        }
        let plot = self.frame.plot;
        for y in &self.panel.parted {
            let y = (self.y(*y) * 2.0).round() / 2.0;
            self.scene.line((plot.left, y), (plot.right, y), 1.0, Ink::Paper);
        }
    }

    fn grid(&mut self) {
        let plot = self.frame.plot;
        if self.panel.y.grid {
            for tick in &self.panel.y.ticks {
                let y = self.y(tick.at);
                self.scene.line((plot.left, y), (plot.right, y), 1.0, Ink::Grid);
            }
        }
        if self.panel.x.grid {
            for tick in &self.panel.x.ticks {
                let x = self.x(tick.at);
                self.scene.line((x, plot.top), (x, plot.bottom), 1.0, Ink::Grid);
            }
        }
        self.scene.line((plot.left, plot.bottom), (plot.right, plot.bottom), 1.2, Ink::Muted);
        for tick in &self.panel.x.ticks {
            let x = self.x(tick.at);
            self.scene.line((x, plot.bottom), (x, plot.bottom + 4.0), 1.2, Ink::Muted);
        }
        if self.panel.y.down {
            self.scene.line((plot.left, plot.top), (plot.left, plot.bottom), 1.2, Ink::Muted);
        }
    }

    fn rules(&mut self) {
        let plot = self.frame.plot;
        for rule in &self.panel.rules {
            let x = self.x(rule.at);
            let dash: &'static [f64] = if rule.dashed { &[3.0, 3.0] } else { &[] };
            let points = vec![(x, plot.top - 3.0), (x, plot.bottom)];
            // A line without a name only parts what lies beside it.
            let ink = if rule.label.is_empty() { Ink::Grid } else { Ink::Muted };
            if self.panel.series.iter().any(|series| series.mark == Mark::Cells) {
                // Between cells of any colour a line needs paper of its own.
                self.scene.line((x, plot.top), (x, plot.bottom), 3.2, Ink::Paper);
            }
            self.scene.shapes.push(Shape::Path { points, width: 1.2, ink, dash });
        }
        let labels = rule_labels(self.panel, plot.left, plot.right);
        let placed = labels::stack(&labels, LABEL, plot.left, plot.right);
        for ((_, text), (row, centre)) in labels.iter().zip(placed) {
            let baseline = plot.top - 7.0 - LABEL_LINE * row as f64;
            self.text(text, (centre, baseline), Anchor::Middle, LABEL, Ink::Muted);
        }
    }

    fn series(&mut self, series: &Series) {
        let ink = series.ink;
        let (dash, marker) = look(ink);
        match series.mark {
            Mark::Line | Mark::LineDots | Mark::Step => {
                for piece in &series.pieces {
                    let points = self.path(piece, series.mark == Mark::Step);
                    self.scene.shapes.push(Shape::Path { points, width: LINE, ink, dash });
                    if series.mark == Mark::LineDots {
                        for (x, y) in piece {
                            let at = self.place(*x, *y);
                            self.scene.marker(marker, at, 4.0, ink);
                        }
                    }
                }
            }
            Mark::Dot | Mark::Ring => self.dots(series),
            Mark::Tick => {
                for (x, row) in series.pieces.iter().flatten() {
                    let (x, top, bottom) = (self.x(*x), self.y(row - 0.34), self.y(row + 0.34));
                    self.scene.line((x, top), (x, bottom), TICK, ink);
                }
            }
            Mark::Link => {
                for ((_, row), (from, to)) in series.pieces.iter().flatten().zip(&series.spans) {
                    let (from, to) = (self.place(*from, *row), self.place(*to, *row));
                    self.rect((from.0.min(to.0), from.1 - 2.5), (from.0.max(to.0), to.1 + 2.5), ink, LINK_ALPHA);
                }
            }
            Mark::Bar(alpha) => {
                for ((_, row), (from, to)) in series.pieces.iter().flatten().zip(&series.spans) {
                    let from = self.place(*from, row - BAR_HALF);
                    let to = self.place(*to, row + BAR_HALF);
                    self.rect(from, to, ink, alpha);
                }
            }
            Mark::Area | Mark::Shade | Mark::Cells => {}
        }
    }

    /// Points of a line; points that fall on the one before are left out.
    fn path(&self, piece: &[(f64, f64)], step: bool) -> Vec<Point> {
        let mut points: Vec<Point> = Vec::with_capacity(piece.len());
        let mut push = |point: Point| {
            if points.last().is_none_or(|last| (last.0 - point.0).abs() + (last.1 - point.1).abs() > 0.05) {
                points.push(point);
            }
        };
        let mut before: Option<Point> = None;
        for (x, y) in piece {
            let point = self.place(*x, *y);
            if let (true, Some(before)) = (step, before) {
                push((point.0, before.1));
            }
            push(point);
            before = Some(point);
        }
        points
    }

    fn dots(&mut self, series: &Series) {
        let ink = series.ink;
        for (i, (x, row)) in series.pieces.iter().flatten().enumerate() {
            let at = self.place(*x, *row);
            if let Some((low, high)) = series.spans.get(i) {
                let (low, high) = (self.x(*low), self.x(*high));
                self.scene.line((low, at.1), (high, at.1), 1.8, ink);
                for end in [low, high] {
                    self.scene.line((end, at.1 - 9.0), (end, at.1 + 9.0), 1.8, ink);
                }
            }
            match series.mark {
                Mark::Ring => self.scene.ring(Marker::Disc, at, DOT, ink),
                _ => self.scene.marker(Marker::Disc, at, DOT, ink),
            }
        }
    }

    fn axis_labels(&mut self) {
        let (panel, frame) = (self.panel, self.frame);
        let plot = frame.plot;
        for tick in &panel.x.ticks {
            let at = (self.x(tick.at), plot.bottom + 20.0);
            self.text(&tick.text, at, Anchor::Middle, TEXT, tick.ink);
        }
        for (i, line) in frame.x_label.iter().enumerate() {
            let half = font::width(line, LABEL) / 2.0;
            let middle = f64::midpoint(plot.left, plot.right).min(frame.right - half).max(frame.left + half);
            let at = (middle, plot.bottom + 41.0 + LABEL_LINE * i as f64);
            self.text(line, at, Anchor::Middle, LABEL, Ink::Muted);
        }
        let left = if panel.y.shared { plot.left } else { frame.left };
        for (i, line) in frame.y_label.iter().enumerate() {
            let at = (left, frame.heading + LABEL_LINE * i as f64);
            self.text(line, at, Anchor::Start, LABEL, Ink::Muted);
        }
        if panel.y.shared {
            return;
        }
        for tick in &panel.y.ticks {
            let at = (plot.left - TICK_GAP, self.y(tick.at) + TEXT * 0.36);
            self.text(&tick.text, at, Anchor::End, TEXT, tick.ink);
        }
    }

    /// A text on a piece of paper, so that no line crosses it.
    fn note(&mut self, note: &Note) {
        let (x, y) = self.place(note.x, note.y);
        let text = labels::shorten(&note.text, TEXT, self.frame.edge - x - 5.0);
        let right = (x + 6.0 + font::width(&text, TEXT)).min(self.frame.edge);
        self.rect((x + 4.0, y - TEXT * 0.5), (right, y + TEXT * 0.5), Ink::Paper, 1.0);
        self.text(&text, (x + 5.0, y + TEXT * 0.36), Anchor::Start, TEXT, note.ink);
    }

    fn columns(&mut self) {
        let (panel, heading) = (self.panel, self.frame.heading);
        for (column, edge) in panel.columns.iter().zip(column_edges(panel, self.frame.plot.right)) {
            self.text(&column.heading, (edge, heading), Anchor::End, LABEL, Ink::Muted);
            for (row, text) in &column.cells {
                let at = (edge, self.y(*row) + TEXT * 0.36);
                self.text(text, at, Anchor::End, TEXT, Ink::Text);
            }
        }
    }

    fn named(&self) -> Vec<(&Series, Point)> {
        let named = self.panel.series.iter().filter(|series| !series.end.is_empty());
        named.filter_map(|series| series.last().map(|(x, y)| (series, self.place(x, y)))).collect()
    }

    /// Names right of the panel at the height of each line's end, pushed apart; none when they do not fit.
    fn gutter_labels(&mut self) {
        let plot = self.frame.plot;
        let named: Vec<(String, Ink, Point)> =
            self.named().into_iter().map(|(series, at)| (series.end.clone(), series.ink, at)).collect();
        let wanted: Vec<f64> = named.iter().map(|(_, _, at)| at.1).collect();
        let Some(centres) = labels::spread(&wanted, LINE_HEIGHT, plot.top - 6.0, plot.bottom + 6.0) else { return };
        for ((name, ink, at), centre) in named.iter().zip(centres) {
            let from = (at.0 + 6.0, at.1);
            let points = vec![from, (plot.right + LEADER - 8.0, centre), (plot.right + LEADER - 4.0, centre)];
            self.scene.shapes.push(Shape::Path { points, width: 1.0, ink: *ink, dash: &[] });
            let at = (plot.right + LEADER, centre + TEXT * 0.36);
            self.text(name, at, Anchor::Start, TEXT, text_ink(*ink));
        }
    }
}

/// The ink for text about something drawn in another ink.
fn text_ink(ink: Ink) -> Ink {
    match ink {
        Ink::Series(slot) => Ink::SeriesText(slot),
        other => other,
    }
}
