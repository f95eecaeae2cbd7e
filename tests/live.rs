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
    run_as(command, added, false)
}

fn run_as(command: &[&str], added: &[(&str, &str)], of_child: bool) -> Result<RealRun, String> {
    let command: Vec<OsString> = command.iter().map(OsString::from).collect();
    let library = recorder::announcer().unwrap();
    let announcer = library.path().to_owned();
    let (path, idle_ms) = (recorder::check(&command).unwrap(), vec![0, 20]);
    let program = Program { path, command, announcer, idle_ms, limit: LIMIT, of_child };
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
        // What the interpreter makes for its standard streams depends on what they are; those of `live` are pipes. A
        // first run may compile modules, whose objects the second does not have.
        for _ in 0..2 {
            let mut plain = Command::new(command[0]);
            plain.args(&command[1..]).env("PYTHONHASHSEED", "0");
            assert!(plain.output().unwrap().status.success());
        }
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
fn once_it_was_idle_a_program_may_end_in_any_way() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let work = "import ctypes, os, sys; mark = ctypes.CDLL(None).pyalloc_mark; mark(b'steady'); \
                rows = [str(i) for i in range(20000)]; del rows; mark(b'drained'); ";
    for (end, ended, has_end) in [
        ("os.kill(os.getpid(), 15)", Some("by SIGTERM"), false),
        ("os.kill(os.getpid(), 9)", Some("by SIGKILL"), false),
        ("os.abort()", Some("by SIGABRT"), false),
        ("os._exit(5)", Some("with code 5"), false),
        ("os._exit(0)", None, false),
        ("raise SystemExit(3)", Some("with code 3"), true),
        ("raise ValueError('late')", Some("with code 1"), true),
        ("pass", None, true),
    ] {
        let run = run(&[python.path.to_str().unwrap(), "-c", &format!("{work}{end}")], &[]);
        let run = run.unwrap_or_else(|e| panic!("{end}: {e}"));
        assert_eq!((run.ended.as_deref(), run.end_bytes.is_some()), (ended, has_end), "{end}");
        assert!(run.peak_bytes > 1 << 20 && run.rest.len() == 2 && run.faults_minor > Some(100), "{end}: {run:?}");
    }
}

/// Ends well every other time that it is started, and otherwise by a signal before it marks anything.
const FLAKY: &str = "\
import os, sys
count = sys.argv[1]
with open(count, 'a') as file: file.write('x')
if os.path.getsize(count) % 2 == 0: os.kill(os.getpid(), 9)
rows = [str(i) for i in range(20000)]
";

#[test]
fn a_run_that_fails_costs_that_run() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (program, trace, count) =
        (folder.path().join("flaky.py"), folder.path().join("app.trace"), folder.path().join("count"));
    fs::write(&program, FLAKY).unwrap();
    let command = [python.path.to_str().unwrap(), program.to_str().unwrap(), count.to_str().unwrap()];
    let done = bench(&[&["record", "-o", trace.to_str().unwrap(), "--"][..], &command].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let more = ["-c", "today", "--runs", "6", "--timings", "0", "--predictions", "1", "--idle", "0"];
    let last = ["--json", "--allow-debug-build", "--"];
    let done = bench(&[&["live", trace.to_str().unwrap()][..], &more, &last, &command].concat());
    let all: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&done.stderr)));
    let found: Fidelity = serde_json::from_value(all["found"].clone()).unwrap();
    let runs: usize = found.configs.iter().map(|config| config.real.len()).sum();
    let failures: Vec<&String> = found.configs.iter().flat_map(|config| &config.failures).collect();
    assert_eq!((runs, failures.len(), done.status.code()), (3, 3, Some(1)), "{failures:?}");
    assert!(failures.iter().all(|reason| reason.contains("by SIGKILL")), "{failures:?}");
}

