//! mimalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `MIMALLOC_*` variable reaches it unless the parent put it into the child's environment.

use super::family::MIMALLOC;
use super::family::mimalloc::{Copy, Mimalloc, options};
use super::{ARROW_ALIGNMENT_BYTES, Backend, Ready, Role};
use crate::heap::Entry;
use libc::c_void;

const ENTRY: Entry = Entry {
    malloc: libmimalloc_sys::mi_malloc,
    calloc: libmimalloc_sys::mi_calloc,
    realloc: libmimalloc_sys::mi_realloc,
    free: libmimalloc_sys::mi_free,
    aligned: libmimalloc_sys::mi_aligned_alloc,
    usable_size,
    sized: None,
};

/// As Arrow's pool over mimalloc calls it.
const ARROW: Entry = Entry { malloc: arrow_malloc, calloc: arrow_calloc, realloc: arrow_realloc, ..ENTRY };

const COPY: Mimalloc = Mimalloc { version: libmimalloc_sys::mi_version, collect: libmimalloc_sys::mi_collect };

/// `mimalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "mimalloc",
    label: "mimalloc",
    role: Role::Contestant,
    prepare: |_| {
        let ready = Ready::new(ENTRY, || COPY.version(), || options(&Copy::Linked), || COPY.release());
        Ok(Ready { family: MIMALLOC, arrow: Some(ARROW), ..ready })
    },
};

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise; the library declares the pointer const.
    unsafe { libmimalloc_sys::mi_usable_size(block) }
}

unsafe extern "C" fn arrow_malloc(bytes: usize) -> *mut c_void {
    // SAFETY: no precondition.
    unsafe { libmimalloc_sys::mi_malloc_aligned(bytes, ARROW_ALIGNMENT_BYTES) }
}

unsafe extern "C" fn arrow_calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: no precondition.
    unsafe { libmimalloc_sys::mi_calloc_aligned(count, size, ARROW_ALIGNMENT_BYTES) }
}

unsafe extern "C" fn arrow_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { libmimalloc_sys::mi_realloc_aligned(block, bytes, ARROW_ALIGNMENT_BYTES) }
}
