//! Five mistakes of programs, each in a process of its own that the hooks end with a message of its own.
//!
//! **Invariant:** the mistakes are made through the public interface, and the process has to die of `SIGABRT`.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::pool_hooks;
use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas};

/// Tells the child which mistake to make.
const VARIABLE: &str = "PYPOOL_MISTAKE";
/// This module's test that makes it.
const CULPRIT: &str = "debug::violations::culprit";

/// What a process says that makes a mistake.
fn last_words(mistake: &str) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([CULPRIT, "--exact", "--ignored", "--nocapture"]).env(VARIABLE, mistake);
    let output = child.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{mistake} goes on: {:?}\n{text}", output.status);
    text
}

/// Makes the mistake that the variable names; the hooks must not let it return.
#[test]
#[ignore = "started by the other tests of this module"]
fn culprit() {
    let mistake = std::env::var(VARIABLE).expect("started by the other tests of this module");
    let mut hooks = pool_hooks();
    let block = hooks.allocate(Domain::Obj, 24);
    // SAFETY: none of this is sound, which is the point; every address lies in the pool's arena.
    unsafe {
        match mistake.as_str() {
            "overflow" => block.add(24).write_bytes(b'x', 3),
            "underflow" => block.sub(2).write_bytes(b'x', 2),
            "header" => block.sub(9).write_bytes(b'x', 9),
            "double free" => {
                let _ = hooks.allocate(Domain::Obj, 24); // keeps the pool
                hooks.free(Domain::Obj, block);
            }
            "wrong domain" => hooks.free(Domain::Mem, block),
            "resize" => {
                block.add(24).write(0);
                let _ = hooks.reallocate(Domain::Obj, block, 20);
            }
            other => return watched(other),
        }
        hooks.free(Domain::Obj, block);
    }
}

/// Mistakes that only a quarantine shows, or shows in full.
fn watched(mistake: &str) {
    let pool = Allocator::new(LibcRaw, MappedArenas);
    let mut hooks: Box<DebugHooks<_, 16>> = Box::new(DebugHooks::new(pool));
    let block = hooks.allocate(Domain::Mem, 40);
    // SAFETY: as in `culprit`.
    unsafe {
        hooks.free(Domain::Mem, block);
        match mistake {
            "write after free" => block.add(9).write(1),
            "double free, watched" => hooks.free(Domain::Mem, block),
            other => panic!("no mistake is called {other}"),
        }
    }
    // Nobody looks before the block leaves the quarantine.
    for _ in 0..17 {
        let other = hooks.allocate(Domain::Mem, 40);
        // SAFETY: live.
        unsafe { hooks.free(Domain::Mem, other) };
    }
}

/// The text with every address as `@`.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
        // Bytes have two digits, addresses more.
        if digits <= 2 {
            shown.push_str("0x");
            shown.push_str(part);
        } else {
            shown.push('@');
            shown.push_str(&part[digits..]);
        }
    }
    shown
}

fn assert_says(mistake: &str, wanted: &[&str]) {
    let text = without_addresses(&last_words(mistake));
    for line in wanted {
        assert!(text.contains(line), "{mistake} does not say {line:?}:\n{text}");
    }
}

#[test]
fn an_overflow_is_caught() {
    assert_says(
        "overflow",
        &[
            "pypool debug hooks: buffer overflow: 3 of the 8 bytes after block @ (24 bytes, domain 'o') ",
            "(24 bytes, domain 'o') were overwritten.\n",
            "Debug memory block at address p=@: API 'o'\n    24 bytes originally requested\n",
            "    The 7 pad bytes at p-7 are FORBIDDENBYTE, as expected.\n",
            "    The 8 pad bytes at tail=@ are not all FORBIDDENBYTE (0xfd):\n        at tail+0: 0x78 *** OUCH\n",
            "        at tail+2: 0x78 *** OUCH\n        at tail+3: 0xfd\n",
            "    Data at p: cd cd cd cd cd cd cd cd ... cd cd cd cd cd cd cd cd\n",
            "CPython: bad trailing pad byte.",
        ],
    );
    assert_says(
        "resize",
        &["buffer overflow: 1 of the 8 bytes after block @ (24 bytes, domain 'o') was overwritten.\n"],
    );
}

#[test]
fn an_underflow_is_caught() {
    assert_says(
        "underflow",
        &[
            "buffer underflow: 2 of the 7 bytes before block @ (size unknown, domain 'o') were overwritten.\n",
            "    The 7 pad bytes at p-7 are not all FORBIDDENBYTE (0xfd):\n        at p-7: 0xfd\n",
            "        at p-2: 0x78 *** OUCH\n        at p-1: 0x78 *** OUCH\n",
            "CPython: bad leading pad byte.",
        ],
    );
    assert_says(
        "header",
        &["the header before block @ (size unknown, domain 'o') was overwritten, or this is no block: "],
    );
}

#[test]
fn a_double_free_is_caught() {
    assert_says(
        "double free",
        &["double free: block @ (size unknown, domain 'o') is free already", "CPython: bad ID."],
    );
    assert_says("double free, watched", &["double free: block @ (40 bytes, domain 'm') is free already"]);
}

#[test]
fn a_write_after_free_is_caught_by_the_quarantine() {
    assert_says(
        "write after free",
        &[
            "write after free: 1 byte of freed block @ (40 bytes, domain 'm') was overwritten, the first at p+9.\n",
            "    The 7 pad bytes at p-7 are DEADBYTE, as expected.\n",
            "    Data at p: dd dd dd dd dd dd dd dd ... dd dd dd dd dd dd dd dd\n",
        ],
    );
}

#[test]
fn a_free_in_the_wrong_domain_is_caught() {
    assert_says(
        "wrong domain",
        &[
            "wrong domain: block @ (24 bytes) was allocated in domain 'o' and is freed or resized in domain 'm'.\n",
            "CPython: bad ID.",
        ],
    );
}
