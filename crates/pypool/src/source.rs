//! Where memory comes from: the raw allocator and the arena source.
//!
//! Both are traits rather than function pointers, so that the fallback of a big request compiles to a direct call and
//! an allocator over stateless sources carries no pointers around. CPython has the same two seams, as structs of
//! function pointers (`PyMemAllocatorEx` of the raw domain and `PyObjectArenaAllocator`).
//!
//! **Invariant:** nothing else in the crate obtains or returns memory.

use std::ffi::c_void;
use std::ptr;

/// The allocator below: serves what no pool serves, and the allocator's own tables.
///
/// Null means that there is no memory. The allocator carries on without: see
/// [what happens then](crate::guide#when-there-is-no-memory).
///
/// # Safety
/// Blocks do not overlap, are aligned to 16 bytes (8 for requests of up to 8 bytes), stay valid until freed, keep their
/// prefix on `reallocate`; a `reallocate` that returns null leaves the old block as it was. No block overlaps an arena
/// of the same allocator, for the address alone decides whose it is.
pub unsafe trait RawAllocator {
    /// A block of `bytes`, at least 1.
    fn allocate(&mut self, bytes: usize) -> *mut u8;

    /// A zeroed block of `count` elements of `element_bytes`; both are at least 1 and the product does not overflow.
    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8;

    /// Grows or shrinks a block to `bytes`, at least 1, perhaps moving it.
    ///
    /// # Safety
    /// `block` is a live block of this allocator.
    unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8;

    /// Gives a block back.
    ///
    /// # Safety
    /// `block` is a live block of this allocator.
    unsafe fn free(&mut self, block: *mut u8);
}

/// Gives and takes back arenas.
///
/// # Safety
/// An arena is readable and writable, overlaps nothing else, does not reach over the end of the address space, and
/// stays until unmapped. It may start anywhere, for its first pool starts at the next multiple of a pool's size.
pub unsafe trait ArenaSource {
    /// An arena of `bytes`, or null. Its content does not matter.
    fn map(&mut self, bytes: usize) -> *mut u8;

    /// Takes an arena back.
    ///
    /// # Safety
    /// `arena` came from `map` of this source with the same `bytes` and nothing in it is used any more.
    unsafe fn unmap(&mut self, arena: *mut u8, bytes: usize);
}

/// The C library's `malloc` family, what CPython's raw domain is by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct LibcRaw;

// SAFETY: the C library's allocator keeps the contract.
unsafe impl RawAllocator for LibcRaw {
    #[inline]
    fn allocate(&mut self, bytes: usize) -> *mut u8 {
        // SAFETY: `malloc` may be called with any size.
        unsafe { libc::malloc(bytes) }.cast()
    }

    #[inline]
    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        // SAFETY: `calloc` may be called with any sizes.
        unsafe { libc::calloc(count, element_bytes) }.cast()
    }

    #[inline]
    unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: the caller passes a live block of `malloc`.
        unsafe { libc::realloc(block.cast::<c_void>(), bytes) }.cast()
    }

    #[inline]
    unsafe fn free(&mut self, block: *mut u8) {
        // SAFETY: the caller passes a live block of `malloc`.
        unsafe { libc::free(block.cast::<c_void>()) }
    }
}

/// Anonymous private mappings, what CPython uses on Unix. They are aligned to an OS page only.
#[derive(Debug, Clone, Copy, Default)]
pub struct MappedArenas;

// SAFETY: the kernel hands out page-aligned, readable and writable mappings that overlap nothing.
unsafe impl ArenaSource for MappedArenas {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let arena = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if arena == libc::MAP_FAILED { ptr::null_mut() } else { arena.cast() }
    }

    unsafe fn unmap(&mut self, arena: *mut u8, bytes: usize) {
        // SAFETY: the caller passes a whole mapping that nobody uses. A failure would only leak it.
        unsafe { libc::munmap(arena.cast::<c_void>(), bytes) };
    }
}

/// Reserved addresses, whose OS pages come when they are touched.
///
/// A write to one may be refused by nobody but the kernel's out-of-memory killer, as with any private mapping.
pub(crate) struct Space {
    start: *mut u8,
    bytes: usize,
}

impl Space {
    /// Nothing reserved.
    pub(crate) const NONE: Self = Self { start: ptr::null_mut(), bytes: 0 };

    /// Reserves addresses, or nothing. The kernel is asked to make no huge pages of them: what comes with the first
    /// touch is to be what was touched.
    pub(crate) fn reserve(bytes: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Self::NONE;
        }
        #[cfg(target_os = "linux")]
        // SAFETY: advice on the mapping just made; a kernel without huge pages refuses it, which changes nothing.
        unsafe {
            libc::madvise(start, bytes, libc::MADV_NOHUGEPAGE)
        };
        Self { start: start.cast(), bytes }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.start.is_null()
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start
    }

    /// Makes OS pages present, writable and zero where they were not. A kernel before 5.14 cannot, and then they come
    /// one by one;
    /// so on other systems than Linux.
    pub(crate) fn populate(&self, at: *mut u8, bytes: usize) {
        #[cfg(target_os = "linux")]
        // SAFETY: changes no content; a range outside of the mapping would be refused.
        unsafe {
            libc::madvise(at.cast(), bytes, libc::MADV_POPULATE_WRITE)
        };
        #[cfg(not(target_os = "linux"))]
        let _ = (at, bytes);
    }

    /// Gives OS pages back to the kernel; they read as zeros from now on.
    ///
    /// # Safety
    /// The pages lie in the space, and nobody wants what they hold.
    pub(crate) unsafe fn discard(&self, at: *mut u8, bytes: usize) {
        // SAFETY: by contract.
        unsafe { libc::madvise(at.cast(), bytes, libc::MADV_DONTNEED) };
    }

    /// Gives the addresses back.
    ///
    /// # Safety
    /// Nobody uses any of them any more.
    pub(crate) unsafe fn release(&mut self) {
        if !self.is_none() {
            // SAFETY: a mapping of this size, given up by the caller.
            unsafe { libc::munmap(self.start.cast::<c_void>(), self.bytes) };
        }
        *self = Self::NONE;
    }
}
