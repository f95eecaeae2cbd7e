//! Whatever is read is bounded: results, documents and traces that claim too much, wait for ever or write to the
//! terminal are refused in a sentence, with little memory, and in time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;

use binary::output;
use pyalloc_bench::run::{
    ENVIRONMENT_FILE, Environment, HarnessFacts, HostFacts, Mode, Outcome, Pass, PlanFacts, RUNS_FILE,
    RUNS_FILE_COMPRESSED, ResultDir, Run, SCHEMA,
};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, Phase, Python, TraceWriter, WriteOptions};

/// Address space of a command that reads a large input, KiB: what the program maps by itself, and 1 GiB.
const ADDRESS_SPACE_KIB: u64 = (1 << 20) + (1 << 20);

/// The binary under a limit on its address space, and ended after 60 s.
fn limited(kib: u64, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new("sh");
    let script = format!("ulimit -v {kib} && exec timeout -s KILL 60 \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_pyalloc-bench")]).args(arguments).stdin(Stdio::null());
    // Threads of the reading half reserve address space each; what is bounded here is what is read.
    output(command.env("RAYON_NUM_THREADS", "1").env("MALLOC_ARENA_MAX", "1"))
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    limited(64 << 20, arguments)
}

fn run_line(seq: u32, config: &str, reason: &str) -> Run {
    Run {
        schema: SCHEMA,
        seq,
        block: 0,
        workload: "w".into(),
        config: config.into(),
        pass: Pass::Throughput,
        mode: Mode::Merged,
        padding_bytes: 0,
        started_unix_ms: 1,
        child_wall_ns: 2,
        outcome: Outcome::Failed { stage: "replay".into(), reason: reason.into() },
    }
}

/// A result without runs.
fn result(folder: &Path) -> PathBuf {
    let result = ResultDir::create(folder).unwrap();
    let environment = Environment {
        schema: SCHEMA,
        harness: HarnessFacts::default(),
        host: HostFacts::default(),
        plan: PlanFacts::default(),
        configs: vec![],
        workloads: vec![],
    };
    result.write_environment(&environment).unwrap();
    result.path().to_path_buf()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Exit code 2 and a sentence with these words.
fn refused((code, out, err): (i32, String, String), words: &[&str]) {
    assert_eq!(code, 2, "{out}{err}");
    for word in words {
        assert!(err.contains(word), "{word}: {err}");
    }
}

#[test]
fn runs_that_decompress_to_gigabytes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    fs::remove_file(result.join(RUNS_FILE)).unwrap();
    let compressed = result.join(RUNS_FILE_COMPRESSED);
    let mib = vec![b'7'; 1 << 20];
    // Without a declared size only reading tells: one endless line, then endless short ones.
    for line_ends in [false, true] {
        let mut chunk = mib.clone();
        if line_ends {
            let line = serde_json::to_string(&run_line(0, "pool", &"x".repeat(1 << 18))).unwrap() + "\n";
            chunk = line.into_bytes();
        }
        let mut packed = zstd::Encoder::new(File::create(&compressed).unwrap(), 1).unwrap();
        for _ in 0..(2 << 30) / chunk.len() {
            packed.write_all(&chunk).unwrap();
        }
        packed.finish().unwrap();
        let words = if line_ends { ["at most", "1 GiB"] } else { ["Line 1", "16 MiB"] };
        refused(limited(3 * ADDRESS_SPACE_KIB, &["report", text(&result)]), &words);
    }
    // With one, nothing is decompressed.
    let declared = zstd::bulk::compress(&vec![b'7'; (1 << 30) + 1], 1).unwrap();
    fs::write(&compressed, declared).unwrap();
    refused(limited(ADDRESS_SPACE_KIB, &["report", text(&result)]), &["declares", "1 GiB"]);
}

