//! Arenas: the descriptor vector, the list of usable arenas, and which arena gives the next pool.
//!
//! The usable list holds the arenas that have a free pool, fewest free pools first, so the fullest arena is used first
//! and emptier ones get a chance to drain. `last_with[k]` is the last arena of the list with `k` free pools; it makes
//! keeping the order constant-time, since one more free pool moves an arena to just behind its old group.
//!
//! **Invariant:** the usable list ascends by `free_pools`; an arena is in it exactly if it is mapped and
//! `free_pools` > 0; `last_with[k]` is null exactly if no listed arena has `k` free pools.

use std::ptr;

use crate::geometry::{Derived, Geometry, POOLS_PER_ARENA_MAX};
use crate::pool::{NO_CLASS, PoolHeader};
use crate::radix::AddressMap;
use crate::source::{ArenaSource, RawAllocator};

/// Descriptors in the first vector; each next one is twice as long.
const DESCRIPTORS_INITIAL: usize = 16;

/// One arena. Descriptors of unmapped arenas are kept for reuse.
#[repr(C)]
pub(crate) struct Arena {
    /// Start of the mapping; null if there is none.
    pub(crate) start: *mut u8,
    /// First pool that has never been used; beyond the last pool once all have been.
    pub(crate) next_virgin: *mut u8,
    /// Empty and virgin pools.
    pub(crate) free_pools: u32,
    /// Pools that the mapping holds.
    pub(crate) total_pools: u32,
    /// Pools whose blocks have all been freed, last emptied first.
    pub(crate) empty: *mut PoolHeader,
    /// Next in the usable list, or in the list of unused descriptors.
    pub(crate) next: *mut Arena,
    /// Previous in the usable list.
    pub(crate) previous: *mut Arena,
}

/// Counters that outlive arenas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArenaCounts {
    /// Arenas ever mapped.
    pub mapped_total: usize,
    /// Arenas mapped now.
    pub mapped: usize,
    /// Most arenas mapped at a time.
    pub mapped_peak: usize,
}

pub(crate) struct ArenaTable {
    /// Front of the usable list.
    pub(crate) usable: *mut Arena,
    pub(crate) last_with: [*mut Arena; POOLS_PER_ARENA_MAX + 1],
    pub(crate) counts: ArenaCounts,
    descriptors: *mut Arena,
    descriptors_len: usize,
    /// Descriptors without a mapping.
    pub(crate) unused: *mut Arena,
}

impl ArenaTable {
    pub(crate) const fn new() -> Self {
        Self {
            usable: ptr::null_mut(),
            last_with: [ptr::null_mut(); POOLS_PER_ARENA_MAX + 1],
            counts: ArenaCounts { mapped_total: 0, mapped: 0, mapped_peak: 0 },
            descriptors: ptr::null_mut(),
            descriptors_len: 0,
            unused: ptr::null_mut(),
        }
    }

    /// All descriptors, mapped or not, in the order in which they were made.
    pub(crate) fn descriptors(&self) -> &[Arena] {
        if self.descriptors.is_null() {
            return &[];
        }
        // SAFETY: the vector holds `descriptors_len` initialised descriptors.
        unsafe { std::slice::from_raw_parts(self.descriptors, self.descriptors_len) }
    }

    pub(crate) fn descriptor(&self, index: u32) -> *mut Arena {
        debug_assert!((index as usize) < self.descriptors_len, "a pool names an arena that does not exist");
        // SAFETY: pools carry the index of the descriptor that they were cut from, and the vector never shrinks.
        unsafe { self.descriptors.add(index as usize) }
    }

