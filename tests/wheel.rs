//! The pools of a real pyarrow as allocators: each keeps the heap contract, says what it is, and serves a recording.
//!
//! Invariant: where no pyarrow can be had, this says `NOT RUN`, and fails where that is not allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod measured;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use measured::{footprint, observe};
use pyalloc_bench::backend::{LIBARROW_VARIABLE, WHEEL_POOLS};
use pyalloc_bench::measure::{
    ImageLimits, PACE_LIMIT, Prepared, Progress, Request, Sizes, Wheel, parse_config, report,
};
use pyalloc_bench::run::{Observation, Pass, Throughput};
use pyalloc_bench::workload::Bundle;
use std::path::{Path, PathBuf};
use std::process::Command;

const EXE: &str = env!("CARGO_BIN_EXE_pyalloc-bench");

/// Places with a pyarrow: the environment that tests make for themselves, whatever `python3` has, and the zoo.
fn places() -> Vec<(String, Wheel)> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let below = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_candidate = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        path.is_dir() && ["pyarrow-", "recipes-venv"].iter().any(|start| name.starts_with(start))
    };
    let Some(python) = support::python_with_packages() else { return Vec::new() };
    let mut candidates = vec![python.display().to_string(), "python3".to_owned()];
    candidates.extend(std::env::var("PYALLOC_BENCH_ARROW"));
    let folders = below(target).chain(below(&target.join("zoo"))).filter(is_candidate);
    candidates.extend(folders.map(|path| path.display().to_string()));
    let mut found: Vec<(String, Wheel)> = Vec::new();
    for place in candidates {
        match Wheel::find(&place) {
            Ok(wheel) if found.iter().all(|(_, other)| other.version != wheel.version) => found.push((place, wheel)),
            _ => {}
        }
    }
    assert!(!found.is_empty(), "the tests' own environment has a pyarrow");
    found
}

#[test]
fn every_pool_keeps_the_contract() {
    for (place, wheel) in places() {
        println!("Arrow {} in {place}", wheel.version);
        let keys = WHEEL_POOLS.map(|pool| format!("wheel:{pool}"));
        let mut command = Command::new(EXE);
        let output = command.args(["worker", "--self-test"]).args(&keys).env(LIBARROW_VARIABLE, &wheel.file).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && keys.iter().all(|key| said.contains(key.as_str())), "{place}: {said}");
    }
}

#[test]
fn a_process_that_was_told_of_no_library_says_so() {
    let output = Command::new(EXE).args(["worker", "--facts", "wheel:mimalloc"]).env_remove(LIBARROW_VARIABLE).output();
    let output = output.unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stdout).contains("told of no Arrow library"));
    let output = Command::new(EXE).args(["worker", "--facts", "wheel:mimalloc"]).env(LIBARROW_VARIABLE, EXE).output();
    assert!(!output.unwrap().status.success(), "a program is no library");
}

#[test]
fn every_pool_says_what_it_is() {
    for (place, wheel) in places() {
        let of = |pool| parse_config(&format!("arrow=wheel:{pool}:{place}")).unwrap();
        let configs = WHEEL_POOLS.map(of);
        let report = report(Path::new(EXE), &configs).unwrap();
        for ((pool, config), facts) in WHEEL_POOLS.iter().zip(&configs).zip(&report.allocators) {
            let facts = config.facts(facts, &[]);
            let key = format!("wheel:{pool}");
            let own = facts.allocators.iter().find(|facts| facts.key == key).unwrap();
            let library = if *pool == "system" { "glibc 2." } else { pool };
            assert!(own.version.starts_with(library), "{own:?}");
            assert!(own.version.contains(&format!("(Arrow {}", wheel.version.split('.').next().unwrap())), "{own:?}");
            assert!(own.version.contains(|c: char| c.is_ascii_digit()) && !own.version.contains("unknown"), "{own:?}");
            assert!(own.options.len() > 3, "{own:?}");
            assert!(!place.contains('/') || !serde_json::to_string(&facts).unwrap().contains(&place), "{facts:?}");
        }
    }
}

#[test]
fn a_recording_is_served_whole_and_what_loading_brought_is_left_out() {
    let Some((place, _)) = places().pop() else { return };
    let words = WHEEL_POOLS.map(|pool| format!("arrow=wheel:{pool}:{place}"));
    let configs = std::iter::once("arrow=system").chain(words.iter().map(String::as_str));
    let request = Request {
        exe: PathBuf::from(EXE),
        workloads: vec![Bundle::find().resolve("arrow-service", true).unwrap()],
        configs: configs.map(|text| parse_config(text).unwrap()).collect(),
        sizes: Sizes::QUICK,
        idle_ms: vec![0],
        cycles: None,
        mode: None,
        pace: Some(0),
        pace_limit: PACE_LIMIT,
        seed: 1,
        quick: true,
        limits: ImageLimits::DEFAULT,
        allow_debug: true,
        base: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    let prepared = Prepared::new(&request, &mut Progress::new(true)).unwrap();
    let stand_in = footprint(&prepared, 0);
    for (config, name) in (1..).zip(WHEEL_POOLS) {
        let Observation::Throughput(Throughput { failed_allocations, seal, .. }) =
            observe(&prepared, config, Pass::Throughput)
        else {
            panic!("another pass")
        };
        assert_eq!(failed_allocations, 0, "{name}");
        // Loading the library fills the C library's heap; that is known to the byte, and not counted.
        assert_eq!(seal.libc_bytes_before, seal.libc_bytes_prepared, "{name}");
        assert!(seal.libc_bytes_prepared > 100_000, "{name}: {seal:?}");
        let seen = footprint(&prepared, config);
        assert_eq!(seen.end.requested_bytes, stand_in.end.requested_bytes, "{name}");
        assert_eq!(seen.end.blocks, stand_in.end.blocks, "{name}");
        assert!(seen.end.usable_bytes >= seen.end.requested_bytes, "{name}");
    }
    // The wheel's system pool is the same C library called in the same way.
    let own = footprint(&prepared, 3);
    for (own, ours) in [(own.peak, stand_in.peak), (own.end, stand_in.end)] {
        let apart = own.resident_bytes.abs_diff(ours.resident_bytes);
        assert!(apart < 1 << 20, "{} against {} bytes resident", own.resident_bytes, ours.resident_bytes);
    }
}
