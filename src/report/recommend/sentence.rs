//! The verdict sentences.
//!
//! Invariant: the first sentence names the trace and the host that it is about, and what it is compared with.

use super::{Subject, label, variables, with_unit};
use crate::analysis::recommend::{Candidate, Decision, Objective, Recommendation};
use crate::analysis::{Comparison, Verdict};
use crate::report::rollout::shell_quoted;
use crate::report::{trust, words};
use crate::units;

/// Hexadecimal digits of a checksum that tell traces apart to the eye.
const DIGITS: usize = 12;
/// Footprint runs from which on memory has verdicts.
const RUNS_FOR_VERDICTS: usize = crate::analysis::stats::VALUES_FOR_INTERVAL;

/// `this trace (arrow-service, sha256 a2cac5600ece), on this host (2 CPUs, Linux 6.18.44, glibc 2.36)`.
#[must_use]
pub fn scope(subject: &Subject<'_>) -> String {
    let host = &subject.analysis.environment.host;
    let hash: String = subject.found.trace_sha256.chars().take(DIGITS).collect();
    let known = [host.kernel.as_ref().map(|kernel| format!("Linux {kernel}")), host.libc.clone()];
    let mut parts = vec![words::plural(host.cpus as usize, "CPU")];
    parts.extend(known.into_iter().flatten());
    let quick = if subject.analysis.environment.plan.quick { "a small cut of " } else { "" };
    format!("{quick}this trace ({}, sha256 {hash}), on this host ({})", subject.workload.name, parts.join(", "))
}

/// The name, and what it means where that is not the same.
fn named(candidate: &Candidate) -> String {
    let set = variables(candidate);
    match (candidate.is_today(), candidate.is_stand_in) {
        (true, true) => format!("`{}` (on this trace, what runs without any variable)", candidate.name),
        (true, false) => format!("`{}` (no variable)", candidate.name),
        (false, true) => format!("`{set}` (measured as `{}`, which on this trace is the same)", candidate.name),
        (false, false) if candidate.name == set => format!("`{set}`"),
        (false, false) => format!("`{}` ({set})", candidate.name),
    }
}

/// The verdict in a few sentences; the first has the scope.
#[must_use]
pub fn verdict(subject: &Subject<'_>) -> Vec<String> {
    let found = subject.found;
    let objective = found.wish.objective;
    let of = |index: usize| &found.candidates[index];
    let scope = scope(subject);
    let mut lines = match &found.decision {
        Decision::Switch { to, peers } => {
            let mut lines = vec![format!(
                "For {scope}, {} is better than {}: {}.",
                named(of(*to)),
                baseline(found),
                difference(found, of(*to), objective)
            )];
            lines.push(others(of(*to), objective));
            if !peers.is_empty() {
                let names: Vec<String> = peers.iter().map(|i| label(of(*i))).collect();
                lines.push(format!("These runs do not tell it from {}, better as well.", names.join(", ")));
            }
            lines
        }
        Decision::Keep { today } => keep(subject, &scope, of(*today)),
        Decision::OnlyFit { to } => only_fit(found, &scope, of(*to)),
        Decision::Inconclusive { leader } => {
            let leader = of(*leader);
            vec![
                format!(
                    "For {scope}: inconclusive. By medians alone {} is lowest: {}. {}",
                    named(leader),
                    difference(found, leader, objective),
                    why_undecided(subject, leader)
                ),
                others(leader, objective),
            ]
        }
        Decision::NothingFits => nothing_fits(found, &scope),
        Decision::NothingDeployable => vec![format!(
            "For {scope}: nothing that was measured can be deployed by variables. Measure some that can: \
            pyalloc-bench replay \
             {} -c today -c nopool -c arrow-system -c arenas-2 -c mmap-128k --footprint-runs {RUNS_FOR_VERDICTS}",
            shell_quoted(&subject.workload.name)
        )],
    };
    lines.retain(|line| !line.is_empty());
    if let Some(doubt) = subject.workload.check.as_ref().and_then(trust::doubt) {
        lines.insert(0, format!("WARNING: {doubt}"));
    }
    lines.extend(trust::of_workload(subject.analysis, subject.workload).map(|line| format!("{line}.")));
    let unverified = found.decision.subject().map(|i| of(i).unverified.join(" ")).filter(|text| !text.is_empty());
    lines.extend(unverified.map(|text| format!("No allocator could confirm {text}: it is taken on trust.")));
    lines
}