#[test]
fn files_that_are_too_large_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    let large = folder.path().join("large");
    File::create(&large).unwrap().set_len(3 << 30).unwrap();
    let trace = sample(&folder, "sample.trace", &Metadata::default());
    let beside = folder.path().join("sample.trace.fidelity.json");
    let cases: [(&str, &[&str]); 4] = [
        ("--kept", &["live", "--kept", text(&large)]),
        ("--configs", &["replay", "--list", "--configs", text(&large)]),
        ("--splice", &["report", text(&result), "--splice", text(&large)]),
        ("--configs", &["live", text(&trace), "--configs", text(&large)]),
    ];
    for (what, arguments) in cases {
        let (code, out, err) = limited(ADDRESS_SPACE_KIB, arguments);
        assert!(code == 2 && err.contains("at most"), "{what}: {code} {out}{err}");
    }
    for name in [ENVIRONMENT_FILE, RUNS_FILE] {
        let kept = fs::read(result.join(name)).unwrap();
        File::create(result.join(name)).unwrap().set_len(3 << 30).unwrap();
        refused(limited(ADDRESS_SPACE_KIB, &["report", text(&result)]), &["at most"]);
        fs::write(result.join(name), kept).unwrap();
    }
    assert!(!beside.exists());
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    let fifo = folder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let zero = PathBuf::from("/dev/zero");
    for odd in [&fifo, &zero] {
        for arguments in [
            vec!["live", "--kept", text(odd)],
            vec!["replay", "--list", "--configs", text(odd)],
            vec!["report", text(&result), "--splice", text(odd)],
            vec!["inspect", text(odd)],
        ] {
            let (code, out, err) = limited(ADDRESS_SPACE_KIB, &arguments);
            assert!(code == 2 && (err.contains("regular file") || err.contains("nor a file")), "{code} {out}{err}");
        }
        for name in [ENVIRONMENT_FILE, RUNS_FILE] {
            let aside = folder.path().join("aside");
            fs::rename(result.join(name), &aside).unwrap();
            std::os::unix::fs::symlink(odd, result.join(name)).unwrap();
            for verb in [&["report"][..], &["compare", "--save", "kept"]] {
                let arguments = [verb, &[text(&result)]].concat();
                refused(limited(ADDRESS_SPACE_KIB, &arguments), &["regular file"]);
            }
            fs::remove_file(result.join(name)).unwrap();
            fs::rename(&aside, result.join(name)).unwrap();
        }
    }
}

#[test]
fn a_million_failed_runs_are_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    let result = result(folder.path());
    let mut runs = std::io::BufWriter::new(File::create(result.join(RUNS_FILE)).unwrap());
    for seq in 0..200_000 {
        let reason = format!("The worker ended with code {}. Please report this.", seq % 3);
        let line = serde_json::to_string(&run_line(seq, ["pool", "system"][seq as usize % 2], &reason)).unwrap();
        writeln!(runs, "{line}").unwrap();
    }
    runs.into_inner().unwrap();
    let (code, out, err) = run(&["report", text(&result)]);
    assert_eq!(code, 0, "{err}");
    assert!(out.len() < 20_000 && out.contains("200000 failed") && out.contains("code 2"), "{}", out.len());
    let files: Vec<PathBuf> = fs::read_dir(&result).unwrap().map(|entry| entry.unwrap().path()).collect();
    for file in files.iter().filter(|file| !file.ends_with(RUNS_FILE)) {
        let bytes = fs::metadata(file).unwrap().len();
        assert!(bytes < 1 << 20, "{}: {bytes} bytes", file.display());
    }
    let page = fs::read_to_string(result.join("report.html")).unwrap();
    assert!(page.contains("code 1") && page.contains("33334"), "the page counts what failed for each reason");
}

fn marks() -> Vec<String> {
    Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect()
}

