//! `recommend` as a user meets it, on a real result and on invented ones, and the commands it prints, on real Pythons.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;
#[path = "allocators/built.rs"]
mod built;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use binary::{bench, output};
use pyalloc_bench::analysis::fixture::{self, Invention};
use pyalloc_bench::report::verify;
use pyalloc_bench::run::{ENVIRONMENT_FILE, Environment, RUNS_FILE, Run};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

fn recommend(result: &Path, more: &[&str]) -> (i32, String, String) {
    output(bench().arg("recommend").arg(result).args(more))
}

/// Without line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reference() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results/reference")
}

/// An invented result in a folder; `change` may alter it first.
fn invented(footprint_runs: u32, change: impl Fn(&mut Environment, &mut Vec<Run>)) -> TempDir {
    let what = Invention { footprint_runs, blocks: 6, ..Invention::default() };
    let (mut environment, mut runs) = (fixture::environment(&what), fixture::runs(&what));
    change(&mut environment, &mut runs);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(ENVIRONMENT_FILE), serde_json::to_string(&environment).unwrap()).unwrap();
    let lines: String = runs.iter().map(|run| serde_json::to_string(run).unwrap() + "\n").collect();
    fs::write(folder.path().join(RUNS_FILE), lines).unwrap();
    folder
}

/// `system` is what runs today, `jemalloc` a variable.
fn deployed(environment: &mut Environment, _: &mut Vec<Run>) {
    for (name, words) in [("system", ""), ("jemalloc", "MALLOC_ARENA_MAX=2")] {
        let config = environment.configs.iter_mut().find(|config| config.name == name).unwrap();
        (config.deployable, config.words) = (true, words.to_owned());
    }
}

#[test]
fn a_real_result_of_before_has_a_recommendation() {
    let (code, text, err) = recommend(&reference(), &[]);
    assert_eq!(code, 0, "{err}");
    for name in ["arrow-service", "gc-cycles", "large-arrays", "mixed", "small-objects"] {
        assert!(flat(&text).contains(&format!("this trace ({name}, sha256 ")), "{name}: {text}");
    }
    let (code, text, err) = recommend(&reference(), &["-w", "arrow-service"]);
    assert_eq!(code, 0, "{err}");
    for part in
        ["Choices", "Price", "What would change the answer", "How far to trust it", "Fidelity: predicted memory"]
    {
        assert!(flat(&text).contains(part), "{part} is missing in\n{text}");
    }
    assert!(text.lines().all(|line| !line.contains("NaN") && !line.contains("inf ")), "{text}");
    assert_eq!(recommend(&reference(), &["-w", "arrow-service"]).1, text, "the same bytes");
}

#[test]
fn a_limit_that_nothing_fits_is_exit_code_1() {
    let (code, text, err) = recommend(&reference(), &["-w", "arrow-service", "--limit-mem", "20MiB"]);
    assert_eq!(code, 1, "{text}{err}");
    let text = flat(&text);
    assert!(text.contains("the kernel would kill it (exit code 137)") && text.contains("NO"), "{text}");
    assert!(err.contains("Nothing that can be deployed meets the constraints"), "{err}");
    let (code, text, _) = recommend(&reference(), &["-w", "arrow-service", "--limit-mem", "100GB"]);
    assert_eq!(code, 0, "{text}");
    assert!(flat(&text).contains("The limit of 95367 MiB"), "{text}");
}

#[test]
fn wrong_inputs_are_sentences() {
    let reference = reference();
    for (more, expected) in [
        (&["--workload", "nope"][..], "no workload \"nope\". Give one of: arrow-service"),
        (&["--limit-mem", "1G"], "1GB or 1GiB"),
        (&["--limit-mem", "much"], "a number with a unit"),
        (&["--max-p999", "50"], "the unit is missing"),
        (&["--for", "luck"], "possible values: peak, rest, speed, latency"),
        (&["--json", "--markdown"], "cannot be used with"),
        (&["--against", "/nonexistent"], "cannot be read"),
    ] {
        let (code, _, err) = recommend(&reference, more);
        assert!(code == 2 && err.contains(expected), "{more:?}: {code} {err}");
    }
    let (code, _, err) = recommend(Path::new("/nonexistent"), &[]);
    assert!(code == 2 && err.contains("cannot be read"), "{err}");
}

