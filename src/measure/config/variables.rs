//! The environment variables that choose or steer an allocator of a Python process, what each reaches, and how its
//! value is written.
//!
//! Invariant: a name or a value that nothing would read is refused here, with the nearest that something would.

use super::library;
use super::near::nearest;

/// What a variable reaches in the real process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Which allocator serves `mem` and `obj`.
    Python,
    /// Which pool serves `arrow`.
    ArrowPool,
    /// Which library serves `numpy`, through the handler that the program installs.
    Numpy,
    /// Arrow's own copy of jemalloc.
    ArrowJemalloc,
    /// Which library is the process's `malloc`.
    Preload,
    /// One tunable of glibc's `malloc`, by the loader's name.
    Glibc(&'static str),
    /// Several tunables of glibc's `malloc`.
    GlibcTunables,
    /// A jemalloc that is the process's `malloc`, or was loaded by path.
    Jemalloc,
    /// Every copy of mimalloc.
    Mimalloc,
    /// tcmalloc, which tells no option back.
    Tcmalloc,
}

/// How the value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One of these words; the second list is of words that exist and that this version does not carry out.
    Word(&'static [&'static str], &'static [&'static str]),
    /// A number, decimal or after `0x`.
    Number,
    /// The same, at least 1: glibc passes over 0.
    Count,
    /// `name:value` pairs with commas.
    Pairs,
    /// `name=value` pairs with colons.
    Tunables,
    /// Paths with colons.
    Paths,
    /// `system`, or one path.
    Handler,
    /// Whatever the library takes.
    Any,
}

struct Variable {
    name: &'static str,
    reach: Reach,
    form: Form,
}

const fn of(name: &'static str, reach: Reach, form: Form) -> Variable {
    Variable { name, reach, form }
}

/// The variable that chooses the allocator of the Python domains.
pub(in crate::measure) const PYTHON: &str = "PYTHONMALLOC";
/// The variable that chooses Arrow's pool.
pub(in crate::measure) const ARROW: &str = "ARROW_DEFAULT_MEMORY_POOL";
/// The variable that says what NumPy's handler of ours takes array data from.
pub(in crate::measure) const NUMPY: &str = "PYALLOC_NUMPY";
/// The variable that puts a library before the C library.
pub(in crate::measure) const PRELOAD: &str = "LD_PRELOAD";
/// The variable that sets tunables of the C library and of the loader.
pub(in crate::measure) const TUNABLES: &str = "GLIBC_TUNABLES";
/// The variable of Arrow's own copy of jemalloc.
pub(super) const ARROW_JEMALLOC: &str = "JE_ARROW_MALLOC_CONF";

const ALL: &[Variable] = &[
    of(
        PYTHON,
        Reach::Python,
        Form::Word(
            &["default", "pymalloc", "malloc", "debug", "pymalloc_debug", "malloc_debug", "mimalloc"],
            &["mimalloc_debug"],
        ),
    ),
    of(ARROW, Reach::ArrowPool, Form::Word(&["system", "mimalloc", "jemalloc"], &[])),
    of(ARROW_JEMALLOC, Reach::ArrowJemalloc, Form::Pairs),
    of(NUMPY, Reach::Numpy, Form::Handler),
    of(PRELOAD, Reach::Preload, Form::Paths),
    of("MALLOC_ARENA_MAX", Reach::Glibc("arena_max"), Form::Count),
    of("MALLOC_ARENA_TEST", Reach::Glibc("arena_test"), Form::Count),
    of("MALLOC_TRIM_THRESHOLD_", Reach::Glibc("trim_threshold"), Form::Number),
    of("MALLOC_MMAP_THRESHOLD_", Reach::Glibc("mmap_threshold"), Form::Number),
    of("MALLOC_TOP_PAD_", Reach::Glibc("top_pad"), Form::Number),
    of("MALLOC_MMAP_MAX_", Reach::Glibc("mmap_max"), Form::Number),
    of("MALLOC_PERTURB_", Reach::Glibc("perturb"), Form::Number),
    of(TUNABLES, Reach::GlibcTunables, Form::Tunables),
    of("MALLOC_CONF", Reach::Jemalloc, Form::Pairs),
];
/// Options of every mimalloc: `MIMALLOC_PURGE_DELAY` and many more, which a copy names when it is asked.
pub(in crate::measure) const MIMALLOC_PREFIX: &str = "MIMALLOC_";
/// Options of tcmalloc.
const TCMALLOC_PREFIX: &str = "TCMALLOC_";
/// What begins the name of a tunable of `malloc`.
pub(super) const TUNABLE_PREFIX: &str = "glibc.malloc.";