    /// Doubles the descriptor vector. False if the raw allocator has no memory.
    ///
    /// Called only when no arena is usable and no descriptor unused, so no link points into the vector that moves.
    fn grow(&mut self, raw: &mut impl RawAllocator) -> bool {
        debug_assert!(self.usable.is_null() && self.unused.is_null());
        let len = if self.descriptors_len == 0 { DESCRIPTORS_INITIAL } else { self.descriptors_len * 2 };
        if u32::try_from(len).is_err() {
            return false;
        }
        let bytes = len * size_of::<Arena>();
        let grown = if self.descriptors.is_null() {
            raw.allocate(bytes)
        } else {
            // SAFETY: the vector is a live block of the raw allocator.
            unsafe { raw.reallocate(self.descriptors.cast(), bytes) }
        };
        if grown.is_null() {
            return false;
        }
        self.descriptors = grown.cast();
        for index in (self.descriptors_len..len).rev() {
            let arena = Arena {
                start: ptr::null_mut(),
                next_virgin: ptr::null_mut(),
                free_pools: 0,
                total_pools: 0,
                empty: ptr::null_mut(),
                next: self.unused,
                previous: ptr::null_mut(),
            };
            // SAFETY: `index` is below the new length. `write` because the memory is uninitialised.
            unsafe {
                self.unused = self.descriptors.add(index);
                self.unused.write(arena);
            }
        }
        self.descriptors_len = len;
        true
    }

    /// Maps an arena and makes it the only usable one. False if there is no memory.
    ///
    /// Called only when no arena is usable.
    pub(crate) fn map<G: Geometry>(
        &mut self,
        map: &mut AddressMap<G>,
        raw: &mut impl RawAllocator,
        source: &mut impl ArenaSource,
    ) -> bool {
        debug_assert!(self.usable.is_null());
        if self.unused.is_null() && !self.grow(raw) {
            return false;
        }
        let start = source.map(G::ARENA_BYTES);
        if start.is_null() {
            return false;
        }
        if !map.mark(start.addr(), raw) {
            // SAFETY: the arena has just come from the source and nothing refers to it.
            unsafe { source.unmap(start, G::ARENA_BYTES) };
            return false;
        }
        let arena = self.unused;
        let skipped_bytes = start.addr().wrapping_neg() % G::POOL_BYTES;
        let total_pools = (Derived::<G>::POOLS_PER_ARENA - usize::from(skipped_bytes != 0)) as u32;
        // SAFETY: `unused` links live descriptors; the first pool lies less than a pool behind the arena's start.
        unsafe {
            self.unused = (*arena).next;
            (*arena).start = start;
            (*arena).next_virgin = start.add(skipped_bytes);
            (*arena).free_pools = total_pools;
            (*arena).total_pools = total_pools;
            (*arena).empty = ptr::null_mut();
            (*arena).next = ptr::null_mut();
            (*arena).previous = ptr::null_mut();
        }
        self.usable = arena;
        self.last_with[total_pools as usize] = arena;
        self.counts.mapped_total += 1;
        self.counts.mapped += 1;
        self.counts.mapped_peak = self.counts.mapped_peak.max(self.counts.mapped);
        true
    }

    /// Takes a pool from the first usable arena: the one emptied last, else a virgin one.
    ///
    /// # Safety
    /// There is a usable arena.
    pub(crate) unsafe fn take_pool<G: Geometry>(&mut self) -> *mut PoolHeader {
        let arena = self.usable;
        // SAFETY: a usable arena is a live descriptor with at least one free pool, whose memory belongs to it.
        unsafe {
            let free = (*arena).free_pools as usize;
            // The front arena has the fewest free pools, so it is alone in its new group.
            if self.last_with[free] == arena {
                self.last_with[free] = ptr::null_mut();
            }
            if free > 1 {
                self.last_with[free - 1] = arena;
            }
            (*arena).free_pools -= 1;

            let mut pool = (*arena).empty;
            if pool.is_null() {
                pool = (*arena).next_virgin.cast();
                (*arena).next_virgin = (*arena).next_virgin.add(G::POOL_BYTES);
                (*pool).arena = self.index_of(arena);
                (*pool).class = NO_CLASS;
            } else {
                (*arena).empty = (*pool).next;
            }
            if free == 1 {
                self.unlink(arena);
            }
            pool
        }
    }

