//! The pools of a loaded `libarrow.so`: C++ objects whose functions are called as C++ calls them.
//!
//! An object begins with the address of its class's table of virtual functions. Those of `MemoryPool` stand in the same
//! places since Arrow 12: two destructors, `Allocate`, `Reallocate`, `Free`, `ReleaseUnused`. A `Status` comes back in
//! memory that the caller provides, as every class that is no plain data does, and is a null pointer if all went well.
//!
//! Invariant: no function is called before the tables of two classes were compared with the functions that the library
//! exports under their names, place by place.

use crate::backend::ARROW_ALIGNMENT_BYTES as ALIGNMENT_BYTES;
use libc::c_void;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a function that returns a `Status` leaves. The structure is larger than a `Status`, so that every ABI returns
/// it in memory; only the first word is written.
#[repr(C)]
pub(super) struct Returned {
    status: *mut c_void,
    room: [MaybeUninit<usize>; 7],
}

impl Returned {
    /// A failure leaves its text in the C library's heap, which nothing here gives back.
    pub(super) fn is_ok(&self) -> bool {
        self.status.is_null()
    }
}

impl Pool {
    /// Gives free memory back to the kernel, as `pyarrow.default_memory_pool().release_unused()` does.
    pub(super) fn release_unused(&self) {
        // SAFETY: the pool's own function and object.
        unsafe { (self.release_unused)(self.object) }
    }
}

type GetPool = unsafe extern "C" fn(*mut *mut c_void) -> Returned;
type SystemPool = unsafe extern "C" fn() -> *mut c_void;
type BuildInfo = unsafe extern "C" fn() -> *const [i32; 4];

/// A pool, and its own functions.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    /// The object, which each function takes first.
    pub(super) object: *mut c_void,
    /// `Allocate(size, alignment, out)`.
    pub(super) allocate: unsafe extern "C" fn(*mut c_void, i64, i64, *mut *mut c_void) -> Returned,
    /// `Reallocate(old size, size, alignment, block)`.
    pub(super) reallocate: unsafe extern "C" fn(*mut c_void, i64, i64, i64, *mut *mut c_void) -> Returned,
    /// `Free(block, size, alignment)`.
    pub(super) free: unsafe extern "C" fn(*mut c_void, *mut c_void, i64, i64),
    /// `ReleaseUnused()`.
    release_unused: unsafe extern "C" fn(*mut c_void),
    /// Where a block of no bytes lies, which is no block of the allocator's.
    pub(super) no_bytes: *mut c_void,
}

// SAFETY: addresses of a library that is never unloaded; its pools may be used from every thread.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

/// Places in the table of a class that derives from `MemoryPool`.
const ALLOCATE: usize = 2;
const REALLOCATE: usize = 3;
const FREE: usize = 4;
const RELEASE_UNUSED: usize = 5;
/// What a table of virtual functions has before the first, words.
const BEFORE_FUNCTIONS: usize = 2;

const GET_MIMALLOC: &CStr = c"_ZN5arrow20mimalloc_memory_poolEPPNS_10MemoryPoolE";
const GET_JEMALLOC: &CStr = c"_ZN5arrow20jemalloc_memory_poolEPPNS_10MemoryPoolE";
const GET_SYSTEM: &CStr = c"_ZN5arrow18system_memory_poolEv";
const GET_BUILD_INFO: &CStr = c"_ZN5arrow12GetBuildInfoEv";
const PROXY_TABLE: &CStr = c"_ZTVN5arrow15ProxyMemoryPoolE";

/// What is exported under a name and must stand in a place of the table of `ProxyMemoryPool`.
const PROXY: [(usize, &CStr); 4] = [
    (ALLOCATE, c"_ZN5arrow15ProxyMemoryPool8AllocateEllPPh"),
    (REALLOCATE, c"_ZN5arrow15ProxyMemoryPool10ReallocateElllPPh"),
    (FREE, c"_ZN5arrow15ProxyMemoryPool4FreeEPhll"),
    // Not overridden, and so not exported, before Arrow 18.
    (RELEASE_UNUSED, c"_ZN5arrow15ProxyMemoryPool13ReleaseUnusedEv"),
];
/// The same of the pool over jemalloc, the one whose functions are exported (up to Arrow 22, seen).
const JEMALLOC: [(usize, &CStr); 2] = [
    (ALLOCATE, c"_ZN5arrow18BaseMemoryPoolImplINS_11memory_pool8internal17JemallocAllocatorEE8AllocateEllPPh"),
    (RELEASE_UNUSED, c"_ZN5arrow18BaseMemoryPoolImplINS_11memory_pool8internal17JemallocAllocatorEE13ReleaseUnusedEv"),
];

/// A loaded `libarrow.so`, whose pools lie as they are expected to.
pub(super) struct Library {
    handle: *mut c_void,
    /// Where it is loaded.
    pub(super) base: usize,
}

