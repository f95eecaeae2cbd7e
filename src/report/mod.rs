//! An analysis as text, Markdown and one static page, and everything that a result folder shows.
//!
//! Invariant: written from `environment.json` and `runs.jsonl` alone, and byte for byte the same every time: no present
//! time, no path, no order that a hash table or a thread decides.

pub mod between;
pub mod document;
pub mod fidelity;
pub mod glance;
pub mod html;
pub mod knobs;
pub mod markdown;
pub mod pools;
pub mod recommend;
pub mod rollout;
pub mod shapes;
pub mod table;
pub mod tables;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod words;

pub use markdown::markdown;
pub use terminal::terminal;

use crate::analysis::{self, Analysis};
use crate::{chart, run};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
use std::fs;
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

/// Writes drawings below `dir/charts`, light and dark SVG and PNG of each.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write_charts(dir: &Path, charts: &[RenderedChart]) -> Result<Vec<PathBuf>> {
    let folder = dir.join(CHARTS_FOLDER);
    fs::create_dir_all(&folder).with_context(|| cannot_write(&folder))?;
    let mut written = Vec::new();
    for chart in charts {
        let forms = [(".svg", chart.svg.as_bytes()), ("-dark.svg", chart.svg_dark.as_bytes()), (".png", &chart.png)];
        for (ending, bytes) in forms {
            let path = folder.join(format!("{}{ending}", chart.stem));
            save(&path, bytes)?;
            written.push(path);
        }
    }
    Ok(written)
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
    let charts = charts(analysis, None);
    let mut json =
        serde_json::to_string(analysis).context("The analysis cannot be put into JSON. Please report this.")?;
    json.push('\n');
    let files = [(PAGE_FILE, html::page(analysis, &charts)), (SUMMARY_FILE, markdown(analysis)), (ANALYSIS_FILE, json)];
    let mut written = Vec::new();
    for (name, text) in files {
        let path = dir.join(name);
        save(&path, text.as_bytes())?;
        written.push(path);
    }
    written.extend(write_charts(dir, &charts)?);
    Ok(written)
}

/// Writes one chart alone, for every workload.
///
/// # Errors
/// When no chart has this name, nothing was measured that it shows, or a file cannot be written.
pub fn write_chart(dir: &Path, analysis: &Analysis, name: &str) -> Result<Vec<PathBuf>> {
    if !chart::ALL.iter().any(|chart| chart.key == name) {
        let names: Vec<&str> = chart::ALL.iter().map(|chart| chart.key).collect();
        bail!("There is no chart {name:?}. Name one of: {}.", names.join(", "));
    }
    let charts = charts(analysis, Some(name));
    if charts.is_empty() {
        bail!(
            "This result measured nothing that the chart {name:?} shows. Measure again with every pass, on every \
             allocator."
        );
    }
    write_charts(dir, &charts)
}

/// Writes a file beside its place and renames it there, so that a full disk leaves the old one.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let saved = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    saved.inspect_err(|_| drop(fs::remove_file(&fresh))).with_context(|| cannot_write(path))
}

fn cannot_write(path: &Path) -> String {
    format!("{} cannot be written. Make room, or allow writing to the result's folder.", path.display())
}
