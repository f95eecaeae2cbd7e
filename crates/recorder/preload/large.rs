//! The live blocks of two OS pages and more of which something may never be touched, so that at their end the record
//! says how much was.
//!
//! Invariant: a free of any other block costs one byte read: the filter has a byte for each place, and neighbouring
//! pages have neighbouring places.

use crate::lock::{Guarded, Spin};
use crate::raw::{Kind, LARGE_BYTES, flag};
use crate::stream::Thread;
use crate::touch::{self, Block, Touched};
use crate::{life, recording, stream, sys, watch};
use core::sync::atomic::{AtomicU8, Ordering};

const SLOTS: usize = 1 << 18;
/// Above this the table takes no more; such blocks are recorded without touched bytes.
const USED_MAX: usize = SLOTS / 4 * 3;
/// Slots of one group, which is passed over while nothing was ever put there.
const GROUP: usize = 1 << 10;
const FILTER: usize = 1 << 17;
/// Several blocks may fall on this place of the filter; it stays so.
const SEVERAL: u8 = u8::MAX;

/// A live block in two words: address 0 is none.
#[derive(Clone, Copy)]
struct Entry {
    /// Address, 48 bits; above it the pages present at first, at most `u16::MAX`.
    address: u64,
    /// Size, 47 bits; above it whether the block was asked for zeroed.
    size: u64,
}

impl Entry {
    const FREE: Self = Self { address: 0, size: 0 };

    fn new(block: Block, at_first: usize, is_zeroed: bool) -> Self {
        let at_first = at_first.min(usize::from(u16::MAX)) as u64;
        Self { address: block.address as u64 | at_first << 48, size: block.size as u64 | u64::from(is_zeroed) << 63 }
    }

    fn address(self) -> usize {
        (self.address & ((1 << 48) - 1)) as usize
    }

    fn size(self) -> usize {
        (self.size & !(1 << 63)) as usize
    }

    fn touched(self) -> Touched {
        let block = Block { address: self.address(), size: self.size() };
        touch::touched(block, (self.address >> 48) as usize, self.size >> 63 != 0)
    }
}

struct Table {
    /// Linear probing.
    slots: [Entry; SLOTS],
    used: usize,
    groups: [bool; SLOTS / GROUP],
}

/// Guarded by `LOCK`.
static TABLE: Guarded<Table> =
    Guarded::new(Table { slots: [Entry::FREE; SLOTS], used: 0, groups: [false; SLOTS / GROUP] });
pub static LOCK: Spin = Spin::new();
/// What of a block's address its page does not say, for the one block of the table that falls on each place.
static FILTER_BYTES: [AtomicU8; FILTER] = [const { AtomicU8::new(0) }; FILTER];

/// Where the table lies: its pages are the recorder's own.
pub fn extent() -> (usize, usize) {
    TABLE.extent()
}

/// A number for each page; those of one stretch of memory follow each other. No two blocks of the table begin in the
/// same page.
#[inline(always)]
fn place(block: usize) -> usize {
    (block >> 12).wrapping_add((block >> 28).wrapping_mul(0x9e37_79b9))
}

#[inline(always)]
fn tag(block: usize) -> u8 {
    ((block >> 4) as u8).clamp(1, SEVERAL - 1)
}

#[inline(always)]
fn filter(block: usize) -> &'static AtomicU8 {
    &FILTER_BYTES[place(block) % FILTER]
}

/// Whether the block may be in the table.
#[inline(always)]
fn may_be_here(block: usize) -> bool {
    let found = filter(block).load(Ordering::Relaxed);
    found != 0 && (found == tag(block) || found == SEVERAL)
}

