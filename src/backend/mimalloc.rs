//! mimalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `MIMALLOC_*` variable reaches it unless the parent put it into the child's environment.

use super::family::mimalloc::{Copy, Mimalloc, options};
use super::family::{Family, MIMALLOC};
use super::{ARROW_ALIGNMENT_BYTES, Backend, Ready, Role};
use crate::heap::Entry;
use crate::run::Held;
use libc::c_void;
use trace::Domain;

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

const COPY: Mimalloc =
    Mimalloc { version: libmimalloc_sys::mi_version, collect: libmimalloc_sys::mi_collect, option_set: None };

/// `mimalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "mimalloc",
    label: "mimalloc",
    role: Role::Contestant,
    prepare: |_| {
        let ready = Ready::new(ENTRY, || COPY.version(), || options(&Copy::Linked), || COPY.release());
        let steered = Some(Family::Mimalloc(COPY));
        Ok(Ready {
            steered,
            family: MIMALLOC,
            others: &[(Domain::Arrow, ARROW)],
            holds: Some(Box::new(holds)),
            ..ready
        })
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
