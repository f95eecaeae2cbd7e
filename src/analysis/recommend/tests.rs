//! Decisions on invented results.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::analysis::analyse;
use crate::analysis::fixture::{self, Invention};
use crate::run::Environment;
use trace::{MemoryReading, ProcessMemory};

const MIB: u64 = 1 << 20;
/// What the invented process holds beside its heap.
const BESIDE: u64 = 60 * MIB;

/// An invented result in which each of these allocators stands for variables.
fn result(footprint_runs: u32, deployed: &[(&str, &str)]) -> (Environment, Vec<Run>) {
    let what = Invention { footprint_runs, ..Invention::default() };
    let mut environment = fixture::environment(&what);
    for (name, words) in deployed {
        let config = environment.configs.iter_mut().find(|config| config.name == *name).unwrap();
        (config.deployable, config.words) = (true, (*words).to_owned());
    }
    for workload in &mut environment.workloads {
        let peak = MemoryReading { file_bytes: BESIDE, ..MemoryReading::default() };
        workload.metadata.process = Some(ProcessMemory { peak: Some(peak), ..ProcessMemory::default() });
    }
    (environment, fixture::runs(&what))
}

const DEPLOYED: [(&str, &str); 3] =
    [("system", ""), ("jemalloc", "MALLOC_ARENA_MAX=2"), ("mimalloc", "MALLOC_ARENA_MAX=1")];
const WISH: Wish = Wish { objective: Objective::Rest, limit_bytes: None, p999_ns_max: None };

/// For the second workload, whose memory at rest tells allocators apart.
fn decided((mut environment, runs): (Environment, Vec<Run>), wish: &Wish) -> Recommendation {
    today_first(&mut environment);
    let analysis = analyse(environment, &runs);
    recommend(&analysis, &runs, &analysis.workloads[1], wish)
}

fn subject(found: &Recommendation) -> &str {
    &found.candidates[found.decision.subject().unwrap()].name
}

#[test]
fn better_is_said_with_six_runs_and_not_with_one() {
    let found = decided(result(6, &DEPLOYED), &WISH);
    assert!(matches!(found.decision, Decision::Switch { .. }), "{:?}", found.decision);
    assert_eq!(subject(&found), "jemalloc");
    assert!(found.baseline_is_today && found.candidates[found.baseline.unwrap()].name == "system");
    assert_eq!(found.flips.what_ifs, ["pool"], "lower still, and nothing to deploy");
    let found = decided(result(1, &DEPLOYED), &WISH);
    assert!(matches!(found.decision, Decision::Inconclusive { .. }), "{:?}", found.decision);
    assert_eq!(subject(&found), "jemalloc");
}

#[test]
fn a_what_if_is_never_chosen_but_where_variables_do_the_same() {
    let found = decided(result(6, &[]), &WISH);
    // Without Arrow, `pool` is what runs, and `system` is PYTHONMALLOC=malloc.
    let of = |name: &str| found.candidates.iter().find(|candidate| candidate.name == name).unwrap();
    assert!(of("pool").is_today() && of("pool").is_stand_in);
    assert_eq!(of("system").deploy, Some(vec![("PYTHONMALLOC".to_owned(), "malloc".to_owned())]));
    assert_eq!((of("mimalloc").deploy.clone(), of("jemalloc").deploy.clone()), (None, None));
    assert!(matches!(found.decision, Decision::Keep { .. }), "{:?}", found.decision);
    let (mut environment, mut runs) = result(6, &[]);
    environment.configs.retain(|config| !["pool", "system"].contains(&config.name.as_str()));
    runs.retain(|run| !["pool", "system"].contains(&run.config.as_str()));
    let found = decided((environment, runs), &WISH);
    assert_eq!(found.decision, Decision::NothingDeployable);
}

#[test]
fn arrow_makes_pool_another_configuration() {
    let (mut environment, runs) = result(6, &[]);
    for workload in &mut environment.workloads {
        workload.metadata.totals.calls_by_domain.insert("arrow".into(), 7);
    }
    let found = decided((environment, runs), &WISH);
    let of = |name: &str| &found.candidates.iter().find(|candidate| candidate.name == name).unwrap().deploy;
    let arrow = ("ARROW_DEFAULT_MEMORY_POOL".to_owned(), "system".to_owned());
    assert_eq!(*of("pool"), Some(vec![arrow.clone()]));
    assert_eq!(*of("system"), Some(vec![("PYTHONMALLOC".to_owned(), "malloc".to_owned()), arrow]));
    assert!(!found.baseline_is_today);
}

