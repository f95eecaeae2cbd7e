//! Programs that steer their allocator: what they call is recorded however they reach it, and a replay that makes the
//! same calls ends where the program does.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "allocators/built.rs"]
mod built;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use pyalloc_bench::run::Fidelity;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use trace::{Directive, DirectiveCall, Domain, EventKind};

const MIB: u64 = 1 << 20;
/// What a figure may be off: 3 %, or half a MiB.
const ALLOWED_BYTES: u64 = MIB / 2;

/// Blocks below one survivor, which the program trims itself.
const TRIMS: &str = "libc = ctypes.CDLL('libc.so.6')\n\
                     mark(b'steady')\n\
                     a = ['x' * 50_000 for _ in range(1200)]; keep = a[-1]; del a\n\
                     libc.malloc_trim(0)\n\
                     mark(b'drained')\n";
/// Blocks that a lower threshold turns into maps, which their frees give back.
const SETS: &str = "ctypes.CDLL('libc.so.6').mallopt(-3, 65536)\n\
                    mark(b'steady')\n\
                    a = ['x' * 100_000 for _ in range(600)]; keep = a[-1]; del a\n\
                    mark(b'drained')\n";
/// Blocks from the C library's own handle.
const LOOKS_UP: &str = "c = ctypes.CDLL('libc.so.6')\n\
                        c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]\n\
                        c.free.argtypes = [ctypes.c_void_p]\n\
                        mark(b'steady')\n\
                        p = [c.malloc(5_000) for _ in range(8_000)]\n\
                        for q in p: ctypes.memset(q, 1, 5_000)\n\
                        for q in p[:-1]: c.free(q)\n\
                        mark(b'drained')\n";

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pyalloc-bench")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes a program with marks; its file.
fn program(folder: &Path, name: &str, code: &str) -> PathBuf {
    let path = folder.join(format!("{name}.py"));
    let marks = "import ctypes\nmark = getattr(ctypes.CDLL(None), 'pyalloc_mark', lambda name: None)\n";
    fs::write(&path, format!("{marks}{code}")).unwrap();
    path
}

/// Records a program, and compares its replay with real runs; its trace and what was found.
fn live(folder: &Path, python: &Path, program: &Path) -> (PathBuf, Fidelity) {
    let trace = program.with_extension("trace");
    let [python, program, to] = [python, program, &trace].map(|path| path.to_str().unwrap());
    let done = bench(&["record", "-o", to, "--", python, program]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let how = ["-c", "today", "-c", "PYTHONMALLOC=malloc", "--runs", "2", "--timings", "1", "--idle", "0", "-q"];
    bench(&[&["live", to], &how[..], &["--allow-debug-build", "--", python, program]].concat());
    let kept = fs::read(Fidelity::path_beside(&trace)).unwrap();
    assert!(trace.starts_with(folder));
    (trace, serde_json::from_slice(&kept).unwrap())
}

/// The end of each configuration, really and replayed, bytes.
fn ends(found: &Fidelity) -> Vec<(u64, u64)> {
    let end = |config: &pyalloc_bench::run::FidelityConfig| {
        assert_eq!(config.failures, Vec::<String>::new());
        (config.real[0].end_bytes.unwrap(), config.replayed[0].end_bytes)
    };
    found.configs.iter().map(end).collect()
}

/// The calls in a trace.
fn calls(trace: &Path) -> Vec<(Directive, i16, i32)> {
    let of = |kind| match kind {
        EventKind::Direct(DirectiveCall { directive, key, value }) => Some((directive, key, value)),
        _ => None,
    };
    support::read(trace).1.into_iter().filter_map(|event| of(event.kind)).collect()
}

#[test]
fn a_replay_ends_where_a_program_does_that_steers_its_allocator() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, code, called, within) in [
        ("trims", TRIMS, vec![(Directive::MallocTrim, 0, 0)], 0..12 * MIB),
        ("sets", SETS, vec![(Directive::Mallopt, -3, 65_536)], 0..12 * MIB),
        ("looks-up", LOOKS_UP, vec![], 38 * MIB..60 * MIB),
    ] {
        let program = program(folder.path(), name, code);
        let (trace, found) = live(folder.path(), &python.path, &program);
        assert_eq!(calls(&trace), called, "{name}");
        for (real, replayed) in ends(&found) {
            let allowed = ALLOWED_BYTES.max(real * 3 / 100);
            assert!(within.contains(&real), "{name}: the program itself ends at {real} bytes");
            assert!(real.abs_diff(replayed) <= allowed, "{name}: {real} bytes really, {replayed} replayed");
        }
    }
    is_said_where_it_is_not_replayed(&folder.path().join("trims.trace"));
}

