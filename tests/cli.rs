//! The binary as a user meets it: what goes right, and what goes wrong with a sentence.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;

use binary::{bench, output, wait_for};
use pyalloc_bench::run::{self, Outcome, Run};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, Phase, TraceWriter, WriteOptions};

/// Long enough for a loaded machine; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A trace of `rounds` rounds in `steady`: blocks of all domains come and go, every tenth stays.
fn write_trace(path: &Path, rounds: u32) {
    let metadata = Metadata {
        source: "test".into(),
        marks: Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect(),
        ..Metadata::default()
    };
    let mut writer = TraceWriter::new(File::create(path).unwrap(), &metadata, WriteOptions::default()).unwrap();
    let mut time = 0;
    let mut push = |writer: &mut TraceWriter<File>, kind| {
        time += 100;
        writer.push(Event { time, kind }).unwrap();
    };
    push(&mut writer, EventKind::Mark { mark: Phase::Steady as u32 });
    for round in 0..rounds {
        let slot = writer.next_slot();
        let domain = Domain::ALL[round as usize % 6];
        let size = 16 + u64::from(round % 97) * 32;
        push(
            &mut writer,
            EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: round % 7 == 0, touched: None, site: 0 },
        );
        if round % 13 == 0 {
            push(&mut writer, EventKind::Realloc { slot, size: size * 2, touched: None, site: 0 });
        }
        if round % 10 != 0 {
            push(&mut writer, EventKind::Free { slot });
        }
    }
    push(&mut writer, EventKind::Mark { mark: Phase::Finalising as u32 });
    writer.finish().unwrap();
}

/// A folder with a small trace, and the arguments that replay it quickly into `out`.
fn sample(rounds: u32) -> (TempDir, PathBuf, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("sample.trace");
    write_trace(&trace, rounds);
    let out = folder.path().join("out");
    let words = ["replay", trace.to_str().unwrap(), "--blocks", "2", "--seed", "5", "--allow-debug-build", "-o"];
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.push(out.to_str().unwrap().to_owned());
    (folder, out, arguments)
}

fn failures(runs: &[Run]) -> Vec<&str> {
    let reason = |run: &'_ Run| match &run.outcome {
        Outcome::Failed { .. } => true,
        Outcome::Ok(_) => false,
    };
    runs.iter()
        .filter(|run| reason(run))
        .map(|run| match &run.outcome {
            Outcome::Failed { reason, .. } => reason.as_str(),
            Outcome::Ok(_) => "",
        })
        .collect()
}

fn lines_of(out: &Path) -> usize {
    fs::read_to_string(out.join("latest/runs.jsonl")).map_or(0, |text| text.lines().count())
}

/// The worker processes below this process.
fn workers_of(parent: &Child) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", parent.id())).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"\0worker\0")))
        .collect()
}

