//! `report.html`: one page that says what may be said, shows it, and says where it comes from.
//!
//! Invariant: the page loads nothing from anywhere and is readable without its script; every text that comes from
//! outside is escaped; it names no path and no present time, so the same result gives the same bytes.

use super::{RenderedChart, glance, markdown, pools, table::Table, tables, terminal, trust, words};
use crate::analysis::{Analysis, ConfigAnalysis, Failure, WorkloadAnalysis};
use crate::chart::{inline, theme};
use std::fmt::Write;

/// The page. `charts` are drawn inline below the workload that they belong to.
#[must_use]
pub fn page(analysis: &Analysis, charts: &[RenderedChart]) -> String {
    let mut html = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n");
    html.push_str(&head(analysis));
    html.push_str("<body>\n<a class=\"skip\" href=\"#verdicts\">Skip to the verdicts</a>\n<header>\n");
    html.push_str("<h1>Allocators on recorded Python programs</h1>\n");
    let _ = writeln!(html, "<p class=\"from\">{}</p>", escape(&markdown::provenance(analysis)));
    for warning in terminal::warnings(analysis) {
        let _ = writeln!(html, "<p class=\"warning\" role=\"note\">{}</p>", escape(&warning));
    }
    html.push_str("</header>\n");
    html.push_str(&legend(analysis));
    html.push_str("<div class=\"page\">\n");
    html.push_str(&contents(analysis));
    html.push_str("<main>\n");
    html.push_str(&glance::verdict_section(analysis));
    for (index, workload) in analysis.workloads.iter().enumerate() {
        html.push_str(&section(analysis, index, workload, charts));
    }
    html.push_str(&failures(analysis));
    html.push_str("<section id=\"how-to-read\">\n<h2>How to read this</h2>\n");
    html.push_str(HOW_TO_READ);
    html.push_str("</section>\n<section id=\"provenance\">\n<h2>Where it comes from</h2>\n");
    html.push_str(&tables::provenance(analysis).html());
    html.push_str(&tables::configurations(analysis).html());
    html.push_str(&tables::options(analysis).as_ref().map(folded).unwrap_or_default());
    html.push_str(&tables::workloads(analysis).html());
    html.push_str("</section>\n</main>\n</div>\n");
    let _ = write!(html, "<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    html
}

/// Nothing may be loaded, whatever gets into the page.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

fn head(analysis: &Analysis) -> String {
    let mut html = String::from("<head>\n<meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    let _ = writeln!(html, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">");
    html.push_str("<title>Allocators on recorded Python programs</title>\n");
    let _ = write!(html, "<style>\n{}{STYLE}</style>\n", colours(analysis));
    // Before anything is painted.
    let _ = write!(html, "<script>{REMEMBERED}</script>\n</head>\n");
    html
}

/// Colours of the page beside those of its charts, light and dark; `text_can_be_read` in the browser test holds them.
const LIGHT: &str = "--ground:#f4f6f8;--line:#d5dae0;--shade:#eef1f4;--accent:#0b5cad;--good:#0a6b3d;--bad:#a8330b;\
                     --warn:#8f3a05;--good-wash:#e3f4ea;--bad-wash:#fcebe4;";
const DARK: &str = "--ground:#0d1117;--line:#343b44;--shade:#20262e;--accent:#79b8ff;--good:#6fd69b;--bad:#ff9d7a;\
                    --warn:#ffb380;--good-wash:#15301f;--bad-wash:#3a211a;";

/// The one place where colours are given: by the system's wish, unless the reader chose; paper is light.
fn colours(analysis: &Analysis) -> String {
    let slots: Vec<usize> = contestants(analysis).map(|(slot, _)| slot).collect();
    let (light, dark) = (theme::LIGHT.variables(&slots), theme::DARK.variables(&slots));
    let mut css = format!(":root {{ color-scheme: light; {LIGHT}{light} }}\n");
    let dark = format!("color-scheme: dark; {DARK}{dark}");
    let _ = writeln!(
        css,
        "@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme=\"light\"]) {{ {dark} }} }}"
    );
    let _ = writeln!(css, "@media screen {{ :root[data-theme=\"dark\"] {{ {dark} }} }}");
    for slot in slots {
        let _ = writeln!(
            css,
            "[data-series=\"{slot}\"] {{ --own: var(--series-{slot}); --own-name: var(--name-{slot}); }}"
        );
    }
    for step in 0..=theme::FULL {
        let _ = writeln!(css, ".ink-fill-{step} {{ --ink: var(--fill-{step}); }}");
    }
    css
}

/// Slots and labels of everything but floors, in the order of the environment.
fn contestants(analysis: &Analysis) -> impl Iterator<Item = (usize, &str)> {
    let configs = &analysis.environment.configs;
    let shown = theme::slots(configs).into_iter().zip(configs).filter(|(_, config)| !config.floor);
    shown.map(|(slot, config)| (slot, config.label.as_str()))
}

/// One legend for every chart; the script makes switches of its entries.
fn legend(analysis: &Analysis) -> String {
    let mut html =
        String::from("<div class=\"bar\" role=\"region\" aria-label=\"Allocators\">\n<ul class=\"legend\">\n");
    for (slot, label) in contestants(analysis) {
        let (swatch, label) = (inline::swatch(slot), escape(label));
        let _ =
            writeln!(html, "<li data-series=\"{slot}\"><span class=\"chip\">{swatch}<span>{label}</span></span></li>");
    }
    html.push_str("</ul>\n</div>\n");
    html
}

fn contents(analysis: &Analysis) -> String {
    let mut html = String::from("<nav aria-label=\"Contents\">\n<ul>\n");
    html.push_str("<li><a href=\"#verdicts\">What may be said</a></li>\n");
    for (index, workload) in analysis.workloads.iter().enumerate() {
        let _ = writeln!(html, "<li><a href=\"#workload-{index}\">{}</a></li>", escape(&workload.name));
    }
    if analysis.failed_runs > 0 {
        html.push_str("<li><a href=\"#failures\">What failed</a></li>\n");
    }
    html.push_str("<li><a href=\"#how-to-read\">How to read this</a></li>\n");
    html.push_str("<li><a href=\"#provenance\">Where it comes from</a></li>\n</ul>\n</nav>\n");
    html
}

fn section(analysis: &Analysis, index: usize, workload: &WorkloadAnalysis, charts: &[RenderedChart]) -> String {
    let facts = words::facts(analysis, workload);
    let mut html = format!("<section id=\"workload-{index}\">\n<h2>{}</h2>\n", escape(&workload.name));
    let _ = writeln!(html, "<p class=\"lead\"><strong>{}.</strong> {}</p>", escape(&facts.title), escape(&facts.story));
    let _ = writeln!(html, "<p class=\"facts\">{}.</p>", escape(&words::workload_line(analysis, workload)));
    if workload.configs.is_empty() {
        html.push_str("<p class=\"warning\">Nothing measured.</p>\n</section>\n");
        return html;
    }
    let names = names(analysis, workload);
    html.push_str(&sentences(analysis, workload));
    html.push_str(&overview(analysis, workload).html_by(&names));
    if let Some(check) = trust::of_workload(analysis, workload) {
        let _ = writeln!(html, "<p class=\"note\">{}.</p>", escape(&check));
    }
    if let Some(fidelity) = words::fidelity(analysis, workload) {
        let _ = writeln!(html, "<p class=\"note\">Fidelity: {}.</p>", escape(&fidelity));
    }
    for line in words::bimodal_lines(workload) {
        let _ = writeln!(html, "<p class=\"note\">{}.</p>", escape(&line));
    }
    let own: Vec<&RenderedChart> = charts.iter().filter(|chart| chart.workload == index).collect();
    if !own.is_empty() {
        let _ = writeln!(html, "<h3>Charts</h3>");
    }
    for chart in own {
        html.push_str(&figure(chart, &common(charts)));
    }
    html.push_str("<h3>Details</h3>\n");
    html.push_str(&deaths(facts));
    html.push_str(&tables::domains(facts).as_ref().map(folded).unwrap_or_default());
    for table in tables::DETAILS.iter().filter_map(|make| make(analysis, workload)) {
        html.push_str(&fold(&table, &names));
    }
    html.push_str(&by_configuration(analysis, workload));
    html.push_str("</section>\n");
    html
}

/// What rows of a workload's tables are headed by, and the slot of each.
#[must_use]
pub(super) fn names(analysis: &Analysis, workload: &WorkloadAnalysis) -> Vec<(String, usize)> {
    let slots = theme::slots(&analysis.environment.configs);
    workload.configs.iter().map(|config| (tables::name(analysis, config), slots[config.config])).collect()
}

/// The overview with whole names: cut ones may be alike, and a page has room.
fn overview(analysis: &Analysis, workload: &WorkloadAnalysis) -> Table {
    let mut table = tables::overview(analysis, workload);
    for (row, config) in table.rows.iter_mut().zip(&workload.configs) {
        row[0] = tables::name(analysis, config);
    }
    table
}

/// What may be said of each allocator, with intervals.
fn sentences(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    let slots = theme::slots(&analysis.environment.configs);
    let said = workload.configs.iter().filter_map(|c| Some((slots[c.config], words::sentence(analysis, workload, c)?)));
    let items: String = said
        .map(|(slot, text)| {
            let (who, what) = text.split_once(": ").unwrap_or(("", &text));
            let mut text = escape(what);
            for word in ["better", "worse"] {
                text = text.replace(&format!("), {word}"), &format!("), <b class=\"{word}\">{word}</b>"));
            }
            format!("<li data-series=\"{slot}\"><strong>{}:</strong> {text}</li>\n", escape(who))
        })
        .collect();
    if items.is_empty() { String::new() } else { format!("<h3>Verdicts</h3>\n<ul class=\"said\">\n{items}</ul>\n") }
}

/// Pieces of the caption that every chart of the page has; the page says them once, at its head.
fn common(charts: &[RenderedChart]) -> Vec<&str> {
    let Some((first, rest)) = charts.split_first() else { return Vec::new() };
    let everywhere = |piece: &&String| rest.iter().all(|chart| chart.inline.provenance.contains(piece));
    first.inline.provenance.iter().filter(everywhere).map(String::as_str).collect()
}

fn figure(chart: &RenderedChart, common: &[&str]) -> String {
    let own: Vec<&str> =
        chart.inline.provenance.iter().map(String::as_str).filter(|piece| !common.contains(piece)).collect();
    let (title, how) = (escape(&chart.title), escape(&chart.inline.subtitle));
    let mut html = format!("<figure id=\"{}\">\n<h4>{title}</h4>\n<p class=\"how\">{how}</p>\n", escape(&chart.stem));
    let _ = writeln!(html, "<div class=\"plot\"><div class=\"canvas\">{}</div></div>", chart.inline.svg);
    let _ = writeln!(html, "<figcaption>{}</figcaption>", escape(&own.join(" · ")));
    let _ = write!(html, "<script type=\"application/json\">{}</script>\n</figure>\n", chart.inline.data);
    html
}

/// A table behind its caption.
fn fold(table: &Table, names: &[(String, usize)]) -> String {
    let caption = table.caption.as_str();
    let summary = caption.split_once(": ").map_or(caption, |(_, what)| what);
    format!("<details>\n<summary>{}</summary>\n{}</details>\n", escape(summary), table.html_by(names))
}

fn folded(table: &Table) -> String {
    fold(table, &[])
}

/// Long tables of one configuration each, behind one line for each kind.
fn by_configuration(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    type Maker = fn(&Analysis, &WorkloadAnalysis, &ConfigAnalysis) -> Option<Table>;
    const KINDS: [(&str, Maker); 2] = [
        ("latency by size class and page fault, allocator by allocator", tables::latency_by_class),
        ("size classes of the pools at the end", pools::classes),
    ];
    let mut html = String::new();
    for (what, make) in KINDS {
        let tables: String =
            workload.configs.iter().filter_map(|c| make(analysis, workload, c)).map(|t| t.html()).collect();
        if !tables.is_empty() {
            let _ = write!(html, "<details>\n<summary>{what}</summary>\n{tables}</details>\n");
        }
    }
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
        words::plural(shape.collections_total() as usize, "collection"),
        crate::units::mib(shape.bytes_by_collector as f64)
    );
    format!("<p>{text}</p>\n")
}

fn failures(analysis: &Analysis) -> String {
    if analysis.failed_runs == 0 {
        return String::new();
    }
    let heads = ["workload", "allocator", "pass", "runs", "reason"];
    let mut table = Table::new("Runs that failed; no figure includes them", &heads);
    for failure in &analysis.failures {
        let Failure { workload, config, pass, reason, runs } = failure.clone();
        table.row([workload, config, pass, runs.to_string(), reason]);
    }
    let rest = words::untold(analysis).map_or_else(String::new, |rest| format!("<p>{rest}</p>\n"));
    format!("<section id=\"failures\">\n<h2>What failed</h2>\n{}{rest}</section>\n", table.html())
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
pub(super) const SCRIPT: &str = include_str!("report.js");
/// The colours that the reader chose, where the browser remembers them.
const REMEMBERED: &str = "try { const chosen = localStorage.getItem('pyalloc-bench-theme'); \
                          if (chosen) document.documentElement.dataset.theme = chosen; } catch {}";
const HOW_TO_READ: &str = include_str!("how_to_read.html");
