//! Freed blocks that wait before they are given back, so that a write to one of them is seen.
//!
//! **Invariant:** every block in it was painted dead in full and belongs to nobody else until it leaves.

use super::{DEAD, Domain, HEADER_BYTES, Misuse};

/// Most bytes that are held at a time; a block that is larger by itself is given back at once.
const HELD_BYTES_MAX: usize = 16 << 20;

/// One freed block.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// As the allocator below knows it.
    pub(super) base: *mut u8,
    /// With its decoration.
    pub(super) bytes: usize,
    /// Of its last life.
    pub(super) domain: Domain,
}

impl Held {
    /// Ends the process if the block was written to.
    pub(super) fn verify(&self) {
        // SAFETY: nobody else has been given these bytes since they were painted.
        let content = unsafe { std::slice::from_raw_parts(self.base, self.bytes) };
        if content.iter().any(|byte| *byte != DEAD) {
            Misuse::of_freed(self.domain, content).abort();
        }
    }
}

/// The blocks freed last, at most `N`.
pub(super) struct Quarantine<const N: usize> {
    ring: [Option<Held>; N],
    /// Where the oldest is.
    oldest: usize,
    count: usize,
    bytes: usize,
}

// SAFETY: the blocks belong to the quarantine alone; they may move to another thread with it.
unsafe impl<const N: usize> Send for Quarantine<N> {}

impl<const N: usize> Quarantine<N> {
    pub(super) const fn new() -> Self {
        Self { ring: [None; N], oldest: 0, count: 0, bytes: 0 }
    }

    /// The oldest block, if it has to leave before one of `bytes` enters.
    pub(super) fn pop_for(&mut self, bytes: usize) -> Option<Held> {
        let is_full = self.count == N || self.bytes.saturating_add(bytes) > HELD_BYTES_MAX;
        if is_full { self.pop() } else { None }
    }

    pub(super) fn pop(&mut self) -> Option<Held> {
        let held = self.ring.get_mut(self.oldest)?.take()?;
        self.oldest = (self.oldest + 1) % N;
        self.count -= 1;
        self.bytes -= held.bytes;
        Some(held)
    }

    /// Takes a block in; hands it back if there is no room for it even now.
    pub(super) fn push(&mut self, held: Held) -> Option<Held> {
        if self.count == N || held.bytes > HELD_BYTES_MAX {
            return Some(held);
        }
        self.ring[(self.oldest + self.count) % N] = Some(held);
        self.count += 1;
        self.bytes += held.bytes;
        None
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Held> {
        (0..self.count).filter_map(|at| self.ring[(self.oldest + at) % N].as_ref())
    }

    /// What is held of a block, by the address that its caller knew.
    pub(super) fn find(&self, block: *const u8) -> Option<Held> {
        self.iter().find(|held| held.base.addr() + HEADER_BYTES == block.addr()).copied()
    }
}
