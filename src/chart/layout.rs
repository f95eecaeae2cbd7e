//! From a figure to a scene of a width: where title, legend, panels and caption go.
//!
//! Invariant: everything is measured with the real font before it is placed; the same figure and width give the same
//! scene.

use super::figure::Figure;
use super::fit::{self, Row};
use super::labels::{self, wrap};
use super::legend;
use super::panel;
use super::scene::{Anchor, Area, Scene, TextBox};
use super::theme::Ink;

/// Width of a picture unless another is asked for.
pub(super) const WIDTH: f64 = 1000.0;
/// Em of tick labels, end labels and cells.
pub(super) const TEXT: f64 = 14.0;
/// Em of axis labels and headings.
pub(super) const LABEL: f64 = 13.5;
/// Em of the line at the foot.
pub(super) const CAPTION: f64 = 12.0;
const SUBTITLE: f64 = 14.0;
const CAPTION_LINE: f64 = 16.0;
const SUBTITLE_LINE: f64 = 18.5;
/// From line to line of axis labels.
pub(super) const LABEL_LINE: f64 = 17.5;
/// Height of tick labels and axis label below a plot.
const AXIS: f64 = 47.0;
/// Between panels one below the other.
const ROW_GAP: f64 = 14.0;

/// The paper that a figure is laid out on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Page {
    /// Width of the picture.
    pub(super) width: f64,
    /// Empty space around.
    pub(super) margin: f64,
}

impl Page {
    /// A page of a width.
    #[must_use]
    pub(super) fn new(width: f64) -> Self {
        Self { width, margin: (width * 0.04).clamp(14.0, 26.0).round() }
    }

    /// Where the right margin begins.
    #[must_use]
    pub(super) fn right(self) -> f64 {
        self.width - self.margin
    }

    /// Width between the margins.
    #[must_use]
    pub(super) fn inner(self) -> f64 {
        self.width - 2.0 * self.margin
    }

    /// Em of the title.
    fn title(self) -> f64 {
        if self.width < 600.0 { 17.0 } else { 21.0 }
    }
}

/// Where one panel's parts go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// The plotting area.
    pub(super) plot: Area,
    /// Left edge of everything that belongs to the panel.
    pub(super) left: f64,
    /// Right edge of everything that belongs to the panel.
    pub(super) right: f64,
    /// Right edge of what a text in the plot may reach.
    pub(super) edge: f64,
    /// First baseline of axis label and column headings, the same for all panels of a row.
    pub(super) heading: f64,
    /// The label of the vertical axis, in lines.
    pub(super) y_label: Vec<String>,
    /// The label of the horizontal axis, in lines.
    pub(super) x_label: Vec<String>,
}

/// Lays a figure out. Plots keep their height; legend, labels and caption make the picture as high as they need.
#[must_use]
pub(super) fn scene(figure: &Figure, width: f64) -> Scene {
    let page = Page::new(width);
    let mut scene = Scene { size: (width, 0.0), ..Scene::default() };
    let mut foot = header(figure, page, &mut scene);
    for (i, row) in fit::rows(figure, page).into_iter().enumerate() {
        foot = place(row, foot + if i == 0 { 0.0 } else { ROW_GAP }, page, &mut scene);
    }
    scene.size.1 = footer(figure, foot, page, &mut scene).ceil();
    scene
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

/// A text in lines of about equal length, no wider than a width.
#[must_use]
pub(super) fn lines(text: &str, size: f64, width: f64) -> Vec<String> {
    labels::balanced(&words(text), size, width)
}

/// Title, subtitle and legend; returns where they end.
fn header(figure: &Figure, page: Page, scene: &mut Scene) -> f64 {
    let title = page.title();
    let mut y = page.margin + title * 0.76;
    for (i, line) in lines(&figure.title, title, page.inner()).into_iter().enumerate() {
        y += if i == 0 { 0.0 } else { title * 1.25 };
        scene.texts.push(TextBox::new(line, (page.margin, y), Anchor::Start, title, Ink::Text));
    }
    y += 7.0;
    for line in lines(&figure.subtitle, SUBTITLE, page.inner()) {
        y += SUBTITLE_LINE;
        scene.texts.push(TextBox::new(line, (page.margin, y), Anchor::Start, SUBTITLE, Ink::Muted));
    }
    legend::draw(&figure.legend, y + 27.0, page, scene) + 14.0
}

/// Draws a row of panels below `top`; returns its foot.
fn place(row: Row, top: f64, page: Page, scene: &mut Scene) -> f64 {
    let most = |count: fn(&fit::Slot) -> usize| row.slots.iter().map(count).max().unwrap_or(0);
    let heading = top + LABEL;
    let label_lines = most(|slot| slot.y_label.len()).saturating_sub(1) as f64;
    let plot_top = heading + 11.0 + LABEL_LINE * (label_lines + most(|slot| slot.rule_rows()) as f64);
    let bottom = plot_top + row.height;
    let foot = bottom + AXIS + LABEL_LINE * most(|slot| slot.x_label.len()).saturating_sub(1) as f64;
    let (mut x, last) = (page.margin, row.slots.len() - 1);
    for (i, slot) in row.slots.into_iter().enumerate() {
        let plot = Area { left: x + slot.before, top: plot_top, right: x + slot.before + slot.width, bottom };
        let right = plot.right + slot.after;
        let edge = if i == last { page.width - 4.0 } else { plot.right };
        let (y_label, x_label) = (slot.y_label, slot.x_label);
        panel::draw(&slot.panel, &Frame { plot, left: x, right, edge, heading, y_label, x_label }, scene);
        x = right + slot.gap;
    }
    foot
}

/// The caption below `top`; returns the foot of the picture.
fn footer(figure: &Figure, top: f64, page: Page, scene: &mut Scene) -> f64 {
    let mut baseline = top + 8.0;
    for line in wrap(&figure.provenance, " · ", CAPTION, page.inner()) {
        baseline += CAPTION_LINE;
        scene.texts.push(TextBox::new(line, (page.margin, baseline), Anchor::Start, CAPTION, Ink::Muted));
    }
    baseline + 18.0
}
