//! Configurations: the words after `-c`, which backend serves each domain because of them, and what the environment
//! of a child must hold for it.
//!
//! Invariant: a word either takes effect or is an error; nothing is ignored. Presets come from the table of
//! backends, so that a new backend is a new preset. An interpreter was asked what it is before anything is measured.

use crate::backend::{self, Backend, CPYTHON_KEY, LINKAGE_VARIABLE, Role};
use crate::run::{AllocatorFacts, ConfigFacts};
use libpython::{FindError, Interpreter};
use std::ffi::OsString;
use trace::Domain;

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// As given, single spaces between the words; the path of an interpreter gives way to its version, since results
    /// name no machine.
    pub name: String,
    /// How charts label it.
    pub label: String,
    /// Whether it is part of the floor and not a contestant.
    pub floor: bool,
    /// Backend key by [`Domain`].
    pub backends: [String; 6],
    /// What the environment of its children holds besides what every child has.
    pub variables: Vec<(String, OsString)>,
    /// The environment that one would type in front of `python` for it; `None` when no variables stand for all of it.
    pub deploy: Option<Vec<(String, OsString)>>,
}

/// The key that serves what `pool` and `cpython` do not.
const SYSTEM: &str = "system";
/// The backends that are the allocator of the Python domains alone, as CPython's own is.
const PYTHON_ALONE: [&str; 2] = ["pool", CPYTHON_KEY];
/// The interpreter of `cpython` without a program.
const DEFAULT_PROGRAM: &str = "python3";

/// The words on the left of `DOMAIN=ALLOCATOR`, and what each covers. `raw` belongs to `libc`: CPython serves it with
/// the C library's `malloc`.
const DOMAIN_WORDS: &[(&str, &[Domain])] = &[
    ("python", &PYTHON),
    ("libc", &[Domain::Libc, Domain::Raw]),
    ("numpy", &[Domain::Numpy]),
    ("arrow", &[Domain::Arrow]),
];
/// What CPython's pools serve.
const PYTHON: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// Words of the grammar that this version does not carry out.
const LATER: &[&str] = &["today", "nopool", "arrow-system", "pool-tuned"];

/// The contestants of a run that names none.
#[must_use]
pub fn contestants() -> Vec<Config> {
    with_role(Role::Contestant).map(preset).collect()
}

/// The floor: what the harness itself costs.
#[must_use]
pub fn floor() -> Vec<Config> {
    with_role(Role::Floor).map(preset).collect()
}

/// Every preset that users are told of, and the backend that serves each domain.
#[must_use]
pub fn presets() -> Vec<(String, [String; 6])> {
    let shown = |backend: &Backend| {
        let program = if backend.key == CPYTHON_KEY { "[:PROGRAM]" } else { "" };
        (format!("{}{program}", backend.key), preset(backend).backends)
    };
    [Role::Contestant, Role::OptIn, Role::Floor].into_iter().flat_map(with_role).map(shown).collect()
}

fn with_role(role: Role) -> impl Iterator<Item = &'static Backend> {
    backend::ALL.iter().filter(move |backend| backend.role == role)
}

/// Reads the words of one `-c` after another.
///
/// # Errors
/// A sentence that lists what is known, or says what is wrong with an interpreter.
pub fn parse_all(texts: &[String]) -> Result<Vec<Config>, String> {
    let mut configs: Vec<Config> = Vec::new();
    for text in texts {
        let config = distinct(parse(text)?, &configs);
        configs.push(config.ok_or_else(|| format!("The configuration {text:?} is given twice. Leave one out."))?);
    }
    Ok(configs)
}

/// Reads the words of one `-c`.
///
/// # Errors
/// As [`parse_all`].
pub fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &|program| Interpreter::find(program.as_ref()))
}

/// Two interpreters may have the same version: the second is `cpython:3.11.7-2`. `None` for the same once more.
fn distinct(mut config: Config, before: &[Config]) -> Option<Config> {
    let is_same = |other: &Config| match config.variables.as_slice() {
        [] => other.name == config.name,
        // Names differ where one program is named in two ways.
        variables => other.variables == variables && other.backends == config.backends,
    };
    if before.iter().any(is_same) {
        return None;
    }
    let name = config.name.clone();
    let mut number = 2;
    while before.iter().any(|other| other.name == config.name) {
        config.name = format!("{name}-{number}");
        number += 1;
    }
    if before.iter().any(|other| other.label == config.label) {
        config.label = config.name.clone();
    }
    Some(config)
}

/// What a word says serves a domain.
struct Served<'a> {
    backend: &'static Backend,
    /// `cpython` alone: the interpreter's program.
    program: Option<&'a str>,
}

/// A configuration while its words are read, and the interpreter that they name.
struct Words<'a> {
    backends: [String; 6],
    program: Option<&'a str>,
}

