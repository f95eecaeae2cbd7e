//! The grammar: `VAR=VALUE`, `DOMAIN=ALLOCATOR` and names of presets, read from left to right over what people run.
//!
//! Invariant: of two words that serve one domain the later counts, and a word of which nothing is left is an error.

use super::variables::{self, ARROW, ARROW_JEMALLOC, NUMPY, PRELOAD, Reach, TUNABLES, is_variable};
use super::{
    ARROW_DEFAULT, Config, DEFAULT_PROGRAM, LINKAGE_VARIABLE, Named, OF_INTERPRETER, POOL, PYTHON, SYSTEM, Wheel, keys,
    library, preset, presets, with_role,
};
use crate::backend::{
    self, Backend, CACHED_KEY, CPYTHON_KEY, CPYTHON_MIMALLOC_KEY, LIBRARY_KEY, MALLOC_DEBUG_KEY, POOL_DEBUG_KEY, Role,
    TUNED_KEY, TUNED_VARIANTS, WHEEL_KEY, WHEEL_POOLS,
};
use libpython::{FindError, Interpreter};
use std::ffi::OsString;
use trace::Domain;

/// The words on the left of `DOMAIN=ALLOCATOR`, and what each covers. `raw` belongs to `libc`: CPython serves it with
/// the C library's `malloc`.
const DOMAIN_WORDS: &[(&str, &[Domain])] = &[
    ("python", &PYTHON),
    ("libc", &[Domain::Libc, Domain::Raw]),
    ("numpy", &[Domain::Numpy]),
    ("arrow", &[Domain::Arrow]),
];

/// Domains, and the key that serves them.
type Chosen<'a> = (&'static [Domain], &'a str);

