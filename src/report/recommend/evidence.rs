//! What a recommendation rests on: its price, shapes, owners, settings, what would flip it, how far it can be trusted.
//!
//! Invariant: what was not recorded is said to be unknown.

use super::{Subject, label, variables};
use crate::analysis::ConfigAnalysis;
use crate::analysis::knobs;
use crate::analysis::recommend::Candidate;
use crate::report::document::{Part, Section};
use crate::report::rollout::shell_quoted;
use crate::report::table::Table;
use crate::report::words::{self, UNKNOWN};
use crate::report::{knobs as knob_words, markdown, shapes};
use crate::run::AllocatorFacts;
use crate::units;

pub(super) fn sections(subject: &Subject<'_>) -> Vec<Section> {
    vec![
        price(subject),
        shape(subject),
        reach(subject),
        settings(subject),
        flips(subject),
        trust(subject),
        effective(subject),
    ]
}

fn config<'a>(subject: &Subject<'a>, candidate: &Candidate) -> &'a ConfigAnalysis {
    &subject.workload.configs[candidate.config]
}

/// What memory is bought with.
fn price(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("Price");
    let headings = [
        "configuration",
        ">page faults",
        ">kernel CPU ms",
        ">share of program's CPU",
        ">worst p99.9",
        ">address space MiB",
    ];
    let mut table = Table::new("Price", &headings);
    for candidate in &subject.found.candidates {
        let own = config(subject, candidate);
        let figure = |key: &str, text: &dyn Fn(f64) -> String| {
            own.metric(key).map_or_else(|| UNKNOWN.to_owned(), |figure| text(figure.value.median))
        };
        table.row([
            candidate.name.clone(),
            figure("faults_minor", &units::count),
            figure("kernel_ns_total", &|ns| units::significant(ns / 1e6)),
            own.program_share.map_or_else(|| UNKNOWN.to_owned(), words::percent),
            words::percentile(candidate.p999),
            figure("mapped_bytes_peak", &units::mib),
        ]);
    }
    section.parts.push(Part::Table(table));
    if subject.workload.program_cpu_ns.is_none() {
        section.line("The share of the program's CPU is unknown: the recording is cut, or has no CPU readings.");
    }
    section
}

fn shape(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("After the work, MiB");
    for candidate in &subject.found.candidates {
        let Some(memory) = config(subject, candidate).memory.as_ref() else { continue };
        let rest = memory.rest_shape.as_ref().map(shapes::rest);
        let cycles = memory.cycles_shape.as_ref().map(|shape| format!("over cycles {}", shapes::cycles(shape)));
        let known: Vec<String> = rest.into_iter().chain(cycles).collect();
        let text = if known.is_empty() { "not read".to_owned() } else { known.join("; ") };
        section.item(candidate.name.clone(), text);
    }
    section
}

fn reach(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("Who owns the bytes, and what a setting reaches at most");
    let (analysis, workload) = (subject.analysis, subject.workload);
    let base = subject.found.baseline.map(|i| &subject.found.candidates[i]);
    let known = base.and_then(|base| config(subject, base).memory.as_ref()?.owners.as_ref());
    let (Some(base), Some(_)) = (base, known) else {
        section.line("Not read in this result. Measure again with this version.");
        return section;
    };
    let own = words::allocator(&analysis.environment.configs[base.facts]);
    for (table, columns) in [(shapes::owners(analysis, workload), 1), (shapes::reach(analysis, workload), 1)] {
        let Some(mut table) = table else { continue };
        table.rows.retain(|row| row[0] == own);
        // Every row is of the same configuration.
        table.columns.drain(..columns);
        table.rows.iter_mut().for_each(|row| drop(row.drain(..columns)));
        section.parts.push(Part::Table(table));
    }
    section.line(format!(
        "Of {}, {}. A bound from above: no setting can free more, and none promises as much.",
        base.name,
        words::shown_runs([config(subject, base)])
    ));
    section
}

fn settings(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("What each setting meets in this trace");
    let facts = words::facts(subject.analysis, subject.workload);
    match knobs::knobs(&facts.metadata, &facts.shape) {
        Some(knobs) => {
            knob_words::explained(&knobs).into_iter().for_each(|(name, text)| section.item(name, text));
        }
        None => section.line(format!(
            "This result is from before that was counted. See: pyalloc-bench inspect {}",
            shell_quoted(&subject.workload.name)
        )),
    }
    section
}

