//! The pools of a real CPython, or its mimalloc: `PyObject_Malloc` and its kin of the libpython that the process was
//! started with.
//!
//! What those functions are is known only in a process that has them, so they are looked up when the backend is
//! prepared; they are then called through the same table as all others, and nothing of ours lies between.
//!
//! Invariant: the policy is CPython's alone. Arenas come from the very code that the backend `pool` takes them from,
//! which makes the same system calls as CPython's own; they are only noted on the way, so that a block of a pool can be
//! told from one of the C library.

use super::family::mimalloc::Copy;
use super::family::symbols::Object;
use super::{Backend, Need, Ready, Role, family, pool, system};
use crate::heap::{Entry, Promise};
use crate::probe::sys::Mapping;
use libc::c_void;
use libpython::{Arenas, Linkage, Mimalloc, Pymalloc};
use pypool::{ArenaSource as _, Current, Geometry as _, MappedArenas};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Key of the backend that needs an interpreter's library in its process: see [`libpython::Interpreter`].
pub const CPYTHON_KEY: &str = "cpython";
/// Key of the backend that is the mimalloc of such a library, which has to be of 3.13 or later.
pub const CPYTHON_MIMALLOC_KEY: &str = "cpython-mimalloc";
/// The variable that tells a child how the interpreter is linked whose library it has: [`Linkage::name`].
pub const LINKAGE_VARIABLE: &str = "PYALLOC_BENCH_PYTHON_LINKAGE";

/// `cpython`.
pub(super) const BACKEND: Backend = Backend { key: CPYTHON_KEY, label: "CPython", role: Role::OptIn, prepare };

/// `cpython-mimalloc`.
pub(super) const MIMALLOC: Backend =
    Backend { key: CPYTHON_MIMALLOC_KEY, label: "CPython's mimalloc", role: Role::OptIn, prepare: prepare_mimalloc };

const ARENA_BYTES: usize = Current::ARENA_BYTES;
/// Where a pool's header holds the index of its size class, a C `unsigned int`.
const CLASS_OFFSET: usize = 36;

/// Bits of an address of user space, on every machine that Linux runs glibc on.
const ADDRESS_BITS: u32 = 48;
const OS_PAGE_BYTES: usize = 4096;

static BROUGHT_UP: OnceLock<Result<Mimalloc, String>> = OnceLock::new();
static PYMALLOC: OnceLock<Result<Pymalloc, String>> = OnceLock::new();
/// By address in units of an arena's size: the OS page within that unit at which an arena begins, plus 1; 0 where none
/// does. At most one can. Shared memory, which does not count as anonymous; only what is written becomes memory.
static BEGINNINGS: OnceLock<&'static [AtomicU16]> = OnceLock::new();

fn prepare(_: &Need) -> Result<Ready, String> {
    let pymalloc = PYMALLOC.get_or_init(bring_up).as_ref().map_err(Clone::clone)?;
    let libpython::Functions { malloc, calloc, realloc, free } = pymalloc.functions;
    let entry = Entry { malloc, calloc, realloc, free, aligned: libc::memalign, usable_size, sized: None };
    // What the arenas hold is not the C library's, and is not told.
    let below = Ready { holds: None, own_bytes_max: Some(crate::run::SMALL_BYTES_MAX), ..system::ready(entry)? };
    let (version, options) = (Box::new(version), Box::new(options));
    Ok(Ready { version, options, one_thread_at_a_time: true, ..below })
}

