//! Which shard a thread allocates from: its home, where the fewest other threads live.
//!
//! A thread keeps its home, so that what it frees soon it gets back, from memory that its core has in its cache. Homes
//! are counted, and a thread that ends gives its place up, so a program that starts a thread after the other uses one
//! shard, not all of them: every shard in use keeps an arena.
//!
//! The count serves placement alone. A thread that still allocates after it has given its place up, in the destructors
//! of its thread-local values, does so from the same shard.
//!
//! **Invariant:** `threads[h]` is the number of threads that have settled in `h` and not given their place up.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use super::lock::Locked;

/// Number of shards. A power of two, so that a remainder is a mask.
pub(super) const SHARDS: usize = 16;

const NOWHERE: usize = usize::MAX;

thread_local! {
    // Without a destructor and with a constant, this is a word of the thread's block: no registration, no allocation.
    static HOME: Cell<usize> = const { Cell::new(NOWHERE) };
}

/// Who lives where. Zeros at first.
pub(super) struct Homes {
    threads: [u32; SHARDS],
    /// Tells when a thread ends; none if the system gave none, and then places are not given up.
    ends: Option<libc::pthread_key_t>,
    is_open: bool,
}

pub(super) static HOMES: Locked<Homes> = Locked::new(Homes::new());

/// The calling thread's home, if it has settled.
#[inline(always)]
pub(super) fn home() -> Option<usize> {
    let home = HOME.get();
    (home < SHARDS).then_some(home)
}

/// Gives the calling thread, which has no home yet, one. Also says whether it is the first of the process.
pub(super) fn settle() -> (usize, bool) {
    let mut homes = HOMES.lock();
    let is_first = !homes.is_open;
    if is_first {
        homes.is_open = true;
        homes.ends = key();
    }
    let home = homes.move_in();
    HOME.set(home);
    if let Some(ends) = homes.ends {
        // The value may not be null, or the end would not be told. It may allocate, but from the C library.
        // SAFETY: the key has been made, and is never deleted.
        unsafe { libc::pthread_setspecific(ends, ptr::without_provenance(home + 1)) };
    }
    (home, is_first)
}

impl Homes {
    const fn new() -> Self {
        Self { threads: [0; SHARDS], ends: None, is_open: false }
    }

    /// A place where the fewest live, the first of those.
    fn move_in(&mut self) -> usize {
        let mut home = 0;
        for other in 1..SHARDS {
            if self.threads[other] < self.threads[home] {
                home = other;
            }
        }
        self.threads[home] += 1;
        home
    }

    fn move_out(&mut self, home: usize) {
        self.threads[home] -= 1;
    }
}

fn key() -> Option<libc::pthread_key_t> {
    let mut key = 0;
    // SAFETY: writes the key.
    let code = unsafe { libc::pthread_key_create(&mut key, Some(leave)) };
    (code == 0).then_some(key)
}

/// Called when a thread that has settled ends, with what was stored for it.
unsafe extern "C" fn leave(place: *mut c_void) {
    HOMES.lock().move_out(place.addr() - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptiest_home_is_taken_and_the_first_of_them() {
        let mut homes = Homes::new();
        let taken: Vec<usize> = (0..SHARDS + 3).map(|_| homes.move_in()).collect();
        assert_eq!(taken, (0..SHARDS).chain(0..3).collect::<Vec<_>>());
        homes.move_out(9);
        homes.move_out(12);
        assert_eq!([homes.move_in(), homes.move_in(), homes.move_in()], [9, 12, 3]);
    }

    /// Other tests of this binary do not settle, so the threads here are the only ones that do.
    #[test]
    fn a_thread_keeps_its_home_and_leaves_it_at_its_end() {
        let lived = std::thread::spawn(|| {
            assert_eq!(home(), None);
            let (settled, _) = settle();
            assert_eq!((home(), HOMES.lock().threads[settled]), (Some(settled), 1));
            settled
        });
        let settled = lived.join().expect("the thread does not fail");
        assert_eq!(HOMES.lock().threads[settled], 0);
    }
}
