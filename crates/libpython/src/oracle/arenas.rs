//! Arenas at predictable places: numbered slots at fixed distances, the lowest free one first.
//!
//! The first slot starts at a multiple of 16 GiB, so that the number of nodes of an address map does not depend on
//! where the kernel had room either. An arena that was given back is inaccessible: using it ends the process.
//!
//! **Invariant:** an arena lies at its slot's start plus the shift, and only arenas that are out can be accessed.

use std::io;
use std::ptr::null_mut;

/// Distance of two slots, room for an arena of 1 MiB and its shift.
pub const SLOT_BYTES: usize = 2 << 20;
const SLOTS: usize = 1024;
const ALIGNMENT_BYTES: usize = 16 << 30;
const RESERVED_BYTES: usize = ALIGNMENT_BYTES + SLOTS * SLOT_BYTES;

/// Numbered arenas in one reserved range of addresses.
#[derive(Debug)]
pub struct SlotArenas {
    reserved: *mut u8,
    base: *mut u8,
    shift_bytes: usize,
    is_out: Vec<bool>,
    created: Option<usize>,
    released: Option<usize>,
}

impl SlotArenas {
    /// Reserves addresses for 1,024 slots. An arena lies `shift_bytes` behind its slot's start: 0 aligns it to a pool,
    /// 4096 does not.
    ///
    /// # Errors
    /// There is no such range.
    pub fn reserve(shift_bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an inaccessible anonymous mapping at an address of the kernel's choice touches nothing.
        let reserved = unsafe { libc::mmap(null_mut(), RESERVED_BYTES, libc::PROT_NONE, flags, -1, 0) };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let reserved: *mut u8 = reserved.cast();
        let base = reserved.wrapping_add(reserved.addr().wrapping_neg() % ALIGNMENT_BYTES);
        let is_out = vec![false; SLOTS];
        Ok(Self { reserved, base, shift_bytes, is_out, created: None, released: None })
    }

    /// An arena in the lowest free slot; null if none is free, if it does not fit, or if there is no memory.
    pub fn map(&mut self, bytes: usize) -> *mut u8 {
        let free = self.is_out.iter().position(|is_out| !is_out);
        let Some(slot) = free.filter(|_| self.shift_bytes + bytes <= SLOT_BYTES) else {
            return null_mut();
        };
        if !self.protect(slot, libc::PROT_READ | libc::PROT_WRITE) {
            return null_mut();
        }
        self.is_out[slot] = true;
        self.created = Some(slot);
        self.base.wrapping_add(slot * SLOT_BYTES + self.shift_bytes)
    }

    /// Takes an arena back; false if it is none that is out.
    ///
    /// # Safety
    /// Nothing in the arena is used any more.
    pub unsafe fn unmap(&mut self, arena: *mut u8) -> bool {
        match self.place(arena) {
            Some((slot, offset)) if offset == self.shift_bytes && self.is_out[slot] => {
                self.is_out[slot] = false;
                self.released = Some(slot);
                self.protect(slot, libc::PROT_NONE)
            }
            _ => false,
        }
    }

    /// (arena ordinal, offset from its slot's start), if the address lies in the slots.
    #[must_use]
    pub fn place(&self, address: *const u8) -> Option<(usize, usize)> {
        let distance = address.addr().wrapping_sub(self.base.addr());
        (distance < SLOTS * SLOT_BYTES).then_some((distance / SLOT_BYTES, distance % SLOT_BYTES))
    }

    /// The arena created last and the one released last, each if that was after the last time this was asked.
    pub fn take_events(&mut self) -> (Option<usize>, Option<usize>) {
        (self.created.take(), self.released.take())
    }

    /// Sets the access to a whole slot.
    fn protect(&self, slot: usize, protection: i32) -> bool {
        let start = self.base.wrapping_add(slot * SLOT_BYTES);
        // SAFETY: the slot lies in the reserved range; whoever takes access away knows that nobody uses the slot.
        unsafe { libc::mprotect(start.cast(), SLOT_BYTES, protection) == 0 }
    }
}

impl Drop for SlotArenas {
    fn drop(&mut self) {
        // SAFETY: the whole mapping; the allocator that used the arenas owned this source, and is gone with it.
        unsafe { libc::munmap(self.reserved.cast(), RESERVED_BYTES) };
    }
}