/// Its functions for sizes and purging are exported under no name. Options it says as it starts.
fn prepare_mimalloc(_: &Need) -> Result<Ready, String> {
    let mimalloc = BROUGHT_UP.get_or_init(bring_up_mimalloc).as_ref().map_err(Clone::clone)?;
    let libpython::Functions { malloc, calloc, realloc, free } = mimalloc.functions;
    let entry = Entry { malloc, calloc, realloc, free, aligned: refuse_aligned, usable_size: unknown, sized: None };
    let version = || match BROUGHT_UP.get() {
        Some(Ok(mimalloc)) => named(&mimalloc.version(), "mimalloc"),
        _ => "no libpython in this process".to_owned(),
    };
    let file = Object::of(malloc as *const c_void).map(|object| object.file);
    let options = move || {
        let mut options = file.clone().map_or_else(BTreeMap::new, |file| family::mimalloc::options(&Copy::File(file)));
        options.insert("interpreter".to_owned(), linkage());
        options.extend(BROUGHT_UP.get().and_then(|brought| Some(("build".to_owned(), brought.as_ref().ok()?.build()))));
        options
    };
    let promise = Promise { alignment_bytes_max: 16, tells_usable_size: false };
    let family = family::MIMALLOC;
    Ok(Ready { family, promise, one_thread_at_a_time: true, ..Ready::new(entry, version, options, || {}) })
}

/// Called once, whatever comes of it.
fn bring_up_mimalloc() -> Result<Mimalloc, String> {
    if std::env::var_os(LINKAGE_VARIABLE).is_none() {
        return Err(format!(
            "this process was started for no interpreter; name one with -c {CPYTHON_MIMALLOC_KEY}:PROGRAM"
        ));
    }
    // SAFETY: the variable is set for workers alone; those have one thread and use Python for nothing else.
    unsafe { Mimalloc::bring_up() }.map_err(|error| error.to_string())
}

/// Python's domains have no such call, and CPython no function that could free its block.
unsafe extern "C" fn refuse_aligned(alignment: usize, bytes: usize) -> *mut c_void {
    match BROUGHT_UP.get() {
        // SAFETY: any size may be asked for. Every block of 16 bytes and more is aligned to 16.
        Some(Ok(mimalloc)) if alignment <= 16 => unsafe { (mimalloc.functions.malloc)(bytes.max(16)) },
        _ => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn unknown(_: *mut c_void) -> usize {
    0
}

/// Called once, whatever comes of it.
fn bring_up() -> Result<Pymalloc, String> {
    if std::env::var_os(LINKAGE_VARIABLE).is_none() {
        return Err("this process was started for no interpreter; name one with -c cpython:PROGRAM".to_owned());
    }
    let beginnings = beginnings().map_err(|error| format!("the table of arenas cannot be mapped ({error})"))?;
    BEGINNINGS.get_or_init(|| beginnings);
    // SAFETY: the variable is set for workers alone; those have one thread and use Python for nothing else.
    let pymalloc = unsafe { Pymalloc::bring_up() }.map_err(|error| error.to_string())?;
    if !pymalloc.has_large_arenas() {
        let version = pymalloc.version();
        return Err(format!("CPython {version} has pools of 4 KiB; name a CPython of 3.10 or later"));
    }
    let arenas = Arenas { context: std::ptr::null_mut(), allocate: map_arena, free: unmap_arena };
    // SAFETY: bringing up made no arena, and the functions are this module's own.
    unsafe { pymalloc.set_arenas(arenas) };
    Ok(pymalloc)
}

/// The pools, once they were brought up.
fn pymalloc() -> Option<&'static Pymalloc> {
    PYMALLOC.get()?.as_ref().ok()
}

fn beginnings() -> std::io::Result<&'static [AtomicU16]> {
    let units = (1 << ADDRESS_BITS) / ARENA_BYTES;
    let table = Mapping::shared(units * size_of::<AtomicU16>())?;
    // SAFETY: a fresh zeroed mapping of that many bytes, page-aligned and never unmapped, this being its only use.
    Ok(unsafe { std::slice::from_raw_parts(table.base().cast::<AtomicU16>().as_ptr(), units) })
}

/// Where it is noted that an arena begins within the same unit as an address.
fn beginning(address: usize) -> Option<&'static AtomicU16> {
    BEGINNINGS.get()?.get(address / ARENA_BYTES)
}

/// What is noted of an arena that begins at an address.
fn note(address: usize) -> u16 {
    (address % ARENA_BYTES / OS_PAGE_BYTES) as u16 + 1
}

