//! The debug hooks against those of real interpreters: the same calls, and every byte around every block compared; the
//! same mistakes, and what each says of them.
//!
//! **Invariant:** what is expected comes from an interpreter of this machine. Without one the tests fail.
#![allow(clippy::unwrap_used, reason = "tests")]

mod mistakes;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas, RawAllocator};

/// What an interpreter says of itself: its version, if its allocators are those of a build with the GIL and it can be
/// looked into.
const QUESTION: &str = "import ctypes, sys, sysconfig
fit = sys.implementation.name == 'cpython' and not sysconfig.get_config_var('Py_GIL_DISABLED')
print('%d.%d' % sys.version_info[:2] if fit and sys.version_info >= (3, 10) else '')";
const SIZES: [usize; 12] = [0, 1, 7, 16, 100, 128, 129, 200, 300, 488, 489, 1000];
/// Most bytes that come from a pool with the hooks' own.
const POOL_BYTES_MAX: usize = 512;

/// An interpreter of each version of CPython from 3.10 on, whether its library is shared or not. None after saying
/// `NOT RUN`, which fails where that is not allowed.
fn interpreters() -> Vec<(String, PathBuf)> {
    let (mut found, mut versions): (Vec<(String, PathBuf)>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    for program in libpython::candidates() {
        let Ok(output) = Command::new(&program).args(["-I", "-c", QUESTION]).output() else { continue };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() && !version.is_empty() && versions.insert(version.clone()) {
            found.push((version, program));
        }
    }
    if found.is_empty() {
        let why = "no CPython 3.10 or later with ctypes is on PATH";
        let may_not_run = std::env::var_os("PYALLOC_BENCH_REQUIRE_PYTHON").is_none_or(|value| value != "1");
        assert!(may_not_run, "NOT RUN: {why}");
        println!("NOT RUN: {why}");
    }
    found
}

/// Has an interpreter run code with debug hooks.
fn python(program: &Path, hooks: &str, code: &str) -> std::process::Output {
    let mut command = Command::new(program);
    command.args(["-S", "-c", code]).env("PYTHONMALLOC", hooks).env_remove("PYTHONHOME").output().unwrap()
}

fn hex(block: *mut u8, bytes: usize) -> String {
    // SAFETY: all callers pass bytes of a live block of the allocator below, or of a free one whose pool stays.
    let bytes = unsafe { std::slice::from_raw_parts(block, bytes) };
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The calls of `calls.py` on hooks of ours, and the same lines.
fn our_lines<A: RawAllocator>(hooks: &mut DebugHooks<A>, domain: Domain, has_pools: bool) -> Vec<String> {
    let letter = char::from(domain.letter());
    let mut lines = Vec::new();
    for size in SIZES {
        let for_pool = has_pools && size + 24 <= POOL_BYTES_MAX;
        let mut say = |what: &str, text: String| lines.push(format!("{letter} {size} {what} {text}"));
        let pattern: Vec<u8> = (0..size).map(|at| (at % 250) as u8).collect();
        // SAFETY: every block is live where it is used; what is read of a free one is in a pool with a live block, or
        // in a chunk of the C library's that nothing has asked for since.
        unsafe {
            let neighbour = hooks.allocate(domain, size);
            let mut block = hooks.allocate(domain, size);
            say("new", hex(block.sub(16), size + 24));
            let zeroed = hooks.allocate_zeroed(domain, size, 1);
            say("zeroed", hex(zeroed.sub(16), size + 24));
            hooks.free(domain, zeroed);
            for other in [size / 3, size + 70, size * 2 + 10] {
                block.copy_from_nonoverlapping(pattern.as_ptr(), size);
                let (old, moved) = (block, hooks.reallocate(domain, block, other));
                say(&format!("to {other}"), hex(moved.sub(16), other + 24));
                if for_pool && moved != old && size >= 200 {
                    say(&format!("left by {other}"), hex(old, size));
                }
                hooks.free(domain, moved);
                block = hooks.allocate(domain, size);
            }
            hooks.free(domain, block);
            let links = if for_pool { 8 } else { 16 };
            if (200..1000).contains(&size) {
                say("freed", hex(block.sub(16).add(links), size + 24 - links));
            }
            hooks.free(domain, neighbour);
        }
    }
    lines
}

#[test]
fn every_byte_is_that_of_a_real_interpreter() {
    let mut pool: Box<DebugHooks<Allocator>> = Box::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)));
    let mut raw = DebugHooks::<LibcRaw>::new(LibcRaw);
    let mut with_pools = our_lines(&mut raw, Domain::Raw, false);
    let mut without = with_pools.clone();
    for domain in [Domain::Mem, Domain::Obj] {
        with_pools.extend(our_lines(&mut pool, domain, true));
        without.extend(our_lines(&mut raw, domain, false));
    }
    let all = interpreters();
    for (version, program) in &all {
        for (hooks, ours) in [("pymalloc_debug", &with_pools), ("debug", &with_pools), ("malloc_debug", &without)] {
            let output = python(program, hooks, include_str!("calls.py"));
            assert!(output.status.success(), "{version} {hooks}: {}", String::from_utf8_lossy(&output.stderr));
            let theirs = String::from_utf8(output.stdout).unwrap();
            let theirs: Vec<&str> = theirs.lines().collect();
            // The script goes by sizes alone when it says what a pool serves.
            let is_of_pools = |line: &str| line.contains(" left by ");
            let comparable = |line: &&str| hooks != "malloc_debug" || !(is_of_pools(line) || is_small_freed(line));
            let theirs: Vec<&str> = theirs.into_iter().filter(comparable).collect();
            let ours: Vec<&str> = ours.iter().map(String::as_str).filter(comparable).collect();
            assert_eq!(theirs.len(), ours.len(), "CPython {version}, {hooks}");
            for (theirs, ours) in theirs.iter().zip(&ours) {
                assert_eq!(theirs, ours, "CPython {version}, {hooks}");
            }
            println!("CPython {version}, PYTHONMALLOC={hooks}: {} looks at memory are alike", ours.len());
        }
    }
}

/// Whether a line is about a freed block of mem or obj that a pool would have served.
fn is_small_freed(line: &str) -> bool {
    let mut words = line.split(' ');
    let (letter, size) = (words.next().unwrap_or_default(), words.next().and_then(|size| size.parse::<usize>().ok()));
    letter != "r" && line.contains(" freed ") && size.is_some_and(|size| size + 24 <= POOL_BYTES_MAX)
}
