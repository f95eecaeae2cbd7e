//! NumPy's handler in a real NumPy, its requests in a recording, and the model of the cache that it goes without.
//!
//! The allocator of a screen never gives an address twice, so with it an address that comes again was in a cache.
//!
//! Invariant: where no NumPy can be had, this says `NOT RUN`, and fails where that is not allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;
#[path = "allocators/built.rs"]
mod built;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use binary::{bench, output};
use pyalloc_bench::backend::{self, Need};
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::c_void;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use trace::{Domain, Event, EventKind, Metadata, NumpyData};

/// A folder with the module, the library and what a test writes beside; and a Python that has NumPy.
struct Place {
    folder: TempDir,
    python: PathBuf,
}

impl Place {
    fn new() -> Option<Self> {
        let python = support::python_with_packages()?;
        let folder = tempfile::tempdir().unwrap();
        let (code, text, err) = output(bench().args(["numpy-handler", "-o"]).arg(folder.path()));
        assert_eq!(code, 0, "{err}");
        assert!(text.contains("libpyalloc_numpy.so") && text.contains("pyalloc_numpy.install()"), "{text}");
        Some(Self { folder, python })
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command.env_remove("PYALLOC_NUMPY").env("PYTHONPATH", self.folder.path()).env("OPENBLAS_NUM_THREADS", "1");
        command.envs(variables.iter().copied());
        command
    }

    /// What a program prints, all having gone well.
    fn run(&self, code: &str, variables: &[(&str, &str)]) -> String {
        let (status, text, err) = output(self.command(&self.python, variables).args(["-B", "-c", code]));
        assert_eq!(status, 0, "{err}");
        text
    }

    /// Metadata and events of a recording of a program.
    fn record(&self, code: &str, variables: &[(&str, &str)]) -> (PathBuf, Metadata, Vec<Event>) {
        let trace = self.folder.path().join("recorded.trace");
        let mut command = self.command(env!("CARGO_BIN_EXE_pyalloc-bench"), variables);
        let (status, _, err) =
            output(command.args(["record", "-o"]).arg(&trace).arg("--").arg(&self.python).args(["-c", code]));
        assert_eq!(status, 0, "{err}");
        let (metadata, events) = support::read(&trace);
        (trace, metadata, events)
    }
}

fn tiny() -> &'static str {
    static LIBRARY: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    LIBRARY.get_or_init(|| built::tiny("libtiny.so", &[])).to_str().unwrap()
}

/// The allocator of a screen notes the size before each block; no other's header says the plain number.
const ARRAYS: &str = "\
import ctypes, json, os, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, pyalloc_numpy
def is_tiny(array):
    return ctypes.c_size_t.from_address(array.__array_interface__['data'][0] - 8).value == max(array.nbytes, 1)
old = np.empty(1000, np.uint8)
said = {'installed': pyalloc_numpy.install(), 'in force': pyalloc_numpy.handler()}
small, zeros, large = np.empty(1000, np.uint8), np.zeros(1001, np.uint8), np.empty(9000000, np.uint8)
large[:] = 7
resized = np.empty(100, np.uint8)
resized.resize(5000, refcheck=False)
said['of it'] = [is_tiny(array) for array in (small, zeros, large, resized, small[:500].copy())]
said['zeros'] = int(zeros.sum())
said['before'] = [is_tiny(old), pyalloc_numpy.handler(old)]
pyalloc_numpy.uninstall()
after = np.empty(1000, np.uint8)
said['after'] = [is_tiny(after), pyalloc_numpy.handler(after), pyalloc_numpy.handler(small)]
del small, old, after
said['again'] = pyalloc_numpy.install('system')
said['system'] = is_tiny(np.empty(1000, np.uint8))
said['view'] = pyalloc_numpy.handler(zeros) == pyalloc_numpy.handler(large) and int(large[-1])
def in_thread(**how):
    with ThreadPoolExecutor(1, **how) as pool:
        return pool.submit(lambda: pyalloc_numpy.handler(np.empty(3))).result()
said['threads'] = [in_thread(), in_thread(initializer=pyalloc_numpy.install)]
print(json.dumps(said))
";

