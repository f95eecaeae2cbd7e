//! The memory pools of the very `libarrow.so` that a service runs: `wheel:mimalloc`, `wheel:jemalloc`, `wheel:system`.
//!
//! The library is loaded before the seal and its pools are called as Arrow's own code calls them: by the virtual
//! functions of the pool, with the block's size and 64 bytes of alignment. So version, build and options are just the
//! service's. Which library it is, the environment says; see [`LIBARROW_VARIABLE`].
//!
//! Invariant: nothing is guessed about the library. What it exports is looked up by name, where a virtual function lies
//! is compared with what is exported, and what cannot be had that way is refused or said to be unknown.

mod local;
mod pools;

#[cfg(any(test, fuzzing))]
pub(crate) use local::find as local_functions;

use super::family::jemalloc::Jemalloc;
use super::family::mimalloc::{self, Mimalloc};
use super::family::{GLIBC, JEMALLOC, MIMALLOC, glibc};
use super::{ARROW_ALIGNMENT_BYTES as ALIGNMENT_BYTES, Backend, Need, Ready, Role};
use crate::heap::{Entry, SizedCalls};
use libc::c_void;
use pools::{Library, Pool};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Key of the backend that takes the name of one of Arrow's pools.
pub const WHEEL_KEY: &str = "wheel";
/// The variable that tells a child which `libarrow.so` it has to load, by its absolute path.
pub const LIBARROW_VARIABLE: &str = "PYALLOC_BENCH_LIBARROW";
/// The pools that an Arrow library may have, as [`WHEEL_KEY`] takes them.
pub const WHEEL_POOLS: [&str; 3] = ["mimalloc", "jemalloc", "system"];

/// `wheel`.
pub(super) const BACKEND: Backend =
    Backend { key: WHEEL_KEY, label: "Arrow's own pool", role: Role::ByArgument, prepare };

/// A pool, by its place in [`WHEEL_POOLS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mimalloc = 0,
    Jemalloc = 1,
    System = 2,
}

type UsableSize = unsafe extern "C" fn(*const c_void) -> usize;

/// A pool that is ready to be called.
struct Prepared {
    pool: Pool,
    usable_size: Option<UsableSize>,
}

/// The functions that the library keeps to itself, as far as its file tells of them.
#[derive(Clone, Copy, Default)]
struct Locals {
    mimalloc: Option<Mimalloc>,
    mimalloc_usable_size: Option<UsableSize>,
    jemalloc: Option<Jemalloc>,
    jemalloc_usable_size: Option<UsableSize>,
}

static LIBRARY: OnceLock<Result<Loaded, String>> = OnceLock::new();
/// By [`Kind`]. The calls find their pool here, since a plain C function is told nothing but its arguments.
static POOLS: [OnceLock<Prepared>; 3] = [const { OnceLock::new() }; 3];

struct Loaded {
    arrow: Library,
    file: PathBuf,
    locals: Locals,
}

// SAFETY: addresses of a library that is never unloaded.
unsafe impl Send for Loaded {}
// SAFETY: as above; its functions may be called from every thread.
unsafe impl Sync for Loaded {}

fn prepare(need: &Need) -> Result<Ready, String> {
    let kinds = [Kind::Mimalloc, Kind::Jemalloc, Kind::System];
    let place = WHEEL_POOLS
        .iter()
        .position(|name| *name == need.argument)
        .ok_or_else(|| format!("Arrow has no pool {:?}; use wheel:{}", need.argument, WHEEL_POOLS.join(", wheel:")))?;
    let kind = kinds[place];
    let loaded = LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)?;
    let pool = loaded.arrow.pool(kind)?;
    let usable_size = match kind {
        Kind::Mimalloc => loaded.locals.mimalloc_usable_size,
        Kind::Jemalloc => loaded.locals.jemalloc_usable_size,
        Kind::System => Some(system_usable_size as UsableSize),
    };
    POOLS[place].get_or_init(|| Prepared { pool, usable_size });
    let entry = match kind {
        Kind::Mimalloc => entry::<0>(),
        Kind::Jemalloc => entry::<1>(),
        Kind::System => entry::<2>(),
    };
    let ready =
        Ready::new(entry, move || loaded.version(kind), move || loaded.options(kind), move || pool.release_unused());
    let family = match kind {
        Kind::Mimalloc => MIMALLOC,
        Kind::Jemalloc => JEMALLOC,
        Kind::System => GLIBC,
    };
    let is_jemalloc = kind == Kind::Jemalloc;
    let real_time = loaded.locals.jemalloc.filter(|_| is_jemalloc).and_then(Jemalloc::real_time);
    Ok(Ready { family, real_time, ..ready })
}

