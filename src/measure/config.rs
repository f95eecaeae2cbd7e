//! Configurations: the words after `-c`, and which backend serves each domain because of them.
//!
//! Invariant: a word either takes effect or is an error; nothing is ignored. Presets come from the table of
//! backends, so that a new backend is a new preset.

use crate::backend::{self, Backend};
use crate::run::{AllocatorFacts, ConfigFacts};
use trace::Domain;

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// As given, single spaces between the words.
    pub name: String,
    /// How charts label it.
    pub label: String,
    /// Whether it is part of the floor and not a contestant.
    pub floor: bool,
    /// Backend key by [`Domain`].
    pub backends: [String; 6],
}

/// The key that serves what `pool` does not.
const SYSTEM: &str = "system";
/// The backend that models the allocator of the Python domains alone, as CPython's own does.
const POOL: &str = "pool";

/// The words on the left of `DOMAIN=ALLOCATOR`, and what each covers. `raw` belongs to `libc`: CPython serves it with
/// the C library's `malloc`.
const DOMAIN_WORDS: &[(&str, &[Domain])] = &[
    ("python", &[Domain::Mem, Domain::Obj]),
    ("libc", &[Domain::Libc, Domain::Raw]),
    ("numpy", &[Domain::Numpy]),
    ("arrow", &[Domain::Arrow]),
];

/// Words of the grammar that this version does not carry out.
const LATER: &[&str] = &["today", "nopool", "arrow-system", "pool-tuned", "cpython"];

/// The contestants of a run that names none.
#[must_use]
pub fn contestants() -> Vec<Config> {
    backend::ALL.iter().filter(|b| !b.hidden && !b.floor).map(preset).collect()
}

/// The floor: what the harness itself costs.
#[must_use]
pub fn floor() -> Vec<Config> {
    backend::ALL.iter().filter(|b| b.floor).map(preset).collect()
}

/// Reads the words of one `-c`.
///
/// # Errors
/// A sentence that lists what is known.
pub fn parse(text: &str) -> Result<Config, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut config = match words.as_slice() {
        [] => return Err(format!("A configuration is empty. Give one of: {}.", known())),
        [word] if !word.contains('=') => return find(word).map(preset),
        _ => Config { name: words.join(" "), label: words.join(" "), floor: false, backends: keys(SYSTEM, SYSTEM) },
    };
    for (place, word) in words.iter().enumerate() {
        match word.split_once('=') {
            Some((left, right)) => serve(&mut config, left, find_contestant(right, word)?.key, word)?,
            None if place == 0 => config.backends = preset(find_contestant(word, text)?).backends,
            None => return Err(format!("In {text:?} the preset {word} must come first. Move it to the front.")),
        }
    }
    Ok(config)
}

impl Config {
    /// Every backend key in it, each once.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = Vec::new();
        for key in &self.backends {
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
        keys
    }

    /// What a result keeps of it; `all` is what the allocators said of themselves.
    #[must_use]
    pub fn facts(&self, all: &[AllocatorFacts]) -> ConfigFacts {
        let by_name = Domain::ALL.iter().map(|domain| domain.name().to_owned()).zip(self.backends.iter().cloned());
        ConfigFacts {
            name: self.name.clone(),
            label: self.label.clone(),
            floor: self.floor,
            domains: by_name.collect(),
            allocators: all.iter().filter(|facts| self.keys().contains(&facts.key.as_str())).cloned().collect(),
        }
    }
}

fn preset(backend: &Backend) -> Config {
    let elsewhere = if backend.key == POOL { SYSTEM } else { backend.key };
    Config {
        name: backend.key.to_owned(),
        label: backend.label.to_owned(),
        floor: backend.floor,
        backends: keys(backend.key, elsewhere),
    }
}

/// One key for `mem` and `obj`, one for the rest.
fn keys(python: &str, elsewhere: &str) -> [String; 6] {
    Domain::ALL.map(|domain| if matches!(domain, Domain::Mem | Domain::Obj) { python } else { elsewhere }.to_owned())
}

