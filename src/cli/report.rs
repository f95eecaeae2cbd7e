//! `report`: everything that a result shows, from its two files alone.
//!
//! Invariant: the same result gives the same bytes.

use super::out::{Stop, complain, print};
use super::replay::default_base;
use crate::analysis::{self, Analysis};
use crate::run::{self, LATEST_LINK};
use crate::{chart, report};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `report`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReportArgs {
    /// Folder of a result [default: the latest]
    result: Option<PathBuf>,
    /// Write this chart alone, for every workload
    #[arg(long, value_name = "NAME")]
    chart: Option<String>,
}

/// Rebuilds and names the files.
pub(super) fn run(args: &ReportArgs) -> Result<(), Stop> {
    let path = args.result.clone().unwrap_or_else(|| default_base().join(LATEST_LINK));
    let stored = run::open(&path).map_err(Stop::unusable)?;
    stored.notes.iter().for_each(|note| complain(note));
    let analysis = analysis::analyse(stored.environment, &stored.runs);
    let written = match &args.chart {
        Some(name) => return one_chart(&path, &analysis, name),
        None => {
            print(&report::terminal(&analysis))?;
            report::write(&path, &analysis)
        }
    }
    .map_err(|e| Stop::Unusable(format!("{e:#}")))?;
    print(&lines(&written))
}

/// Draws one chart for every workload that has its data.
fn one_chart(result: &Path, analysis: &Analysis, name: &str) -> Result<(), Stop> {
    let Some(chart) = chart::ALL.iter().find(|chart| chart.key == name) else {
        let names: Vec<&str> = chart::ALL.iter().map(|chart| chart.key).collect();
        return Err(Stop::Unusable(format!("There is no chart {name:?}. Give one of: {}.", names.join(", "))));
    };
    let folder = result.join("charts");
    let fail = |e: std::io::Error| Stop::Unusable(format!("{} cannot be written: {e}. Make room.", folder.display()));
    std::fs::create_dir_all(&folder).map_err(fail)?;
    let mut written = Vec::new();
    for (index, workload) in analysis.workloads.iter().enumerate() {
        let Some(drawing) = (chart.draw)(analysis, index) else { continue };
        for (ending, bytes) in [("svg", drawing.svg().into_bytes()), ("png", drawing.png())] {
            let file = folder.join(format!("{}-{}.{ending}", chart.key, workload.name));
            std::fs::write(&file, bytes).map_err(fail)?;
            written.push(file);
        }
    }
    print(&lines(&written))
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("{}\n", file.display())).collect()
}
