//! A drawing as part of a page: one SVG element in whatever colours the page has, and its numbers as JSON.
//!
//! Invariant: colours are classes, never values; what is about one allocator says so in `data-series`; the numbers are
//! those of the figure, to eight digits, and the picture is laid out as the file of the same chart is.

use super::figure::{Axis, Figure, LegendEntry, Mark, Panel, Scale, Series};
use super::font;
use super::layout;
use super::panel::{DOT, LINE, look};
use super::scene::{Anchor, Area, Point, Scene, Shape, TextBox};
use super::theme::{FULL, Ink};
use serde::Serialize;
use std::fmt::Write;

/// Units of the picture per unit of the scene: whole numbers are then fine enough, and short.
const SCALE: f64 = 10.0;
/// Space left above and below what is drawn, and at its sides: the page has margins of its own.
const AIR: f64 = 8.0;
const SIDE: f64 = 4.0;

/// A chart for a page, whose title, subtitle and caption the page sets as text of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inline {
    /// How to read it.
    pub subtitle: String,
    /// What was measured, with what, when.
    pub provenance: Vec<String>,
    /// An `<svg>` element.
    pub svg: String,
    /// Axes and data as JSON that may stand inside `<script>`.
    pub data: String,
}

/// A figure for a page.
#[must_use]
pub(super) fn of(figure: &Figure) -> Inline {
    let bare = Figure { title: String::new(), subtitle: String::new(), provenance: Vec::new(), ..figure.clone() };
    let scene = layout::scene(&bare, layout::WIDTH);
    Inline {
        subtitle: figure.subtitle.clone(),
        provenance: figure.provenance.clone(),
        svg: svg(&scene, figure),
        data: data(figure, &scene),
    }
}

/// A sample of the line and the marker of a slot, for the page's own legend.
#[must_use]
pub fn swatch(slot: usize) -> String {
    let (dash, marker) = look(Ink::Series(slot));
    let mut scene = Scene { size: (30.0, 14.0), ..Scene::default() };
    let points = vec![(0.0, 7.0), (30.0, 7.0)];
    scene.shapes.push(Shape::Path { points, width: LINE, ink: Ink::Series(slot), dash });
    scene.marker(marker, (15.0, 7.0), DOT * 0.8, Ink::Series(slot));
    let mut svg = String::from("<svg class=\"swatch\" viewBox=\"0 0 300 140\" aria-hidden=\"true\">");
    scene.shapes.iter().for_each(|shape| write_shape(&scene, shape, &mut svg));
    svg + "</svg>"
}

fn svg(scene: &Scene, figure: &Figure) -> String {
    let drawn = extent(scene);
    let (top, bottom) = ((drawn.top - AIR).max(0.0), (drawn.bottom + AIR).min(scene.size.1));
    // The same on both sides, and in every chart, so that all texts of a page are of one size.
    let side = (drawn.left - SIDE).max(0.0);
    let view = [side, top, scene.size.0 - 2.0 * side, bottom - top].map(|length| whole(length).to_string());
    let mut svg = format!(
        "<svg viewBox=\"{}\" font-family=\"{}\" role=\"img\" aria-label=\"{}\">\n",
        view.join(" "),
        font::FAMILY,
        escape(&figure.alt)
    );
    for shape in &scene.shapes {
        write_shape(scene, shape, &mut svg);
    }
    for text in scene.texts.iter().filter(|text| !text.text.is_empty()) {
        write_text(scene, text, &figure.legend, &mut svg);
    }
    svg + "</svg>"
}

/// What everything drawn covers.
fn extent(scene: &Scene) -> Area {
    let texts = scene.texts.iter().filter(|text| !text.text.is_empty()).map(TextBox::area);
    texts.chain(scene.shapes.iter().map(bounds)).fold(NOTHING, |all, area| Area {
        left: all.left.min(area.left),
        top: all.top.min(area.top),
        right: all.right.max(area.right),
        bottom: all.bottom.max(area.bottom),
    })
}