impl Table {
    /// Whether the entry is here now; false when there is no room.
    fn insert(&mut self, entry: Entry) -> bool {
        let mut at = place(entry.address()) % SLOTS;
        while self.slots[at].address != 0 && self.slots[at].address() != entry.address() {
            at = (at + 1) % SLOTS;
        }
        let is_new = self.slots[at].address == 0;
        if is_new && self.used >= USED_MAX {
            return false;
        }
        self.slots[at] = entry;
        self.groups[at / GROUP] = true;
        if is_new {
            self.used += 1;
            let byte = filter(entry.address());
            let is_alone = byte.load(Ordering::Relaxed) == 0;
            byte.store(if is_alone { tag(entry.address()) } else { SEVERAL }, Ordering::Relaxed);
        }
        true
    }

    fn remove(&mut self, block: usize) -> Option<Entry> {
        let mut at = place(block) % SLOTS;
        while self.slots[at].address() != block {
            if self.slots[at].address == 0 {
                return None;
            }
            at = (at + 1) % SLOTS;
        }
        let found = self.slots[at];
        // Close the gap: an entry may move back only to or after its home.
        let mut hole = at;
        let mut next = (at + 1) % SLOTS;
        while self.slots[next].address != 0 {
            let distance = |from: usize, to: usize| (to + SLOTS - from) % SLOTS;
            if distance(place(self.slots[next].address()) % SLOTS, next) >= distance(hole, next) {
                self.slots[hole] = self.slots[next];
                self.groups[hole / GROUP] = true;
                hole = next;
            }
            next = (next + 1) % SLOTS;
        }
        self.slots[hole] = Entry::FREE;
        self.used -= 1;
        if filter(block).load(Ordering::Relaxed) != SEVERAL {
            filter(block).store(0, Ordering::Relaxed);
        }
        Some(found)
    }
}

/// A block of [`crate::raw::PROBED_BYTES`] and more appeared. It is noted unless all of its pages are present already:
/// whether the program writes there is then never known.
#[cold]
pub fn insert(address: usize, size: usize, is_zeroed: bool) {
    let block = Block { address, size };
    LOCK.lock();
    let at_first = life::own(|| touch::first_look(block, is_zeroed));
    // SAFETY: the lock is held.
    let table = unsafe { TABLE.get() };
    if let Some(at_first) = at_first {
        if !table.insert(Entry::new(block, at_first, is_zeroed)) {
            recording::add_flags(flag::PROBED_FULL);
        }
    } else if may_be_here(address) {
        table.remove(address); // Its free was missed.
    }
    LOCK.unlock();
}

/// Forgets the block if it is in the table: its touched bytes plus one, or 0 when they are not known, and how many of
/// its pages were present at first.
#[inline(always)]
pub fn take_touched(block: usize) -> (u64, usize) {
    if may_be_here(block) { take_touched_if_here(block) } else { (0, 0) }
}

#[cold]
fn take_touched_if_here(block: usize) -> (u64, usize) {
    LOCK.lock();
    // SAFETY: the lock is held.
    let found = unsafe { TABLE.get() }.remove(block);
    let touched = found.map(|entry| life::own(|| entry.touched()));
    LOCK.unlock();
    let Some(entry) = found else { return (0, 0) };
    let size = entry.size();
    if size as u64 >= LARGE_BYTES {
        sys::keeping_errno(|| stream::with(|thread| thread.holding(|| watch::before_free(size as u64))));
    }
    touched.map_or((0, 0), |touched| (touched.bytes + 1, touched.unknown_pages as usize))
}

/// Writes a record with the touched bytes of every block of the table.
pub fn record_touched(thread: &Thread) {
    LOCK.lock();
    // SAFETY: the lock is held.
    let table = unsafe { TABLE.get() };
    let groups = table.slots.chunks_exact(GROUP).zip(&table.groups).filter(|group| *group.1);
    for entry in groups.flat_map(|group| group.0).filter(|entry| entry.address != 0) {
        let touched = entry.touched();
        thread.push(Kind::Touch, 0, entry.address(), touched.bytes + 1, touched.unknown_pages as usize);
    }
    LOCK.unlock();
}
