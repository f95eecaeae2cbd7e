//! The C library's own allocator, under its name and under a second one for A/A comparisons.
//!
//! Invariant: both names are the very same functions.

use super::{Backend, Ready, Role};
use crate::heap::Entry;
use std::collections::BTreeMap;
use std::ffi::CStr;

/// The entry points of the C library.
pub(super) const ENTRY: Entry = Entry {
    malloc: libc::malloc,
    calloc: libc::calloc,
    realloc: libc::realloc,
    free: libc::free,
    aligned: libc::memalign,
    usable_size: libc::malloc_usable_size,
    sized: None,
};

/// `system`.
pub(super) const BACKEND: Backend =
    Backend { key: "system", label: "system (glibc)", role: Role::Contestant, prepare: |_| Ok(ready(ENTRY)) };

/// `system-again`: the same under another name.
pub(super) const AGAIN: Backend =
    Backend { key: "system-again", label: "system again (A/A)", role: Role::Instrument, ..BACKEND };

/// Entry points that are the C library's, or stand before them.
pub(super) fn ready(entry: Entry) -> Ready {
    Ready::new(entry, version, options, release)
}

/// Name and version of the C library.
pub(super) fn version() -> String {
    // SAFETY: returns a pointer to a static string.
    let text = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", text.to_string_lossy())
}

/// The loader's view of the `glibc.malloc` tunables in this environment. Empty when the loader cannot be asked.
pub(super) fn options() -> BTreeMap<String, String> {
    let Some(loader) = loader() else { return BTreeMap::new() };
    let Ok(output) = std::process::Command::new(loader).arg("--list-tunables").output() else {
        return BTreeMap::new();
    };
    // Lines such as `glibc.malloc.arena_max: 0x0 (min: 0x1, max: 0xffffffffffffffff)`.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.strip_prefix("glibc.malloc.")?.split_once(':'))
        .filter_map(|(name, rest)| Some((name.to_owned(), rest.split_whitespace().next()?.to_owned())))
        .collect()
}

/// Path of the dynamic loader that started this process, as the kernel mapped it.
fn loader() -> Option<String> {
    // SAFETY: reads the auxiliary vector.
    let base = unsafe { libc::getauxval(libc::AT_BASE) };
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.starts_with(&format!("{base:x}-")))?;
    line.split_whitespace().nth(5).map(str::to_owned)
}

/// `malloc_trim(0)`.
pub(super) fn release() {
    // SAFETY: no precondition.
    unsafe { libc::malloc_trim(0) };
}
