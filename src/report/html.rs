//! `report.html`: one static page that says what may be said, shows it, and says where it comes from.
//!
//! Invariant: the page loads nothing from anywhere; every text that comes from outside is escaped; it names no path
//! and no present time, so the same result gives the same bytes.

use super::{RenderedChart, markdown, pools, table::Table, tables, terminal, words};
use crate::analysis::{Analysis, WorkloadAnalysis};
use std::fmt::Write;

/// The page. `charts` are drawn inline below the workload that they belong to.
#[must_use]
pub fn page(analysis: &Analysis, charts: &[RenderedChart]) -> String {
    let mut html = String::new();
    html.push_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.push_str(
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>Allocators on recorded Python programs</title>\n",
    );
    let _ = write!(html, "<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n");
    html.push_str("<h1>Allocators on recorded Python programs</h1>\n");
    let _ = writeln!(html, "<p class=\"from\">{}</p>", escape(&markdown::provenance(analysis)));
    for warning in terminal::warnings(analysis) {
        let _ = writeln!(html, "<p class=\"warning\" role=\"note\">{}</p>", escape(&warning));
    }
    html.push_str(&verdicts(analysis));
    html.push_str(&contents(analysis));
    for (index, workload) in analysis.workloads.iter().enumerate() {
        html.push_str(&section(analysis, index, workload, charts));
    }
    html.push_str(&failures(analysis));
    html.push_str("<section id=\"how-to-read\">\n<h2>How to read this</h2>\n");
    html.push_str(HOW_TO_READ);
    html.push_str("</section>\n<section id=\"provenance\">\n<h2>Where it comes from</h2>\n");
    html.push_str(&tables::provenance(analysis).html());
    html.push_str(&tables::configurations(analysis).html());
    html.push_str(&tables::options(analysis).as_ref().map(Table::html).unwrap_or_default());
    html.push_str(&tables::workloads(analysis).html());
    html.push_str("</section>\n</main>\n</body>\n</html>\n");
    html
}

/// What may be said, before anything is shown.
fn verdicts(analysis: &Analysis) -> String {
    let mut html = String::from("<section id=\"verdicts\">\n<h2>What may be said</h2>\n");
    let mut said = false;
    for workload in &analysis.workloads {
        let sentences: Vec<String> =
            workload.configs.iter().filter_map(|c| words::sentence(analysis, workload, c)).collect();
        if sentences.is_empty() {
            continue;
        }
        said = true;
        let _ = writeln!(html, "<h3>On {}</h3>\n<ul>", escape(&workload.name));
        for sentence in sentences {
            let _ = writeln!(html, "<li>{}</li>", escape(&sentence));
        }
        html.push_str("</ul>\n");
    }
    if !said {
        html.push_str("<p>Nothing was compared: measure at least two allocators.</p>\n");
    }
    let scope = "This holds for these traces on this host. No overall winner is named, since workloads rank allocators \
                 differently.";
    let _ = writeln!(html, "<p>{scope} {}.</p>", escape(&terminal::intervals(analysis)));
    if let Some(twins) = analysis.twins {
        let text = format!(
            "One allocator under two names: {} of {} verdicts call it different from itself.",
            twins.different, twins.verdicts
        );
        let _ = writeln!(html, "<p>{text}</p>");
    }
    html.push_str("</section>\n");
    html
}

fn contents(analysis: &Analysis) -> String {
    let mut html = String::from("<nav aria-label=\"Workloads\">\n<ul>\n");
    for (index, workload) in analysis.workloads.iter().enumerate() {
        let _ = writeln!(html, "<li><a href=\"#workload-{index}\">{}</a></li>", escape(&workload.name));
    }
    html.push_str("<li><a href=\"#how-to-read\">How to read this</a></li>\n");
    html.push_str("<li><a href=\"#provenance\">Where it comes from</a></li>\n</ul>\n</nav>\n");
    html
}

fn section(analysis: &Analysis, index: usize, workload: &WorkloadAnalysis, charts: &[RenderedChart]) -> String {
    let facts = words::facts(analysis, workload);
    let mut html = format!("<section id=\"workload-{index}\">\n<h2>{}</h2>\n", escape(&workload.name));
    let _ = writeln!(html, "<p><strong>{}.</strong> {}</p>", escape(&facts.title), escape(&facts.story));
    let _ = writeln!(html, "<p>{}.</p>", escape(&words::workload_line(analysis, workload)));
    if workload.configs.is_empty() {
        html.push_str("<p class=\"warning\">Nothing measured.</p>\n</section>\n");
        return html;
    }
    html.push_str(&tables::overview(analysis, workload).html());
    for chart in charts.iter().filter(|chart| chart.workload == index) {
        // Each drawing carries its own title, description and provenance; the page shows the one that fits its colours.
        html.push_str("<figure>\n");
        for (class, svg) in [("light", &chart.svg), ("dark", &chart.svg_dark)] {
            let _ = write!(html, "<div class=\"{class}\">\n{}\n</div>\n", inline(svg));
        }
        let _ = writeln!(html, "<figcaption>{}</figcaption>\n</figure>", escape(&chart.title));
    }
    html.push_str(&deaths(facts));
    html.push_str(&tables::domains(facts).as_ref().map(Table::html).unwrap_or_default());
    for table in tables::DETAILS.iter().filter_map(|make| make(analysis, workload)) {
        html.push_str(&table.html());
    }
    for config in &workload.configs {
        let name = words::allocator(&analysis.environment.configs[config.config]);
        for (what, table) in [
            ("latency by size class and page fault", tables::latency_by_class(analysis, workload, config)),
            ("size classes of its pools at the end", pools::classes(analysis, workload, config)),
        ] {
            let Some(table) = table else { continue };
            let summary = escape(&format!("{name}: {what}"));
            let _ = write!(html, "<details>\n<summary>{summary}</summary>\n{}</details>\n", table.html());
        }
    }
    html.push_str("</section>\n");
    html
}

/// How blocks died: by reference count or in collections.
fn deaths(facts: &crate::run::WorkloadFacts) -> String {
    let shape = &facts.shape;
    let (reference, collector) = (shape.deaths_by_reference as f64, shape.deaths_by_collector as f64);
    if reference + collector == 0.0 {
        return String::new();
    }
    let share = |n: f64| words::percent(n / (reference + collector));
    let text = format!(
        "Of the blocks that were freed, {} died by reference count (or were freed by C code), {} in {} of the cyclic \
         collector, {} MiB in all.",
        share(reference),
        share(collector),
        words::plural(shape.collections.len(), "collection"),
        crate::units::mib(shape.bytes_by_collector as f64)
    );
    format!("<p>{text}</p>\n")
}

fn failures(analysis: &Analysis) -> String {
    if analysis.failures.is_empty() {
        return String::new();
    }
    let mut table = Table::new("Runs that failed; they are in no figure", &["workload", "allocator", "pass", "reason"]);
    for failure in &analysis.failures {
        table.row([&failure.workload, &failure.config, &failure.pass, &failure.reason].map(Clone::clone));
    }
    format!("<section id=\"failures\">\n<h2>What failed</h2>\n{}</section>\n", table.html())
}

/// The drawing without what only stands at the head of a file of its own.
fn inline(svg: &str) -> &str {
    svg.find("<svg").map_or(svg, |start| &svg[start..]).trim_end()
}

/// Makes a text stand for itself in HTML, in attributes too.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

pub(super) const STYLE: &str = include_str!("report.css");
const HOW_TO_READ: &str = include_str!("how_to_read.html");