/// What the hooks of `PYTHONMALLOC=debug` stand on: the C library in the domain raw, the pools in the others.
const HOOKED_POOL: &[Chosen<'static>] = &[(&PYTHON, POOL_DEBUG_KEY), (&[Domain::Raw], MALLOC_DEBUG_KEY)];
/// What each value of `PYTHONMALLOC` puts in, in a release build with the GIL.
const PYTHON_VALUES: &[(&str, &[Chosen<'static>])] = &[
    ("default", &[(&PYTHON, POOL)]),
    ("pymalloc", &[(&PYTHON, POOL)]),
    ("malloc", &[(&PYTHON, SYSTEM)]),
    ("debug", HOOKED_POOL),
    ("pymalloc_debug", HOOKED_POOL),
    ("malloc_debug", &[(&[Domain::Raw, Domain::Mem, Domain::Obj], MALLOC_DEBUG_KEY)]),
    ("mimalloc", &[(&PYTHON, CPYTHON_MIMALLOC_KEY)]),
];
/// First minor version of CPython with a mimalloc in it.
const MINOR_WITH_MIMALLOC: u32 = 13;

/// The variable that our linked copy of jemalloc reads.
pub(super) const LINKED_JEMALLOC: &str = "_RJEM_MALLOC_CONF";
/// The key of that copy.
const JEMALLOC: &str = "jemalloc";
/// What Arrow builds into its own copy of jemalloc, which the linked one stands for.
const ARROW_JEMALLOC_OPTIONS: &str =
    "oversize_threshold:0,dirty_decay_ms:1000,muzzy_decay_ms:1000,background_thread:true";
/// Without room for it, a jemalloc that was built to be linked cannot be loaded.
pub(super) const STATIC_TLS: &str = "glibc.rtld.optional_static_tls=65536";

/// What a word says serves a domain.
struct Served<'a> {
    backend: &'static Backend,
    /// What a job calls it by.
    key: String,
    /// Allocators of an interpreter alone: its program.
    program: Option<&'a str>,
    /// `wheel` alone: the word after `=`, and where the wheel is.
    wheel: Option<(&'a str, &'a str)>,
}

/// A configuration while its words are read.
struct Words<'a> {
    backends: [String; 6],
    /// The interpreter that they name.
    program: Option<&'a str>,
    /// The interpreter of variables that need one.
    python: &'a str,
    /// The wheel whose pool serves Arrow: the word that names it, and where it is.
    wheel: Option<(&'a str, &'a str)>,
    typed: Vec<(String, String)>,
    /// Whether a word asks what no variable does.
    is_what_if: bool,
    /// Whether a word says what serves NumPy.
    says_numpy: bool,
}

impl<'a> Words<'a> {
    /// Has domains served; `whole` is what errors quote.
    fn serve(&mut self, domains: &[Domain], by: &Served<'a>, whole: &str) -> Result<(), String> {
        if let Some(program) = by.program {
            if domains.iter().any(|domain| !PYTHON.contains(domain)) {
                return Err(format!(
                    "{whole}: what is CPython's serves nothing but Python's own domains. Give python={}.",
                    by.key
                ));
            }
            if self.program.is_some_and(|other| other != program) {
                return Err(format!(
                    "{whole}: a process holds the pools of one interpreter. Give each interpreter a -c of its own."
                ));
            }
            self.program = Some(program);
        }
        if domains.contains(&Domain::Arrow) {
            self.wheel = by.wheel;
        } else if by.wheel.is_some() {
            return Err(format!("{whole}: Arrow's pools serve nothing but Arrow. Give arrow={}.", by.key));
        }
        if by.backend.key == CACHED_KEY && domains.iter().any(|domain| *domain != Domain::Numpy) {
            return Err(format!("{whole}: NumPy's cache serves nothing but NumPy. Give numpy={}.", by.key));
        }
        for domain in domains {
            self.backends[*domain as usize] = by.key.clone();
        }
        self.is_what_if = true;
        self.says_numpy |= domains.contains(&Domain::Numpy);
        Ok(())
    }

    /// Sets a variable.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let reach = variables::read(name, value)?;
        if self.typed.iter().any(|(other, _)| other == name) {
            return Err(format!("{name} is given twice. Leave one out."));
        }
        for (domains, key) in chosen(reach, value)? {
            domains.iter().for_each(|domain| self.backends[*domain as usize].clone_from(&key));
            if OF_INTERPRETER.contains(&key.as_str()) {
                self.program = Some(self.python);
            }
        }
        self.says_numpy |= reach == Reach::Numpy;
        self.typed.push((name.to_owned(), value.to_owned()));
        Ok(())
    }

    /// One word that is no assignment.
    fn name(&mut self, word: &'a str, place: usize, text: &str, is_alone: bool) -> Result<(), String> {
        if let Some((_, words)) = presets::DEPLOYED.iter().find(|(name, _)| *name == word) {
            return words
                .split_whitespace()
                .filter_map(|word| word.split_once('='))
                .try_for_each(|(n, v)| self.set(n, v));
        }
        if place > 0 {
            return Err(format!("In {text:?} the preset {word} must come first. Move it to the front."));
        }
        let by = if is_alone { offered(word, word)? } else { served(word, text)? };
        if by.wheel.is_some() {
            return Err(format!("{word}: Arrow's pools serve nothing but Arrow. Give arrow={}.", by.key));
        }
        if by.backend.key == CACHED_KEY {
            return Err(format!("{word}: NumPy's cache serves nothing but NumPy. Give numpy={}.", by.key));
        }
        (self.backends, self.program, self.is_what_if) = (preset(by.backend, &by.key).backends, by.program, true);
        Ok(())
    }

    /// That no variable was read in vain.
    fn check(&self, text: &str) -> Result<(), String> {
        for (name, value) in &self.typed {
            let reach = variables::read(name, value)?;
            let word = format!("{name}={value}");
            let is_gone = |(domains, key): &(&[Domain], String)| {
                domains.iter().all(|domain| self.backends[*domain as usize] != *key)
            };
            if chosen(reach, value)?.iter().any(is_gone) {
                return Err(format!("In {text:?} a later word takes the place of {word}. Leave one of them out."));
            }
            let arrow = &self.backends[Domain::Arrow as usize];
            if reach == Reach::ArrowJemalloc && (self.pool() != Some(JEMALLOC) && arrow != "wheel:jemalloc") {
                return Err(format!("{word} reaches nothing: Arrow is not on its jemalloc. Add {ARROW}=jemalloc."));
            }
        }
        let on_jemalloc = |domain: &&Domain| self.backends[**domain as usize] == JEMALLOC;
        if self.pool() == Some(JEMALLOC)
            && Domain::ALL.iter().filter(on_jemalloc).any(|domain| *domain != Domain::Arrow)
        {
            return Err(format!(
                "In {text:?} one copy of jemalloc would serve Arrow with Arrow's options and others without. Give the \
                 others a library by its path."
            ));
        }
        Ok(())
    }

    /// Which of its pools Arrow was told to use.
    fn pool(&self) -> Option<&str> {
        self.typed.iter().find(|(name, _)| name == ARROW).map(|(_, value)| value.as_str())
    }

    /// What children get because of the words.
    fn variables(&self) -> Vec<(String, OsString)> {
        let of = |wanted: &str| self.typed.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        // What the words did to the table of backends is done; no allocator of a worker would read them.
        let read = |name: &str| ![variables::PYTHON, ARROW, ARROW_JEMALLOC, NUMPY, TUNABLES].contains(&name);
        let mut variables: Vec<(String, OsString)> = self
            .typed
            .iter()
            .filter(|(name, _)| read(name))
            .map(|(name, value)| (name.clone(), value.into()))
            .collect();
        let needs_tls = self.backends.iter().any(|key| backend::behind(key).starts_with(LIBRARY_KEY));
        let tunables: Vec<String> = of(TUNABLES).into_iter().chain(needs_tls.then(|| STATIC_TLS.to_owned())).collect();
        if !tunables.is_empty() {
            variables.push((TUNABLES.to_owned(), tunables.join(":").into()));
        }
        if self.pool() == Some(JEMALLOC) {
            let options = [Some(ARROW_JEMALLOC_OPTIONS.to_owned()), of(ARROW_JEMALLOC)];
            let options: Vec<String> = options.into_iter().flatten().collect();
            variables.push((LINKED_JEMALLOC.to_owned(), options.join(",").into()));
        }
        variables
    }
}

