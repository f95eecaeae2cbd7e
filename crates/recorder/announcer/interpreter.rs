//! CPython: how its exit is noticed. The moment is the recorder's `finalising`: threads joined, live set still live.
//!
//! Up to 3.12 CPython takes its lock of thread states first when its exit has begun, by `sem_wait`, which passes
//! through here. From 3.13 on it next takes back the handlers of signals that Python has, by `sigaction`. So that there
//! is one, the announcer gives [`SIGNAL`] a handler, between two bytecodes and through Python's own function.
//!
//! Invariant: asks at most once at a time; a process without CPython's interface is left alone.

use crate::python_api::{Api, Call, Lock, Object, find as find_symbol};
use crate::{channel, ending, sys};
use core::ffi::{CStr, c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

/// No CPython here, or nobody listens.
const ABSENT: u32 = 0;
/// CPython was not seen to run.
const WAITING: u32 = 1;
/// It runs, and its exit is waited for.
const WATCHED: u32 = 2;
/// The last of the real-time signals, which nothing sends.
const SIGNAL: i64 = 64;

static STATE: AtomicU32 = AtomicU32::new(ABSENT);
/// Written by the constructor.
static INTERFACE: OnceLock<Interface> = OnceLock::new();

struct Interface {
    api: Api,
    lock: Option<Lock>,
    /// From CPython 3.13 on.
    call: Option<Call>,
}

/// Looks for CPython in the process. Runs in the constructor.
pub fn find() {
    let Some(api) = Api::load().filter(|_| channel::is_open()) else { return };
    let call = find_symbol(c"PyUnstable_AtExit").and_then(|_| Call::load());
    if INTERFACE.set(Interface { api, lock: Lock::load(), call }).is_ok() {
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
    let Some(Interface { api, call, .. }) = INTERFACE.get() else { return };
    // SAFETY: may be called at any time.
    let is_working = unsafe { (api.is_initialized)() } != 0;
    if !is_working || STATE.compare_exchange(WAITING, WATCHED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    // SAFETY: needs neither the GIL nor a thread state; the function is static.
    if call.is_some() && unsafe { (api.add_pending_call)(on_pending, null_mut()) } != 0 {
        STATE.store(WAITING, Ordering::Release);
        return;
    }
    ending::watch(api.is_initialized);
}

/// Called by the interpreter between two bytecodes.
unsafe extern "C" fn on_pending(_argument: *mut c_void) -> c_int {
    if let Some(Interface { api, call: Some(call), .. }) = INTERFACE.get() {
        // SAFETY: the interpreter is initialised and this thread runs in it.
        unsafe { handle_signal(api, call) };
    }
    0
}

/// `signal.signal(SIGNAL, signal.default_int_handler)`: every object of the call is there already.
///
/// # Safety
/// The interpreter is initialised and the calling thread runs in it.
unsafe fn handle_signal(api: &Api, call: &Call) {
    // SAFETY: the caller's word; items are borrowed, other references are given back.
    unsafe {
        let item = |dictionary: Object, name: &CStr| {
            let key = (api.interned)(name.as_ptr());
            let value = (api.item)(dictionary, key);
            (api.decrement)(key);
            value
        };
        let module = item((api.modules)(), c"_signal");
        if module.is_null() {
            return;
        }
        let contents = (api.module_dictionary)(module);
        let (function, handler) = (item(contents, c"signal"), item(contents, c"default_int_handler"));
        if function.is_null() || handler.is_null() {
            return;
        }
        let arguments = [(call.number)(SIGNAL), handler];
        let before = (call.function)(function, arguments.as_ptr(), arguments.len(), null_mut());
        if before.is_null() {
            let mut error = [null_mut(); 3];
            let [kind, value, traceback] = &mut error;
            (api.take_error)(kind, value, traceback);
            error.map(|object| (api.decrement)(object));
        }
        (api.decrement)(before);
        (api.decrement)(arguments[0]);
    }
}

/// Announces an exit that has begun. May be called at any time on any thread; only the thread that exits has the GIL.
#[inline(always)]
pub fn notice_exit() {
    if ending::has_begun() && holds_gil() && ending::take() {
        sys::keeping_errno(|| channel::announce(b"finalising"));
    }
}

#[cold]
fn holds_gil() -> bool {
    // SAFETY: may be called at any time once the interpreter was initialised.
    INTERFACE.get().is_some_and(|interface| unsafe { (interface.api.holds_gil)() } != 0)
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
