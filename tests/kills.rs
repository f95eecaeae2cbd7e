//! What a signal leaves behind: no process, no folder without runs, and every finished run.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;

use binary::{bench, output, wait_for};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long enough for a loaded machine; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a child may outlive its parent.
const AFTER: Duration = Duration::from_secs(2);
/// One child each for `system`, its control and the two of the floor.
const TIMED: usize = 4;

fn start(arguments: &[&str], folder: &Path) -> Child {
    let mut command = bench();
    command.args(arguments).arg("--allow-debug-build").arg("-o").arg(folder.join("out"));
    if arguments[0] == "live" {
        command.args(["--", "sleep", "600"]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A replay whose last child idles for ten minutes.
fn replay(folder: &Path) -> Child {
    let words = ["replay", "small-objects", "--quick", "-c", "system", "--blocks", "1", "--latency-runs", "0"];
    start(&[&words[..], &["--footprint-runs", "1", "--idle", "0,600000"]].concat(), folder)
}

/// The children of a process, and how each was called.
fn children(parent: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<u32> =
        lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    let line = |pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.into_iter().map(|pid| (pid, line(pid))).collect()
}

/// A child of this process that was called so.
fn child(parent: &Child, words: &str) -> u32 {
    wait_for(words, PATIENCE, || children(parent.id()).into_iter().find(|(_, line)| line.contains(words))).0
}

/// The replay's last child, once the runs before it are written.
fn idling(parent: &Child, folder: &Path) -> u32 {
    let runs = folder.join("out/latest/runs.jsonl");
    let lines = || fs::read_to_string(&runs).map_or(0, |text| text.lines().count());
    wait_for("the timed runs", PATIENCE, || (lines() == TIMED).then_some(()));
    child(parent, "\0worker\0")
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// That a process is gone, or waits for nothing but being collected.
fn ends(pid: u32) {
    let is_gone = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with(['Z', 'X'])),
        Err(_) => true,
    };
    wait_for("the end of a child", AFTER, || is_gone().then_some(()));
}

/// The exit code of a parent that a signal stopped, and its last words.
fn last_words(mut parent: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    parent.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (parent.wait().unwrap().code(), said)
}

#[test]
fn a_worker_ends_with_a_killed_replay() {
    let folder = tempfile::tempdir().unwrap();
    let mut parent = replay(folder.path());
    let worker = idling(&parent, folder.path());
    parent.kill().unwrap();
    parent.wait().unwrap();
    ends(worker);
}

#[test]
fn the_program_ends_with_a_killed_live() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["live", "small-objects", "-c", "today", "--runs", "1", "--predictions", "1", "--timings", "0"];
    let mut parent = start(&[&words[..], &["--idle", "0", "--paced=0"]].concat(), folder.path());
    let program = child(&parent, "sleep\x00600\x00");
    parent.kill().unwrap();
    parent.wait().unwrap();
    ends(program);
    assert!(!folder.path().join("out").exists(), "a comparison that was not finished is not written");
}

#[test]
fn an_interrupted_replay_names_the_runs_that_it_keeps() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        let parent = replay(folder.path());
        let worker = idling(&parent, folder.path());
        signal(name, parent.id());
        let (ended, said) = last_words(parent);
        ends(worker);
        let result = folder.path().join("out/latest").canonicalize().unwrap();
        let sentence = format!("4 of 5 runs are kept: pyalloc-bench report {}", result.display());
        assert!(ended == Some(code) && said.contains(&sentence), "{ended:?}: {said}");
        let (code, stdout, stderr) = output(bench().arg("report").arg(&result));
        assert_eq!(code, 0, "{stdout}{stderr}");
    }
}

/// A replay that waits for a child which was stopped before anything was written. Such a child lives for milliseconds,
/// so that it may be missed.
fn held_before_its_first_run(folder: &Path) -> Child {
    for _ in 0..100 {
        let mut parent = replay(folder);
        while !folder.join("out").exists() {
            let Some((pid, _)) = children(parent.id()).into_iter().find(|(_, line)| line.contains("\0worker\0")) else {
                continue;
            };
            let stop = Command::new("kill").args(["-STOP", &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
            let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stop.success() && state().contains(") T ") && !folder.join("out").exists() {
                return parent;
            }
        }
        parent.kill().unwrap();
        parent.wait().unwrap();
        fs::remove_dir_all(folder.join("out")).unwrap();
    }
    panic!("no child was met before the first run");
}

#[test]
fn a_replay_that_is_interrupted_before_its_first_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let parent = held_before_its_first_run(folder.path());
    let held: Vec<(u32, String)> = children(parent.id());
    signal("-INT", parent.id());
    let (code, said) = last_words(parent);
    assert!(code == Some(130) && said.contains("Nothing was written"), "{code:?}: {said}");
    assert!(!folder.path().join("out").exists());
    held.into_iter().for_each(|(pid, _)| ends(pid));
}
