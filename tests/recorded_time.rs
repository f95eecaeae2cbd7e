//! Recorded time in replays: allocators read it from their clocks without anybody waiting for it; where virtual time
//! does not reach an allocator, the replay waits, and the result says so.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "allocators/built.rs"]
mod allocators;
mod binary;

use binary::{bench, output};
use object::{Object as _, ObjectSymbol as _};
use pyalloc_bench::run::{self, Footprint, MemoryPoint, Observation, Outcome, Pass, RestState, Run, Time};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, TraceWriter, WriteOptions};

const MIB: u64 = 1 << 20;
/// The recording's end, microseconds.
const TOOK_US: u64 = 2_000_000;

/// 400 allocations, evenly spaced, every other one on a second thread if there is one.
fn record(folder: &TempDir, has_threads: bool, has_times: bool, recorder_ps_per_event: u64) -> PathBuf {
    let path = folder.path().join("even.trace");
    let metadata = Metadata {
        ticks_per_second: has_times.then_some(1_000_000),
        recorder_ps_per_event: Some(recorder_ps_per_event),
        marks: Metadata::phase_marks(),
        ..Metadata::default()
    };
    let options = WriteOptions { level: 1, time: has_times, sites: false };
    let mut writer = TraceWriter::new(fs::File::create(&path).unwrap(), &metadata, options).unwrap();
    let mut push = |time, kind| writer.push(Event { time, kind }).unwrap();
    for slot in 0..400_u32 {
        let time = (u64::from(slot) + 1) * TOOK_US / 400;
        if has_threads {
            push(time, EventKind::ThreadSwitch { thread: slot % 2 });
        }
        let domain = Domain::Libc;
        push(time, EventKind::Alloc { slot, domain, size: 64, align_log2: 0, zeroed: false, touched: None, site: 0 });
    }
    writer.finish().unwrap();
    path
}

/// Replays for the footprint under configurations; the runs, by configuration.
fn replay(folder: &TempDir, trace: &Path, configs: &[&str], more: &[&str]) -> Vec<Run> {
    let out = folder.path().join("out");
    let _ = fs::remove_dir_all(&out);
    let mut command = bench();
    command.args(["replay", trace.to_str().unwrap(), "--blocks", "1", "--latency-runs", "0", "--footprint-runs", "1"]);
    command.args(["--quiet", "--allow-debug-build", "--allow-unverified", "-o", out.to_str().unwrap()]).args(more);
    for config in configs {
        command.args(["-c", config]);
    }
    let (code, said, errors) = output(&mut command);
    assert_eq!(code, 0, "{said}\n{errors}");
    let stored = run::open(&out.join("latest")).unwrap();
    // Results name no folders of a machine, but keep the order.
    let named = stored.environment.configs.iter().take(configs.len());
    named
        .map(|config| {
            let is_it = |run: &&Run| run.config == config.name && run.pass == Pass::Footprint;
            stored.runs.iter().find(is_it).unwrap().clone()
        })
        .collect()
}

fn footprint(run: &Run) -> &Footprint {
    match &run.outcome {
        Outcome::Ok(Observation::Footprint(seen)) => seen,
        other => panic!("{}: {other:?}", run.config),
    }
}

/// How much time has passed for an allocator that touches a MiB for each 100 ms, rounded. It uses no huge pages.
fn passed_ms(point: &MemoryPoint) -> u64 {
    (point.resident_bytes - point.huge_bytes) / MIB * 100
}

/// The allocator that shows its clocks, in the place of `malloc` and loaded for a domain.
fn clocks() -> [String; 2] {
    let library = allocators::tiny("libclock.so", &["-DCLOCK", "-DTCMALLOC"]);
    [format!("LD_PRELOAD={}", library.display()), format!("libc={}", library.display())]
}

#[test]
fn the_binary_exports_the_clocks() {
    let data = fs::read(env!("CARGO_BIN_EXE_pyalloc-bench")).unwrap();
    let file = object::File::parse(&*data).unwrap();
    for name in ["clock_gettime", "gettimeofday", "time"] {
        let is_it = |symbol: &object::Symbol<'_, '_>| symbol.name() == Ok(name) && symbol.is_definition();
        let exported = file.dynamic_symbols().find(is_it).unwrap_or_else(|| panic!("{name} is no dynamic symbol"));
        assert!(exported.is_global(), "{name} is local");
    }
}

