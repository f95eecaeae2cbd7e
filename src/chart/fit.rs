//! Panels made to fit a page: beside each other, or one below the other where their labels need more room.
//!
//! Invariant: data are never left out. What a narrow page loses is repeated elsewhere: every second tick, names
//! that the legend has; the cells of columns move into their rows.

use super::figure::{Axis, Column, EndLabels, Figure, Mark, Note, Panel, Scale, Series, Tick};
use super::font;
use super::labels::{self, shorten, wrap};
use super::layout::{LABEL, Page, TEXT, lines};
use super::panel;
use super::theme::Ink;

/// Between tick labels and plot: more than the radius of a dot at zero.
pub(super) const TICK_GAP: f64 = 11.0;
/// Longest tick label left of a panel, and its share of the page at most; longer ones are cut.
const TICK_MOST: f64 = 220.0;
const TICK_SHARE: f64 = 0.3;
/// Longest name right of a line.
const END_MOST: f64 = 140.0;
const PANEL_GAP: f64 = 30.0;
/// Between panels that share an axis: room for the tick labels at their ends.
const SHARED_GAP: f64 = 48.0;
/// Space between columns of cells.
const COLUMN_GAP: f64 = 20.0;
/// Least share of the page that columns leave to the plot beside them.
const PLOT_SHARE: f64 = 0.36;
/// Pages at least this wide have the name of each line at its end; at least so wide, its value alone.
const NAMES_FROM: f64 = 560.0;
const VALUES_FROM: f64 = 400.0;
/// Tick labels of narrower pages are cut at their first dot.
const LONG_TICKS_FROM: f64 = 480.0;
/// Least width of a plot beside another, and of one that is a mere strip.
const PLOT_LEAST: f64 = 180.0;
const STRIP_LEAST: f64 = 60.0;
/// Height of a line of a row that carries its name, and in how many of them its marks lie.
const ROW_LINE: f64 = 20.0;
const ROW_MARKS: f64 = 1.6;
/// Least space between tick labels.
const TICKS_APART: f64 = 4.0;

/// Panels beside each other.
pub(super) struct Row {
    /// From left to right.
    pub(super) slots: Vec<Slot>,
    /// Height of the plots.
    pub(super) height: f64,
}

/// One panel as it is drawn, and the widths of its parts.
pub(super) struct Slot {
    /// The panel.
    pub(super) panel: Panel,
    /// Width left of the plot.
    pub(super) before: f64,
    /// Width of the plot.
    pub(super) width: f64,
    /// Width right of the plot.
    pub(super) after: f64,
    /// Empty space before the next panel.
    pub(super) gap: f64,
    /// The label of the vertical axis, in lines.
    pub(super) y_label: Vec<String>,
    /// The label of the horizontal axis, in lines.
    pub(super) x_label: Vec<String>,
    /// Whether enough of the horizontal axis' ticks are left.
    ticks_fit: bool,
}

/// The panels of a figure in the rows that a page has room for.
#[must_use]
pub(super) fn rows(figure: &Figure, page: Page) -> Vec<Row> {
    let fitted: Vec<(Panel, f64)> = figure.panels.iter().map(|p| fitted(p, figure.plot_height, page)).collect();
    let height = fitted.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    let beside = Row::new(fitted.iter().map(|(panel, _)| panel.clone()).collect(), height, page);
    if fitted.len() < 2 || beside.fits() {
        return vec![beside];
    }
    fitted.into_iter().map(|(panel, height)| Row::alone(panel, height, page)).collect()
}

impl Row {
    fn new(panels: Vec<Panel>, height: f64, page: Page) -> Self {
        let last = panels.len() - 1;
        let gap = |i: usize| if i < last && !panels[i + 1].y.shared { PANEL_GAP } else { 0.0 };
        let overhang = |half: f64| (half - page.margin + 3.0).max(0.0);
        let gutters: Vec<(f64, f64, f64)> = panels
            .iter()
            .enumerate()
            .map(|(i, panel)| {
                let (first_half, last_half) = end_halves(&panel.x);
                let before = left_gutter(panel, page).max(if i == 0 { overhang(first_half) } else { 0.0 });
                let after = right_gutter(panel).max(if i == last { overhang(last_half) } else { 0.0 });
                (before, after, gap(i))
            })
            .collect();
        let fixed: f64 = gutters.iter().map(|(before, after, gap)| before + after + gap).sum();
        let room = (page.inner() - fixed).max(60.0);
        let weights: f64 = panels.iter().map(|panel| panel.weight).sum();
        let slot = |(panel, gutters): (Panel, (f64, f64, f64))| {
            let width = room * panel.weight / weights;
            Slot::new(panel, gutters, width, height)
        };
        Self { slots: panels.into_iter().zip(gutters).map(slot).collect(), height }
    }

