//! The live blocks of 128 KiB and more, so that at their end it can be said how much of them was touched.
//!
//! Invariant: a free of any other block costs one byte read: a counting filter says at once that it is not here.

use crate::lock::{Guarded, Spin};
use crate::raw::{Kind, LARGE_BYTES};
use crate::stream::Thread;
use crate::{probe, stream, sys, watch};
use core::sync::atomic::{AtomicU8, Ordering};

const SLOTS: usize = 1 << 14;
/// Above this the table takes no more; such blocks are recorded without touched bytes.
const USED_MAX: usize = SLOTS / 4 * 3;
const FILTER: usize = 1 << 12;

struct Table {
    /// Address (0: free) and size; linear probing.
    slots: [(usize, usize); SLOTS],
    used: usize,
}

/// Guarded by `LOCK`.
static TABLE: Guarded<Table> = Guarded::new(Table { slots: [(0, 0); SLOTS], used: 0 });
pub static LOCK: Spin = Spin::new();
/// How many live blocks fall on each place, never falling again once it reached 255.
static COUNTS: [AtomicU8; FILTER] = [const { AtomicU8::new(0) }; FILTER];

/// Where the table lies: its pages are the recorder's own.
pub fn extent() -> (usize, usize) {
    TABLE.extent()
}

#[inline(always)]
fn place(block: usize) -> usize {
    (block >> 4 ^ block >> 16) & (FILTER - 1)
}

fn home(block: usize) -> usize {
    (block >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - 14)
}

impl Table {
    fn insert(&mut self, block: usize, size: usize) -> bool {
        if self.used >= USED_MAX {
            return false;
        }
        let mut at = home(block);
        while self.slots[at].0 != 0 && self.slots[at].0 != block {
            at = (at + 1) % SLOTS;
        }
        let is_new = self.slots[at].0 == 0;
        self.used += usize::from(is_new);
        self.slots[at] = (block, size);
        is_new
    }

    fn remove(&mut self, block: usize) -> Option<usize> {
        let mut at = home(block);
        while self.slots[at].0 != block {
            if self.slots[at].0 == 0 {
                return None;
            }
            at = (at + 1) % SLOTS;
        }
        let size = self.slots[at].1;
        // Close the gap: an entry may move back only to or after its home.
        let mut hole = at;
        let mut next = (at + 1) % SLOTS;
        while self.slots[next].0 != 0 {
            let distance = |from: usize, to: usize| (to + SLOTS - from) % SLOTS;
            if distance(home(self.slots[next].0), next) >= distance(hole, next) {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) % SLOTS;
        }
        self.slots[hole] = (0, 0);
        self.used -= 1;
        Some(size)
    }
}

/// Notes a large live block.
#[cold]
pub fn insert(block: usize, size: usize) {
    LOCK.lock();
    // SAFETY: the lock is held.
    let is_new = unsafe { TABLE.get() }.insert(block, size);
    let count = &COUNTS[place(block)];
    if is_new && count.load(Ordering::Relaxed) != u8::MAX {
        count.fetch_add(1, Ordering::Relaxed);
    }
    LOCK.unlock();
}

/// Forgets the block if it is a large one: its touched bytes plus one, or 0 when they are not known.
#[inline(always)]
pub fn take_touched(block: usize) -> u64 {
    if COUNTS[place(block)].load(Ordering::Relaxed) == 0 { 0 } else { take_touched_if_large(block) }
}

#[cold]
fn take_touched_if_large(block: usize) -> u64 {
    LOCK.lock();
    // SAFETY: the lock is held.
    let found = unsafe { TABLE.get() }.remove(block);
    let count = &COUNTS[place(block)];
    if found.is_some() && count.load(Ordering::Relaxed) != u8::MAX {
        count.fetch_sub(1, Ordering::Relaxed);
    }
    LOCK.unlock();
    let Some(size) = found else { return 0 };
    sys::keeping_errno(|| {
        stream::with(|thread| thread.holding(|| watch::before_free(size as u64)));
        probe::touched_bytes(block, size) + 1
    })
}

/// Writes a record with the touched bytes of every large block that is live now.
pub fn record_touched(thread: &Thread) {
    LOCK.lock();
    // SAFETY: the lock is held.
    let table = unsafe { TABLE.get() };
    for &(block, size) in table.slots.iter().filter(|slot| slot.0 != 0) {
        debug_assert!(size as u64 >= LARGE_BYTES);
        thread.push(Kind::Touch, 0, block, probe::touched_bytes(block, size) + 1, 0);
    }
    LOCK.unlock();
}
