//! `live` on real interpreters: a recorded program run for real under two configurations, its figures beside the
//! replay's; exits noticed, children told apart, wrong inputs refused.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use pyalloc_bench::measure::Cell;
use pyalloc_bench::measure::live::Program;
use pyalloc_bench::run::{Fidelity, Pass, RealRun};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// Ends a program that hangs; no test waits for it otherwise.
const LIMIT: Duration = Duration::from_secs(300);
/// Objects that come, half of which go; a child that ends as an interpreter does.
const PROGRAM: &str = "import ctypes, os, sys\n\
                       mark = getattr(ctypes.CDLL(None), 'pyalloc_mark', lambda name: None)\n\
                       mark(b'steady')\n\
                       rows = [{'id': i, 'name': str(i) * 3} for i in range(60000)]\n\
                       rows = rows[::2]\n\
                       mark(b'drained')\n\
                       if os.fork() == 0:\n\
                       \x20   sys.exit(0)\n\
                       os.wait()\n";

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
    // A configuration says what allocates, not the environment of the tests.
    command.env("MALLOC_ARENA_MAX", "1").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes the program and records it; its file and its trace.
fn record(folder: &Path, python: &str) -> (PathBuf, PathBuf) {
    let (program, trace) = (folder.join("program.py"), folder.join("app.trace"));
    fs::write(&program, PROGRAM).unwrap();
    let done = bench(&["record", "-o", trace.to_str().unwrap(), "--", python, program.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    (program, trace)
}

/// Runs a command once under the announcer, in the environment of the tests and what is added.
fn run(command: &[&str], added: &[(&str, &str)]) -> Result<RealRun, String> {
    let command: Vec<OsString> = command.iter().map(OsString::from).collect();
    let library = recorder::announcer().unwrap();
    let announcer = library.path().to_owned();
    let program =
        Program { path: recorder::check(&command).unwrap(), command, announcer, idle_ms: vec![0, 20], limit: LIMIT };
    let added = added.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let cell = Cell { workload: 0, config: 0, pass: Pass::Footprint, block: 3, padding_bytes: 100 };
    program.run(&cell, &std::env::vars_os().chain(added).collect::<Vec<_>>())
}

#[test]
fn predictions_stand_beside_real_runs_and_reports_quote_them() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let (folder, python) = (tempfile::tempdir().unwrap(), python.path.to_str().unwrap());
    let (program, trace) = record(folder.path(), python);
    let mut arguments = vec!["live", trace.to_str().unwrap(), "-c", "today", "-c", "PYTHONMALLOC=malloc"];
    arguments.extend(["--runs", "3", "--timings", "1", "--idle", "0,20", "--json", "--allow-debug-build", "--"]);
    arguments.extend([python, program.to_str().unwrap()]);
    let done = bench(&arguments);
    let all: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&done.stderr)));
    let stored = fs::read(Fidelity::path_beside(&trace)).unwrap();
    let found: Fidelity = serde_json::from_slice(&stored).unwrap();
    assert_eq!(serde_json::from_value::<Fidelity>(all["found"].clone()).unwrap(), found);
    assert!(found.notes.iter().any(|note| note.contains("MALLOC_ARENA_MAX")), "{:?}", found.notes);

    assert_eq!(found.configs.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["today", "PYTHONMALLOC=malloc"]);
    for config in &found.configs {
        assert_eq!((config.real.len(), config.replayed.len(), config.replayed_ns.len()), (3, 3, 1), "{config:?}");
        assert_eq!(config.failures, Vec::<String>::new());
        for run in &config.real {
            assert!(run.has_steady && run.rest_from == "drained" && run.rest.len() == 2, "{run:?}");
            assert!(run.cpu_ns.is_some() && run.other_marks > 0, "the child's exit is not followed: {run:?}");
            assert!(run.rss_bytes_peak > run.peak_bytes && run.no_heap_bytes > 0, "{run:?}");
        }
    }
    let rows = all["judgement"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 8, "peak, end and two rests of two configurations");
    for row in rows {
        let error = row["error"].as_f64().unwrap();
        assert!(error.abs() < 0.10, "{row}");
    }
    let is_missed = all["judgement"]["inside"] != all["judgement"]["judged"];
    assert!(!is_missed || done.status.code() == Some(1), "{done:?}");
    let kept = Fidelity::path_beside(&trace);
    let again = bench(&["live", "--kept", kept.to_str().unwrap(), "--json"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&again.stdout).unwrap(),
        all,
        "nothing ran, and nothing is judged otherwise"
    );
    let absent = bench(&["live", "--kept", folder.path().join("none.json").to_str().unwrap()]);
    assert!(absent.status.code() == Some(2) && text(&absent.stderr).contains("Correct the path"), "{absent:?}");

    let out = folder.path().join("out");
    let more = ["--quick", "--idle", "0", "--latency-runs", "0", "--quiet", "--allow-debug-build", "-c", "pool", "-o"];
    let done = bench(&[&["replay", trace.to_str().unwrap()][..], &more, &[out.to_str().unwrap()]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("figures (live, 2"), "{}", text(&done.stdout));
    for file in ["summary.md", "report.html"] {
        let report = fs::read_to_string(out.join("latest").join(file)).unwrap();
        assert!(report.contains("Fidelity: predicted memory was within"), "{file} does not quote it");
    }
}

