//! What happens to the process: marks, time limits, forks, thread ends, its exit.
//!
//! Invariant: the CPU time that a reading costs is taken off later readings.

use crate::lock::Spin;
use crate::raw::{Kind, MARK_BYTES, MARKS_AT, MARKS_MAX, flag, mark, stop, word};
use crate::stream::{self, Thread};
use crate::{large, mapped, probe, python, recording, setup, sys, threads, watch};
use core::ffi::c_void;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Guards the mark entries.
static MARK_LOCK: Spin = Spin::new();
static OWN_CPU_NS: AtomicU64 = AtomicU64::new(0);
/// Time that looks at pages took, ticks of the time stamp counter.
static OWN_TICKS: AtomicU64 = AtomicU64::new(0);
static FORK_SEQ: AtomicU64 = AtomicU64::new(0);
static FINISHED: AtomicBool = AtomicBool::new(false);
static AFTER_PASSED: AtomicBool = AtomicBool::new(false);
static SNAPSHOT_NS: AtomicU64 = AtomicU64::new(0);
/// Thread-exit key plus one; 0 before the constructor ran.
static EXIT_KEY: AtomicU32 = AtomicU32::new(0);
/// POSIX gives destructors this many rounds; the last one comes after the other libraries' frees.
const EXIT_ROUNDS: u32 = 4;
const SNAPSHOT_EVERY_NS: u64 = 500_000_000;
/// Mark entries that are left to the recorder's own marks, and again as many to those and the program's.
const MARKS_KEPT_FREE: usize = 16;

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destruct;

extern "C" fn construct() {
    stream::with(|thread| {
        thread.holding(|| {
            let mut key = 0;
            // SAFETY: the destructor has the right type.
            if unsafe { sys::pthread_key_create(&mut key, Some(thread_exit)) } == 0 {
                EXIT_KEY.store(key + 1, Ordering::Release);
            }
            // SAFETY: the three handlers stay valid as long as the library, which is never unloaded.
            unsafe { sys::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child)) };
        });
    });
    python::wrap();
}

extern "C" fn destruct() {
    finish(0);
}

/// Asks to be told when the calling thread ends.
pub fn watch_thread_end() {
    let key = EXIT_KEY.load(Ordering::Acquire);
    if key != 0 {
        // SAFETY: a key made by the constructor.
        unsafe { sys::pthread_setspecific(key - 1, 1 as *const c_void) };
    }
}

extern "C" fn thread_exit(_value: *mut c_void) {
    stream::with(|thread| {
        thread.exit_rounds.set(thread.exit_rounds.get() + 1);
        if thread.exit_rounds.get() < EXIT_ROUNDS {
            thread.holding(watch_thread_end);
            return;
        }
        thread.push(Kind::ThreadEnd, 0, 0, 0, 0);
        sys::keeping_errno(|| thread.leave());
        threads::note_end(thread);
    });
}

extern "C" fn before_fork() {
    MARK_LOCK.lock();
    large::LOCK.lock();
    mapped::LOCK.lock();
    probe::LOCK.lock();
    FORK_SEQ.store(stream::sequence(), Ordering::Release);
}

extern "C" fn after_fork_parent() {
    probe::LOCK.unlock();
    mapped::LOCK.unlock();
    large::LOCK.unlock();
    MARK_LOCK.unlock();
    stream::with(|thread| thread.push(Kind::Fork, 0, 0, 0, 0));
}

extern "C" fn after_fork_child() {
    probe::LOCK.unlock();
    mapped::LOCK.unlock();
    large::LOCK.unlock();
    MARK_LOCK.unlock();
    stream::with(|thread| {
        thread.begin_anew();
        threads::begin_anew(thread);
        recording::forget_after_fork(FORK_SEQ.load(Ordering::Acquire));
    });
    OWN_CPU_NS.store(0, Ordering::Relaxed);
    OWN_TICKS.store(0, Ordering::Relaxed);
    SNAPSHOT_NS.store(0, Ordering::Relaxed);
    FINISHED.store(false, Ordering::Relaxed);
    AFTER_PASSED.store(false, Ordering::Relaxed);
    watch::begin_anew();
    python::begin_anew();
}