/// Called once, whatever comes of it.
fn load() -> Result<Loaded, String> {
    let Some(file) = std::env::var_os(LIBARROW_VARIABLE).map(PathBuf::from) else {
        return Err("this process was told of no Arrow library; name one with -c arrow=wheel:mimalloc".to_owned());
    };
    let library = Library::load(&file)?;
    let locals = Locals::of(&library, &file);
    // What loading has freed again goes back, so that the replay starts at the top of a heap, as it does without.
    glibc::release();
    Ok(Loaded { arrow: library, file, locals })
}

impl Locals {
    /// Nothing where the file does not list its own functions, or lists others than those that were loaded.
    fn of(library: &Library, file: &std::path::Path) -> Self {
        let names = [
            "mi_version",
            "mi_collect",
            "mi_usable_size",
            "je_arrow_mallctl",
            "je_arrow_malloc_usable_size",
            "_ZN5arrow12GetBuildInfoEv",
        ];
        let Ok([version, collect, mimalloc_usable, mallctl, jemalloc_usable, known]) = local::find(file, names) else {
            return Self::default();
        };
        let at = |place: Option<usize>| place.map(|place| (library.base + place) as *const c_void);
        if at(known) != Some(library.build_info()) {
            return Self::default();
        }
        // SAFETY: functions of these names have these types in every version, and this file is what was loaded: the
        // place of one that is exported was compared.
        unsafe {
            let usable = |place| at(place).map(|place| std::mem::transmute::<*const c_void, UsableSize>(place));
            Self {
                mimalloc: at(version).zip(at(collect)).map(|(version, collect)| Mimalloc {
                    option_set: None,
                    version: std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> libc::c_int>(version),
                    collect: std::mem::transmute::<*const c_void, unsafe extern "C" fn(bool)>(collect),
                }),
                mimalloc_usable_size: usable(mimalloc_usable),
                jemalloc: at(mallctl).map(|mallctl| Jemalloc {
                    mallctl: std::mem::transmute::<*const c_void, super::family::jemalloc::Mallctl>(mallctl),
                }),
                jemalloc_usable_size: usable(jemalloc_usable),
            }
        }
    }
}

impl Loaded {
    /// Such as `mimalloc 3.4.1 (Arrow 26.0.1)`.
    fn version(&self, kind: Kind) -> String {
        let unknown = || "of unknown version".to_owned();
        let allocator = match kind {
            Kind::Mimalloc => format!("mimalloc {}", self.locals.mimalloc.map_or_else(unknown, Mimalloc::version)),
            Kind::Jemalloc => format!("jemalloc {}", self.locals.jemalloc.map_or_else(unknown, Jemalloc::version)),
            Kind::System => glibc::version(),
        };
        format!("{allocator} (Arrow {})", self.arrow.version())
    }

    /// Effective options, by the allocator's own names, and what is known of a block's usable size.
    fn options(&self, kind: Kind) -> BTreeMap<String, String> {
        let mut options = match kind {
            Kind::Mimalloc => mimalloc::options(&mimalloc::Copy::File(self.file.clone())),
            Kind::Jemalloc => self.locals.jemalloc.map(Jemalloc::options).unwrap_or_default(),
            Kind::System => glibc::options(),
        };
        let is_known = POOLS[kind as usize].get().is_some_and(|prepared| prepared.usable_size.is_some());
        let usable = if is_known { "read from the allocator" } else { "unknown: requested sizes count" };
        options.insert("usable_size".to_owned(), usable.to_owned());
        options
    }
}