/// Who leads when something else is asked, or was the case.
fn flips(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("What would change the answer");
    let (found, flips) = (subject.found, &subject.found.flips);
    let Some(subject_index) = found.decision.subject() else {
        return section;
    };
    let own = &found.candidates[subject_index];
    let labelled = |name: &String| found.candidates.iter().find(|c| c.name == *name).map_or_else(String::new, label);
    let other = |name: &String| if *name == own.name { "the same".to_owned() } else { labelled(name) };
    for (objective, name) in flips.objectives.iter().filter(|(objective, _)| *objective != found.wish.objective) {
        section.item(format!("lowest {}", objective.words()), other(name));
    }
    let delay = |at: Option<&(u64, String)>| at.map_or_else(String::new, |(ms, _)| units::delay(*ms));
    let text = if flips.delays.iter().all(|(_, name)| *name == own.name) {
        format!("the same at each from {} to {}", delay(flips.delays.first()), delay(flips.delays.last()))
    } else {
        let each = flips.delays.iter().map(|at| format!("{} {}", delay(Some(at)), other(&at.1)));
        each.collect::<Vec<_>>().join(", ")
    };
    if !flips.delays.is_empty() {
        section.item("lowest after so much idle time", text);
    }
    section
        .parts
        .extend(flips.trickle.as_ref().map(|n| Part::Item("lowest after a trickle of calls".into(), other(n))));
    section
        .parts
        .extend(flips.release.as_ref().map(|n| Part::Item("lowest after an explicit release".into(), other(n))));
    if let Some(bytes) = flips.limit_bytes_min {
        section.item(
            "limit",
            format!("below {} MiB {} does not fit any more", (bytes as f64 / units::MIB).ceil(), label(own)),
        );
    }
    if let Some(name) = flips.unconstrained.as_ref().filter(|name| **name != own.name) {
        section.item(
            "without the constraints",
            format!("{} has the lowest {}", labelled(name), found.wish.objective.words()),
        );
    }
    if !flips.what_ifs.is_empty() {
        section.item(
            format!("lower {} than anything that can be deployed here", found.wish.objective.words()),
            format!("{} (what-ifs: no variable brings them about as they were measured)", flips.what_ifs.join(", ")),
        );
    }
    section.line(
        "These are medians, not verdicts. What one result cannot tell, ask another, and compare them with --against:",
    );
    section.parts.push(Part::Code("sh", commands(subject, own)));
    subject.against.iter().for_each(|line| section.line(line.clone()));
    section
}

/// Commands that repeat the comparison under another seed, another way of threads, and with the work repeated.
fn commands(subject: &Subject<'_>, to: &Candidate) -> String {
    let workload = shell_quoted(&subject.workload.name);
    let base = subject.found.baseline.map(|i| &subject.found.candidates[i]).filter(|base| !std::ptr::eq(*base, to));
    let word = |c: &Candidate| match (&c.deploy, c.is_today()) {
        (Some(_), true) => "-c today".to_owned(),
        (Some(_), false) => format!("-c {}", shell_quoted(&variables(c))),
        (None, _) => format!("-c {}", shell_quoted(&c.name)),
    };
    let configs: Vec<String> = base.into_iter().chain([to]).map(word).collect();
    let replay = format!("pyalloc-bench replay {workload} {}", configs.join(" "));
    let facts = words::facts(subject.analysis, subject.workload);
    let mut text = format!("{replay} --footprint-runs 6 --seed 2   # other layouts and orders\n");
    text += &format!("{replay} --cycles 20                # the same work again and again\n");
    if facts.shape.threads > 1 {
        text += &format!("{replay} --threads merged           # one thread\n");
    }
    text += "pyalloc-bench record -o OTHER.trace -- CMD      # another scale: the program with twice the work\n";
    text
}

fn trust(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("How far to trust it");
    let workload = shell_quoted(&subject.workload.name);
    match words::fidelity(subject.analysis, subject.workload) {
        Some(text) => section.line(format!("Fidelity: {text}.")),
        None => section.line(format!(
            "Not checked against the real program: run pyalloc-bench live {workload} -c today -c CONFIG -- CMD, \
            then measure \
             again, and this line says how near the predictions came."
        )),
    }
    words::bimodal_lines(subject.workload).into_iter().for_each(|line| section.line(format!("{line}.")));
    if let Some(twins) = subject.analysis.twins {
        section.line(format!(
            "One configuration under two names in the same result: {} of {} verdicts differ.",
            twins.different, twins.verdicts
        ));
    }
    section.line(
        "A replay has the program's requests and touches, not its computation: caches, the times at which a collector \
         runs, forks and copy-on-write are not in it, nor private allocators that no recorder sees.",
    );
    section.line(format!("Measured: {}", markdown::provenance(subject.analysis)));
    section.line(
        "Ask again after upgrading Python, the C library, the kernel, pyarrow or NumPy, and when the program's \
        work changes.",
    );
    section
}

/// What the allocators of the choice said of themselves, where they differ from those of the baseline.
fn effective(subject: &Subject<'_>) -> Section {
    let mut section = Section::new("In force when it was measured, as the allocators said themselves");
    let Some(index) = subject.found.decision.subject() else { return section };
    let of = |candidate: &Candidate| &subject.analysis.environment.configs[candidate.facts];
    let own = of(&subject.found.candidates[index]);
    let base = subject.found.baseline.map(|i| of(&subject.found.candidates[i]));
    for allocator in &own.allocators {
        let serves: Vec<&str> =
            own.domains.iter().filter(|(_, key)| **key == allocator.key).map(|(domain, _)| domain.as_str()).collect();
        let serves = if serves.is_empty() { "no domain".to_owned() } else { serves.join(", ") };
        let before = base.and_then(|base| base.allocators.iter().find(|other| other.key == allocator.key));
        section
            .item(allocator.key.clone(), format!("{} for {serves}; {}", allocator.version, options(allocator, before)));
    }
    section
}

fn options(allocator: &AllocatorFacts, before: Option<&AllocatorFacts>) -> String {
    let is_other = |name: &String, value: &String| before.is_none_or(|before| before.options.get(name) != Some(value));
    let changed = allocator.options.iter().filter(|(name, value)| is_other(name, value));
    let changed: Vec<String> = changed.map(|(name, value)| format!("{name} {value}")).collect();
    match (before, changed.is_empty()) {
        (Some(_), true) => "options as in what it is compared with".to_owned(),
        (None, true) => "it names no option".to_owned(),
        _ => changed.join(", "),
    }
}