impl<'a> Words<'a> {
    /// Has domains served; `whole` is what errors quote.
    fn serve(&mut self, domains: &[Domain], by: &Served<'a>, whole: &str) -> Result<(), String> {
        if let Some(program) = by.program {
            if domains.iter().any(|domain| !PYTHON.contains(domain)) {
                return Err(format!(
                    "{whole}: CPython's pools serve nothing but Python's own domains. Give python={CPYTHON_KEY}."
                ));
            }
            if self.program.is_some_and(|other| other != program) {
                return Err(format!(
                    "{whole}: a process holds the pools of one interpreter. Give each interpreter a -c of its own."
                ));
            }
            self.program = Some(program);
        }
        for domain in domains {
            self.backends[*domain as usize] = by.backend.key.to_owned();
        }
        Ok(())
    }
}

fn parse_with(text: &str, find: &dyn Fn(&str) -> Result<Interpreter, FindError>) -> Result<Config, String> {
    let list: Vec<&str> = text.split_whitespace().collect();
    let mut words = Words { backends: keys(SYSTEM, SYSTEM), program: None };
    let mut single = None;
    for (place, word) in list.iter().enumerate() {
        match word.split_once('=') {
            Some((left, right)) => {
                let domains = domains(left, word)?;
                words.serve(domains, &served(right, word)?, word)?;
            }
            None if place == 0 => {
                let by = if list.len() == 1 { offered(word)? } else { served(word, text)? };
                words.backends = preset(by.backend).backends;
                words.program = by.program;
                single = (list.len() == 1).then_some(by.backend);
            }
            None => return Err(format!("In {text:?} the preset {word} must come first. Move it to the front.")),
        }
    }
    if list.is_empty() {
        return Err(format!("A configuration is empty. Give one of: {}.", known()));
    }
    let name = list.join(" ");
    let Words { backends, program } = words;
    let label = single.map_or(name.as_str(), |backend| backend.label).to_owned();
    let floor = single.is_some_and(|backend| backend.role == Role::Floor);
    let mut config = Config { name, label, floor, backends, variables: Vec::new(), deploy: None };
    if let Some(program) = program {
        if !config.keys().contains(&CPYTHON_KEY) {
            return Err(format!("In {text:?} a later word takes the place of {CPYTHON_KEY}. Leave one of them out."));
        }
        let interpreter = find(program).map_err(|error| error.to_string())?;
        config.run_on(&interpreter, program, single.is_some());
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

    /// What a result keeps of it; `all` is what the allocators said of themselves in its environment.
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

    /// Takes over the interpreter that its word `program` means.
    fn run_on(&mut self, interpreter: &Interpreter, program: &str, is_preset: bool) {
        self.variables = interpreter.environment();
        self.variables.push((LINKAGE_VARIABLE.to_owned(), interpreter.linkage.name().into()));
        if program.contains('/') {
            self.name = self.name.replace(program, &interpreter.version);
        }
        self.label = if is_preset { format!("{} {}", self.label, interpreter.version) } else { self.name.clone() };
    }
}

fn preset(backend: &Backend) -> Config {
    let elsewhere = if PYTHON_ALONE.contains(&backend.key) { SYSTEM } else { backend.key };
    Config {
        name: backend.key.to_owned(),
        label: backend.label.to_owned(),
        floor: backend.role == Role::Floor,
        backends: keys(backend.key, elsewhere),
        variables: Vec::new(),
        deploy: None,
    }
}

/// One key for `mem` and `obj`, one for the rest.
fn keys(python: &str, elsewhere: &str) -> [String; 6] {
    Domain::ALL.map(|domain| if PYTHON.contains(&domain) { python } else { elsewhere }.to_owned())
}

fn domains(left: &str, word: &str) -> Result<&'static [Domain], String> {
    if is_variable(left) {
        return Err(format!(
            "{word}: environment variables in a configuration are not supported by this version. \
             Say which allocator serves a domain, as in `numpy=jemalloc`."
        ));
    }
    DOMAIN_WORDS.iter().find(|(name, _)| *name == left).map(|(_, domains)| *domains).ok_or_else(|| {
        let names: Vec<&str> = DOMAIN_WORDS.iter().map(|(name, _)| *name).collect();
        format!("{word}: there is no domain {left:?}. Give one of: {}.", names.join(", "))
    })
}

fn is_variable(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// The backend that a word means, with the program that follows a colon.
fn offered(word: &str) -> Result<Served<'_>, String> {
    let (key, program) = word.split_once(':').map_or((word, None), |(key, program)| (key, Some(program)));
    if LATER.contains(&key) {
        return Err(format!("{key:?} is not supported by this version. Give one of: {}.", known()));
    }
    let (backend, _) = backend::find(key)
        .ok_or_else(|| format!("There is no allocator or configuration {key:?}. Give one of: {}.", known()))?;
    match program {
        Some(_) if key != CPYTHON_KEY => {
            Err(format!("{word}: only {CPYTHON_KEY} takes the program of an interpreter. Give {key}."))
        }
        Some("") => Err(format!("{word}: the interpreter is missing. Give a program, as in {CPYTHON_KEY}:python3.11.")),
        _ => {
            let program = (key == CPYTHON_KEY).then_some(program.unwrap_or(DEFAULT_PROGRAM));
            Ok(Served { backend, program })
        }
    }
}

