//! The first section of the page: every verdict at a glance, and how far they hold.
//!
//! Invariant: a cell is the ratio and the verdict of the analysis; what was not compared says so.

use super::html::escape;
use super::{tables, terminal, words};
use crate::analysis::{Analysis, ConfigAnalysis, Figure, Verdict, WorkloadAnalysis};
use crate::chart::theme;
use std::fmt::Write;

/// What is compared, with its heading, in the order of a sentence.
type Measure = (&'static str, fn(&ConfigAnalysis) -> Option<&Figure>);
const MEASURES: [Measure; 4] = [
    ("time per call", |config| config.ns_per_call.as_ref()),
    ("resident at peak", |config| Some(&config.memory.as_ref()?.peak)),
    ("resident at rest", |config| Some(&config.memory.as_ref()?.rest)),
    ("page faults", |config| config.faults.as_ref()),
];

/// What may be said, before anything is shown. Whatever else is concluded from a result belongs here.
#[must_use]
pub fn verdict_section(analysis: &Analysis) -> String {
    let mut html = String::from("<section id=\"verdicts\">\n<h2>What may be said</h2>\n");
    let compared = |w: &&WorkloadAnalysis| w.configs.iter().any(|c| words::sentence(analysis, w, c).is_some());
    let workloads: Vec<(usize, &WorkloadAnalysis)> =
        analysis.workloads.iter().enumerate().filter(|(_, workload)| compared(workload)).collect();
    if workloads.is_empty() {
        html.push_str("<p>Nothing was compared: measure at least two allocators.</p>\n");
    } else {
        html.push_str(&table(analysis, &workloads));
    }
    let scope = "This holds for these traces on this host. No overall winner is named, since workloads rank allocators \
                 differently.";
    let _ = writeln!(html, "<p>{scope} {}.</p>", escape(&terminal::intervals(analysis)));
    if let Some(control) = words::control(analysis) {
        let _ = writeln!(html, "<p>{}.</p>", escape(&control));
    }
    html.push_str("</section>\n");
    html
}

/// A group of rows per workload, a row per allocator but the baseline.
fn table(analysis: &Analysis, workloads: &[(usize, &WorkloadAnalysis)]) -> String {
    let mut html = String::from("<div class=\"table\"><table class=\"glance\">\n");
    html.push_str("<caption>Ratio to each workload's baseline, and what may be said of it; less is better</caption>\n");
    html.push_str("<thead><tr><th scope=\"col\">allocator</th>");
    for (heading, _) in MEASURES {
        let _ = write!(html, "<th scope=\"col\" class=\"v\">{heading}</th>");
    }
    html.push_str("</tr></thead>\n");
    let slots = theme::slots(&analysis.environment.configs);
    for (index, workload) in workloads {
        let against = escape(words::baseline(analysis, workload));
        let name = escape(&workload.name);
        let _ = write!(
            html,
            "<tbody>\n<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{}\">\
             <a href=\"#workload-{index}\">{name}</a> against {against}</th></tr>\n",
            MEASURES.len() + 1
        );
        for config in workload.configs.iter().filter(|config| Some(config.config) != workload.baseline) {
            let name = tables::name(analysis, config);
            let slot = slots[config.config];
            let _ = write!(html, "<tr data-series=\"{slot}\"><th scope=\"row\">{}</th>", escape(&name));
            for (_, figure) in MEASURES {
                html.push_str(&cell(figure(config)));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody>\n");
    }
    html.push_str("</table></div>\n");
    html
}

fn cell(figure: Option<&Figure>) -> String {
    let Some(comparison) = figure.and_then(|figure| figure.versus.as_ref()) else {
        return format!("<td class=\"v\">{}</td>", words::UNKNOWN);
    };
    let class = match comparison.verdict {
        Verdict::Better => "v better",
        Verdict::Worse => "v worse",
        Verdict::NoDifference | Verdict::Inconclusive => "v open",
    };
    let (median, word) = (comparison.ratio.median, words::verdict(comparison.verdict));
    // Two decimals would say that nothing is left.
    let ratio = if median < 0.005 { "&lt; 0.01".to_owned() } else { words::ratio(median) };
    format!("<td class=\"{class}\">{ratio} <span>{word}</span></td>")
}
