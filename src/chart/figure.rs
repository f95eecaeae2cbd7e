//! What a chart says, before it has a size: axes, series as data, labels, caption.
//!
//! Invariant: a figure holds the numbers that it shows, in the units of its axes; layout and rendering only place them.

use super::theme::Ink;

/// A whole chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// First line.
    pub title: String,
    /// Second line: how to read it.
    pub subtitle: String,
    /// From left to right.
    pub panels: Vec<Panel>,
    /// Every distinct [`Series::key`], in order of appearance.
    pub legend: Vec<LegendEntry>,
    /// What was measured, with what, when: pieces of the line at the foot.
    pub provenance: Vec<String>,
    /// What a reader who cannot see the picture is told.
    pub alt: String,
    /// Height of the plotting areas where they stand beside each other.
    pub plot_height: f64,
}

/// One pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// Share of the width, relative to the other panels.
    pub weight: f64,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Shaded spans of x, under everything.
    pub bands: Vec<Band>,
    /// Value of y above which they are shaded; `None` shades the whole height.
    pub bands_above: Option<f64>,
    /// Values of y at which a line of paper parts the cells below from those above.
    pub parted: Vec<f64>,
    /// Vertical lines with a label above the panel.
    pub rules: Vec<Rule>,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Whether, and where, series are named at their last point.
    pub end_labels: EndLabels,
    /// Text columns to the right, one cell per row of a category axis.
    pub columns: Vec<Column>,
    /// Texts at data coordinates, to the right of the point.
    pub notes: Vec<Note>,
    /// Spans of y in which everything is about one allocator, whatever its colour.
    pub owned: Vec<Owned>,
}

/// A span of y that is about one allocator.
#[derive(Clone, Debug, PartialEq)]
pub struct Owned {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Slot of the allocator.
    pub slot: usize,
    /// Its label.
    pub name: String,
}

/// A shaded span of x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Strength of the shade, 0 to 1: less where a band stands for spans with gaps between them.
    pub strength: f64,
}

/// Where series are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndLabels {
    /// Nowhere: rows or the legend name them.
    None,
    /// Right of the panel, pushed apart.
    Gutter,
}

/// Linear or logarithmic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equal distances.
    Linear,
    /// Equal ratios, equal distances.
    Log,
}

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What it shows, with its unit in brackets or behind a comma; a category axis names its categories.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
    /// Value at the left, or at the foot (at the head when `down`).
    pub low: f64,
    /// Value at the right, or at the head (at the foot when `down`).
    pub high: f64,
    /// Labelled positions.
    pub ticks: Vec<Tick>,
    /// Whether ticks draw a grid line.
    pub grid: bool,
    /// Whether tick labels are left to the neighbour that shares this axis.
    pub shared: bool,
    /// Whether values grow downwards: rows.
    pub down: bool,
}

/// A labelled position on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Value.
    pub at: f64,
    /// Label.
    pub text: String,
    /// Colour of the label.
    pub ink: Ink,
    /// Whether it names a thing or a moment, and is never left out; numbers are where they would crowd.
    pub name: bool,
}

/// A vertical line.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Value on x.
    pub at: f64,
    /// Label above the panel; may be empty.
    pub label: String,
    /// Dashed or solid.
    pub dashed: bool,
}

/// Data of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its legend entry.
    pub key: String,
    /// Short name at its end; empty for none.
    pub end: String,
    /// Its last value, printed behind the name; empty for none.
    pub value: String,
    /// Colour, dash and marker.
    pub ink: Ink,
    /// How it is drawn.
    pub mark: Mark,
    /// Data: `(x, y)` in units of the axes. Several pieces where the line is interrupted.
    pub pieces: Vec<Vec<(f64, f64)>>,
    /// `(low, high)` on x for each point of the first piece, or empty: whiskers of dots, ends of bars and links.
    pub spans: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mark {
    /// From point to point.
    Line,
    /// From point to point, and a marker at each.
    LineDots,
    /// Level until the next point.
    Step,
    /// Filled down to the foot of the panel.
    Area,
    /// A filled marker with whiskers.
    Dot,
    /// An open marker with whiskers.
    Ring,
    /// A vertical tick through the row.
    Tick,
    /// A thick line over its span: what joins two dots.
    Link,
    /// A horizontal bar over its span; strength of its colour, 0 to 1.
    Bar(f64),
    /// A vertical shade: the panel's bands, so that they have a legend entry. Has no data of its own.
    Shade,
    /// Filled cells: each piece is one, by its lower left and its upper right corner.
    Cells,
}

/// One entry of the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct LegendEntry {
    /// Text.
    pub text: String,
    /// Colours, dashes and markers of the series that share it.
    pub inks: Vec<Ink>,
    /// What the swatch looks like.
    pub mark: Mark,
}

/// A column of texts right of a panel with rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Heading.
    pub heading: String,
    /// Row and text.
    pub cells: Vec<(f64, String)>,
}

/// A text at a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Value on x.
    pub x: f64,
    /// Value on y.
    pub y: f64,
    /// Text.
    pub text: String,
    /// Colour.
    pub ink: Ink,
}

impl Panel {
    /// An empty panel.
    #[must_use]
    pub fn new(weight: f64, x: Axis, y: Axis) -> Self {
        Self {
            weight,
            x,
            y,
            bands: Vec::new(),
            bands_above: None,
            parted: Vec::new(),
            rules: Vec::new(),
            series: Vec::new(),
            end_labels: EndLabels::None,
            columns: Vec::new(),
            notes: Vec::new(),
            owned: Vec::new(),
        }
    }
}

impl Series {
    /// A series in one piece, without spans, named only in the legend.
    #[must_use]
    pub fn new(key: &str, ink: Ink, mark: Mark, points: Vec<(f64, f64)>) -> Self {
        let (end, value) = (String::new(), String::new());
        Self { key: key.into(), end, value, ink, mark, pieces: vec![points], spans: Vec::new() }
    }

    /// The last point of the last piece.
    #[must_use]
    pub fn last(&self) -> Option<(f64, f64)> {
        self.pieces.iter().rev().find_map(|piece| piece.last().copied())
    }
}

impl Axis {
    /// Where a value lies: 0 at the low end, 1 at the high end. Values outside are held at the ends.
    #[must_use]
    pub fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln(),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// The legend of panels: every distinct key once, with every colour that it has.
#[must_use]
pub fn legend(panels: &[Panel]) -> Vec<LegendEntry> {
    let mut entries: Vec<LegendEntry> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        match entries.iter_mut().find(|entry| entry.text == series.key) {
            Some(entry) if entry.inks.contains(&series.ink) => {}
            Some(entry) => entry.inks.push(series.ink),
            None => entries.push(LegendEntry { text: series.key.clone(), inks: vec![series.ink], mark: series.mark }),
        }
    }
    entries
}
