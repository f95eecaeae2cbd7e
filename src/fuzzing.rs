//! Every parser of this crate behind one function of bytes, for `fuzz/` and for a test over its seeds.
//!
//! Compiled for those two alone: most parsers are private, and shipping them would make them an interface.
//!
//! Invariant: a target runs no other program and opens no file but its own.

use crate::measure::{self, Named, live, parse_without_interpreters};
use crate::report::regions;
use crate::run::{Environment, Fidelity, Run};
use crate::{analysis, backend, probe, report, workload};
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes to one parser, or to several of one format.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("words", words),
    ("configs", configs),
    ("definition", definition),
    ("result", result),
    ("fidelity", fidelity),
    ("regions", marked_regions),
    ("elf", elf),
    ("kernel", kernel),
    #[cfg(fuzzing)] // Its own crate tests it over damage.
    ("log", recorder::fuzzing::log),
    ("verify", verify),
];

/// Pixels of a chart take most of the time, and the same numbers are in the SVG.
const CHARTS_MAX_WORKLOADS: usize = 2;

/// The target of this name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no target {name:?}")).1
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// The words of `-c` in the first line, what a loader complained of behind it. A word with a folder opens that file.
fn words(bytes: &[u8]) {
    let Some((line, loader)) = text(bytes).map(|text| text.split_once('\n').unwrap_or((text, ""))) else { return };
    if line.contains('/') {
        return;
    }
    let Ok(config) = parse_without_interpreters(line, &Named::default()) else { return };
    _ = measure::verify(&config, &[], loader);
    let facts = config.facts(&[], &[]);
    assert_eq!(facts.name, config.name);
    if config.deploy.is_some() && !config.has_interpreter() {
        let again = parse_without_interpreters(&config.words, &Named::default());
        assert!(config.words.is_empty() || again.is_ok(), "{:?} reads as {:?}", config.words, again.err());
    }
}

/// A file of `--configs`, and the words in it.
fn configs(bytes: &[u8]) {
    let Some(named) = text(bytes).and_then(|text| Named::parse(text).ok()) else { return };
    for (name, words) in named.iter() {
        if !words.contains('/') {
            _ = parse_without_interpreters(name, &named);
        }
    }
}

/// A workload's definition.
fn definition(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(definition) = workload::Definition::parse(text, "workloads/sample.toml") {
        assert!(!Path::new(&definition.trace.file).is_absolute());
        _ = (definition.story_text(), definition.cut.totals.mismatch(&trace::Totals::default()));
    }
}

/// `environment.json` in the first line, runs in the others, through everything that `report` writes.
fn result(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let environment = lines.next().and_then(|line| serde_json::from_slice::<Environment>(line).ok());
    let runs: Vec<Run> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let Some(environment) = environment else { return };
    let analysis = analysis::analyse(environment, &runs);
    _ = (report::terminal(&analysis), report::markdown(&analysis));
    if analysis.workloads.len() <= CHARTS_MAX_WORKLOADS {
        _ = report::html::page(&analysis, &report::charts(&analysis, None));
    }
}

/// The file that `live` writes.
fn fidelity(bytes: &[u8]) {
    let Ok(found) = serde_json::from_slice::<Fidelity>(bytes) else { return };
    _ = (analysis::fidelity::judge(&found), report::fidelity::quote(&found));
    _ = (report::fidelity::compared(&found), report::fidelity::predictions(&found));
}

/// A document with marked regions: replaced, they are found again, and nothing else has changed.
fn marked_regions(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(found) = regions::regions(text) else { return };
    let same: Vec<String> = found.iter().map(|region| region.body(text).to_owned()).collect();
    assert_eq!(regions::replaced(text, &found, &same), text);
    let other: Vec<String> = found.iter().map(|_| regions::inside(text, "new")).collect();
    let new = regions::replaced(text, &found, &other);
    let again = regions::regions(&new).expect("the marks are as they were");
    assert!(again.iter().zip(&found).all(|(new, old)| new.words == old.words) && again.len() == found.len());
    _ = regions::difference(text, &new, 4);
}

/// A file that readers of libraries open by its path; each process has its own.
fn file(bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pyalloc-bench-fuzz-{}.so", std::process::id()));
    fs::write(&path, bytes).expect("the temporary folder can be written");
    path
}

/// A library, for all that looks into one.
fn elf(bytes: &[u8]) {
    let path = file(bytes);
    let name = path.to_string_lossy();
    _ = measure::check_library(&name, "numpy=it");
    _ = measure::needs_static_tls(&name);
    _ = measure::installation::copies(&path);
    _ = backend::local_functions(&path, ["mi_version", "mi_malloc", "je_malloc"]);
    _ = live::static_bytes(&path);
    _ = fs::remove_file(&path);
}

/// Texts of `/proc`, and the message of a recorded program's mark.
fn kernel(bytes: &[u8]) {
    _ = live::parse_mark(bytes);
    for name in [b"Anonymous:".as_slice(), b"VmHWM:", b""] {
        _ = probe::memory::kib_field(bytes, name);
    }
    let text = String::from_utf8_lossy(bytes);
    _ = measure::sleeping(&text);
    // Names of files of the machine would be opened.
    if !text.contains('/') {
        let reading = live::Sampler::new(std::process::id()).reading(&text);
        assert!(reading.no_heap <= reading.anonymous, "{reading:?}");
    }
}

/// Pairs of a variable's name and value, a line each, as a script quotes them.
fn verify(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').map(str::to_owned);
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        variables.push((name, value));
    }
    let command = report::verify::command(&variables);
    assert_eq!(command.lines().filter(|line| *line == "VERIFY").count(), 1, "the script ends where it is to end");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest inputs that reach a parser's end, by target.
    const SEEDS: &[(&str, &[u8])] = &[
        ("words", b"MALLOC_ARENA_MAX=2 ARROW_DEFAULT_MEMORY_POOL=system\n"),
        ("words", b"numpy=jemalloc pool"),
        ("configs", b"[config.lean]\nwords = \"MALLOC_ARENA_MAX=2\"\n"),
        ("definition", b"name = \"sample\""),
        ("fidelity", b"{\"schema\":1,\"configs\":[{\"name\":\"today\",\"real\":[{\"rest\":[[0,5]]}]}]}"),
        ("regions", b"a\n<!-- pyalloc-bench:begin table x -->\nold\n<!-- pyalloc-bench:end -->\n"),
        ("elf", b"\x7fELF\x02\x01\x01"),
        ("kernel", b"7f00-8000 rw-p 00001000 fe:00 1234\nAnonymous: 18446744073709551615 kB\nAnonymous: 4 kB\n"),
        ("kernel", b"1 2 3 steady\n"),
        ("verify", b"LD_PRELOAD\nVERIFY\nMALLOC_CONF\na'b\"c\\\n"),
    ];

    #[test]
    fn every_target_takes_its_seeds_and_damage() {
        for (name, seed) in SEEDS {
            for end in 0..=seed.len() {
                target(name)(&seed[..end]);
            }
        }
        for (name, run) in TARGETS {
            run(b"");
            run(b"\xff\0{\"schema\":1}\n");
            assert!(SEEDS.iter().any(|(seeded, _)| seeded == name) || *name == "result", "{name} has no seed");
        }
    }
}
