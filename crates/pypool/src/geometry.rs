//! Sizes of blocks, pools and arenas: the parameters of the policy.
//!
//! A geometry is a type, not a value, so that every division and mask of the fast path is a constant. [`Current`] is
//! what CPython has used since 3.10, [`Before310`] what 64-bit builds of 3.7 (late patch releases) to 3.9 used.
//!
//! **Invariant:** every geometry that an allocator is built with has passed [`Derived::VALID`], at compile time.

use std::marker::PhantomData;

use crate::pool::PoolHeader;

/// Most size classes that any geometry may have.
pub(crate) const CLASSES_MAX: usize = 64;

/// Most pools that an arena of any geometry may hold.
pub(crate) const POOLS_PER_ARENA_MAX: usize = 256;

/// Sizes of the units that the policy works in. All are powers of two, except the threshold.
pub trait Geometry {
    /// Alignment of every block and the distance between two size classes.
    const ALIGNMENT_BYTES: usize = 16;
    /// Largest request that is served from a pool; a multiple of the alignment.
    const SMALL_BYTES_MAX: usize = 512;
    /// Size and alignment of a pool.
    const POOL_BYTES: usize;
    /// Size of an arena. Arenas need not be aligned to it, nor to a pool.
    const ARENA_BYTES: usize;
}

/// CPython 3.10 and later on 64-bit machines: arenas of 1 MiB, pools of 16 KiB, 32 classes up to 512 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Current;

impl Geometry for Current {
    const POOL_BYTES: usize = 16 << 10;
    const ARENA_BYTES: usize = 1 << 20;
}

/// CPython before 3.10 on 64-bit machines: arenas of 256 KiB, pools of 4 KiB, the same 32 classes.
#[derive(Debug, Clone, Copy)]
pub struct Before310;

impl Geometry for Before310 {
    const POOL_BYTES: usize = 4 << 10;
    const ARENA_BYTES: usize = 256 << 10;
}

/// What follows from a geometry.
pub(crate) struct Derived<G>(PhantomData<G>);

impl<G: Geometry> Derived<G> {
    pub(crate) const CLASSES: usize = G::SMALL_BYTES_MAX / G::ALIGNMENT_BYTES;
    pub(crate) const HEADER_BYTES: usize = size_of::<PoolHeader>().next_multiple_of(G::ALIGNMENT_BYTES);
    pub(crate) const POOLS_PER_ARENA: usize = G::ARENA_BYTES / G::POOL_BYTES;
    pub(crate) const ARENA_BITS: u32 = G::ARENA_BYTES.trailing_zeros();

    /// Fails to compile for a geometry that the policy cannot work with.
    pub(crate) const VALID: () = {
        assert!(G::ALIGNMENT_BYTES.is_power_of_two() && G::ALIGNMENT_BYTES >= size_of::<*mut u8>());
        assert!(G::POOL_BYTES.is_power_of_two() && G::ARENA_BYTES.is_power_of_two());
        assert!(G::SMALL_BYTES_MAX.is_multiple_of(G::ALIGNMENT_BYTES), "the threshold ends a size class");
        assert!(Self::CLASSES >= 1 && Self::CLASSES <= CLASSES_MAX);
        assert!(Self::blocks_per_pool(Self::CLASSES - 1) >= 2, "a pool holds two blocks of the largest class");
        // A misaligned arena holds one pool less, and must still be able to have none, some and all of its pools free.
        assert!(Self::POOLS_PER_ARENA >= 4 && Self::POOLS_PER_ARENA <= POOLS_PER_ARENA_MAX);
        assert!(G::ARENA_BYTES <= 1 << 30, "offsets within an arena fit 32 bits");
    };

    /// Size class of a request of `1..=SMALL_BYTES_MAX` bytes.
    #[inline(always)]
    pub(crate) const fn class_of(request_bytes: usize) -> usize {
        (request_bytes - 1) / G::ALIGNMENT_BYTES
    }

    /// Size of the blocks of a class.
    #[inline(always)]
    pub(crate) const fn block_bytes(class: usize) -> usize {
        (class + 1) * G::ALIGNMENT_BYTES
    }

    /// Blocks that fit a pool of a class.
    pub(crate) const fn blocks_per_pool(class: usize) -> usize {
        (G::POOL_BYTES - Self::HEADER_BYTES) / Self::block_bytes(class)
    }
}
