//! Whether two results may be held against each other: what differs between their environments, and what of that is
//! the change under test.
//!
//! Invariant: every difference is in exactly one of three lists. What a configuration *is* (words, allocators,
//! versions, options) is under test; what makes the numbers of two hosts or two recordings incomparable is unlike; the
//! rest is a remark. Nothing but facts that both results know is compared.

use crate::run::{ConfigFacts, Environment, HostFacts, Outcome, Run, WorkloadFacts};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A fact that two results state differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which, by its place in `environment.json`, or of which configuration.
    pub what: String,
    /// In the older result.
    pub old: String,
    /// In the newer result.
    pub new: String,
}

/// What differs between two results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Likeness {
    /// What makes them incomparable.
    pub unlike: Vec<Difference>,
    /// Changes of configurations that have the same name in both.
    pub under_test: Vec<Difference>,
    /// What else is different, and does not forbid the comparison.
    pub remarks: Vec<Difference>,
}

type HostFact = (&'static str, fn(&HostFacts) -> Option<String>);

/// Facts of the host that must agree.
const HOST_ALIKE: &[HostFact] = &[
    ("host.cpu_model", |host| host.cpu_model.clone()),
    ("host.cpus", |host| Some(host.cpus.to_string())),
    ("host.kernel", |host| host.kernel.as_deref().map(line)),
    ("host.libc", |host| host.libc.clone()),
    ("host.page_bytes", |host| Some(host.page_bytes.to_string())),
    ("host.thp", |host| host.thp.clone()),
    ("host.overcommit", |host| host.overcommit.clone()),
    ("host.aslr", |host| host.aslr.clone()),
    ("host.governor", |host| host.governor.clone()),
];

/// Facts of the host that are told.
const HOST_TOLD: &[HostFact] = &[
    ("host.kernel", |host| host.kernel.clone()),
    ("host.memory_bytes", |host| host.memory_bytes.map(|bytes| bytes.to_string())),
    ("host.clock_source", |host| host.clock_source.clone()),
    ("host.cgroup_limit_bytes", |host| host.cgroup_limit_bytes.map(|bytes| bytes.to_string())),
];

/// The line of a kernel release: `6.18` of `6.18.44-fc`. Updates within a line are told and not refused.
fn line(release: &str) -> String {
    release.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// Compares two results.
#[must_use]
pub fn likeness(old: (&Environment, &[Run]), new: (&Environment, &[Run])) -> Likeness {
    let ((old, old_runs), (new, new_runs)) = (old, new);
    let mut found = Likeness::default();
    for (what, of) in HOST_ALIKE {
        found.unlike.extend(differ(what, of(&old.host), of(&new.host)));
    }
    let text = |value: &str| Some(value.to_owned());
    found.unlike.extend(differ("harness.profile", text(&old.harness.profile), text(&new.harness.profile)));
    let idle = |e: &Environment| Some(e.plan.idle_ms.iter().map(u64::to_string).collect::<Vec<_>>().join(","));
    found.unlike.extend(differ("plan.idle_ms", idle(old), idle(new)));
    for (old, new) in common(&old.workloads, &new.workloads, |workload| &workload.name) {
        found.unlike.extend(recordings(old, new));
        let modes = |runs: &[Run]| modes(runs, &old.name);
        found.unlike.extend(differ(&format!("mode of {}", old.name), modes(old_runs), modes(new_runs)));
    }
    for (what, of) in HOST_TOLD {
        let is_unlike = found.unlike.iter().any(|unlike| unlike.what == *what);
        found.remarks.extend(differ(what, of(&old.host), of(&new.host)).filter(|_| !is_unlike));
    }
    found.remarks.extend(differ("harness.version", text(&old.harness.version), text(&new.harness.version)));
    found.remarks.extend(differ("harness.revision", old.harness.revision.clone(), new.harness.revision.clone()));
    found.remarks.extend(differ("harness.rustc", old.harness.rustc.clone(), new.harness.rustc.clone()));
    let contestants = common(&old.configs, &new.configs, |config| &config.name).filter(|(old, _)| !old.floor);
    for (old, new) in contestants {
        found.under_test.extend(configuration(old, new));
    }
    found
}

/// `None` where they agree, or one of the results does not know.
fn differ(what: &str, old: Option<String>, new: Option<String>) -> Option<Difference> {
    let (old, new) = (old?, new?);
    (old != new).then(|| Difference { what: what.to_owned(), old, new })
}

fn common<'a, T>(old: &'a [T], new: &'a [T], name: impl Fn(&T) -> &String) -> impl Iterator<Item = (&'a T, &'a T)> {
    old.iter().filter_map(move |one| Some((one, new.iter().find(|other| name(other) == name(one))?)))
}

/// What is replayed under one name.
fn recordings(old: &WorkloadFacts, new: &WorkloadFacts) -> Vec<Difference> {
    let of = |what: &str| format!("workloads.{}.{what}", old.name);
    let cycles = |facts: &WorkloadFacts| {
        let repeated = facts.image.cycles.as_ref();
        Some(repeated.map_or("none".to_owned(), |r| format!("{} x {} to {}", r.times, r.from, r.to)))
    };
    let sha256 = |facts: &WorkloadFacts| Some(facts.sha256.clone());
    let differences =
        [differ(&of("sha256"), sha256(old), sha256(new)), differ(&of("image.cycles"), cycles(old), cycles(new))];
    differences.into_iter().flatten().collect()
}

/// How a workload's threads were replayed; `None` where nothing measured.
fn modes(runs: &[Run], workload: &str) -> Option<String> {
    let measured = runs.iter().filter(|run| run.workload == workload && matches!(run.outcome, Outcome::Ok(_)));
    let modes: BTreeSet<String> = measured.map(|run| format!("{:?}", run.mode).to_lowercase()).collect();
    (!modes.is_empty()).then(|| modes.into_iter().collect::<Vec<_>>().join(" and "))
}

/// What became of a configuration.
fn configuration(old: &ConfigFacts, new: &ConfigFacts) -> Vec<Difference> {
    let mut found = settings(&old.name, &words(old), &words(new));
    found.extend(settings(&old.name, &old.domains, &new.domains));
    for (old_facts, new_facts) in common(&old.allocators, &new.allocators, |facts| &facts.key) {
        let of = format!("{}: {}", old.name, old_facts.key);
        let version = |version: &str| Some(version.to_owned());
        found.extend(differ(&format!("{of} version"), version(&old_facts.version), version(&new_facts.version)));
        // An allocator that stands on another reports the other's options once more.
        let options = settings(&of, &old_facts.options, &new_facts.options);
        let end = |what: &str| what.rsplit(": ").next().unwrap_or_default().to_owned();
        let is_new = |option: &Difference| {
            let same = |known: &Difference| {
                end(&known.what) == end(&option.what) && known.old == option.old && known.new == option.new
            };
            !found.iter().any(same)
        };
        let options: Vec<Difference> = options.into_iter().filter(is_new).collect();
        found.extend(options);
    }
    found
}

/// The words of a configuration: variables with their values, anything else as it stands.
fn words(config: &ConfigFacts) -> BTreeMap<String, String> {
    let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    config.words.split_whitespace().map(|word| pair(word).unwrap_or((word.to_owned(), "set".to_owned()))).collect()
}

/// Entries that differ, those of only one side too.
fn settings(of: &str, old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let value = |side: &BTreeMap<String, String>, name: &str| {
        Some(
            side.get(name)
                .map_or("not set".to_owned(), |value| if value.is_empty() { "empty".into() } else { value.clone() }),
        )
    };
    names.into_iter().filter_map(|name| differ(&format!("{of}: {name}"), value(old, name), value(new, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::fixture::{Invention, environment, runs};

    fn against(change: impl Fn(&mut Environment, &mut Vec<Run>)) -> Likeness {
        let what = Invention::default();
        let (old, old_runs) = (environment(&what), runs(&what));
        let (mut new, mut new_runs) = (old.clone(), old_runs.clone());
        change(&mut new, &mut new_runs);
        likeness((&old, &old_runs), (&new, &new_runs))
    }

    fn names(differences: &[Difference]) -> Vec<&str> {
        differences.iter().map(|difference| difference.what.as_str()).collect()
    }

    #[test]
    fn a_result_is_like_itself() {
        assert_eq!(against(|_, _| ()), Likeness::default());
    }

    #[test]
    fn another_host_recording_or_mode_is_unlike() {
        type Change = fn(&mut Environment, &mut Vec<Run>);
        let changes: [(&str, Change); 10] = [
            ("host.cpu_model", |e, _| e.host.cpu_model = Some("other".into())),
            ("host.cpus", |e, _| e.host.cpus = 64),
            ("host.kernel", |e, _| e.host.kernel = Some("5.10.1".into())),
            ("host.libc", |e, _| e.host.libc = Some("glibc 2.28".into())),
            ("host.thp", |e, _| e.host.thp = Some("always".into())),
            ("host.page_bytes", |e, _| e.host.page_bytes = 16_384),
            ("harness.profile", |e, _| e.harness.profile = "debug".into()),
            ("plan.idle_ms", |e, _| e.plan.idle_ms = vec![0]),
            ("workloads.small-objects.sha256", |e, _| e.workloads[0].sha256 = "another".into()),
            ("mode of small-objects", |_, runs| {
                runs.iter_mut().filter(|r| r.workload == "small-objects").for_each(|r| r.mode = crate::run::Mode::Free);
            }),
        ];
        for (what, change) in changes {
            let found = against(change);
            assert_eq!(names(&found.unlike), [what]);
            assert!(found.under_test.is_empty() && found.remarks.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_an_update_within_a_line_forbids_nothing() {
        let unknown = against(|e, _| (e.host.thp, e.host.cpu_model) = (None, None));
        assert_eq!(unknown, Likeness::default());
        let patched = against(|e, _| e.host.kernel = Some("6.18.9".into()));
        assert_eq!((names(&patched.unlike), names(&patched.remarks)), (vec![], vec!["host.kernel"]));
    }

    #[test]
    fn a_change_of_a_configuration_is_under_test() {
        let found = against(|e, _| {
            e.configs[2].words = "MIMALLOC_PURGE_DELAY=-1".into();
            e.configs[2].allocators[0].options.insert("purge_delay".into(), "-1".into());
            e.configs[2].allocators[0].version = "3.4.0".into();
        });
        assert!(found.unlike.is_empty(), "{found:?}");
        assert_eq!(
            names(&found.under_test),
            ["mimalloc: MIMALLOC_PURGE_DELAY", "mimalloc: mimalloc version", "mimalloc: mimalloc: purge_delay"]
        );
        assert_eq!((found.under_test[0].old.as_str(), found.under_test[0].new.as_str()), ("not set", "-1"));
    }
}
