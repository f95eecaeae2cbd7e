//! An arena source with predictable addresses and a raw allocator that counts. Both can be told to refuse.
//!
//! **Invariant:** whatever they gave has come back when they are dropped.

use std::cell::Cell;
use std::ptr;
use std::thread;

use pypool::{Allocator, ArenaSource, Geometry, LibcRaw, RawAllocator};

use crate::shadow;

const SLOT_BYTES: usize = 2 << 20;
const SLOTS: usize = 256;
/// Twice the slots and one more, so that they can be moved to where they are wanted.
const RESERVED_BYTES: usize = SLOT_BYTES * (2 * SLOTS + 1);
/// Addresses that one leaf of the address map covers.
const LEAF_SPAN_BYTES: usize = 16 << 30;
/// What the raw allocator gives at most. Sanitizers take a request beyond reason for a mistake and end the process.
const RAW_BYTES_MAX: usize = 1 << 30;

/// Serves a number of requests and refuses the rest; without being told a number it serves all.
pub(crate) struct Patience {
    left: Cell<usize>,
    refusals: Cell<usize>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { left: Cell::new(usize::MAX), refusals: Cell::new(0) }
    }
}

impl Patience {
    pub(crate) fn set(&self, requests: usize) {
        self.left.set(requests);
    }

    pub(crate) fn refusals(&self) -> usize {
        self.refusals.get()
    }

    fn refused(&self, requests: usize) {
        self.refusals.set(self.refusals.get() + requests);
    }

    fn serves(&self) -> bool {
        let left = self.left.get();
        self.refused(usize::from(left == 0));
        if left != usize::MAX {
            self.left.set(left.saturating_sub(1));
        }
        left > 0
    }
}

/// Arenas in numbered slots of a reserved range; the lowest free slot is given first.
pub(crate) struct SlotArenas {
    reserved: *mut u8,
    base: *mut u8,
    /// Distance of each arena from its slot's start: 0 for arenas aligned to a pool.
    shift_bytes: usize,
    pub(crate) in_use: Vec<bool>,
    /// Slots of the arenas that were given back, in order.
    pub(crate) released: Vec<usize>,
    pub(crate) patience: Patience,
}

impl SlotArenas {
    pub(crate) fn new(shift_bytes: usize) -> Self {
        // SAFETY: an inaccessible anonymous mapping at an address of the kernel's choice touches nothing.
        let reserved = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), RESERVED_BYTES, libc::PROT_NONE, flags, -1, 0)
        };
        assert_ne!(reserved, libc::MAP_FAILED, "no address space for the test's arenas");
        let reserved: *mut u8 = reserved.cast();
        let mut base = reserved.wrapping_add(reserved.addr().wrapping_neg() % SLOT_BYTES);
        // One leaf of an address map is to cover all slots, wherever the kernel has put them.
        let to_next_leaf = base.addr().wrapping_neg() % LEAF_SPAN_BYTES;
        if to_next_leaf != 0 && to_next_leaf < SLOTS * SLOT_BYTES {
            base = base.wrapping_add(to_next_leaf);
        }
        Self {
            reserved,
            base,
            shift_bytes,
            in_use: vec![false; SLOTS],
            released: Vec::new(),
            patience: Patience::default(),
        }
    }

    /// (arena ordinal, offset from the slot's start), if the address lies in the slots.
    pub(crate) fn place(&self, address: *mut u8) -> Option<(usize, usize)> {
        let distance = address.addr().wrapping_sub(self.base.addr());
        (distance < SLOTS * SLOT_BYTES).then_some((distance / SLOT_BYTES, distance % SLOT_BYTES))
    }

    pub(crate) fn mapped(&self) -> usize {
        self.in_use.iter().filter(|&&in_use| in_use).count()
    }

    /// Sets the access to a whole slot, and opens it to the sanitizer: blocks may have been live in it.
    fn protect(&self, slot: usize, protection: i32) {
        let start = self.base.wrapping_add(slot * SLOT_BYTES);
        // SAFETY: the slot lies in the reserved mapping.
        let code = unsafe { libc::mprotect(start.cast(), SLOT_BYTES, protection) };
        assert_eq!(code, 0, "a slot's access can be changed");
        shadow::open(start, SLOT_BYTES);
    }
}

