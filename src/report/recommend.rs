//! A recommendation in words: the verdict with its scope first, then what it rests on, then how to put it into force.
//!
//! Invariant: a difference is called better or worse only where the analysis does; every other number stands with what
//! is not known of it.

mod evidence;
mod sentence;

pub use sentence::{scope, verdict};

use super::document::{Part, Section};
use super::rollout::{self, Rollout};
use super::table::Table;
use super::words::{self, UNKNOWN};
use crate::analysis::recommend::{Candidate, Decision, Exclusion, Fit, Objective, Recommendation};
use crate::analysis::{Analysis, Figure, Percentile, WorkloadAnalysis};
use crate::metric::Unit;
use crate::units;

/// Runs a script with the environment of another process.
const OF_A_PROCESS: &str = "xargs -0 -a /proc/PID/environ sh -c 'env -i \"$@\" python3 verify.py' sh\n";

/// What everything about one recommendation needs.
pub struct Subject<'a> {
    /// The result.
    pub analysis: &'a Analysis,
    /// One of its workloads.
    pub workload: &'a WorkloadAnalysis,
    /// What is recommended for it.
    pub found: &'a Recommendation,
    /// What other results say of the same workload, sentences.
    pub against: &'a [String],
}

/// The whole account.
#[must_use]
pub fn sections(subject: &Subject<'_>) -> Vec<Section> {
    let mut first = Section::new(format!("{}: what to deploy", subject.workload.name));
    verdict(subject).into_iter().for_each(|line| first.line(line));
    let mut sections = vec![first, constraints(subject), choices(subject)];
    sections.extend(evidence::sections(subject));
    sections.push(put_into_force(subject));
    sections
}

/// How the subject of the decision is put into force; `None` where nothing is to be set.
#[must_use]
pub fn rollout_of(found: &Recommendation) -> Option<Rollout> {
    let subject = found.decision.subject()?;
    rollout::rollout(found.candidates[subject].deploy.as_deref()?)
}

impl Objective {
    /// As a column or a sentence names it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Peak => "resident at peak",
            Self::Rest => "resident at rest",
            Self::Speed => "time per call",
            Self::Latency => "worst p99.9",
        }
    }

    /// What its values count.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Peak | Self::Rest => Unit::Bytes,
            Self::Speed | Self::Latency => Unit::Nanoseconds,
        }
    }
}

/// `PYTHONMALLOC=malloc MALLOC_ARENA_MAX=2`, `no variable`, or that there is none.
fn variables(candidate: &Candidate) -> String {
    match &candidate.deploy {
        None => "what-if: no variable does this".to_owned(),
        Some(pairs) if pairs.is_empty() => "no variable".to_owned(),
        Some(pairs) => pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" "),
    }
}

/// The shortest name that says what to set.
fn label(candidate: &Candidate) -> String {
    match (candidate.is_today(), candidate.is_stand_in) {
        (true, true) => format!("`{}` (what runs today)", candidate.name),
        (false, true) => format!("`{}`", variables(candidate)),
        _ => format!("`{}`", candidate.name),
    }
}

fn with_unit(objective: Objective, value: f64) -> String {
    match objective.unit() {
        Unit::Nanoseconds => units::nanoseconds(value),
        unit => format!("{} {}", words::value(unit, value), words::unit(unit)),
    }
}

fn process(candidate: &Candidate) -> String {
    candidate.process_bytes.map_or_else(|| UNKNOWN.to_owned(), |process| words::estimate(Unit::Bytes, &process))
}

/// Which configurations are out, and by which figure.
fn constraints(subject: &Subject<'_>) -> Section {
    let found = subject.found;
    let mut section = Section::new("What fits");
    let is_constrained = found.wish.limit_bytes.is_some() || found.wish.p999_ns_max.is_some();
    let excluded = found.candidates.iter().any(|candidate| !candidate.exclusions.is_empty());
    if !is_constrained && !excluded {
        return section;
    }
    if let Some(limit) = found.wish.limit_bytes {
        section.line(match found.no_heap_bytes {
            Some(bytes) => format!(
                "The limit of {} MiB is held against the predicted peak of the whole process: the largest heap \
                of the replay \
                 before the interpreter exits, plus {} MiB that the recorded process held beside its heap (file \
                 pages, relocations, \
                 stacks, libraries' own maps). The upper end of the interval has to fit. Predictions may be {} \
                 off; less \
                 room than that is called tight. Other processes of the same container come on top.",
                units::mib(limit as f64),
                units::mib(bytes as f64),
                words::percent(found.allowance)
            ),
            None => "The recording does not say how large the process is beside its heap, so nothing here can \
            be held against \
                     a limit. Record again with this version's `record`."
                .to_owned(),
        });
    }
    let mut table =
        Table::new("What fits", &["configuration", ">process peak MiB", "fits?", ">worst p99.9", "out because"]);
    for candidate in &found.candidates {
        let reasons: Vec<String> = candidate.exclusions.iter().map(|e| reason(*e, candidate, found)).collect();
        let fits = match candidate.fit {
            None => UNKNOWN,
            Some(Fit::Yes) => "yes",
            Some(Fit::Tight) => "yes, tight",
            Some(Fit::No) => "NO",
        };
        let out = if reasons.is_empty() { String::new() } else { reasons.join("; ") };
        let p999 = words::percentile(candidate.p999);
        table.row([candidate.name.clone(), process(candidate), fits.to_owned(), p999, out]);
    }
    section.parts.push(Part::Table(table));
    section
}