const NOTHING: Area = Area { left: f64::MAX, top: f64::MAX, right: f64::MIN, bottom: f64::MIN };

fn bounds(shape: &Shape) -> Area {
    let around = |points: &mut dyn Iterator<Item = Point>| {
        points.fold(NOTHING, |area, (x, y)| Area {
            left: area.left.min(x),
            top: area.top.min(y),
            right: area.right.max(x),
            bottom: area.bottom.max(y),
        })
    };
    match shape {
        Shape::Path { points, .. } | Shape::Polygon { points, .. } => around(&mut points.iter().copied()),
        Shape::Rect { from, to, .. } => around(&mut [*from, *to].into_iter()),
        Shape::Cells { cells, .. } => around(&mut cells.iter().flat_map(|(from, to)| [*from, *to])),
        Shape::Disc { at, radius, .. } => {
            Area { left: at.0 - radius, top: at.1 - radius, right: at.0 + radius, bottom: at.1 + radius }
        }
    }
}

fn whole(length: f64) -> i64 {
    (length * SCALE).round() as i64
}

/// Class of an ink; the page's style gives it a colour.
fn class(ink: Ink) -> String {
    match ink {
        Ink::Text => "ink-text".into(),
        Ink::Muted => "ink-muted".into(),
        Ink::Grid => "ink-grid".into(),
        Ink::Paper => "ink-paper".into(),
        Ink::Live => "ink-live".into(),
        Ink::Band => "ink-band".into(),
        Ink::Series(_) => "ink-own".into(),
        Ink::SeriesText(_) => "ink-name".into(),
        Ink::Fill(step) => format!("ink-fill-{}", step.min(FULL)),
    }
}

/// The slot of the allocator that a thing is about: that of its ink, or of the rows that it stands in.
fn owner(scene: &Scene, ink: Ink, area: Area) -> Option<usize> {
    match ink {
        Ink::Series(slot) | Ink::SeriesText(slot) => Some(slot),
        // Grid, axes and collections are everybody's.
        Ink::Grid | Ink::Muted | Ink::Band => None,
        Ink::Text | Ink::Live | Ink::Paper | Ink::Fill(_) => {
            let (x, y) = ((area.left + area.right) / 2.0, (area.top + area.bottom) / 2.0);
            let holds = |own: &Area| {
                (own.left..=own.right).contains(&x)
                    && (own.top..=own.bottom).contains(&y)
                    && area.bottom - area.top <= own.bottom - own.top
            };
            scene.owned.iter().find(|(own, _)| holds(own)).map(|(_, slot)| *slot)
        }
    }
}

/// `class="…" data-series="…"`.
fn attributes(scene: &Scene, kind: &str, ink: Ink, area: Area) -> String {
    labelled(kind, ink, owner(scene, ink, area))
}

fn labelled(kind: &str, ink: Ink, owner: Option<usize>) -> String {
    let series = owner.map_or(String::new(), |slot| format!(" data-series=\"{slot}\""));
    format!("class=\"{kind}{}\"{series}", class(ink))
}