    /// A panel by itself: it has ticks of its own, and lines are not drawn higher than they are wide.
    fn alone(mut panel: Panel, height: f64, page: Page) -> Self {
        panel.y.shared = false;
        let stretches = !panel.y.down && panel.series.iter().all(|series| series.mark != Mark::Cells);
        let row = Self::new(vec![panel], height, page);
        if !stretches {
            return row;
        }
        let height = height.min((row.slots[0].width * 0.62).max(170.0));
        let panels = row.slots.into_iter().map(|slot| slot.panel).collect();
        Self::new(panels, height, page)
    }

    /// Whether every panel can be read.
    fn fits(&self) -> bool {
        self.slots.iter().all(|slot| {
            let least = if slot.panel.weight < 0.5 { STRIP_LEAST } else { PLOT_LEAST };
            slot.width >= least && slot.ticks_fit && slot.y_label.len() < 3 && slot.x_label.len() < 3
        })
    }
}

impl Slot {
    fn new(mut panel: Panel, (before, after, gap): (f64, f64, f64), width: f64, height: f64) -> Self {
        let count = panel.x.ticks.len();
        let (ticks, names_apart) = thinned(&panel.x, width, |tick| font::width(&tick.text, TEXT) + TICKS_APART);
        let ticks_fit = names_apart && ticks.len() >= count.min(3);
        panel.x.ticks = ticks;
        if !panel.y.down {
            panel.y.ticks = thinned(&panel.y, height, |_| TEXT * 1.15).0;
        }
        let beside = if panel.y.shared { width + after } else { before + width + after };
        let y_label = lines(&panel.y.label, LABEL, beside);
        let x_label = lines(&panel.x.label, LABEL, before + width + after);
        Self { panel, before, width, after, gap, y_label, x_label, ticks_fit }
    }

    /// Rows of labels above the panel.
    #[must_use]
    pub(super) fn rule_rows(&self) -> usize {
        let labels = panel::rule_labels(&self.panel, 0.0, self.width);
        labels::stack(&labels, LABEL, 0.0, self.width).into_iter().map(|(row, _)| row + 1).max().unwrap_or(0)
    }
}

/// A panel with what a page has room for at its sides, and the height of its plot.
fn fitted(panel: &Panel, height: f64, page: Page) -> (Panel, f64) {
    let mut panel = panel.clone();
    for series in &mut panel.series {
        series.end = end_label(series, page);
        series.value.clear();
    }
    if page.width < LONG_TICKS_FROM {
        for tick in &mut panel.y.ticks {
            tick.text = tick.text.split(" · ").next().unwrap_or_default().to_owned();
        }
    }
    let beside = page.inner() - left_gutter(&panel, page) - right_gutter(&panel);
    if !panel.columns.is_empty() && beside < PLOT_SHARE * page.inner() {
        return named_rows(&panel, page);
    }
    for tick in &mut panel.y.ticks {
        tick.text = shorten(&tick.text, TEXT, TICK_MOST.min(page.width * TICK_SHARE));
    }
    (panel, height)
}

/// What stands at the end of a line.
fn end_label(series: &Series, page: Page) -> String {
    let value = series.value.as_str();
    if series.end.is_empty() || page.width < VALUES_FROM {
        return String::new();
    }
    if page.width < NAMES_FROM {
        return value.to_owned();
    }
    let value = if value.is_empty() { String::new() } else { format!(" {value}") };
    // Where both do not fit, it is the name that is cut.
    shorten(&series.end, TEXT, END_MOST - font::width(&value, TEXT)) + &value
}

/// Rows that carry their name and the cells of their columns above their marks.
fn named_rows(panel: &Panel, page: Page) -> (Panel, f64) {
    let room = page.inner() - 10.0;
    let texts: Vec<(f64, Ink, Vec<String>)> = panel
        .y
        .ticks
        .iter()
        .map(|tick| {
            let cell = |column: &Column| {
                let (_, text) = column.cells.iter().find(|(row, _)| *row == tick.at)?;
                Some(format!("{} {text}", column.heading))
            };
            let cells: Vec<String> = panel.columns.iter().filter_map(cell).collect();
            let mut lines = vec![shorten(&tick.text, TEXT, room)];
            lines.extend(wrap(&cells, " · ", TEXT, room));
            (tick.at, tick.ink, lines)
        })
        .collect();
    let lines = texts.iter().map(|(_, _, lines)| lines.len()).max().unwrap_or(0) as f64;
    let group = lines + ROW_MARKS;
    let mut named = panel.clone();
    named.columns.clear();
    named.y.ticks.clear();
    (named.y.low, named.y.high) = (-0.6, group * texts.len() as f64 - 0.6);
    for (row, name_ink, lines) in &texts {
        for (i, text) in lines.iter().enumerate() {
            let ink = if i == 0 { *name_ink } else { Ink::Text };
            let above = row * group + group - ROW_MARKS - lines.len() as f64;
            named.notes.push(Note { x: panel.x.low, y: above + i as f64, text: text.clone(), ink });
        }
    }
    let marks = |row: f64| row * group + lines;
    for (_, row) in named.series.iter_mut().flat_map(|series| &mut series.pieces).flatten() {
        *row = marks(*row);
    }
    (named, ROW_LINE * group * texts.len() as f64)
}