/// Why a configuration is out.
fn reason(exclusion: Exclusion, candidate: &Candidate, found: &Recommendation) -> String {
    let allowed = found.wish.p999_ns_max.map_or_else(String::new, units::nanoseconds);
    match exclusion {
        Exclusion::TooLarge => {
            let high = candidate.process_bytes.map_or(0.0, |process| process.high);
            format!("peaks at {} MiB; the kernel would kill it (exit code 137)", units::mib(high))
        }
        Exclusion::SizeUnknown => "its size as a process is unknown".to_owned(),
        Exclusion::TooSlow(ns) => format!("worst p99.9 {} is above {allowed}", units::nanoseconds(ns)),
        Exclusion::LatencyUnknown => match candidate.p999 {
            Some(Percentile::Below(ns)) => {
                format!("the clock tells nothing below {}, and {allowed} is asked for", units::nanoseconds(ns))
            }
            _ => "its slow calls were not timed".to_owned(),
        },
        Exclusion::Failed(runs) => format!("{} of it failed", words::plural(runs as usize, "run")),
        Exclusion::OutOfMemory => "it could not serve every allocation".to_owned(),
        Exclusion::NotMeasured => format!("{} was not measured", found.wish.objective.words()),
        Exclusion::Diagnostic => "debug hooks look for mistakes; no service runs with them".to_owned(),
    }
}

/// Every configuration, what brings it about, and where it stands.
fn choices(subject: &Subject<'_>) -> Section {
    let found = subject.found;
    let mut section = Section::new("Choices");
    let against = found.baseline.map_or("the first", |i| found.candidates[i].name.as_str());
    let verdict = format!("{} vs {}", found.wish.objective.words(), words::cut(against, 18));
    let headings =
        ["configuration", ">peak MiB", ">rest MiB", ">ns/call", ">process peak MiB", "front", verdict.as_str()];
    let mut table = Table::new("Choices", &headings);
    for (index, candidate) in found.candidates.iter().enumerate() {
        let config = &subject.workload.configs[candidate.config];
        let figure = |key: &str, unit| {
            config.metric(key).map_or_else(|| UNKNOWN.to_owned(), |figure| words::estimate(unit, &figure.value))
        };
        table.row([
            candidate.name.clone(),
            figure("rss_bytes_peak", Unit::Bytes),
            figure("rss_bytes_rest", Unit::Bytes),
            figure("ns_per_call", Unit::Nanoseconds),
            process(candidate),
            if found.front.contains(&index) { "yes" } else { "" }.to_owned(),
            standing(found, index),
        ]);
    }
    section.parts.push(Part::Table(table));
    section.line(
        "front: no other configuration is at least as low in peak, rest and time per call and lower in one of them, by \
         medians. [low high]: interval of 95 %; (low high): range; neither: one run.",
    );
    for candidate in &found.candidates {
        let set = variables(candidate);
        if candidate.is_stand_in {
            section.item(candidate.name.clone(), format!("on this trace the same as {set}"));
        } else if candidate.name != set {
            section.item(candidate.name.clone(), set);
        }
    }
    section
}

/// The verdict of a row.
fn standing(found: &Recommendation, index: usize) -> String {
    if found.baseline == Some(index) {
        return "1.00".to_owned();
    }
    let objective = found.wish.objective;
    let candidate = &found.candidates[index];
    let at = Objective::ALL.iter().position(|own| *own == objective).unwrap_or(0);
    let own = found.baseline.and_then(|i| found.candidates[i].value(objective)).zip(candidate.value(objective));
    match (candidate.versus[at], own) {
        (Some(versus), _) if versus.ratio.n < 2 => {
            format!("{} {}", words::ratio(versus.ratio.median), words::verdict(versus.verdict))
        }
        (Some(versus), _) => words::versus(Some(&Figure { value: versus.ratio, versus: Some(versus) }), false),
        (None, Some((base, value))) if base > 0.0 => format!("{} no verdict", words::ratio(value / base)),
        _ => UNKNOWN.to_owned(),
    }
}

fn put_into_force(subject: &Subject<'_>) -> Section {
    let found = subject.found;
    let mut section = Section::new("Put it into force, and take it back");
    let Some(rollout) = rollout_of(found) else {
        if matches!(found.decision, Decision::Keep { .. }) {
            section.line("Nothing is to be set.");
        }
        return section;
    };
    if matches!(found.decision, Decision::Inconclusive { .. }) {
        section.line("Only once more runs confirm it, or as a trial:");
    }
    for place in &rollout.places {
        section.line(format!("{}:", place.name));
        let language = if place.name == "Dockerfile" { "dockerfile" } else { "sh" };
        section.parts.push(Part::Code(language, place.set.clone()));
        section.line(format!("{}, undo:", place.name));
        section.parts.push(Part::Code(language, place.undo.clone()));
    }
    section.line(
        "Verify that it took effect: run this where the service runs, with its own Python, as in docker exec -i \
        CONTAINER \
         python3 - <<... or kubectl exec -i POD -- python3 - <<... It ends with exit code 1 and a sentence if \
         it did not.",
    );
    section.parts.push(Part::Code("sh", rollout.verify.clone()));
    section.line(
        "With the environment of a process that runs already (a systemd unit, or an entry point that exports \
        variables), \
         the lines between the two words VERIFY saved as verify.py:",
    );
    section.parts.push(Part::Code("sh", OF_A_PROCESS.to_owned()));
    rollout.notes.iter().for_each(|note| section.item("note", note.clone()));
    if let Some(watch) = sentence::watch(subject) {
        section.item("watch", watch);
    }
    section
}