/// The domains that a variable gives to allocators, and their keys.
fn chosen(reach: Reach, value: &str) -> Result<Vec<(&'static [Domain], String)>, String> {
    Ok(match reach {
        Reach::Python => {
            let known = PYTHON_VALUES.iter().find(|(known, _)| *known == value);
            let chosen = known.map_or(&[][..], |(_, chosen)| chosen);
            chosen.iter().map(|(domains, key)| (*domains, (*key).to_owned())).collect()
        }
        Reach::ArrowPool => vec![(&[Domain::Arrow], value.to_owned())],
        Reach::Numpy if value == SYSTEM => vec![(&[Domain::Numpy], value.to_owned())],
        Reach::Numpy => {
            let path = library::path(value, &format!("{NUMPY}={value}"))?;
            vec![(&[Domain::Numpy], format!("{LIBRARY_KEY}:{}", path.display()))]
        }
        _ => Vec::new(),
    })
}

/// What one types in front of `python` for these variables: as given, and room for the thread-local variables of a
/// library that NumPy's handler loads late, where it needs more than the loader keeps.
fn deployed(typed: &[(String, String)]) -> Vec<(String, String)> {
    let mut deployed = typed.to_vec();
    let handler = typed.iter().find(|(name, value)| name == NUMPY && value.contains('/'));
    if handler.is_some_and(|(_, path)| library::needs_static_tls(path)) {
        match deployed.iter_mut().find(|(name, _)| name == TUNABLES) {
            Some((_, value)) => *value = format!("{value}:{STATIC_TLS}"),
            None => deployed.push((TUNABLES.to_owned(), STATIC_TLS.to_owned())),
        }
    }
    deployed
}