    /// Takes back a pool whose last block has been freed. Returns the arena's start if the whole arena has to go.
    ///
    /// An arena goes when it is wholly free and not the last of the list: the last one stays, so that a program which
    /// frees and takes the same pool again and again does not map and unmap an arena each time.
    ///
    /// # Safety
    /// `pool` came from `take_pool`, no block of it is in use, and it is linked nowhere.
    pub(crate) unsafe fn return_pool(&mut self, pool: *mut PoolHeader) -> Option<*mut u8> {
        // SAFETY: the pool's arena is mapped, for it held a block in use until now; all links are live descriptors.
        unsafe {
            let arena = self.descriptor((*pool).arena);
            (*pool).next = (*arena).empty;
            (*arena).empty = pool;

            let old = (*arena).free_pools as usize;
            let last_of_old = self.last_with[old];
            if last_of_old == arena {
                let before = (*arena).previous;
                let group_remains = !before.is_null() && (*before).free_pools as usize == old;
                self.last_with[old] = if group_remains { before } else { ptr::null_mut() };
            }
            (*arena).free_pools += 1;
            let new = old + 1;

            if (*arena).free_pools == (*arena).total_pools && !(*arena).next.is_null() {
                self.unlink(arena);
                return Some(self.retire(arena));
            }
            if new == 1 {
                self.insert_after(ptr::null_mut(), arena);
                if self.last_with[1].is_null() {
                    self.last_with[1] = arena;
                }
                return None;
            }
            if self.last_with[new].is_null() {
                self.last_with[new] = arena;
            }
            // If it was the last of its old group, it already stands just before the group that it joins.
            if last_of_old != arena {
                self.unlink(arena);
                self.insert_after(last_of_old, arena);
            }
        }
        None
    }

    /// # Safety
    /// `arena` is a descriptor of this table.
    unsafe fn index_of(&self, arena: *mut Arena) -> u32 {
        // SAFETY: both point into the descriptor vector.
        unsafe { arena.offset_from_unsigned(self.descriptors) as u32 }
    }

    /// # Safety
    /// `arena` is in the usable list.
    unsafe fn unlink(&mut self, arena: *mut Arena) {
        // SAFETY: the list's links are live descriptors.
        unsafe {
            let (next, previous) = ((*arena).next, (*arena).previous);
            if previous.is_null() {
                self.usable = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            (*arena).next = ptr::null_mut();
            (*arena).previous = ptr::null_mut();
        }
    }

    /// Inserts behind `place`, or at the front if that is null.
    ///
    /// # Safety
    /// `arena` is a descriptor outside the usable list, `place` null or inside it.
    unsafe fn insert_after(&mut self, place: *mut Arena, arena: *mut Arena) {
        // SAFETY: the list's links are live descriptors.
        unsafe {
            let next = if place.is_null() { self.usable } else { (*place).next };
            (*arena).previous = place;
            (*arena).next = next;
            if !next.is_null() {
                (*next).previous = arena;
            }
            if place.is_null() {
                self.usable = arena;
            } else {
                (*place).next = arena;
            }
        }
    }

    /// Puts the descriptor aside for reuse and returns the start of the mapping that the caller has to release.
    ///
    /// # Safety
    /// `arena` is mapped and in no list.
    unsafe fn retire(&mut self, arena: *mut Arena) -> *mut u8 {
        self.counts.mapped -= 1;
        // SAFETY: by contract.
        unsafe {
            let start = (*arena).start;
            (*arena).start = ptr::null_mut();
            (*arena).next = self.unused;
            self.unused = arena;
            start
        }
    }

    /// Releases every arena and the vector, whatever is in them.
    pub(crate) fn clear<G: Geometry>(&mut self, raw: &mut impl RawAllocator, source: &mut impl ArenaSource) {
        for arena in self.descriptors().iter().filter(|arena| !arena.start.is_null()) {
            // SAFETY: the mapping came from this source; the caller gives up all blocks.
            unsafe { source.unmap(arena.start, G::ARENA_BYTES) };
        }
        if !self.descriptors.is_null() {
            // SAFETY: the vector is a live block of the raw allocator.
            unsafe { raw.free(self.descriptors.cast()) };
        }
        *self = Self::new();
    }
}
