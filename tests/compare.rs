//! `compare` on results that the built binary measured: every exit code, every way to be refused, and what is said.
//!
//! The results are of memory alone, on a trace of some thousand events whose every size is known. What differs between
//! two of them was put there: a different configuration under one name, too few runs, or an edited environment.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;

use binary::{bench, output};
use pyalloc_bench::run;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, Phase, TraceWriter, WriteOptions};

/// Blocks that `steady` allocates, and their size: 20 MiB in all.
const BLOCKS: u32 = 320;
const BLOCK_BYTES: u64 = 64 * 1024;

/// Many blocks of a size that every allocator keeps for itself when it is freed, unless it is told not to.
fn write_trace(path: &Path) {
    let metadata = Metadata {
        source: "test".into(),
        marks: Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect(),
        ..Metadata::default()
    };
    let mut writer = TraceWriter::new(File::create(path).unwrap(), &metadata, WriteOptions::default()).unwrap();
    let push = |writer: &mut TraceWriter<File>, kind| writer.push(Event { time: 0, kind }).unwrap();
    push(&mut writer, EventKind::Mark { mark: Phase::Steady as u32 });
    let slots: Vec<_> = (0..BLOCKS)
        .map(|_| {
            let slot = writer.next_slot();
            let (domain, size) = (Domain::Libc, BLOCK_BYTES);
            let alloc = EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: false, touched: None, site: 0 };
            push(&mut writer, alloc);
            slot
        })
        .collect();
    // All but the last are freed, which stays on top of the heap: what lies below cannot be trimmed.
    for slot in &slots[..slots.len() - 1] {
        push(&mut writer, EventKind::Free { slot: *slot });
    }
    push(&mut writer, EventKind::Mark { mark: Phase::Drained as u32 });
    push(&mut writer, EventKind::Mark { mark: Phase::Finalising as u32 });
    writer.finish().unwrap();
}

/// Measures `words` under the name `service` into a folder of its own.
fn measure(folder: &Path, name: &str, words: &str, footprint_runs: u32) -> PathBuf {
    let (trace, configs) = (folder.join("sample.trace"), folder.join(format!("{name}.toml")));
    if !trace.exists() {
        write_trace(&trace);
    }
    fs::write(&configs, format!("[config.service]\nwords = \"{words}\"\n")).unwrap();
    let out = folder.join(name);
    let (code, stdout, stderr) = output(
        bench()
            .arg("replay")
            .arg(&trace)
            .args(["-c", "service", "--blocks", "1", "--latency-runs", "0", "--idle", "0", "--seed", "5", "--quiet"])
            .args(["--footprint-runs", &footprint_runs.to_string(), "--allow-debug-build", "--configs"])
            .arg(&configs)
            .arg("-o")
            .arg(&out),
    );
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    out.join("latest").canonicalize().unwrap()
}

/// Results that all tests read and none writes to.
struct Results {
    /// Keeps the folder.
    _folder: TempDir,
    /// The C library with a threshold above which blocks have mappings of their own: nothing is kept.
    lean: PathBuf,
    /// The same, measured again.
    lean_again: PathBuf,
    /// The C library as it is: freed blocks stay below the one in use.
    fat: PathBuf,
    /// `lean`, in two processes.
    few: PathBuf,
}

fn results() -> &'static Results {
    static RESULTS: OnceLock<Results> = OnceLock::new();
    RESULTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, words: &str, runs| measure(folder.path(), name, words, runs);
        let lean = "MALLOC_MMAP_THRESHOLD_=32768";
        Results {
            lean: of("lean", lean, 6),
            lean_again: of("lean-again", lean, 6),
            fat: of("fat", "MALLOC_MMAP_THRESHOLD_=33554432", 6),
            few: of("few", lean, 2),
            _folder: folder,
        }
    })
}

fn compare(words: &[&str], old: &Path, new: &Path) -> (i32, String, String) {
    output(bench().arg("compare").args(words).arg(old).arg(new))
}