/// Variables that exist and steer what no recording sees, or what this version does not replay; and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "_RJEM_MALLOC_CONF",
        "it reaches the private copy of jemalloc in wheels like Polars', whose calls no recording sees. Leave it out",
    ),
    (
        "NUMPY_MADVISE_HUGEPAGE",
        "a replay advises the kernel as the recorded program did. Record once with it, once without",
    ),
    ("MALLOC_CHECK_", "glibc takes it only with its debugging malloc, which is nothing to measure. Leave it out"),
];

/// Whether a word's left side is meant as a variable.
pub(in crate::measure) fn is_variable(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// What a variable reaches, if its name is known.
fn known(name: &str) -> Option<(Reach, Form)> {
    let listed = ALL.iter().find(|variable| variable.name == name).map(|variable| (variable.reach, variable.form));
    let prefixed = [(MIMALLOC_PREFIX, Reach::Mimalloc), (TCMALLOC_PREFIX, Reach::Tcmalloc)];
    let by_prefix = || prefixed.iter().find(|(prefix, _)| name.starts_with(prefix));
    listed.or_else(|| by_prefix().map(|(_, reach)| (*reach, Form::Any)))
}

/// What `NAME=VALUE` reaches.
///
/// # Errors
/// A sentence, when no such variable exists, or when the value is not written as it must be.
pub(super) fn read(name: &str, value: &str) -> Result<Reach, String> {
    let word = format!("{name}={value}");
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(format!("{word} cannot be replayed: {why}."));
    }
    let Some((reach, form)) = known(name) else {
        let names: Vec<&str> = ALL.iter().map(|variable| variable.name).collect();
        return Err(match nearest(name, names.iter().copied()) {
            Some(near) => format!("{word}: no allocator reads a variable {name}. Did you mean {near}?"),
            None => {
                format!("{word}: no allocator reads a variable {name}. Give one of: {}, MIMALLOC_...", names.join(", "))
            }
        });
    };
    match form {
        _ if value.is_empty() => Err(format!("{word}: the value is missing. Give one, or leave the word out.")),
        Form::Word(here, later) => one_of(&word, value, here, later),
        Form::Number | Form::Count if number(value).is_none() => {
            Err(format!("{word}: {value:?} is no number, and glibc would ignore it. Give a number, as in {name}=2."))
        }
        Form::Count if number(value) == Some(0) => {
            Err(format!("{word}: glibc passes over 0. Give 1 or more, or leave the word out."))
        }
        Form::Pairs => pairs(&word, value).map(|_| ()),
        Form::Tunables => tunables(&word, value).map(|_| ()),
        Form::Paths => value.split([':', ' ']).try_for_each(|path| library::check(path, &word)),
        Form::Handler if value == "system" => Ok(()),
        Form::Handler if !value.contains('/') => {
            let hint =
                nearest(value, ["system"].into_iter()).map_or(String::new(), |near| format!(" Did you mean {near}?"));
            Err(format!(
                "{word}: there is no {value:?}. Give system, or the path of a library, with a slash in it.{hint}"
            ))
        }
        Form::Handler => library::check(value, &word),
        Form::Number | Form::Count | Form::Any => Ok(()),
    }?;
    Ok(reach)
}

fn one_of(word: &str, value: &str, here: &[&str], later: &[&str]) -> Result<(), String> {
    if here.contains(&value) {
        return Ok(());
    }
    if later.contains(&value) {
        return Err(format!("{word}: {value:?} is not supported by this version. Give one of: {}.", here.join(", ")));
    }
    let all = here.iter().chain(later).copied();
    let hint = nearest(value, all).map_or(String::new(), |near| format!(" Did you mean {near}?"));
    Err(format!("{word}: there is no {value:?}. Give one of: {}.{hint}", here.join(", ")))
}