/// Writes a trace: its metadata, and events until there are none.
fn write(path: &Path, metadata: &Metadata, events: impl IntoIterator<Item = Event>) {
    let file = std::io::BufWriter::new(File::create(path).unwrap());
    let mut writer = TraceWriter::new(file, metadata, WriteOptions::default()).unwrap();
    for event in events {
        writer.push(event).unwrap();
    }
    writer.finish().unwrap();
}

fn alloc(time: u64, slot: u32, domain: Domain) -> Event {
    let kind = EventKind::Alloc { slot, domain, size: 64, align_log2: 0, zeroed: false, touched: None, site: 0 };
    Event { time, kind }
}

/// A trace of a few events with this metadata.
fn sample(folder: &TempDir, name: &str, metadata: &Metadata) -> PathBuf {
    let path = folder.path().join(name);
    let metadata = Metadata { marks: [marks(), metadata.marks.clone()].concat(), ..metadata.clone() };
    let mark = |time, mark| Event { time, kind: EventKind::Mark { mark } };
    let own = (4..metadata.marks.len() as u32).map(|index| mark(64, index));
    let events = [mark(0, Phase::Steady as u32), alloc(64, 0, Domain::Libc)];
    write(&path, &metadata, events.into_iter().chain(own).chain([mark(128, Phase::Finalising as u32)]));
    path
}

/// Two allocations with so many seconds between them.
fn with_gap(folder: &TempDir, name: &str, seconds: u64) -> PathBuf {
    let path = folder.path().join(name);
    let metadata = Metadata { ticks_per_second: Some(64), marks: marks(), ..Metadata::default() };
    write(&path, &metadata, [alloc(0, 0, Domain::Libc), alloc(seconds.saturating_mul(64), 1, Domain::Libc)]);
    path
}

#[test]
fn a_recorded_gap_of_years_is_announced_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let replay =
        ["--blocks", "1", "--latency-runs", "0", "--idle", "0", "--quiet", "--allow-debug-build", "-c", "system"];
    let live = ["-c", "MALLOC_ARENA_MAX=2", "--timings", "0", "--predictions", "1", "--idle", "0", "--quiet"];
    let live = [&live[..], &["--allow-debug-build"]].concat();
    // Three hours, ten years, and more than 64 bits of nanoseconds.
    for seconds in [3 * 3600, 10 * 365 * 86_400, u64::MAX / 128] {
        let trace = with_gap(&folder, "gap.trace", seconds);
        let asked = [&["replay", text(&trace), "--paced", "-o", text(&out)], &replay[..]].concat();
        refused(run(&asked), &["would wait", "--paced=0"]);
        refused(run(&[&["live", text(&trace), "--paced"], &live[..]].concat()), &["would wait", "--paced=0"]);
        assert!(!out.exists(), "nothing ran");
        // Virtual time waits for nothing.
        let in_virtual_time = run(&[&["live", text(&trace)], &live[..]].concat());
        assert!(in_virtual_time.0 == 0 && in_virtual_time.1.contains("in virtual time"), "{in_virtual_time:?}");
    }
    let trace = with_gap(&folder, "gap.trace", 3 * 3600);
    refused(run(&[&["live", text(&trace), "--paced"], &live[..]].concat()), &["3 h", "10 min", "--pace-limit"]);
    // A thousandth of three hours is waited for where the limit lets it, and not where it does not.
    let faster = [&["live", text(&trace), "--paced=10000"], &live[..]].concat();
    assert_eq!(run(&faster).0, 0, "{:?}", run(&faster));
    refused(run(&[&faster[..], &["--pace-limit", "1s"]].concat()), &["limit", "1 s"]);
    let back_to_back = [&["live", text(&trace), "--paced=0"], &live[..]].concat();
    assert_eq!(run(&back_to_back).0, 0, "{:?}", run(&back_to_back));
}

/// Everything that a terminal obeys or hides: C0, DEL, C1, directions.
const HOSTILE: &str = "a\u{1b}]0;owned\u{7}b\u{1b}[2Jc\u{9b}31md\u{7f}e\u{202e}f\u{2066}g\rh\nFORGED\u{85}j";

