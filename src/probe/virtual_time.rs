//! Virtual time: while a footprint pass replays, every library in the process reads the recorded time.
//!
//! The program defines `clock_gettime`, `gettimeofday` and `time`. The linker exports a symbol that a shared library on
//! its command line defines as well, so these definitions win over the C library's for preloaded, loaded and linked
//! allocators alike. While virtual time is off they pass each call on.
//!
//! Invariant: nothing here allocates, keeps anything per thread, or calls std's clocks; virtual time never goes back.
//! The harness reads the kernel's clock through [`real_ns`] and never waits with a time-out of std's while virtual
//! time is on.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

/// Clocks that are served; clocks of CPU time and others pass through.
const SERVED: [libc::clockid_t; 6] = [
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_REALTIME,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_MONOTONIC_COARSE,
    libc::CLOCK_REALTIME_COARSE,
];
const NS_PER_SECOND: u64 = 1_000_000_000;
/// Virtual time that no replay passes, nanoseconds: 146 years.
const ELAPSED_NS_MAX: u64 = 1 << 62;

static IS_ON: AtomicBool = AtomicBool::new(false);
/// Virtual nanoseconds since virtual time was switched on.
static ELAPSED_NS: AtomicU64 = AtomicU64::new(0);
/// What each of [`SERVED`] showed when virtual time was switched on, nanoseconds.
static STARTS_NS: [AtomicU64; SERVED.len()] = [const { AtomicU64::new(0) }; SERVED.len()];
/// The C library's `clock_gettime`, or that of a preloaded library; null until it was looked up.
static NEXT: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// Runs before `main`, on the only thread: a look-up later could meet the loader's lock.
extern "C" fn look_up_next() {
    // SAFETY: the name ends in a zero byte. The look-up succeeds, and one that succeeds allocates nothing.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr()) };
    NEXT.store(next, Release);
}

#[used]
// SAFETY: the loader calls every function of this section once; it takes no arguments that this one would need.
#[unsafe(link_section = ".init_array")]
static LOOK_UP_NEXT: extern "C" fn() = look_up_next;

/// # Safety
/// `to` may be written.
unsafe fn pass_on(clock: libc::clockid_t, to: *mut libc::timespec) -> libc::c_int {
    let next = NEXT.load(Acquire);
    if next.is_null() {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) } as libc::c_int;
    }
    // SAFETY: the function of this name has this signature.
    let next: ClockGettime = unsafe { std::mem::transmute(next) };
    // SAFETY: the caller's promise.
    unsafe { next(clock, to) }
}

/// What a clock of the kernel's shows, nanoseconds.
pub(crate) fn real_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` may be written.
    unsafe { pass_on(clock, &raw mut now) };
    now.tv_sec as u64 * NS_PER_SECOND + now.tv_nsec as u64
}

/// What a clock shows while virtual time is on; `None` of a clock that is not served. Each reading takes a nanosecond,
/// so that a caller that waits for a moment reaches it.
fn virtual_ns(clock: libc::clockid_t) -> Option<u64> {
    let served = SERVED.iter().position(|served| *served == clock)?;
    Some(STARTS_NS[served].load(Relaxed) + ELAPSED_NS.fetch_add(1, Relaxed))
}

/// # Safety
/// As C's function of this name.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> libc::c_int {
    if IS_ON.load(Relaxed)
        && let Some(ns) = virtual_ns(clock)
    {
        let now = libc::timespec { tv_sec: (ns / NS_PER_SECOND) as i64, tv_nsec: (ns % NS_PER_SECOND) as i64 };
        // SAFETY: the caller's promise.
        unsafe { to.write(now) };
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { pass_on(clock, to) }
}

/// # Safety
/// As C's function of this name. A time zone, which no kernel of today has, is left as it is.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn gettimeofday(to: *mut libc::timeval, _zone: *mut libc::c_void) -> libc::c_int {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` may be written.
    let result = unsafe { clock_gettime(libc::CLOCK_REALTIME, &raw mut now) };
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(libc::timeval { tv_sec: now.tv_sec, tv_usec: now.tv_nsec / 1000 }) };
    }
    result
}

/// # Safety
/// As C's function of this name.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn time(to: *mut libc::time_t) -> libc::time_t {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` may be written.
    unsafe { clock_gettime(libc::CLOCK_REALTIME_COARSE, &raw mut now) };
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { to.write(now.tv_sec) };
    }
    now.tv_sec
}

/// Whether what a library gets as `clock_gettime` is this program's: a linker may have left the symbol out.
pub(crate) fn is_exported() -> bool {
    // SAFETY: the name ends in a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"clock_gettime".as_ptr()) };
    std::ptr::eq(found, clock_gettime as *const libc::c_void)
}

/// Has every clock that is served go on from what it shows now, as fast as [`advance_to`] says.
pub(crate) fn begin() {
    for (clock, start) in SERVED.iter().zip(&STARTS_NS) {
        start.store(real_ns(*clock), Relaxed);
    }
    ELAPSED_NS.store(0, Relaxed);
    IS_ON.store(true, Release);
}

/// Virtual nanoseconds since [`begin`].
pub(crate) fn elapsed_ns() -> u64 {
    ELAPSED_NS.load(Relaxed)
}

/// Lets virtual time pass until so many nanoseconds after [`begin`]; it stays where it is if it is further already.
pub(crate) fn advance_to(elapsed_ns: u64) {
    ELAPSED_NS.fetch_max(elapsed_ns.min(ELAPSED_NS_MAX), Relaxed);
}

/// Passes every clock on again.
pub(crate) fn end() {
    IS_ON.store(false, Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::sys::in_a_child;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    #[test]
    fn served_clocks_follow_virtual_time_and_others_do_not() {
        in_a_child(|| {
            let (cpu, real) = (real_ns(libc::CLOCK_THREAD_CPUTIME_ID), real_ns(libc::CLOCK_MONOTONIC));
            let day = UNIX_EPOCH.elapsed().unwrap_or_default();
            begin();
            let first = Instant::now();
            advance_to(3_600 * NS_PER_SECOND);
            assert_eq!(first.elapsed().as_secs(), 3_600);
            let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - day;
            assert!((3_600..3_660).contains(&later.as_secs()), "{later:?}");
            advance_to(5); // does not go back
            assert!(elapsed_ns() > 3_600 * NS_PER_SECOND);
            // SAFETY: null is allowed.
            let seconds = unsafe { time(std::ptr::null_mut()) } as u64;
            assert!(seconds.abs_diff(day.as_secs() + 3_600) <= 60, "{seconds} {day:?}");
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `now` may be written.
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut now) };
            assert!((now.tv_sec as u64) < cpu / NS_PER_SECOND + 60);
            assert!(real_ns(libc::CLOCK_MONOTONIC) - real < 60 * NS_PER_SECOND);
            end();
            assert!(first.elapsed().as_secs() < 60);
        });
    }

    #[test]
    fn a_caller_that_waits_for_a_moment_reaches_it() {
        in_a_child(|| {
            begin();
            let start = Instant::now();
            while start.elapsed().as_nanos() < 1_000 {}
            end();
        });
    }

    #[test]
    fn the_next_function_was_looked_up_before_main() {
        assert!(!NEXT.load(Acquire).is_null());
    }
}
