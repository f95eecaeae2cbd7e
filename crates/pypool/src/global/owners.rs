//! Which shard's arena an address lies in, for any thread, without a lock.
//!
//! ```text
//! address bits   47 ........ 34 33 ........ 20 19 ... 0        (arenas of 1 MiB)
//!                root, 14 bits  leaf, 14       offset
//! ```
//! The arenas of a front start at multiples of their size, so each fills exactly one piece of address space, and one
//! byte per piece names its owner: 0 for nobody, else the shard's number plus one. A leaf of 16 KiB covers 16 GiB. It
//! is a mapping of its own, made when its first arena is, and stays.
//!
//! # Why reading without a lock is right
//! A thread asks about a block that it holds. The block's owner was written by the thread that mapped the arena, under
//! its shard's lock, before any block of the arena was handed out; whoever holds the block now got it from there, by a
//! chain of hand-overs each of which happens before the next. So the read comes after that write. The entry is written
//! again only when the arena goes, that is when none of its blocks is in use, and this block counts as in use until it
//! is freed, under the same lock, after the read. So there is exactly one value that the read can return, and it needs
//! no ordering of its own. What it leads to is protected by the shard's lock.
//!
//! An address that is in no arena, such as a block of `malloc`, was in none since the block was handed out, for
//! mappings do not overlap; its entry says nobody by the same argument. An arena is forgotten *before* it is unmapped,
//! or else another shard could map one at the same address in between, and lose its entry. Between two owners of one
//! address stands the kernel, which gives it to the second after the first has given it back, and orders the writes of
//! both.
//!
//! **Invariant:** the entry of a piece names a shard exactly while that shard has an arena mapped there.

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::geometry::Geometry;
use crate::source::{ArenaSource, MappedArenas};

/// Address bits below which all memory lies that a kernel gives without being asked for more.
const ADDRESS_BITS: u32 = 48;
/// Address bits that a leaf resolves, with the offset in an arena.
const LEAF_SPAN_BITS: u32 = 34;
const LEAF_SPAN_BYTES: usize = 1 << LEAF_SPAN_BITS;
const ROOT_SLOTS: usize = 1 << (ADDRESS_BITS - LEAF_SPAN_BITS);

/// The table. All zeros at first; about 128 KiB, of which a page is touched for each 8 TiB of address space in use.
pub(super) struct Owners<G> {
    root: [AtomicPtr<AtomicU8>; ROOT_SLOTS],
    geometry: PhantomData<fn() -> G>,
}

impl<G: Geometry> Owners<G> {
    const LEAF_ENTRIES: usize = LEAF_SPAN_BYTES / G::ARENA_BYTES;

    pub(super) const fn new() -> Self {
        Self { root: [const { AtomicPtr::new(ptr::null_mut()) }; ROOT_SLOTS], geometry: PhantomData }
    }

    /// The shard whose arena `address` lies in. The answer is reliable for a block that the caller holds.
    #[inline(always)]
    pub(super) fn of(&self, address: usize) -> Option<usize> {
        usize::from(self.entry(address)?.load(Ordering::Relaxed)).checked_sub(1)
    }

    /// Notes that `shard` owns an arena. False if the table has no room for it.
    ///
    /// `arena` is a multiple of the arena's size.
    pub(super) fn note(&self, arena: usize, shard: u8) -> bool {
        debug_assert!(arena.is_multiple_of(G::ARENA_BYTES), "an arena of a front is aligned to its size");
        if !self.has_leaf(arena) {
            return false;
        }
        self.entry(arena).is_some_and(|entry| {
            entry.store(shard + 1, Ordering::Relaxed);
            true
        })
    }

    /// Notes that nobody owns the arena any more.
    pub(super) fn forget(&self, arena: usize) {
        if let Some(entry) = self.entry(arena) {
            entry.store(0, Ordering::Relaxed);
        }
    }

    /// The entry of the piece that `address` lies in; none if it has no leaf.
    #[inline(always)]
    fn entry(&self, address: usize) -> Option<&AtomicU8> {
        let leaf = self.root.get(address / LEAF_SPAN_BYTES)?.load(Ordering::Acquire);
        // SAFETY: leaves have so many entries and stay.
        (!leaf.is_null()).then(|| unsafe { &*leaf.add(address % LEAF_SPAN_BYTES / G::ARENA_BYTES) })
    }

