//! The cyclic collector: when it ran, read from the interpreter's own state at the next request of the program.
//!
//! CPython keeps, for every interpreter, `struct _gc_runtime_state`. In all versions from 3.10 on it has, one after the
//! other: the permanent generation (the head of a ring of objects, and two numbers), three counts a generation
//! (collections, collected, uncollectable), whether a collection runs, and the lists `gc.garbage` and `gc.callbacks`.
//! The sequence is searched for once; where it is not found exactly once, collections are not recorded.
//!
//! Invariant: only reads; nothing of the interpreter's is called, made or kept. An entry in `gc.callbacks` would make
//! CPython build a dictionary for each collection, which shifts the collections after it.

use crate::probe;
use crate::python_api::find;
use crate::raw::Kind;
use crate::stream::Thread;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

const GENERATIONS: usize = 3;
/// Words from the permanent generation to what follows it.
const COUNTS: usize = 3;
const COUNTS_EACH: usize = 3;
const COLLECTING: usize = COUNTS + GENERATIONS * COUNTS_EACH;
const GARBAGE: usize = COLLECTING + 1;
const CALLBACKS: usize = GARBAGE + 1;
/// Bytes of an interpreter's state that are searched; the collector's state lies within the first 16 KiB.
const SEARCHED_BYTES: usize = 64 << 10;

/// The permanent generation of the main interpreter, once it is found.
static STATE: AtomicPtr<u64> = AtomicPtr::new(null_mut());
/// Collections by generation when last looked at.
static SEEN: [AtomicU64; GENERATIONS] = [const { AtomicU64::new(0) }; GENERATIONS];
/// Whether a collection ran when last looked at: the interpreter's own word.
static RAN: AtomicU64 = AtomicU64::new(0);
/// Whether a start was recorded without its end.
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Looks for the collector's state. The interpreter is initialised, and this thread runs in it.
pub fn find_state() {
    let main = find(c"PyInterpreterState_Main");
    let list_type = find(c"PyList_Type");
    let (Some(main), Some(list_type)) = (main, list_type) else { return };
    // SAFETY: the function of this name has this type since Python 3.7.
    let main = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut u64>(main) };
    // SAFETY: may be called at any time once the interpreter is initialised.
    let base = unsafe { main() };
    let words = probe::mapped_bytes(base as usize, SEARCHED_BYTES) / 8;
    let is_state = |at: &*mut u64| is_collector(*at, list_type as u64);
    // SAFETY: inside the interpreter's state as far as it is mapped.
    let mut found = (0..words.saturating_sub(CALLBACKS)).map(|index| unsafe { base.add(index) }).filter(is_state);
    let (first, second) = (found.next(), found.next());
    if let (Some(state), None) = (first, second) {
        for (seen, now) in SEEN.iter().zip(collections(state)) {
            seen.store(now, Ordering::Relaxed);
        }
        STATE.store(state, Ordering::Release);
    }
}

/// Whether the collector's state is there: the head of a ring, then what has to follow.
fn is_collector(at: *mut u64, list_type: u64) -> bool {
    // SAFETY: mapped memory; `find_state` leaves room for the words that follow.
    let word = |index: usize| unsafe { at.add(index).read() };
    // A word of memory that any number may point to.
    let read = |address: u64| {
        let is_mapped = address != 0 && address % 8 == 0 && probe::mapped_bytes(address as usize, 8) == 8;
        // SAFETY: mapped.
        is_mapped.then(|| unsafe { (address as *const u64).read() })
    };
    // The low bits of a link are flags.
    let leads_here = |link: u64| read(link).is_some_and(|target| target & !7 == at as u64);
    let is_list = |object: u64| read(object.wrapping_add(8)) == Some(list_type);
    (COUNTS..COLLECTING).all(|index| word(index) < 1 << 40)
        && word(COLLECTING) as u32 <= 1
        && leads_here((word(0) & !7).wrapping_add(8))
        && leads_here(word(1) & !7)
        && is_list(word(GARBAGE))
        && is_list(word(CALLBACKS))
}

/// Whether collections are recorded.
pub fn is_found() -> bool {
    !STATE.load(Ordering::Relaxed).is_null()
}

fn collections(state: *mut u64) -> [u64; GENERATIONS] {
    // SAFETY: verified by `find_state`; the interpreter's state lives as long as the interpreter.
    core::array::from_fn(|generation| unsafe { state.add(COUNTS + generation * COUNTS_EACH).read_volatile() })
}

/// Records what the collector did since the last request. The GIL is held, as it is in the domains `mem` and `obj`.
#[inline(always)]
pub fn look(thread: &Thread) {
    let state = STATE.load(Ordering::Relaxed);
    if state.is_null() {
        return;
    }
    let now = collections(state);
    // SAFETY: as in `collections`.
    let runs = unsafe { state.add(COLLECTING).read_volatile() } & 1;
    let is_same = (0..GENERATIONS).all(|generation| now[generation] == SEEN[generation].load(Ordering::Relaxed));
    if !is_same || runs != RAN.load(Ordering::Relaxed) {
        record(thread, now, runs);
    }
}

/// A collection whose start was not seen touched no block before its end. The count rises shortly before the
/// interpreter says that the collection is over: what runs after that is known already.
#[cold]
#[inline(never)]
fn record(thread: &Thread, now: [u64; GENERATIONS], runs: u64) {
    let mut has_ended = false;
    for (generation, (seen, now)) in SEEN.iter().zip(now).enumerate() {
        for _ in 0..now.saturating_sub(seen.swap(now, Ordering::Relaxed)) {
            has_ended = true;
            if !IS_OPEN.swap(false, Ordering::Relaxed) {
                thread.push(Kind::GcStart, 0, generation, 0, 0);
            }
            thread.push(Kind::GcStop, 0, generation, 0, 0);
        }
    }
    let is_new = RAN.swap(runs, Ordering::Relaxed) == 0 && runs == 1 && !has_ended;
    if is_new {
        IS_OPEN.store(true, Ordering::Relaxed);
        thread.push(Kind::GcStart, 0, 0, 0, 0);
    } else if runs == 0 && IS_OPEN.swap(false, Ordering::Relaxed) {
        thread.push(Kind::GcStop, 0, 0, 0, 0);
    }
}
