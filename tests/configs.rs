//! Configurations as a user meets them: words that take effect, and words that are refused before anything is measured.
//! The libraries are real ones, built here from C.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "allocators/built.rs"]
mod built;

use built::{compile, mimalloc_2, tiny};
use pyalloc_bench::run::{self, ConfigFacts, Held, Observation, Outcome};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, Phase, TraceWriter, WriteOptions};

/// A short trace whose blocks are of these domains.
fn write_trace(path: &Path, domains: &[Domain]) {
    let marks = Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect();
    let metadata = Metadata { source: "test".into(), marks, ..Metadata::default() };
    let mut writer = TraceWriter::new(File::create(path).unwrap(), &metadata, WriteOptions::default()).unwrap();
    let mut time = 0;
    let mut push = |writer: &mut TraceWriter<File>, kind| {
        time += 100;
        writer.push(Event { time, kind }).unwrap();
    };
    push(&mut writer, EventKind::Mark { mark: Phase::Steady as u32 });
    for round in 0..600 {
        let (slot, domain, size) = (writer.next_slot(), domains[round % domains.len()], 16 + (round as u64 % 97) * 32);
        let alloc = EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: false, touched: None, site: 0 };
        push(&mut writer, alloc);
        if round % 10 != 0 {
            push(&mut writer, EventKind::Free { slot });
        }
    }
    push(&mut writer, EventKind::Mark { mark: Phase::Finalising as u32 });
    writer.finish().unwrap();
}

/// A folder of its own, with a trace.
struct Place {
    folder: TempDir,
    trace: PathBuf,
}

impl Place {
    fn new(domains: &[Domain]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("sample.trace");
        write_trace(&trace, domains);
        Self { folder, trace }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// Replays under configurations, with what else is wanted.
    fn replay(&self, configs: &[&str], more: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
        command
            .stdin(Stdio::null())
            .arg("replay")
            .arg(&self.trace)
            .args(["--blocks", "1", "--idle", "0", "--seed", "5"]);
        command.args(["--allow-debug-build", "-o"]).arg(self.out()).args(more);
        command.args(configs.iter().flat_map(|config| ["-c", config]));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code().unwrap_or(-1), text.concat())
    }

    /// The same, when all goes well; what the result says of the configurations.
    fn facts(&self, configs: &[&str], more: &[&str]) -> Vec<ConfigFacts> {
        let (code, text) = self.replay(configs, more);
        assert_eq!(code, 0, "{configs:?}: {text}");
        let (environment, runs) = run::read(&self.out().join("latest")).unwrap();
        assert!(runs.iter().all(|run| matches!(run.outcome, Outcome::Ok(_))), "{text}");
        environment.configs
    }

    /// What is said of a configuration that is refused, nothing having been measured.
    fn refusal(&self, config: &str) -> String {
        let (code, text) = self.replay(&[config], &[]);
        assert_eq!(code, 2, "{config}: {text}");
        assert!(!self.out().exists(), "{config} was measured");
        text
    }
}