#[test]
fn arrays_come_from_the_library_that_was_named_and_go_back_to_it() {
    let Some(place) = Place::new() else { return };
    let said: Value = serde_json::from_str(&place.run(ARRAYS, &[("PYALLOC_NUMPY", tiny())])).unwrap();
    let expected = serde_json::json!({
        "installed": "pyalloc:libtiny.so", "in force": "pyalloc:libtiny.so", "of it": [true, true, true, true, true],
        "zeros": 0, "before": [false, "default_allocator"],
        "after": [false, "default_allocator", "pyalloc:libtiny.so"],
        "again": "pyalloc:system", "system": false, "view": 7, "threads": ["default_allocator", "pyalloc:libtiny.so"],
    });
    assert_eq!(said, expected);
    let unset = "import numpy, pyalloc_numpy; print(pyalloc_numpy.install(), pyalloc_numpy.handler())";
    assert_eq!(place.run(unset, &[]).trim(), "None default_allocator");
}

#[test]
fn what_cannot_serve_is_a_sentence_that_says_what_to_do() {
    let Some(place) = Place::new() else { return };
    let install = "import pyalloc_numpy; pyalloc_numpy.install()";
    let old = place.folder.path().join("old");
    fs::create_dir_all(old.join("numpy")).unwrap();
    fs::write(old.join("numpy/__init__.py"), "__version__ = '1.21.6'\n").unwrap();
    let old = format!("{}:{}", old.display(), place.folder.path().display());
    let alone = tempfile::tempdir().unwrap();
    fs::copy(place.folder.path().join("pyalloc_numpy.py"), alone.path().join("pyalloc_numpy.py")).unwrap();
    let partial = built::tiny("libpartial.so", &["-DPARTIAL"]);
    let text = place.folder.path().join("pyalloc_numpy.py");
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("PYALLOC_NUMPY", "sytem")], "there is no 'sytem'. Give \"system\", or the path of a library."),
        (&[("PYALLOC_NUMPY", "/nonexistent/lib.so")], "there is no such file. Correct the path."),
        (&[("PYALLOC_NUMPY", "libnone.so.9")], "cannot open shared object file"),
        (&[("PYALLOC_NUMPY", "libm.so.6")], "is no allocator: it lacks one of malloc, calloc"),
        (&[("PYALLOC_NUMPY", partial.to_str().unwrap())], "is no allocator: it lacks one of malloc, calloc"),
        (&[("PYALLOC_NUMPY", text.to_str().unwrap())], "Give a shared library"),
        (&[("PYALLOC_NUMPY", "system"), ("PYTHONPATH", &old)], "NumPy 1.21.6 has no handlers; they came with 1.22"),
        (&[("PYALLOC_NUMPY", "system"), ("PYTHONPATH", alone.path().to_str().unwrap())], "write both files again"),
    ];
    for (variables, expected) in cases {
        let (status, _, err) = output(place.command(&place.python, variables).args(["-B", "-c", install]));
        let last = err.lines().last().unwrap_or_default();
        assert!(status == 1 && last.starts_with("pyalloc_numpy.HandlerError: PYALLOC_NUMPY="), "{variables:?}: {err}");
        assert!(last.contains(expected) && last.ends_with('.'), "{variables:?}: {last}");
    }
    for arguments in [&["numpy-handler"][..], &["numpy-handler", "-o", "/proc/nowhere"]] {
        let (code, _, err) = output(bench().args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {err}");
    }
}

/// Requests in an order that a seed decides; each with the address that NumPy gave it. What earlier work left in the
/// cache for these sizes is taken out first.
const REQUESTS: &str = "\
import json, random
import numpy as np
random.seed(11)
SIZES = [0, 1, 2, 7, 8, 64, 65, 500, 1022, 1023, 1024, 1025, 5000]
held = [np.empty(size, np.uint8) for size in SIZES for _ in range(20)]
live, said = {}, []
for step in range(8000):
    roll, size = random.random(), random.choice(SIZES)
    if live and roll < 0.46:
        index = random.choice(list(live))
        del live[index]
        said.append(['free', index])
    elif live and roll < 0.52 and size:
        index = random.choice(list(live))
        live[index].resize(size, refcheck=False)
        said.append(['resize', index, size, live[index].__array_interface__['data'][0]])
    else:
        kind = random.choice(['empty', 'zeros'])
        live[step] = getattr(np, kind)(size, np.uint8)
        said.append([kind, step, size, live[step].__array_interface__['data'][0]])
print(json.dumps(said))
";

/// Addresses by the order in which they came first.
#[derive(Default)]
struct Order(HashMap<u64, usize>);