fn hostile_metadata() -> Metadata {
    let hostile = || HOSTILE.to_owned();
    Metadata {
        source: hostile(),
        source_version: hostile(),
        python: Some(Python { version: hostile(), implementation: hostile(), build: hostile(), ..Python::default() }),
        packages: [(hostile(), hostile())].into(),
        notes: vec![hostile()],
        libc: Some(hostile()),
        marks: vec![HOSTILE.replace('\n', "")],
        ..Metadata::default()
    }
}

fn is_harmless(text: &str) -> bool {
    let directs =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().all(|c| (c == '\n' || !c.is_control()) && !directs(c))
        && !text.lines().any(|line| line.starts_with("FORGED"))
}

#[test]
fn no_verb_passes_control_characters_to_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let trace = sample(&folder, &format!("{HOSTILE}.trace"), &hostile_metadata());
    let (name, out) = (text(&trace).to_owned(), folder.path().join("out"));
    let configs = folder.path().join("configs.toml");
    // Its user types them; a line end of an argument is the user's own.
    let typed = HOSTILE.replace('\n', "");
    fs::write(&configs, format!("[config.lean]\nwords = {}\n", serde_json::to_string(&typed).unwrap())).unwrap();
    let missing = folder.path().join(HOSTILE);
    let bold = folder.path().join("\u{1b}[1m");
    let replay =
        ["--blocks", "1", "--latency-runs", "0", "--footprint-runs", "1", "--idle", "0", "--allow-debug-build"];
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["inspect", &name],
        vec!["trace", "validate", &name],
        vec!["trace", "text", &name],
        vec!["trace", "cut", &name, "--events", "1", "-o", text(&missing)],
        vec!["inspect", text(&missing)],
        vec!["live", "--kept", text(&bold)],
        vec!["report", text(&bold)],
        vec!["replay", &name, "--cycles", "2", "--between", "x,y", "--allow-debug-build"],
        vec!["replay", "-c", &typed, &name],
        vec![&typed],
        vec!["replay", "--list", "--configs", text(&configs)],
        vec!["live", &name, "-c", "MALLOC_ARENA_MAX=2", "--timings", "0", "--idle", "0", "--allow-debug-build"],
        vec!["live", &name, "-c", "MALLOC_ARENA_MAX=2", "--timings", "0", "--json", "--allow-debug-build"],
    ];
    commands.push([&["replay", &name, "-c", "system", "-o", text(&out)], &replay[..]].concat());
    let latest = out.join("latest");
    for verb in ["report", "recommend"] {
        commands.push(vec![verb, text(&latest)]);
    }
    for arguments in commands {
        let (code, out, err) = run(&arguments);
        assert!(is_harmless(&out), "{arguments:?} {code}: {out:?}");
        assert!(is_harmless(&err), "{arguments:?} {code}: {err:?}");
        assert!(code <= 2 && !(out.is_empty() && err.is_empty()), "{arguments:?}: {code} {out}{err}");
        if arguments.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&out).unwrap();
        }
    }
}

#[test]
fn little_address_space_is_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let trace = sample(&folder, "sample.trace", &Metadata::default());
    let out = folder.path().join("out");
    let arguments =
        ["replay", text(&trace), "--blocks", "1", "--latency-runs", "0", "--idle", "0", "-c", "system", "-o"];
    let arguments = [&arguments[..], &[text(&out), "--allow-debug-build", "--quiet"]].concat();
    for mib in [600, 900, 1100, 1400, 2000] {
        let (code, out, err) = limited(mib << 10, &arguments);
        let said = out + &err;
        if code != 0 {
            assert!(!said.contains("report this"), "{mib} MiB: {said}");
            assert!(said.contains("ulimit -v"), "{mib} MiB, {code}: {said}");
        }
    }
}

