//! A lock that may guard an allocator: it takes no memory, never panics, and leaves `errno` alone.
//!
//! The standard library's mutex would do on Linux, but on other systems it makes its lock on first use, by allocating.
//! A lock here is one word and waits as Drepper's second mutex does ("Futexes Are Tricky", 2011): the word says whether
//! anybody may be asleep, so that only then does giving it back cost a system call. It is not fair.
//!
//! **Invariant:** between the moment a thread changes `state` from `FREE` and the moment it is `FREE` again, no other
//! thread has a guard; whoever may sleep has written `AWAITED` first.

use std::cell::UnsafeCell;
use std::hint;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be asleep until it is free.
const AWAITED: u32 = 2;

/// Looks at a held lock before giving up: longer than most holders take, shorter than a system call.
const LOOKS: u32 = 64;

/// A value that one thread at a time may use. All zeros at first if the value is.
pub(super) struct Locked<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the guard is the only way to the value, and there is one at a time.
unsafe impl<T: Send> Sync for Locked<T> {}

/// The right to use the value, until it is dropped.
pub(super) struct Guard<'a, T>(&'a Locked<T>);

impl<T> Locked<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// The value, unless another thread has it.
    #[inline(always)]
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let taken = self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed);
        // Not `then_some`: a guard that is made is a guard that is dropped.
        taken.is_ok().then(|| Guard(self))
    }

    /// The value, if the thread that has it gives it back within a few dozen instructions.
    pub(super) fn try_lock_soon(&self) -> Option<Guard<'_, T>> {
        for _ in 0..LOOKS {
            hint::spin_loop();
            if self.state.load(Ordering::Relaxed) == FREE {
                let guard = self.try_lock();
                if guard.is_some() {
                    return guard;
                }
            }
        }
        None
    }

    /// The value, as soon as it can be had.
    #[inline]
    pub(super) fn lock(&self) -> Guard<'_, T> {
        self.try_lock().unwrap_or_else(|| self.lock_held())
    }

    #[cold]
    #[inline(never)]
    fn lock_held(&self) -> Guard<'_, T> {
        self.try_lock_soon().unwrap_or_else(|| {
            // One who has slept cannot know whether others still sleep, and claims that they do.
            while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
                wait_while(&self.state, AWAITED);
            }
            Guard(self)
        })
    }

    /// Takes the lock and keeps it until [`give_back`](Self::give_back).
    pub(super) fn keep(&self) {
        std::mem::forget(self.lock());
    }

    /// Frees a lock that was kept.
    ///
    /// # Safety
    /// The lock was taken by [`keep`](Self::keep), in this thread or in the one that this process was forked from, and
    /// has not been given back since.
    pub(super) unsafe fn give_back(&self) {
        drop(Guard(self));
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this is the only guard.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the only guard.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.state.swap(FREE, Ordering::Release) == AWAITED {
            wake_one(&self.0.state);
        }
    }
}

/// Sleeps until woken, or returns at once if `state` is not `value` any more. May return early.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn wait_while(state: &AtomicU32, value: u32) {
    let (operation, forever) = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, std::ptr::null::<libc::timespec>());
    // SAFETY: the word outlives the call, which only compares it; `errno` is this thread's own.
    unsafe {
        let errno = *errno();
        libc::syscall(libc::SYS_futex, state.as_ptr(), operation, value, forever);
        *self::errno() = errno;
    }
}

/// A program that frees memory between a failed call and a look at `errno` must still find it there.
///
/// # Safety
/// The pointer is used by this thread alone.
#[cfg(target_os = "linux")]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always returns a valid pointer.
    unsafe { libc::__errno_location() }
}

/// # Safety
/// The pointer is used by this thread alone.
#[cfg(target_os = "android")]
unsafe fn errno() -> *mut libc::c_int {
    // SAFETY: always returns a valid pointer.
    unsafe { libc::__errno() }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[cold]
#[inline(never)]
fn wake_one(state: &AtomicU32) {
    // SAFETY: the word is only an address here. Waking does not fail.
    unsafe { libc::syscall(libc::SYS_futex, state.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
}

/// Without a futex, waiting is letting others run.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wait_while(_state: &AtomicU32, _value: u32) {
    std::thread::yield_now();
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn wake_one(_state: &AtomicU32) {}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    const THREADS: usize = 8;
    const TURNS: usize = 20_000;

    #[test]
    fn turns_are_taken_one_at_a_time() {
        static COUNT: Locked<usize> = Locked::new(0);
        let turns = || {
            for turn in 0..TURNS {
                let mut count =
                    if turn % 2 == 0 { COUNT.lock() } else { COUNT.try_lock().unwrap_or_else(|| COUNT.lock()) };
                // Read and written apart, so that two at a time would lose a turn.
                let before = *count;
                hint::black_box(&mut count);
                *count = before + 1;
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(turns))));
        assert_eq!(*COUNT.lock(), THREADS * TURNS);
    }

    #[test]
    fn a_held_lock_is_not_to_be_had() {
        let locked = Locked::new(7);
        let guard = locked.lock();
        assert!(locked.try_lock().is_none() && locked.try_lock_soon().is_none());
        drop(guard);
        assert_eq!(locked.try_lock().map(|guard| *guard), Some(7));
        locked.keep();
        assert!(locked.try_lock().is_none());
        // SAFETY: kept just now.
        unsafe { locked.give_back() };
        assert!(locked.try_lock().is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn waiting_leaves_errno_alone() {
        // SAFETY: `errno` is this thread's own.
        unsafe { *errno() = 7 };
        // Refused by the kernel, with EAGAIN, since the word is another.
        wait_while(&AtomicU32::new(HELD), AWAITED);
        // SAFETY: as above.
        assert_eq!(unsafe { *errno() }, 7);
    }

    /// Every sleeper gets its turn: a lost wake-up would leave a thread, and this test, waiting for ever.
    #[test]
    fn sleepers_are_woken() {
        let locked = Locked::new(Vec::new());
        let (asleep, awaited) = mpsc::channel();
        thread::scope(|scope| {
            let guard = locked.lock();
            for number in 0..THREADS {
                let (locked, asleep) = (&locked, asleep.clone());
                scope.spawn(move || {
                    asleep.send(()).unwrap();
                    locked.lock().push(number);
                });
            }
            (0..THREADS).for_each(|_| awaited.recv().unwrap());
            while locked.state.load(Ordering::Relaxed) != AWAITED {
                thread::yield_now();
            }
            drop(guard);
        });
        let mut numbers = locked.lock();
        numbers.sort_unstable();
        assert_eq!(*numbers, (0..THREADS).collect::<Vec<_>>());
    }
}
