//! jemalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `_RJEM_MALLOC_CONF` reaches it unless the parent put it into the child's environment.

use super::family::JEMALLOC;
use super::family::jemalloc::Jemalloc;
use super::{Backend, Ready, Role};
use crate::heap::Entry;
use libc::c_void;

const ENTRY: Entry = Entry {
    malloc: tikv_jemalloc_sys::malloc,
    calloc: tikv_jemalloc_sys::calloc,
    realloc: tikv_jemalloc_sys::realloc,
    free: tikv_jemalloc_sys::free,
    aligned: tikv_jemalloc_sys::aligned_alloc,
    usable_size,
    sized: None,
};

const COPY: Jemalloc = Jemalloc { mallctl: tikv_jemalloc_sys::mallctl };

/// `jemalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "jemalloc",
    label: "jemalloc",
    role: Role::Contestant,
    prepare: |_| {
        let ready = Ready::new(ENTRY, || COPY.version(), || COPY.options(), || COPY.release());
        Ok(Ready { family: JEMALLOC, ..ready })
    },
};

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise; the library declares the pointer const.
    unsafe { tikv_jemalloc_sys::malloc_usable_size(block) }
}
