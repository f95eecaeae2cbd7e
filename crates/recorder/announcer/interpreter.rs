//! CPython: how its exit is noticed. The moment is the recorder's `finalising`: threads joined, live set still live.
//!
//! Up to 3.12 CPython takes its lock of thread states first when its exit has begun, by `sem_wait`, which passes
//! through here. From 3.13 on CPython calls what was registered for its exit. The announcer registers its function
//! between two bytecodes, on a thread that runs in the interpreter.
//!
//! Invariant: asks at most once at a time; a process without CPython's interface is left alone.

use crate::python_api::{Api, AtExit, Lock};
use crate::{channel, ending, sys};
use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

/// No CPython here, or nobody listens.
const ABSENT: u32 = 0;
/// CPython was not seen to run.
const WAITING: u32 = 1;
/// It runs, and its exit is waited for.
const WATCHED: u32 = 2;

static STATE: AtomicU32 = AtomicU32::new(ABSENT);
/// Written by the constructor.
static INTERFACE: OnceLock<Interface> = OnceLock::new();

struct Interface {
    api: Api,
    lock: Option<Lock>,
    at_exit: Option<AtExit>,
}

/// Looks for CPython in the process. Runs in the constructor.
pub fn find() {
    let Some(api) = Api::load().filter(|_| channel::is_open()) else { return };
    if INTERFACE.set(Interface { api, lock: Lock::load(), at_exit: AtExit::load() }).is_ok() {
        STATE.store(WAITING, Ordering::Release);
    }
}

/// Watches an interpreter that has begun to work. May be called at any time on any thread.
#[inline(always)]
pub fn notice() {
    if STATE.load(Ordering::Relaxed) == WAITING {
        watch();
    }
}

#[cold]
fn watch() {
    let Some(Interface { api, at_exit, .. }) = INTERFACE.get() else { return };
    // SAFETY: may be called at any time.
    let is_working = unsafe { (api.is_initialized)() } != 0;
    if !is_working || STATE.compare_exchange(WAITING, WATCHED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: needs neither the GIL nor a thread state; the function is static.
    if at_exit.is_some() && unsafe { (api.add_pending_call)(on_pending, null_mut()) } != 0 {
        STATE.store(WAITING, Ordering::Release);
        return;
    }
    ending::watch(api.is_initialized);
}

/// Called by the interpreter between two bytecodes.
unsafe extern "C" fn on_pending(_argument: *mut c_void) -> c_int {
    if let Some(at_exit) = INTERFACE.get().and_then(|interface| interface.at_exit.as_ref()) {
        // SAFETY: the interpreter is initialised and this thread runs in it.
        unsafe { (at_exit.register)((at_exit.current_interpreter)(), on_exit, null_mut()) };
    }
    0
}

/// The interpreter calls this after every `atexit` function.
unsafe extern "C" fn on_exit(_argument: *mut c_void) {
    announce_exit();
}

/// Announces an exit that has begun. May be called at any time on any thread; only the thread that exits has the GIL.
#[inline(always)]
pub fn notice_exit() {
    if ending::has_begun() && holds_gil() {
        announce_exit();
    }
}

#[cold]
fn holds_gil() -> bool {
    // SAFETY: may be called at any time once the interpreter was initialised.
    INTERFACE.get().is_some_and(|interface| unsafe { (interface.api.holds_gil)() } != 0)
}

fn announce_exit() {
    if ending::take() {
        sys::keeping_errno(|| channel::announce(b"finalising"));
    }
}

/// Runs `body` with the interpreter's lock, so that no thread of Python runs meanwhile. A thread that Python does not
/// know, and a process without Python, have no lock to take.
pub fn locked(body: impl FnOnce()) {
    let lock = INTERFACE.get().and_then(|interface| interface.lock.as_ref());
    // SAFETY: may be called on any thread.
    let Some(lock) = lock.filter(|lock| !unsafe { (lock.own_thread_state)() }.is_null()) else { return body() };
    // SAFETY: a thread of the interpreter's.
    let before = unsafe { (lock.take)() };
    body();
    // SAFETY: taken above.
    unsafe { (lock.give_back)(before) };
}