/// An allocator that may serve a domain; `whole` is the word or text that it stands in.
fn served<'a>(word: &'a str, whole: &str) -> Result<Served<'a>, String> {
    let by = offered(word)?;
    if by.backend.role == Role::Floor {
        return Err(format!("{whole}: {word} belongs to the floor and serves no domain. Give one of: {}.", known()));
    }
    Ok(by)
}

fn known() -> String {
    let names = [Role::Contestant, Role::OptIn].into_iter().flat_map(with_role).map(|backend| backend.key);
    format!("{}, or words such as `numpy=jemalloc`", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use libpython::Linkage;

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
        let presets: Vec<String> = presets().into_iter().map(|(name, _)| name).collect();
        assert_eq!(presets, ["pool", "system", "mimalloc", "jemalloc", "cpython[:PROGRAM]", "null", "loop"]);
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
            ("tcmalloc", "Give one of: pool, system, mimalloc, jemalloc, cpython"),
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

    /// An interpreter of this machine's imagination: `python3.V`, or anything else as 3.11.7.
    fn invented(program: &str) -> Result<Interpreter, FindError> {
        let minor: u32 = program.rsplit_once("python3.").and_then(|(_, minor)| minor.parse().ok()).unwrap_or(11);
        if minor < 10 {
            return Err(FindError::NotFit(program.into(), format!("CPython 3.{minor}.0")));
        }
        Ok(Interpreter {
            program: program.into(),
            version: format!("3.{minor}.7"),
            minor,
            linkage: if minor == 11 { Linkage::Static } else { Linkage::Shared },
            libpython: format!("/lib/of/{program}.so").into(),
            home: "/usr:/usr".to_owned(),
            optimisations: String::new(),
        })
    }

    #[test]
    fn cpython_serves_the_python_domains_in_the_environment_of_its_interpreter() {
        let config = parse_with("cpython", &invented).unwrap();
        assert_eq!(config.backends, parse("pool").unwrap().backends.map(|key| key.replace("pool", "cpython")));
        assert_eq!((config.name.as_str(), config.label.as_str()), ("cpython", "CPython 3.11.7"));
        let names: Vec<&str> = config.variables.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["LD_PRELOAD", "PYTHONHOME", LINKAGE_VARIABLE]);
        assert_eq!((&config.variables[0].1, &config.variables[2].1), (&"/lib/of/python3.so".into(), &"static".into()));

        let config = parse_with("mimalloc python=cpython:python3.13", &invented).unwrap();
        assert_eq!(config.backends, ["mimalloc", "mimalloc", "cpython", "cpython", "mimalloc", "mimalloc"]);
        assert_eq!(config.label, "mimalloc python=cpython:python3.13");
        assert_eq!(config.variables[0].1, "/lib/of/python3.13.so");
        // Nothing of it is left to be served: a word without effect, and a path that would stand in the name.
        let error = parse_with("cpython:/opt/bin/python3.13 python=pool", &invented).unwrap_err();
        assert!(error.contains("takes the place of cpython"), "{error}");
    }

    #[test]
    fn interpreters_are_told_apart_and_no_path_is_kept() {
        let mut all: Vec<Config> = Vec::new();
        for text in ["cpython", "cpython:python3.13", "cpython:/opt/a/python3.13", "cpython:/opt/b/python3.13"] {
            all.push(distinct(parse_with(text, &invented).unwrap(), &all).unwrap());
        }
        let names: Vec<&str> = all.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["cpython", "cpython:python3.13", "cpython:3.13.7", "cpython:3.13.7-2"]);
        let labels: Vec<&str> = all.iter().map(|config| config.label.as_str()).collect();
        assert_eq!(labels, ["CPython 3.11.7", "CPython 3.13.7", "cpython:3.13.7", "cpython:3.13.7-2"]);
        assert_eq!(distinct(parse_with("cpython", &invented).unwrap(), &all), None);
        let config = parse_with("numpy=jemalloc python=cpython:/opt/a/python3.13", &invented).unwrap();
        assert_eq!(config.name, "numpy=jemalloc python=cpython:3.13.7");
    }

    #[test]
    fn an_interpreter_that_cannot_serve_is_an_error() {
        for (text, expected) in [
            ("numpy=cpython", "nothing but Python's own domains"),
            ("libc=cpython:python3.12", "nothing but Python's own domains"),
            ("cpython:python3.11 python=cpython:python3.13", "one interpreter"),
            ("cpython:", "interpreter is missing"),
            ("pool:python3", "only cpython takes"),
            ("cpython:python3.9", "CPython 3.9.0"),
            ("python=cpython:python3.9", "Name a CPython"),
        ] {
            let error = parse_with(text, &invented).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(parse("cpython:/nonexistent/python").unwrap_err().contains("does not run"));
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
