//! Configurations: the words after `-c`, which backend serves each domain because of them, and what the environment
//! of a child must hold for it.
//!
//! Invariant: a word either takes effect or is an error; nothing is ignored. Presets of allocators come from the table
//! of backends, so that a new backend is a new preset. An interpreter was asked what it is before anything is measured.

mod library;
mod near;
mod presets;
mod variables;
mod verify;
mod wheel;
mod words;

#[cfg(any(test, fuzzing))]
pub(crate) use library::{check as check_library, needs_static_tls};
pub use presets::Named;
pub(super) use variables::{
    ARROW, MIMALLOC_PREFIX, NUMPY, PRELOAD, PYTHON as PYTHON_VARIABLE, TUNABLES, is_variable, pairs,
};
pub(crate) use verify::verify;
pub(super) use verify::{is_same, reached};
pub use wheel::Wheel;

use crate::backend::{self, Backend, CACHED_KEY, CPYTHON_KEY, CPYTHON_MIMALLOC_KEY, LINKAGE_VARIABLE, Role, TUNED_KEY};
use crate::run::{AllocatorFacts, ConfigFacts};
use libpython::{FindError, Interpreter};
use std::ffi::OsString;
use std::path::Path;
use trace::{Domain, Metadata, NumpyData};

/// A configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// As given, single spaces between the words; folders of libraries are left out and the path of an interpreter
    /// gives way to its version, since results name no machine.
    pub name: String,
    /// How charts label it.
    pub label: String,
    /// Whether it is no contestant: part of the floor, or a control.
    pub floor: bool,
    /// Of a control: the configuration that it is once more, under another name. It is measured where that one is the
    /// baseline.
    pub control_of: Option<String>,
    /// Backend key by [`Domain`]: `KEY` or `KEY:ARGUMENT`.
    pub backends: [String; 6],
    /// What the environment of its children holds besides what every child has.
    pub variables: Vec<(String, OsString)>,
    /// The environment that one would type in front of `python` for it; `None` when no variables stand for all of it.
    pub deploy: Option<Vec<(String, OsString)>>,
    /// The words that its name stands for, as they could be typed, without folders.
    pub words: String,
    /// The variables among its words, in order.
    pub typed: Vec<(String, String)>,
    /// Measured only where the program calls this domain: elsewhere it is another configuration's twin.
    pub only: Option<Domain>,
    /// Whether a word says what serves NumPy: then in place of NumPy's own handler, and of its cache.
    pub says_numpy: bool,
    /// Whether a setting that cannot be read back is taken on trust. It then says so.
    pub allow_unverified: bool,
}

/// The key that serves what `pool` and `cpython` do not.
const SYSTEM: &str = "system";
/// The key of CPython's own pools, as far as they are ours to replay.
const POOL: &str = "pool";
/// The key of Arrow's default pool on Linux, from 18 on.
const ARROW_DEFAULT: &str = "mimalloc";
/// The backends that are the allocator of the Python domains alone, as CPython's own is.
const PYTHON_ALONE: [&str; 4] = [POOL, TUNED_KEY, CPYTHON_KEY, CPYTHON_MIMALLOC_KEY];
/// Those of them that are an interpreter's own.
const OF_INTERPRETER: [&str; 2] = [CPYTHON_KEY, CPYTHON_MIMALLOC_KEY];
/// The interpreter of words that need one and name none.
const DEFAULT_PROGRAM: &str = "python3";
/// What CPython's pools serve.
const PYTHON: [Domain; 2] = [Domain::Mem, Domain::Obj];

/// The contestants of a run that names none: `today`, which is the baseline where Arrow is asked and the twin of `pool`
/// elsewhere, and each allocator for everything.
#[must_use]
pub fn contestants() -> Vec<Config> {
    let today = words::parse(presets::TODAY, &Named::default(), DEFAULT_PROGRAM, &find);
    let today = today.map(|config| Config { only: Some(Domain::Arrow), ..config });
    today.into_iter().chain(with_role(Role::Contestant).map(|backend| preset(backend, backend.key))).collect()
}

/// The interpreter of a program, or in the folder of a virtual environment.
fn find(program: &str) -> Result<Interpreter, FindError> {
    let inside = Path::new(program).join("bin").join("python");
    Interpreter::find(if inside.exists() { &inside } else { program.as_ref() })
}