/// A copy of a result whose files may be changed.
fn copy(of: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in [run::ENVIRONMENT_FILE, run::RUNS_FILE] {
        fs::copy(of.join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn the_same_measured_again_is_not_worse() {
    let results = results();
    for (old, new) in
        [(&results.lean, &results.lean_again), (&results.lean, &results.lean), (&results.fat, &results.fat)]
    {
        let memory = ["--metric", "rss_bytes_peak", "--metric", "rss_bytes_end", "--metric", "rss_bytes_rest"];
        let (code, stdout, stderr) = compare(&[&memory[..], &["--strict"]].concat(), old, new);
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        assert!(stdout.contains("3 compared: 3 no difference detected"), "{stdout}");
        assert!(stdout.contains("the same configurations, measured again"), "{stdout}");
    }
}

#[test]
fn a_setting_that_keeps_memory_is_worse_and_says_which() {
    let results = results();
    let (code, stdout, stderr) = compare(&[], &results.lean, &results.fat);
    assert_eq!(code, 1, "{stdout}\n{stderr}");
    assert!(stdout.contains("MALLOC_MMAP_THRESHOLD_ 32768 -> 33554432"), "{stdout}");
    let rest = stdout.lines().find(|line| line.contains("resident at rest")).unwrap();
    assert!(rest.ends_with("WORSE"), "{stdout}");
    assert!(stderr.starts_with("Worse: "), "{stderr}");
    // At its peak it takes less, since blocks with mappings of their own take whole pages; at rest nothing is worse.
    let (code, stdout, _) = compare(&["--metric", "rss_bytes_rest"], &results.fat, &results.lean);
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.lines().any(|line| line.contains("resident at rest") && line.ends_with("better")), "{stdout}");
    // A floor above it has the same difference not count.
    let (code, stdout, _) = compare(&["--floor", "100MiB"], &results.lean, &results.fat);
    assert_eq!(code, 0, "{stdout}");
}

#[test]
fn too_few_runs_pass_loudly_and_fail_where_that_counts() {
    let results = results();
    for (words, expected) in [(&[][..], 0), (&["--strict"], 3)] {
        let (code, stdout, stderr) = compare(words, &results.lean, &results.few);
        assert_eq!(code, expected, "{stdout}\n{stderr}");
        assert!(stdout.contains("INCONCLUSIVE, 6 and 2 runs"), "{stdout}");
        assert!(stderr.starts_with("Inconclusive: "), "{stderr}");
    }
}

#[test]
fn unlike_environments_are_refused_by_name_unless_forced() {
    let results = results();
    let environment = run::open(&results.lean).unwrap().environment;
    let cpus = format!("\"cpus\": {},", environment.host.cpus);
    let sha256 = environment.workloads[0].sha256.clone();
    for (from, to, named) in
        [(cpus.as_str(), "\"cpus\": 4096,", "host.cpus"), (sha256.as_str(), "00", "workloads.sample.sha256")]
    {
        let edited = copy(&results.lean_again);
        edit(edited.path(), run::ENVIRONMENT_FILE, from, to);
        let (code, stdout, stderr) = compare(&[], &results.lean, edited.path());
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains(named) && stderr.contains("-> ") && stderr.contains("--force"), "{stderr}");
        let (code, stdout, stderr) = compare(&["--force"], &results.lean, edited.path());
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        assert!(stdout.contains("WARNING: UNLIKE ENVIRONMENTS") && stdout.contains(named), "{stdout}");
    }
}

#[test]
fn what_only_one_side_has_is_named_and_a_new_failure_is_worse() {
    let results = results();
    let failed = copy(&results.lean_again);
    let path = failed.path().join(run::RUNS_FILE);
    let lines: Vec<String> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| {
            let mut run: serde_json::Value = serde_json::from_str(line).unwrap();
            if run["pass"] == "footprint" {
                run["outcome"] = serde_json::json!({"failed": {"stage": "replay", "reason": "It was killed."}});
            }
            run.to_string() + "\n"
        })
        .collect();
    fs::write(&path, lines.concat()).unwrap();
    let (code, stdout, stderr) = compare(&[], &results.lean, failed.path());
    assert_eq!(code, 1, "{stdout}\n{stderr}");
    assert!(stdout.contains("only in old: service on sample: every run FAILED in new"), "{stdout}");

    let renamed = copy(&results.lean_again);
    for file in [run::ENVIRONMENT_FILE, run::RUNS_FILE] {
        edit(renamed.path(), file, "\"service\"", "\"another\"");
    }
    let (code, stdout, stderr) = compare(&[], &results.lean, renamed.path());
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("nothing in common"), "{stderr}");
}

