//! Configurations as they are written, and what they come to.
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
    let config = words::parse("PYTHONMALLOC=mimalloc", &Named::default(), "/opt/bin/python3.13", &invented).unwrap();
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
