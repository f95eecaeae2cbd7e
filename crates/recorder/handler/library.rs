//! The four functions of an allocator: those of the process, or of a library that is loaded for it.
//!
//! Invariant: every function of a named library lies in the very file that was named. A lookup goes on into the
//! libraries that one stands on, and would find the C library's `malloc` where it has none of its own.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::{transmute, zeroed};
use core::ptr::null;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const RTLD_NOW: c_int = 2;
const RTLD_LOCAL: c_int = 0;
const RTLD_DI_LINKMAP: c_int = 2;
/// What may stand before the names of a library's functions, as the replay looks for them. Plain names come last: a
/// library that has both may find its plain ones taken by another copy.
const PREFIXES: [&str; 5] = ["mi_", "je_", "_rjem_", "tc_", ""];
/// What the loader says when a library wants more room next to each thread's own variables than is left.
const NO_TLS: &str = "static TLS block";

type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

/// An allocator's functions.
pub struct Functions {
    pub malloc: Malloc,
    pub calloc: Calloc,
    pub realloc: Realloc,
    pub free: Free,
}

/// The begin of `struct link_map` of the C library.
#[repr(C)]
struct LinkMap {
    bias: usize,
    file: *const c_char,
}

/// `Dl_info` of the C library.
#[repr(C)]
struct Place {
    file: *const c_char,
    base: *mut c_void,
    symbol: *const c_char,
    address: *mut c_void,
}

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn calloc(count: usize, size: usize) -> *mut c_void;
    fn realloc(block: *mut c_void, bytes: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn dlinfo(handle: *mut c_void, request: c_int, answer: *mut c_void) -> c_int;
    fn dladdr(address: *const c_void, place: *mut Place) -> c_int;
}

/// Those of a library, which is loaded for good, or the process's own.
///
/// # Errors
/// A sentence about why it cannot serve.
pub fn functions(path: Option<&CStr>) -> Result<Functions, String> {
    // The names are bound by the loader, so a preloaded library stands before the C library's.
    let Some(path) = path else { return Ok(Functions { malloc, calloc, realloc, free }) };
    let shown = path.to_string_lossy();
    // SAFETY: a NUL-terminated string. Constructors of the library run: that is what loading it means.
    let handle = unsafe { dlopen(path.as_ptr(), RTLD_NOW | RTLD_LOCAL) };
    if handle.is_null() {
        let reason = said_by_loader();
        return Err(if reason.contains(NO_TLS) {
            format!("{reason}. Start Python with GLIBC_TUNABLES=glibc.rtld.optional_static_tls=65536, which makes room")
        } else {
            format!("{reason}. Give a shared library that is an allocator for this machine")
        });
    }
    let object =
        file_of(handle).ok_or_else(|| format!("{shown}: the loader does not say which file it is. Give its path"))?;
    PREFIXES.iter().find_map(|prefix| of_library(handle, prefix, object)).ok_or_else(|| {
        format!("{shown} is no allocator: it lacks one of malloc, calloc, realloc, free. Give one that has all four")
    })
}

fn said_by_loader() -> String {
    // SAFETY: no precondition; null, or a string that lives until the next call on this thread.
    let said = unsafe { dlerror() };
    if said.is_null() {
        return "the loader does not say why".to_owned();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned()
}

/// The file of a library, as the loader names it.
fn file_of<'a>(handle: *mut c_void) -> Option<&'a CStr> {
    let mut map: *const LinkMap = null();
    // SAFETY: a handle of the loader's; `map` may be written.
    if unsafe { dlinfo(handle, RTLD_DI_LINKMAP, (&raw mut map).cast()) } != 0 || map.is_null() {
        return None;
    }
    // SAFETY: the loader's own entry for a library that stays loaded.
    Some(unsafe { CStr::from_ptr((*map).file) })
}

fn of_library(handle: *mut c_void, prefix: &str, file: &CStr) -> Option<Functions> {
    let find = |name: &str| {
        let mut whole = [0_u8; 32];
        for (to, from) in whole.iter_mut().zip(prefix.bytes().chain(name.bytes())) {
            *to = from;
        }
        let name = CStr::from_bytes_until_nul(&whole).ok()?;
        // SAFETY: a handle of the loader's, and a NUL-terminated name.
        let found = unsafe { dlsym(handle, name.as_ptr()) };
        (!found.is_null() && lies_in(found, file)).then_some(found)
    };
    let (malloc, calloc) = (find("malloc")?, find("calloc")?);
    let (realloc, free) = (find("realloc")?, find("free")?);
    // SAFETY: functions of these names have these types, in the C library as in whatever stands in for it.
    Some(unsafe {
        Functions {
            malloc: transmute::<*mut c_void, Malloc>(malloc),
            calloc: transmute::<*mut c_void, Calloc>(calloc),
            realloc: transmute::<*mut c_void, Realloc>(realloc),
            free: transmute::<*mut c_void, Free>(free),
        }
    })
}

fn lies_in(address: *const c_void, file: &CStr) -> bool {
    // SAFETY: a structure of addresses.
    let mut place: Place = unsafe { zeroed() };
    // SAFETY: any address may be asked about; `place` may be written.
    if unsafe { dladdr(address, &raw mut place) } == 0 || place.file.is_null() {
        return false;
    }
    // SAFETY: the loader's string, which lives as long as the library.
    unsafe { CStr::from_ptr(place.file) == file }
}

/// A file's name without its folder.
pub fn base_name(text: &CStr) -> &[u8] {
    Path::new(OsStr::from_bytes(text.to_bytes())).file_name().map_or(b"?", OsStr::as_bytes)
}