/// CPU time of the process, all threads, less what readings and looks at pages cost, nanoseconds.
pub fn cpu_ns() -> u64 {
    let own_ticks = u128::from(OWN_TICKS.load(Ordering::Relaxed));
    let (ns, ticks) = (u128::from(recording::elapsed_ns()), u128::from(stream::elapsed_ticks()));
    let looks_ns = (own_ticks * ns).checked_div(ticks).unwrap_or(0) as u64;
    let own_ns = OWN_CPU_NS.load(Ordering::Relaxed).saturating_add(looks_ns);
    sys::clock_ns(sys::CLOCK_PROCESS_CPUTIME_ID).saturating_sub(own_ns)
}

/// Runs work of the recorder's own that takes more than a record does, and keeps account of its time. No mark is made
/// within.
pub fn own<T>(body: impl FnOnce() -> T) -> T {
    let begin = sys::ticks();
    let result = body();
    OWN_TICKS.fetch_add(sys::ticks().wrapping_sub(begin), Ordering::Relaxed);
    result
}

/// A mark that the program made.
pub fn mark_by_program(name: &[u8]) {
    if name == b"steady" {
        python::stop_looking_for_steady();
    }
    wait_for_ending_threads();
    mark(name, mark::BY_PROGRAM);
}

/// Makes a mark, with a reading of clocks and memory.
pub fn mark(name: &[u8], by: u64) {
    if !recording::is_active() {
        return;
    }
    watch::while_marking(|| {
        stream::with(|thread| sys::keeping_errno(|| thread.holding(|| make_mark(thread, name, by))));
    });
}

fn make_mark(thread: &Thread, name: &[u8], by: u64) {
    let cpu = cpu_ns();
    MARK_LOCK.lock();
    let seq = stream::sequence();
    let index = enter(name, by, seq, cpu);
    MARK_LOCK.unlock();
    let is_in_trace = matches!(by, mark::BY_PROGRAM | mark::BY_RECORDER | mark::AT_MAXIMUM);
    if let Some((index, is_new)) = index {
        if is_in_trace {
            thread.push(Kind::Mark, 0, index, 0, 0);
        }
        if is_new {
            read_memory(index);
        }
        if is_new && is_in_trace {
            mapped::record_resident(thread, index);
        }
    }
    if by != mark::AT_MAXIMUM {
        probe::snapshot_mappings();
    }
    recording::stamp_clocks();
    OWN_CPU_NS.fetch_add(cpu_ns().saturating_sub(cpu), Ordering::Relaxed);
}

/// Finds room for a mark: its entry, and whether the entry is new. With the table full, an old entry of the same
/// name stands in, without a reading of its own. `MARK_LOCK` is held.
fn enter(name: &[u8], by: u64, seq: u64, cpu: u64) -> Option<(usize, bool)> {
    let name = &name[..name.len().min(MARK_BYTES - mark::NAME_AT - 1).min(31)];
    let used = recording::header(word::MARKS)?.load(Ordering::Relaxed) as usize;
    // SAFETY: the lock is held.
    let area = unsafe { recording::area(MARKS_AT, MARKS_MAX * MARK_BYTES) }?;
    let room = match by {
        mark::AT_MAXIMUM => MARKS_MAX - MARKS_KEPT_FREE * 2,
        mark::BY_PROGRAM => MARKS_MAX - MARKS_KEPT_FREE,
        _ => MARKS_MAX,
    };
    if used >= room {
        if by == mark::AT_MAXIMUM {
            return None;
        }
        let is_same = |entry: &[u8]| entry[mark::NAME_AT..].starts_with(name) && entry[mark::NAME_AT + name.len()] == 0;
        return area.chunks_exact(MARK_BYTES).position(is_same).map(|index| (index, false));
    }
    let entry = &mut area[used * MARK_BYTES..][..MARK_BYTES];
    put(entry, mark::SEQ, seq);
    put(entry, mark::CPU_NS, cpu);
    put(entry, mark::WALL_NS, recording::elapsed_ns());
    put(entry, mark::KIND, by);
    entry[mark::NAME_AT..][..name.len()].copy_from_slice(name);
    recording::set(word::MARKS, used as u64 + 1);
    Some((used, true))
}

