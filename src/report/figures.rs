//! Figures for a document: of which workload and configurations, how wide, under which name, in which forms.
//!
//! **Invariant:** a figure is made from a result alone; a request for other configurations or another width has another
//! name, so that it does not overwrite what `report` keeps.

use crate::analysis::Analysis;
use crate::chart::{self, Chart, Drawing, theme};
use anyhow::{Result, bail};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Request {
    /// [`Chart::key`].
    pub chart: String,
    /// One workload; `None` draws all that the chart has something to show of.
    pub workload: Option<String>,
    /// Configurations in this order; empty takes all.
    pub configs: Vec<String>,
    /// CSS pixels, within [`chart::WIDTHS`].
    pub width: u32,
}

/// A figure that was asked for.
#[derive(Clone, Debug)]
pub struct DocumentFigure {
    /// Name of its files without their ending: `memory-small-objects-720`.
    pub stem: String,
    /// Name of the workload.
    pub workload: String,
    /// The picture.
    pub drawing: Drawing,
}

/// A file that a figure can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// SVG for a light page.
    Svg,
    /// SVG for a dark page.
    SvgDark,
    /// PNG for a light page, two pixels to a CSS pixel.
    Png,
    /// PNG for a dark page.
    PngDark,
    /// What a reader who cannot see the picture is told.
    Alt,
}

impl Form {
    /// Every form, in the order in which files are named.
    pub const ALL: [Self; 5] = [Self::Svg, Self::SvgDark, Self::Png, Self::PngDark, Self::Alt];

    /// End of the file's name.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Svg => ".svg",
            Self::SvgDark => "-dark.svg",
            Self::Png => ".png",
            Self::PngDark => "-dark.png",
            Self::Alt => ".txt",
        }
    }

    /// The same for a light page.
    #[must_use]
    pub const fn light(self) -> Self {
        match self {
            Self::Svg | Self::SvgDark => Self::Svg,
            Self::Png | Self::PngDark => Self::Png,
            Self::Alt => Self::Alt,
        }
    }

    /// Whether it is for a dark page; `None` for either.
    #[must_use]
    pub const fn dark(self) -> Option<bool> {
        match self {
            Self::Svg | Self::Png => Some(false),
            Self::SvgDark | Self::PngDark => Some(true),
            Self::Alt => None,
        }
    }
}

impl DocumentFigure {
    /// The bytes of a form.
    #[must_use]
    pub fn bytes(&self, form: Form) -> Vec<u8> {
        match form {
            Form::Svg => self.drawing.svg().into_bytes(),
            Form::SvgDark => self.drawing.svg_in(&theme::DARK).into_bytes(),
            Form::Png => self.drawing.png(),
            Form::PngDark => self.drawing.png_in(&theme::DARK),
            Form::Alt => format!("{}\n", self.drawing.alt()).into_bytes(),
        }
    }

    /// Name of the file of a form.
    #[must_use]
    pub fn file(&self, form: Form) -> String {
        format!("{}{}", self.stem, form.ending())
    }
}

/// The chart with a key.
///
/// # Errors
/// When there is none; the sentence names those that there are.
pub fn chart_named(key: &str) -> Result<&'static Chart> {
    let Some(chart) = chart::ALL.iter().find(|chart| chart.key == key) else {
        let names: Vec<&str> = chart::ALL.iter().map(|chart| chart.key).collect();
        bail!("There is no chart {key:?}. Name one of: {}.", names.join(", "));
    };
    Ok(chart)
}

/// Index of the workload with a name.
///
/// # Errors
/// When the result has none; the sentence names those that it has.
pub fn workload_named(analysis: &Analysis, name: &str) -> Result<usize> {
    let names = || analysis.workloads.iter().map(|workload| workload.name.as_str());
    match names().position(|own| own == name) {
        Some(index) => Ok(index),
        None => {
            bail!(
                "There is no workload {name:?} in this result. Name one of: {}.",
                names().collect::<Vec<_>>().join(", ")
            )
        }
    }
}

