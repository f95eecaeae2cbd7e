//! The allocators that [`Caller`](crate::caller::Caller) plays on: the faithful one of any geometry, and the tuned one
//! with any policies.
//!
//! **Invariant:** a subject refuses nothing that it does not count.

use pypool::{Geometry, Price, Statistics, Tuned, policy};

use crate::sources::{CountingRaw, TestAllocator, allocator};

/// What a caller has to know of an allocator under test.
pub(crate) trait Subject {
    /// Alignment of a pool's block, bytes.
    const ALIGNMENT_BYTES: usize;
    /// Largest request that pools always serve, bytes.
    const SMALL_BYTES_MAX: usize;
    /// Largest request that pools may serve, bytes.
    const POOLED_BYTES_MAX: usize;

    /// A new one; what `place` means is its own.
    fn fresh(place: usize) -> Box<Self>;
    /// Distance of the size classes around a request, bytes.
    fn step_bytes(request_bytes: usize) -> usize;
    /// So many more arenas and requests to the raw allocator are served.
    fn starve(&self, arenas: usize, raw: usize);
    /// Requests that were refused, below or for lack of room.
    fn refusals(&self) -> usize;
    /// Its statistics, after all invariants were found to hold.
    fn checked(&self) -> Statistics;
    /// What has to hold when every block was freed.
    fn assert_drained(&self);

    fn allocate(&mut self, bytes: usize) -> *mut u8;
    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8;
    /// # Safety
    /// As `pypool`'s.
    unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8;
    /// # Safety
    /// As `pypool`'s.
    unsafe fn free(&mut self, block: *mut u8);
    /// # Safety
    /// As `pypool`'s.
    unsafe fn usable_size(&mut self, block: *mut u8) -> Option<usize>;
}

/// The calls that both have under the same names: by a path, which means a type's own function before a trait's.
macro_rules! calls {
    () => {
        fn allocate(&mut self, bytes: usize) -> *mut u8 {
            Self::allocate(self, bytes)
        }

        fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
            Self::allocate_zeroed(self, count, element_bytes)
        }

        unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
            // SAFETY: the caller's promise.
            unsafe { Self::reallocate(self, block, bytes) }
        }

        unsafe fn free(&mut self, block: *mut u8) {
            // SAFETY: the caller's promise.
            unsafe { Self::free(self, block) }
        }

        unsafe fn usable_size(&mut self, block: *mut u8) -> Option<usize> {
            // SAFETY: the caller's promise.
            unsafe { Self::usable_size(self, block) }
        }
    };
}

/// `place` is the distance of each arena from its slot's start.
impl<G: Geometry> Subject for TestAllocator<G> {
    const ALIGNMENT_BYTES: usize = G::ALIGNMENT_BYTES;
    const SMALL_BYTES_MAX: usize = G::SMALL_BYTES_MAX;
    const POOLED_BYTES_MAX: usize = G::SMALL_BYTES_MAX;

    fn fresh(place: usize) -> Box<Self> {
        allocator::<G>(place)
    }

    fn step_bytes(_: usize) -> usize {
        G::ALIGNMENT_BYTES
    }

    fn starve(&self, arenas: usize, raw: usize) {
        self.source().patience.set(arenas);
        self.raw().patience.set(raw);
    }

    fn refusals(&self) -> usize {
        self.source().patience.refusals() + self.raw().patience.refusals()
    }

    fn checked(&self) -> Statistics {
        self.check(Price::Full).unwrap();
        let statistics = self.statistics();
        assert_eq!(statistics.arenas.mapped, self.source().mapped());
        statistics
    }

    fn assert_drained(&self) {
        assert!(self.source().mapped() <= 1, "at most the last arena stays");
    }

    calls!();
}

/// Room for so few arenas that a caller comes to their end.
const ARENAS_MAX: usize = 3;

/// `place` is not used: addresses come from the kernel.
impl<const POLICIES: u32> Subject for Tuned<CountingRaw, POLICIES> {
    const ALIGNMENT_BYTES: usize = 16;
    const SMALL_BYTES_MAX: usize = 512;
    const POOLED_BYTES_MAX: usize = Self::POOL_REQUEST_BYTES_MAX;

    fn fresh(_: usize) -> Box<Self> {
        Box::new(Self::with_room(CountingRaw::default(), ARENAS_MAX << 20))
    }

    fn step_bytes(request_bytes: usize) -> usize {
        if request_bytes <= 512 { 16 } else { 128 }
    }

    fn starve(&self, _: usize, raw: usize) {
        self.raw().patience.set(raw);
    }

    /// A request that finds no pool goes to the raw allocator, which counts what it is asked for.
    fn refusals(&self) -> usize {
        let statistics = self.statistics();
        let is_out_of_room = statistics.arenas.mapped == ARENAS_MAX && statistics.unused_pools == 0;
        let asked = if is_out_of_room { self.raw().requests_bytes.len() } else { 0 };
        self.raw().patience.refusals() + asked
    }

    fn checked(&self) -> Statistics {
        self.check(Price::Full).unwrap();
        let statistics = self.statistics();
        assert!(statistics.arenas.mapped <= ARENAS_MAX);
        assert!(self.present_bytes_max() <= statistics.arenas.mapped * statistics.arena_bytes);
        statistics
    }

    fn assert_drained(&self) {
        let statistics = self.statistics();
        assert_eq!(statistics.allocated_bytes, 0);
        let lingering: usize = statistics.classes().iter().map(|row| row.pools).sum();
        let may_linger = if POLICIES & policy::LINGER != 0 { statistics.classes().len() } else { 0 };
        assert!(lingering <= may_linger, "one pool of a class may stay with it");
    }

    calls!();
}