/// Events that compress to nothing: 61 KB of file for 33.5 M of them.
fn long_trace(folder: &TempDir, name: &str, event: impl Fn(u64) -> Event) -> PathBuf {
    let path = folder.path().join(name);
    let metadata = Metadata { marks: marks(), ..Metadata::default() };
    write(&path, &metadata, (0..LONG_EVENTS).map(event));
    path
}

const LONG_EVENTS: u64 = 33_500_000;

#[test]
fn a_small_file_of_many_collections_takes_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let trace = long_trace(&folder, "collections.trace", |index| {
        let kind =
            if index % 2 == 0 { EventKind::GcStart { generation: 0 } } else { EventKind::GcStop { generation: 0 } };
        Event { time: 0, kind }
    });
    for verb in [&["inspect"][..], &["trace", "validate"]] {
        let (code, out, err) = limited(400 << 10, &[verb, &[text(&trace)]].concat());
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn a_small_file_of_as_many_blocks_as_there_can_be_takes_less_than_a_gib() {
    let folder = tempfile::tempdir().unwrap();
    let trace = long_trace(&folder, "blocks.trace", |index| {
        let kind = EventKind::Alloc {
            slot: index as u32,
            domain: Domain::Obj,
            size: 8192,
            align_log2: 0,
            zeroed: false,
            touched: Some(4096),
            site: 0,
        };
        Event { time: 0, kind }
    });
    for verb in [&["inspect"][..], &["trace", "validate"]] {
        let (code, out, err) = limited(1 << 20, &[verb, &[text(&trace)]].concat());
        assert_eq!(code, 0, "{out}{err}");
    }
}

#[test]
fn a_section_is_not_repeated_beyond_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cycles.trace");
    let metadata = Metadata { marks: marks(), ..Metadata::default() };
    let mark = |mark: Phase| Event { time: 0, kind: EventKind::Mark { mark: mark as u32 } };
    let pairs = (0..8_000_000).map(|index| match index % 2 {
        0 => alloc(0, 0, Domain::Obj),
        _ => Event { time: 0, kind: EventKind::Free { slot: 0 } },
    });
    write(&path, &metadata, [mark(Phase::Steady)].into_iter().chain(pairs).chain([mark(Phase::Finalising)]));
    let arguments = ["replay", text(&path), "--cycles", "1000", "-c", "system", "--allow-debug-build", "--quiet"];
    refused(limited(8 << 20, &arguments), &["Ask for fewer cycles"]);
}

/// A trace whose last block is damaged: what `validate` refuses, no other verb accepts.
#[test]
fn what_validate_refuses_no_verb_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.trace");
    let metadata = Metadata { marks: marks(), ..Metadata::default() };
    let pairs = (0..200_000_u64).map(|index| match index % 2 {
        0 => alloc(index, 0, Domain::Obj),
        _ => Event { time: index, kind: EventKind::Free { slot: 0 } },
    });
    let steady = Event { time: 0, kind: EventKind::Mark { mark: Phase::Steady as u32 } };
    write(&path, &metadata, [steady].into_iter().chain(pairs));
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(2).rposition(|pair| pair == [2, 0]).unwrap() - 8;
    bytes[at] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    let out = folder.path().join("out");
    refused(run(&["trace", "validate", text(&path)]), &["damaged"]);
    let commands: [&[&str]; 6] = [
        &["trace", "text", text(&path)],
        &["trace", "cut", text(&path), "--events", "10", "-o", text(&out)],
        &["trace", "pack", text(&path), "-o", text(&out)],
        &["inspect", text(&path)],
        &["replay", text(&path), "-c", "system", "-o", text(&out), "--allow-debug-build", "--quiet"],
        &["live", text(&path), "-c", "MALLOC_ARENA_MAX=2", "--allow-debug-build", "--quiet"],
    ];
    for arguments in commands {
        refused(run(arguments), &["damaged"]);
        assert!(!out.exists(), "{arguments:?}");
    }
}
