//! "Is this address in one of our arenas?": a radix tree over all 64 address bits.
//!
//! ```text
//! address bits   63 ........ 49 48 ........ 34 33 ........ 20 19 ... 0        (arenas of 1 MiB)
//!                root, 15 bits  middle, 15     leaf, 14       offset
//! ```
//!
//! Arenas are not aligned to their size, so one usually spans two leaf entries, and an entry may be shared by two
//! arenas: the end of one lies at its start (the *head*), the beginning of the next at its end (the *tail*). What lies
//! between is nobody's. CPython stores the two borders and compares with both. Here an entry holds the length of the
//! head and of both together, so that one comparison answers: which of two arenas an address lies in is as good as
//! random, and a branch on it would often be predicted wrongly.
//!
//! CPython walks three dependent loads per lookup. Here the last leaf that answered yes is remembered, with the 16 GiB
//! of addresses that it covers, so a lookup near the last one is a subtraction, a comparison and one load. The answer
//! is the same.
//!
//! **Invariant:** an address is covered exactly if it lies in an arena that has been marked and not unmarked since.

use std::marker::PhantomData;
use std::ptr;

use crate::geometry::{Derived, Geometry};
use crate::source::RawAllocator;

/// Address bits that the root and a middle node resolve each, as in CPython 3.11 and later.
const INTERIOR_BITS: u32 = 15;
const INTERIOR_SLOTS: usize = 1 << INTERIOR_BITS;

/// What one leaf entry knows about the arena-sized piece of address space that it stands for.
#[repr(C)]
struct Coverage {
    /// Bytes at the start that belong to the arena that started in the piece before.
    head_bytes: u32,
    /// Those, and the bytes at the end that belong to the arena that starts here.
    covered_bytes: u32,
}

/// A middle node: one pointer to a leaf (an array of [`Coverage`]) per slot.
type Middle = [*mut Coverage; INTERIOR_SLOTS];

/// Number and size of the tree's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapStatistics {
    /// Nodes of the middle level.
    pub middle_nodes: usize,
    /// Nodes of the leaf level.
    pub leaf_nodes: usize,
    /// Bytes of the root, part of the allocator itself.
    pub root_bytes: usize,
    /// Bytes of one middle node.
    pub middle_node_bytes: usize,
    /// Bytes of one leaf node.
    pub leaf_node_bytes: usize,
}

pub(crate) struct AddressMap<G> {
    /// The leaf that answered last; null exactly while `window_bytes` is 0.
    window_leaf: *mut Coverage,
    /// First address that `window_leaf` covers.
    window_start: usize,
    /// Bytes of address space that `window_leaf` covers; 0 before the first arena.
    window_bytes: usize,
    middle_nodes: usize,
    leaf_nodes: usize,
    root: [*mut Middle; INTERIOR_SLOTS],
    geometry: PhantomData<G>,
}

impl<G: Geometry> AddressMap<G> {
    const LEAF_BITS: u32 = usize::BITS - Derived::<G>::ARENA_BITS - 2 * INTERIOR_BITS;
    const LEAF_ENTRIES: usize = 1 << Self::LEAF_BITS;
    /// Address space that one leaf covers.
    const LEAF_SPAN_BYTES: usize = 1 << (Self::LEAF_BITS + Derived::<G>::ARENA_BITS);

    pub(crate) const fn new() -> Self {
        Self {
            window_leaf: ptr::null_mut(),
            window_start: 0,
            window_bytes: 0,
            middle_nodes: 0,
            leaf_nodes: 0,
            root: [ptr::null_mut(); INTERIOR_SLOTS],
            geometry: PhantomData,
        }
    }

    /// Whether `address` lies in an arena.
    pub(crate) fn covers(&mut self, address: usize) -> bool {
        self.covers_nearby(address) || self.covers_by_walk(address)
    }

