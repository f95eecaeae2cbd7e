//! Several allocators behind a lock each, and the way to the one that a block came from.
//!
//! A thread allocates from its home. If another thread is at work there, for longer than a moment, it takes any other
//! shard that is free rather than wait; a block may be freed by any thread, which has to wait for the shard that owns
//! it. Nobody waits for a shard while holding one, but for those who want all of them, and they take them in order.
//!
//! Under its lock each shard is the allocator of this crate, with its policy; the front adds none.
//!
//! **Invariant:** a block of a pool is given back to the shard that owns its arena, under that shard's lock.

use super::arenas::OwnedArenas;
use super::homes::SHARDS;
use super::lock::{Guard, Locked};
use super::owners::Owners;
use crate::Allocator;
use crate::check::{Price, Violation};
use crate::geometry::{Derived, Geometry};
use crate::source::LibcRaw;
use crate::statistics::Statistics;

type Pools<G> = Allocator<LibcRaw, OwnedArenas<G>, G>;

/// Aligned so that two locks never share a pair of cache lines.
#[repr(align(128))]
struct Shard<G: Geometry + 'static>(Locked<Pools<G>>);

/// A front. All zeros at first, and large: a `static` of it takes no room in the program's file.
pub(super) struct Front<G: Geometry + 'static> {
    owners: Owners<G>,
    shards: [Shard<G>; SHARDS],
}

impl<G: Geometry> Front<G> {
    pub(super) const fn new() -> Self {
        Self {
            owners: Owners::new(),
            shards: [const { Shard(Locked::new(Allocator::new(LibcRaw, OwnedArenas::new()))) }; SHARDS],
        }
    }

    /// A block of `bytes`, 1 to `G::SMALL_BYTES_MAX`, from the shard `home` if it can be had. Null if there is no
    /// memory.
    ///
    /// If no arena can be had the block is the C library's, as everywhere in this crate.
    #[inline]
    pub(super) fn allocate(&'static self, home: usize, bytes: usize) -> *mut u8 {
        match self.shards[home].0.try_lock() {
            Some(pools) => self.allocate_from(pools, home, bytes),
            None => self.allocate_elsewhere(home, bytes),
        }
    }

    #[inline(always)]
    fn allocate_from(&'static self, mut pools: Guard<'_, Pools<G>>, shard: usize, bytes: usize) -> *mut u8 {
        pools.source().serve(&self.owners, shard);
        pools.allocate(bytes)
    }

    #[cold]
    #[inline(never)]
    fn allocate_elsewhere(&'static self, home: usize, bytes: usize) -> *mut u8 {
        if let Some(pools) = self.shards[home].0.try_lock_soon() {
            return self.allocate_from(pools, home, bytes);
        }
        for step in 1..SHARDS {
            let shard = (home + step) % SHARDS;
            if let Some(pools) = self.shards[shard].0.try_lock() {
                return self.allocate_from(pools, shard, bytes);
            }
        }
        self.allocate_from(self.shards[home].0.lock(), home, bytes)
    }

    /// Gives a block back, from any thread.
    ///
    /// # Safety
    /// `block` is a live block of this front, and the pointer that was returned.
    #[inline]
    pub(super) unsafe fn free(&'static self, block: *mut u8) {
        // SAFETY: by contract; the shard owns the block.
        unsafe { self.owner(block).free(block) }
    }

    /// Makes a block `bytes` long, 1 to `G::SMALL_BYTES_MAX`, perhaps moving it. The shard stays the same.
    ///
    /// # Safety
    /// As for [`free`](Self::free); the old block is gone unless null is returned.
    #[inline]
    pub(super) unsafe fn reallocate(&'static self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: by contract; the shard owns the block.
        unsafe { self.owner(block).reallocate(block, bytes) }
    }

    /// The shard that a live block goes back to.
    #[inline(always)]
    fn owner(&'static self, block: *mut u8) -> Guard<'static, Pools<G>> {
        // A block in no arena was the C library's for lack of one. Any shard passes it on; the first one counts it.
        self.shards[self.owner_of(block).unwrap_or(0)].0.lock()
    }

    /// The number of the shard whose arena a live block lies in; none if it is not in an arena.
    #[inline(always)]
    pub(super) fn owner_of(&self, block: *const u8) -> Option<usize> {
        self.owners.of(block.addr())
    }

    /// What a shard holds.
    pub(super) fn statistics(&self, shard: usize) -> Statistics {
        self.shards[shard].0.lock().statistics()
    }

    /// Walks all shards, and whether the table of owners has their arenas and no others, while nobody else uses them.
    pub(super) fn check(&self, price: Price) -> Result<(), Violation> {
        let shards: [Guard<'_, Pools<G>>; SHARDS] = std::array::from_fn(|shard| self.shards[shard].0.lock());
        let mut mapped = 0;
        for (shard, pools) in shards.iter().enumerate() {
            pools.check(price)?;
            mapped += pools.statistics().arenas.mapped;
            for address in pools.occupancy().map(|arena| arena.address) {
                let owned = [address, address + G::ARENA_BYTES - 1].iter().all(|&at| self.owners.of(at) == Some(shard));
                if price > Price::None && !(owned && address.is_multiple_of(G::ARENA_BYTES)) {
                    return Err(Violation { invariant: "the table of owners names an arena's shard", address });
                }
            }
        }
        if price >= Price::Full && self.owners.count() != mapped {
            return Err(Violation { invariant: "the table of owners names mapped arenas alone", address: 0 });
        }
        Ok(())
    }

    /// Takes every lock, in order, before the process is forked.
    pub(super) fn keep_all(&self) {
        self.shards.iter().for_each(|shard| shard.0.keep());
    }

    /// Gives every lock back.
    ///
    /// # Safety
    /// This thread, or the one that this process was forked from, has kept them all.
    pub(super) unsafe fn give_all_back(&self) {
        // SAFETY: by contract.
        self.shards.iter().for_each(|shard| unsafe { shard.0.give_back() });
    }

    /// Largest request that pools serve.
    pub(super) const SMALL_BYTES_MAX: usize = {
        const { Derived::<G>::VALID };
        G::SMALL_BYTES_MAX
    };

    #[cfg(test)]
    fn refuse_arenas(&self, refuses: bool) {
        self.shards.iter().for_each(|shard| shard.0.lock().source().refuse(refuses));
    }
}

#[cfg(test)]
mod tests;
