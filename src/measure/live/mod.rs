//! `live`: the real program under each deployable configuration, and the replays that predict it.
//!
//! Invariant: the environment of a real run is the user's own, less every variable that a configuration could have
//! set, plus the configuration's and a padding of random length; the order of runs is shuffled in blocks, so that drift
//! hits all configurations alike.

mod channel;
mod program;
mod sampler;

pub use program::Program;
#[cfg(any(test, fuzzing))]
pub(crate) use {
    channel::parse as parse_mark,
    sampler::{Sampler, static_bytes},
};

use super::config::Config;
use super::plan::{Cell, Sizes, plan};
use super::spawn::answer;
use super::{HostReport, Prepared, Progress, child, environment, footprint};
use crate::run::{
    FIDELITY_SCHEMA, Fidelity, FidelityConfig, Footprint, Mode, Moment, Observation, Outcome, Owned, Owners, Pass,
    RealRun, ReplayedRun, RestState, Run, unreplayed_notes,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel as results;
use std::sync::{Mutex, PoisonError};
use std::thread;
use trace::{Domain, Metadata, NumpyData, Phase};

/// Variables that choose or set allocators: a real run has those of its configuration and no other.
const ALLOCATOR_VARIABLES: [&str; 8] = [
    "PYTHONMALLOC",
    "PYTHONDEVMODE",
    "LD_PRELOAD",
    "GLIBC_TUNABLES",
    "ARROW_DEFAULT_MEMORY_POOL",
    "JE_ARROW_MALLOC_CONF",
    "_RJEM_MALLOC_CONF",
    "PYALLOC_NUMPY",
];
const ALLOCATOR_PREFIXES: [&str; 2] = ["MALLOC_", "MIMALLOC_"];
/// What a program is recorded under so that its trace has every request for array data.
const HANDLER_RECORDED: &str = "PYALLOC_NUMPY=system";
/// A configuration whose program fails so often without ever giving figures is not tried again.
const FAILURES_MAX: usize = 3;

/// How often, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetitions {
    /// Real runs of each configuration.
    pub real: u32,
    /// Real runs at a time.
    pub jobs: u32,
    /// Seed of their order.
    pub seed: u64,
}

/// The environment of a real run. `None` for a configuration that no environment brings about.
#[must_use]
pub fn environment_of(config: &Config) -> Option<Vec<(OsString, OsString)>> {
    let deploy = config.deploy.as_ref()?;
    let mut variables: Vec<_> = std::env::vars_os().filter(|(name, _)| !is_of_allocators(name)).collect();
    // As `record` does: the order of sets and dictionaries decides what is allocated.
    if !variables.iter().any(|(name, _)| name == "PYTHONHASHSEED") {
        variables.push(("PYTHONHASHSEED".into(), "0".into()));
    }
    variables.extend(deploy.iter().map(|(name, value)| (OsString::from(name), value.clone())));
    Some(variables)
}

