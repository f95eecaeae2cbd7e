//! mimalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `MIMALLOC_*` variable reaches it unless the parent put it into the child's environment.

use super::{Backend, Ready, Role};
use crate::heap::Entry;
use crate::run::Held;
use libc::{c_int, c_void};
use std::collections::BTreeMap;

const ENTRY: Entry = Entry {
    malloc: libmimalloc_sys::mi_malloc,
    calloc: libmimalloc_sys::mi_calloc,
    realloc: libmimalloc_sys::mi_realloc,
    free: libmimalloc_sys::mi_free,
    aligned: libmimalloc_sys::mi_aligned_alloc,
    usable_size,
};

/// `mimalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "mimalloc",
    label: "mimalloc",
    role: Role::Contestant,
    prepare: |_| Ok(Ready { holds: Some(Box::new(holds)), ..Ready::new(ENTRY, version, options, release) }),
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

/// The beginning of version 5 of the library's statistics, and room for the rest of them.
#[repr(C, align(8))]
struct Statistics {
    bytes: usize,
    version: usize,
    /// Total, peak and current number of its own pages, then reserved and committed bytes.
    counts: [[i64; 3]; 3],
    rest: [i64; REST_WORDS],
}

/// What follows the first three counts there: 12 more, 21 counters, 4 and 4 in reserve, and 154 of size classes.
const REST_WORDS: usize = 12 * 3 + 21 + 4 * 3 + 4 + 154 * 3;
const STATISTICS_VERSION: usize = 5;

unsafe extern "C" {
    fn mi_stats_get(into: *mut Statistics) -> bool;
}

/// What this copy of the library has committed; unknown to one whose statistics look otherwise.
fn holds() -> Held {
    let mut now = Statistics {
        bytes: size_of::<Statistics>(),
        version: STATISTICS_VERSION,
        counts: [[0; 3]; 3],
        rest: [0; REST_WORDS],
    };
    // SAFETY: the library writes as many bytes as it is told are there, and refuses another size or version.
    if !unsafe { mi_stats_get(&raw mut now) } {
        return Held::default();
    }
    let [_, _, [_, _, committed]] = now.counts;
    let committed = u64::try_from(committed).ok();
    Held { mapped_bytes: committed, resident_bytes_max: committed }
}

/// A forced collection.
fn release() {
    // SAFETY: no precondition.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
