//! `doctor` on this host, on hosts with limits, and on Python environments: one with a real pyarrow, and one with
//! libraries that are built here from C.
//!
//! Invariant: where no Python can be had this says `NOT RUN`, and fails where that is not allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

const EXE: &str = env!("CARGO_BIN_EXE_pyalloc-bench");

/// Code, output, error output.
fn ended(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn doctor(arguments: &[&str]) -> (i32, String, String) {
    ended(Command::new(EXE).arg("doctor").args(arguments))
}

/// What it says of an environment.
fn environment(python: &Path) -> Value {
    let (code, output, errors) = doctor(&["--json", "--python", python.to_str().unwrap()]);
    assert_eq!(code, 0, "{output}\n{errors}");
    serde_json::from_str::<Value>(&output).unwrap()["environment"].take()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn reach<'a>(environment: &'a Value, variable: &str) -> &'a Value {
    let rows = environment["reaches"].as_array().unwrap();
    rows.iter().find(|row| row["variable"].as_str().unwrap().starts_with(variable)).unwrap()
}

/// An environment of an interpreter and nothing else, and its folder of packages.
fn bare_environment(folder: &TempDir) -> Option<(PathBuf, PathBuf)> {
    let base = support::any_interpreter()?;
    let place = folder.path().join("environment");
    let made = ended(Command::new(&base.path).args(["-m", "venv", "--without-pip"]).arg(&place));
    if made.0 != 0 {
        support::not_run(&format!("{} cannot make a virtual environment: {}", base.label(), made.2));
        return None;
    }
    Some((place.clone(), place.join(format!("lib/python3.{}/site-packages", base.minor))))
}

/// A library from C, stripped if `stripped`.
fn library(packages: &Path, name: &str, source: &str, stripped: bool) {
    let code = packages.join("source.c");
    fs::write(&code, source).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(packages.join(name)).arg(&code);
    let (exit, _, errors) = ended(command.args(stripped.then_some("-s")));
    assert_eq!(exit, 0, "{name}: {errors}");
}

#[test]
fn every_fact_of_the_host_is_judged() {
    let (code, output, errors) =
        ended(Command::new(EXE).args(["doctor", "--json"]).env("MALLOC_ARENA_MAX", "2").env("LD_PRELOAD", ""));
    assert_eq!(code, 0, "{errors}");
    let found: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(found["is_fit"], true);
    let findings = found["findings"].as_array().unwrap();
    let of = |fact: &str| findings.iter().find(|finding| finding["fact"] == fact).unwrap();
    assert!(findings.iter().all(|finding| finding["value"].as_str().is_some_and(|value| !value.is_empty())));
    let set = of("variables set");
    assert_eq!(set["judgement"], "warn");
    assert!(set["value"].as_str().unwrap().contains("MALLOC_ARENA_MAX"), "{set}");
    assert!(found["allocators"].as_array().unwrap().iter().any(|allocator| allocator["key"] == "jemalloc"));
}

#[test]
fn a_host_that_cannot_measure_is_unfit() {
    for (limit, expected) in [("-v 1048576", "address space"), ("-n 40", "open files")] {
        let script = format!("ulimit {limit}; exec \"$0\" doctor");
        let (code, output, errors) = ended(Command::new("sh").args(["-c", &script, EXE]));
        assert_eq!(code, 2, "{limit}: {output}\n{errors}");
        assert!(errors.contains("unfit") && errors.contains(expected) && errors.contains("ulimit"), "{errors}");
        assert!(output.lines().any(|line| line.contains(expected) && line.contains("unfit")), "{output}");
    }
}

#[test]
fn the_pools_of_a_pyarrow_are_found_with_their_versions_and_variables() {
    let Some(python) = support::python_with_packages() else { return };
    let found = environment(&python);
    assert_eq!(found["arrow"]["default_pool"], "mimalloc");
    let mut pools = texts(&found["arrow"]["pools"]);
    pools.sort_unstable();
    assert_eq!(pools, ["jemalloc", "mimalloc", "system"]);
    let copies: Vec<&Value> = found["copies"].as_array().unwrap().iter().collect();
    let inside: Vec<&&Value> =
        copies.iter().filter(|copy| copy["file"].as_str().unwrap().starts_with("pyarrow/libarrow.so.")).collect();
    assert_eq!(inside.len(), 2, "{copies:?}");
    for copy in inside {
        assert!(copy["version"].as_str().unwrap().starts_with(|digit: char| digit.is_ascii_digit()), "{copy}");
        assert_eq!(copy["answers"], true, "{copy}");
        let option = if copy["family"] == "jemalloc" { "dirty_decay_ms" } else { "purge_delay" };
        assert_eq!(copy["options"][option], "1000", "{copy}");
    }
    for (variable, reached) in [("MALLOC_CONF", false), ("JE_ARROW_MALLOC_CONF", true), ("MIMALLOC_", true)] {
        let is_reached = texts(&reach(&found, variable)["reaches"]).iter().any(|text| text.contains("libarrow.so."));
        assert_eq!(is_reached, reached, "{variable}");
    }
    assert!(texts(&reach(&found, "LD_PRELOAD")["misses"]).iter().any(|text| text.contains("libarrow.so.")));
}

