//! An analysis as text, Markdown and one static page, and everything that a result folder shows.
//!
//! Invariant: written from `environment.json` and `runs.jsonl` alone, and byte for byte the same every time: no present
//! time, no path, no order that a hash table or a thread decides.

pub mod between;
pub mod document;
pub mod excerpt;
pub mod fidelity;
pub mod figures;
pub mod glance;
pub mod html;
pub mod knobs;
pub mod markdown;
pub mod pools;
pub mod recommend;
pub mod regions;
pub mod rollout;
pub mod shapes;
pub mod snippet;
pub mod table;
pub mod tables;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod trust;
pub mod verify;
pub mod words;

pub use markdown::markdown;
pub use terminal::terminal;

use crate::analysis::{self, Analysis};
use crate::run::bounded;
use crate::{chart, run};
use anyhow::{Context, Result};
use files::{Kind, Mode};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// The page.
pub const PAGE_FILE: &str = "report.html";
/// The tables as Markdown.
pub const SUMMARY_FILE: &str = "summary.md";
/// The figures for programs.
pub const ANALYSIS_FILE: &str = "analysis.json";

/// Where drawings go.
pub const CHARTS_FOLDER: &str = "charts";

/// A chart as it goes into the page and into files.
#[derive(Clone, Debug)]
pub struct RenderedChart {
    /// Index into [`Analysis::workloads`].
    pub workload: usize,
    /// Name of its files without their ending: `memory-small-objects`.
    pub stem: String,
    /// What it shows.
    pub title: String,
    /// An SVG document for a light page.
    pub svg: String,
    /// An SVG document for a dark page.
    pub svg_dark: String,
    /// A PNG file for a light page.
    pub png: Vec<u8>,
    /// What `report.html` shows.
    pub inline: chart::inline::Inline,
}

/// Draws every chart of every workload, or only those with the key `only`, in the order of the page.
#[must_use]
pub fn charts(analysis: &Analysis, only: Option<&str>) -> Vec<RenderedChart> {
    let wanted = chart::ALL.iter().filter(|chart| only.is_none_or(|key| key == chart.key));
    let cells: Vec<(usize, &chart::Chart)> =
        wanted.flat_map(|chart| (0..analysis.workloads.len()).map(move |workload| (workload, chart))).collect();
    let draw = |(workload, chart): (usize, &chart::Chart)| {
        let drawing = (chart.draw)(analysis, workload)?;
        Some(RenderedChart {
            workload,
            stem: format!("{}-{}", chart.key, file_name(analysis, workload)),
            title: chart.title.to_owned(),
            svg: drawing.svg(),
            svg_dark: drawing.svg_in(&chart::theme::DARK),
            png: drawing.png(),
            inline: drawing.inline(),
        })
    };
    cells.into_par_iter().filter_map(draw).collect()
}

/// A workload's name with only such characters as every file system takes; its index follows if another has the same.
fn file_name(analysis: &Analysis, workload: usize) -> String {
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect()
    };
    let own = plain(&analysis.workloads[workload].name);
    let taken = analysis.workloads.iter().enumerate().any(|(i, other)| i != workload && plain(&other.name) == own);
    if taken { format!("{own}-{workload}") } else { own }
}

/// Files of drawings, by their path below the result.
fn chart_files(charts: Vec<RenderedChart>) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    charts.into_iter().flat_map(|chart| {
        let RenderedChart { stem, svg, svg_dark, png, .. } = chart;
        let forms = [(".svg", svg.into_bytes()), ("-dark.svg", svg_dark.into_bytes()), (".png", png)];
        forms.map(|(ending, bytes)| (Path::new(CHARTS_FOLDER).join(format!("{stem}{ending}")), bytes))
    })
}

/// Reads the result in `dir` and analyses it.
///
/// # Errors
/// When the result cannot be read.
pub fn analyse(dir: &Path) -> Result<Analysis> {
    let (environment, runs) = run::read(dir)?;
    Ok(analysis::analyse(environment, &runs))
}

/// Reads the result in `dir`, writes everything that is derived from it beside it, and names the files, charts last.
///
/// # Errors
/// When the result cannot be read or a file cannot be written.
pub fn write_all(dir: &Path) -> Result<Vec<PathBuf>> {
    write(dir, &analyse(dir)?)
}

/// As [`write_all`], for a caller that has the analysis of `dir` already.
///
/// # Errors
/// When a file cannot be written.
pub fn write(dir: &Path, analysis: &Analysis) -> Result<Vec<PathBuf>> {
    let files = derived(analysis)?;
    files.iter().try_for_each(|(name, _)| check_place(&dir.join(name)))?;
    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = dir.join(name);
        save(&path, &bytes)?;
        written.push(path);
    }
    Ok(written)
}

/// Every file that a result shows, by its path below the result, charts last.
fn derived(analysis: &Analysis) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let charts = charts(analysis, None);
    let mut json =
        serde_json::to_string(analysis).context("The analysis cannot be put into JSON. Please report this.")?;
    json.push('\n');
    let texts = [(PAGE_FILE, html::page(analysis, &charts)), (SUMMARY_FILE, markdown(analysis)), (ANALYSIS_FILE, json)];
    let mut files: Vec<(PathBuf, Vec<u8>)> = texts.map(|(name, text)| (name.into(), text.into_bytes())).into();
    files.extend(chart_files(charts));
    Ok(files)
}

/// The files in `dir` that are missing, or are not what its runs give today.
///
/// # Errors
/// When the analysis cannot be written as JSON.
pub fn stale(dir: &Path, analysis: &Analysis) -> Result<Vec<PathBuf>> {
    let is_stale = |(name, bytes): &(PathBuf, Vec<u8>)| !bounded::holds(&dir.join(name), bytes);
    Ok(derived(analysis)?.into_iter().filter(is_stale).map(|(name, _)| dir.join(name)).collect())
}

/// Checks that a file could be saved there.
///
/// # Errors
/// A sentence that ends with what to do.
pub fn check_place(path: &Path) -> Result<()> {
    Ok(files::check_target_below(path, kind(path))?)
}

/// Saves a file, whole or not at all; makes its folder. An older file keeps its permissions; what is no file of the
/// kind that its name says is refused.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    check_place(path)?;
    let saved = files::make_folders(path.parent().unwrap_or(Path::new("")))
        .and_then(|()| files::replace(path, kind(path), Mode::Usual, bytes));
    saved.with_context(|| cannot_write(path))
}

/// What a file of this name holds.
fn kind(path: &Path) -> Kind {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => Kind::Svg,
        Some("png") => Kind::Png,
        _ => Kind::Any,
    }
}

fn cannot_write(path: &Path) -> String {
    format!("{} cannot be written. Make room, or allow writing to its folder.", path.display())
}
