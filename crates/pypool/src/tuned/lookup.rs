//! Whether an address is a pool's: by one comparison with the range, or, without [`policy::RANGE`], by the address map.
//!
//! The map is a block of the raw allocator, made when the first arena comes: as part of the allocator, whose initial
//! state is not all zeros, it would be a quarter of a megabyte of every program with such an allocator in a `static`.
//!
//! **Invariant:** with the policy there is no map; without it, the map covers exactly the arenas of the range.

use std::ptr;

use super::policy;
use super::range::Range;
use crate::geometry::Current;
use crate::radix::{AddressMap, MapStatistics};
use crate::source::RawAllocator;

pub(super) struct Lookup<const POLICIES: u32> {
    /// Null before the first arena, and always with the policy.
    map: *mut AddressMap<Current>,
}

impl<const POLICIES: u32> Lookup<POLICIES> {
    /// Whether one look is enough.
    const IS_RANGE: bool = POLICIES & policy::RANGE != 0;

    pub(super) const fn new() -> Self {
        Self { map: ptr::null_mut() }
    }

    /// Whether an address lies in an arena, as far as one look can tell.
    #[inline(always)]
    pub(super) fn covers_nearby(&self, range: &Range<POLICIES>, address: usize) -> bool {
        if Self::IS_RANGE {
            return range.covers(address);
        }
        // SAFETY: what is not null is a live map.
        !self.map.is_null() && unsafe { (*self.map).covers_nearby(address) }
    }

    /// Whether an address that one look did not find lies in an arena all the same.
    pub(super) fn covers_far(&mut self, address: usize) -> bool {
        // SAFETY: as in `covers_nearby`.
        !Self::IS_RANGE && !self.map.is_null() && unsafe { (*self.map).covers_by_walk(address) }
    }

    /// Whether an address lies in an arena, remembering nothing.
    pub(super) fn finds(&self, range: &Range<POLICIES>, address: usize) -> bool {
        if Self::IS_RANGE {
            return range.covers(address);
        }
        // SAFETY: as in `covers_nearby`.
        !self.map.is_null() && unsafe { (*self.map).finds(address) }
    }

    /// Learns of an arena. False if there is no memory for it.
    pub(super) fn mark(&mut self, arena: usize, raw: &mut impl RawAllocator) -> bool {
        if Self::IS_RANGE {
            return true;
        }
        if self.map.is_null() {
            // All zeros is a map without arenas.
            self.map = raw.allocate_zeroed(1, size_of::<AddressMap<Current>>()).cast();
        }
        // SAFETY: as in `covers_nearby`.
        !self.map.is_null() && unsafe { (*self.map).mark(arena, raw) }
    }

    pub(super) fn statistics(&self) -> MapStatistics {
        let none =
            MapStatistics { middle_nodes: 0, leaf_nodes: 0, root_bytes: 0, middle_node_bytes: 0, leaf_node_bytes: 0 };
        // SAFETY: as in `covers_nearby`.
        if self.map.is_null() { none } else { unsafe { (*self.map).statistics() } }
    }

    /// Gives the map back.
    pub(super) fn clear(&mut self, raw: &mut impl RawAllocator) {
        if !self.map.is_null() {
            // SAFETY: a live map, which came from this raw allocator and is forgotten.
            unsafe {
                (*self.map).clear(raw);
                raw.free(self.map.cast());
            }
            self.map = ptr::null_mut();
        }
    }
}
