//! A cell for a process-wide allocator behind a lock that lies elsewhere.
//!
//! **Invariant:** the cell itself synchronises nothing; whoever calls [`GilCell::get`] holds the lock.

use std::cell::UnsafeCell;
use std::fmt;

/// Holds a value that an outer lock protects, as the GIL protects pymalloc.
///
/// This is what turns an allocator into C entry points:
///
/// ```
/// use pypool::{Allocator, GilCell, LibcRaw, MappedArenas};
///
/// static POOL: GilCell<Allocator> = GilCell::new(Allocator::new(LibcRaw, MappedArenas));
///
/// unsafe extern "C" fn pool_malloc(bytes: usize) -> *mut std::ffi::c_void {
///     // SAFETY: this program has one thread.
///     unsafe { POOL.get() }.allocate(bytes).cast()
/// }
///
/// unsafe extern "C" fn pool_free(block: *mut std::ffi::c_void) {
///     // SAFETY: one thread; the caller passes a live block of `pool_malloc`.
///     unsafe { POOL.get().free(block.cast()) }
/// }
///
/// // SAFETY: one thread.
/// let block = unsafe { pool_malloc(48) };
/// assert_eq!(block.addr() % 16, 0);
/// // SAFETY: the block is live.
/// unsafe { pool_free(block) };
/// ```
///
/// A lock lets threads take turns, so the value must be one that may change threads:
///
/// ```compile_fail,E0277
/// static CELL: pypool::GilCell<*const u8> = pypool::GilCell::new(std::ptr::null());
/// ```
pub struct GilCell<T>(UnsafeCell<T>);

// SAFETY: `get` requires that no two threads use the value at a time.
unsafe impl<T: Send> Sync for GilCell<T> {}

impl<T> GilCell<T> {
    /// Wraps a value; usable for a `static`.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    /// The caller holds the lock that protects this cell for as long as it uses the reference, and no other reference
    /// to the value is in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "the caller's lock makes the reference unique")]
    pub unsafe fn get(&self) -> &mut T {
        // SAFETY: by contract.
        unsafe { &mut *self.0.get() }
    }
}

impl<T> fmt::Debug for GilCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GilCell").finish_non_exhaustive()
    }
}
