//! `report`: everything that a result shows, from its two files alone.
//!
//! Invariant: the same result gives the same bytes.

use super::out::{Stop, complain, print};
use super::replay::default_base;
use crate::analysis;
use crate::report;
use crate::run::{self, LATEST_LINK};
use clap::Args;
use std::path::PathBuf;

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
        Some(name) => report::write_chart(&path, &analysis, name),
        None => {
            print(&report::terminal(&analysis))?;
            report::write(&path, &analysis)
        }
    }
    .map_err(|e| Stop::Unusable(format!("{e:#}")))?;
    print(&lines(&written))
}

fn lines(files: &[PathBuf]) -> String {
    files.iter().map(|file| format!("{}\n", file.display())).collect()
}