fn serve(config: &mut Config, left: &str, key: &str, word: &str) -> Result<(), String> {
    let Some((_, domains)) = DOMAIN_WORDS.iter().find(|(name, _)| *name == left) else {
        let names: Vec<&str> = DOMAIN_WORDS.iter().map(|(name, _)| *name).collect();
        return Err(format!("{word}: there is no domain {left:?}. Give one of: {}.", names.join(", ")));
    };
    for domain in *domains {
        config.backends[*domain as usize] = key.to_owned();
    }
    Ok(())
}

fn find(word: &str) -> Result<&'static Backend, String> {
    if LATER.contains(&word) {
        return Err(format!("{word:?} is not supported by this version. Give one of: {}.", known()));
    }
    backend::find(word)
        .ok_or_else(|| format!("There is no allocator or configuration {word:?}. Give one of: {}.", known()))
}

/// An allocator that may serve a domain; `whole` is the word or text that it stands in.
fn find_contestant(word: &str, whole: &str) -> Result<&'static Backend, String> {
    let variable = whole.split('=').next().unwrap_or("");
    let is_variable = variable.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if whole.contains('=') && is_variable && !variable.is_empty() {
        return Err(format!(
            "{whole}: environment variables in a configuration are not supported by this version. \
             Say which allocator serves a domain, as in `numpy=jemalloc`."
        ));
    }
    let found = find(word)?;
    if found.floor {
        return Err(format!("{whole}: {word} belongs to the floor and serves no domain. Give one of: {}.", known()));
    }
    Ok(found)
}

fn known() -> String {
    let names: Vec<&str> = backend::ALL.iter().filter(|b| !b.hidden).map(|b| b.key).collect();
    format!("{}, or words such as `numpy=jemalloc`", names.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_pool_serves_the_python_domains_alone() {
        let pool = parse("pool").unwrap();
        assert_eq!(pool.backends, ["system", "system", "pool", "pool", "system", "system"]);
        assert_eq!(pool.keys(), ["system", "pool"]);
        assert_eq!(parse("mimalloc").unwrap().keys(), ["mimalloc"]);
    }

    #[test]
    fn the_default_contestants_begin_with_the_baseline() {
        let names: Vec<String> = contestants().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["pool", "system", "mimalloc", "jemalloc"]);
        assert_eq!(floor().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["null", "loop"]);
    }

    #[test]
    fn words_override_from_left_to_right() {
        let config = parse("pool  numpy=jemalloc arrow=mimalloc arrow=system").unwrap();
        assert_eq!(config.name, "pool numpy=jemalloc arrow=mimalloc arrow=system");
        assert_eq!(config.backends, ["system", "system", "pool", "pool", "jemalloc", "system"]);
        assert_eq!(parse("libc=mimalloc").unwrap().backends[..3], ["mimalloc", "mimalloc", "system"]);
    }

    #[test]
    fn what_cannot_take_effect_is_an_error() {
        for (text, expected) in [
            ("", "empty"),
            ("tcmalloc", "Give one of: pool, system, mimalloc, jemalloc"),
            ("today", "not supported by this version"),
            ("PYTHONMALLOC=malloc", "environment variables"),
            ("MALLOC_ARENA_MAX=2 pool", "environment variables"),
            ("gpu=pool", "no domain"),
            ("numpy=tcmalloc", "no allocator"),
            ("numpy=null", "floor"),
            ("numpy=jemalloc pool", "first"),
            ("pool jemalloc", "first"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn facts_name_only_what_serves() {
        let all: Vec<AllocatorFacts> = ["pool", "system", "jemalloc"]
            .map(|key| AllocatorFacts { key: key.into(), ..AllocatorFacts::default() })
            .into();
        let facts = parse("pool").unwrap().facts(&all);
        assert_eq!(facts.allocators.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["pool", "system"]);
        assert_eq!(facts.domains["obj"], "pool");
        assert_eq!(facts.domains["numpy"], "system");
    }
}