fn write_shape(scene: &Scene, shape: &Shape, svg: &mut String) {
    let area = bounds(shape);
    let faint = |alpha: f64| if alpha < 1.0 { format!(" opacity=\"{alpha:.2}\"") } else { String::new() };
    let _ = match shape {
        Shape::Path { points, width, ink, dash } => {
            let lengths: Vec<String> = dash.iter().map(|length| whole(*length).to_string()).collect();
            let dash = if lengths.is_empty() { "" } else { &format!(" stroke-dasharray=\"{}\"", lengths.join(" ")) };
            let attributes = attributes(scene, "line ", *ink, area);
            writeln!(svg, "<path {attributes} stroke-width=\"{}\"{dash} d=\"{}\"/>", whole(*width), path(points))
        }
        Shape::Polygon { points, ink, alpha } => {
            let (attributes, faint) = (attributes(scene, "", *ink, area), faint(*alpha));
            writeln!(svg, "<path {attributes}{faint} d=\"{}z\"/>", path(points))
        }
        Shape::Rect { from, to, ink, alpha } => {
            let (attributes, faint) = (attributes(scene, "", *ink, area), faint(*alpha));
            writeln!(svg, "<path {attributes}{faint} d=\"{}\"/>", rectangle(*from, *to))
        }
        Shape::Cells { cells, ink } => {
            let attributes = attributes(scene, "cells ", *ink, area);
            let cells: String = cells.iter().map(|(from, to)| rectangle(*from, *to)).collect();
            writeln!(svg, "<path {attributes} d=\"{cells}\"/>")
        }
        Shape::Disc { at, radius, ink } => {
            let attributes = attributes(scene, "", *ink, area);
            let [x, y, r] = [at.0, at.1, *radius].map(whole);
            writeln!(svg, "<circle {attributes} cx=\"{x}\" cy=\"{y}\" r=\"{r}\"/>")
        }
    };
}

fn write_text(scene: &Scene, text: &TextBox, legend: &[LegendEntry], svg: &mut String) {
    // An entry of the legend is in the colour of all text, and about the allocator of its swatch.
    let mut entries = legend.iter().filter(|entry| text.ink == Ink::Text && entry.text == text.text);
    let own = entries.find_map(|entry| if let [Ink::Series(slot)] = entry.inks[..] { Some(slot) } else { None });
    let attributes = labelled("", text.ink, own.or_else(|| owner(scene, text.ink, text.area())));
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let [x, y, size] = [text.at.0, text.at.1, text.size].map(whole);
    let words = escape(&text.text);
    let _ = writeln!(svg, "<text {attributes}{anchor} x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{words}</text>");
}

/// A line from its first point by steps.
fn path(points: &[Point]) -> String {
    let mut path = String::new();
    let mut before: Option<(i64, i64)> = None;
    for point in points {
        let (x, y) = (whole(point.0), whole(point.1));
        let _ = match before {
            None => write!(path, "M{x} {y}"),
            Some((_, y0)) if y == y0 => write!(path, "H{x}"),
            Some((x0, _)) if x == x0 => write!(path, "V{y}"),
            Some((x0, y0)) => write!(path, "l{} {}", x - x0, y - y0),
        };
        before = Some((x, y));
    }
    path
}

fn rectangle(from: Point, to: Point) -> String {
    let [x, y, right, bottom] = [from.0, from.1, to.0, to.1].map(whole);
    format!("M{x} {y}H{right}V{bottom}H{x}z")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The numbers of one panel.
#[derive(Serialize)]
struct PanelData<'a> {
    /// Left, top, right and bottom of the plotting area, in units of the picture.
    plot: [i64; 4],
    x: AxisData<'a>,
    y: AxisData<'a>,
    /// Spans of y about one allocator: from, to, slot, label.
    owned: Vec<(f64, f64, usize, &'a str)>,
    series: Vec<SeriesData>,
}

#[derive(Serialize)]
struct AxisData<'a> {
    what: &'a str,
    unit: &'a str,
    low: f64,
    high: f64,
    log: bool,
    down: bool,
    /// Positions that have a name instead of a number.
    names: Vec<(f64, &'a str)>,
}

#[derive(Serialize)]
struct SeriesData {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<usize>,
    ink: String,
    mark: &'static str,
    pieces: Vec<Vec<(f64, f64)>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    spans: Vec<(f64, f64)>,
}

fn data(figure: &Figure, scene: &Scene) -> String {
    let panels = figure.panels.iter().zip(&scene.plots).map(|(panel, plot)| panel_data(panel, plot));
    let json = serde_json::to_string(&panels.collect::<Vec<_>>()).expect("finite numbers and texts are JSON");
    // Inside `<script>` no text may end it.
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn panel_data<'a>(panel: &'a Panel, plot: &Area) -> PanelData<'a> {
    let factors = (percent(&panel.x), percent(&panel.y));
    let drawn = panel.series.iter().filter(|series| series.mark != Mark::Shade && !series.pieces.is_empty());
    PanelData {
        plot: [plot.left, plot.top, plot.right, plot.bottom].map(whole),
        x: axis_data(&panel.x),
        y: axis_data(&panel.y),
        owned: panel.owned.iter().map(|own| (own.from, own.to, own.slot, own.name.as_str())).collect(),
        series: drawn.map(|series| series_data(series, factors)).collect(),
    }
}