fn baseline(found: &Recommendation) -> String {
    found.baseline.map_or_else(|| "the first configuration".to_owned(), |i| named(&found.candidates[i]))
}

/// `resident at rest 59 % lower (55 % to 62 %), better: 64.0 [60.0 66.0] MiB against 160 [155 162] MiB, n = 6`.
fn difference(found: &Recommendation, candidate: &Candidate, objective: Objective) -> String {
    let base = found.baseline.map(|i| &found.candidates[i]);
    let versus = versus(candidate, objective);
    let values = base.and_then(|base| base.value(objective)).zip(candidate.value(objective));
    let Some((base, value)) = values else {
        let own = candidate.value(objective).map_or_else(|| "unknown".to_owned(), |v| with_unit(objective, v));
        return format!("{} {own}", objective.words());
    };
    let figures = format!("{} against {}", with_unit(objective, value), with_unit(objective, base));
    match versus {
        Some(comparison) => {
            format!("{} {} ({figures}, n = {})", objective.words(), words::change(&comparison), comparison.ratio.n)
        }
        None => format!("{} {figures}, no verdict", objective.words()),
    }
}

fn versus(candidate: &Candidate, objective: Objective) -> Option<Comparison> {
    candidate.versus[Objective::ALL.iter().position(|own| *own == objective)?]
}

/// What the same configuration does to the other objectives.
fn others(candidate: &Candidate, objective: Objective) -> String {
    let compared = Objective::ALL.into_iter().filter(|other| *other != objective && *other != Objective::Latency);
    let known =
        compared.filter_map(|other| Some(format!("{} {}", other.words(), words::change(&versus(candidate, other)?))));
    let known: Vec<String> = known.collect();
    let price = Objective::ALL.into_iter().filter(|other| *other != objective).filter_map(|o| versus(candidate, o));
    let is_dearer = price.into_iter().any(|versus| versus.verdict == Verdict::Worse);
    match (known.is_empty(), is_dearer) {
        (true, _) => String::new(),
        (false, true) => format!("It is bought with something: {}.", known.join("; ")),
        (false, false) => format!("Beside that: {}.", known.join("; ")),
    }
}

fn keep(subject: &Subject<'_>, scope: &str, today: &Candidate) -> Vec<String> {
    let found = subject.found;
    let objective = found.wish.objective;
    let rivals = found.candidates.iter().filter(|c| c.deploy.is_some() && !std::ptr::eq(*c, today));
    let rivals: Vec<&Candidate> = rivals.collect();
    if rivals.is_empty() {
        return vec![format!(
            "For {scope}: {} is the only configuration here that can be deployed, so there is nothing to \
            choose. Measure \
             others: pyalloc-bench replay {} -c today -c nopool -c arrow-system -c arenas-2 -c mmap-128k \
             --footprint-runs {}",
            named(today),
            shell_quoted(&subject.workload.name),
            RUNS_FOR_VERDICTS
        )];
    }
    let tells = |c: &Candidate| versus(c, objective).is_some_and(|v| v.verdict != Verdict::Inconclusive);
    let all_told = rivals.iter().filter(|c| c.is_eligible()).all(|c| tells(c));
    let why = if all_told {
        "no configuration that variables bring about is better"
    } else {
        "no configuration that variables bring about even has a lower median beyond what counts as a difference \
        (a ranking, \
         where runs are too few for a verdict)"
    };
    let each: Vec<String> =
        rivals.iter().map(|c| format!("{} {}", label(c), difference(found, c, objective))).collect();
    vec![format!("For {scope}: keep {}; {why}.", named(today)), format!("{}.", each.join("; "))]
}