impl Library {
    /// Loads a library, for this process's whole life, and compares its tables.
    ///
    /// # Errors
    /// A sentence: it does not load, is no Arrow, or one whose pools are not those of 12 and later.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name ends in a zero byte. Constructors of the library run: that is what loading it means.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("Arrow's library cannot be loaded ({}); install pyarrow anew", loader_error()));
        }
        let mut library = Self { handle, base: 0 };
        let probe = library.exported(GET_BUILD_INFO)?;
        // SAFETY: a structure of addresses that may be written.
        let mut place: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: `place` may be written; any address may be asked about.
        if unsafe { libc::dladdr(probe, &raw mut place) } != 0 {
            library.base = place.dli_fbase as usize;
        }
        let proxy = library.exported(PROXY_TABLE)?.cast::<*const c_void>().wrapping_add(BEFORE_FUNCTIONS);
        let mut seen = library.compare(proxy, &PROXY)?;
        if let Ok(jemalloc) = library.object(GET_JEMALLOC) {
            seen.extend(library.compare(table_of(jemalloc), &JEMALLOC)?);
        }
        match [ALLOCATE, REALLOCATE, FREE, RELEASE_UNUSED].iter().all(|place| seen.contains(place)) {
            true => Ok(library),
            false => Err("Arrow's library does not tell where its pools' functions are; use arrow=mimalloc".to_owned()),
        }
    }

    fn exported(&self, name: &CStr) -> Result<*mut c_void, String> {
        // SAFETY: an open handle, and a name that ends in a zero byte.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if address.is_null() {
            let name = name.to_string_lossy();
            return Err(format!("Arrow's library has no {name}; install pyarrow 12 or later"));
        }
        Ok(address)
    }

    /// Whether the functions that are exported under these names stand where they must; the places that were compared.
    fn compare(&self, table: *const *const c_void, names: &[(usize, &CStr)]) -> Result<Vec<usize>, String> {
        let mut seen = Vec::new();
        for (place, name) in names {
            let Ok(expected) = self.exported(name) else { continue };
            seen.push(*place);
            // SAFETY: a class that derives from `MemoryPool` has more virtual functions than these places.
            if unsafe { table.add(*place).read() } != expected.cast_const() {
                let name = name.to_string_lossy();
                return Err(format!(
                    "{name} of Arrow's library is not where it was up to Arrow 26; use arrow=mimalloc"
                ));
            }
        }
        Ok(seen)
    }

    fn object(&self, getter: &CStr) -> Result<*mut c_void, String> {
        let getter_address = self.exported(getter)?;
        let mut object = std::ptr::null_mut();
        if getter == GET_SYSTEM {
            // SAFETY: this is the function's type in every version.
            let get = unsafe { std::mem::transmute::<*mut c_void, SystemPool>(getter_address) };
            // SAFETY: no precondition.
            object = unsafe { get() };
        } else {
            // SAFETY: this is the function's type in every version.
            let get = unsafe { std::mem::transmute::<*mut c_void, GetPool>(getter_address) };
            // SAFETY: `object` may be written. A build without this allocator returns a failure and writes nothing.
            let _ = unsafe { get(&raw mut object) };
        }
        if object.is_null() {
            return Err(
                "this build of Arrow has no such pool; choose another one of mimalloc, jemalloc, system".to_owned()
            );
        }
        Ok(object)
    }

    /// One of the pools, or what is wrong.
    pub(super) fn pool(&self, kind: super::Kind) -> Result<Pool, String> {
        let object = self.object(match kind {
            super::Kind::Mimalloc => GET_MIMALLOC,
            super::Kind::Jemalloc => GET_JEMALLOC,
            super::Kind::System => GET_SYSTEM,
        })?;
        let table = table_of(object);
        // SAFETY: the places were compared when the library was loaded, and hold functions of these types.
        let mut pool = unsafe {
            Pool {
                object,
                allocate: std::mem::transmute::<
                    *const c_void,
                    unsafe extern "C" fn(*mut c_void, i64, i64, *mut *mut c_void) -> Returned,
                >(table.add(ALLOCATE).read()),
                reallocate: std::mem::transmute::<
                    *const c_void,
                    unsafe extern "C" fn(*mut c_void, i64, i64, i64, *mut *mut c_void) -> Returned,
                >(table.add(REALLOCATE).read()),
                free: std::mem::transmute::<*const c_void, unsafe extern "C" fn(*mut c_void, *mut c_void, i64, i64)>(
                    table.add(FREE).read(),
                ),
                release_unused: std::mem::transmute::<*const c_void, unsafe extern "C" fn(*mut c_void)>(
                    table.add(RELEASE_UNUSED).read(),
                ),
                no_bytes: std::ptr::null_mut(),
            }
        };
        // SAFETY: the pool's own function and object; a request of no bytes reaches no allocator.
        let asked = unsafe { (pool.allocate)(object, 0, ALIGNMENT_BYTES as i64, &raw mut pool.no_bytes) };
        if !asked.is_ok() {
            return Err("Arrow's pool refuses a block of no bytes; use arrow=mimalloc".to_owned());
        }
        Ok(pool)
    }

    /// Where a function lies that every version exports.
    pub(super) fn build_info(&self) -> *const c_void {
        self.exported(GET_BUILD_INFO).unwrap_or(std::ptr::null_mut()).cast_const()
    }

    /// Version of Arrow, such as `26.0.1`.
    pub(super) fn version(&self) -> String {
        let Ok(get) = self.exported(GET_BUILD_INFO) else { return "unknown".to_owned() };
        // SAFETY: the function returns a reference to a structure that lives for ever and begins with four `int`s.
        let [_, major, minor, patch] = unsafe { *std::mem::transmute::<*mut c_void, BuildInfo>(get)() };
        format!("{major}.{minor}.{patch}")
    }
}

/// The table of virtual functions of an object.
fn table_of(object: *mut c_void) -> *const *const c_void {
    // SAFETY: an object of a class with virtual functions begins with their table's address.
    unsafe { object.cast::<*const *const c_void>().read() }
}

fn loader_error() -> String {
    // SAFETY: no precondition; the string is valid until the next call of the loader.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "the loader gives no reason".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