#[test]
fn a_limit_excludes_and_says_so() {
    let limit = |mib: u64| Wish { limit_bytes: Some(mib * MIB), ..WISH };
    // Processes peak at 250 MiB under the pool, 261 under system, 279 under jemalloc, 302 under mimalloc.
    let found = decided(result(6, &DEPLOYED), &limit(270));
    let of = |found: &Recommendation, name: &str| found.candidates.iter().find(|c| c.name == name).unwrap().clone();
    assert_eq!(of(&found, "jemalloc").exclusions, [Exclusion::TooLarge]);
    assert_eq!((of(&found, "system").fit, of(&found, "pool").fit), (Some(Fit::Yes), Some(Fit::Yes)));
    assert!(matches!(found.decision, Decision::Keep { .. }), "{:?}", found.decision);
    assert_eq!(found.flips.unconstrained.as_deref(), Some("jemalloc"));
    assert_eq!(of(&decided(result(6, &DEPLOYED), &limit(265)), "system").fit, Some(Fit::Tight));
    // Now what runs today is the largest.
    let today = [("mimalloc", ""), ("jemalloc", "MALLOC_ARENA_MAX=2"), ("system", "MALLOC_ARENA_MAX=1")];
    let found = decided(result(6, &today), &limit(300));
    assert!(
        matches!(found.decision, Decision::OnlyFit { .. }) && subject(&found) == "jemalloc",
        "{:?}",
        found.decision
    );
    let found = decided(result(6, &DEPLOYED), &limit(100));
    assert_eq!(found.decision, Decision::NothingFits);
    // A recording that does not know its process cannot be said to fit.
    let (mut environment, runs) = result(6, &DEPLOYED);
    environment.workloads[1].metadata.process = None;
    let found = decided((environment, runs), &limit(10_000));
    assert_eq!((&found.decision, found.candidates[0].exclusions[0]), (&Decision::NothingFits, Exclusion::SizeUnknown));
}

#[test]
fn debug_hooks_are_never_proposed_however_well_they_do() {
    let (mut environment, mut runs) = result(6, &[("system", ""), ("pool", "PYTHONMALLOC=debug")]);
    environment.configs.retain(|config| ["system", "pool"].contains(&config.name.as_str()));
    runs.retain(|run| ["system", "pool"].contains(&run.config.as_str()));
    let found = decided((environment, runs), &WISH);
    let hooked = found.candidates.iter().find(|candidate| candidate.name == "pool").unwrap();
    assert!(hooked.value(WISH.objective) < found.candidates[0].value(WISH.objective), "it would be chosen");
    assert_eq!(hooked.exclusions, [Exclusion::Diagnostic]);
    assert_eq!((&found.decision, found.flips.unconstrained.as_deref()), (&Decision::Keep { today: 0 }, Some("system")));
}

#[test]
fn twins_are_no_reason_to_change() {
    let (mut environment, mut runs) = result(6, &[("system", "")]);
    environment.configs.retain(|config| config.name == "system");
    runs.retain(|run| run.config == "system");
    let mut twin = environment.configs[0].clone();
    (twin.name, twin.words) = ("arenas-2".into(), "MALLOC_ARENA_MAX=2".into());
    environment.configs.push(twin);
    let again: Vec<Run> = runs.iter().map(|run| Run { config: "arenas-2".into(), ..run.clone() }).collect();
    runs.extend(again);
    let found = decided((environment, runs), &WISH);
    assert_eq!(found.decision, Decision::Keep { today: 0 });
    assert_eq!(found.candidates[1].versus[0].unwrap().verdict, Verdict::NoDifference);
}

#[test]
fn what_failed_or_is_too_slow_is_out() {
    let what = Invention { failures: true, footprint_runs: 6, ..Invention::default() };
    let (mut environment, runs) = (fixture::environment(&what), fixture::runs(&what));
    today_first(&mut environment);
    let analysis = analyse(environment, &runs);
    let wish = Wish { p999_ns_max: Some(1.0), ..WISH };
    let found = recommend(&analysis, &runs, &analysis.workloads[0], &wish);
    let of = |name: &str| &found.candidates.iter().find(|candidate| candidate.name == name).unwrap().exclusions;
    assert!(of("mimalloc").contains(&Exclusion::Failed(1)), "{:?}", of("mimalloc"));
    assert_eq!(of("jemalloc")[..], [Exclusion::LatencyUnknown], "it has no latency pass");
    assert!(matches!(of("system")[..], [Exclusion::TooSlow(_) | Exclusion::LatencyUnknown]), "{:?}", of("system"));
    assert_eq!(found.decision, Decision::NothingFits);
}

#[test]
fn the_front_has_no_configuration_that_another_beats() {
    let found = decided(result(6, &DEPLOYED), &WISH);
    let names: Vec<&str> = found.front.iter().map(|index| found.candidates[*index].name.as_str()).collect();
    // `pool` is lowest in peak and rest, `mimalloc` in time; `jemalloc` beats `mimalloc` in memory, not in time.
    assert!(names.contains(&"pool") && names.contains(&"mimalloc") && !names.contains(&"system"), "{names:?}");
}

#[test]
fn the_way_in_which_pools_are_ranked_is_told() {
    let found = decided(result(6, &DEPLOYED), &Wish { objective: Objective::Speed, ..WISH });
    assert_eq!(subject(&found), "mimalloc");
    let lowest = |objective| found.flips.objectives.iter().find(|(own, _)| *own == objective).unwrap().1.as_str();
    assert_eq!((lowest(Objective::Rest), lowest(Objective::Speed)), ("jemalloc", "mimalloc"));
    assert_eq!(found.flips.delays.iter().map(|(ms, _)| *ms).collect::<Vec<_>>(), [100, 1000, 10_000]);
    let latency = decided(result(6, &DEPLOYED), &Wish { objective: Objective::Latency, ..WISH });
    assert!(!matches!(latency.decision, Decision::Switch { .. }), "a pooled percentile has no verdict");
}
