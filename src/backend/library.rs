//! A malloc library by path, loaded into the process: `library:/abs/path.so`.
//!
//! Invariant: every entry point lies in the file that was named; a library without one of them is refused.

use super::family::Family;
use super::family::symbols::Symbols;
use super::{Backend, Need, Ready, Role};
use crate::heap::Entry;
use libc::c_void;
use std::ffi::CString;
use std::path::Path;

/// Key of the backend that takes the path of a library.
pub const LIBRARY_KEY: &str = "library";

/// `library`.
pub(super) const BACKEND: Backend = Backend { key: LIBRARY_KEY, label: "library", role: Role::ByArgument, prepare };

/// What may stand before the names of a library's functions. Plain names come last: a library that has both may find
/// its plain ones taken by another copy.
const PREFIXES: [&str; 5] = ["mi_", "je_", "_rjem_", "tc_", ""];

type Sized1 = unsafe extern "C" fn(usize) -> *mut c_void;
type Sized2 = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Resize = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Release = unsafe extern "C" fn(*mut c_void);
type Usable = unsafe extern "C" fn(*mut c_void) -> usize;

fn prepare(need: &Need) -> Result<Ready, String> {
    let path = Path::new(&need.argument);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let symbols = Symbols::load(path)
        .map_err(|error| format!("{name} cannot be loaded: {error}. Give a library that is an allocator"))?;
    let entry = PREFIXES.iter().find_map(|prefix| entry(&symbols, prefix)).ok_or_else(|| {
        format!("{name} is no allocator: it lacks one of malloc, calloc, realloc, free, memalign, malloc_usable_size")
    })?;
    let object = symbols.object.clone();
    Ok(Family::of(&symbols).ready(entry, object))
}

fn entry(symbols: &Symbols, prefix: &str) -> Option<Entry> {
    let find = |names: &[&str]| {
        let named = |name: &&str| symbols.find(&CString::new(format!("{prefix}{name}")).ok()?);
        names.iter().find_map(named)
    };
    let malloc = find(&["malloc"])?;
    let calloc = find(&["calloc"])?;
    let realloc = find(&["realloc"])?;
    let free = find(&["free"])?;
    let aligned = find(&["memalign", "aligned_alloc"])?;
    let usable_size = find(&["malloc_usable_size", "usable_size", "malloc_size"])?;
    // SAFETY: functions of these names have these types, in the C library as in whatever stands in for it.
    unsafe {
        Some(Entry {
            malloc: std::mem::transmute::<*mut c_void, Sized1>(malloc),
            calloc: std::mem::transmute::<*mut c_void, Sized2>(calloc),
            realloc: std::mem::transmute::<*mut c_void, Resize>(realloc),
            free: std::mem::transmute::<*mut c_void, Release>(free),
            aligned: std::mem::transmute::<*mut c_void, Sized2>(aligned),
            usable_size: std::mem::transmute::<*mut c_void, Usable>(usable_size),
            sized: None,
        })
    }
}