    /// Whether `address` lies in an arena near that of the last answer. If not, only a walk can tell.
    #[inline(always)]
    pub(crate) fn covers_nearby(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.window_start);
        // SAFETY: the leaf covers `window_bytes` from `window_start`, so the entry lies inside it.
        offset < self.window_bytes
            && unsafe { Self::entry_covers(self.window_leaf.add(offset / G::ARENA_BYTES), address) }
    }

    /// Whether `address` lies in an arena, from the root.
    pub(crate) fn covers_by_walk(&mut self, address: usize) -> bool {
        let leaf = self.leaf_of(address);
        if leaf.is_null() {
            return false;
        }
        // SAFETY: the index is below the number of entries of every leaf.
        let covered = unsafe { Self::entry_covers(leaf.add(Self::leaf_index(address)), address) };
        // A foreign address must not take the window away from the arenas.
        if covered {
            self.look_through(leaf, address);
        }
        covered
    }

    fn look_through(&mut self, leaf: *mut Coverage, address: usize) {
        self.window_leaf = leaf;
        self.window_start = address & !(Self::LEAF_SPAN_BYTES - 1);
        self.window_bytes = Self::LEAF_SPAN_BYTES;
    }

    /// # Safety
    /// `entry` is the leaf entry of `address`.
    #[inline(always)]
    unsafe fn entry_covers(entry: *const Coverage, address: usize) -> bool {
        // SAFETY: by contract.
        let (head, covered) = unsafe { ((*entry).head_bytes as usize, (*entry).covered_bytes as usize) };
        // Counted from the end of the head, round the corner, the gap comes first, then tail and head.
        let distance = address.wrapping_sub(head) % G::ARENA_BYTES;
        distance + covered >= G::ARENA_BYTES
    }

    fn root_index(address: usize) -> usize {
        address >> (usize::BITS - INTERIOR_BITS)
    }

    fn middle_index(address: usize) -> usize {
        (address / Self::LEAF_SPAN_BYTES) % INTERIOR_SLOTS
    }

    fn leaf_index(address: usize) -> usize {
        (address / G::ARENA_BYTES) % Self::LEAF_ENTRIES
    }

    /// The leaf that covers `address`, null if there is none yet.
    fn leaf_of(&self, address: usize) -> *mut Coverage {
        let middle = self.root[Self::root_index(address)];
        if middle.is_null() {
            return ptr::null_mut();
        }
        // SAFETY: middle nodes live as long as the map and were zeroed when they were made.
        unsafe { (*middle)[Self::middle_index(address)] }
    }

    /// The leaf that covers `address`, made if need be; null if the raw allocator has no memory.
    fn leaf_made(&mut self, address: usize, raw: &mut impl RawAllocator) -> *mut Coverage {
        let root_slot = &mut self.root[Self::root_index(address)];
        if root_slot.is_null() {
            *root_slot = raw.allocate_zeroed(1, size_of::<Middle>()).cast();
            if root_slot.is_null() {
                return ptr::null_mut();
            }
            self.middle_nodes += 1;
        }
        // SAFETY: middle nodes live as long as the map; zeroed memory is an array of null pointers.
        let middle_slot = unsafe { &mut (**root_slot)[Self::middle_index(address)] };
        if middle_slot.is_null() {
            *middle_slot = raw.allocate_zeroed(1, Self::LEAF_ENTRIES * size_of::<Coverage>()).cast();
            if !middle_slot.is_null() {
                self.leaf_nodes += 1;
            }
        }
        *middle_slot
    }

    /// Marks the arena that starts at `arena`. False, and nothing is marked, if the raw allocator has no memory.
    pub(crate) fn mark(&mut self, arena: usize, raw: &mut impl RawAllocator) -> bool {
        let head_bytes = arena % G::ARENA_BYTES;
        let first = self.leaf_made(arena, raw);
        if first.is_null() {
            return false;
        }
        if head_bytes != 0 {
            let end = arena.wrapping_add(G::ARENA_BYTES);
            let second = self.leaf_made(end, raw);
            if second.is_null() {
                return false;
            }
            // SAFETY: the index is below the number of entries of every leaf.
            let entry = unsafe { &mut *second.add(Self::leaf_index(end)) };
            entry.head_bytes = head_bytes as u32;
            entry.covered_bytes += head_bytes as u32;
        }
        // SAFETY: as above; no other reference into a leaf is alive.
        unsafe { (*first.add(Self::leaf_index(arena))).covered_bytes += (G::ARENA_BYTES - head_bytes) as u32 };
        self.look_through(first, arena);
        true
    }

    /// Forgets the arena that starts at `arena` and has been marked.
    pub(crate) fn unmark(&mut self, arena: usize) {
        let end = arena.wrapping_add(G::ARENA_BYTES);
        let head_bytes = arena % G::ARENA_BYTES;
        // SAFETY: `mark` has made both leaves, nodes are never freed before the map, and the indexes are in range.
        unsafe {
            (*self.leaf_of(arena).add(Self::leaf_index(arena))).covered_bytes -= (G::ARENA_BYTES - head_bytes) as u32;
            if head_bytes != 0 {
                let entry = &mut *self.leaf_of(end).add(Self::leaf_index(end));
                entry.head_bytes = 0;
                entry.covered_bytes -= head_bytes as u32;
            }
        }
    }

    pub(crate) fn statistics(&self) -> MapStatistics {
        MapStatistics {
            middle_nodes: self.middle_nodes,
            leaf_nodes: self.leaf_nodes,
            root_bytes: size_of::<[*mut Middle; INTERIOR_SLOTS]>(),
            middle_node_bytes: size_of::<Middle>(),
            leaf_node_bytes: Self::LEAF_ENTRIES * size_of::<Coverage>(),
        }
    }

    /// Whether `address` lies in an arena, from the root and remembering nothing: the answer that a check trusts.
    pub(crate) fn finds(&self, address: usize) -> bool {
        let leaf = self.leaf_of(address);
        // SAFETY: the index is below the number of entries of every leaf.
        !leaf.is_null() && unsafe { Self::entry_covers(leaf.add(Self::leaf_index(address)), address) }
    }

    /// Whether the remembered leaf is the one of the addresses that it is remembered for.
    pub(crate) fn remembers_rightly(&self) -> bool {
        if self.window_bytes == 0 {
            return self.window_leaf.is_null();
        }
        self.window_bytes == Self::LEAF_SPAN_BYTES
            && self.window_start.is_multiple_of(Self::LEAF_SPAN_BYTES)
            && !self.window_leaf.is_null()
            && self.window_leaf == self.leaf_of(self.window_start)
    }

    pub(crate) fn counts_nodes_rightly(&self) -> bool {
        let (mut middle_nodes, mut leaf_nodes) = (0, 0);
        for &middle in self.root.iter().filter(|middle| !middle.is_null()) {
            middle_nodes += 1;
            // SAFETY: middle nodes live as long as the map; nothing changes them meanwhile.
            leaf_nodes += unsafe { &*middle }.iter().filter(|leaf| !leaf.is_null()).count();
        }
        (middle_nodes, leaf_nodes) == (self.middle_nodes, self.leaf_nodes)
    }

    /// Gives all nodes back and leaves the map empty.
    pub(crate) fn clear(&mut self, raw: &mut impl RawAllocator) {
        self.window_bytes = 0;
        self.window_leaf = ptr::null_mut();
        for middle in self.root.iter_mut().filter(|middle| !middle.is_null()) {
            // SAFETY: nodes came from this raw allocator, and no slot refers to them afterwards.
            unsafe {
                for leaf in (**middle).iter().filter(|leaf| !leaf.is_null()) {
                    raw.free(leaf.cast());
                }
                raw.free(middle.cast());
            }
            *middle = ptr::null_mut();
        }
        (self.middle_nodes, self.leaf_nodes) = (0, 0);
    }
}