/// The floor: what the harness itself costs.
#[must_use]
pub fn floor() -> Vec<Config> {
    with_role(Role::Floor).map(|backend| preset(backend, backend.key)).collect()
}

/// The controls of a run: each configuration that can be a workload's baseline, once more as `NAME-again`. What is
/// called better or worse between the two is the harness's error. None where one of that name is among them.
#[must_use]
pub fn controls(configs: &[Config]) -> Vec<Config> {
    let contestants = || configs.iter().filter(|config| !config.floor);
    // The first is the baseline, and where it means nothing the next.
    let last = contestants().position(|config| config.only.is_none()).unwrap_or(usize::MAX);
    let baselines = contestants().take(last.saturating_add(1));
    let again = baselines.map(|config| Config {
        name: format!("{}-again", config.name),
        label: format!("{} again (A/A)", config.label),
        floor: true,
        control_of: Some(config.name.clone()),
        deploy: None, // nobody deploys a control
        ..config.clone()
    });
    again.filter(|control| configs.iter().all(|config| config.name != control.name)).collect()
}

/// A preset as users are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What to type.
    pub name: String,
    /// Words that it stands for; empty when none do.
    pub words: String,
    /// The backend that serves each domain.
    pub backends: [String; 6],
    /// Whether variables stand for all of it, so that it can be deployed; otherwise it asks what if.
    pub deployable: bool,
}

/// Every preset that users are told of, and the user's own names.
///
/// # Errors
/// A sentence about the first of the user's names whose words mean nothing.
pub fn presets(named: &Named) -> Result<Vec<Preset>, String> {
    let deployed = presets::DEPLOYED.iter().map(|(name, _)| *name).chain(named.iter().map(|(name, _)| name));
    let mut all = Vec::new();
    for name in deployed {
        let Config { words, backends, deploy, .. } = words::parse(name, named, DEFAULT_PROGRAM, &find)?;
        all.push(Preset { name: name.to_owned(), words, backends, deployable: deploy.is_some() });
    }
    let shown = |backend: &Backend| {
        let argument = match backend.key {
            CPYTHON_KEY | CPYTHON_MIMALLOC_KEY => "[:PROGRAM]",
            TUNED_KEY => "[:VARIANT]",
            _ => "",
        };
        let name = format!("{}{argument}", backend.key);
        Preset { name, words: String::new(), backends: preset(backend, backend.key).backends, deployable: false }
    };
    all.extend([Role::Contestant, Role::OptIn, Role::Floor].into_iter().flat_map(with_role).map(shown));
    Ok(all)
}

fn with_role(role: Role) -> impl Iterator<Item = &'static Backend> {
    backend::ALL.iter().filter(move |backend| backend.role == role)
}

/// Whether a name means something already.
fn is_taken(name: &str) -> bool {
    backend::find(name).is_some() || presets::DEPLOYED.iter().any(|(known, _)| *known == name)
}

/// Reads the words of one `-c` after another; `named` are the user's own names, `python` the interpreter of variables
/// that need one, `python3` if there is none.
///
/// # Errors
/// A sentence that lists what is known, or says what is wrong with an interpreter.
pub fn parse_all(texts: &[String], named: &Named, python: Option<&str>) -> Result<Vec<Config>, String> {
    let python = python.unwrap_or(DEFAULT_PROGRAM);
    let mut configs: Vec<Config> = Vec::new();
    for text in texts {
        let config = distinct(words::parse(text, named, python, &find)?, &configs);
        configs.push(config.ok_or_else(|| format!("The configuration {text:?} is given twice. Leave one out."))?);
    }
    Ok(configs)
}

/// Reads the words of one `-c`.
///
/// # Errors
/// As [`parse_all`].
pub fn parse(text: &str) -> Result<Config, String> {
    words::parse(text, &Named::default(), DEFAULT_PROGRAM, &find)
}

/// Reads the words of one `-c` as where no interpreter is.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse_without_interpreters(text: &str, named: &Named) -> Result<Config, String> {
    let none = |program: &str| Err(FindError::NotRunnable(program.into(), "none is here".to_owned()));
    words::parse(text, named, DEFAULT_PROGRAM, &none)
}