    /// Arenas that are owned. Exact if no shard changes meanwhile.
    pub(super) fn count(&self) -> usize {
        let leaves = self.root.iter().map(|slot| slot.load(Ordering::Acquire)).filter(|leaf| !leaf.is_null());
        // SAFETY: leaves have so many entries and stay.
        let entries = leaves.flat_map(|leaf| (0..Self::LEAF_ENTRIES).map(move |index| unsafe { &*leaf.add(index) }));
        entries.filter(|entry| entry.load(Ordering::Relaxed) != 0).count()
    }

    /// Whether there is a leaf that covers `arena`, perhaps after it was made.
    fn has_leaf(&self, arena: usize) -> bool {
        let Some(slot) = self.root.get(arena / LEAF_SPAN_BYTES) else { return false };
        if !slot.load(Ordering::Acquire).is_null() {
            return true;
        }
        // Zeroed, since it is fresh from the kernel.
        let made = MappedArenas.map(Self::LEAF_ENTRIES);
        if made.is_null() {
            return false;
        }
        if slot.compare_exchange(ptr::null_mut(), made.cast(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: another shard was faster; nobody has seen this one.
            unsafe { MappedArenas.unmap(made, Self::LEAF_ENTRIES) };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::{Before310, Current};

    const MIB: usize = 1 << 20;

    #[derive(Debug, Clone)]
    enum Step {
        Note(usize, u8),
        Forget(usize),
        Ask(usize),
    }

    /// Arenas on both sides of the border between two leaves, at the ends of the table, and beyond them.
    fn arenas() -> impl Strategy<Value = usize> {
        let ends = [0, LEAF_SPAN_BYTES, 5 * LEAF_SPAN_BYTES, 0x7f12 << 32, 1 << 48, usize::MAX & !(MIB - 1)];
        (proptest::sample::select(ends.to_vec()), 0..8_usize)
            .prop_map(|(end, number)| end.wrapping_add(number * MIB).wrapping_sub(4 * MIB))
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (arenas(), 0..16_u8).prop_map(|(arena, shard)| Step::Note(arena, shard)),
            arenas().prop_map(Step::Forget),
            (arenas(), 0..MIB).prop_map(|(arena, offset)| Step::Ask(arena + offset)),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_table_answers_as_a_map_does(steps in steps()) {
            let owners = Box::new(Owners::<Current>::new());
            let mut model = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Note(arena, shard) => {
                        let fits = arena >> ADDRESS_BITS == 0;
                        prop_assert_eq!(owners.note(arena, shard), fits, "{:#x}", arena);
                        if fits {
                            model.insert(arena / MIB, usize::from(shard));
                        }
                    }
                    Step::Forget(arena) => {
                        if model.remove(&(arena / MIB)).is_some() {
                            owners.forget(arena);
                        }
                    }
                    Step::Ask(address) => {
                        prop_assert_eq!(owners.of(address), model.get(&(address / MIB)).copied(), "{:#x}", address);
                    }
                }
                prop_assert_eq!(owners.count(), model.len());
            }
        }
    }

    #[test]
    fn an_arena_is_owned_to_its_last_byte() {
        let owners = Box::new(Owners::<Before310>::new());
        let arena = (7 << 34) + (256 << 10);
        assert!(owners.note(arena, 15));
        for (address, owner) in
            [(arena - 1, None), (arena, Some(15)), (arena + (256 << 10) - 1, Some(15)), (arena + (256 << 10), None)]
        {
            assert_eq!(owners.of(address), owner, "{address:#x}");
        }
    }

    /// All threads want the same leaf first, then write entries beside each other's.
    #[test]
    fn threads_that_make_the_same_leaf_all_find_their_entries() {
        for _ in 0..50 {
            let owners = Box::new(Owners::<Current>::new());
            thread::scope(|scope| {
                for shard in 0..8_u8 {
                    let owners = &owners;
                    scope.spawn(move || {
                        for number in 0..16 {
                            assert!(owners.note((number * 8 + usize::from(shard)) * MIB, shard));
                        }
                    });
                }
            });
            assert_eq!(owners.count(), 128);
            assert!((0..128).all(|arena| owners.of(arena * MIB + 5) == Some(arena % 8)));
        }
    }
}
