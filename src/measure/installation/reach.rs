//! Which variable reaches which allocator of an installation, and which it does not.
//!
//! Invariant: a private copy is reached by the variable that its own build reads, and by no other; what merely has a
//! similar name is listed as missed.

use super::copy::{Copy, Family};
use super::{Installation, Python};
use crate::measure::config::{ARROW, PRELOAD, PYTHON_VARIABLE as PYTHON, TUNABLES};
use serde::Serialize;

/// What one variable, or a group of one effect, does in an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reach {
    /// Its name; `*` stands for the rest of many.
    pub variable: String,
    /// What reads it.
    pub reaches: Vec<String>,
    /// What one may think that it reaches.
    pub misses: Vec<String>,
}

/// The variable of an unprefixed jemalloc.
const MALLOC_CONF: &str = "MALLOC_CONF";

/// Every variable that may matter there, the interpreter's own first.
#[must_use]
pub fn reaches(found: &Installation) -> Vec<Reach> {
    let mut rows = vec![python(found), libc(found), preload(found)];
    rows.extend(arrow(found));
    rows.push(plain_jemalloc(found));
    rows.extend(jemallocs(found));
    rows.push(by_prefix(found, Family::Mimalloc, "MIMALLOC_*", "mimalloc"));
    if found.of(Family::Tcmalloc).next().is_some() {
        rows.push(by_prefix(found, Family::Tcmalloc, "TCMALLOC_*", "tcmalloc"));
    }
    rows
}

/// The copies that are no part of the interpreter: nothing of Python chooses or replaces them.
fn private(found: &Installation) -> Vec<String> {
    let outside = found.copies.iter().zip(&found.places).filter(|(_, place)| place.is_some());
    outside.map(|(copy, _)| copy.describe()).collect()
}

/// What `PYTHONMALLOC` can choose from.
fn choices(python: &Python) -> Vec<&'static str> {
    let pymalloc = python.has_pymalloc.then_some("pymalloc");
    pymalloc.into_iter().chain(["malloc"]).chain(python.has_mimalloc.then_some("mimalloc")).collect()
}

/// What the C library's `malloc` serves unless a variable says otherwise.
fn served_by_libc(python: &Python) -> &'static str {
    match python.default_allocator.as_deref() {
        Some("pymalloc") => "raw domain, objects above 512 bytes, C code, NumPy data",
        Some("malloc") => "all of Python's domains, C code, NumPy data",
        _ => "raw domain, C code, NumPy data",
    }
}

fn python(found: &Installation) -> Reach {
    let python = &found.python;
    let default = python.default_allocator.as_deref().unwrap_or("unknown");
    let mut misses = vec!["C code, NumPy data, the raw domain".to_owned()];
    let mut reaches = Vec::new();
    if python.is_free_threaded {
        misses.insert(0, "the interpreter's objects: a free-threaded build has mimalloc and no other".to_owned());
    } else {
        reaches.push(format!("the interpreter's objects: {} (without it: {default})", choices(python).join(" | ")));
    }
    misses.extend(private(found));
    Reach { variable: PYTHON.to_owned(), reaches, misses }
}

fn libc(found: &Installation) -> Reach {
    let variable = format!("MALLOC_ARENA_MAX, MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_, {TUNABLES}");
    let mut misses = private(found);
    let reaches = match &found.python.libc {
        Some(libc) => vec![format!("malloc of {libc}: {}", served_by_libc(&found.python))],
        None => {
            misses.insert(0, "this interpreter's C library, which is not glibc".to_owned());
            Vec::new()
        }
    };
    Reach { variable, reaches, misses }
}