unsafe extern "C" fn map_arena(_: *mut c_void, bytes: usize) -> *mut c_void {
    // An arena of another size would make wrong numbers silently; this ends the worker, which is seen.
    assert_eq!(bytes, ARENA_BYTES, "CPython asked for an arena of another size");
    let arena = MappedArenas.map(bytes);
    if let Some(noted) = beginning(arena.addr()).filter(|_| !arena.is_null()) {
        noted.store(note(arena.addr()), Relaxed);
    }
    arena.cast()
}

unsafe extern "C" fn unmap_arena(_: *mut c_void, arena: *mut c_void, bytes: usize) {
    if let Some(noted) = beginning(arena.addr()) {
        noted.store(0, Relaxed);
    }
    // SAFETY: CPython gives back whole arenas that it got from `map_arena` and uses no more.
    unsafe { MappedArenas.unmap(arena.cast(), bytes) };
}

/// Whether an address lies in an arena, which begins in its own unit at or before it, or in the unit before and after
/// its page there.
fn is_in_arena(address: usize) -> bool {
    let noted = |address: usize| beginning(address).map_or(0, |noted| noted.load(Relaxed));
    let (own, before) = (noted(address), address.checked_sub(ARENA_BYTES).map_or(0, noted));
    (own != 0 && own <= note(address)) || before > note(address)
}

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    if !is_in_arena(block.addr()) {
        // SAFETY: the caller's promise; what lies in no arena came from the C library.
        return unsafe { libc::malloc_usable_size(block) };
    }
    let pool = block.map_addr(|address| address & !(Current::POOL_BYTES - 1));
    // SAFETY: the block is live, so its pool has a header, which only this thread writes.
    let class = unsafe { pool.byte_add(CLASS_OFFSET).cast::<u32>().read() };
    (class as usize + 1) * Current::ALIGNMENT_BYTES
}

/// Version of CPython as the library reports it, how it came to be a library, and the C library below it.
fn version() -> String {
    let Some(pymalloc) = pymalloc() else { return "no libpython in this process".to_owned() };
    format!("{} over {}", named(&pymalloc.version(), ""), system::version())
}

/// A version of CPython, what of it serves, and how it came to be a library.
fn named(version: &str, what: &str) -> String {
    let linkage = if linkage() == Linkage::Static.name() { Linkage::Static } else { Linkage::Shared };
    let what = if what.is_empty() { String::new() } else { format!("'s {what}") };
    format!("CPython {version}{what} ({})", linkage.describe())
}

/// What the parent said of the interpreter.
fn linkage() -> String {
    std::env::var(LINKAGE_VARIABLE).unwrap_or_else(|_| "unknown".to_owned())
}

/// Build, and what its model says of itself too: geometry, and the tunables of the C library below. No path: results
/// name no machine.
fn options() -> BTreeMap<String, String> {
    let mut options = pool::options();
    if let Some(pymalloc) = pymalloc() {
        options.insert("build".to_owned(), pymalloc.build());
    }
    options.insert("interpreter".to_owned(), linkage());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_arenas_are_told_from_others() {
        let table = beginnings().expect("address space");
        BEGINNINGS.get_or_init(|| table);
        let mapped: Vec<usize> = (0..40)
            // SAFETY: any context will do.
            .map(|_| unsafe { map_arena(std::ptr::null_mut(), ARENA_BYTES) }.addr())
            .collect();
        let check = |arenas: &[usize]| {
            for start in mapped.iter().flat_map(|arena| (arena - ARENA_BYTES..arena + 2 * ARENA_BYTES).step_by(4080)) {
                let expected = arenas.iter().any(|arena| (*arena..arena + ARENA_BYTES).contains(&start));
                assert_eq!(is_in_arena(start), expected, "{start:#x} in {arenas:x?}");
            }
        };
        check(&mapped);
        let (gone, kept) = mapped.split_at(15);
        for arena in gone {
            // SAFETY: nobody uses these arenas.
            unsafe { unmap_arena(std::ptr::null_mut(), std::ptr::with_exposed_provenance_mut(*arena), ARENA_BYTES) };
        }
        check(kept);
        assert!(!is_in_arena(0) && !is_in_arena(usize::MAX));
    }
}