#[test]
fn what_cannot_take_effect_is_refused_before_anything_is_measured() {
    let place = Place::new(&Domain::ALL);
    let folder = place.folder.path();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).unwrap();
        folder.join(name).to_str().unwrap().to_owned()
    };
    // The first bytes of a shared library for a machine that is none of ours: 64-bit MIPS.
    let mut header = fs::read(tiny("tiny.so", &[])).unwrap();
    header[18..20].copy_from_slice(&8u16.to_ne_bytes());
    let other = write("mips.so", &header);
    let text = write("text.so", b"INPUT ( libsomething.so.1 libother.so.2 )");
    let empty = folder.join("empty.c");
    fs::write(&empty, "int nothing_of_an_allocator(void) { return 1; }\n").unwrap();
    let [empty, partial, broken] = [
        compile(&empty, "libempty.so", &[]),
        tiny("libpartial.so", &["-DPARTIAL"]),
        tiny("libbroken.so", &["-DBROKEN"]),
    ]
    .map(|path| path.to_str().unwrap().to_owned());
    let mimalloc = mimalloc_2().to_str().unwrap();
    for (config, expected) in [
        ("LD_PRELOAD=/nonexistent/lib.so".to_owned(), "no such file"),
        ("LD_PRELOAD=libnonexistent-malloc.so.9".to_owned(), "malloc still comes from the C library"),
        ("numpy=/nonexistent/lib.so".to_owned(), "no such file"),
        (format!("LD_PRELOAD={other}"), "another architecture"),
        (format!("arrow={other}"), "another architecture"),
        (format!("LD_PRELOAD={text}"), "no shared library"),
        (format!("LD_PRELOAD={empty}"), "malloc still comes from the C library"),
        (format!("numpy={empty}"), "no malloc of its own"),
        (format!("LD_PRELOAD={partial}"), "has malloc but not calloc"),
        (format!("numpy={partial}"), "lacks one of malloc, calloc"),
        (format!("numpy={broken}"), "usable bytes"),
        ("MALLOC_ARENAMAX=2".to_owned(), "Did you mean MALLOC_ARENA_MAX?"),
        ("MIMALLOC_PURGE_DELAI=0".to_owned(), "Did you mean purge_delay?"),
        ("GLIBC_TUNABLES=glibc.malloc.arena_mx=2".to_owned(), "Did you mean arena_max?"),
        ("PYTHONMALLOC=maloc".to_owned(), "Did you mean malloc?"),
        ("ARROW_DEFAULT_MEMORY_POOL=mimaloc".to_owned(), "Did you mean mimalloc?"),
        ("MALLOC_ARENA_MAX=two".to_owned(), "no number"),
        ("arrow-jemalloc JE_ARROW_MALLOC_CONF=dirty_decy_ms:0".to_owned(), "Did you mean dirty_decay_ms?"),
        ("MALLOC_CONF=dirty_decay_ms:0".to_owned(), "reaches nothing"),
        (format!("LD_PRELOAD={mimalloc} MALLOC_ARENA_MAX=2"), "reaches nothing: glibc's malloc serves no domain"),
        (format!("LD_PRELOAD={mimalloc} MALLOC_CONF=dirty_decay_ms:0"), "reaches nothing"),
        ("arrow-system MIMALLOC_PURGE_DELAY=0".to_owned(), "reaches nothing: mimalloc serves no domain"),
    ] {
        let said = place.refusal(&config);
        assert!(said.contains(expected), "{config}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{config}: {said}");
    }
}

#[test]
fn a_variable_for_arrow_needs_a_trace_that_asks_arrow() {
    let place = Place::new(&[Domain::Obj, Domain::Libc]);
    let said = place.refusal("arrow-system");
    assert!(said.contains("no workload calls Arrow's allocator"), "{said}");
    let said = place.refusal("MIMALLOC_PURGE_DELAY=0");
    assert!(said.contains("serves arrow alone, which no workload calls"), "{said}");
    // Without words, `today` is measured where it is no twin of `pool`, and is the baseline there.
    let names =
        |place: &Place| -> Vec<String> { place.facts(&[], &[]).into_iter().map(|config| config.name).collect() };
    assert_eq!(names(&place), ["pool", "system", "mimalloc", "jemalloc", "null", "loop", "pool-again"]);
    assert_eq!(names(&Place::new(&Domain::ALL))[..2], ["today", "pool"]);
}