fn preload(found: &Installation) -> Reach {
    let mut misses = match found.python.default_allocator.as_deref() {
        Some("pymalloc") => vec!["the interpreter's objects up to 512 bytes, in arenas of pymalloc".to_owned()],
        Some("mimalloc") => vec!["the interpreter's objects, in its own mimalloc".to_owned()],
        _ => Vec::new(),
    };
    misses.extend(private(found));
    let system = found.arrow.as_ref().map(|_| format!("Arrow buffers, with {ARROW}=system"));
    let reaches = [format!("every malloc of the C library: {}", served_by_libc(&found.python))];
    Reach { variable: PRELOAD.to_owned(), reaches: reaches.into_iter().chain(system).collect(), misses }
}

fn arrow(found: &Installation) -> Option<Reach> {
    let arrow = found.arrow.as_ref()?;
    let pools = arrow.pools.join(" | ");
    let reaches =
        vec![format!("Arrow buffers of pyarrow {}: {pools} (without it: {})", arrow.version, arrow.default_pool)];
    let is_arrows = |copy: &&Copy| copy.file.starts_with("pyarrow/");
    let misses = found.copies.iter().filter(|copy| !is_arrows(copy)).map(Copy::describe).collect();
    Some(Reach { variable: ARROW.to_owned(), reaches, misses })
}

fn plain_jemalloc(found: &Installation) -> Reach {
    let is_plain = |copy: &&Copy| copy.variable.as_deref() == Some(MALLOC_CONF);
    let own = found.of(Family::Jemalloc).filter(is_plain).map(Copy::describe);
    let reaches = own.chain([format!("a jemalloc put in by {PRELOAD}")]).collect();
    let others = found.of(Family::Jemalloc).filter(|copy| !is_plain(copy));
    let misses = others.map(|copy| format!("{} (it reads {})", copy.describe(), copy.reads())).collect();
    Reach { variable: MALLOC_CONF.to_owned(), reaches, misses }
}

/// A row for each prefix that a jemalloc was built with.
fn jemallocs(found: &Installation) -> Vec<Reach> {
    let mut variables: Vec<&str> = found.of(Family::Jemalloc).filter_map(|copy| copy.variable.as_deref()).collect();
    variables.retain(|variable| *variable != MALLOC_CONF);
    variables.sort_unstable();
    variables.dedup();
    let row = |variable: &&str| {
        let (own, others): (Vec<&Copy>, Vec<&Copy>) =
            found.of(Family::Jemalloc).partition(|copy| copy.variable.as_deref() == Some(*variable));
        let names = |copies: Vec<&Copy>| copies.into_iter().map(Copy::describe).collect();
        Reach { variable: (*variable).to_owned(), reaches: names(own), misses: names(others) }
    };
    variables.iter().map(row).collect()
}

fn by_prefix(found: &Installation, family: Family, variable: &str, name: &str) -> Reach {
    let (heard, silent): (Vec<&Copy>, Vec<&Copy>) = found.of(family).partition(|copy| copy.answers);
    let inside = |copy: &Copy| {
        let is_interpreters = copy.file == base_name(&found.python);
        let is_used = found.python.default_allocator.as_deref() == Some(name);
        let condition =
            if is_interpreters && !is_used { format!(", only with {PYTHON}={name}") } else { String::new() };
        format!("{}{condition}", copy.describe())
    };
    let mut reaches: Vec<String> = heard.into_iter().map(inside).collect();
    reaches.push(format!("a {name} put in by {PRELOAD}"));
    let misses = silent.into_iter().map(|copy| format!("{}: not known, it does not answer", copy.describe())).collect();
    Reach { variable: variable.to_owned(), reaches, misses }
}