/// Two interpreters may have the same version: the second is `cpython:3.11.7-2`; so with two libraries whose files have
/// the same name. `None` for the same once more.
fn distinct(mut config: Config, before: &[Config]) -> Option<Config> {
    let is_same = |other: &Config| match config.variables.as_slice() {
        [] => other.name == config.name && other.backends == config.backends,
        // Names differ where one program is named in two ways.
        variables => {
            let keys = |config: &Config| (config.backends.clone(), config.says_numpy);
            other.variables == variables && keys(other) == keys(&config)
        }
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

    /// What a result keeps of it; `all` is what the allocators said of themselves in its environment, `unverified` the
    /// words that nobody could read back.
    #[must_use]
    pub fn facts(&self, all: &[AllocatorFacts], unverified: &[String]) -> ConfigFacts {
        let shown = self.backends.iter().map(|key| backend::shown_key(key));
        let by_name = Domain::ALL.iter().map(|domain| domain.name().to_owned()).zip(shown);
        let serving = all.iter().filter(|facts| self.keys().contains(&facts.key.as_str())).cloned();
        ConfigFacts {
            name: self.name.clone(),
            label: self.label.clone(),
            floor: self.floor,
            domains: by_name.collect(),
            allocators: serving.map(|facts| AllocatorFacts { key: backend::shown_key(&facts.key), ..facts }).collect(),
            words: self.words.clone(),
            deployable: self.deploy.is_some(),
            unverified: unverified.to_vec(),
            control_of: self.control_of.clone(),
        }
    }

    /// Whether an interpreter's own allocators serve in it.
    #[must_use]
    pub fn has_interpreter(&self) -> bool {
        OF_INTERPRETER.iter().any(|key| self.keys().contains(key))
    }

    /// Whether a library of the user's is in it, about which nothing is known beforehand.
    pub(super) fn has_library(&self) -> bool {
        let is_preloaded = self.typed.iter().any(|(name, _)| name == variables::PRELOAD);
        is_preloaded || self.backends.iter().any(|key| is_users(key))
    }

    /// The backends, by domain, on a trace: where it was recorded under a handler that has no cache, and no word says
    /// what serves NumPy, its own handler does, and with it its cache.
    pub(super) fn backends_on(&self, metadata: &Metadata) -> [String; 6] {
        let mut backends = self.backends.clone();
        let own = &mut backends[Domain::Numpy as usize];
        let is_floor = backend::find(own).is_some_and(|(backend, _)| backend.role == Role::Floor);
        if metadata.numpy_data == Some(NumpyData::Handler) && !self.says_numpy && !is_floor {
            *own = format!("{CACHED_KEY}:{own}");
        }
        backends
    }

    /// What somebody has to know who replays a trace under a handler of NumPy's, when the trace cannot tell all.
    #[must_use]
    pub fn numpy_note(&self, metadata: &Metadata) -> Option<String> {
        let (name, value) = self.typed.iter().find(|(name, _)| name == variables::NUMPY)?;
        (metadata.numpy_data != Some(NumpyData::Handler)).then(|| {
            format!(
                "{name}={}: NumPy's cache of small blocks served requests that are in no recording of its own handler, \
                 and a program on this handler has no such cache. Record it with {name}=system for all of them.",
                library::without_folders(value)
            )
        })
    }

    /// Whether one of its words reaches nothing but a domain, so that it means nothing where that is not called.
    #[must_use]
    pub fn needs(&self, domain: Domain) -> bool {
        self.only == Some(domain) && !self.typed.is_empty()
    }
}

/// Whether a key means a library of the user's.
pub(super) fn is_users(key: &str) -> bool {
    backend::find(key).is_some_and(|(backend, _)| backend.role == Role::ByArgument)
}

/// One allocator for all that it can serve; `key` is the backend's, perhaps with an argument.
fn preset(backend: &Backend, key: &str) -> Config {
    let elsewhere = if PYTHON_ALONE.contains(&backend.key) { SYSTEM } else { key };
    Config {
        name: backend.key.to_owned(),
        label: backend.label.to_owned(),
        floor: backend.role == Role::Floor,
        backends: keys(key, elsewhere),
        ..Config::default()
    }
}

/// One key for `mem` and `obj`, one for the rest.
fn keys(python: &str, elsewhere: &str) -> [String; 6] {
    Domain::ALL.map(|domain| if PYTHON.contains(&domain) { python } else { elsewhere }.to_owned())
}

#[cfg(test)]
mod tests;
