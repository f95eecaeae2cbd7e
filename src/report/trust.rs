//! The line that says whether a recording can be trusted, and the warning where it cannot.
//!
//! Invariant: where nothing was compared the line says why, and what to do.

use super::words;
use crate::analysis::trust::{Check, Doubt, Held};
use crate::analysis::{Analysis, WorkloadAnalysis, fidelity};
use crate::run::{Fidelity, HostFacts, READING};
use crate::units;

/// `as recorded: 41.2 MiB replayed, 41.0 measured`, and what limits that; without a full stop.
#[must_use]
pub fn line(check: &Check, differs: &[String]) -> String {
    let trust = match check {
        Check::Compared(trust) => trust,
        Check::NotMeasured => {
            return "as recorded: not measured; record the program again with this version for a check".to_owned();
        }
        Check::NotReplayed => return "as recorded: not replayed; add -c today for a check".to_owned(),
    };
    let peak = &trust.peak;
    let held =
        format!("as recorded: {} MiB replayed, {} measured", units::mib(peak.replayed), units::mib(peak.measured));
    let readings = words::plural(trust.marks, "reading");
    let bar = format!("{} or {} MiB", words::percent(trust.bar_share), units::mib(fidelity::WIDEN_BYTES));
    let agrees = match trust.doubt {
        None => format!("{readings} agree within {bar}"),
        Some(_) => format!("{readings}, NOT within {bar}"),
    };
    let differs = differs.iter().map(|what| format!(" · {what}")).collect::<String>();
    format!("{held} at most · {agrees}{differs}")
}

/// What a disagreement beyond the bar means; without `WARNING: `.
#[must_use]
pub fn doubt(check: &Check) -> Option<String> {
    let (Held { mark, replayed, measured, .. }, doubt) = check.trust()?.doubt.as_ref()?;
    let at = match mark.as_str() {
        READING => "at a maximum".to_owned(),
        name => format!("at `{name}`"),
    };
    let (kind, remedy) = match doubt {
        Doubt::Unknown => (
            "the process held memory that no recorded call asked for: a library's own allocator or mapping, or blocks \
             from before the recording began",
            "Every figure of the replay may be as much too low",
        ),
        Doubt::Untouched => (
            "the program did not write to all that it requested, and a replay writes to it",
            "Every figure of the replay may be as much too high",
        ),
        Doubt::GivenBack => (
            "the process gave memory back that the replay kept: it trims by itself, or its allocator purges by time",
            "What follows that mark may be too high",
        ),
        Doubt::Kept => (
            "the process kept memory that the replay gave back: its allocator purges by time, or memory of a library's \
             own is left",
            "What follows that mark may be too low",
        ),
    };
    Some(format!(
        "as recorded, the replay holds {} MiB {at}, and the recorded process held {}: {kind}. {remedy}; `live` holds \
         figures against the real program.",
        units::mib(*replayed),
        units::mib(*measured)
    ))
}

/// How this host differs from the one that recorded, as far as memory depends on it.
#[must_use]
pub fn differences(recorded: &trace::Metadata, host: &HostFacts) -> Vec<String> {
    let differs = |what: &str, then: &Option<String>, now: &Option<String>| match (then, now) {
        (Some(then), Some(now)) if then != now => {
            Some(format!("recorded with {what}{then}, replayed with {what}{now}"))
        }
        _ => None,
    };
    [differs("", &recorded.libc, &host.libc), differs("huge pages ", &recorded.thp, &host.thp)]
        .into_iter()
        .flatten()
        .collect()
}

/// The line about one workload of a result; `None` in results from before there was one.
#[must_use]
pub fn of_workload(analysis: &Analysis, workload: &WorkloadAnalysis) -> Option<String> {
    let metadata = &analysis.environment.workloads[workload.facts].metadata;
    let differs = differences(metadata, &analysis.environment.host);
    workload.check.as_ref().map(|check| line(check, &differs))
}

/// The line about what `live` or a prediction found, and a warning; each ends with a line break.
#[must_use]
pub fn of_fidelity(found: &Fidelity) -> String {
    let check = fidelity::check(found);
    let mut text = format!("{}\n", line(&check, &[]));
    if let Some(doubt) = doubt(&check) {
        text.insert_str(0, &format!("WARNING: {doubt}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::analysis::trust::Trust;

    const MIB: f64 = 1_048_576.0;

    fn held(mark: &str, replayed: f64, measured: f64) -> Held {
        Held { mark: mark.to_owned(), replayed: replayed * MIB, measured: measured * MIB, requested: 0.0 }
    }

    #[test]
    fn the_line_says_what_was_compared_or_what_to_do() {
        let peak = held(READING, 41.2, 41.0);
        let check = Check::Compared(Trust { peak, doubt: None, marks: 12, bar_share: 0.03 });
        let said = line(&check, &[]);
        assert!(said.starts_with("as recorded: 41.2 MiB replayed, 41.0 measured"), "{said}");
        assert_eq!(doubt(&check), None);
        assert!(line(&Check::NotMeasured, &[]).contains("record the program again"));
        assert!(line(&Check::NotReplayed, &[]).contains("add -c today"));
    }

    #[test]
    fn a_doubt_names_its_kind_and_where() {
        let kinds = [Doubt::Unknown, Doubt::Untouched, Doubt::GivenBack, Doubt::Kept];
        let said = kinds.map(|kind| {
            let worst = held("drained", 60.0, 20.0);
            let trust = Trust { peak: worst.clone(), doubt: Some((worst, kind)), marks: 3, bar_share: 0.03 };
            let check = Check::Compared(trust);
            assert!(line(&check, &[]).contains("NOT within"));
            doubt(&check).unwrap()
        });
        assert!(
            said.iter().all(|text| text.contains("60.0 MiB at `drained`") && text.contains("held 20.0")),
            "{said:?}"
        );
        for (text, word) in said.iter().zip(["no recorded call", "did not write", "gave memory back", "kept memory"]) {
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn another_host_is_said() {
        let recorded = trace::Metadata { libc: Some("glibc 2.36".to_owned()), ..Default::default() };
        let host = HostFacts { libc: Some("glibc 2.43".to_owned()), ..Default::default() };
        assert_eq!(differences(&recorded, &host), ["recorded with glibc 2.36, replayed with glibc 2.43"]);
        assert!(differences(&recorded, &HostFacts::default()).is_empty());
    }
}