#[test]
fn without_a_program_the_predictions_are_printed_alone() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (_, trace) = record(folder.path(), python.path.to_str().unwrap());
    let more = ["-c", "today", "-c", "libc=jemalloc", "--timings", "1", "--idle", "0", "-q", "--allow-debug-build"];
    let done = bench(&[&["live", trace.to_str().unwrap()][..], &more].concat());
    let (table, errors) = (text(&done.stdout), text(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{errors}");
    for word in ["today", "libc=jemalloc", "rest 0 ms", "CPU s", "VmHWM", "Nothing real was run"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    assert!(!Fidelity::path_beside(&trace).exists(), "nothing was compared");
}

#[test]
fn the_exit_of_every_interpreter_is_noticed() {
    let _one = support::one_at_a_time();
    let code = "import atexit, json, signal, threading, time\n\
                signal.signal(signal.SIGINT, signal.SIG_DFL)\n\
                held = [str(i) for i in range(200000)]\n\
                held[0] = held\n\
                atexit.register(held.append, 1)\n\
                threading.Thread(target=time.sleep, args=(60,), daemon=True).start()";
    for interpreter in support::interpreters() {
        for variables in [&[][..], &[("PYTHONMALLOC", "malloc")]] {
            let run = run(&[interpreter.path.to_str().unwrap(), "-c", code], variables);
            let run = run.unwrap_or_else(|e| panic!("{}: {e}", interpreter.label()));
            assert_eq!((run.block, run.has_steady, run.rest_from.as_str()), (3, false, "finalising"));
            let end = run.end_bytes.unwrap();
            assert!(
                end > 10 << 20 && run.peak_bytes >= end,
                "{}: freed before it was read: {run:?}",
                interpreter.label()
            );
        }
    }
}

#[test]
fn the_collector_runs_as_without_the_announcer() {
    let _one = support::one_at_a_time();
    let code = "import gc, sys\n\
                class Node: pass\n\
                def cycle():\n\
                \x20   node = Node(); node.other = [node]\n\
                for number in range(20000): cycle()\n\
                figures = gc.get_stats(), gc.get_count(), len(gc.get_objects())\n\
                open(sys.argv[1], 'w').write(repr(figures))";
    for interpreter in support::interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let figures = folder.path().join("figures");
        let command = [interpreter.path.to_str().unwrap(), "-c", code, figures.to_str().unwrap()];
        let mut plain = Command::new(command[0]);
        assert!(plain.args(&command[1..]).env("PYTHONHASHSEED", "0").status().unwrap().success());
        let without = fs::read_to_string(&figures).unwrap();
        run(&command, &[("PYTHONHASHSEED", "0")]).unwrap_or_else(|e| panic!("{}: {e}", interpreter.label()));
        assert_eq!(fs::read_to_string(&figures).unwrap(), without, "{}", interpreter.label());
    }
}

#[test]
fn a_program_behind_a_shell_is_followed_from_its_steady_mark() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program.py");
    fs::write(&program, PROGRAM).unwrap();
    let line = format!("{} {}; true", python.path.display(), program.display());
    let marked = run(&["sh", "-c", &line], &[]).unwrap();
    assert!(marked.has_steady && marked.end_bytes.is_some_and(|end| end > 1 << 20), "{marked:?}");
    let line = format!("{} -c 'import json'; true", python.path.display());
    let error = run(&["sh", "-c", &line], &[]).unwrap_err();
    assert!(error.contains("came from children"), "{error}");
}

#[test]
fn a_program_without_figures_is_a_sentence() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (code, expected) in [
        ("import sys; sys.exit('no luck')", "ended with code 1: no luck"),
        ("import os; os.kill(os.getpid(), 15)", "ended by SIGTERM"),
        ("import os; os._exit(0)", "without a mark"),
    ] {
        let error = run(&[python.path.to_str().unwrap(), "-c", code], &[]).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    let (_, trace) = record(folder.path(), python.path.to_str().unwrap());
    let trace = trace.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["live", "no-such.trace", "--", "true"], "neither a bundled workload nor a file"),
        (vec!["live", trace, "-c", "numpy=jemalloc", "--", "true"], "no environment brings this about"),
        (vec!["live", trace, "-c", "today", "--", "no-such-program"], "no such program"),
        (vec!["live", trace, "-c", "today", "--runs", "1", "--allow-debug-build", "--", "true"], "without a mark"),
    ] {
        let done = bench(&arguments);
        assert_eq!(done.status.code(), Some(2), "{done:?}");
        assert!(text(&done.stderr).contains(expected), "{arguments:?}: {}", text(&done.stderr));
    }
}
