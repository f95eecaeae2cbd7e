//! A spin lock, and storage that it or a single writer guards.
//!
//! Invariant: never held across a call into the program or into a function that allocates.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A lock that yields the processor while it waits.
pub struct Spin(AtomicBool);

impl Spin {
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub fn lock(&self) {
        while self.0.swap(true, Ordering::Acquire) {
            // SAFETY: has no preconditions.
            unsafe { crate::sys::sched_yield() };
        }
    }

    pub fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Static storage whose users keep each other out by a [`Spin`] or by running once.
pub struct Guarded<T>(UnsafeCell<T>);

// SAFETY: every user of `get` holds the lock named beside the static, or is the only one to run.
unsafe impl<T> Sync for Guarded<T> {}

impl<T> Guarded<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    /// The caller holds the lock that the static's note names, for as long as it uses the reference.
    #[expect(clippy::mut_from_ref, reason = "the lock makes it exclusive")]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: the caller is the only user.
        unsafe { &mut *self.0.get() }
    }

    /// Where it lies, and its size in bytes.
    pub fn extent(&self) -> (usize, usize) {
        (self.0.get() as usize, core::mem::size_of::<T>())
    }
}