/// Reads the words of one configuration. `python` is the interpreter of variables that need one.
///
/// # Errors
/// A sentence.
pub(super) fn parse(
    text: &str,
    named: &Named,
    python: &str,
    find: &dyn Fn(&str) -> Result<Interpreter, FindError>,
) -> Result<Config, String> {
    let typed: Vec<&str> = text.split_whitespace().collect();
    if typed.is_empty() {
        return Err(format!("A configuration is empty. Give one of: {}.", known()));
    }
    let own = if let [name] = typed[..] { named.get(name) } else { None };
    let list: Vec<&str> = own.map_or(typed.clone(), |words| words.split_whitespace().collect());
    let mut backends = keys(POOL, SYSTEM);
    ARROW_DEFAULT.clone_into(&mut backends[Domain::Arrow as usize]);
    let mut words =
        Words { backends, program: None, python, wheel: None, typed: Vec::new(), is_what_if: false, says_numpy: false };
    for (place, word) in list.iter().enumerate() {
        match word.split_once('=') {
            Some((left, right)) if is_variable(left) => words.set(left, right)?,
            Some((left, right)) => words.serve(domains(left, word)?, &served(right, word)?, word)?,
            None => words.name(word, place, text, list.len() == 1)?,
        }
    }
    words.check(text)?;
    let is_variant = list[0].contains(':') && !list[0].starts_with(CPYTHON_KEY);
    let single = if let [word] = list[..] { backend::find(word).filter(|_| !is_variant) } else { None };
    let single = single.map(|(backend, _)| backend);
    let short = |list: &[&str]| list.iter().map(|word| shown(word)).collect::<Vec<_>>().join(" ");
    let name = short(&typed);
    let has = |names: &[&str]| words.typed.iter().any(|(name, _)| names.contains(&name.as_str()));
    let about_numpy = has(&[NUMPY]).then_some(Domain::Numpy);
    let deployed = deployed(&words.typed);
    let added =
        deployed.iter().filter(|pair| !words.typed.contains(pair)).map(|(name, value)| format!("{name}={value}"));
    let added: Vec<String> = added.collect();
    let mut config = Config {
        label: single.map_or(name.as_str(), |backend| backend.label).to_owned(),
        floor: single.is_some_and(|backend| backend.role == Role::Floor),
        variables: words.variables(),
        words: expanded(&list, &added, &short),
        deploy: (!words.is_what_if).then(|| deployed.into_iter().map(|(name, value)| (name, value.into())).collect()),
        only: has(&[ARROW, ARROW_JEMALLOC]).then_some(Domain::Arrow).or(about_numpy),
        says_numpy: words.says_numpy,
        typed: words.typed,
        backends: words.backends,
        name,
        allow_unverified: false,
        control_of: None,
    };
    if let Some(program) = words.program {
        let Some(key) = OF_INTERPRETER.into_iter().find(|key| config.keys().contains(key)) else {
            return Err(format!("In {text:?} a later word takes the place of {CPYTHON_KEY}. Leave one of them out."));
        };
        let interpreter = find(program).map_err(|error| error.to_string())?;
        if key == CPYTHON_MIMALLOC_KEY && interpreter.minor < MINOR_WITH_MIMALLOC {
            return Err(format!(
                "{text}: {program} is CPython {}, which has no mimalloc (3.{MINOR_WITH_MIMALLOC} is the first). \
                 Name a later interpreter (--python, or {CPYTHON_MIMALLOC_KEY}:PROGRAM).",
                interpreter.version
            ));
        }
        if key == CPYTHON_MIMALLOC_KEY {
            // The library chooses its allocators by this while it starts.
            config.variables.push((variables::PYTHON.to_owned(), "mimalloc".into()));
        }
        config.run_on(&interpreter, program, single.is_some());
    }
    if let Some((word, place)) = words.wheel {
        config.load_arrow(&Wheel::find(place)?, word);
    }
    Ok(config)
}

