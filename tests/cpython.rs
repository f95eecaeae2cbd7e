//! The allocator `cpython` against `pool`, its model, on every interpreter that this machine has: the same recording
//! gives the same usable sizes, since both are pymalloc. And the mimalloc of the latest of them.
//!
//! Invariant: where no interpreter can serve, this says `NOT RUN`.
#![allow(clippy::unwrap_used, reason = "tests")]

mod measured;

use libpython::Interpreter;
use measured::{footprint, observe};
use pyalloc_bench::measure::{
    Config, ImageLimits, PACE_LIMIT, Prepared, Progress, Request, Sizes, parse_config, report,
};
use pyalloc_bench::run::{Footprint, MemoryPoint, Mode, Observation, Pass, SealReport};
use pyalloc_bench::workload::Bundle;
use std::path::{Path, PathBuf};

/// One interpreter per library. A machine may well have none: many interpreters are linked statically.
fn interpreters() -> Vec<Interpreter> {
    let (found, _) = libpython::distinct();
    if found.is_empty() {
        println!("NOT RUN: no CPython with a shared libpython is here; name one in PYALLOC_BENCH_PYTHONS");
    }
    found
}

fn config(program: &Path) -> Config {
    parse_config(&format!("cpython:{}", program.display())).unwrap()
}

fn prepared(configs: Vec<Config>) -> Prepared {
    let request = Request {
        exe: PathBuf::from(env!("CARGO_BIN_EXE_pyalloc-bench")),
        workloads: vec![Bundle::find().resolve("small-objects", true).unwrap()],
        configs,
        sizes: Sizes::QUICK,
        idle_ms: vec![0],
        cycles: None,
        mode: Some(Mode::Merged),
        pace: Some(0),
        pace_limit: PACE_LIMIT,
        seed: 1,
        quick: true,
        limits: ImageLimits::DEFAULT,
        allow_debug: true,
        base: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
    };
    Prepared::new(&request, &mut Progress::new(true)).unwrap()
}

/// At every reading the same blocks are live and as large. Where an interpreter has left a few free chunks in the C
/// library's heap, a block above a pool's limit may get one that is a little larger than what it asked for.
fn check_sizes(real: &Footprint, model: &Footprint, interpreter: &Interpreter) {
    let requests = |point: &MemoryPoint| (point.op, point.requested_bytes, point.blocks);
    let (reals, models) = (real.curve.iter().chain([&real.end]), model.curve.iter().chain([&model.end]));
    assert!(reals.clone().map(requests).eq(models.clone().map(requests)), "{}", interpreter.version);
    let apart = reals.zip(models).map(|(real, model)| real.usable_bytes.abs_diff(model.usable_bytes)).max().unwrap();
    let most = if interpreter.minor < 12 { 0 } else { 1024 };
    assert!(apart <= most, "{}: usable sizes are {apart} bytes apart", interpreter.version);
    println!("  usable sizes at most {apart} bytes apart in {} readings", real.curve.len());
}

/// What an interpreter brought into the C library's heap is known to the byte, and little.
fn check_seal(seal: SealReport, interpreter: &Interpreter) {
    assert_eq!(seal.libc_bytes_before, seal.libc_bytes_prepared, "{}", interpreter.version);
    let most = if interpreter.minor < 12 { 0 } else { 16 * 1024 };
    assert!(seal.libc_bytes_prepared <= most, "{}: {seal:?}", interpreter.version);
}