#[test]
fn words_take_effect_or_fail_the_command() {
    let Some(python) = support::python_with_packages() else { return };
    let python = python.to_str().unwrap();
    let tried = |words: &[&str]| doctor(&[&["--python", python, "--"], words].concat());
    let (code, output, errors) = tried(&[
        "JE_ARROW_MALLOC_CONF=dirty_decay_ms:0,narenas:2",
        "MIMALLOC_PURGE_DELAY=7",
        "ARROW_DEFAULT_MEMORY_POOL=jemalloc",
        "PYTHONMALLOC=malloc",
        "MALLOC_ARENA_MAX=2",
    ]);
    assert_eq!(code, 0, "{output}\n{errors}");
    assert_eq!(output.lines().filter(|line| line.contains("takes effect")).count(), 5, "{output}");
    assert!(output.contains("purge_delay is 7") && output.contains("its pool is jemalloc"), "{output}");
    for (word, expected) in [
        ("MALLOC_CONF=dirty_decay_ms:0", "no jemalloc in this environment reads it"),
        ("_RJEM_MALLOC_CONF=dirty_decay_ms:0", "no jemalloc in this environment reads it"),
        ("JE_ARROW_MALLOC_CONF=decay:0", "refuses decay:0"),
        ("MIMALLOC_PURGE_DELAYS=7", "no option purge_delays"),
        ("PYTHONMALLOC=quite-another", "does not start"),
        ("ARROW_DEFAULT_MEMORY_POOL=another", "its pool is mimalloc"),
    ] {
        let (code, output, errors) = tried(&[word]);
        assert_eq!(code, 1, "{word}: {output}\n{errors}");
        assert!(output.contains("no effect") && output.contains(expected), "{word}: {output}");
        assert!(errors.contains(word), "{errors}");
    }
    for words in [&["MALLOC_ARENAS_MAX=2"][..], &["numpy=jemalloc"], &["PYTHONMALLOC=malloc", "PYTHONMALLOC=malloc"]] {
        let (code, output, errors) = tried(words);
        assert_eq!(code, 2, "{words:?}: {output}\n{errors}");
        assert!(!errors.is_empty());
    }
    assert_eq!(doctor(&["--", "MALLOC_ARENA_MAX=2"]).0, 0, "without an environment a replay's child is asked");
    assert_eq!(doctor(&["-c", "MALLOC_CONF=dirty_decay_ms:0"]).0, 1);
}

#[test]
fn what_is_no_python_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    for place in [empty.path().to_str().unwrap(), "/nonexistent/python", "true"] {
        let (code, output, errors) = doctor(&["--python", place]);
        assert_eq!((code, output.as_str()), (2, ""), "{place}: {errors}");
        assert!(errors.contains(place) && errors.contains("Name an interpreter"), "{errors}");
    }
}

#[test]
fn only_libraries_that_contain_an_allocator_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let Some((place, packages)) = bare_environment(&folder) else { return };
    // Nothing in it, though it speaks of one; and one that only calls one.
    let talk =
        "const char *const talk = \"faster with jemalloc, mimalloc or tcmalloc\"; int work(void) { return 1; }\n";
    library(&packages, "innocent.so", talk, true);
    library(&packages, "caller.so", "void *mi_malloc(long); void *work(void) { return mi_malloc(1); }\n", false);
    fs::write(packages.join("text.so"), "no library\n").unwrap();
    assert_eq!(environment(&place)["copies"].as_array().unwrap().iter().filter(is_in_packages).count(), 0);

    // The marks of a jemalloc with a prefix, stripped; and a mimalloc by its symbols, with the number of its version.
    let marks = "const char *const marks[] = {\"/etc/je_test_malloc.conf\", \"JE_TEST_MALLOC_CONF\", \"<jemalloc>: \", \
                 \"5.3.0-12-g0123456789abcdef\"};\n";
    library(&packages, "planted.so", marks, true);
    library(&packages, "named.so", "int mi_version(void) { return 30401; } void mi_malloc(void) {}\n", false);
    let found = environment(&place);
    let copies: Vec<&Value> = found["copies"].as_array().unwrap().iter().filter(is_in_packages).collect();
    let of = |file: &str| *copies.iter().find(|copy| copy["file"] == file).unwrap();
    assert_eq!(copies.len(), 2, "{copies:?}");
    assert_eq!(of("planted.so")["variable"], "JE_TEST_MALLOC_CONF");
    assert_eq!(of("planted.so")["version"], "5.3.0-12-g0123456");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(of("named.so")["version"], "3.4.1");
    }
    // Neither speaks when it is loaded, and so neither is said to read a variable.
    assert!(copies.iter().all(|copy| copy["answers"] == false), "{copies:?}");
    assert_eq!(texts(&found["remarks"]).len(), 2, "{}", found["remarks"]);
}

/// Newer interpreters have a mimalloc of their own.
fn is_in_packages(copy: &&Value) -> bool {
    !copy["file"].as_str().unwrap().contains("python")
}