/// The ticks whose labels keep apart on an axis of a length: names always; of the others every one, or every second,
/// or every third; and whether the names do.
fn thinned(axis: &Axis, length: f64, extent: impl Fn(&Tick) -> f64) -> (Vec<Tick>, bool) {
    let apart = |kept: &[&Tick]| {
        kept.windows(2).all(|pair| {
            let distance = (axis.place(pair[1].at) - axis.place(pair[0].at)).abs() * length;
            distance >= (extent(pair[0]) + extent(pair[1])) / 2.0
        })
    };
    let owned = |kept: &[&Tick]| kept.iter().map(|tick| (*tick).clone()).collect();
    let numbers: Vec<f64> = axis.ticks.iter().filter(|tick| !tick.name).map(|tick| tick.at).collect();
    // A ratio of 1 is what the others are read against.
    let anchor = if axis.scale == Scale::Log { numbers.iter().position(|at| *at == 1.0).unwrap_or(0) } else { 0 };
    for step in 1..=numbers.len() {
        let stays = |tick: &&Tick| {
            let number = numbers.iter().position(|at| *at == tick.at);
            tick.name || number.is_some_and(|number| number % step == anchor % step)
        };
        let kept: Vec<&Tick> = axis.ticks.iter().filter(stays).collect();
        if apart(&kept) {
            return (owned(&kept), true);
        }
    }
    let mut kept: Vec<&Tick> = Vec::new();
    let names: Vec<&Tick> = axis.ticks.iter().filter(|tick| tick.name).collect();
    for name in &names {
        kept.push(name);
        if !apart(&kept) {
            kept.pop();
        }
    }
    (owned(&kept), kept.len() == names.len())
}

/// Halves of the labels at both ends of an axis, as far as they can reach out of it.
fn end_halves(axis: &Axis) -> (f64, f64) {
    let half = |tick: &Tick| font::width(&tick.text, TEXT) / 2.0;
    let out = |place: fn(f64) -> f64| {
        // A plot is at least so wide.
        let reach = axis.ticks.iter().map(|tick| half(tick) - place(axis.place(tick.at)) * 100.0);
        reach.fold(0.0, f64::max)
    };
    (out(|place| place), out(|place| 1.0 - place))
}

/// Width of tick labels left of a panel.
fn left_gutter(panel: &Panel, page: Page) -> f64 {
    if panel.y.shared {
        return SHARED_GAP;
    }
    let widest = panel.y.ticks.iter().map(|tick| font::width(&tick.text, TEXT)).fold(0.0, f64::max);
    if widest > 0.0 { widest.min(TICK_MOST.min(page.width * TICK_SHARE)) + TICK_GAP } else { 0.0 }
}

fn columns_width(columns: &[Column]) -> f64 {
    columns.iter().map(|column| column_width(column) + COLUMN_GAP).sum()
}

/// Width of end labels or columns right of a panel.
fn right_gutter(panel: &Panel) -> f64 {
    let ends = match panel.end_labels {
        EndLabels::Gutter => panel.series.iter().map(|series| font::width(&series.end, TEXT)).fold(0.0, f64::max),
        EndLabels::None => 0.0,
    };
    columns_width(&panel.columns) + if ends > 0.0 { ends + panel::LEADER } else { 0.0 }
}

/// Width of a column of cells.
fn column_width(column: &Column) -> f64 {
    let cells = column.cells.iter().map(|(_, text)| font::width(text, TEXT)).fold(0.0, f64::max);
    cells.max(font::width(&column.heading, LABEL))
}

/// Right edges of the columns of a panel.
#[must_use]
pub(super) fn column_edges(panel: &Panel, plot_right: f64) -> Vec<f64> {
    let edge = |x: &mut f64, column: &Column| {
        *x += COLUMN_GAP + column_width(column);
        Some(*x)
    };
    panel.columns.iter().scan(plot_right, edge).collect()
}
