//! jemalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `_RJEM_MALLOC_CONF` reaches it unless the parent put it into the child's environment.

use super::{Backend, Ready, Role};
use crate::heap::Entry;
use libc::{c_char, c_void};
use std::collections::BTreeMap;
use std::ffi::CStr;

const ENTRY: Entry = Entry {
    malloc: tikv_jemalloc_sys::malloc,
    calloc: tikv_jemalloc_sys::calloc,
    realloc: tikv_jemalloc_sys::realloc,
    free: tikv_jemalloc_sys::free,
    aligned: tikv_jemalloc_sys::aligned_alloc,
    usable_size,
    sized: None,
};

/// `jemalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "jemalloc",
    label: "jemalloc",
    role: Role::Contestant,
    prepare: |_| Ok(Ready::new(ENTRY, version, options, release)),
};

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise; the library declares the pointer const.
    unsafe { tikv_jemalloc_sys::malloc_usable_size(block) }
}

/// How `mallctl` returns an option.
enum Kind {
    Bool,
    Unsigned,
    Signed,
    Size,
    Text,
}

/// Options that steer speed or memory.
const OPTIONS: [(&CStr, Kind); 13] = [
    (c"opt.narenas", Kind::Unsigned),
    (c"opt.percpu_arena", Kind::Text),
    (c"opt.background_thread", Kind::Bool),
    (c"opt.dirty_decay_ms", Kind::Signed),
    (c"opt.muzzy_decay_ms", Kind::Signed),
    (c"opt.tcache", Kind::Bool),
    (c"opt.tcache_max", Kind::Size),
    (c"opt.retain", Kind::Bool),
    (c"opt.metadata_thp", Kind::Text),
    (c"opt.thp", Kind::Text),
    (c"opt.dss", Kind::Text),
    (c"opt.oversize_threshold", Kind::Size),
    (c"config.cache_oblivious", Kind::Bool),
];

/// Reads one value of the library; `None` when this build does not have it.
fn value<T: Copy>(name: &CStr, mut start: T) -> Option<T> {
    let mut bytes = size_of::<T>();
    let (to, no_bytes) = ((&raw mut start).cast::<c_void>(), std::ptr::null_mut());
    // SAFETY: `to` has room for `bytes` bytes, and the library refuses a type of another size.
    let rc = unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), to, &raw mut bytes, no_bytes, 0) };
    (rc == 0).then_some(start)
}

fn text(name: &CStr) -> Option<String> {
    let start: *const c_char = value(name, std::ptr::null())?;
    // SAFETY: text values of the library are static C strings.
    (!start.is_null()).then(|| unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned())
}

/// Such as `5.3.1`; the commit that the library appends is kept.
fn version() -> String {
    text(c"version").unwrap_or_else(|| "unknown".to_owned())
}

fn options() -> BTreeMap<String, String> {
    let read = |name: &CStr, kind: &Kind| match kind {
        Kind::Bool => value(name, false).map(|v| v.to_string()),
        Kind::Unsigned => value(name, 0u32).map(|v| v.to_string()),
        Kind::Signed => value(name, 0isize).map(|v| v.to_string()),
        Kind::Size => value(name, 0usize).map(|v| v.to_string()),
        Kind::Text => text(name),
    };
    let named = |name: &CStr| name.to_string_lossy().into_owned();
    OPTIONS.iter().filter_map(|(name, kind)| Some((named(name), read(name, kind)?))).collect()
}

/// Flushes this thread's cache, then purges every arena (4096 is jemalloc's `MALLCTL_ARENAS_ALL`).
fn release() {
    for action in [c"thread.tcache.flush", c"arena.4096.purge"] {
        let nothing = std::ptr::null_mut();
        // SAFETY: both are actions without a value.
        unsafe { tikv_jemalloc_sys::mallctl(action.as_ptr(), nothing, std::ptr::null_mut(), nothing, 0) };
    }
}
