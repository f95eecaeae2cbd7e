//! Outputs that are something else, another user in a shared folder: what the built binary refuses, and leaves as it
//! was.
//!
//! Invariant: what needs rights of root says `NOT RUN` without them.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

mod binary;

use binary::{bench, output};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, Phase, TraceWriter, WriteOptions};

/// The user who is not trusted.
const OTHER: u32 = 65_534;

fn is_root() -> bool {
    tempfile::tempfile().unwrap().metadata().unwrap().uid() == 0
}

/// A trace of one block, and the result of one replay of it.
fn measured() -> &'static (TempDir, PathBuf, PathBuf) {
    static MADE: OnceLock<(TempDir, PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (trace, out) = (folder.path().join("sample.trace"), folder.path().join("out"));
        write_trace(&trace);
        let words = ["--blocks", "1", "--latency-runs", "0", "--footprint-runs", "1", "--idle", "0", "-c", "system"];
        let mut replay = bench();
        replay.arg("replay").arg(&trace).args(words).args(["--allow-debug-build", "-q", "-o"]).arg(&out);
        let (code, _, stderr) = output(&mut replay);
        assert_eq!(code, 0, "{stderr}");
        let result = out.join("latest").canonicalize().unwrap();
        (folder, trace, result)
    })
}

fn write_trace(path: &Path) {
    let marks = Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect();
    let metadata = Metadata { source: "test".into(), marks, ..Metadata::default() };
    let mut writer = TraceWriter::new(File::create(path).unwrap(), &metadata, WriteOptions::default()).unwrap();
    let mut push = |kind| writer.push(Event { time: 0, kind }).unwrap();
    push(EventKind::Mark { mark: Phase::Steady as u32 });
    for slot in 0..2_000 {
        let (domain, size) = (Domain::Obj, 512);
        push(EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: false, touched: None, site: 0 });
    }
    push(EventKind::Mark { mark: Phase::Finalising as u32 });
    writer.finish().unwrap();
}

/// Names, types, sizes, inodes and device numbers of what is in a folder.
fn everything(folder: &Path) -> Vec<(PathBuf, u32, u64, u64, u64)> {
    let entry = |path: PathBuf| {
        let facts = fs::symlink_metadata(&path).unwrap();
        (path, facts.mode(), facts.len(), facts.ino(), facts.rdev())
    };
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|found| entry(found.unwrap().path())).collect();
    all.sort();
    all
}

/// A folder with one of everything that no output may replace, with an ending that says figure.
fn nodes() -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("notes.svg"), "mine").unwrap();
    symlink("notes.svg", at("link.svg")).unwrap();
    symlink("nowhere", at("dangling.svg")).unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe.svg")).status().unwrap().success());
    let mut nodes = ["notes.svg", "link.svg", "dangling.svg", "pipe.svg"].map(at).to_vec();
    let device = at("null.svg");
    let made = Command::new("mknod").arg(&device).args(["c", "1", "3"]).output().unwrap();
    if made.status.success() {
        nodes.push(device);
    } else {
        println!("NOT RUN: a device as output: only root can make one");
    }
    (folder, nodes)
}

/// Every node is refused with this code, and nothing in its folder has changed.
fn refuses(what: &str, code: i32, with_folder: bool, command: impl Fn(&Path, &mut Command)) {
    let (folder, mut nodes) = nodes();
    if with_folder {
        fs::create_dir(folder.path().join("folder")).unwrap();
        nodes.push(folder.path().join("folder"));
    }
    let before = everything(folder.path());
    for node in nodes {
        let mut run = bench();
        command(&node, &mut run);
        let (found, _, stderr) = output(&mut run);
        assert_eq!(found, code, "{what} {}: {stderr}", node.display());
        assert!(stderr.contains(node.to_str().unwrap()) && stderr.trim_end().ends_with('.'), "{what}: {stderr}");
        assert_eq!(everything(folder.path()), before, "{what} {}", node.display());
    }
    assert_eq!(fs::read_to_string(folder.path().join("notes.svg")).unwrap(), "mine");
}

#[test]
fn record_refuses_its_output_before_the_program_runs() {
    let flag = tempfile::tempdir().unwrap();
    let flag = flag.path().join("ran");
    refuses("record", 125, true, |node, run| {
        run.args(["record", "-o"]).arg(node).args(["--", "touch"]).arg(&flag);
    });
    assert!(!flag.exists(), "the program ran");
}

#[test]
fn live_refuses_its_output_before_the_program_runs() {
    let (folder, trace, _) = measured();
    let flag = folder.path().join("ran");
    refuses("live", 2, true, |node, run| {
        run.arg("live").arg(trace).args(["--allow-debug-build", "-o"]).arg(node).args(["--", "touch"]).arg(&flag);
    });
    assert!(!flag.exists(), "the program ran");
}

#[test]
fn other_outputs_are_refused_too() {
    let (_, trace, result) = measured();
    refuses("trace cut", 2, true, |node, run| {
        run.args(["trace", "cut", "--events", "5"]).arg(trace).arg("-o").arg(node);
    });
    refuses("trace pack", 2, true, |node, run| {
        run.args(["trace", "pack"]).arg(trace).arg("-o").arg(node);
    });
    refuses("report", 2, false, |node, run| {
        run.arg("report").arg(result).args(["--chart", "memory", "-o"]).arg(node);
    });
    refuses("numpy-handler", 2, false, |node, run| {
        run.args(["numpy-handler", "-o"]).arg(node);
    });
    refuses("replay", 2, false, |node, run| {
        run.arg("replay").arg(trace).args(["--allow-debug-build", "-c", "system", "-o"]).arg(node);
    });
    refuses("compare --save", 2, false, |node, run| {
        run.arg("compare").arg(result).arg("--save").arg(node.file_name().unwrap());
        run.arg("--baselines").arg(node.parent().unwrap());
    });
}

