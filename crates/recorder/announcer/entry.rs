//! What the program calls: `pyalloc_mark`, and functions of the C library that pass through here.
//!
//! The interpreter reads files as soon as it works: its own start-up modules, then the program. The first such call
//! after it says that it is initialised is the moment to ask it for a call back.
//!
//! Invariant: each entry does what the C library's does, through the definition that comes next in the search order.

use crate::interpreter::{notice, notice_exit};
use crate::{channel, interpreter, sys};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    channel::open();
    interpreter::find();
}

/// The program's own mark, to be called through `ctypes`. At most 31 bytes of the name are kept.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
// SAFETY: no other library has this symbol but the recorder's, which is not loaded beside this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyalloc_mark(name: *const c_char) {
    if !name.is_null() {
        interpreter::notice();
        // SAFETY: the caller's word.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        sys::keeping_errno(|| interpreter::locked(|| channel::announce(&name[..name.len().min(31)])));
    }
}

/// Defines functions that call `$first` and then the next definition of the same name. `$missing` is
/// the answer where there is none, which the loader has ruled out for every name that the program was linked to.
macro_rules! passing_through {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty, $symbol:literal, $first:path, $missing:expr;)*) => {$(
        /// # Safety
        /// As the C library's.
        // SAFETY: the symbol is meant to stand before the C library's, with the same signature.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
            static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
            $first();
            let mut next = NEXT.load(Ordering::Relaxed);
            if next.is_null() {
                // SAFETY: a NUL-terminated name.
                next = unsafe { sys::dlsym(sys::RTLD_NEXT, $symbol.as_ptr()) };
                NEXT.store(next, Ordering::Relaxed);
            }
            if next.is_null() {
                return $missing;
            }
            // SAFETY: the function of this name has this signature.
            let next = unsafe { transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> $result>(next) };
            // SAFETY: the program's own arguments.
            unsafe { next($($argument),*) }
        }
    )*};
}

// `open64` is variadic in C; on x86-64 its third argument travels in the same register either way.
passing_through! {
    open64(path: *const c_char, flags: c_int, mode: c_int) -> c_int, c"open64", notice, -1;
    fopen64(path: *const c_char, mode: *const c_char) -> *mut c_void, c"fopen64", notice, null_mut();
    stat64(path: *const c_char, facts: *mut c_void) -> c_int, c"stat64", notice, -1;
    __xstat64(version: c_int, path: *const c_char, facts: *mut c_void) -> c_int, c"__xstat64", notice, -1;
    read(fd: c_int, buffer: *mut c_void, bytes: usize) -> isize, c"read", notice, -1;
    sem_wait(semaphore: *mut c_void) -> c_int, c"sem_wait", notice_exit, -1;
    sigaction(signal: c_int, new: *const c_void, old: *mut c_void) -> c_int, c"sigaction", notice_exit, -1;
}
