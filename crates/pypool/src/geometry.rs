//! Sizes of blocks, pools and arenas: the parameters of the policy.
//!
//! A geometry is a type, not a value, so that every division and mask of the fast path is a constant.
//!
//! **Invariant:** every geometry that an allocator is built with has passed [`Derived::VALID`], at compile time.

use std::marker::PhantomData;

use crate::pool::PoolHeader;

/// Most size classes that any geometry may have.
pub(crate) const CLASSES_MAX: usize = 64;

/// Most pools that an arena of any geometry may hold.
pub(crate) const POOLS_PER_ARENA_MAX: usize = 256;

/// Sizes of the units that the policy works in, in bytes.
///
/// The defaults are CPython's; a geometry names at least the sizes of pool and arena. [`Current`] and [`Before310`] are
/// CPython's own. There is no preset for the blocks aligned to 8 bytes of earlier releases: the policy of those was
/// another one as well (they unmapped every arena that became wholly free), and 32-bit builds have shorter headers.
///
/// ```
/// use pypool::{Allocator, Geometry, LibcRaw, MappedArenas, Price};
///
/// /// Blocks that never share a cache line, up to 1 KiB.
/// struct Lines;
/// impl Geometry for Lines {
///     const ALIGNMENT_BYTES: usize = 64;
///     const SMALL_BYTES_MAX: usize = 1024;
///     const POOL_BYTES: usize = 16 << 10;
///     const ARENA_BYTES: usize = 1 << 20;
/// }
///
/// let mut pool: Box<Allocator<LibcRaw, MappedArenas, Lines>> = Box::new(Allocator::new(LibcRaw, MappedArenas));
/// let block = pool.allocate(65);
/// assert_eq!(block.addr() % 64, 0);
/// // SAFETY: live.
/// assert_eq!(unsafe { pool.usable_size(block) }, Some(128));
/// pool.check(Price::Full).unwrap();
/// ```
///
/// An allocator with sizes out of range does not compile (`cargo check` lets it pass: the sizes are looked at when code
/// is generated):
///
/// ```compile_fail,E0080
/// use pypool::{Allocator, Geometry, LibcRaw, MappedArenas};
///
/// struct TwoPools;
/// impl Geometry for TwoPools {
///     const POOL_BYTES: usize = 16 << 10;
///     const ARENA_BYTES: usize = 32 << 10;
/// }
///
/// let pool: Allocator<LibcRaw, MappedArenas, TwoPools> = Allocator::new(LibcRaw, MappedArenas);
/// ```
pub trait Geometry {
    /// Alignment of every block of a pool, and the distance between two size classes: a power of two, at least 8.
    /// Blocks of the raw allocator are aligned as that aligns them.
    const ALIGNMENT_BYTES: usize = 16;
    /// Largest request that is served from a pool: a multiple of the alignment, 64 times it at most. Two blocks of this
    /// size, and the header of 48 bytes rounded up to the alignment, fit a pool.
    const SMALL_BYTES_MAX: usize = 512;
    /// Size and alignment of a pool: a power of two.
    const POOL_BYTES: usize;
    /// Size of an arena: a power of two, 4 to 256 times that of a pool, 1 GiB at most. Arenas need not be aligned to
    /// it, nor to a pool.
    const ARENA_BYTES: usize;
}

/// 64-bit CPython since 3.10 (gh-81629): arenas of 1 MiB, pools of 16 KiB, 32 classes up to 512 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Current;

impl Geometry for Current {
    const POOL_BYTES: usize = 16 << 10;
    const ARENA_BYTES: usize = 1 << 20;
}

/// 64-bit CPython before 3.10: arenas of 256 KiB, pools of 4 KiB, the same 32 classes.
///
/// Sizes and policy are those of 3.9, with which the test `oracle` compares every address. The sizes are also those of
/// 3.8 and of the last patch releases of 3.7 (blocks are aligned to 16 bytes since bpo-27987), which kept no wholly
/// free arena (see [the guide](crate::guide)).
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
        assert!(usize::BITS == 64, "the layout of headers and of the address map is that of 64-bit machines");
        assert!(G::ALIGNMENT_BYTES.is_power_of_two(), "the alignment is a power of two");
        assert!(G::ALIGNMENT_BYTES >= size_of::<*mut u8>(), "the smallest block holds a pointer");
        assert!(G::POOL_BYTES.is_power_of_two(), "a pool's size is a power of two");
        assert!(G::ARENA_BYTES.is_power_of_two(), "an arena's size is a power of two");
        assert!(G::SMALL_BYTES_MAX.is_multiple_of(G::ALIGNMENT_BYTES), "the threshold ends a size class");
        assert!(Self::CLASSES >= 1 && Self::CLASSES <= CLASSES_MAX, "there are 1 to 64 size classes");
        // Written without a difference, which could be less than nothing.
        let two_blocks = G::SMALL_BYTES_MAX <= (isize::MAX as usize - Self::HEADER_BYTES) / 2
            && Self::HEADER_BYTES + 2 * G::SMALL_BYTES_MAX <= G::POOL_BYTES;
        assert!(two_blocks, "a pool holds two blocks of the largest class");
        // A misaligned arena holds one pool less, and must still be able to have none, some and all of its pools free.
        assert!(
            Self::POOLS_PER_ARENA >= 4 && Self::POOLS_PER_ARENA <= POOLS_PER_ARENA_MAX,
            "an arena holds 4 to 256 pools"
        );
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
