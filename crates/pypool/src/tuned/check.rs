//! Walking the invariants of the tuned allocator.
//!
//! **Invariant:** checking changes nothing and allocates nothing, so it may run between any two calls.

use std::ptr;

use super::Tuned;
use super::allocator::CLASSES;
use super::policy;
use super::pool::{Header, NONE, state};
use super::range::{POOL_BYTES, Range};
use crate::check::{Price, Violation, ensure};
use crate::pool::link;
use crate::source::RawAllocator;

impl<R: RawAllocator, const POLICIES: u32> Tuned<R, POLICIES> {
    /// Walks the invariants, as many as the price pays for: the stack and the list of pools without a block in use for
    /// [`Price::Cheap`]; for [`Price::Full`] also every pool and every free block.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self, price: Price) -> Result<(), Violation> {
        if price >= Price::Cheap {
            ensure(self.empties.virgin <= self.range.pools(), "taken pools lie in the arenas", 0)?;
            self.check_stack()?;
            self.check_purged()?;
        }
        if price >= Price::Full {
            self.check_arenas()?;
            let mut used = 0;
            for class in 0..Self::CLASSES {
                used += self.check_class(class)?;
            }
            self.check_pools(used)?;
        }
        Ok(())
    }

    /// Whether a pointer leads to the header of a pool that was taken at some time.
    fn is_header(&self, header: *mut Header) -> bool {
        let index = self.range.index(header);
        index < self.empties.virgin && self.range.header(index) == header
    }

    fn check_stack(&self) -> Result<(), Violation> {
        let (mut previous, mut current, mut listed) = (ptr::null_mut(), self.empties.newest, 0);
        while !current.is_null() {
            ensure(self.is_header(current), "the stack of empty pools links headers", current.addr())?;
            // SAFETY: a header, as has just been checked.
            let header = unsafe { &*current };
            ensure(header.state == state::EMPTY, "a pool in the stack is empty", current.addr())?;
            ensure(header.previous == previous, "links of the stack go both ways", current.addr())?;
            listed += 1;
            ensure(listed <= self.empties.dirty, "the stack is as long as is counted", current.addr())?;
            (previous, current) = (current, header.next);
        }
        ensure(listed == self.empties.dirty, "the stack is as long as is counted", 0)?;
        ensure(previous == self.empties.oldest, "the stack ends with the pool that has been empty longest", 0)
    }

    fn check_purged(&self) -> Result<(), Violation> {
        let (mut current, mut listed) = (self.empties.purged, 0);
        while !current.is_null() {
            ensure(self.is_header(current), "the list of purged pools links headers", current.addr())?;
            // SAFETY: a header, as has just been checked.
            let header = unsafe { &*current };
            ensure(header.state == state::PURGED, "a pool in the list of purged ones is purged", current.addr())?;
            listed += 1;
            ensure(listed <= self.empties.virgin, "the list of purged pools ends", current.addr())?;
            current = header.next;
        }
        let expected = self.empties.virgin.wrapping_sub(self.empties.in_use + self.empties.dirty);
        ensure(listed == expected, "what is neither in use nor empty is purged", 0)
    }

    /// That arenas are found by their addresses, and what is beside them is not.
    fn check_arenas(&self) -> Result<(), Violation> {
        if self.range.pools() == 0 {
            return Ok(());
        }
        let (first, end) = (self.range.pool(0).addr(), self.range.pool(self.range.pools()).addr());
        let (outside, inside) = ([first - 1, end], (first..end).step_by(POOL_BYTES).chain([end - 1]));
        for address in outside {
            ensure(
                !self.lookup.finds(&self.range, address),
                "no address beside the arenas is taken for one of theirs",
                address,
            )?;
        }
        for address in inside {
            ensure(self.lookup.finds(&self.range, address), "every address of the arenas is found", address)?;
        }
        Ok(())
    }

    /// Walks the list of a class and returns its length.
    fn check_class(&self, class: usize) -> Result<usize, Violation> {
        let (mut previous, mut listed) = (ptr::null_mut(), 0);
        let mut current = if self.front[class] == NONE { ptr::null_mut() } else { self.front[class] };
        while !current.is_null() {
            ensure(self.is_header(current), "the list of a class links headers", current.addr())?;
            // SAFETY: a header, as has just been checked.
            let header = unsafe { &*current };
            ensure(header.state == state::USED, "a listed pool is used", current.addr())?;
            ensure(header.class as usize == class, "a listed pool is of the list's class", current.addr())?;
            ensure(header.previous == previous, "links of a class go both ways", current.addr())?;
            let may_be_empty = POLICIES & policy::LINGER != 0;
            ensure(header.countdown > 0 || may_be_empty, "a listed pool has a block in use", current.addr())?;
            listed += 1;
            ensure(listed <= self.empties.in_use, "the list of a class ends", current.addr())?;
            (previous, current) = (current, header.next);
        }
        Ok(listed)
    }

    /// Every pool that was taken; `listed` of them are in the lists of the classes.
    fn check_pools(&self, listed: usize) -> Result<(), Violation> {
        let (mut used, mut full) = (0, [0; CLASSES]);
        for header in self.headers(0, self.empties.virgin) {
            // SAFETY: a taken pool has an initialised header.
            match unsafe { (*header).state } {
                state::USED => used += 1,
                state::FULL => full[self.class_of(header)?] += 1,
                state::EMPTY => {}
                state::PURGED => continue,
                _ => ensure(false, "a pool that was taken is not virgin", header.addr())?,
            }
            self.check_pool(header)?;
        }
        ensure(used == listed, "every used pool is in the list of its class", 0)?;
        ensure(full == self.full, "full pools of each class are as many as is counted", 0)?;
        let full = full.iter().sum::<u32>() as usize;
        ensure(used + full == self.empties.in_use, "pools in use are as many as is counted", 0)
    }

    fn class_of(&self, header: *mut Header) -> Result<usize, Violation> {
        // SAFETY: a taken pool has an initialised header.
        let class = unsafe { (*header).class } as usize;
        ensure(class < Self::CLASSES, "a pool has a class", header.addr())?;
        Ok(class)
    }

    fn check_pool(&self, current: *mut Header) -> Result<(), Violation> {
        // SAFETY: a taken pool has an initialised header.
        let header = unsafe { &*current };
        let class = self.class_of(current)?;
        let (block_bytes, capacity) = (Self::block_bytes(class), Self::blocks_per_pool(class));
        let pool = self.range.pool(self.range.index(current)).addr() + Range::<POLICIES>::SKIPPED_BYTES;
        let carved = capacity.checked_sub(header.virgin as usize);
        let carved =
            carved.ok_or(Violation { invariant: "no more blocks are virgin than there are", address: pool })?;
        let (mut free, mut block) = (0, header.free);
        while !block.is_null() {
            let offset = block.addr().wrapping_sub(pool);
            let is_block = offset.is_multiple_of(block_bytes) && offset / block_bytes < carved;
            ensure(is_block, "a free list links carved blocks of its pool", block.addr())?;
            free += 1;
            ensure(free <= carved, "a free list ends", block.addr())?;
            // SAFETY: a block of the pool.
            block = unsafe { link(block) };
        }
        let in_use = if header.state == state::EMPTY { 0 } else { Self::in_use(current) };
        ensure(in_use + free == carved, "carved blocks are in use or on the free list", current.addr())?;
        let turns = if header.state == state::FULL { 1 } else { in_use };
        ensure(header.countdown as usize == turns, "the countdown of a full pool is 1", current.addr())
    }
}