fn base_name(python: &Python) -> String {
    python.code.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::Arrow;
    use super::*;
    use std::path::PathBuf;

    fn copy(family: Family, file: &str, variable: Option<&str>) -> Copy {
        let version = Some("1.2.3".to_owned());
        Copy { file: file.into(), version, variable: variable.map(str::to_owned), answers: true, ..Copy::of(family) }
    }

    /// Arrow's two pools, Polars' jemalloc, and an interpreter with pymalloc.
    fn environment() -> Installation {
        let python = Python {
            program: "python".into(),
            implementation: "cpython".into(),
            version: "3.13.0".into(),
            has_pymalloc: true,
            has_mimalloc: true,
            is_free_threaded: false,
            is_debug: false,
            libc: Some("glibc 2.36".into()),
            code: "lib/libpython3.13.so".into(),
            folders: Vec::new(),
            default_allocator: Some("pymalloc".into()),
        };
        let copies = vec![
            copy(Family::Mimalloc, "libpython3.13.so", None),
            copy(Family::Jemalloc, "polars.so", Some("_RJEM_MALLOC_CONF")),
            copy(Family::Jemalloc, "pyarrow/libarrow.so", Some("JE_ARROW_MALLOC_CONF")),
            copy(Family::Mimalloc, "pyarrow/libarrow.so", None),
        ];
        let places = [None, Some("polars.so"), Some("libarrow.so"), Some("libarrow.so")];
        let arrow = Arrow { version: "26.0.1".into(), default_pool: "mimalloc".into(), pools: vec!["system".into()] };
        let places = places.map(|place| place.map(PathBuf::from)).into();
        Installation { python, copies, arrow: Some(arrow), libraries: 2, remarks: Vec::new(), places }
    }

    fn row(found: &Installation, variable: &str) -> (String, String) {
        let row = reaches(found).into_iter().find(|row| row.variable.starts_with(variable)).unwrap();
        (row.reaches.join("\n"), row.misses.join("\n"))
    }

    #[test]
    fn each_variable_reaches_what_reads_it_and_nothing_else() {
        let found = environment();
        for (variable, reached, missed) in [
            ("PYTHONMALLOC", &["pymalloc | malloc | mimalloc"][..], &["polars.so", "libarrow.so", "NumPy"][..]),
            ("MALLOC_ARENA_MAX", &["glibc 2.36"], &["polars.so", "libarrow.so"]),
            ("LD_PRELOAD", &["NumPy", "Arrow buffers"], &["polars.so", "libarrow.so", "pymalloc"]),
            ("ARROW_DEFAULT_MEMORY_POOL", &["26.0.1", "without it: mimalloc"], &["polars.so"]),
            ("MALLOC_CONF", &["LD_PRELOAD"], &["polars.so (it reads _RJEM_MALLOC_CONF)", "libarrow.so"]),
            ("_RJEM_MALLOC_CONF", &["polars.so"], &["libarrow.so"]),
            ("JE_ARROW_MALLOC_CONF", &["libarrow.so"], &["polars.so"]),
            ("MIMALLOC_", &["libarrow.so", "libpython3.13.so, only with PYTHONMALLOC=mimalloc"], &[]),
        ] {
            let (reaches, misses) = row(&found, variable);
            for text in reached {
                assert!(reaches.contains(text), "{variable} reaches {text}: {reaches}");
            }
            for text in missed {
                assert!(misses.contains(text), "{variable} misses {text}: {misses}");
            }
            assert!(!reaches.contains("polars.so") || variable == "_RJEM_MALLOC_CONF", "{variable}: {reaches}");
        }
        assert!(reaches(&found).iter().all(|row| !row.variable.starts_with("TCMALLOC")), "there is none");
    }

    #[test]
    fn other_builds_are_told_apart() {
        let mut found = environment();
        (found.python.is_free_threaded, found.python.default_allocator) = (true, Some("mimalloc".into()));
        assert_eq!(row(&found, "PYTHONMALLOC").0, "");
        assert!(row(&found, "PYTHONMALLOC").1.contains("free-threaded"));
        assert!(!row(&found, "MIMALLOC_").0.contains("only with"), "it serves every object");
        (found.python.libc, found.copies[3].answers) = (None, false);
        assert_eq!(row(&found, "MALLOC_ARENA_MAX").0, "");
        assert!(row(&found, "MIMALLOC_").1.contains("libarrow.so: not known"));
    }
}