fn only_fit(found: &Recommendation, scope: &str, to: &Candidate) -> Vec<String> {
    let objective = found.wish.objective;
    let today = found.candidates.iter().find(|candidate| candidate.is_today());
    let why = match today {
        None => "What runs without any variable was not measured here; add -c today to compare with it.".to_owned(),
        Some(today) => {
            let reasons: Vec<String> =
                today.exclusions.iter().map(|exclusion| super::reason(*exclusion, today, found)).collect();
            format!("{} is out: {}.", named(today), reasons.join("; "))
        }
    };
    let value = to.value(objective).map_or_else(|| "unknown".to_owned(), |value| with_unit(objective, value));
    let mut lines = vec![format!(
        "For {scope}: of what can be deployed and meets the constraints, {} has the lowest median of {}: {value}{}.",
        named(to),
        objective.words(),
        to.process_bytes
            .map_or_else(String::new, |p| format!(", with a predicted process peak of {} MiB", units::mib(p.median)))
    )];
    lines.push(why);
    if today.is_some() {
        lines.push(format!("Against {}: {}.", baseline(found), difference(found, to, objective)));
    }
    let runs = to.process_bytes.map_or(0, |process| process.n);
    if found.wish.limit_bytes.is_some() && (runs as usize) < RUNS_FOR_VERDICTS {
        lines.push(format!(
            "That it fits rests on {}, so without an interval: measure with --footprint-runs \
            {RUNS_FOR_VERDICTS} before you rely \
             on it.",
            words::plural(runs as usize, "footprint run")
        ));
    }
    lines
}

fn nothing_fits(found: &Recommendation, scope: &str) -> Vec<String> {
    let mut lines = vec![format!(
        "For {scope}: nothing that was measured and can be deployed meets the constraints. See below why."
    )];
    let deployable = || found.candidates.iter().filter(|candidate| candidate.deploy.is_some());
    let known = deployable().filter_map(|c| Some((c, c.process_bytes?.high)));
    if let Some((nearest, high)) = known.min_by(|a, b| a.1.total_cmp(&b.1)).filter(|_| found.wish.limit_bytes.is_some())
    {
        lines.push(format!(
            "Nearest to the limit is {}: fits {} MiB and more.",
            named(nearest),
            (high / units::MIB).ceil()
        ));
    }
    let what_ifs: Vec<&str> = found
        .candidates
        .iter()
        .filter(|c| c.deploy.is_none() && c.exclusions.is_empty())
        .map(|c| c.name.as_str())
        .collect();
    if !what_ifs.is_empty() {
        lines.push(format!(
            "What-ifs that would: {}. Look for variables that come near, such as LD_PRELOAD of such an \
            allocator, and measure them.",
            what_ifs.join(", ")
        ));
    }
    lines
}

fn why_undecided(subject: &Subject<'_>, leader: &Candidate) -> String {
    let found = subject.found;
    if found.wish.objective == Objective::Latency {
        return "Percentiles are pooled over runs and have no interval here, so they are ranked and never judged."
            .to_owned();
    }
    let n = versus(leader, found.wish.objective).map_or(0, |versus| versus.ratio.n);
    let name = |c: &Candidate| match c.is_today() {
        true => "today".to_owned(),
        false => shell_quoted(&variables(c)),
    };
    let first = found.baseline.map_or_else(|| "today".to_owned(), |i| name(&found.candidates[i]));
    let more = match found.wish.objective {
        Objective::Speed => "--blocks 12",
        _ => "--footprint-runs 6",
    };
    format!(
        "{} of each; a verdict needs {RUNS_FOR_VERDICTS}. Measure: pyalloc-bench replay {} -c {first} -c {} {more}",
        if n == 1 { "One run".to_owned() } else { words::plural(n as usize, "pair") },
        shell_quoted(&subject.workload.name),
        name(leader)
    )
}

/// What to look at after a roll-out, and when to take it back.
pub(super) fn watch(subject: &Subject<'_>) -> Option<String> {
    let found = subject.found;
    let to = &found.candidates[found.decision.subject()?];
    let base = &found.candidates[found.baseline?];
    let (from, peak) = (base.process_bytes?, to.process_bytes?);
    let rest = |c: &Candidate| c.value(Objective::Rest);
    let beside = found.no_heap_bytes? as f64;
    let (rest_from, rest_to) = (rest(base)? + beside, rest(to)? + beside);
    Some(format!(
        "the resident memory of the process. Predicted: from {} to {} MiB at its peak, from {} to {} MiB {} \
        after the work. Take it \
         back when the first service that has it does not go there, or answers more slowly.",
        units::mib(from.median),
        units::mib(peak.median),
        units::mib(rest_from),
        units::mib(rest_to),
        subject
            .workload
            .configs
            .iter()
            .find_map(|config| config.memory.as_ref())
            .map_or_else(|| "at rest".to_owned(), |memory| words::idle(memory.rest_after_ms))
    ))
}