fn series_data(series: &Series, (by_x, by_y): (f64, f64)) -> SeriesData {
    let point = |(x, y): &(f64, f64)| (digits(x * by_x), digits(y * by_y));
    SeriesData {
        name: match series.ink {
            Ink::Fill(step) => share(step),
            _ => series.key.clone(),
        },
        slot: if let Ink::Series(slot) = series.ink { Some(slot) } else { None },
        ink: class(series.ink),
        mark: match series.mark {
            Mark::Line | Mark::LineDots | Mark::Area => "line",
            Mark::Step => "step",
            Mark::Dot | Mark::Ring | Mark::Tick => "dot",
            Mark::Link | Mark::Shade => "none",
            Mark::Bar(_) => "bar",
            Mark::Cells => "cells",
        },
        pieces: series.pieces.iter().map(|piece| piece.iter().map(point).collect()).collect(),
        spans: series.spans.iter().map(|(low, high)| (digits(low * by_x), digits(high * by_x))).collect(),
    }
}

/// A step of the scale of how full a thing is, in words.
fn share(step: usize) -> String {
    let percent = |step: usize| step as f64 * 100.0 / FULL as f64;
    match step {
        0 => "no pool in use".into(),
        1 => format!("up to {} % of its pools in use", percent(1)),
        n => format!("over {} to {} % of its pools in use", percent(n - 1), percent(n)),
    }
}

/// Eight significant digits: enough that the page rounds once what it shows, fewer than a float has.
fn digits(value: f64) -> f64 {
    format!("{value:.7e}").parse().unwrap_or(value)
}

/// What a label says and its unit: the words behind the last comma, or in brackets.
fn unit(label: &str) -> (&str, &'static str) {
    const UNITS: [&str; 7] = ["KiB", "MiB", "GiB", "ns", "%", "ratio", "s"];
    let label = label.trim_end_matches(" (log)");
    let (what, behind) = label.rsplit_once(", ").or_else(|| label.split_once(" (")).unwrap_or((label, ""));
    let first = behind.split(' ').next().unwrap_or_default();
    UNITS.into_iter().find(|unit| *unit == first).map_or((label, ""), |unit| (what, unit))
}

/// A share is drawn on a logarithmic axis whose label says per cent.
fn percent(axis: &Axis) -> f64 {
    if axis.scale == Scale::Log && unit(&axis.label).1 == "%" { 100.0 } else { 1.0 }
}