#[test]
fn wrong_input_is_a_sentence() {
    let results = results();
    let half = copy(&results.lean_again);
    let path = half.path().join(run::RUNS_FILE);
    let text = fs::read(&path).unwrap();
    // Cut in the middle of a line that others follow: damage, where a cut at the end is an interruption.
    let cut = text.len() / 2;
    let rest = text[cut..].iter().position(|byte| *byte == b'\n').unwrap();
    fs::write(&path, [&text[..cut], &text[cut + rest..]].concat()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let lean = results.lean.to_str().unwrap();
    for (words, expected) in [
        (vec![lean, "/nonexistent/result"], "no folder of a result"),
        (vec!["/nonexistent/result", lean], "no folder of a result"),
        (vec![lean, "mian"], "no baseline"),
        (vec![lean, empty.path().to_str().unwrap()], "cannot be read"),
        (vec![lean, half.path().to_str().unwrap()], "not a run"),
        (vec![lean], "NEW"),
        (vec![lean, lean, "--metric", "rss"], "rss_bytes_peak"),
        (vec![lean, lean, "--floor", "5"], "5%"),
        (vec![lean, lean, "--json", "--markdown"], "--markdown"),
        (vec![lean, "--save", "../escape"], "name"),
        (vec![lean, lean, "--save", "main"], "--save"),
    ] {
        let (code, stdout, stderr) = output(bench().arg("compare").args(&words));
        assert_eq!((code, stdout.as_str()), (2, ""), "{words:?}: {stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("panicked"), "{words:?}: {stderr}");
    }
}

#[test]
fn an_interrupted_result_is_compared_as_far_as_it_goes() {
    let results = results();
    let cut = copy(&results.lean_again);
    let path = cut.path().join(run::RUNS_FILE);
    // Which of the runs that idle side by side ends last is chance: one of the configuration's, not of its control.
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    let is_own = |line: &&str| line.contains("\"config\":\"service\"") && line.contains("\"pass\":\"footprint\"");
    let last = lines.iter().rposition(is_own).unwrap();
    let last = lines.remove(last);
    lines.push(&last[..last.len() - 20]);
    fs::write(&path, lines.join("\n")).unwrap();
    let (code, stdout, stderr) = compare(&[], &results.lean, cut.path());
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert!(stderr.contains("cut off") && stdout.contains("INCONCLUSIVE, 6 and 5 runs"), "{stdout}\n{stderr}");
}

#[test]
fn a_saved_baseline_is_found_by_its_name() {
    let results = results();
    let place = tempfile::tempdir().unwrap();
    let baselines = ["--baselines", place.path().to_str().unwrap()];
    let save = |result: &Path| output(bench().arg("compare").args(baselines).args(["--save", "main"]).arg(result));
    let (code, stdout, stderr) = save(&results.lean);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("baseline main: "), "{stdout}");
    let rest = ["--metric", "rss_bytes_rest"];
    let against = |new: &Path| output(bench().arg("compare").args(baselines).args(rest).arg("main").arg(new)).0;
    assert_eq!((against(&results.lean_again), against(&results.fat)), (0, 1));
    // Saved again, it is what was saved last.
    assert_eq!(save(&results.fat).0, 0);
    assert_eq!((against(&results.fat), against(&results.lean)), (0, 0));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn every_form_says_the_same_and_the_same_again() {
    let results = results();
    for form in [&[][..], &["--markdown"], &["--json"]] {
        let (code, stdout, _) = compare(form, &results.lean, &results.fat);
        assert_eq!(code, 1);
        assert_eq!(compare(form, &results.lean, &results.fat).1, stdout);
        assert!(!stdout.contains('\x1b') && !stdout.contains(results.lean.to_str().unwrap()), "{stdout}");
    }
    let (_, json, _) = compare(&["--json"], &results.lean, &results.fat);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((value["schema"].as_u64(), value["likeness"]["unlike"].as_array().unwrap().len()), (Some(1), 0));
    let rest = value["cells"].as_array().unwrap().iter().find(|cell| cell["metric"] == "rss_bytes_rest").unwrap();
    assert_eq!((rest["verdict"].as_str(), rest["decides"].as_bool()), (Some("worse"), Some(true)));
    let (_, markdown, _) = compare(&["--markdown"], &results.lean, &results.fat);
    assert!(markdown.starts_with("**") && markdown.contains("| resident at rest, MiB |"), "{markdown}");
}
