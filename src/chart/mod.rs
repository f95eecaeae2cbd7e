//! Charts of a result: analysis in, pictures out.
//!
//! [`ALL`] is the table of charts, one file each. A chart makes a [`figure::Figure`] (what it says, with its data);
//! layout gives everything a place ([`scene::Scene`]); rendering writes SVG or PNG through plotters' backends.
//!
//! Invariant: the same analysis gives the same bytes; a chart shows numbers of the analysis and computes none but
//! ratios, differences and sums of them.

mod arenas;
mod axis;
pub mod figure;
mod fit;
mod font;
mod fragmentation;
pub mod inline;
mod labels;
mod latency;
mod layout;
mod legend;
mod memory;
mod panel;
mod peak_rest;
mod render;
pub mod scene;
mod subject;
pub mod theme;
mod time;

use crate::analysis::Analysis;
use figure::Figure;
use scene::Scene;
use theme::Theme;

/// One kind of chart; drawn once per workload.
pub struct Chart {
    /// First part of its file names, `KEY-WORKLOAD.svg`, and what `--chart` takes.
    pub key: &'static str,
    /// What it shows, for lists.
    pub title: &'static str,
    /// Draws it for the workload at an index of [`Analysis::workloads`]; `None` when nothing was measured that it
    /// shows.
    pub draw: fn(&Analysis, usize) -> Option<Drawing>,
    /// Whether it shows configurations against the baseline, which alone says nothing.
    pub compares: bool,
}

impl Chart {
    const fn new(key: &'static str, title: &'static str, draw: fn(&Analysis, usize) -> Option<Drawing>) -> Self {
        Self { key, title, draw, compares: false }
    }
}

/// Every chart, in the order of a report.
pub const ALL: &[Chart] = &[
    Chart::new("memory", "Resident memory over the recording and at rest", memory::draw),
    Chart::new("peak-rest", "Resident memory at peak and at rest", peak_rest::draw),
    Chart::new("latency", "Latency of single calls", latency::draw),
    Chart { compares: true, ..Chart::new("time", "Time per call against the baseline", time::draw) },
    Chart::new("fragmentation", "Where resident memory goes", fragmentation::draw),
    Chart::new("arenas", "How full the arenas of the pool are", arenas::draw),
];

/// Width of a chart unless another is asked for, CSS pixels.
pub const WIDTH: u32 = layout::WIDTH as u32;
/// Widths that a chart can be laid out for, CSS pixels.
pub const WIDTHS: std::ops::RangeInclusive<u32> = 320..=2000;

/// A figure, laid out.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// What it says, with its data.
    pub figure: Figure,
    /// Where everything is.
    pub scene: Scene,
}

impl Drawing {
    /// Lays a figure out, [`WIDTH`] wide.
    #[must_use]
    pub fn new(figure: Figure) -> Self {
        let scene = layout::scene(&figure, layout::WIDTH);
        Self { figure, scene }
    }

    /// The same figure laid out for another width, within [`WIDTHS`].
    #[must_use]
    pub fn laid_out(self, width: u32) -> Self {
        let scene = layout::scene(&self.figure, f64::from(width));
        Self { scene, ..self }
    }

    /// What a reader who cannot see the picture is told.
    #[must_use]
    pub fn alt(&self) -> &str {
        &self.figure.alt
    }

    /// An SVG document for a light page.
    #[must_use]
    pub fn svg(&self) -> String {
        self.svg_in(&theme::LIGHT)
    }

    /// A PNG file for a light page, two pixels to a unit of the scene.
    #[must_use]
    pub fn png(&self) -> Vec<u8> {
        self.png_in(&theme::LIGHT)
    }

    /// An SVG document in the colours of a theme.
    #[must_use]
    pub fn svg_in(&self, theme: &Theme) -> String {
        render::svg(&self.scene, theme, &self.figure.title, &self.figure.alt)
    }

    /// The drawing as part of a page, in the page's colours, with its numbers.
    #[must_use]
    pub fn inline(&self) -> inline::Inline {
        inline::of(&self.figure)
    }

    /// A PNG file in the colours of a theme.
    #[must_use]
    pub fn png_in(&self, theme: &Theme) -> Vec<u8> {
        render::png(&self.scene, theme)
    }
}

#[cfg(test)]
mod tests;
