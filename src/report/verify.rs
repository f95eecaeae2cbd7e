//! A command for a service's own environment that says whether variables took effect there, without this program.
//!
//! Each variable has a probe in Python that looks at what the allocator does or says, not at the variable alone: a
//! misspelt variable, a value that nothing reads and a library that was passed over all fail.
//!
//! Invariant: the command needs nothing but the Python of the service; what cannot be told counts as not verified.

/// A probe: the variable, the function that looks, and the pieces of Python that it needs.
struct Probe {
    name: &'static str,
    function: &'static str,
    pieces: &'static [&'static str],
}

const BASE: &str = include_str!("verify/base.py");
const RUN: &str = include_str!("verify/run.py");
const C: &str = include_str!("verify/c.py");
const GLIBC: &str = include_str!("verify/glibc.py");

const fn of(name: &'static str, function: &'static str, pieces: &'static [&'static str]) -> Probe {
    Probe { name, function, pieces }
}

/// By variable. The function of a probe of glibc has the name of the tunable that sets the same.
const PROBES: &[Probe] = &[
    of("PYTHONMALLOC", "python_allocator", &[include_str!("verify/python.py")]),
    of("ARROW_DEFAULT_MEMORY_POOL", "arrow_pool", &[include_str!("verify/arrow.py")]),
    of("JE_ARROW_MALLOC_CONF", "arrow_jemalloc", &[include_str!("verify/arrow_jemalloc.py")]),
    of("PYALLOC_NUMPY", "numpy_handler", &[include_str!("verify/numpy.py")]),
    of("LD_PRELOAD", "preload", &[C, include_str!("verify/preload.py")]),
    of("MALLOC_CONF", "jemalloc", &[C, include_str!("verify/jemalloc.py")]),
    of("MALLOC_ARENA_MAX", "arena_max", &[C, GLIBC, include_str!("verify/arena_max.py")]),
    of("MALLOC_MMAP_THRESHOLD_", "mmap_threshold", &[C, GLIBC, include_str!("verify/mmap_threshold.py")]),
    of("MALLOC_TRIM_THRESHOLD_", "trim_threshold", &[C, GLIBC, include_str!("verify/trim_threshold.py")]),
    of("MALLOC_TOP_PAD_", "top_pad", &[C, GLIBC, include_str!("verify/top_pad.py")]),
    of("MALLOC_MMAP_MAX_", "mmap_max", &[C, GLIBC, include_str!("verify/mmap_max.py")]),
    of("MALLOC_PERTURB_", "perturb", &[C, GLIBC, include_str!("verify/perturb.py")]),
];
/// What no behaviour tells is asked of the loader.
const LISTED: Probe = of("", "tunable", &[C, GLIBC, include_str!("verify/tunable.py")]);
const MIMALLOC: Probe = of("", "mimalloc", &[include_str!("verify/mimalloc.py")]);
const UNKNOWN: Probe = of("", "unknown", &[include_str!("verify/unknown.py")]);

/// The variable of several tunables, what begins their names, and that of a tunable without a probe of its own.
const TUNABLES_VARIABLE: &str = "GLIBC_TUNABLES";
const TUNABLE_PREFIX: &str = "glibc.malloc.";
const ARENA_TEST: (&str, &str) = ("MALLOC_ARENA_TEST", "arena_test");
const MIMALLOC_PREFIX: &str = "MIMALLOC_";
const PRELOAD: &str = "LD_PRELOAD";

/// One line of the script's list.
struct Check {
    probe: &'static Probe,
    name: String,
    value: String,
    /// What the probe is given, as Python writes it.
    setting: String,
}

/// A shell command that runs the script by the service's Python.
#[must_use]
pub fn command(variables: &[(String, String)]) -> String {
    format!("python3 - <<'VERIFY'\n{}VERIFY\n", script(variables))
}

