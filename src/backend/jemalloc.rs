//! jemalloc, the statically linked copy, through its plain C entry points.
//!
//! Invariant: no `_RJEM_MALLOC_CONF` reaches it unless the parent put it into the child's environment.

use super::family::jemalloc::Jemalloc;
use super::family::{Family, JEMALLOC};
use super::{ARROW_ALIGNMENT_BYTES, Backend, Ready, Role};
use crate::heap::{Entry, SizedCalls};
use libc::{c_int, c_void};
use trace::Domain;

const ENTRY: Entry = Entry {
    malloc: tikv_jemalloc_sys::malloc,
    calloc: tikv_jemalloc_sys::calloc,
    realloc: tikv_jemalloc_sys::realloc,
    free: tikv_jemalloc_sys::free,
    aligned: tikv_jemalloc_sys::aligned_alloc,
    usable_size,
    sized: None,
};

/// As Arrow's pool over jemalloc calls it.
const ARROW: Entry = Entry {
    malloc: arrow_malloc,
    calloc: arrow_calloc,
    aligned: arrow_aligned,
    sized: Some(SizedCalls { realloc: arrow_realloc, free: arrow_free, alignment_bytes_max: ARROW_ALIGNMENT_BYTES }),
    ..ENTRY
};
/// `MALLOCX_ALIGN` of that alignment.
const ARROW_FLAGS: c_int = ARROW_ALIGNMENT_BYTES.trailing_zeros() as c_int;
/// `MALLOCX_ZERO`.
const ZERO_FLAG: c_int = 0x40;

const COPY: Jemalloc = Jemalloc { mallctl: tikv_jemalloc_sys::mallctl };

/// `jemalloc`.
pub(super) const BACKEND: Backend = Backend {
    key: "jemalloc",
    label: "jemalloc",
    role: Role::Contestant,
    prepare: |_| {
        let ready = Ready::new(ENTRY, || COPY.version(), || COPY.options(), || COPY.release());
        Ok(Ready {
            steered: Some(Family::Jemalloc(COPY)),
            family: JEMALLOC,
            others: &[(Domain::Arrow, ARROW)],
            holds: Some(Box::new(|| COPY.holds())),
            real_time: COPY.real_time(),
            ..ready
        })
    },
};

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: the caller's promise; the library declares the pointer const.
    unsafe { tikv_jemalloc_sys::malloc_usable_size(block) }
}

// These functions take no size of 0, which Arrow never passes on and other traces may hold.

unsafe extern "C" fn arrow_malloc(bytes: usize) -> *mut c_void {
    // SAFETY: a size above 0 and flags that say an alignment.
    unsafe { tikv_jemalloc_sys::mallocx(bytes.max(1), ARROW_FLAGS) }
}

unsafe extern "C" fn arrow_calloc(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return std::ptr::null_mut() };
    // SAFETY: as above.
    unsafe { tikv_jemalloc_sys::mallocx(bytes.max(1), ARROW_FLAGS | ZERO_FLAG) }
}

unsafe extern "C" fn arrow_aligned(alignment: usize, bytes: usize) -> *mut c_void {
    // A block is taken back under the alignment that it was made with; Arrow asks for no other one.
    if alignment > ARROW_ALIGNMENT_BYTES {
        return std::ptr::null_mut();
    }
    // SAFETY: no precondition.
    unsafe { arrow_malloc(bytes) }
}

unsafe extern "C" fn arrow_realloc(block: *mut c_void, _: usize, bytes: usize) -> *mut c_void {
    // SAFETY: the caller's promise, a size above 0 and flags that say an alignment.
    unsafe { tikv_jemalloc_sys::rallocx(block, bytes.max(1), ARROW_FLAGS) }
}

unsafe extern "C" fn arrow_free(block: *mut c_void, bytes: usize) {
    // SAFETY: the caller's promise: the block has this size, and was made with these flags.
    unsafe { tikv_jemalloc_sys::sdallocx(block, bytes.max(1), ARROW_FLAGS) };
}
