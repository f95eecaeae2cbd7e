//! An analysis as text, Markdown and one static page, and everything that a result folder shows.
//!
//! Invariant: written from `environment.json` and `runs.jsonl` alone, and byte for byte the same every time: no present
//! time, no path, no order that a hash table or a thread decides.

pub mod html;
pub mod markdown;
pub mod table;
pub mod tables;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod words;

pub use markdown::markdown;
pub use terminal::terminal;

use crate::analysis::{self, Analysis};
use crate::run;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The page.
pub const PAGE_FILE: &str = "report.html";
/// The tables as Markdown.
pub const SUMMARY_FILE: &str = "summary.md";
/// The figures for programs.
pub const ANALYSIS_FILE: &str = "analysis.json";

/// A chart as it goes into the page.
#[derive(Clone, Debug)]
pub struct RenderedChart {
    /// Index into [`Analysis::workloads`].
    pub workload: usize,
    /// What it shows.
    pub title: String,
    /// The drawing.
    pub svg: String,
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
    let charts: Vec<RenderedChart> = Vec::new();
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
    Ok(written)
}

/// Writes a file beside its place and renames it there, so that a full disk leaves the old one.
fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let saved = fs::write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path));
    saved.inspect_err(|_| drop(fs::remove_file(&fresh))).with_context(|| {
        format!("{} cannot be written. Make room, or allow writing to the result's folder.", path.display())
    })
}