fn is_said_where_it_is_not_replayed(trace: &Path) {
    let trace = trace.to_str().unwrap();
    let note = "the program calls malloc_trim 1 time: not replayed under jemalloc, which has no such function";
    let one_line = |output: &Output| text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    let how = ["--idle", "0", "-q", "--allow-debug-build", "-c", "today", "-c", "jemalloc"];
    let done = bench(&[&["live", trace, "--timings", "1"], &how[..]].concat());
    assert!(one_line(&done).contains(note), "{}", text(&done.stdout));
    let out = Path::new(trace).with_extension("out");
    let done = bench(&[&["replay", trace, "--quick", "-o", out.to_str().unwrap()], &how[..]].concat());
    assert!(one_line(&done).contains(note), "{}", text(&done.stdout));
    assert!(!one_line(&done).contains("under today"), "glibc has the function");
    let inspected = text(&bench(&["inspect", trace]).stdout);
    let row = inspected.lines().find(|line| line.contains("calls of malloc_trim")).unwrap();
    assert!(row.ends_with(" 1"), "{row}");
}

/// By every way in which a Python program reaches such functions; its results and errors stay what they are.
#[test]
fn calls_are_recorded_however_the_program_reaches_them() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/allocators/steered.c");
    let library = built::compile(&source, "libsteered.so", &["-ldl"]);
    let code = format!(
        "everything, libc = ctypes.CDLL(None), ctypes.CDLL('libc.so.6')\n\
         own = ctypes.CDLL({library:?}, ctypes.RTLD_GLOBAL)\n\
         assert everything.mallopt(-1, 262144) == 1 and libc.mallopt(-8, 2) == 1 and libc.mallopt(100, 1) in (0, 1)\n\
         everything.malloc_trim.argtypes = [ctypes.c_size_t]\n\
         assert everything.malloc_trim(1 << 40) in (0, 1)\n\
         last = (ctypes.c_long * 2).in_dll(own, 'last')\n\
         own.mi_collect(ctypes.c_bool(True)); assert last[0] == 1\n\
         own.mi_option_set(15, ctypes.c_long(500)); assert list(last) == [15, 500]\n\
         old, new, size = ctypes.c_ssize_t(), ctypes.c_ssize_t(-1), ctypes.c_size_t(8)\n\
         assert own.mallctl(b'arena.4096.purge', None, None, None, ctypes.c_size_t(0)) == 0\n\
         name = b'arenas.dirty_decay_ms'\n\
         assert own.mallctl(name, ctypes.byref(old), ctypes.byref(size), None, ctypes.c_size_t(0)) == 0\n\
         assert old.value == 10000\n\
         assert own.mallctl(name, None, None, ctypes.byref(new), ctypes.c_size_t(8)) == 0\n\
         assert own.mallctl(b'arena.1.decay', None, None, None, ctypes.c_size_t(0)) == 2\n\
         assert own.is_last(), 'RTLD_NEXT starts at the library that calls dlsym'\n\
         for library, name in ((libc, 'mi_collect'), (everything, 'je_mallctl'), (libc, 'mallox')):\n\
         \x20   try: getattr(library, name); assert False, name\n\
         \x20   except AttributeError as error: assert 'undefined symbol: ' + name in str(error), error\n\
         posix = ctypes.CDLL('libc.so.6').posix_memalign\n\
         block = ctypes.c_void_p()\n\
         assert posix(ctypes.byref(block), ctypes.c_size_t(4096), ctypes.c_size_t(7777)) == 0\n"
    );
    let program = program(folder.path(), "steers", &code);
    let options = support::options(folder.path(), &python.path, &[program.to_str().unwrap()]);
    assert_eq!(support::record(&options).exit_code, 0);
    assert_eq!(
        calls(&options.output),
        [
            (Directive::Mallopt, -1, 262_144),
            (Directive::Mallopt, -8, 2),
            (Directive::Mallopt, 100, 1),
            (Directive::MallocTrim, 0, i32::MAX),
            (Directive::MiCollect, 0, 1),
            (Directive::MiOptionSet, 15, 500),
            (Directive::ArenaPurge, 4096, 0),
            (Directive::DirtyDecayMs, -1, -1),
        ]
    );
    let (metadata, events) = support::read(&options.output);
    assert_eq!((metadata.unknown_frees, metadata.lost_events), (0, 0));
    let is_ours = |kind| matches!(kind, EventKind::Alloc { domain: Domain::Libc, size: 7777, align_log2: 12, .. });
    assert_eq!(events.iter().filter(|event| is_ours(event.kind)).count(), 1);
}

#[test]
fn arrow_s_release_is_one_call_whichever_pool_makes_it() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    for pool in ["default", "system"] {
        let code = format!("import pyarrow as pa; pa.{pool}_memory_pool().release_unused()");
        let options = support::options(folder.path(), &python, &["-c", &code]);
        assert_eq!(support::record(&options).exit_code, 0);
        assert_eq!(calls(&options.output), [(Directive::ReleaseUnused, 0, 0)], "{pool}");
    }
}