/// Names of the user's own variables that real runs do without.
#[must_use]
pub fn left_out() -> Vec<String> {
    let names = std::env::vars_os().map(|(name, _)| name).filter(|name| is_of_allocators(name));
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// How the Python that a command starts differs from the recorded one: its version, the recorded packages. Asked of
/// the interpreter itself; `None` when the first word is no Python that answers.
#[must_use]
pub fn differences(command: &[OsString], recorded: &Metadata) -> Option<Vec<String>> {
    const CODE: &str = "import sys, importlib.metadata as m\nprint('%d.%d.%d' % sys.version_info[:3])\n\
                        for name in sys.argv[1:]:\n    try: print(m.version(name))\n    except Exception: print()";
    let program = Path::new(command.first()?);
    program.file_name()?.to_str()?.starts_with("python").then_some(())?;
    let python = recorded.python.as_ref()?;
    let ask = ["-c", CODE].into_iter().chain(recorded.packages.keys().map(String::as_str));
    let output = answer(program, ask).ok().filter(|output| output.status.success())?;
    let answer = String::from_utf8(output.stdout).ok()?;
    let mut lines = answer.lines();
    let is_other = |what: &str, then: &str, now: &str| match now {
        "" => Some(format!("recorded with {what} {then}, run without it")),
        now if now == then => None,
        now => Some(format!("recorded with {what} {then}, run with {now}")),
    };
    let mut found: Vec<String> = is_other("Python", &python.version, lines.next()?).into_iter().collect();
    let packages = recorded.packages.iter().zip(lines);
    found.extend(packages.filter_map(|((name, then), now)| is_other(name, then, now)));
    Some(found)
}

/// Whether a trace is of a forked child, by what its recorder notes.
#[must_use]
pub fn is_of_child(recorded: &Metadata) -> bool {
    recorded.notes.iter().any(|note| note.starts_with("forked:"))
}

fn is_of_allocators(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    ALLOCATOR_VARIABLES.contains(&&*name) || ALLOCATOR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Runs the program under each environment, in shuffled blocks; by environment what came of each run, in executed
/// order.
#[must_use]
pub fn real_runs(
    program: &Program,
    environments: &[Vec<(OsString, OsString)>],
    how: Repetitions,
    progress: &mut Progress,
) -> Vec<Vec<Result<RealRun, String>>> {
    let sizes = Sizes { blocks: how.real, latency_runs: 0, footprint_runs: 0 };
    let cells = plan(how.seed, 1, &vec![false; environments.len()], sizes);
    let done: Mutex<Vec<Vec<Placed>>> = Mutex::new(vec![Vec::new(); environments.len()]);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = results();
    thread::scope(|scope| {
        for _ in 0..how.jobs {
            let (sender, next, done, cells) = (sender.clone(), &next, &done, &cells);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(at) else { break };
                    if !is_hopeless(&done.lock().unwrap_or_else(PoisonError::into_inner)[cell.config]) {
                        let run = program.run(cell, &environments[cell.config]);
                        done.lock().unwrap_or_else(PoisonError::into_inner)[cell.config].push((at, run));
                    }
                    let _ = sender.send(());
                }
            });
        }
        drop(sender);
        for (finished, ()) in receiver.iter().enumerate() {
            progress.say_at_times(&format!("{} of {} real runs", finished + 1, cells.len()));
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.iter_mut().for_each(|runs| runs.sort_by_key(|(at, _)| *at));
    let of_one = |runs: Vec<Placed>| {
        let left_out = (how.real as usize).saturating_sub(runs.len());
        let left_out = (left_out > 0).then(|| {
            Err(format!("each of the first {} runs failed, so {left_out} more were not made. Correct that first.", {
                runs.len()
            }))
        });
        runs.into_iter().map(|(_, run)| run).chain(left_out).collect()
    };
    done.into_iter().map(of_one).collect()
}

/// What came of a real run, and its place in the order.
type Placed = (usize, Result<RealRun, String>);

fn is_hopeless(runs: &[Placed]) -> bool {
    runs.len() >= FAILURES_MAX && runs.iter().all(|(_, run)| run.is_err())
}

/// Replays the first workload that was prepared under every configuration, and puts together what is known before any
/// real run.
///
/// # Errors
/// A sentence when no replay succeeded; one that failed beside others is kept with its configuration.
pub fn predict(
    prepared: &Prepared,
    report: &HostReport,
    sizes: Sizes,
    seed: u64,
    progress: &mut Progress,
) -> Result<Fidelity, String> {
    prepared.check_reach(report)?;
    let mut found = Fidelity { host: report.host.clone(), ..facts(prepared, seed)? };
    let unverified = report.unverified.iter().flatten();
    found.notes.extend(unverified.map(|word| format!("no allocator confirmed that {word} took effect")));
    let cells = plan(seed, 1, &prepared.floors(), Sizes { latency_runs: 0, ..sizes });
    let (timed, footprints): (Vec<Cell>, Vec<Cell>) = cells.iter().partition(|cell| cell.pass != Pass::Footprint);
    let mut done = 0;
    let mut unreplayed: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
    let mut keep = |cell: &Cell, measured| -> Result<(), String> {
        let run = prepared.run_of(done, cell, measured);
        done += 1;
        progress.say_at_times(&format!("{done} of {} replays", cells.len()));
        found.mode = Some(run.mode);
        if let Outcome::Ok(Observation::Footprint(footprint)) = &run.outcome {
            unreplayed.insert(cell.config, footprint.unreplayed.clone());
        }
        add(&mut found.configs[cell.config], run, &prepared.settings.idle_ms);
        Ok(())
    };
    for cell in &timed {
        keep(cell, prepared.measure(cell))?;
    }
    footprint::side_by_side(prepared, &footprints, &mut keep)?;
    let notes = unreplayed_notes(unreplayed.iter().map(|(config, calls)| (&*found.configs[*config].name, calls)));
    found.notes.extend(notes);
    let first = found.configs.iter().flat_map(|config| &config.failures).next().cloned();
    match first.filter(|_| found.configs.iter().all(|config| config.replayed.is_empty())) {
        Some(reason) => Err(reason),
        None => Ok(found),
    }
}

/// Takes the readings out of one replay.
fn add(config: &mut FidelityConfig, run: Run, idle_ms: &[u64]) {
    match run.outcome {
        Outcome::Ok(Observation::Footprint(footprint)) => config.replayed.push(replayed(&footprint, idle_ms)),
        Outcome::Ok(Observation::Throughput(throughput)) => {
            let steady = throughput.phases.iter().find(|phase| phase.phase == Phase::Steady);
            config.replayed_ns.extend(steady.map(|steady| steady.wall_ns));
            let has_drained = throughput.phases.iter().any(|phase| phase.phase == Phase::Drained);
            let end = if has_drained { Phase::Drained } else { Phase::Finalising };
            let before = throughput.phases.iter().filter(|phase| phase.phase < end);
            config.replayed_ns_all.push(before.map(|phase| phase.wall_ns).sum());
        }
        Outcome::Ok(Observation::Latency(_)) => {}
        Outcome::Failed { stage, reason } => {
            config.failures.push(format!("The replay failed, {stage}: {reason}"));
        }
    }
}

fn replayed(footprint: &Footprint, idle_ms: &[u64]) -> ReplayedRun {
    let drained = footprint.at_phase.iter().find(|(phase, _)| *phase == Phase::Drained).map(|(_, point)| point.op);
    let until = drained.unwrap_or(u64::MAX);
    let curve = footprint.curve.iter().filter(|point| point.op <= until).map(|point| point.resident_bytes);
    // As of the real program: the kernel's own mark, where it saw more than the readings.
    let high_in = |wanted: &dyn Fn(Phase) -> bool| {
        footprint.high_water_bytes.iter().filter(|(phase, _)| wanted(*phase)).map(|(_, bytes)| *bytes).max()
    };
    let has_steady = footprint.at_phase.iter().any(|(phase, _)| *phase == Phase::Steady);
    let high = high_in(&|phase| if has_steady { phase == Phase::Steady } else { phase < Phase::Drained });
    let high_all = high_in(&|phase| phase < Phase::Drained);
    let idle = footprint.rest.iter().filter(|point| point.state == RestState::Idle);
    let steady = footprint.at_phase.iter().find(|(phase, _)| *phase == Phase::Steady);
    let untouched = |owners: &Owners| {
        let sum = |of: fn(&Owned) -> u64| owners.owned.iter().map(of).fold(0, u64::saturating_add);
        sum(|owned| owned.requested_bytes).saturating_sub(sum(|owned| owned.touched_bytes))
    };
    let at_rest = footprint.rest.iter().find(|point| point.state == RestState::Idle);
    ReplayedRun {
        steady_bytes: steady.map(|(_, point)| point.resident_bytes),
        peak_bytes: high.unwrap_or(0).max(footprint.peak.resident_bytes),
        peak_bytes_all: curve.chain([footprint.peak.resident_bytes]).chain(high_all).max().unwrap_or(0),
        end_bytes: footprint.end.resident_bytes,
        rest: idle_ms.iter().zip(idle).map(|(delay, point)| (*delay, point.memory.resident_bytes)).collect(),
        rest_from: footprint.rest_from.clone(),
        at_marks: footprint.at_marks.clone(),
        time: footprint.time,
        huge_bytes: at_rest.map(|point| point.memory.huge_bytes),
        faults_minor: Some(footprint.faults_minor),
        untouched_bytes: footprint.owners.iter().find(|owners| owners.moment == Moment::Peak).map(untouched),
    }
}

/// What is known before anything runs.
fn facts(prepared: &Prepared, seed: u64) -> Result<Fidelity, String> {
    let image = prepared.images.first().ok_or("There is no trace to replay. Give one.")?;
    let metadata = &image.compiled.metadata;
    let peak = metadata.process.and_then(|process| process.peak);
    Ok(Fidelity {
        schema: FIDELITY_SCHEMA,
        trace_sha256: image.compiled.sha256.clone(),
        workload: image.workload.name.clone(),
        harness_version: environment::harness().version,
        started_unix_ms: child::unix_ms(),
        seed,
        mode: Some(Mode::Merged),
        threads: metadata.totals.threads(),
        idle_ms: prepared.settings.idle_ms.clone(),
        recorded_as: (metadata.numpy_data == Some(NumpyData::Handler)).then(|| HANDLER_RECORDED.to_owned()),
        steady_calls: image.compiled.summary.calls_by_phase[Phase::Steady as usize],
        recorded_no_heap_bytes: peak
            .map(|peak| peak.file_bytes.saturating_add(peak.relocated_bytes).saturating_add(peak.stack_bytes)),
        recorded_heap_bytes: peak
            .map(|peak| peak.rss_anon_bytes.saturating_sub(peak.relocated_bytes).saturating_sub(peak.stack_bytes)),
        mapped_bytes: mapped_bytes(metadata),
        recorded_marks: crate::run::recorded_marks(metadata),
        live_bytes_peak: metadata.totals.live_bytes_peak,
        configs: prepared.configs.iter().map(|config| config_facts(config, metadata)).collect(),
        ..Fidelity::default()
    })
}

/// A sum of what a trace claims.
fn saturating<'a>(claims: impl Iterator<Item = &'a u64>) -> u64 {
    claims.fold(0, |sum, claim| sum.saturating_add(*claim))
}

/// What libraries mapped for themselves at each phase's mark; `None` when the recorder was too old to say.
fn mapped_bytes(metadata: &Metadata) -> Option<BTreeMap<String, u64>> {
    let at_mark = |phase: Phase| {
        let reading = metadata.mark_readings.iter().find(|reading| reading.mark == phase as u32)?;
        Some((phase.name().to_owned(), saturating(reading.mapped_bytes.as_ref()?.values())))
    };
    let found: BTreeMap<String, u64> = Phase::ALL.into_iter().filter_map(at_mark).collect();
    (!found.is_empty()).then_some(found)
}

fn config_facts(config: &Config, metadata: &Metadata) -> FidelityConfig {
    let is_used = |domain: &Domain| metadata.totals.calls_by_domain.get(domain.name()).is_some_and(|calls| *calls > 0);
    let domains = Domain::ALL.into_iter().filter(is_used);
    let backends = config.backends_on(metadata);
    let served = domains.map(|domain| format!("{}={}", domain.name(), base_names(&backends[domain as usize])));
    let variables =
        config.variables.iter().map(|(name, value)| format!("{name}={}", base_names(&value.to_string_lossy())));
    FidelityConfig {
        name: config.name.clone(),
        expansion: served.chain(variables).collect(),
        ..FidelityConfig::default()
    }
}

/// Results name no folders of a machine.
fn base_names(text: &str) -> String {
    let base = |path: &str| {
        Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
    };
    text.split(':').map(base).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::MemoryPoint;

    #[test]
    fn variables_of_allocators_are_told_from_others() {
        for name in ["PYTHONMALLOC", "MALLOC_ARENA_MAX", "MIMALLOC_PURGE_DELAY", "LD_PRELOAD"] {
            assert!(is_of_allocators(name.as_ref()), "{name}");
        }
        for name in ["PATH", "PYTHONPATH", "OMP_NUM_THREADS"] {
            assert!(!is_of_allocators(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn the_peak_of_everything_ends_where_rest_begins() {
        let point = |op, resident_bytes| MemoryPoint { op, resident_bytes, ..MemoryPoint::default() };
        let footprint = Footprint {
            curve: vec![point(1, 90), point(5, 70), point(9, 200)],
            at_phase: vec![(Phase::Startup, point(0, 0)), (Phase::Steady, point(2, 0)), (Phase::Drained, point(6, 0))],
            peak: point(5, 70),
            end: point(9, 40),
            rest_from: "drained".into(),
            rest: vec![],
            faults_minor: 0,
            high_water_bytes: vec![(Phase::Startup, 95), (Phase::Steady, 72)],
            pools: None,
            cycles: vec![],
            at_marks: vec![],
            owners: vec![],
            time: None,
            failed_allocations: 0,
            unreplayed: BTreeMap::new(),
            seal: Default::default(),
        };
        let found = replayed(&footprint, &[]);
        assert_eq!((found.peak_bytes, found.peak_bytes_all, found.end_bytes), (72, 95, 40));
    }

    #[test]
    fn results_name_no_folders() {
        assert_eq!(base_names("library:/opt/lib/liba.so"), "library:liba.so");
        assert_eq!(base_names("2"), "2");
    }
}
