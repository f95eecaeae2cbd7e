//! Functions and structures of CPython's C API, looked up in the running process.
//!
//! **Invariant:** signatures are those of the headers of CPython 3.10 to 3.13; a symbol that is missing is an error of
//! the caller's choice and never a null pointer.

use libc::{FILE, c_char, c_int, c_void};
use std::ffi::CStr;

/// `PyObject_Malloc` and its kin, as plain C functions.
#[derive(Clone, Copy, Debug)]
pub struct Functions {
    /// `PyObject_Malloc(size)`.
    pub malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// `PyObject_Calloc(count, size)`.
    pub calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `PyObject_Realloc(block, size)`.
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// `PyObject_Free(block)`.
    pub free: unsafe extern "C" fn(*mut c_void),
}

/// `PyMemAllocatorEx`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct MemAllocator {
    pub(crate) context: *mut c_void,
    pub(crate) malloc: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    pub(crate) calloc: Option<unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void>,
    pub(crate) realloc: Option<unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void>,
    pub(crate) free: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
}

impl MemAllocator {
    pub(crate) const NONE: Self =
        Self { context: std::ptr::null_mut(), malloc: None, calloc: None, realloc: None, free: None };
}

/// `PyObjectArenaAllocator`.
#[repr(C)]
pub(crate) struct ArenaAllocator {
    pub(crate) context: *mut c_void,
    pub(crate) allocate: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    pub(crate) free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// `PYMEM_DOMAIN_RAW`, `PYMEM_DOMAIN_MEM` and `PYMEM_DOMAIN_OBJ`.
pub(crate) const DOMAINS: [c_int; 3] = [0, 1, 2];

/// What bringing up and asking for statistics calls.
#[derive(Clone, Copy)]
pub(crate) struct Symbols {
    pub(crate) functions: Functions,
    pub(crate) version: unsafe extern "C" fn() -> *const c_char,
    pub(crate) get_allocator: unsafe extern "C" fn(c_int, *mut MemAllocator),
    pub(crate) set_allocator: unsafe extern "C" fn(c_int, *mut MemAllocator),
    pub(crate) set_arenas: unsafe extern "C" fn(*mut ArenaAllocator),
    pub(crate) allocator_name: unsafe extern "C" fn() -> *const c_char,
    pub(crate) print_statistics: unsafe extern "C" fn(*mut FILE) -> c_int,
    pub(crate) initialise: unsafe extern "C" fn(c_int),
}

/// Reads a symbol of the process as a function of the type that the context asks for.
macro_rules! function {
    ($name:literal) => {
        // SAFETY: a pointer to a C function of the signature that CPython's headers give for this name.
        address($name).map(|address| unsafe { std::mem::transmute::<*mut c_void, _>(address) })
    };
}

impl Symbols {
    /// Finds all symbols in the running process; the name of the first that is missing otherwise.
    pub(crate) fn of_process() -> Result<Self, &'static CStr> {
        Ok(Self {
            functions: Functions {
                malloc: function!(c"PyObject_Malloc")?,
                calloc: function!(c"PyObject_Calloc")?,
                realloc: function!(c"PyObject_Realloc")?,
                free: function!(c"PyObject_Free")?,
            },
            version: function!(c"Py_GetVersion")?,
            get_allocator: function!(c"PyMem_GetAllocator")?,
            set_allocator: function!(c"PyMem_SetAllocator")?,
            set_arenas: function!(c"PyObject_SetArenaAllocator")?,
            allocator_name: function!(c"_PyMem_GetCurrentAllocatorName")?,
            print_statistics: function!(c"_PyObject_DebugMallocStats")?,
            initialise: function!(c"Py_InitializeEx")?,
        })
    }

    /// Version and build, the two parts of what an interactive interpreter prints first.
    pub(crate) fn banner(&self) -> (String, String) {
        // SAFETY: may be called at any time and returns a static string.
        let whole = unsafe { text((self.version)()) };
        let mut words = whole.split_whitespace().map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect::<Vec<_>>().join(" "))
    }
}

/// `PyStatus`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Status {
    /// 0: well; 1: an error; 2: the process should end.
    kind: c_int,
    function: *const c_char,
    message: *const c_char,
    exit_code: c_int,
}

/// Room for a `PyPreConfig`, which is 10 C `int`s long in 3.13.
type PreConfig = [c_int; 64];

/// Has the library read `PYTHONMALLOC` and choose its allocators, as it does first of all when Python starts.
///
/// # Errors
/// The name of a function that this version has not, or what the library says against it.
///
/// # Safety
/// One thread, and nothing of the library was used before.
pub(crate) unsafe fn choose_allocators() -> Result<(), String> {
    let missing = |name: &CStr| name.to_string_lossy().into_owned();
    let fill: unsafe extern "C" fn(*mut PreConfig) = function!(c"PyPreConfig_InitPythonConfig").map_err(missing)?;
    let start: unsafe extern "C" fn(*const PreConfig) -> Status = function!(c"Py_PreInitialize").map_err(missing)?;
    let mut config: PreConfig = [0; 64];
    // SAFETY: the caller's promise; there is more room than any version needs, and a message is a static string.
    unsafe {
        fill(&raw mut config);
        let status = start(&raw const config);
        if status.kind == 0 { Ok(()) } else { Err(text(status.message)) }
    }
}

/// # Safety
/// `pointer` is null or a terminated string.
pub(crate) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return "nothing known".to_owned();
    }
    // SAFETY: by contract.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Sets one of CPython's global flags, if this version still has it.
pub(crate) fn set_flag(name: &'static CStr) {
    if let Ok(flag) = address(name) {
        // SAFETY: the flags are C `int`s, and no interpreter runs yet that could read them at the same time.
        unsafe { flag.cast::<c_int>().write(1) };
    }
}

/// Address of a symbol that is visible in the whole process.
fn address(name: &'static CStr) -> Result<*mut c_void, &'static CStr> {
    // SAFETY: a lookup by a terminated name; it changes nothing.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if address.is_null() { Err(name) } else { Ok(address) }
}
