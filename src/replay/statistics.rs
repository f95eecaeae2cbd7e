//! What allocators report of themselves, read on the thread that prepared them.
//!
//! A library may set up a thread when that thread first calls for statistics: mimalloc gives it a heap, jemalloc a
//! cache. Such memory would be the replay's own. Another thread therefore has the first thread read, and waits.
//!
//! Invariant: statistics are called by one thread only, which has called each of them before the seal.

use crate::backend::Holds;
use crate::probe::sys;
use crate::run::Held;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// No thread waits for a reading.
const IDLE: u32 = 0;
/// A thread waits for a reading.
const REQUESTED: u32 = 1;

/// An allocator, and how it reports what it holds.
pub(crate) struct Holder {
    /// Its key, with its argument.
    pub(crate) key: String,
    /// Its statistics; none of an allocator that has none.
    pub(crate) holds: Option<Holds>,
}

/// The statistics of each allocator of a replay.
pub(crate) struct Statistics {
    holders: Vec<Holder>,
    /// The thread that made this value.
    first: u64,
    /// What the first thread sleeps on while another thread runs: 1 while it sleeps, 0 wakes it.
    sleeper: OnceLock<&'static AtomicU32>,
    state: AtomicU32,
    held: Mutex<Vec<Held>>,
}

impl Statistics {
    /// To be called before the seal. The calling thread is the one that reads from then on.
    pub(crate) fn new(holders: Vec<Holder>) -> &'static Self {
        let held = Mutex::new(vec![Held::default(); holders.len()]);
        let (sleeper, state) = (OnceLock::new(), AtomicU32::new(IDLE));
        let all = Self { holders, first: sys::this_thread(), sleeper, state, held };
        all.read(); // a first answer may allocate
        Box::leak(Box::new(all)) // a worker ends with its one replay
    }

    /// Keys of the allocators, in the order of the readings.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.holders.iter().map(|holder| holder.key.as_str())
    }

    /// Sets what the first thread sleeps on while another one runs.
    pub(crate) fn wake_by(&self, word: &'static AtomicU32) {
        let _ = self.sleeper.set(word);
    }

    /// Reads every allocator into `into`, on the first thread.
    pub(crate) fn read_into(&self, into: &mut [Held]) {
        if sys::this_thread() == self.first {
            self.read();
        } else {
            let Some(word) = self.sleeper.get() else { return };
            self.state.store(REQUESTED, SeqCst);
            // The first thread sets its word before it looks for a request: one of the two sees the other.
            if word.swap(0, SeqCst) == 1 {
                sys::futex_wake(word);
            }
            while self.state.load(SeqCst) == REQUESTED {
                sys::futex_wait(&self.state, REQUESTED);
            }
        }
        into.copy_from_slice(&self.held());
    }

    /// Reads for a thread that waits for it, if one does. The first thread calls this while it waits itself.
    pub(crate) fn serve(&self) {
        if self.state.load(SeqCst) == REQUESTED {
            self.read();
            self.state.store(IDLE, SeqCst);
            sys::futex_wake(&self.state);
        }
    }

    fn read(&self) {
        for (held, holder) in self.held().iter_mut().zip(&self.holders) {
            *held = holder.holds.as_ref().map_or(Held::default(), |holds| holds());
        }
    }

    /// No reader panics; one that did would have ended the worker.
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