#[test]
fn one_run_is_inconclusive_and_six_are_not() {
    let once = invented(1, deployed);
    let (code, text, _) = recommend(once.path(), &["-w", "large-arrays"]);
    assert_eq!(code, 0, "{text}");
    let text = flat(&text);
    assert!(text.contains("inconclusive. By medians alone") && text.contains("--footprint-runs 6"), "{text}");
    assert!(text.contains("Only once more runs confirm it"), "{text}");
    let six = invented(6, deployed);
    let (_, text, _) = recommend(six.path(), &["-w", "large-arrays", "--against", once.path().to_str().unwrap()]);
    assert!(text.contains("export MALLOC_ARENA_MAX=2\n") && text.contains("unset MALLOC_ARENA_MAX\n"), "{text}");
    let text = flat(&text);
    assert!(text.contains("`jemalloc` (MALLOC_ARENA_MAX=2) is better than `system` (no variable)"), "{text}");
    assert!(text.contains("the same trace: inconclusive `jemalloc`; the answer stays"), "{text}");
    assert!(!text.contains("LD_PRELOAD=libjemalloc"), "{text}");
}

#[test]
fn what_ifs_alone_are_no_recommendation() {
    let folder = invented(6, |environment, runs| {
        environment.configs.retain(|config| !["pool", "system"].contains(&config.name.as_str()));
        runs.retain(|run| !["pool", "system"].contains(&run.config.as_str()));
    });
    let (code, text, err) = recommend(folder.path(), &[]);
    assert!(code == 2 && err.contains("Nothing here can be deployed"), "{err}");
    assert!(flat(&text).contains("nothing that was measured can be deployed by variables"), "{text}");
}