impl Order {
    fn of(&mut self, address: u64) -> usize {
        let next = self.0.len();
        *self.0.entry(address).or_insert(next)
    }
}

/// NumPy asks for one byte where none is wanted.
fn asked(bytes: usize) -> usize {
    bytes.max(1)
}

#[test]
fn the_model_of_the_cache_hits_where_a_real_numpy_does() {
    let Some(place) = Place::new() else { return };
    let steps: Vec<Value> = serde_json::from_str(&place.run(REQUESTS, &[("LD_PRELOAD", tiny())])).unwrap();
    let (cached, _) = backend::find("cached").unwrap();
    let need = Need { argument: format!("library:{}", tiny()), ..Need::default() };
    let entry = (cached.prepare)(&need).unwrap().entry;
    let sized = entry.sized.unwrap();
    let (mut real, mut modelled, mut live) =
        (Order::default(), Order::default(), HashMap::<u64, (*mut c_void, usize)>::new());
    let mut hits = 0;
    for (at, step) in steps.iter().enumerate() {
        let number = |place: usize| step[place].as_u64().unwrap();
        let (kind, index) = (step[0].as_str().unwrap(), number(1));
        if kind == "free" {
            let (block, bytes) = live.remove(&index).unwrap();
            // SAFETY: a live block of that size.
            unsafe { (sized.free)(block, asked(bytes)) };
            continue;
        }
        let wanted = number(2) as usize;
        // SAFETY: no precondition; the block that is resized is live and of that size.
        let block = unsafe {
            match (kind, live.get(&index)) {
                ("resize", Some((block, old))) if *old == wanted => *block,
                ("resize", Some((block, old))) => (sized.realloc)(*block, asked(*old), asked(wanted)),
                ("zeros", _) => (entry.calloc)(1, asked(wanted)),
                _ => (entry.malloc)(asked(wanted)),
            }
        };
        let known = real.0.len();
        let (place, own) = (real.of(number(3)), modelled.of(block as u64));
        assert_eq!(place, own, "request {at} of {}: {step}", steps.len());
        hits += usize::from(kind != "resize" && real.0.len() == known);
        live.insert(index, (block, wanted));
    }
    assert!(hits > 1000 && real.0.len() > 1000, "{hits} hits, {} addresses", real.0.len());
}

/// Many small arrays, one after the other, and a large one.
const CHURN: &str = "\
import numpy as np, pyalloc_numpy
pyalloc_numpy.install()
for _ in range(30000):
    np.empty(1000, np.uint8)
large = np.empty(9000001, np.uint8)
large[:] = 1
";

#[test]
fn a_recording_on_the_handler_has_what_the_cache_would_have_served() {
    let _one = support::one_at_a_time();
    let Some(place) = Place::new() else { return };
    let count = |events: &[Event], bytes: u64| {
        let of_numpy = |event: &Event| match event.kind {
            EventKind::Alloc { size, domain: Domain::Numpy, .. } => Some(size),
            _ => None,
        };
        events.iter().filter(|event| of_numpy(event) == Some(bytes)).count()
    };
    let advised = |events: &[Event]| events.iter().filter(|e| matches!(e.kind, EventKind::Advise { .. })).count();
    let (_, metadata, events) = place.record(CHURN, &[]);
    assert_eq!(metadata.numpy_data, Some(NumpyData::Cached));
    assert!(count(&events, 1000) < 20 && count(&events, 9_000_001) == 1, "{}", count(&events, 1000));
    let advised_by_numpy = advised(&events);
    assert!(advised_by_numpy > 0);

    let (_, metadata, events) = place.record(CHURN, &[("PYALLOC_NUMPY", tiny())]);
    assert_eq!(metadata.numpy_data, Some(NumpyData::Invisible));
    assert!(metadata.notes.iter().any(|note| note.contains("NumPy's handler")), "{:?}", metadata.notes);
    assert_eq!((count(&events, 1000), count(&events, 9_000_001)), (0, 0));

    let (trace, metadata, events) = place.record(CHURN, &[("PYALLOC_NUMPY", "system")]);
    assert_eq!(metadata.numpy_data, Some(NumpyData::Handler));
    assert_eq!((count(&events, 1000), count(&events, 9_000_001)), (30_000, 1));
    assert_eq!(advised(&events), advised_by_numpy, "the handler advises where NumPy does");
    let (code, text, err) = output(bench().arg("inspect").arg(&trace));
    assert!(code == 0 && text.contains("none of which met NumPy's cache"), "{text}{err}");
    replayed(&trace);
}