fn read_memory(index: usize) {
    let memory = probe::memory();
    // SAFETY: the entry is this mark's own.
    if let Some(entry) = unsafe { recording::area(MARKS_AT + index * MARK_BYTES, MARK_BYTES) } {
        for (offset, bytes) in memory.into_iter().enumerate() {
            put(entry, mark::RSS + offset, bytes);
        }
    }
}

fn put(entry: &mut [u8], index: usize, value: u64) {
    entry[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
}

/// A thread has filled a window: from time to time the code mappings are noted, so that call sites can be named even
/// when the program is killed.
pub fn rolled_over() {
    let now = recording::elapsed_ns();
    if now.saturating_sub(SNAPSHOT_NS.load(Ordering::Relaxed)) >= SNAPSHOT_EVERY_NS {
        SNAPSHOT_NS.store(now, Ordering::Relaxed);
        probe::snapshot_mappings();
        recording::stamp_clocks();
    }
    watch::look(now);
}

/// Looks at the clock for `--after` and `--for`.
pub fn deadline(thread: &Thread) {
    let (after, limit) = (setup::get().after_ns, setup::get().for_ns);
    let elapsed = recording::elapsed_ns();
    if after != 0 && elapsed >= after && !AFTER_PASSED.swap(true, Ordering::Relaxed) {
        python::stop_looking_for_steady();
        note_steady(stream::sequence(), cpu_ns());
        mark(b"after", mark::AFTER_STARTUP);
    }
    if limit != 0 && elapsed >= after + limit && recording::is_active() {
        mark(b"for", mark::AT_EXIT);
        large::record_touched(thread);
        python::note_state();
        recording::end(stop::TIME, 0);
    }
}

/// Notes where start-up was over.
pub fn note_steady(seq: u64, cpu: u64) {
    recording::set(word::STEADY_SEQ, seq);
    recording::set(word::STEADY_CPU_NS, cpu);
    recording::set(word::STEADY_WALL_NS, recording::elapsed_ns());
}

/// Has the ends of threads that were joined recorded before the mark that follows.
fn wait_for_ending_threads() {
    if recording::is_active() {
        stream::with(|thread| sys::keeping_errno(|| thread.holding(threads::wait_for_ending)));
    }
}

/// Interpreter exit has begun: the live set is still live.
pub fn finalising() {
    wait_for_ending_threads();
    mark(b"finalising", mark::BY_RECORDER);
    stream::with(|thread| sys::keeping_errno(|| thread.holding(|| large::record_touched(thread))));
}

/// The process is about to be gone.
pub fn finish(flags: u64) {
    // SAFETY: no preconditions.
    let pid = unsafe { sys::getpid() } as u64;
    // A vforked child shares this memory and leaves through `_exit`.
    let is_ours = recording::header(word::PID).is_some_and(|cell| cell.load(Ordering::Relaxed) == pid);
    if !is_ours || FINISHED.swap(true, Ordering::AcqRel) {
        return;
    }
    if recording::is_active() {
        if !python::has_finalised() {
            mark(b"exit", mark::AT_EXIT);
            python::note_state();
        }
        stream::with(|thread| thread.holding(|| large::record_touched(thread)));
        if let Some(cell) = recording::header(word::STOP) {
            let _ = cell.compare_exchange(stop::RUNNING, stop::EXIT, Ordering::Relaxed, Ordering::Relaxed);
        }
        probe::snapshot_mappings();
    }
    recording::add_flags(flags & flag::RAW_EXIT);
    recording::stamp_clocks();
}