#[test]
fn allocators_read_the_recorded_time_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let clocks = clocks();
    for has_threads in [false, true] {
        let trace = record(&folder, has_threads, true, 0);
        let configs: Vec<&str> = clocks.iter().map(String::as_str).collect();
        for run in &replay(&folder, &trace, &configs, &["--idle", "0,10000"]) {
            let seen = footprint(run);
            assert_eq!(seen.time, Some(Time::Virtual));
            // The recording's two seconds, less what lies before its first event.
            assert!((1_900..=2_100).contains(&passed_ms(&seen.end)), "{}: {:?}", run.config, seen.end);
            let at = |state, delay| {
                let is_it = |point: &&run::RestPoint| point.state == state && point.after_ms >= delay;
                passed_ms(&seen.rest.iter().find(is_it).unwrap().memory)
            };
            // Nobody calls it meanwhile; the first call afterwards finds ten seconds gone.
            assert!(at(RestState::Idle, 10_000) <= 2_100, "{:?}", seen.rest);
            assert!((11_900..=12_400).contains(&at(RestState::Trickle, 0)), "{:?}", seen.rest);
            assert!(run.child_wall_ns < 10_000_000_000, "{} waited", run.config);
        }
    }
}

#[test]
fn the_recorders_cost_is_taken_off() {
    let folder = tempfile::tempdir().unwrap();
    // Half of the two seconds was the recorder's.
    let trace = record(&folder, false, true, TOOK_US * 1_000_000 / 400 / 2);
    let [preloaded, _] = clocks();
    let runs = replay(&folder, &trace, &[&preloaded], &["--idle", "0"]);
    let passed = passed_ms(&footprint(&runs[0]).end);
    assert!((900..=1_100).contains(&passed), "{passed}");
}

#[test]
fn options_ask_for_real_time_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let [preloaded, _] = clocks();
    let trace = record(&folder, false, true, 0);
    for (option, time, range) in [("--paced=2", Time::Real, 900..=1_600), ("--paced=0", Time::None, 0..=800)] {
        let runs = replay(&folder, &trace, &[&preloaded], &["--idle", "0", option]);
        let seen = footprint(&runs[0]);
        assert_eq!(seen.time, Some(time));
        assert!(range.contains(&passed_ms(&seen.end)), "{option}: {:?}", seen.end);
    }
    // Without times there is nothing to serve.
    let trace = record(&folder, false, false, 0);
    let runs = replay(&folder, &trace, &[&preloaded], &["--idle", "0"]);
    assert_eq!(footprint(&runs[0]).time, Some(Time::None));
}

#[test]
fn an_allocator_that_virtual_time_does_not_reach_meets_real_time() {
    let folder = tempfile::tempdir().unwrap();
    let trace = record(&folder, false, true, 0);
    let tiny = |name: &str, arguments: &[&str]| {
        let library = allocators::tiny(name, &[arguments, &["-lpthread"]].concat());
        format!("LD_PRELOAD={}", library.display())
    };
    let configs = [
        tiny("libthread.so", &["-DCLOCK", "-DTCMALLOC", "-DTHREAD"]),
        tiny("liblate.so", &["-DCLOCK", "-DTCMALLOC", "-DLATE_THREAD"]),
        tiny("libunknown.so", &["-DCLOCK"]),
        "jemalloc".to_owned(),
    ];
    let names: Vec<&str> = configs.iter().map(String::as_str).collect();
    let runs = replay(&folder, &trace, &names, &["--idle", "0"]);
    for run in &runs[..3] {
        assert_eq!(footprint(run).time, Some(Time::Real), "{}", run.config);
        let passed = passed_ms(&footprint(run).end);
        assert!((1_900..=2_900).contains(&passed), "{}: {passed}", run.config);
    }
    assert_eq!(footprint(&runs[3]).time, Some(Time::Virtual));
}
