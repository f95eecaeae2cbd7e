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

pub use presets::Named;
pub(super) use variables::{
    ARROW, MIMALLOC_PREFIX, NUMPY, PRELOAD, PYTHON as PYTHON_VARIABLE, TUNABLES, is_variable, pairs,
};
pub(super) use verify::{is_same, reached, verify};
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
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use libpython::Linkage;

    fn parse_with(text: &str, find: &dyn Fn(&str) -> Result<Interpreter, FindError>) -> Result<Config, String> {
        words::parse(text, &Named::default(), DEFAULT_PROGRAM, find)
    }

    #[test]
    fn the_pool_serves_the_python_domains_alone() {
        let pool = parse("pool").unwrap();
        assert_eq!(pool.backends, ["system", "system", "pool", "pool", "system", "system"]);
        assert_eq!(pool.keys(), ["system", "pool"]);
        assert_eq!(parse("mimalloc").unwrap().keys(), ["mimalloc"]);
        let tuned = parse("pool-tuned:no-packed").unwrap();
        assert_eq!(tuned.keys(), ["system", "pool-tuned:no-packed"]);
        assert_eq!((tuned.name.as_str(), tuned.label.as_str()), ("pool-tuned:no-packed", "pool-tuned:no-packed"));
        let what_if = parse("python=pool-tuned numpy=mimalloc").unwrap();
        assert_eq!(what_if.backends[2..5], ["pool-tuned", "pool-tuned", "mimalloc"].map(str::to_owned));
    }

    #[test]
    fn the_default_contestants_begin_with_the_baseline() {
        let names: Vec<String> = contestants().into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["today", "pool", "system", "mimalloc", "jemalloc"]);
        let all = presets(&Named::default()).unwrap();
        let of = |deployable| -> Vec<&str> {
            all.iter().filter(|preset| preset.deployable == deployable).map(|preset| preset.name.as_str()).collect()
        };
        let own = ["pool", "system", "mimalloc", "jemalloc", "pool-tuned[:VARIANT]"];
        let interpreters = ["cpython[:PROGRAM]", "cpython-mimalloc[:PROGRAM]"];
        assert_eq!(of(false), [&own[..], &interpreters, &["null", "loop"]].concat());
        assert_eq!(of(true)[..5], ["today", "nopool", "debug", "nopool-debug", "arrow-system"]);
        assert_eq!(floor().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["null", "loop"]);
    }

    #[test]
    fn every_possible_baseline_has_a_control() {
        let names = |texts: &[&str]| -> Vec<String> {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let configs = parse_all(&texts, &Named::default(), None).unwrap();
            controls(&configs).into_iter().map(|control| control.name).collect()
        };
        assert_eq!(
            controls(&contestants()).iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            ["today-again", "pool-again"]
        );
        assert_eq!(names(&["jemalloc", "pool"]), ["jemalloc-again"]);
        assert_eq!(names(&["system", "system-again"]), Vec::<String>::new());
        let control = controls(&[parse("arenas-2").unwrap()]).remove(0);
        assert_eq!(control.control_of.as_deref(), Some("arenas-2"));
        assert_eq!(control.variables, parse("arenas-2").unwrap().variables);
        assert!(control.floor);
    }

    #[test]
    fn words_override_from_left_to_right() {
        let config = parse("pool  numpy=jemalloc arrow=mimalloc arrow=system").unwrap();
        assert_eq!(config.name, "pool numpy=jemalloc arrow=mimalloc arrow=system");
        assert_eq!(config.backends, ["system", "system", "pool", "pool", "jemalloc", "system"]);
        // Words without a preset are read over what people run.
        let over = parse("libc=mimalloc").unwrap();
        assert_eq!(over.backends, ["mimalloc", "mimalloc", "pool", "pool", "system", "mimalloc"].map(str::to_owned));
    }

    #[test]
    fn what_cannot_take_effect_is_an_error() {
        for (text, expected) in [
            ("", "empty"),
            ("tcmalloc", "Give one of: pool, system, mimalloc, jemalloc, pool-tuned, cpython"),
            ("pool-tuned:no-such", "has no variant"),
            ("pool:no-packed", "only cpython takes"),
            ("todays", "Did you mean today?"),
            ("MALLOC_ARENA_MAX=2 pool", "first"),
            ("MALLOC_ARENA_MAX=2 arenas-1", "given twice"),
            ("PYTHONMALLOC=malloc python=mimalloc", "takes the place of PYTHONMALLOC=malloc"),
            ("debug libc=jemalloc", "takes the place of PYTHONMALLOC=debug"),
            ("debug PYTHONMALLOC=malloc", "given twice"),
            ("pool-debug", "Give one of: PYTHONMALLOC=debug, PYTHONMALLOC=pymalloc_debug."),
            ("libc=malloc-debug", "is what variables put in"),
            ("ARROW_DEFAULT_MEMORY_POOL=system arrow=jemalloc", "takes the place of ARROW_DEFAULT"),
            ("JE_ARROW_MALLOC_CONF=dirty_decay_ms:0", "Arrow is not on its jemalloc"),
            ("arrow-jemalloc numpy=jemalloc", "one copy of jemalloc"),
            ("numpy=/nonexistent/lib.so", "no such file"),
            ("gpu=pool", "no domain"),
            ("numpy=tcmalloc", "no allocator"),
            ("numpy=mimaloc", "Did you mean mimalloc?"),
            ("numpy=null", "floor"),
            ("numpy=jemalloc pool", "first"),
            ("PYALLOC_NUMPY=system numpy=jemalloc", "takes the place of PYALLOC_NUMPY=system"),
            ("PYALLOC_NUMPY=jemalloc", "with a slash"),
            ("libc=cached:system", "nothing but NumPy. Give numpy=cached:system"),
            ("cached:system", "nothing but NumPy. Give numpy=cached:system"),
            ("numpy=cached:cached:system", "cannot stand behind"),
            ("numpy=cached:cpython", "cannot stand behind"),
            ("numpy=cached:null", "floor"),
            ("numpy=cached", "no allocator"),
            ("pool jemalloc", "first"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn variables_choose_allocators_and_stand_for_what_can_be_deployed() {
        let today = parse("today").unwrap();
        assert_eq!(today.backends, ["system", "system", "pool", "pool", "system", "mimalloc"]);
        assert_eq!((today.deploy, today.variables, today.only), (Some(vec![]), vec![], None));
        let lean = parse("arenas-2 arrow-system PYTHONMALLOC=malloc").unwrap();
        assert!(lean.backends.iter().all(|key| key == "system"));
        assert_eq!(lean.words, "MALLOC_ARENA_MAX=2 ARROW_DEFAULT_MEMORY_POOL=system PYTHONMALLOC=malloc");
        let deploy = lean.deploy.unwrap();
        let names: Vec<&str> = deploy.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["MALLOC_ARENA_MAX", "ARROW_DEFAULT_MEMORY_POOL", "PYTHONMALLOC"]);
        // What chose a backend is none of the child's business.
        assert_eq!(lean.variables, [("MALLOC_ARENA_MAX".to_owned(), "2".into())]);
        assert_eq!(lean.only, Some(Domain::Arrow));
        assert_eq!(parse("arenas-2 numpy=jemalloc").unwrap().deploy, None);
        assert_eq!(parse("pool").unwrap().deploy, None);
    }

    #[test]
    fn debug_hooks_lie_over_every_domain_of_python() {
        let of = |text: &str| parse(text).unwrap().backends;
        let hooked = ["system", "malloc-debug", "pool-debug", "pool-debug", "system", "mimalloc"];
        assert_eq!(of("debug"), hooked);
        assert_eq!(of("PYTHONMALLOC=pymalloc_debug"), hooked);
        let all_malloc = ["system", "malloc-debug", "malloc-debug", "malloc-debug", "system", "mimalloc"];
        assert_eq!(of("PYTHONMALLOC=malloc_debug"), all_malloc);
        assert_eq!(of("PYTHONMALLOC=default"), of("today"));
        let config = parse("debug").unwrap();
        assert_eq!(config.deploy, Some(vec![("PYTHONMALLOC".to_owned(), "debug".into())]));
        assert_eq!((config.variables, config.words.as_str()), (vec![], "PYTHONMALLOC=debug"));
    }

    #[test]
    fn mimalloc_of_cpython_is_chosen_by_its_variable_and_can_be_deployed() {
        let config =
            words::parse("PYTHONMALLOC=mimalloc", &Named::default(), "/opt/bin/python3.13", &invented).unwrap();
        assert_eq!(config.backends[2..4], ["cpython-mimalloc", "cpython-mimalloc"]);
        assert_eq!((config.backends[1].as_str(), config.name.as_str()), ("system", "PYTHONMALLOC=mimalloc"));
        assert_eq!(config.deploy, Some(vec![("PYTHONMALLOC".to_owned(), "mimalloc".into())]));
        assert_eq!(config.variables[0], ("PYTHONMALLOC".to_owned(), "mimalloc".into()));
        assert_eq!(config.variables[1].1, "/lib/of//opt/bin/python3.13.so");
        assert_eq!(parse_with("cpython-mimalloc:python3.13", &invented).unwrap().deploy, None);
    }

    #[test]
    fn numpy_s_cache_stands_where_numpy_s_own_handler_does() {
        let own = std::env::current_exe().unwrap();
        let on = |text: &str, data| {
            let metadata = Metadata { numpy_data: data, ..Metadata::default() };
            let config = parse(text).unwrap();
            (config.backends_on(&metadata)[Domain::Numpy as usize].clone(), config.numpy_note(&metadata).is_some())
        };
        let handler = format!("PYALLOC_NUMPY={}", own.display());
        let library = format!("library:{}", own.display());
        for (text, data, expected) in [
            ("today", Some(NumpyData::Handler), ("cached:system", false)),
            ("jemalloc", Some(NumpyData::Handler), ("cached:jemalloc", false)),
            ("null", Some(NumpyData::Handler), ("null", false)),
            ("PYALLOC_NUMPY=system", Some(NumpyData::Handler), ("system", false)),
            (&handler, Some(NumpyData::Handler), (&library, false)),
            ("numpy=jemalloc", Some(NumpyData::Handler), ("jemalloc", false)),
            ("numpy=cached:jemalloc", Some(NumpyData::Cached), ("cached:jemalloc", false)),
            ("today", Some(NumpyData::Cached), ("system", false)),
            ("today", None, ("system", false)),
            ("PYALLOC_NUMPY=system", Some(NumpyData::Cached), ("system", true)),
            (&handler, None, (&library, true)),
        ] {
            let (key, is_noted) = on(text, data);
            assert_eq!((key.as_str(), is_noted), expected, "{text} on {data:?}");
        }
        let both = ["arenas-2".to_owned(), "arenas-2 PYALLOC_NUMPY=system".to_owned()];
        assert_eq!(parse_all(&both, &Named::default(), None).unwrap().len(), 2, "the second has no cache");
        let config = parse(&handler).unwrap();
        assert_eq!((config.only, config.variables.len()), (Some(Domain::Numpy), 1), "{:?}", config.variables);
        // A program is no library that needs room for its thread-local variables.
        assert_eq!(config.deploy, Some(vec![("PYALLOC_NUMPY".to_owned(), own.clone().into())]));
        assert_eq!(config.words, format!("PYALLOC_NUMPY={}", own.file_name().unwrap().to_string_lossy()));
    }

    #[test]
    fn arrow_s_jemalloc_has_arrow_s_options() {
        let config = parse("arrow-jemalloc JE_ARROW_MALLOC_CONF=dirty_decay_ms:0").unwrap();
        let [(name, value)] = &config.variables[..] else { panic!("{config:?}") };
        assert_eq!(name, "_RJEM_MALLOC_CONF");
        let value = value.to_string_lossy();
        assert!(value.starts_with("oversize_threshold:0,") && value.ends_with(",dirty_decay_ms:0"), "{value}");
    }

    #[test]
    fn a_library_keeps_its_path_in_jobs_and_loses_it_in_results() {
        // The program of the test is a shared object as far as its header says.
        let own = std::env::current_exe().unwrap();
        let config = parse(&format!("numpy={}", own.display())).unwrap();
        let base = own.file_name().unwrap().to_string_lossy();
        assert_eq!(config.backends[Domain::Numpy as usize], format!("library:{}", own.display()));
        assert_eq!((config.name.clone(), config.words.clone()), (format!("numpy={base}"), format!("numpy={base}")));
        assert_eq!(config.variables, [("GLIBC_TUNABLES".to_owned(), words::STATIC_TLS.into())]);
        let said = [AllocatorFacts { key: config.backends[4].clone(), ..AllocatorFacts::default() }];
        let facts = config.facts(&said, &[]);
        assert_eq!(
            (facts.domains["numpy"].as_str(), facts.allocators[0].key.as_str()),
            (&*format!("library:{base}"), &*format!("library:{base}"))
        );
    }

    #[test]
    fn a_user_s_names_mean_their_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[config.lean]\nwords = \"arenas-2 MALLOC_TRIM_THRESHOLD_=65536\"\n").unwrap();
        let named = Named::read(file.path()).unwrap();
        let config = parse_all(&["lean".to_owned()], &named, None).unwrap().remove(0);
        assert_eq!((config.name.as_str(), config.label.as_str()), ("lean", "lean"));
        assert_eq!(config.words, "MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=65536");
        assert_eq!(config.deploy.map(|deploy| deploy.len()), Some(2));
        assert!(presets(&named).unwrap().iter().any(|preset| preset.name == "lean" && preset.deployable));
        assert!(Named::read("/nonexistent/file.toml".as_ref()).unwrap_err().contains("cannot be read"));
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
            ("numpy=cpython-mimalloc:python3.13", "nothing but Python's own domains"),
            ("PYTHONMALLOC=mimalloc", "python3 is CPython 3.11.7, which has no mimalloc"),
            ("cpython-mimalloc:python3.12", "python3.12 is CPython 3.12.7"),
            ("PYTHONMALLOC=mimalloc python=pool", "takes the place of PYTHONMALLOC=mimalloc"),
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
        let facts = parse("pool").unwrap().facts(&all, &[]);
        assert_eq!(facts.allocators.iter().map(|a| a.key.as_str()).collect::<Vec<_>>(), ["pool", "system"]);
        assert_eq!(facts.domains["obj"], "pool");
        assert_eq!(facts.domains["numpy"], "system");
    }
}
