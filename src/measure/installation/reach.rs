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
const ABOVE: &str = "the C library's malloc: raw domain, objects above 512 bytes, C code, NumPy data";

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

fn python(found: &Installation) -> Reach {
    let python = &found.python;
    let default = python.default_allocator.as_deref().unwrap_or("unknown");
    let mut misses = vec![ABOVE.to_owned()];
    misses.extend(private(found));
    let mut reaches =
        vec![format!("the interpreter's objects: {} (without it: {default})", choices(python).join(" | "))];
    if python.is_free_threaded {
        misses.insert(0, "the interpreter's objects: a free-threaded build has mimalloc and no other".to_owned());
        reaches.clear();
    }
    Reach { variable: PYTHON.to_owned(), reaches, misses }
}

fn libc(found: &Installation) -> Reach {
    let variable = format!("MALLOC_ARENA_MAX, MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_, {TUNABLES}");
    let mut misses = private(found);
    let reaches = match &found.python.libc {
        Some(libc) => vec![format!("{libc}: {}", ABOVE.trim_start_matches("the C library's "))],
        None => {
            misses.insert(0, "this interpreter's C library, which is not glibc".to_owned());
            Vec::new()
        }
    };
    Reach { variable, reaches, misses }
}

fn preload(found: &Installation) -> Reach {
    let mut misses = match found.python.default_allocator.as_deref() {
        Some("malloc") | None => Vec::new(),
        Some(own) => vec![format!("the interpreter's objects up to 512 bytes, which {own} takes from the kernel")],
    };
    misses.extend(private(found));
    let system = found.arrow.as_ref().map(|_| format!("Arrow buffers, only with {ARROW}=system"));
    let reaches = std::iter::once(ABOVE.to_owned()).chain(system).collect();
    Reach { variable: PRELOAD.to_owned(), reaches, misses }
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
