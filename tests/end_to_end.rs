//! The whole path on real programs: the binary records a Python program, looks into the trace and replays it on every
//! allocator.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use pyalloc_bench::run::{self, Outcome};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CONTESTANTS: [&str; 4] = ["pool", "system", "mimalloc", "jemalloc"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pyalloc-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Records `code` and returns the trace; the program's output and exit code must come through.
fn record(folder: &Path, python: &Path, code: &str, expected: (&str, i32), more: &[&str]) -> PathBuf {
    let program = folder.join("program.py");
    fs::write(&program, code).unwrap();
    let trace = folder.join("app.trace");
    let mut arguments = vec!["record", "-o", trace.to_str().unwrap()];
    arguments.extend(more);
    arguments.extend(["--", python.to_str().unwrap(), program.to_str().unwrap()]);
    let output = bench(&arguments);
    assert_eq!((text(&output.stdout).trim(), output.status.code()), (expected.0, Some(expected.1)), "{output:?}");
    trace
}

/// Replays on all four allocators; every run must have measured, with the calls of the trace.
fn replay(folder: &Path, trace: &Path) {
    let results = folder.join("results");
    let mut arguments = vec!["replay", trace.to_str().unwrap(), "--quick", "--idle", "0,50", "--allow-debug-build"];
    arguments.extend(["-o", results.to_str().unwrap()]);
    let output = bench(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    for contestant in CONTESTANTS {
        assert!(table.contains(contestant), "{contestant} is missing in\n{table}");
    }
    let (environment, runs) = run::read(&results.join("latest")).unwrap();
    let failed: Vec<_> = runs.iter().filter(|run| matches!(run.outcome, Outcome::Failed { .. })).collect();
    assert!(failed.is_empty(), "{failed:?}");
    for contestant in CONTESTANTS {
        assert!(runs.iter().any(|run| run.config == contestant), "{contestant} never ran");
        let config = environment.configs.iter().find(|config| config.name == contestant).unwrap();
        assert!(config.allocators.iter().all(|allocator| !allocator.version.is_empty()), "{config:?}");
    }
    assert!(results.join("latest/report.html").exists());
}

#[test]
fn a_pure_python_program() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "import ctypes, json, sys\n\
                mark = getattr(ctypes.CDLL(None), 'pyalloc_mark', lambda name: None)\n\
                mark(b'steady')\n\
                rows = json.loads(json.dumps([{'id': i, 'name': str(i) * 3} for i in range(20000)]))\n\
                print(len(rows))\n\
                del rows\n\
                mark(b'drained')\n\
                sys.exit(7)\n";
    let trace = record(folder.path(), &python.path, code, ("20000", 7), &[]);
    let inspected = bench(&["inspect", trace.to_str().unwrap()]);
    assert_eq!(inspected.status.code(), Some(0));
    for word in ["steady", "drained", "finalising", "obj", "mem"] {
        assert!(text(&inspected.stdout).contains(word), "{word} is missing in\n{}", text(&inspected.stdout));
    }
    replay(folder.path(), &trace);
}

#[test]
fn an_arrow_program_with_threads() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "import io, threading\n\
                import pyarrow as pa, pyarrow.compute as pc, pyarrow.parquet as pq\n\
                table = pa.table({'key': [i % 50 for i in range(40000)], 'value': [float(i) for i in range(40000)]})\n\
                buffer = io.BytesIO(); pq.write_table(table, buffer)\n\
                def serve():\n    \
                    for _ in range(5):\n        \
                        read = pq.read_table(io.BytesIO(buffer.getvalue()))\n        \
                        read.filter(pc.greater(read['value'], 100.0)).group_by('key').aggregate([('value', 'sum')])\n\
                threads = [threading.Thread(target=serve) for _ in range(3)]\n\
                [thread.start() for thread in threads]; [thread.join() for thread in threads]\n\
                print('served')\n";
    let trace = record(folder.path(), &python, code, ("served", 0), &[]);
    let (metadata, _) = support::read(&trace);
    assert!(metadata.totals.calls_by_domain.get("arrow").is_some_and(|calls| *calls > 100), "{:?}", metadata.totals);
    assert!(metadata.totals.calls_by_thread.len() >= 4, "{:?}", metadata.totals.calls_by_thread);
    replay(folder.path(), &trace);
}

#[test]
fn a_forked_worker() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "import os\n\
                child = os.fork()\n\
                if child == 0:\n    \
                    kept = [str(i) * 10 for i in range(20000)]\n    \
                    os._exit(0)\n\
                os.waitpid(child, 0)\n\
                print('waited')\n";
    let main = record(folder.path(), &python.path, code, ("waited", 0), &["--all"]);
    let traces = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_trace = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "trace");
    let worker = traces.filter(is_trace).find(|path| *path != main).expect("the child has a trace of its own");
    let (metadata, _) = support::read(&worker);
    assert!(metadata.totals.allocs > 20_000, "{:?}", metadata.totals);
    replay(folder.path(), &worker);
}