#[test]
fn libraries_by_path_say_what_they_are_and_what_was_set() {
    let place = Place::new(&Domain::ALL);
    let mimalloc = mimalloc_2().to_str().unwrap();
    let tiny = tiny("libtiny.so", &[]).to_str().unwrap().to_owned();
    let facts = place.facts(
        &[
            "today",
            &format!("LD_PRELOAD={mimalloc} MIMALLOC_PURGE_DELAY=7"),
            &format!("numpy={mimalloc} arrow={tiny}"),
            "arenas-2 MALLOC_TRIM_THRESHOLD_=65536 arrow-jemalloc JE_ARROW_MALLOC_CONF=dirty_decay_ms:3",
        ],
        &[],
    );
    let said = |config: usize, key: &str| facts[config].allocators.iter().find(|facts| facts.key == key).unwrap();
    let preloaded = said(1, "system");
    assert!(preloaded.version.starts_with("mimalloc 2."), "{}", preloaded.version);
    assert_eq!((preloaded.options["purge_delay"].as_str(), preloaded.family.as_str()), ("7", "mimalloc"));
    assert!(said(1, "pool").version.contains("over mimalloc 2."), "the pool stands on it");
    assert_eq!(facts[1].name, "LD_PRELOAD=libmimalloc-two.so MIMALLOC_PURGE_DELAY=7");
    assert!(facts[1].deployable && !facts[2].deployable);
    assert!(said(2, "library:libmimalloc-two.so").version.starts_with("mimalloc 2."));
    assert_eq!(said(2, "library:libtiny.so").version, "unknown malloc (libtiny.so)");
    assert_eq!(said(2, "system").family, "glibc", "it serves what no word names");
    let system = said(3, "system");
    assert_eq!((system.options["arena_max"].as_str(), system.options["trim_threshold"].as_str()), ("0x2", "0x10000"));
    let arrow = &said(3, "jemalloc").options;
    assert_eq!((arrow["opt.dirty_decay_ms"].as_str(), arrow["opt.oversize_threshold"].as_str()), ("3", "0"));
    // Results name no machine.
    let folder = mimalloc_2().parent().unwrap().to_str().unwrap();
    for file in ["environment.json", "runs.jsonl", "report.html"] {
        let text = fs::read_to_string(place.out().join("latest").join(file)).unwrap();
        assert!(!text.contains(folder), "{file}");
    }
}

#[test]
fn a_preloaded_malloc_is_not_asked_what_the_c_librarys_heap_holds() {
    let place = Place::new(&Domain::ALL);
    let tiny = tiny("libtiny-alone.so", &[]).to_str().unwrap().to_owned();
    let configs = ["today".to_owned(), format!("LD_PRELOAD={tiny}")];
    let facts = place.facts(&configs.each_ref().map(String::as_str), &[]);
    let (_, runs) = run::read(&place.out().join("latest")).unwrap();
    let held = |config: &str| -> Vec<Held> {
        let footprints = runs.iter().filter(|run| run.config == config).filter_map(|run| match &run.outcome {
            Outcome::Ok(Observation::Footprint(footprint)) => Some(footprint),
            _ => None,
        });
        footprints.flat_map(|footprint| &footprint.owners).map(|owners| owners.held["system"]).collect()
    };
    let (of_libc, of_tiny) = (held(&facts[0].name), held(&facts[1].name));
    assert!(of_libc.iter().any(|held| held.resident_bytes_max > Some(0)), "{of_libc:?}");
    assert!(!of_tiny.is_empty() && of_tiny.iter().all(|held| *held == Held::default()), "{of_tiny:?}");
}

#[test]
fn what_nobody_can_confirm_is_refused_or_said_everywhere() {
    let place = Place::new(&Domain::ALL);
    let library = tiny("libtcmalloc-tiny.so", &["-DTCMALLOC"]);
    let config = format!("LD_PRELOAD={} TCMALLOC_RELEASE_RATE=10", library.display());
    assert!(place.refusal(&config).contains("--allow-unverified"));
    let facts = place.facts(&[&config], &["--allow-unverified"]);
    assert_eq!(facts[0].unverified, ["TCMALLOC_RELEASE_RATE=10"]);
    for file in ["report.html", "summary.md"] {
        let text = fs::read_to_string(place.out().join("latest").join(file)).unwrap();
        assert!(text.contains("taken on trust"), "{file}");
    }
}

#[test]
fn a_file_of_configurations_is_read_and_listed() {
    let place = Place::new(&Domain::ALL);
    let file = place.folder.path().join("mine.toml");
    fs::write(&file, "[config.lean]\nwords = \"MALLOC_ARENA_MAX=2 arrow-system\"\n").unwrap();
    let facts = place.facts(&["lean"], &["--configs", file.to_str().unwrap()]);
    assert_eq!((facts[0].name.as_str(), facts[0].deployable), ("lean", true));
    assert_eq!(facts[0].words, "MALLOC_ARENA_MAX=2 ARROW_DEFAULT_MEMORY_POOL=system");
    let listed = place.replay(&[], &["--list", "--configs", file.to_str().unwrap()]).1;
    let line = listed.lines().find(|line| line.trim_start().starts_with("lean ")).unwrap_or_else(|| panic!("{listed}"));
    assert!(line.contains("MALLOC_ARENA_MAX=2") && line.contains("arrow=system"), "{line}");
}