#[test]
fn the_trace_of_a_child_is_compared_with_a_child() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (program, trace) = (folder.path().join("prefork.py"), folder.path().join("app.trace"));
    let code = "import ctypes, os\nmark = getattr(ctypes.CDLL(None), 'pyalloc_mark', lambda name: None)\n\
                if os.fork() == 0:\n    mark(b'steady')\n    rows = [str(i) for i in range(300000)]\n    del rows\n    \
                mark(b'drained')\n    os._exit(0)\nos.wait()\n";
    fs::write(&program, code).unwrap();
    let command = [python.path.to_str().unwrap(), program.to_str().unwrap()];
    let (child, own) = (run_as(&command, &[], true).unwrap(), run_as(&command[..1], &[], true).unwrap_err());
    assert!(child.has_steady && child.rest_from == "drained" && child.other_marks == 1, "{child:?}");
    assert!(child.peak_bytes > 15 << 20, "the child's peak and not its parent's: {child:?}");
    assert!(own.contains("came from the program itself"), "{own}");

    let done = bench(&[&["record", "-o", trace.to_str().unwrap(), "--"][..], &command].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let others = fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path());
    let of_child = others.filter(|path| *path != trace && path.extension().is_some_and(|kind| kind == "trace"));
    let of_child = of_child.collect::<Vec<_>>();
    assert_eq!(of_child.len(), 1, "{of_child:?}");
    let more = ["-c", "today", "--runs", "1", "--timings", "0", "--predictions", "1", "--idle", "0"];
    let last = ["--json", "--allow-debug-build", "--"];
    let done = bench(&[&["live", of_child[0].to_str().unwrap()][..], &more, &last, &command].concat());
    let all: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&done.stderr)));
    let found: Fidelity = serde_json::from_value(all["found"].clone()).unwrap();
    assert!(found.notes.iter().any(|note| note.contains("the first child")), "{:?}", found.notes);
    let run = &found.configs[0].real[0];
    assert!(run.has_steady && run.rest_from == "drained" && run.peak_bytes > 15 << 20, "{run:?}");
}

#[test]
fn threads_that_were_joined_are_gone_at_rest_and_each_counts() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (program, trace) = (folder.path().join("threads.py"), folder.path().join("app.trace"));
    // jemalloc gives an arena back when its last thread ends. The threads take 30 ms to end.
    let code = "import ctypes, threading\nlibc = ctypes.CDLL(None)\n\
                mark = getattr(libc, 'pyalloc_mark', lambda name: None)\nkey = ctypes.c_uint()\n\
                libc.pthread_key_create(ctypes.byref(key), libc.usleep)\n\
                def work():\n    libc.pthread_setspecific(key, ctypes.c_void_p(30000))\n    \
                rows = ['x' * 5000 for _ in range(2000)]\n\
                mark(b'steady')\nheld = [str(i) for i in range(100000)]\n\
                for _ in range(4):\n    thread = threading.Thread(target=work)\n    thread.start()\n    thread.join()\n\
                mark(b'drained')\n";
    fs::write(&program, code).unwrap();
    let command = [python.path.to_str().unwrap(), program.to_str().unwrap()];
    let done = bench(&[&["record", "-o", trace.to_str().unwrap(), "--"][..], &command].concat());
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let more = ["-c", "jemalloc", "-c", "today", "--timings", "0", "--predictions", "1", "--idle", "1000", "--json"];
    let done = bench(&[&["live", trace.to_str().unwrap()][..], &more, &["-q", "--allow-debug-build"]].concat());
    let all: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&done.stderr)));
    let found: Fidelity = serde_json::from_value(all["found"].clone()).unwrap();
    assert_eq!(
        (found.threads, found.mode),
        (5, Some(pyalloc_bench::run::Mode::Gil)),
        "each made 2 % of the calls or less"
    );
    let of = |config: usize| &found.configs[config].replayed[0];
    let lost = of(0).peak_bytes - of(0).rest[0].1;
    assert!(lost > 8 << 20, "the threads' arenas are kept: {:?}", of(0));
    let other = of(1).peak_bytes_all;
    assert!(other < 40 << 20, "today: {:?}", of(1));
}

#[test]
fn a_program_without_figures_is_a_sentence() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (code, expected) in [
        ("import os, sys; print('no luck', file=sys.stderr, flush=True); os._exit(4)", "ended with code 4"),
        ("import os, sys; print('no luck', file=sys.stderr, flush=True); os._exit(4)", ": no luck."),
        ("import os; os.kill(os.getpid(), 15)", "ended by SIGTERM before it was idle"),
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
