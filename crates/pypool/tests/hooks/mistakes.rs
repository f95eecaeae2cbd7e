//! The same mistakes in real interpreters: what they call each, and that it is what our report names.
//!
//! **Invariant:** an interpreter and the hooks find the same mistakes, but for a write after free, which only a
//! quarantine finds.

use std::os::unix::process::ExitStatusExt;

use super::{interpreters, python};
use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas, Misuse};

/// What every mistake begins with.
const PREPARE: &str = "import ctypes
API = ctypes.pythonapi
for family in ('PyObject_', 'PyMem_'):
    malloc, free = getattr(API, family + 'Malloc'), getattr(API, family + 'Free')
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
keep, block = API.PyObject_Malloc(300), API.PyObject_Malloc(300)
";

/// A mistake: its code in Python, the same on a block of ours, and what CPython calls it.
struct Mistake {
    python: &'static str,
    ours: fn(*mut u8),
    freed_in: Domain,
    name: &'static str,
}

const MISTAKES: [Mistake; 4] = [
    Mistake {
        python: "ctypes.memset(block + 300, 0x78, 3); API.PyObject_Free(block)",
        // SAFETY: the hooks' own bytes after the block; in the others those before it.
        ours: |block| unsafe { block.add(300).write_bytes(0x78, 3) },
        freed_in: Domain::Obj,
        name: "bad trailing pad byte",
    },
    Mistake {
        python: "ctypes.memset(block - 2, 0x78, 1); API.PyObject_Free(block)",
        // SAFETY: as above.
        ours: |block| unsafe { block.sub(2).write(0x78) },
        freed_in: Domain::Obj,
        name: "bad leading pad byte",
    },
    Mistake {
        python: "ctypes.memset(block - 8, 0x78, 1); API.PyObject_Free(block)",
        // SAFETY: as above.
        ours: |block| unsafe { block.sub(8).write(0x78) },
        freed_in: Domain::Obj,
        name: "bad ID",
    },
    Mistake { python: "API.PyMem_Free(block)", ours: |_| {}, freed_in: Domain::Mem, name: "bad ID" },
];

/// The lines that list pad bytes and content, without addresses.
fn looks(report: &str) -> Vec<String> {
    let is_look = |line: &&str| line.contains(" pad bytes at ") || line.contains("    at ") || line.contains("Data at");
    let plain = |line: &str| match line.split_once("tail=0x") {
        Some((start, rest)) => format!("{start}tail={}", rest.trim_start_matches(|c: char| c.is_ascii_hexdigit())),
        None => line.to_owned(),
    };
    report.lines().filter(is_look).map(plain).collect()
}

#[test]
fn what_a_real_interpreter_catches_is_caught_and_listed_alike() {
    for mistake in MISTAKES {
        let mut hooks: Box<DebugHooks<Allocator>> = Box::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)));
        let block = hooks.allocate(Domain::Obj, 300);
        (mistake.ours)(block);
        // SAFETY: live; its pool goes with the hooks.
        let found: Misuse = unsafe { hooks.examine(mistake.freed_in, block) }.expect(mistake.name);
        let ours = found.to_string();
        assert!(ours.contains(&format!("CPython: {}.", mistake.name)), "{ours}");
        for (version, program) in interpreters() {
            let output = python(&program, "pymalloc_debug", &format!("{PREPARE}{}", mistake.python));
            let theirs = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "CPython {version} goes on: {theirs}");
            assert!(theirs.contains(mistake.name), "CPython {version} calls it otherwise: {theirs}");
            let theirs = looks(&theirs);
            // Where the size cannot be believed we say so, and CPython looks behind the block all the same.
            let ours = looks(&ours);
            assert!(!ours.is_empty() && theirs.starts_with(&ours), "CPython {version}: {theirs:#?}\nours: {ours:#?}");
        }
    }
}

#[test]
fn a_double_free_ends_a_real_interpreter_too() {
    for (version, program) in interpreters() {
        let code = format!("{PREPARE}API.PyObject_Free(block); API.PyObject_Free(block)");
        let output = python(&program, "pymalloc_debug", &code);
        let text = String::from_utf8_lossy(&output.stderr);
        // It may die while it looks behind the block, whose size is dead.
        assert!(output.status.signal().is_some(), "CPython {version} goes on: {text}");
        assert!(text.contains("Debug memory block at address"), "CPython {version}: {text}");
    }
}

#[test]
fn a_write_after_free_is_not_noticed_by_a_real_interpreter() {
    for (version, program) in interpreters() {
        let code =
            format!("{PREPARE}API.PyObject_Free(block); ctypes.memset(block + 9, 1, 1); API.PyObject_Malloc(300)");
        let output = python(&program, "pymalloc_debug", &code);
        assert!(
            output.status.success(),
            "CPython {version} has learnt to: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