/// The entry points of a pool, by its place in [`WHEEL_POOLS`].
fn entry<const POOL: usize>() -> Entry {
    let sized = SizedCalls { realloc: reallocate::<POOL>, free: release::<POOL>, alignment_bytes_max: ALIGNMENT_BYTES };
    Entry {
        malloc: malloc::<POOL>,
        calloc: calloc::<POOL>,
        realloc: realloc_without_size,
        free: free_without_size,
        aligned: aligned::<POOL>,
        usable_size: usable_size::<POOL>,
        sized: Some(sized),
    }
}

unsafe extern "C" fn aligned<const POOL: usize>(alignment: usize, bytes: usize) -> *mut c_void {
    let mut block = std::ptr::null_mut();
    // A pool wants to be told a block's alignment when it takes it back; Arrow asks for no other one.
    if let Some(Prepared { pool, .. }) = POOLS[POOL].get().filter(|_| alignment <= ALIGNMENT_BYTES) {
        // SAFETY: the pool's own function and object; `block` may be written.
        let done = unsafe { (pool.allocate)(pool.object, bytes as i64, ALIGNMENT_BYTES as i64, &raw mut block) };
        if !done.is_ok() {
            return std::ptr::null_mut();
        }
    }
    block
}

unsafe extern "C" fn malloc<const POOL: usize>(bytes: usize) -> *mut c_void {
    // SAFETY: no precondition.
    unsafe { aligned::<POOL>(ALIGNMENT_BYTES, bytes) }
}

/// Arrow has no such call: who wants zeros writes them.
unsafe extern "C" fn calloc<const POOL: usize>(count: usize, size: usize) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else { return std::ptr::null_mut() };
    // SAFETY: no precondition.
    let block = unsafe { malloc::<POOL>(bytes) };
    if !block.is_null() {
        // SAFETY: a live block of that many bytes.
        unsafe { block.cast::<u8>().write_bytes(0, bytes) };
    }
    block
}

unsafe extern "C" fn reallocate<const POOL: usize>(block: *mut c_void, old: usize, bytes: usize) -> *mut c_void {
    let Some(Prepared { pool, .. }) = POOLS[POOL].get() else { return std::ptr::null_mut() };
    let mut resized = block;
    // SAFETY: the pool's own function and object, a live block of it, its size, and the alignment it was made with.
    let done =
        unsafe { (pool.reallocate)(pool.object, old as i64, bytes as i64, ALIGNMENT_BYTES as i64, &raw mut resized) };
    if done.is_ok() { resized } else { std::ptr::null_mut() }
}

unsafe extern "C" fn release<const POOL: usize>(block: *mut c_void, bytes: usize) {
    if let Some(Prepared { pool, .. }) = POOLS[POOL].get() {
        // SAFETY: the pool's own function and object, a live block of it, its size, and the alignment it was made with.
        unsafe { (pool.free)(pool.object, block, bytes as i64, ALIGNMENT_BYTES as i64) };
    }
}

unsafe extern "C" fn usable_size<const POOL: usize>(block: *mut c_void) -> usize {
    match POOLS[POOL].get() {
        // SAFETY: a live block of the allocator that the function belongs to.
        Some(Prepared { pool, usable_size: Some(usable_size) }) if block != pool.no_bytes => unsafe {
            usable_size(block)
        },
        _ => 0,
    }
}

unsafe extern "C" fn system_usable_size(block: *const c_void) -> usize {
    // SAFETY: the caller's promise: a block of the C library's.
    unsafe { libc::malloc_usable_size(block.cast_mut()) }
}

/// Never called: see [`Entry::sized`]. A wrong size would damage the pool silently; this ends the worker and is seen.
unsafe extern "C" fn free_without_size(_: *mut c_void) {
    std::process::abort()
}

/// As [`free_without_size`].
unsafe extern "C" fn realloc_without_size(_: *mut c_void, _: usize) -> *mut c_void {
    std::process::abort()
}
