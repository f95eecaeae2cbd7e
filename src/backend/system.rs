//! The process's own `malloc`, under its name and under a second one for A/A comparisons: the C library's, unless the
//! environment preloads another.
//!
//! Invariant: both names are the very same functions, and all of them lie in one library, which the loader names.

use super::family::symbols::{Object, Symbols};
use super::family::{Family, glibc};
use super::{ARROW_ALIGNMENT_BYTES, Backend, Holds, Ready, Role};
use crate::heap::Entry;
use libc::c_void;
use std::collections::BTreeMap;
use trace::Domain;

/// The entry points of the C library, or of what stands in for them.
pub(super) const ENTRY: Entry = Entry {
    malloc: libc::malloc,
    calloc: libc::calloc,
    realloc: libc::realloc,
    free: libc::free,
    aligned: libc::memalign,
    usable_size: libc::malloc_usable_size,
    sized: None,
};

/// As Arrow's pool over it calls it.
const ARROW: Entry = Entry { malloc: arrow_malloc, calloc: arrow_calloc, realloc: arrow_realloc, ..ENTRY };

/// `system`.
pub(super) const BACKEND: Backend = Backend {
    key: "system",
    label: "system (glibc)",
    role: Role::Contestant,
    prepare: |_| Ok(Ready { others: &[(Domain::Arrow, ARROW)], ..ready(ENTRY)? }),
};

/// `system-again`: the same under another name.
pub(super) const AGAIN: Backend =
    Backend { key: "system-again", label: "system again (A/A)", role: Role::Instrument, ..BACKEND };

/// Version of the C library, whatever its `malloc` is.
#[must_use]
pub fn libc_version() -> String {
    glibc::version()
}

/// The process's `malloc`: its family, and the library that it lies in.
///
/// # Errors
/// A sentence, when a preloaded library replaces only some of the functions.
fn own() -> Result<(Family, Object), String> {
    let symbols = Symbols::of_process().ok_or("the loader cannot say where malloc lies; measure on glibc")?;
    let others: [(&str, *const c_void); 5] = [
        ("calloc", libc::calloc as *const c_void),
        ("realloc", libc::realloc as *const c_void),
        ("free", libc::free as *const c_void),
        ("memalign", libc::memalign as *const c_void),
        ("malloc_usable_size", libc::malloc_usable_size as *const c_void),
    ];
    for (name, address) in others {
        if Object::of(address).as_ref() != Some(&symbols.object) {
            let file = symbols.object.name();
            return Err(format!("{file} has malloc but not {name}; preload a library that has both"));
        }
    }
    Ok((Family::of(&symbols), symbols.object))
}

/// Entry points that are the process's `malloc`, or stand before it.
pub(super) fn ready(entry: Entry) -> Result<Ready, String> {
    let (family, object) = own()?;
    Ok(family.ready(entry, object))
}

/// What the process's `malloc` is, for those who stand on it.
pub(super) fn version() -> String {
    own().map_or_else(|reason| reason, |(family, object)| family.version(&object))
}

/// What it holds, where it can tell: a preloaded library's blocks are not in the C library's heap.
pub(super) fn holds() -> Option<Holds> {
    own().ok()?.0.holds()
}

/// Its options.
pub(super) fn options() -> BTreeMap<String, String> {
    own().map_or_else(|_| BTreeMap::new(), |(family, object)| family.options(&object))
}

unsafe extern "C" fn arrow_malloc(bytes: usize) -> *mut c_void {
    // SAFETY: the alignment is a power of two.
    unsafe { libc::memalign(ARROW_ALIGNMENT_BYTES, bytes) }
}

unsafe extern "C" fn arrow_calloc(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return std::ptr::null_mut() };
    // SAFETY: no precondition.
    let block = unsafe { arrow_malloc(bytes) };
    if !block.is_null() {
        // SAFETY: a live block of that many bytes.
        unsafe { block.cast::<u8>().write_bytes(0, bytes) };
    }
    block
}

/// Arrow cannot resize an aligned block in place: it makes another, copies and frees.
unsafe extern "C" fn arrow_realloc(block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: no precondition.
    let resized = unsafe { arrow_malloc(bytes) };
    if !resized.is_null() {
        // SAFETY: the caller's promise: a live block, of which so many bytes may be read; the new one has as many. Its
        // usable size stands for the requested one, at most a few bytes above it.
        unsafe {
            let kept = libc::malloc_usable_size(block).min(bytes);
            block.cast::<u8>().copy_to_nonoverlapping(resized.cast(), kept);
            libc::free(block);
        }
    }
    resized
}