/// The script.
#[must_use]
pub fn script(variables: &[(String, String)]) -> String {
    let checks: Vec<Check> = variables.iter().flat_map(|(name, value)| checks(name, value, variables)).collect();
    let mut pieces: Vec<&str> = vec![BASE];
    for piece in checks.iter().flat_map(|check| check.probe.pieces) {
        if !pieces.contains(piece) {
            pieces.push(piece);
        }
    }
    let lines = checks.iter().map(|check| {
        let [name, value] = [&check.name, &check.value].map(|text| literal(text));
        format!("    ({name}, {value}, {}, {}),\n", check.probe.function, check.setting)
    });
    format!("{}\nCHECKS = [\n{}]\n{RUN}", pieces.join("\n"), lines.collect::<String>())
}

/// A Python string: JSON's escapes are among Python's.
fn literal(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

fn probe_of_tunable(tunable: &str) -> Option<&'static Probe> {
    PROBES.iter().find(|probe| probe.pieces.contains(&GLIBC) && probe.function == tunable)
}

fn checks(name: &str, value: &str, all: &[(String, String)]) -> Vec<Check> {
    let check = |probe, setting| Check { probe, name: name.to_owned(), value: value.to_owned(), setting };
    let pair = |name: &str, value: &str| format!("({}, {})", literal(name), literal(value));
    if name == TUNABLES_VARIABLE {
        let tunables = value.split(':').filter_map(|text| text.strip_prefix(TUNABLE_PREFIX)?.split_once('='));
        let each = tunables.map(|(tunable, wanted)| match probe_of_tunable(tunable) {
            Some(probe) => check(probe, literal(wanted)),
            None => check(&LISTED, pair(tunable, wanted)),
        });
        return each.collect();
    }
    if let Some(option) = name.strip_prefix(MIMALLOC_PREFIX) {
        // A preloaded mimalloc speaks whatever is run; Arrow's own copy once it is loaded.
        let package = if all.iter().any(|(name, _)| name == PRELOAD) { "" } else { "pyarrow" };
        let setting = [&option.to_lowercase(), value, package].map(literal).join(", ");
        return vec![check(&MIMALLOC, format!("({setting})"))];
    }
    if name == ARENA_TEST.0 {
        return vec![check(&LISTED, pair(ARENA_TEST.1, value))];
    }
    let probe = PROBES.iter().find(|probe| probe.name == name).unwrap_or(&UNKNOWN);
    vec![check(probe, literal(value))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script_of(pairs: &[(&str, &str)]) -> String {
        script(&pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn a_script_has_what_it_needs_and_once() {
        let script = script_of(&[("MALLOC_ARENA_MAX", "2"), ("MALLOC_TRIM_THRESHOLD_", "65536")]);
        assert_eq!(script.matches("def needs_glibc").count(), 1);
        assert!(script.contains("def arena_max") && script.contains("def trim_threshold"));
        assert!(!script.contains("def mmap_threshold") && !script.contains("pyarrow"));
        assert!(script.contains("    (\"MALLOC_ARENA_MAX\", \"2\", arena_max, \"2\"),\n"), "{script}");
    }

    #[test]
    fn every_tunable_has_a_check_of_its_own() {
        let script = script_of(&[("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0")]);
        assert!(
            script.contains("arena_max, \"2\"),") && script.contains("tunable, (\"tcache_count\", \"0\")),"),
            "{script}"
        );
        assert!(script_of(&[("MIMALLOC_PURGE_DELAY", "0")]).contains("(\"purge_delay\", \"0\", \"pyarrow\")"));
        assert!(script_of(&[("TCMALLOC_ANYTHING", "1")]).contains("unknown, \"1\""));
    }

    #[test]
    fn no_line_of_python_ends_the_here_document() {
        for piece in PROBES.iter().chain([&LISTED, &MIMALLOC, &UNKNOWN]).flat_map(|probe| probe.pieces) {
            assert!(
                piece.lines().all(|line| line != "VERIFY" && line.len() <= 120) && piece.ends_with('\n'),
                "{piece}"
            );
        }
    }
}