impl Config {
    /// Takes over the interpreter that its word `program` means.
    fn run_on(&mut self, interpreter: &Interpreter, program: &str, is_preset: bool) {
        for (name, value) in interpreter.environment() {
            match self.variables.iter_mut().find(|(own, _)| *own == name && name == PRELOAD) {
                // The user's library comes first: it is to be the process's `malloc`.
                Some((_, own)) => {
                    own.push(":");
                    own.push(value);
                }
                None => self.variables.push((name, value)),
            }
        }
        self.variables.push((LINKAGE_VARIABLE.to_owned(), interpreter.linkage.name().into()));
        if program.contains('/') {
            self.name = self.name.replace(program, &interpreter.version);
            self.words = self.words.replace(program, &interpreter.version);
        }
        self.label = if is_preset { format!("{} {}", self.label, interpreter.version) } else { self.name.clone() };
    }
}

/// A word as results show it. The path of an interpreter gives way later, to what it turns out to be.
fn shown(word: &str) -> String {
    if word.contains(CPYTHON_KEY) || word.contains("=wheel:") {
        word.to_owned()
    } else {
        library::without_folders(word)
    }
}

/// The words with presets of variables written out, and what has to stand beside them; a variable that was added to
/// takes the place of the one that was typed.
fn expanded(list: &[&str], added: &[String], short: &dyn Fn(&[&str]) -> String) -> String {
    let words = list.iter().flat_map(|word| {
        let preset = presets::DEPLOYED.iter().find(|(name, _)| name == word);
        preset.map_or(vec![*word], |(_, words)| words.split_whitespace().collect())
    });
    let name = |word: &str| word.split_once('=').map(|(name, _)| name.to_owned());
    let kept = words.filter(|word| added.iter().all(|more| name(more) != name(word)));
    short(&kept.chain(added.iter().map(String::as_str)).collect::<Vec<_>>())
}

fn domains(left: &str, word: &str) -> Result<&'static [Domain], String> {
    DOMAIN_WORDS.iter().find(|(name, _)| *name == left).map(|(_, domains)| *domains).ok_or_else(|| {
        let names: Vec<&str> = DOMAIN_WORDS.iter().map(|(name, _)| *name).collect();
        format!("{word}: there is no domain {left:?}. Give one of: {}.", names.join(", "))
    })
}

