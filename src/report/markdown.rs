//! `summary.md`: what the terminal showed, for a README or a merge request.
//!
//! Invariant: names and reasons from outside are escaped; the text names no path and no present time.

use super::{pools, shapes, tables, terminal, trust, words};
use crate::analysis::{Analysis, Failure, WorkloadAnalysis};
use crate::run::Mode;
use std::fmt::Write;

/// The whole analysis as Markdown.
#[must_use]
pub fn markdown(analysis: &Analysis) -> String {
    let mut text = String::new();
    for warning in terminal::warnings(analysis) {
        let _ = writeln!(text, "**{}**\n", escape(&warning));
    }
    let is_threaded = analysis.modes.iter().any(|mode| *mode != Mode::Merged);
    if let Some(modes) = words::modes(analysis).filter(|_| is_threaded) {
        let _ = writeln!(text, "{}.\n", escape(&modes));
    }
    for workload in &analysis.workloads {
        let _ = writeln!(text, "### {}\n", escape(&workload.name));
        let facts = words::facts(analysis, workload);
        let _ = writeln!(text, "{}. {}.\n", escape(&facts.title), escape(&words::workload_line(analysis, workload)));
        if workload.configs.is_empty() {
            text.push_str("Nothing measured.\n\n");
            continue;
        }
        let _ = writeln!(text, "{}", tables::overview(analysis, workload).markdown());
        if let Some(check) = trust::of_workload(analysis, workload) {
            let _ = writeln!(text, "{}.\n", escape(&check));
        }
        if let Some(fidelity) = words::fidelity(analysis, workload) {
            let _ = writeln!(text, "Fidelity: {}.\n", escape(&fidelity));
        }
        if let Some(threads) = words::threads_line(workload) {
            let _ = writeln!(text, "{}.\n", escape(&threads));
        }
        for sentence in workload.configs.iter().filter_map(|config| words::sentence(analysis, workload, config)) {
            let _ = writeln!(text, "- {}", escape(&sentence));
        }
        for line in shapes::lines(analysis, workload) {
            let _ = writeln!(text, "- {}", escape(&line));
        }
        text.push('\n');
        text.push_str(&pool_tables(analysis, workload));
    }
    for failure in &analysis.failures {
        let Failure { workload, config, pass, reason, runs } = failure;
        let line = format!("{config} on {workload} ({pass}): {reason}{}", words::times(*runs));
        let _ = writeln!(text, "- **Failed:** {}", escape(&line));
    }
    if let Some(rest) = words::untold(analysis) {
        let _ = writeln!(text, "- **Failed:** {rest}");
    }
    if let Some(control) = words::control(analysis) {
        let _ = writeln!(text, "{}.\n", escape(&control));
    }
    let _ = writeln!(text, "{}", escape(&provenance(analysis)));
    text
}

/// Where the pools' bytes are, and their size classes folded away.
fn pool_tables(analysis: &Analysis, workload: &WorkloadAnalysis) -> String {
    let Some(budget) = pools::budget(analysis, workload) else { return String::new() };
    let mut text = format!("{}:\n\n{}\n", escape(&budget.caption), budget.markdown());
    for table in workload.configs.iter().filter_map(|config| pools::classes(analysis, workload, config)) {
        let (summary, rows) = (escape(&table.caption), table.markdown());
        let _ = write!(text, "<details>\n<summary>{summary}</summary>\n\n{rows}\n</details>\n\n");
    }
    text
}

/// One line on where the numbers come from.
#[must_use]
pub fn provenance(analysis: &Analysis) -> String {
    let environment = &analysis.environment;
    let (host, plan) = (&environment.host, &environment.plan);
    let contestants = environment.configs.iter().filter(|config| !config.floor).map(words::allocator);
    let known = [host.cpu_model.clone(), host.kernel.as_ref().map(|k| format!("Linux {k}")), host.libc.clone()];
    let mut parts = vec![
        words::date(plan.started_unix_ms),
        format!("pyalloc-bench {}", environment.harness.version),
        contestants.collect::<Vec<_>>().join(", "),
    ];
    parts.extend(known.into_iter().flatten());
    parts.extend(host.thp.as_ref().map(|thp| format!("THP {thp}")));
    parts.push(words::plural(host.cpus as usize, "CPU"));
    parts.push(format!("seed {}", plan.seed));
    parts.push(format!(
        "n = {} throughput, {} latency, {} footprint processes per cell",
        plan.blocks, plan.latency_runs, plan.footprint_runs
    ));
    parts.push(terminal::intervals(analysis));
    format!("{}.", parts.join(" · "))
}

/// Makes a text stand for itself in Markdown, in tables too, and keeps it on one line.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' => escaped.extend(['\\', c]),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' => escaped.push(' '),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_for_itself() {
        assert_eq!(escape("a|b <i> *x* & `c`\nd"), "a\\|b &lt;i> \\*x\\* &amp; \\`c\\` d");
    }
}