#[cfg(test)]
mod model;

/// Damage that only a test does.
#[cfg(test)]
impl<G: Geometry> AddressMap<G> {
    pub(crate) fn shift_window(&mut self) {
        self.window_start = self.window_start.wrapping_add(Self::LEAF_SPAN_BYTES);
    }

    pub(crate) fn miscount_leaves(&mut self) {
        self.leaf_nodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::LibcRaw;
    use crate::{Before310, Current};

    const MIB: usize = 1 << 20;

    fn with_map<G: Geometry>(test: impl FnOnce(&mut AddressMap<G>)) {
        let mut map = Box::new(AddressMap::<G>::new());
        test(&mut map);
        map.clear(&mut LibcRaw);
    }

    #[test]
    fn an_aligned_arena_covers_itself_and_nothing_else() {
        with_map::<Current>(|map| {
            assert!(!map.covers(64 * MIB));
            assert!(map.mark(64 * MIB, &mut LibcRaw));
            assert!(map.covers(64 * MIB) && map.covers(65 * MIB - 1));
            assert!(!map.covers(64 * MIB - 1) && !map.covers(65 * MIB));
            map.unmark(64 * MIB);
            assert!(!map.covers(64 * MIB));
        });
    }

    #[test]
    fn misaligned_neighbours_share_an_entry() {
        with_map::<Current>(|map| {
            let (first, second) = (64 * MIB + 4096, 65 * MIB + 8192);
            assert!(map.mark(first, &mut LibcRaw) && map.mark(second, &mut LibcRaw));
            assert!(map.covers(first) && map.covers(first + MIB - 1));
            assert!(!map.covers(first - 1) && !map.covers(first + MIB), "the gap is nobody's");
            assert!(map.covers(second) && map.covers(second + MIB - 1) && !map.covers(second + MIB));
            map.unmark(first);
            assert!(!map.covers(first) && !map.covers(first + MIB - 1) && map.covers(second));
        });
    }

    #[test]
    fn arenas_far_apart_and_across_leaves() {
        with_map::<Current>(|map| {
            let low = (16 << 30) - MIB / 2;
            let high = 0x7f12_3450_0000 + 4096;
            assert!(map.mark(low, &mut LibcRaw) && map.mark(high, &mut LibcRaw));
            assert_eq!((map.statistics().middle_nodes, map.statistics().leaf_nodes), (1, 3));
            for address in [low, low + MIB / 2 - 1, low + MIB / 2, low + MIB - 1, high, high + MIB - 1] {
                assert!(map.covers(address), "{address:#x}");
            }
            for address in [0, 1, low - 1, low + MIB, high - 1, high + MIB, usize::MAX] {
                assert!(!map.covers(address), "{address:#x}");
            }
        });
    }

    #[test]
    fn nodes_are_as_large_as_in_cpython() {
        with_map::<Current>(|map| {
            let nodes = map.statistics();
            assert_eq!(nodes.root_bytes, 256 << 10);
            assert_eq!(nodes.middle_node_bytes, 256 << 10);
            assert_eq!(nodes.leaf_node_bytes, 128 << 10);
        });
        with_map::<Before310>(|map| {
            assert!(map.mark(5 * MIB + 4096, &mut LibcRaw));
            assert!(map.covers(5 * MIB + 4096 + (256 << 10) - 1) && !map.covers(5 * MIB + 4096 + (256 << 10)));
        });
    }
}