impl Drop for SlotArenas {
    fn drop(&mut self) {
        assert!(thread::panicking() || self.mapped() == 0, "an allocator gives all arenas back");
        // SAFETY: the allocator that used the arenas is gone: it owns this source.
        unsafe { libc::munmap(self.reserved.cast(), RESERVED_BYTES) };
    }
}

// SAFETY: slots do not overlap, and stay mapped until the source is dropped.
unsafe impl ArenaSource for SlotArenas {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        if !self.patience.serves() {
            return ptr::null_mut();
        }
        let slot = self.in_use.iter().position(|in_use| !in_use).expect("the test uses fewer arenas than slots");
        self.in_use[slot] = true;
        assert!(self.shift_bytes + bytes <= SLOT_BYTES, "an arena fits its slot");
        self.protect(slot, libc::PROT_READ | libc::PROT_WRITE);
        self.base.wrapping_add(slot * SLOT_BYTES + self.shift_bytes)
    }

    unsafe fn unmap(&mut self, arena: *mut u8, _bytes: usize) {
        let (slot, offset) = self.place(arena).expect("an arena of this source");
        assert_eq!(offset, self.shift_bytes, "an arena is given back by its start");
        assert!(self.in_use[slot], "an arena is given back once");
        self.in_use[slot] = false;
        self.released.push(slot);
        // A use after release faults.
        self.protect(slot, libc::PROT_NONE);
    }
}

/// The C library's allocator with a log of what was asked of it.
#[derive(Default)]
pub(crate) struct CountingRaw {
    pub(crate) requests_bytes: Vec<usize>,
    pub(crate) live: usize,
    pub(crate) patience: Patience,
}

impl CountingRaw {
    /// Logs a request and passes it on, if it is to be served.
    fn serve(&mut self, bytes: usize, request: impl FnOnce() -> *mut u8) -> *mut u8 {
        self.requests_bytes.push(bytes);
        let excessive = bytes > RAW_BYTES_MAX;
        self.patience.refused(usize::from(excessive));
        if excessive || !self.patience.serves() { ptr::null_mut() } else { request() }
    }

    fn counted(&mut self, block: *mut u8) -> *mut u8 {
        self.live += usize::from(!block.is_null());
        block
    }
}

impl Drop for CountingRaw {
    fn drop(&mut self) {
        assert!(thread::panicking() || self.live == 0, "test and allocator give all raw blocks back");
    }
}

// SAFETY: delegates to the C library's allocator.
unsafe impl RawAllocator for CountingRaw {
    fn allocate(&mut self, bytes: usize) -> *mut u8 {
        let block = self.serve(bytes, || LibcRaw.allocate(bytes));
        self.counted(block)
    }

    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        let block = self.serve(count * element_bytes, || LibcRaw.allocate_zeroed(count, element_bytes));
        self.counted(block)
    }

    unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: by contract.
        self.serve(bytes, || unsafe { LibcRaw.reallocate(block, bytes) })
    }

    unsafe fn free(&mut self, block: *mut u8) {
        self.live -= 1;
        // SAFETY: by contract.
        unsafe { LibcRaw.free(block) }
    }
}

pub(crate) type TestAllocator<G> = Allocator<CountingRaw, SlotArenas, G>;

pub(crate) fn allocator<G: Geometry>(shift_bytes: usize) -> Box<TestAllocator<G>> {
    Box::new(Allocator::new(CountingRaw::default(), SlotArenas::new(shift_bytes)))
}

/// Arenas of four small pools, so that few operations reach every rule about arenas.
pub(crate) struct Tiny;

impl Geometry for Tiny {
    const SMALL_BYTES_MAX: usize = 128;
    const POOL_BYTES: usize = 1 << 10;
    const ARENA_BYTES: usize = 4 << 10;
}

/// Eight-byte alignment, as in old releases and on 32-bit machines.
pub(crate) struct Narrow;

impl Geometry for Narrow {
    const ALIGNMENT_BYTES: usize = 8;
    const POOL_BYTES: usize = 4 << 10;
    const ARENA_BYTES: usize = 256 << 10;
}

/// Blocks aligned to a cache line, which leaves a gap behind the header.
pub(crate) struct Wide;

impl Geometry for Wide {
    const ALIGNMENT_BYTES: usize = 64;
    const SMALL_BYTES_MAX: usize = 1024;
    const POOL_BYTES: usize = 8 << 10;
    const ARENA_BYTES: usize = 64 << 10;
}