/// The backend that a word means, with the program or the path in it; `whole` is what errors about a path quote.
fn offered<'a>(word: &'a str, whole: &str) -> Result<Served<'a>, String> {
    let (key, argument) = word.split_once(':').map_or((word, None), |(key, argument)| (key, Some(argument)));
    if key == WHEEL_KEY {
        return pool_of_wheel(word, argument);
    }
    if key == CACHED_KEY {
        return cached(argument.unwrap_or_default(), whole);
    }
    let is_of_interpreter = OF_INTERPRETER.contains(&key);
    if !is_of_interpreter && (word.contains('/') || key == LIBRARY_KEY) {
        let path = library::path(word.strip_prefix("library:").unwrap_or(word), whole)?;
        let (backend, _) = backend::find(LIBRARY_KEY).ok_or("There is no allocator by path. Please report this.")?;
        return Ok(Served { backend, key: format!("{LIBRARY_KEY}:{}", path.display()), program: None, wheel: None });
    }
    let Some((backend, _)) = backend::find(key) else {
        let near = super::near::nearest(key, names());
        let hint = near.map_or(String::new(), |near| format!(" Did you mean {near}?"));
        return Err(format!("{key:?} is no allocator or configuration. Give one of: {}.{hint}", known()));
    };
    if backend.role == Role::ByVariable {
        let values = PYTHON_VALUES.iter().filter(|(_, chosen)| chosen.iter().any(|(_, chosen)| *chosen == key));
        let values: Vec<String> = values.map(|(value, _)| format!("{}={value}", variables::PYTHON)).collect();
        return Err(format!("{whole}: {key} is what variables put in. Give one of: {}.", values.join(", ")));
    }
    match argument {
        Some(variant) if key == TUNED_KEY => {
            if !TUNED_VARIANTS.contains(&variant) {
                let all = TUNED_VARIANTS.join(", ");
                return Err(format!("{word}: {key} has no variant {variant:?}. Give one of: {all}; or {key} alone."));
            }
            Ok(Served { backend, key: word.to_owned(), program: None, wheel: None })
        }
        Some(_) if !is_of_interpreter => {
            Err(format!("{word}: only {CPYTHON_KEY} takes the program of an interpreter. Give {key}."))
        }
        Some("") => Err(format!("{word}: the interpreter is missing. Give a program, as in {key}:python3.13.")),
        _ => {
            let program = is_of_interpreter.then_some(argument.unwrap_or(DEFAULT_PROGRAM));
            Ok(Served { backend, key: key.to_owned(), program, wheel: None })
        }
    }
}

/// NumPy's cache before another allocator.
fn cached<'a>(behind: &'a str, whole: &str) -> Result<Served<'a>, String> {
    let inner = served(behind, whole)?;
    let (backend, _) = backend::find(CACHED_KEY).ok_or("There is no model of NumPy's cache. Please report this.")?;
    if inner.program.is_some() || inner.wheel.is_some() || inner.backend.key == CACHED_KEY {
        return Err(format!(
            "{whole}: {behind} cannot stand behind NumPy's cache. Give one such as {CACHED_KEY}:{SYSTEM}."
        ));
    }
    Ok(Served { backend, key: format!("{CACHED_KEY}:{}", inner.key), program: None, wheel: None })
}

/// `wheel:POOL`, and after another colon the Python or the folder of packages that the wheel is in.
fn pool_of_wheel<'a>(word: &'a str, argument: Option<&'a str>) -> Result<Served<'a>, String> {
    let (pool, place) = argument
        .map_or(("", DEFAULT_PROGRAM), |argument| argument.split_once(':').unwrap_or((argument, DEFAULT_PROGRAM)));
    let known = || WHEEL_POOLS.map(|pool| format!("{WHEEL_KEY}:{pool}")).join(", ");
    if !WHEEL_POOLS.contains(&pool) {
        return Err(format!("{word}: Arrow has no pool {pool:?}. Give one of: {}.", known()));
    }
    let (backend, _) = backend::find(WHEEL_KEY).ok_or("There are no pools of a wheel. Please report this.")?;
    Ok(Served { backend, key: format!("{WHEEL_KEY}:{pool}"), program: None, wheel: Some((word, place)) })
}

/// An allocator that may serve a domain; `whole` is the word or text that it stands in.
fn served<'a>(word: &'a str, whole: &str) -> Result<Served<'a>, String> {
    let by = offered(word, whole)?;
    if by.backend.role == Role::Floor {
        return Err(format!("{whole}: {word} belongs to the floor and serves no domain. Give one of: {}.", known()));
    }
    Ok(by)
}

/// Every name that can be given alone.
fn names() -> impl Iterator<Item = &'static str> {
    let backends = [Role::Contestant, Role::OptIn].into_iter().flat_map(with_role).map(|backend| backend.key);
    backends.chain(presets::DEPLOYED.iter().map(|(name, _)| *name))
}

fn known() -> String {
    let names = names().collect::<Vec<_>>().join(", ");
    format!("{names}, or words such as `numpy=jemalloc` and `MALLOC_ARENA_MAX=2`")
}