/// Draws what was asked for.
///
/// # Errors
/// When a name is unknown or named twice, or when nothing was measured that the chart shows.
pub fn figures(analysis: &Analysis, request: &Request) -> Result<Vec<DocumentFigure>> {
    let chart = chart_named(&request.chart)?;
    let wanted = match &request.workload {
        Some(name) => vec![workload_named(analysis, name)?],
        None => (0..analysis.workloads.len()).collect(),
    };
    let selected = selected(analysis, request, &wanted, chart)?;
    let draw = |workload: usize| {
        let drawing = (chart.draw)(&selected, workload)?;
        let drawing = if request.width == chart::WIDTH { drawing } else { drawing.laid_out(request.width) };
        let name = analysis.workloads[workload].name.clone();
        Some(DocumentFigure { stem: stem(analysis, request, workload), workload: name, drawing })
    };
    let drawn: Vec<DocumentFigure> = wanted.into_par_iter().filter_map(draw).collect();
    if drawn.is_empty() {
        bail!(
            "This result measured nothing that the chart {:?} shows{}. Measure again with every pass, on every \
             allocator.",
            request.chart,
            request.workload.as_ref().map_or(String::new(), |name| format!(" of {name}"))
        );
    }
    Ok(drawn)
}

/// The analysis with the configurations of a request alone, in its order.
fn selected(analysis: &Analysis, request: &Request, wanted: &[usize], chart: &Chart) -> Result<Analysis> {
    let mut selected = analysis.clone();
    if request.configs.is_empty() {
        return Ok(selected);
    }
    for (i, name) in request.configs.iter().enumerate() {
        let there = |workload: &usize| analysis.workloads[*workload].configs.iter().any(|own| own.name == *name);
        if !wanted.iter().any(there) {
            let mut names: Vec<&str> = Vec::new();
            for own in wanted.iter().flat_map(|workload| &analysis.workloads[*workload].configs) {
                if !names.contains(&own.name.as_str()) {
                    names.push(&own.name);
                }
            }
            let of = request.workload.as_ref().map_or(String::new(), |name| format!(" on {name}"));
            bail!("No configuration {name:?} was measured{of}. Name some of: {}.", names.join(", "));
        }
        if request.configs[..i].contains(name) {
            bail!("The configuration {name:?} is named twice. Name each once.");
        }
    }
    let mut compared = false;
    for workload in &mut selected.workloads {
        let own = std::mem::take(&mut workload.configs);
        let named = request.configs.iter().filter_map(|name| own.iter().find(|config| config.name == *name).cloned());
        workload.configs = named.collect();
        compared |= workload.configs.iter().any(|config| Some(config.config) != workload.baseline);
    }
    if chart.compares && !compared {
        bail!(
            "The chart {:?} shows configurations against the baseline, which is all that was named. Name another one.",
            request.chart
        );
    }
    Ok(selected)
}

/// The name of a figure's files. Configurations that are words for a shell are told by a checksum.
fn stem(analysis: &Analysis, request: &Request, workload: usize) -> String {
    let mut stem = format!("{}-{}", request.chart, super::file_name(analysis, workload));
    if !request.configs.is_empty() {
        let names = request.configs.join("-");
        let plain = names.len() <= 48 && names.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let digest = || Sha256::digest(request.configs.join("\n")).iter().take(4).map(|b| format!("{b:02x}")).collect();
        stem.push('-');
        stem.push_str(&if plain { names } else { digest() });
    }
    if request.width != chart::WIDTH {
        stem.push_str(&format!("-{}", request.width));
    }
    stem
}

/// The command that draws a figure again, as one types it; `result` and `folder` as they were typed.
#[must_use]
pub fn command(request: &Request, figure: &DocumentFigure, result: &str, folder: Option<&str>) -> String {
    let mut words = vec!["pyalloc-bench".to_owned(), "report".into(), quoted(result)];
    words.extend(["--chart".into(), request.chart.clone(), "--workload".into(), quoted(&figure.workload)]);
    for config in &request.configs {
        words.extend(["-c".into(), quoted(config)]);
    }
    if request.width != chart::WIDTH {
        words.extend(["--width".into(), request.width.to_string()]);
    }
    words.extend(folder.into_iter().flat_map(|folder| ["-o".to_owned(), quoted(folder)]));
    words.join(" ")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