#[test]
fn every_interpreter_gives_what_its_model_gives() {
    let interpreters = interpreters();
    let cpythons = interpreters.iter().map(|interpreter| config(&interpreter.program));
    let prepared = prepared([parse_config("pool").unwrap()].into_iter().chain(cpythons).collect());
    let model = footprint(&prepared, 0);
    for (place, interpreter) in interpreters.iter().enumerate() {
        let place = place + 1;
        let name = interpreter.describe();
        println!("{name}");
        let Observation::Throughput(timed) = observe(&prepared, place, Pass::Throughput) else { panic!("other pass") };
        assert_eq!(timed.failed_allocations, 0, "{name}");
        check_seal(timed.seal, interpreter);
        let Observation::Latency(latency) = observe(&prepared, place, Pass::Latency) else { panic!("another pass") };
        let calls: u64 = latency.cells.iter().map(|cell| cell.histogram.total()).sum();
        assert_eq!(calls, prepared.images[0].compiled.summary.calls_by_phase[1], "{name}");

        let real = footprint(&prepared, place);
        check_seal(real.seal, interpreter);
        assert_eq!(real.failed_allocations, 0, "{name}");
        check_sizes(&real, &model, interpreter);
        // An arena that the kernel did not align to 16 KiB has a pool less, so that one arena more may be needed.
        for (real, model) in [(real.peak, model.peak), (real.end, model.end)] {
            let apart = real.mapped_bytes.abs_diff(model.mapped_bytes);
            assert!(apart < 3 << 19, "{name}: {} against {} bytes mapped", real.mapped_bytes, model.mapped_bytes);
        }
    }
}

#[test]
fn the_mimalloc_of_an_interpreter_serves_what_was_recorded() {
    let Some(interpreter) = interpreters().into_iter().rfind(|interpreter| interpreter.minor >= 13) else {
        println!("NOT RUN: no CPython 3.13 or later with a shared libpython is here");
        return;
    };
    let config = parse_config(&format!("cpython-mimalloc:{}", interpreter.program.display())).unwrap();
    let ask = |arguments: &[&str], without: &str| {
        let variables = config.variables.iter().filter(|(name, _)| name != without);
        let mut worker = std::process::Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
        let output = worker.arg("worker").args(arguments).env_clear().envs(variables.cloned()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let facts = ask(&["--facts", "cpython-mimalloc"], "");
    let version = format!("CPython {}'s mimalloc (shared libpython", interpreter.version);
    assert!(facts.contains(&version) && facts.contains("purge_delay"), "{facts}");
    let held = ask(&["--self-test", "cpython-mimalloc"], "");
    assert!(held.contains("cpython-mimalloc keeps the heap contract"), "{held}");
    // Without the variable the library has chosen its pools, and says so.
    let refused = ask(&["--facts", "cpython-mimalloc"], "PYTHONMALLOC");
    assert!(refused.contains("does not run on its mimalloc") && refused.contains("pymalloc"), "{refused}");

    let prepared = prepared(vec![config]);
    let Observation::Throughput(timed) = observe(&prepared, 0, Pass::Throughput) else { panic!("another pass") };
    assert_eq!(timed.failed_allocations, 0);
    check_seal(timed.seal, &interpreter);
    let read = footprint(&prepared, 0);
    check_seal(read.seal, &interpreter);
    assert!(
        read.failed_allocations == 0
            && read.pools.is_none()
            && read.peak.resident_bytes > read.peak.requested_bytes / 2
    );
}

#[test]
fn every_interpreter_says_what_it_is() {
    let interpreters = interpreters();
    let configs: Vec<Config> = interpreters.iter().map(|interpreter| config(&interpreter.program)).collect();
    let report = report(Path::new(env!("CARGO_BIN_EXE_pyalloc-bench")), &configs).unwrap();
    for ((interpreter, config), facts) in interpreters.iter().zip(&configs).zip(&report.allocators) {
        let facts = config.facts(facts, &[]);
        let own = facts.allocators.iter().find(|facts| facts.key == "cpython").unwrap();
        let start = format!("CPython {} (shared libpython", interpreter.version);
        assert!(own.version.starts_with(&start) && own.version.contains(" over glibc "), "{own:?}");
        assert_eq!(own.options["interpreter"], interpreter.linkage.name());
        assert!(!own.options["build"].is_empty(), "{own:?}");
        assert!(!serde_json::to_string(&facts).unwrap().contains(interpreter.program.to_str().unwrap()), "{facts:?}");
    }
}