#[test]
fn a_real_run_and_a_doctor_tell_whether_the_handler_is_there() {
    let _one = support::one_at_a_time();
    let Some(place) = Place::new() else { return };
    let (trace, ..) = place.record(CHURN, &[("PYALLOC_NUMPY", "system")]);
    let word = format!("PYALLOC_NUMPY={}", tiny());
    let live = |code: &str| {
        let mut command = place.command(env!("CARGO_BIN_EXE_pyalloc-bench"), &[]);
        command.arg("live").arg(&trace).args(["-c", "today", "-c", &word, "--runs", "1", "--predictions", "1"]);
        command.args(["--timings", "0", "--idle", "0", "-q", "--json", "--allow-debug-build", "--"]);
        let (_, text, err) = output(command.arg(&place.python).args(["-c", code]));
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{error}: {err}"))["found"]["configs"].take()
    };
    let found = live(CHURN);
    assert!(found.as_array().unwrap().iter().all(|config| config["failures"] == serde_json::json!([])), "{found}");
    // Nothing is reused under that word, in life as in the replay.
    let bytes = |config: usize, key: &str| found[config][key][0]["peak_bytes"].as_u64().unwrap();
    for key in ["real", "replayed"] {
        assert!(bytes(1, key) > bytes(0, key) + (28 << 20), "{key}: {found}");
    }
    let found = live("import numpy; print(numpy.empty(9))");
    let failure = found[1]["failures"][0].as_str().unwrap();
    assert!(failure.contains("did not install NumPy's handler"), "{failure}");
    assert_eq!(found[0]["failures"], serde_json::json!([]), "who does not name the handler needs none");

    let doctor = |more: &[&str], path: &Path| {
        let mut command = place.command(env!("CARGO_BIN_EXE_pyalloc-bench"), &[("PYTHONPATH", path.to_str().unwrap())]);
        output(command.args(["doctor", "--python"]).arg(&place.python).arg("--").args(more))
    };
    let (code, text, err) = doctor(&[&word], place.folder.path());
    assert!(code == 0 && text.contains("its handler is pyalloc:libtiny.so"), "{text}{err}");
    let (code, text, _) = doctor(&[&word], Path::new("/nonexistent"));
    assert!(code == 1 && text.contains("No module named 'pyalloc_numpy'"), "{text}");
    let (code, text, _) = doctor(&["PYALLOC_NUMPY=/nonexistent/lib.so"], place.folder.path());
    assert!(code == 1 && text.contains("no such file"), "{text}");
}

/// From that one recording: NumPy's own handler with its cache, and handlers without.
fn replayed(trace: &Path) {
    let on = |config: &str| {
        let more =
            ["--timings", "0", "--predictions", "1", "--idle", "0", "--paced=0", "-q", "--json", "--allow-debug-build"];
        let (code, text, err) = output(bench().arg("live").arg(trace).args(["-c", config]).args(more));
        assert_eq!(code, 0, "{config}: {err}");
        let all: Value = serde_json::from_str(&text).unwrap();
        let config = all["found"]["configs"][0].clone();
        let expansion: Vec<String> = serde_json::from_value(config["expansion"].clone()).unwrap();
        let numpy = expansion.into_iter().find(|word| word.starts_with("numpy=")).unwrap();
        (numpy, config["replayed"][0]["peak_bytes_all"].as_u64().unwrap())
    };
    let (handler, preload) = (format!("PYALLOC_NUMPY={}", tiny()), format!("LD_PRELOAD={}", tiny()));
    assert_eq!(on("today").0, "numpy=cached:system");
    assert_eq!(on("PYALLOC_NUMPY=system").0, "numpy=system");
    assert_eq!(on("numpy=cached:mimalloc").0, "numpy=cached:mimalloc");
    // The allocator of a screen reuses nothing: without the cache each of 30,000 arrays is resident to the end.
    let (word, without) = on(&handler);
    assert_eq!(word, "numpy=library:libtiny.so");
    let (word, with) = on(&preload);
    assert_eq!(word, "numpy=cached:system");
    let (_, handler_on_preload) = on(&format!("{preload} PYALLOC_NUMPY=system"));
    assert!(handler_on_preload > with + (28 << 20), "{handler_on_preload} against {with} bytes");
    assert!(without > 30 << 20, "{without} bytes");
}