fn kill(pid: u32) -> bool {
    Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_replay_measures_every_cell_and_its_report_can_be_rebuilt() {
    let (_folder, out, arguments) = sample(4_000);
    let (code, stdout, stderr) = output(bench().args(&arguments).args(["--idle", "0,20"]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let (environment, runs) = run::read(&out.join("latest")).unwrap();
    assert_eq!(failures(&runs), Vec::<&str>::new());
    // Five contestants (`today` too, as Arrow is asked), two of the floor and the baseline's control in two throughput
    // blocks; the contestants once in each other pass.
    assert_eq!(runs.len(), 2 * 8 + 5 + 5);
    assert_eq!(runs.iter().filter(|run| run.config == "today-again").count(), 2);
    assert!(
        runs.iter().all(|run| run.config != "pool-again"),
        "where `today` is the baseline, `pool` needs no control"
    );
    assert!(runs.iter().enumerate().all(|(i, run)| run.seq == i as u32));
    assert_eq!(environment.plan.seed, 5);
    assert!(environment.configs.iter().all(|config| config.allocators.iter().all(|a| !a.version.is_empty())));
    assert!(stdout.contains("report.html"), "{stdout}");
    assert!(stdout.contains("A/A: inconclusive"), "{stdout}");
    // How long in all, before the first run; and nothing but whole lines where there is no terminal.
    assert!(stderr.contains("26 runs, about ") && stderr.contains("26 of 26 runs"), "{stderr}");
    assert!(!stderr.contains(['\x1b', '\r']) && !stdout.contains('\x1b'), "{stderr}{stdout}");

    let read_all = || -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<PathBuf> = vec![];
        for folder in [out.join("latest"), out.join("latest/charts")] {
            files.extend(fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().path()).filter(|p| p.is_file()));
        }
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let before = read_all();
    let (code, ..) = output(bench().arg("report").arg(out.join("latest")));
    assert_eq!(code, 0);
    assert!(before == read_all(), "a second report differs from the first");
}

#[test]
fn a_budget_chooses_the_repetitions_and_says_why() {
    let (_folder, out, mut arguments) = sample(2_000);
    let blocks = arguments.iter().position(|word| word == "--blocks").unwrap();
    arguments.drain(blocks..blocks + 2);
    let words = ["-c", "system", "-c", "pool", "--idle", "0", "--budget", "3s"];
    let (code, stdout, stderr) = output(bench().args(&arguments).args(words));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let (environment, runs) = run::read(&out.join("latest")).unwrap();
    let mut plan = environment.plan;
    let budget = plan.budget.take().unwrap();
    assert!(budget.budget_ms == 3_000 && !budget.reasons.is_empty(), "{budget:?}");
    assert!(budget.reasons.iter().all(|reason| stderr.contains(reason)), "{stderr}");
    // What ran is what was chosen: two contestants, the floor and the control in each block.
    let throughput = runs.iter().filter(|run| run.pass == run::Pass::Throughput).count() as u32;
    assert!(plan.blocks >= 1 && throughput == 5 * plan.blocks, "{plan:?}, {throughput} runs");
}

#[test]
fn an_image_can_be_streamed_through_windows() {
    let (_folder, out, arguments) = sample(4_000);
    // About 8,000 ops through windows of 1,000: every window is used several times.
    let (code, stdout, stderr) = output(bench().args(&arguments).args(["--idle", "0", "--window-ops", "1000"]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    let (environment, runs) = run::read(&out.join("latest")).unwrap();
    assert_eq!(failures(&runs), Vec::<&str>::new());
    assert!(environment.workloads[0].image.ops > 7_000);
}

#[test]
fn a_child_killed_in_the_middle_is_a_recorded_failure() {
    let (_folder, out, arguments) = sample(2_000);
    let mut parent = bench()
        .args(&arguments)
        .args(["--idle", "0,1500"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the first lines", PATIENCE, || (lines_of(&out) >= 21).then_some(()));
    // The footprint children idle now, long enough to be met alive.
    wait_for("a worker to kill", PATIENCE, || workers_of(&parent).first().copied().filter(|pid| kill(*pid)));
    let code = parent.wait().unwrap().code();
    let mut stderr = String::new();
    parent.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(code, Some(1), "{stderr}");
    let (_, runs) = run::read(&out.join("latest")).unwrap();
    assert_eq!(runs.len(), 26);
    let failures = failures(&runs);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("SIGKILL"), "{failures:?}");
    assert!(stderr.contains("SIGKILL"), "{stderr}");
}

#[test]
fn an_interrupted_run_keeps_what_it_has() {
    let (_folder, out, arguments) = sample(2_000);
    let mut parent = bench()
        .args(&arguments)
        .args(["--idle", "0,1500"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the first lines", PATIENCE, || (lines_of(&out) >= 3).then_some(()));
    assert!(kill(parent.id()));
    parent.wait().unwrap();
    let (_, runs) = run::read(&out.join("latest")).unwrap();
    assert!(runs.len() >= 3);
    let (code, stdout, stderr) = output(bench().arg("report").arg(out.join("latest")));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
}

#[test]
fn wrong_words_are_told_from_right_ones() {
    let (_folder, _, arguments) = sample(10);
    for (extra, expected) in [
        (&["-c", "tcmalloc"][..], "pool, system, mimalloc, jemalloc"),
        (&["-c", "MALLOC_ARENAMAX=2"], "Did you mean MALLOC_ARENA_MAX?"),
        (&["-c", "numpy=nothing"], "nothing"),
        (&["-c", "pool", "-c", "pool"], "twice"),
        (&["-c", "cpython:/nonexistent/python"], "does not run as Python"),
        (&["-c", "numpy=cpython"], "python=cpython"),
        (&["no-such-workload"], "no-such-workload"),
        (&["--blocks", "0"], "blocks"),
    ] {
        let (code, stdout, stderr) = output(bench().args(&arguments).args(extra));
        assert_eq!(code, 2, "{extra:?}: {stdout}\n{stderr}");
        assert!(stderr.contains(expected), "{extra:?}: {stderr}");
        assert!(stdout.is_empty(), "{stdout}");
    }
}

#[test]
fn a_damaged_trace_is_a_sentence_and_leaves_no_result() {
    let (folder, out, arguments) = sample(2_000);
    let good = fs::read(folder.path().join("sample.trace")).unwrap();
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let random: Vec<u8> = (0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (name, bytes) in [
        ("empty", vec![]),
        ("random", random),
        ("text", b"import pandas\n".to_vec()),
        ("truncated", good[..good.len() - 20].to_vec()),
        ("short", good[..40].to_vec()),
        ("wrong-version", flipped(8)),
        ("flipped", flipped(good.len() / 2)),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let path = path.to_str().unwrap();
        let mut replay = arguments.clone();
        replay[1] = path.to_owned();
        for command in
            [&replay[..], &["inspect".into(), path.into()], &["trace".into(), "validate".into(), path.into()]]
        {
            let (code, stdout, stderr) = output(bench().args(command));
            assert_eq!(code, 2, "{name} {command:?}: {stdout}\n{stderr}");
            let last = stderr.trim().lines().last().unwrap();
            assert!(last.contains(name) && last.ends_with('.'), "{name}: {stderr}");
            assert!(!stderr.contains("panicked"), "{name}: {stderr}");
        }
    }
    assert!(!out.exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_a_sentence() {
    let (folder, _, mut arguments) = sample(10);
    let file = folder.path().join("a-file");
    fs::write(&file, "x").unwrap();
    // Nobody may make a folder in the first, not even the superuser; the second is no folder.
    for place in ["/proc/pyalloc-bench", file.to_str().unwrap()] {
        *arguments.last_mut().unwrap() = place.to_owned();
        let (code, stdout, stderr) = output(bench().args(&arguments));
        assert_eq!(code, 2, "{stdout}\n{stderr}");
        assert!(stderr.contains(place) && stderr.contains("-o DIR"), "{stderr}");
    }
}

#[test]
fn a_debug_build_refuses_to_measure() {
    let (_folder, _, mut arguments) = sample(10);
    arguments.retain(|word| word != "--allow-debug-build");
    let (code, stdout, stderr) = output(bench().args(&arguments).args(["--idle", "0"]));
    if cfg!(debug_assertions) {
        assert_eq!(code, 2, "{stdout}");
        assert!(stderr.contains("cargo run --release"), "{stderr}");
    } else {
        assert_eq!(code, 0, "{stderr}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (folder, ..) = sample(10);
    let trace = folder.path().join("sample.trace");
    for arguments in [
        vec!["replay", "--list"],
        vec!["inspect", trace.to_str().unwrap()],
        vec!["--help"],
        vec!["trace", "text", trace.to_str().unwrap()],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let done = bench().args(&arguments).stdout(writer).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{arguments:?} {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn a_trace_can_be_looked_into_and_checked() {
    let (folder, ..) = sample(2_000);
    let trace = folder.path().join("sample.trace");
    let (code, stdout, stderr) = output(bench().arg("inspect").arg(&trace));
    assert_eq!(code, 0, "{stderr}");
    for section in ["totals", "phases", "domains", "threads", "how blocks died", "sizes, bytes", "lifetimes"] {
        assert!(stdout.contains(section), "{section}: {stdout}");
    }
    let (code, stdout, _) = output(bench().args(["trace", "validate"]).arg(&trace));
    assert_eq!(code, 0);
    assert!(stdout.starts_with("valid: 4.0 k events, 2.0 k allocations"), "{stdout}");
    let (code, stdout, _) = output(bench().args(["trace", "text"]).arg(&trace));
    assert_eq!((code, stdout.lines().filter(|line| line.starts_with("a ")).count() > 1_000), (0, true));
    let cut = folder.path().join("cut.trace");
    let (code, _, stderr) = output(bench().args(["trace", "cut", "--events", "500", "-o"]).arg(&cut).arg(&trace));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(output(bench().args(["trace", "validate"]).arg(&cut)).0, 0);
}

#[test]
fn a_packed_trace_is_smaller_and_says_the_same() {
    let (folder, ..) = sample(20_000);
    let (trace, packed) = (folder.path().join("sample.trace"), folder.path().join("packed.trace"));
    let (code, _, stderr) = output(bench().args(["trace", "pack", "-o"]).arg(&packed).arg(&trace));
    assert_eq!(code, 0, "{stderr}");
    let text = |path: &Path| output(bench().args(["trace", "text"]).arg(path));
    assert_eq!(text(&packed), text(&trace));
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(bytes(&packed) < bytes(&trace), "{} against {}", bytes(&packed), bytes(&trace));
}

#[test]
fn the_allocators_keep_the_heap_contract() {
    let (code, stdout, stderr) = output(bench().args(["doctor", "--self-test"]));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    for key in ["pool", "system", "mimalloc", "jemalloc"] {
        assert!(stdout.contains(&format!("{key} keeps the heap contract")), "{stdout}");
    }
    let cpython = stdout.lines().last().unwrap();
    assert!(cpython.starts_with("cpython keeps the heap contract (CPython 3") || cpython.contains("was not held"));
}
