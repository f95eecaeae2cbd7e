//! The C library's own allocator.
//!
//! Invariant: its tunables are the loader's word, which counts `MALLOC_*` variables too.

use crate::probe::sys;
use crate::run::Held;
use std::collections::BTreeMap;
use std::ffi::CStr;
use trace::{Directive, DirectiveCall};

/// Name and version of the C library.
pub(in crate::backend) fn version() -> String {
    // SAFETY: returns a pointer to a static string.
    let text = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    format!("glibc {}", text.to_string_lossy())
}

/// The loader's view of the `glibc.malloc` tunables in this environment. Empty when the loader cannot be asked.
pub(in crate::backend) fn options() -> BTreeMap<String, String> {
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
pub(in crate::backend) fn release() {
    // SAFETY: no precondition.
    unsafe { libc::malloc_trim(0) };
}

/// Arenas and single mappings of the C library, unknown before glibc 2.33. It does not know which pages of them it has
/// given back.
pub(in crate::backend) fn holds() -> Held {
    let mapped = sys::libc_heap().mapped_bytes;
    Held { mapped_bytes: mapped, resident_bytes_max: mapped }
}

/// `malloc_trim` and `mallopt`.
pub(in crate::backend) fn carry_out(call: DirectiveCall) -> bool {
    let DirectiveCall { directive, key, value } = call;
    match directive {
        Directive::MallocTrim => {
            // SAFETY: no precondition.
            unsafe { libc::malloc_trim(usize::try_from(value).unwrap_or(0)) };
        }
        Directive::Mallopt => {
            // SAFETY: no precondition; an unknown parameter changes nothing.
            unsafe { libc::mallopt(key.into(), value) };
        }
        _ => return false,
    }
    true
}
