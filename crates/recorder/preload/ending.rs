//! The moment at which CPython's exit begins: every `atexit` function has returned, nothing has been taken down.
//!
//! `Py_FinalizeEx` joins the threads, calls the program's `atexit` functions and drops them, and then has
//! `Py_IsInitialized` return 0, before it frees anything else. CPython has this order in 3.9 to 3.13.
//!
//! Invariant: only reads. CPython's collector would count an `atexit` function of ours, and every later collection
//! would come at another moment.

use core::ffi::{c_int, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

type IsInitialized = unsafe extern "C" fn() -> c_int;

/// `Py_IsInitialized`, from the interpreter's start to the begin of its exit.
static RUNNING: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The interpreter runs: from now on its exit is waited for.
pub fn watch(is_initialized: IsInitialized) {
    RUNNING.store(is_initialized as *mut c_void, Ordering::Relaxed);
}

/// Whether the exit of a watched interpreter has begun.
#[inline(always)]
pub fn has_begun() -> bool {
    let function = RUNNING.load(Ordering::Relaxed);
    // SAFETY: stored by `watch`; may be called at any time.
    !function.is_null() && unsafe { transmute::<*mut c_void, IsInitialized>(function)() } == 0
}

/// Whether the caller is the first to take the begun exit; nobody sees it afterwards.
pub fn take() -> bool {
    !RUNNING.swap(null_mut(), Ordering::AcqRel).is_null()
}
