//! Arenas of a front: aligned to their size, and entered in the table of owners.
//!
//! **Invariant:** an arena is in the table from before its first block is handed out until after its last one has come
//! back, and it is mapped for longer than that.

use std::cell::Cell;

use super::owners::Owners;
use crate::geometry::Geometry;
use crate::source::{ArenaSource, MappedArenas};

/// What a shard maps arenas with. All zeros, and unable to map, until [`serve`](Self::serve) has told it whom it
/// serves.
pub(super) struct OwnedArenas<G: 'static> {
    owners: Cell<Option<&'static Owners<G>>>,
    shard: Cell<u8>,
    #[cfg(test)]
    refuses: Cell<bool>,
}

impl<G: Geometry> OwnedArenas<G> {
    pub(super) const fn new() -> Self {
        Self {
            owners: Cell::new(None),
            shard: Cell::new(0),
            #[cfg(test)]
            refuses: Cell::new(false),
        }
    }

    /// Says once which shard the arenas are for, and where that is noted.
    #[inline(always)]
    pub(super) fn serve(&self, owners: &'static Owners<G>, shard: usize) {
        if self.owners.get().is_none() {
            self.owners.set(Some(owners));
            self.shard.set(shard as u8);
        }
    }

    #[cfg(test)]
    pub(super) fn refuse(&self, refuses: bool) {
        self.refuses.set(refuses);
    }
}

// SAFETY: the mappings are the kernel's, readable and writable, and stay until `unmap`.
unsafe impl<G: Geometry> ArenaSource for OwnedArenas<G> {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        #[cfg(test)]
        if self.refuses.get() {
            return std::ptr::null_mut();
        }
        let Some(owners) = self.owners.get() else { return std::ptr::null_mut() };
        let arena = map_aligned(bytes);
        if !arena.is_null() && !owners.note(arena.addr(), self.shard.get()) {
            // SAFETY: it has just been mapped and nobody knows it.
            unsafe { MappedArenas.unmap(arena, bytes) };
            return std::ptr::null_mut();
        }
        arena
    }

    unsafe fn unmap(&mut self, arena: *mut u8, bytes: usize) {
        if let Some(owners) = self.owners.get() {
            // First, for the next moment the address may be another shard's.
            owners.forget(arena.addr());
        }
        // SAFETY: by contract.
        unsafe { MappedArenas.unmap(arena, bytes) }
    }
}

/// A mapping that starts at a multiple of its size, a power of two; null if there is none.
///
/// The kernel places a mapping below the last one where it can, so after the first arena most fit at once.
fn map_aligned(bytes: usize) -> *mut u8 {
    let lucky = MappedArenas.map(bytes);
    if lucky.is_null() || lucky.addr().is_multiple_of(bytes) {
        return lucky;
    }
    // SAFETY: mapped just now. Then twice as much is, of which what stands out at both ends goes back: the kernel takes
    // back any pages of a mapping.
    unsafe {
        MappedArenas.unmap(lucky, bytes);
        let wide = MappedArenas.map(2 * bytes);
        if wide.is_null() {
            return wide;
        }
        let head_bytes = wide.addr().wrapping_neg() % bytes;
        let arena = wide.add(head_bytes);
        if head_bytes > 0 {
            MappedArenas.unmap(wide, head_bytes);
        }
        MappedArenas.unmap(arena.add(bytes), bytes - head_bytes);
        arena
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Current;

    const ARENA_BYTES: usize = 1 << 20;

    #[test]
    fn arenas_are_aligned_usable_and_owned_while_mapped() {
        static OWNERS: Owners<Current> = Owners::new();
        let (owners, mut source) = (&OWNERS, OwnedArenas::new());
        assert!(source.map(ARENA_BYTES).is_null(), "it does not know yet whom it serves");
        source.serve(owners, 11);
        source.serve(owners, 12);
        let arenas: Vec<*mut u8> = (0..20).map(|_| source.map(ARENA_BYTES)).collect();
        for &arena in &arenas {
            assert!(!arena.is_null() && arena.addr().is_multiple_of(ARENA_BYTES));
            // SAFETY: mapped, and this test's alone.
            unsafe { arena.write_bytes(0xA5, ARENA_BYTES) };
            assert_eq!(owners.of(arena.addr()), Some(11));
            assert_eq!(owners.of(arena.addr() + ARENA_BYTES - 1), Some(11));
        }
        assert_eq!(owners.count(), arenas.len());
        for arena in arenas {
            // SAFETY: mapped above, given back once.
            unsafe { source.unmap(arena, ARENA_BYTES) };
            assert_eq!(owners.of(arena.addr()), None);
        }
        source.refuse(true);
        assert!(source.map(ARENA_BYTES).is_null());
        assert_eq!(owners.count(), 0);
    }
}
