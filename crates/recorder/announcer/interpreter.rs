//! CPython: has it call back once it is initialised, and registers an exit function before the program's own, so that
//! it runs last of all. The moment is the recorder's `finalising`: threads joined, live set still live.
//!
//! Invariant: asks at most once at a time; a process without CPython's interface is left alone.

use crate::channel;
use crate::python_api::{Api, Lock, METH_VARARGS, Method, Object, find as find_symbol};
use core::ffi::{c_int, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::OnceLock;

/// No CPython here, or nobody listens.
const ABSENT: u32 = 0;
/// CPython has not been asked.
const WAITING: u32 = 1;
/// It was asked, and has not called yet.
const ASKED: u32 = 2;
/// The exit function is registered.
const INSTALLED: u32 = 3;

static STATE: AtomicU32 = AtomicU32::new(ABSENT);
/// Written by the constructor.
static API: OnceLock<(Api, Option<Lock>)> = OnceLock::new();
static NONE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

static ON_EXIT: Method = Method { name: c"exit".as_ptr(), function: on_exit, flags: METH_VARARGS, doc: null() };

/// Looks for CPython in the process. Runs in the constructor.
pub fn find() {
    let Some(api) = Api::load().filter(|_| channel::is_open()) else { return };
    if API.set((api, Lock::load())).is_ok() {
        NONE.store(find_symbol(c"_Py_NoneStruct").unwrap_or(null_mut()), Ordering::Relaxed);
        STATE.store(WAITING, Ordering::Release);
    }
}

/// Asks an interpreter that has begun to work for a call back. May be called at any time on any thread.
#[inline(always)]
pub fn notice() {
    if STATE.load(Ordering::Relaxed) == WAITING {
        ask();
    }
}

#[cold]
fn ask() {
    let Some((api, _)) = API.get() else { return };
    // SAFETY: may be called at any time.
    let is_working = unsafe { (api.is_initialized)() } != 0;
    if !is_working || STATE.compare_exchange(WAITING, ASKED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: needs neither the GIL nor a thread state; the function is static.
    if unsafe { (api.add_pending_call)(on_pending, null_mut()) } != 0 {
        STATE.store(WAITING, Ordering::Release);
    }
}

/// Called by the interpreter between two bytecodes.
unsafe extern "C" fn on_pending(_argument: *mut c_void) -> c_int {
    let Some((api, _)) = API.get() else { return 0 };
    if !api.may_import(NONE.load(Ordering::Relaxed)) {
        STATE.store(WAITING, Ordering::Release);
        return 0;
    }
    STATE.store(INSTALLED, Ordering::Release);
    // SAFETY: the interpreter is initialised and this thread runs in it.
    unsafe {
        api.call_with(c"atexit", c"register", &ON_EXIT);
        (api.clear_error)();
    }
    0
}

/// `atexit` calls this after every function of the program's own.
unsafe extern "C" fn on_exit(_own: Object, _arguments: Object) -> Object {
    channel::announce(b"finalising");
    let none = NONE.load(Ordering::Relaxed);
    if let Some((api, _)) = API.get() {
        // SAFETY: the one object of that name, or null, which is allowed.
        unsafe { (api.increment)(none) };
    }
    none
}

/// Runs `body` with the interpreter's lock, so that no thread of Python runs meanwhile. A thread that Python does not
/// know, and a process without Python, have no lock to take.
pub fn locked(body: impl FnOnce()) {
    let lock = API.get().and_then(|(_, lock)| lock.as_ref());
    // SAFETY: may be called on any thread.
    let Some(lock) = lock.filter(|lock| !unsafe { (lock.own_thread_state)() }.is_null()) else { return body() };
    // SAFETY: a thread of the interpreter's.
    let before = unsafe { (lock.take)() };
    body();
    // SAFETY: taken above.
    unsafe { (lock.give_back)(before) };
}