/// A number as glibc reads it.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `name:value` pairs of a jemalloc.
pub(in crate::measure) fn pairs<'a>(word: &str, value: &'a str) -> Result<Vec<(&'a str, &'a str)>, String> {
    let pair = |text: &'a str| {
        let pair = text.split_once(':').filter(|(name, value)| !name.is_empty() && !value.is_empty());
        pair.ok_or_else(|| format!("{word}: {text:?} is no name:value. Write as in dirty_decay_ms:0,narenas:2."))
    };
    value.split(',').map(pair).collect()
}

/// `name=value` pairs of the C library; only those of `malloc` steer an allocator.
pub(super) fn tunables<'a>(word: &str, value: &'a str) -> Result<Vec<(&'a str, &'a str)>, String> {
    let pair = |text: &'a str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let Some(name) = name.strip_prefix(TUNABLE_PREFIX) else {
            return Err(format!(
                "{word}: {name:?} steers no allocator. Give tunables such as {TUNABLE_PREFIX}arena_max=2."
            ));
        };
        if number(value).is_none() {
            return Err(format!("{word}: {value:?} is no number. Write as in {TUNABLE_PREFIX}arena_max=2."));
        }
        Ok((name, value))
    };
    value.split(':').map(pair).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_variable_is_read_as_what_it_is() {
        for (name, value, reach) in [
            ("PYTHONMALLOC", "malloc", Reach::Python),
            ("ARROW_DEFAULT_MEMORY_POOL", "jemalloc", Reach::ArrowPool),
            ("JE_ARROW_MALLOC_CONF", "dirty_decay_ms:0", Reach::ArrowJemalloc),
            ("MALLOC_ARENA_MAX", "2", Reach::Glibc("arena_max")),
            ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0", Reach::GlibcTunables),
            ("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:-1", Reach::Jemalloc),
            ("MIMALLOC_PURGE_DELAY", "0", Reach::Mimalloc),
            ("PYALLOC_NUMPY", "system", Reach::Numpy),
        ] {
            assert_eq!(read(name, value), Ok(reach), "{name}");
        }
    }

    #[test]
    fn what_nothing_would_read_is_refused_with_the_nearest_that_something_would() {
        for (name, value, expected) in [
            ("PYTHONMALOC", "malloc", "Did you mean PYTHONMALLOC?"),
            ("MALLOC_ARENAS_MAX", "2", "Did you mean MALLOC_ARENA_MAX?"),
            ("MALLOC_TRIM_THRESHOLD", "65536", "Did you mean MALLOC_TRIM_THRESHOLD_?"),
            ("QUITE_ANOTHER_THING", "1", "Give one of"),
            ("PYTHONMALLOC", "maloc", "Did you mean malloc?"),
            ("PYTHONMALLOC", "mimalloc_debug", "not supported by this version"),
            ("PYTHONMALLOC", "pymaloc_debug", "Did you mean pymalloc_debug?"),
            ("ARROW_DEFAULT_MEMORY_POOL", "mimaloc", "Did you mean mimalloc?"),
            ("MALLOC_ARENA_MAX", "two", "no number"),
            ("MALLOC_ARENA_MAX", "", "value is missing"),
            ("MALLOC_ARENA_MAX", "0", "passes over 0"),
            ("MALLOC_CONF", "dirty_decay_ms=0", "name:value"),
            ("GLIBC_TUNABLES", "glibc.rtld.nns=2", "steers no allocator"),
            ("GLIBC_TUNABLES", "glibc.malloc.arena_max=few", "no number"),
            ("_RJEM_MALLOC_CONF", "dirty_decay_ms:0", "no recording sees"),
            ("NUMPY_MADVISE_HUGEPAGE", "0", "cannot be replayed"),
            ("LD_PRELOAD", "/nonexistent/lib.so", "no such file"),
            ("PYALOC_NUMPY", "system", "Did you mean PYALLOC_NUMPY?"),
            ("PYALLOC_NUMPY", "sytem", "Did you mean system?"),
            ("PYALLOC_NUMPY", "libjemalloc.so.2", "with a slash"),
            ("PYALLOC_NUMPY", "/nonexistent/lib.so", "no such file"),
        ] {
            let error = read(name, value).unwrap_err();
            assert!(error.contains(expected), "{name}={value}: {error}");
        }
    }
}