#[test]
fn json_has_a_version_and_the_same_answer() {
    let folder = invented(6, deployed);
    let (code, text, _) = recommend(folder.path(), &["--json", "--limit-mem", "1GiB"]);
    assert_eq!(code, 1, "the invented recording does not know its process");
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["recommendations"][1]["decision"], "nothingfits");
    let (_, text, _) = recommend(folder.path(), &["--json", "-w", "large-arrays"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let found = &value["recommendations"][0];
    let to = found["decision"]["switch"]["to"].as_u64().unwrap() as usize;
    assert_eq!(found["candidates"][to]["deploy"][0][1], "2");
    assert!(found["rollout"]["verify"].as_str().unwrap().contains("VERIFY"), "{found}");
    let (_, text, _) = recommend(folder.path(), &["--markdown", "-w", "large-arrays"]);
    assert!(text.contains("## Choices\n\n| configuration |") && text.contains("```sh\nexport MALLOC"), "{text}");
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Runs the script for `pairs` in an environment of `set`; with `forge` the variables are put there after the start.
fn verified(python: &Path, pairs: Pairs<'_>, set: Pairs<'_>, forge: bool) -> (bool, String) {
    let owned: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut script = verify::script(&owned);
    if forge {
        let lines: String = pairs.iter().map(|(n, v)| format!("os.environ[{n:?}] = {v:?}\n")).collect();
        script = format!("import os\n{lines}{script}");
    }
    let mut command = Command::new(python);
    command.args(["-B", "-"]).env_clear().envs(set.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat())
}

/// What is set is found, what is misspelt is not, and the variable alone does not convince a probe that looks.
fn hold(python: &Path, pairs: Pairs<'_>, beside: Pairs<'_>, is_behaviour: bool) {
    let at = python.display();
    let (is_found, said) = verified(python, pairs, &[pairs, beside].concat(), false);
    assert!(is_found, "{at}: {pairs:?}: {said}");
    for index in 0..pairs.len() {
        let mut wrong: Vec<(String, &str)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let middle = wrong[index].0.len() / 2;
        wrong[index].0.remove(middle);
        let wrong: Vec<(&str, &str)> = wrong.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        let (is_found, said) = verified(python, pairs, &[&wrong, beside].concat(), false);
        assert!(!is_found && said.contains("did NOT take effect: it is not set here"), "{at}: {wrong:?}: {said}");
    }
    if is_behaviour {
        let (is_found, said) = verified(python, pairs, beside, true);
        assert!(!is_found && said.contains("did NOT take effect"), "{at}: forged {pairs:?}: {said}");
    }
}

/// A Python whose C library is glibc, which the probes of glibc are for.
fn python() -> Option<&'static Path> {
    support::any_interpreter().map(|interpreter| interpreter.path.as_path())
}

#[test]
fn every_interpreter_tells_whether_its_pools_are_in_use() {
    for interpreter in support::interpreters() {
        // The first version with a mimalloc is 3.13; a build may be without.
        let has_mimalloc = || verified(&interpreter.path, &[], &[("PYTHONMALLOC", "mimalloc")], false).0;
        let values = ["malloc", "debug", "pymalloc_debug", "malloc_debug"].into_iter();
        for value in values.chain((interpreter.minor >= 13 && has_mimalloc()).then_some("mimalloc")) {
            hold(&interpreter.path, &[("PYTHONMALLOC", value)], &[], true);
        }
        for (wanted, set) in [("debug", "pymalloc"), ("malloc", "malloc_debug"), ("pymalloc_debug", "malloc_debug")] {
            let pairs = [("PYTHONMALLOC", wanted)];
            let (is_found, said) = verified(&interpreter.path, &pairs, &[("PYTHONMALLOC", set)], true);
            assert!(!is_found && said.contains("did NOT take effect"), "{wanted} under {set}: {said}");
        }
    }
}

#[test]
fn probes_of_glibc_find_what_is_set_and_nothing_else() {
    let Some(python) = python() else { return };
    for pair in [
        ("MALLOC_ARENA_MAX", "1"),
        ("MALLOC_ARENA_MAX", "2"),
        ("MALLOC_MMAP_THRESHOLD_", "65536"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "1048576"),
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_TRIM_THRESHOLD_", "16777216"),
        ("MALLOC_TRIM_THRESHOLD_", "134217728"),
        ("MALLOC_TOP_PAD_", "1048576"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("MALLOC_PERTURB_", "165"),
        ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=65536"),
    ] {
        hold(python, &[pair], &[], true);
    }
    // These the loader is asked about, and it reads the forged variable too.
    for pair in [("GLIBC_TUNABLES", "glibc.malloc.tcache_count=3"), ("MALLOC_ARENA_TEST", "3")] {
        hold(python, &[pair], &[], false);
    }
    // Every object comes from malloc, and none may lie in the way.
    let both = [("PYTHONMALLOC", "malloc"), ("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_ARENA_MAX", "2")];
    hold(python, &both, &[], true);
}

#[test]
fn a_value_that_nothing_reads_did_not_take_effect() {
    let Some(python) = python() else { return };
    for (name, value) in [("PYTHONMALLOC", "pymalloc"), ("TCMALLOC_RELEASE_RATE", "10"), ("MALLOC_CONF", "narenas:2")] {
        let pairs = [(name, if name == "PYTHONMALLOC" { "malloc" } else { value })];
        assert!(!verified(python, &pairs, &[(name, value)], false).0, "{name}={value}");
    }
}

#[test]
fn a_preloaded_library_and_its_options_are_found() {
    let Some(python) = python() else { return };
    let library = built::mimalloc_2().to_str().unwrap();
    let name = Path::new(library).file_name().unwrap().to_str().unwrap();
    let option = ("MIMALLOC_PURGE_DELAY", "7");
    // A result keeps no folders: the script knows the library's name, the service its path.
    let (is_found, said) = verified(python, &[("LD_PRELOAD", name), option], &[("LD_PRELOAD", library), option], false);
    assert!(is_found, "{said}");
    for (set, expected) in [
        (vec![("LD_PRELOD", library), option], "LD_PRELOD is; perhaps that is misspelt"),
        (vec![("LD_PRELOAD", library), ("MIMALLOC_PURGE_DLAY", "7")], "MIMALLOC_PURGE_DLAY is"),
        (vec![("LD_PRELOAD", "/nowhere/libmimalloc-two.so"), option], "passed over"),
        (vec![("LD_PRELOAD", library), ("MIMALLOC_PURGE_DELAY", "8")], "it is '8' here"),
    ] {
        let (is_found, said) = verified(python, &[("LD_PRELOAD", name), option], &set, false);
        assert!(!is_found && said.contains(expected), "{set:?}: {said}");
    }
    // What it takes the place of is no longer read.
    let arenas = ("MALLOC_ARENA_MAX", "2");
    let (is_found, said) = verified(python, &[arenas], &[("LD_PRELOAD", library), arenas], false);
    assert!(!is_found && said.contains("only glibc's own reads it"), "{said}");
    // A library that is there and is no allocator.
    let (is_found, said) = verified(python, &[("LD_PRELOAD", "libm.so.6")], &[("LD_PRELOAD", "libm.so.6")], false);
    assert!(!is_found && said.contains("malloc comes from libc"), "{said}");
}

#[test]
fn a_preloaded_jemalloc_tells_its_options() {
    let Some(python) = python() else { return };
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib"];
    let named = std::env::var_os("PYALLOC_BENCH_JEMALLOC").map(PathBuf::from);
    let mut all = named.into_iter().chain(places.iter().map(|place| Path::new(place).join("libjemalloc.so.2")));
    let Some(library) = all.find(|path| path.exists()) else {
        println!("NOT RUN: no libjemalloc.so.2 is here; name one in PYALLOC_BENCH_JEMALLOC");
        return;
    };
    let preload = ("LD_PRELOAD", library.to_str().unwrap());
    let options = "dirty_decay_ms:0,muzzy_decay_ms:-1,background_thread:true,narenas:3,thp:never,percpu_arena:percpu";
    hold(python, &[("MALLOC_CONF", options)], &[preload], true);
}

#[test]
fn arrow_s_pool_is_the_one_that_was_asked_for() {
    let Some(python) = support::python_with_packages() else { return };
    for pool in ["system", "jemalloc", "mimalloc"] {
        // Arrow reads the variable when it is loaded, which the probe does, so a variable put there before is in force.
        hold(&python, &[("ARROW_DEFAULT_MEMORY_POOL", pool)], &[], false);
    }
    hold(&python, &[("JE_ARROW_MALLOC_CONF", "dirty_decay_ms:0,narenas:2")], &[], false);
    hold(&python, &[("MIMALLOC_PURGE_DELAY", "0")], &[], false);
    let (is_found, said) = verified(
        &python,
        &[("JE_ARROW_MALLOC_CONF", "dirty_decay:0")],
        &[("JE_ARROW_MALLOC_CONF", "dirty_decay:0")],
        false,
    );
    assert!(!is_found && said.contains("says dirty_decay is unknown"), "{said}");
}

#[test]
fn numpy_s_handler_is_the_one_that_was_asked_for() {
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    recorder::write_numpy_handler(folder.path()).unwrap();
    let at = ("PYTHONPATH", folder.path().to_str().unwrap());
    hold(&python, &[("PYALLOC_NUMPY", "system")], &[at], false);
    let library = built::mimalloc_2().to_str().unwrap();
    let name = Path::new(library).file_name().unwrap().to_str().unwrap();
    let asked = [("PYALLOC_NUMPY", name)];
    for (set, expected) in [
        (vec![("PYALLOC_NUMPY", library), at], ""),
        (vec![("PYALLOC_NUMPY", library)], "finds no pyalloc_numpy"),
        (vec![("PYALLOC_NUMPY", "system"), at], "it is 'system' here"),
        (vec![("PYALLOC_NUMPY", "/nowhere/libmimalloc-two.so"), at], "no such file"),
        (vec![("PYALLOC_NUMPI", library), at], "perhaps that is misspelt"),
    ] {
        let (is_found, said) = verified(&python, &asked, &set, false);
        assert!(is_found == expected.is_empty() && said.contains(expected), "{set:?}: {said}");
    }
}

#[test]
fn the_printed_command_runs_in_a_shell() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(python, folder.path().join("python3")).unwrap();
    let command = verify::command(&[("PYTHONMALLOC".to_owned(), "malloc".to_owned())]);
    let code = |set: Pairs<'_>| {
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(&command).env("PATH", folder.path()).env_remove("PYTHONMALLOC").envs(set.iter().copied());
        shell.env("PYTHONHOME", python.parent().unwrap().parent().unwrap()).output().unwrap().status.code()
    };
    assert_eq!(code(&[("PYTHONMALLOC", "malloc")]), Some(0));
    assert_eq!(code(&[("PYTHONMALOC", "malloc")]), Some(1));
    assert_eq!(code(&[]), Some(1));
}