#[test]
fn a_folder_that_is_no_baseline_is_never_replaced() {
    let (_, _, result) = measured();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("src/deep")).unwrap();
    fs::write(folder.path().join("src/deep/main.c"), "mine").unwrap();
    let save = || {
        let mut run = bench();
        run.arg("compare").arg(result).args(["--save", "src", "--baselines"]).arg(folder.path());
        output(&mut run)
    };
    let (code, _, stderr) = save();
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("holds deep"), "{stderr}");
    assert_eq!(fs::read_to_string(folder.path().join("src/deep/main.c")).unwrap(), "mine");
    fs::remove_dir_all(folder.path().join("src")).unwrap();
    for _ in 0..2 {
        let (code, _, stderr) = save();
        assert_eq!(code, 0, "{stderr}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the older one is gone");
    assert!(folder.path().join("src/environment.json").is_file());
}

/// A program that writes where its preloaded library lies and who may change it, while another user tries to.
const PROGRAM: &str = "
import os, shutil, stat, subprocess, sys
library = os.environ['LD_PRELOAD'].split(':')[0]
shutil.copy(library, sys.argv[1] + '.so')
tries = ['echo evil > $L', 'cp /bin/true $L', 'ln -sf /bin/true $L', 'mv $(dirname $L) $(dirname $L).old', 'cat $L']
codes = [subprocess.run(['sh', '-c', one.replace('$L', library)], env={'PATH': os.environ['PATH']}, user=65534,
                        group=65534, extra_groups=[], stderr=subprocess.DEVNULL).returncode for one in tries]
folder = os.stat(os.path.dirname(library))
with open(sys.argv[1], 'w') as out:
    print(library, oct(stat.S_IMODE(folder.st_mode)), folder.st_uid, *[int(code != 0) for code in codes], file=out)
";

/// A temporary folder of everybody with what another user planted, a victim's file, and the planted names.
fn planted(folder: &Path, library: &Path) -> (PathBuf, PathBuf, usize) {
    let (shared, victim) = (folder.join("shared"), folder.join("victim"));
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&victim, "mine").unwrap();
    // The right bytes under the name that it has in a cache folder, and links at names that follow from process ids.
    let name = library.file_name().unwrap().to_str().unwrap();
    let copy = folder.join("copy");
    fs::copy(library, &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644)).unwrap();
    let script = format!(
        "cp copy shared/{name}; mkdir -m 777 shared/pyalloc-library-0123456789abcdef; p={}; i=0; \
         while [ $i -lt 400 ]; do ln -s ../victim shared/{}.part.$((p + i)); i=$((i + 1)); done",
        std::process::id(),
        name.trim_end_matches(".so")
    );
    let status = Command::new("sh").args(["-c", &script]).current_dir(folder).uid(OTHER).gid(OTHER).status().unwrap();
    assert!(status.success());
    let count = fs::read_dir(&shared).unwrap().count();
    assert_eq!(count, 402);
    (shared, victim, count)
}

#[test]
fn another_user_in_the_temporary_folder_changes_nothing() {
    let Some(python) = support::any_interpreter() else { return };
    if !is_root() {
        println!("NOT RUN: only root can act as two users");
        return;
    }
    let library = recorder::announcer().unwrap();
    let embedded = fs::read(library.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (shared, victim, count) = planted(folder.path(), library.path());
    let (_, trace, _) = measured();
    let (program, said) = (folder.path().join("program.py"), folder.path().join("said"));
    fs::write(&program, PROGRAM).unwrap();
    for verb in ["record", "live"] {
        let mut run = bench();
        run.env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME").env("TMPDIR", &shared).arg(verb);
        let out = folder.path().join(format!("{verb}.out"));
        if verb == "live" {
            let words = ["-c", "today", "--runs", "1", "--predictions", "1", "--timings", "0", "--idle", "0"];
            run.arg(trace).args(words).arg("--allow-debug-build");
        }
        run.arg("-o").arg(&out).arg("--").arg(&python.path).arg(&program).arg(&said);
        let (code, _, stderr) = output(&mut run);
        // What `live` predicts for a trace of another program misses its bars.
        assert!(code == 0 || (verb == "live" && code == 1), "{verb}: {code} {stderr}");
        let line = fs::read_to_string(&said).unwrap_or_else(|e| panic!("{verb}: {e}: {stderr}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let used = Path::new(words[0]);
        assert_eq!(words[1..], ["0o700", "0", "1", "1", "1", "1", "1"], "{verb}: {line}");
        assert!(used.starts_with(shared.canonicalize().unwrap()), "{verb}: {line}");
        assert!(!used.exists() && !used.parent().unwrap().exists(), "{verb} left its library");
        if verb == "live" {
            assert_eq!(fs::read(folder.path().join("said.so")).unwrap(), embedded);
        }
        fs::remove_file(&said).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
        assert_eq!(fs::read_dir(&shared).unwrap().count(), count, "{verb} left files");
    }
}