fn axis_data(axis: &Axis) -> AxisData<'_> {
    let (what, unit) = unit(&axis.label);
    let by = percent(axis);
    let named = axis.ticks.iter().filter(|tick| !tick.text.starts_with(|c: char| c.is_ascii_digit()) || axis.down);
    let names = if by > 1.0 { Vec::new() } else { named.map(|tick| (digits(tick.at), tick.text.as_str())).collect() };
    AxisData {
        what,
        unit,
        low: digits(axis.low * by),
        high: digits(axis.high * by),
        log: axis.scale == Scale::Log,
        down: axis.down,
        names,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::{ALL, Drawing};
    use super::*;
    use crate::analysis::fixture::{self, Invention};
    use serde_json::Value;

    fn drawings() -> Vec<(&'static str, Drawing)> {
        let analysis = fixture::analysis(&Invention { footprint_runs: 6, ..Invention::default() });
        ALL.iter().map(|chart| (chart.key, (chart.draw)(&analysis, 0).unwrap())).collect()
    }

    #[test]
    fn every_axis_that_counts_has_a_unit() {
        for (name, drawing) in drawings() {
            for panel in &drawing.figure.panels {
                for axis in [&panel.x, &panel.y] {
                    let counts = !axis.down && !axis.label.contains("arena") && !axis.label.is_empty();
                    assert_eq!(!unit(&axis.label).1.is_empty(), counts, "{name}: {}", axis.label);
                }
            }
        }
        assert_eq!(unit("allocate: time of a call, ns (log)"), ("allocate: time of a call", "ns"));
        assert_eq!(unit("time per call, ratio to a, b (log)"), ("time per call, ratio to a, b", ""));
        assert_eq!(unit("progress of the recording (% of its calls)"), ("progress of the recording", "%"));
    }

    #[test]
    fn the_numbers_are_those_of_the_figure() {
        for (name, drawing) in drawings() {
            let json = drawing.inline().data;
            assert!(!json.contains(['<', '>', '&']), "{name}");
            let panels: Vec<Value> = serde_json::from_str(&json).unwrap();
            assert_eq!(panels.len(), drawing.figure.panels.len());
            let mut points = 0;
            for (told, panel) in panels.iter().zip(&drawing.figure.panels) {
                let drawn = panel.series.iter().filter(|s| s.mark != Mark::Shade && !s.pieces.is_empty());
                for (told, series) in told["series"].as_array().unwrap().iter().zip(drawn) {
                    let told = told["pieces"].as_array().unwrap().iter().flat_map(|piece| piece.as_array().unwrap());
                    for (told, (x, y)) in told.zip(series.pieces.iter().flatten()) {
                        for (told, own, axis) in [(&told[0], x, &panel.x), (&told[1], y, &panel.y)] {
                            let own = own * percent(axis);
                            assert!(
                                (told.as_f64().unwrap() - own).abs() <= 1e-5 * own.abs(),
                                "{name}: {told} for {own}"
                            );
                        }
                        points += 1;
                    }
                }
            }
            assert!(points > 3, "{name} tells {points} points");
        }
    }

    #[test]
    fn what_is_about_an_allocator_says_so_and_what_is_not_does_not() {
        for (name, drawing) in drawings() {
            let svg = drawing.inline().svg;
            assert!(!svg.contains('#') && !svg.contains("xmlns"), "{name}: a colour or an address");
            for line in svg.lines().filter(|line| line.starts_with("<path") || line.starts_with("<text")) {
                let (owned, of_all) = (line.contains("data-series"), ["ink-grid", "ink-muted", "ink-band"]);
                if line.contains("ink-own") || line.contains("ink-name") {
                    assert!(owned, "{name}: {line}");
                }
                assert!(!(owned && of_all.iter().any(|ink| line.contains(ink))), "{name}: {line}");
            }
        }
        let (_, peak) = drawings().into_iter().find(|(name, _)| *name == "peak-rest").unwrap();
        let svg = peak.inline().svg;
        // Each of four rows: two ticks of what is live, and two printed values.
        let live = svg.lines().filter(|line| line.contains("ink-live") && line.contains("data-series"));
        let values = svg.lines().filter(|line| line.contains("ink-text") && line.contains("data-series"));
        assert_eq!((live.count(), values.count()), (8, 8), "{svg}");
    }

    #[test]
    fn a_line_is_its_points() {
        assert_eq!(path(&[(1.0, 2.0), (3.04, 2.0), (3.04, 4.0), (1.0, 5.0)]), "M10 20H30V40l-20 10");
        assert_eq!(digits(157.988_281_25), 157.988_28);
        assert_eq!(digits(0.0), 0.0);
    }
}
