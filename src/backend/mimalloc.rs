//! mimalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `MIMALLOC_*` variable reaches it unless the parent put it into the child's environment.

use super::{Backend, Ready, Role};
use crate::heap::Entry;
use libc::{c_int, c_void};
use std::collections::BTreeMap;

const ENTRY: Entry = Entry {
    malloc: libmimalloc_sys::mi_malloc,
    calloc: libmimalloc_sys::mi_calloc,
    realloc: libmimalloc_sys::mi_realloc,
    free: libmimalloc_sys::mi_free,
    aligned: libmimalloc_sys::mi_aligned_alloc,
    usable_size,
    sized: None,
};

/// `mimalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "mimalloc",
    label: "mimalloc",
    role: Role::Contestant,
    prepare: |_| Ok(Ready::new(ENTRY, version, options, release)),
};

/// Options that steer speed or memory, by their index in version 3's `mi_option_t`.
const OPTIONS: [(&str, c_int); 16] = [
    ("arena_eager_commit", 4),
    ("purge_decommits", 5),
    ("allow_large_os_pages", 6),
    ("reserve_huge_os_pages", 7),
    ("reserve_os_memory", 9),
    ("purge_delay", 15),
    ("disallow_os_alloc", 17),
    ("arena_reserve", 23),
    ("arena_purge_mult", 24),
    ("generic_collect", 34),
    ("page_reclaim_on_free", 35),
    ("page_full_retain", 36),
    ("page_commit_on_demand", 40),
    ("page_max_reclaim", 41),
    ("allow_thp", 43),
    ("minimal_purge_size", 44),
];

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise; the library declares the pointer const.
    unsafe { libmimalloc_sys::mi_usable_size(block) }
}

/// The version number is `major * 10000 + minor * 100 + patch` in version 3.
fn version() -> String {
    // SAFETY: no precondition.
    let number = unsafe { libmimalloc_sys::mi_version() };
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

fn options() -> BTreeMap<String, String> {
    // SAFETY: every index is below the library's number of options.
    let value = |index| unsafe { libmimalloc_sys::mi_option_get(index) };
    OPTIONS.iter().map(|(name, index)| ((*name).to_owned(), value(*index).to_string())).collect()
}

/// A forced collection.
fn release() {
    // SAFETY: no precondition.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
