//! Pieces of a report for a document: tables, sentences, figures of speech in numbers.
//!
//! **Invariant:** an excerpt says which result it is from and when that was measured; it has no other numbers than the
//! report has.

use super::snippet::url;
use super::{markdown, tables, terminal, words};
use crate::analysis::{Analysis, WorkloadAnalysis};
use anyhow::{Result, bail};
use std::fmt::Write;

/// A kind of excerpt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excerpt {
    /// What the terminal shows, fenced.
    Terminal,
    /// The table of each workload.
    Table,
    /// What may be said of each configuration against the baseline.
    Verdicts,
    /// One table of all workloads: each configuration's figures, and how they compare with the baseline's.
    Versus,
    /// How well replays predicted the real programs.
    Fidelity,
    /// Floor of the harness and cost of its clock.
    Floors,
    /// Where the numbers come from, alone.
    Provenance,
}

/// What part of a result an excerpt is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// One workload, or all.
    pub workload: Option<usize>,
    /// Configurations by name, for [`Excerpt::Versus`]; all when it is empty.
    pub configs: &'a [String],
}

/// Where an excerpt stands and what it is from.
pub struct Source<'a> {
    /// The result as the document names it.
    pub result: &'a str,
    /// Name of the document.
    pub document: &'a str,
}

/// The excerpt about one workload or all, as Markdown.
///
/// # Errors
/// When the result has nothing of the kind, or no configuration of a name.
pub fn excerpt(kind: Excerpt, analysis: &Analysis, part: About<'_>, source: &Source<'_>) -> Result<String> {
    let workload = part.workload;
    let about: Vec<&WorkloadAnalysis> = match workload {
        Some(index) => vec![&analysis.workloads[index]],
        None => analysis.workloads.iter().collect(),
    };
    let items = |line: &dyn Fn(&WorkloadAnalysis) -> Option<String>| -> String {
        let item = |workload: &&WorkloadAnalysis| {
            Some(format!("- **{}**: {}.\n", markdown::escape(&workload.name), markdown::escape(&line(workload)?)))
        };
        about.iter().filter_map(item).collect()
    };
    let text = match kind {
        Excerpt::Terminal => {
            let text = match workload {
                Some(_) => about.iter().map(|workload| terminal::one(analysis, workload)).collect(),
                None => terminal::terminal(analysis),
            };
            format!("```text\n{text}```\n")
        }
        Excerpt::Table => about.iter().map(|workload| table(analysis, workload)).collect::<Vec<_>>().join("\n"),
        Excerpt::Verdicts => verdicts(analysis, &about),
        Excerpt::Versus => tables::versus_baseline(analysis, &about, part.configs)?.markdown(),
        Excerpt::Fidelity => items(&|workload| words::fidelity(analysis, workload)),
        Excerpt::Floors => items(&|workload| {
            let line = terminal::floor_line(workload);
            line.starts_with("floor: loop").then(|| line.trim_start_matches("floor: ").to_owned())
        }),
        Excerpt::Provenance => return Ok(format!("{}\n", markdown::escape(&markdown::provenance(analysis)))),
    };
    if text.is_empty() {
        bail!("The result has nothing of this kind. Take the region out, or name a result that has it.");
    }
    Ok(format!("{text}\n{}", origin(kind, analysis, source)))
}

fn table(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    let line = markdown::escape(&words::workload_line(analysis, workload));
    let head = format!("**{}**: {line}.\n", markdown::escape(&workload.name));
    if workload.configs.is_empty() {
        return format!("{head}\nNothing measured.\n");
    }
    format!("{head}\n{}", tables::overview(analysis, workload).markdown())
}

fn verdicts(analysis: &Analysis, about: &[&WorkloadAnalysis]) -> String {
    let mut text = String::new();
    for workload in about {
        for sentence in workload.configs.iter().filter_map(|config| words::sentence(analysis, workload, config)) {
            let _ = writeln!(text, "- {}: {}", markdown::escape(&workload.name), markdown::escape(&sentence));
        }
    }
    text
}

/// Which result it is from, when that was measured, and what writes this again.
fn origin(kind: Excerpt, analysis: &Analysis, source: &Source<'_>) -> String {
    let environment = &analysis.environment;
    let measured = words::date(environment.plan.started_unix_ms);
    let brackets = match kind {
        Excerpt::Table | Excerpt::Verdicts | Excerpt::Versus => {
            format!(" {};", markdown::escape(&terminal::intervals(analysis)))
        }
        _ => String::new(),
    };
    format!(
        "From [`{}`]({}), measured {measured} with pyalloc-bench {};{brackets} `pyalloc-bench report --splice {}` \
         writes this again.\n",
        source.result,
        url(source.result),
        environment.harness.version,
        source.document
    )
}
