//! Functions of a library that is in this process, looked up by name.
//!
//! Invariant: a function is given only if it lies in the very library that was asked for: a lookup goes on into the
//! libraries that one stands on, and would find their `malloc` where it has none.

use libc::c_void;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// A loaded library, or the program itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend) struct Object {
    base: usize,
    /// Its file, as the loader names it.
    pub(in crate::backend) file: PathBuf,
}

impl Object {
    /// What an address lies in. Allocates nothing but the path.
    pub(in crate::backend) fn of(address: *const c_void) -> Option<Self> {
        // SAFETY: a structure of addresses that may be written.
        let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: `found` may be written; any address may be asked about.
        if unsafe { libc::dladdr(address, &raw mut found) } == 0 || found.dli_fname.is_null() {
            return None;
        }
        // SAFETY: the loader's string, which lives as long as the library.
        let name = unsafe { CStr::from_ptr(found.dli_fname) };
        let file = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
        Some(Self { base: found.dli_fbase as usize, file })
    }

    /// Its file's name without the folder.
    pub(in crate::backend) fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The functions of one library.
#[derive(Clone, Debug)]
pub(in crate::backend) struct Symbols {
    handle: usize,
    /// The library.
    pub(in crate::backend) object: Object,
}

impl Symbols {
    /// Of the library that serves the process's `malloc`.
    pub(in crate::backend) fn of_process() -> Option<Self> {
        let object = Object::of(libc::malloc as *const c_void)?;
        Some(Self { handle: libc::RTLD_DEFAULT as usize, object })
    }

    /// Loads a library, for this process's whole life.
    ///
    /// # Errors
    /// What the loader says.
    pub(in crate::backend) fn load(path: &Path) -> Result<Self, String> {
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
        // SAFETY: the name ends in a zero byte. Constructors of the library run: that is what loading it means.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(loader_error());
        }
        let probe = [c"malloc", c"mi_malloc", c"je_malloc", c"_rjem_malloc", c"tc_malloc"];
        // A library may stand on one that has a `malloc`: what counts is the file that was named.
        let is_it =
            |object: &Object| object.file == path || object.file.canonicalize().ok() == path.canonicalize().ok();
        let found = probe.into_iter().filter_map(|name| Object::of(lookup(handle, name)?)).find(is_it);
        let object = found.ok_or("it has no malloc of its own")?;
        Ok(Self { handle: handle as usize, object })
    }

    /// A function of this library, if it has it.
    pub(in crate::backend) fn find(&self, name: &CStr) -> Option<*mut c_void> {
        let address = lookup(self.handle as *mut c_void, name)?;
        (Object::of(address)?.base == self.object.base).then_some(address)
    }
}

fn lookup(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a handle of the loader's, and a name that ends in a zero byte.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!address.is_null()).then_some(address)
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
