//! Threads that the interpreter has let go of and the C library has not: a mark waits until they are gone.
//!
//! Up to CPython 3.12, `join` returns once a thread has released the interpreter's lock for the last time. What the
//! thread frees after that, and its end, come a moment later, and a mark may fall in between. Such a thread has no
//! thread state any more. An idle thread has one, however long it sleeps.
//!
//! Invariant: a mark waits [`WAIT_NS_MAX`] at most. Threads for which a mark waited in vain live without a thread
//! state, as those of a C library do that call Python at times; no later mark waits for them.

use crate::python_api::{Lock, States};
use crate::stream::Thread;
use crate::{python, sys};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

/// A thread that ends takes some 100 us, or a time slice of a busy host.
const WAIT_NS_MAX: u64 = 100_000_000;
const SLEEP_NS: i64 = 20_000;

/// Threads that have made a request of Python and live, and those that have ended.
static LIVING: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicUsize = AtomicUsize::new(0);
/// Threads of [`LIVING`] that live without a thread state.
static WITHOUT_STATE: AtomicUsize = AtomicUsize::new(0);
/// Written by the constructor.
static API: OnceLock<Option<(Lock, States)>> = OnceLock::new();

/// Looks for the interpreter's functions. Runs in the constructor.
pub fn find() {
    API.get_or_init(|| Lock::load().zip(States::load()));
}

/// A request of Python on this thread: the first one counts the thread.
pub fn note(thread: &Thread) {
    if !thread.is_counted.replace(true) {
        LIVING.fetch_add(1, Ordering::SeqCst);
    }
}

/// This thread ends, and has recorded that.
pub fn note_end(thread: &Thread) {
    if thread.is_counted.replace(false) {
        LIVING.fetch_sub(1, Ordering::SeqCst);
        ENDED.fetch_add(1, Ordering::SeqCst);
    }
}

/// In a forked child, which has this thread only.
pub fn begin_anew(thread: &Thread) {
    LIVING.store(usize::from(thread.is_counted.get()), Ordering::SeqCst);
    WITHOUT_STATE.store(0, Ordering::SeqCst);
}

/// Waits until every thread that the interpreter has let go of is gone. Recording is held back on this thread.
pub fn wait_for_ending() {
    // Without the lock the lists may change while they are read; `join` waits for the C library's thread there.
    let Some((lock, states)) = API.get().and_then(Option::as_ref).filter(|_| !python::is_free_threaded()) else {
        return;
    };
    // SAFETY: may be called on any thread; null on one that Python does not know.
    if LIVING.load(Ordering::SeqCst) < 2 || unsafe { (lock.own_thread_state)() }.is_null() {
        return;
    }
    // SAFETY: a thread of the interpreter's.
    let before = unsafe { (lock.take)() };
    // With the lock held no thread state is made or deleted.
    let (ended, alive) = (ENDED.load(Ordering::SeqCst), LIVING.load(Ordering::SeqCst));
    let expected = count(states) + WITHOUT_STATE.load(Ordering::SeqCst);
    // SAFETY: taken above.
    unsafe { (lock.give_back)(before) };
    let Some(ending) = alive.checked_sub(expected).filter(|ending| *ending > 0) else { return };
    let begun = sys::clock_ns(sys::CLOCK_MONOTONIC);
    loop {
        let gone = ENDED.load(Ordering::SeqCst) - ended;
        if gone >= ending {
            return;
        }
        if sys::clock_ns(sys::CLOCK_MONOTONIC) - begun > WAIT_NS_MAX {
            WITHOUT_STATE.fetch_add(ending - gone, Ordering::SeqCst);
            return;
        }
        let sleep = sys::Timespec { seconds: 0, nanoseconds: SLEEP_NS };
        // SAFETY: a live timespec; the rest is not asked for.
        unsafe { sys::syscall(sys::SYS_NANOSLEEP, &raw const sleep, null_mut::<u8>()) };
    }
}

/// Thread states of all interpreters.
fn count(states: &States) -> usize {
    let mut count = 0;
    // SAFETY: the lists change only under the interpreter's lock, which this thread holds.
    unsafe {
        let mut interpreter = (states.first_interpreter)();
        while !interpreter.is_null() {
            let mut state = (states.first_state)(interpreter);
            while !state.is_null() {
                count += 1;
                state = (states.next_state)(state);
            }
            interpreter = (states.next_interpreter)(interpreter);
        }
    }
    count
}
