//! CPython's debug hooks: a layer over an allocator that finds what programs do wrong with its blocks.
//!
//! It is what `PYTHONMALLOC=debug`, `pymalloc_debug` and `malloc_debug` put over pymalloc and `malloc`, byte for byte
//! (`_PyMem_DebugRawAlloc` and its neighbours in `Objects/obmalloc.c`). A request for `n` bytes asks the allocator
//! below for `n + 24`:
//!
//! ```text
//!  8 bytes             1            7          n bytes                 8 bytes
//!  n, big-endian       r, m or o    0xFD ...   0xCD ..., or zeros      0xFD ...
//!                                              ^ what the caller gets
//! ```
//!
//! `free` and `reallocate` check, in this order: the letter of the domain, the seven bytes behind it, the eight bytes
//! after the block. `free` then paints all `n + 24` bytes 0xDD. `reallocate` paints header, tail and 64 bytes at
//! each end of the content before it asks the allocator below, so that whoever still reads the old block sees it, and
//! paints what was added 0xCD. A violation ends the process: a report ([`Misuse`]) to the error output, then `abort`.
//!
//! # What CPython does not have
//! A *quarantine*, off unless asked for: the blocks freed last are not given back at once, but wait, painted, until
//! `QUARANTINED` others were freed after them, or 16 MiB of others. One that is no longer all 0xDD when it leaves was
//! written to after it was freed, which CPython's hooks do not notice. Under a quarantine `reallocate` always moves.
//! Addresses are reused later than in CPython, so nothing that is compared with CPython has one.
//!
//! # What is left out
//! CPython's hooks of the domains mem and obj also ask whether the caller holds the GIL. There is none here.
//!
//! **Invariant:** every live block is preceded by its size, its letter and seven forbidden bytes, and followed by 8;
//! nothing is read of a block beyond those before they were found intact.

mod misuse;
mod quarantine;

use std::fmt;
use std::ptr;

use crate::allocator::Allocator;
use crate::geometry::Current;
use crate::source::{ArenaSource, RawAllocator};
pub use misuse::{Misuse, MisuseKind};
use quarantine::{Held, Quarantine};

/// Surrounds a block.
const FORBIDDEN: u8 = 0xFD;
/// Fills a new block, and what a resized one has gained.
const CLEAN: u8 = 0xCD;
/// Fills a freed block.
const DEAD: u8 = 0xDD;
/// Size, letter and forbidden bytes.
const HEADER_BYTES: usize = 16;
/// Forbidden bytes before a block, behind the letter.
const BEFORE_BYTES: usize = 7;
/// Forbidden bytes after a block.
const TAIL_BYTES: usize = 8;
/// Painted at each end of a block that is about to be resized.
const ERASED_BYTES: usize = 64;

/// Who asks: each domain of PEP 445 has hooks of its own, which know their blocks by a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// `PyMem_RawMalloc`: letter `r`.
    Raw,
    /// `PyMem_Malloc`: letter `m`.
    Mem,
    /// `PyObject_Malloc`: letter `o`.
    Obj,
}

impl Domain {
    /// Every domain.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mem, Self::Obj];

    /// What marks its blocks.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Raw => b'r',
            Self::Mem => b'm',
            Self::Obj => b'o',
        }
    }

    /// The letter and the forbidden bytes behind it, as one word.
    const fn mark(self) -> u64 {
        u64::from_ne_bytes([self.letter(), FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN])
    }
}

/// The debug hooks over an allocator, for all domains that it serves.
///
/// As [`Allocator`], not thread-safe. Blocks are aligned to 16 bytes. With `QUARANTINED` above 0 as many freed blocks
/// are held back and watched; each costs 24 bytes in the value itself.
///
/// ```
/// use pypool::{Allocator, DebugHooks, Domain, LibcRaw, MappedArenas};
///
/// let mut hooks: Box<DebugHooks<Allocator>> = Box::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)));
/// let block = hooks.allocate(Domain::Obj, 5);
/// // SAFETY: a live block of these hooks: 16 bytes before it and 8 after it are theirs.
/// unsafe {
///     let around = std::slice::from_raw_parts(block.sub(16), 16 + 5 + 8);
///     assert_eq!(around[..8], [0, 0, 0, 0, 0, 0, 0, 5]);
///     assert_eq!(around[8..16], *b"o\xFD\xFD\xFD\xFD\xFD\xFD\xFD");
///     assert_eq!(around[16..], *b"\xCD\xCD\xCD\xCD\xCD\xFD\xFD\xFD\xFD\xFD\xFD\xFD\xFD");
///     hooks.free(Domain::Obj, block);
/// }
/// ```
pub struct DebugHooks<A: RawAllocator, const QUARANTINED: usize = 0> {
    inner: A,
    quarantine: Quarantine<QUARANTINED>,
}

impl<A: RawAllocator, const QUARANTINED: usize> DebugHooks<A, QUARANTINED> {
    /// Bytes that a block takes beside those that were asked for.
    pub const EXTRA_BYTES: usize = HEADER_BYTES + TAIL_BYTES;

    /// Hooks over an allocator that nobody else uses.
    pub const fn new(inner: A) -> Self {
        Self { inner, quarantine: Quarantine::new() }
    }

    /// A block of `bytes`, all 0xCD; 0 bytes get an address of their own. Null if there is no memory or `bytes` exceeds
    /// `isize::MAX - 24`.
    #[inline]
    pub fn allocate(&mut self, domain: Domain, bytes: usize) -> *mut u8 {
        let Some(total) = total(bytes) else { return ptr::null_mut() };
        let base = self.inner.allocate(total);
        if base.is_null() {
            return base;
        }
        // SAFETY: a fresh block of `total` bytes.
        unsafe {
            let block = decorate(base, domain, bytes);
            block.write_bytes(CLEAN, bytes);
            block
        }
    }

    /// A zeroed block of `count` elements of `element_bytes`; null also if the product exceeds `isize::MAX - 24`.
    #[inline]
    pub fn allocate_zeroed(&mut self, domain: Domain, count: usize, element_bytes: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(element_bytes) else { return ptr::null_mut() };
        let Some(total) = total(bytes) else { return ptr::null_mut() };
        let base = self.inner.allocate_zeroed(1, total);
        // SAFETY: a fresh block of `total` bytes.
        if base.is_null() { base } else { unsafe { decorate(base, domain, bytes) } }
    }

    /// Checks a block and gives it back. Null is allowed and does nothing.
    ///
    /// # Safety
    /// `block` is null, or was handed out by these hooks and not given back since. What breaks this promise is found as
    /// far as the bytes around the block tell, and ends the process; they have to be readable.
    #[inline]
    pub unsafe fn free(&mut self, domain: Domain, block: *mut u8) {
        if block.is_null() {
            return;
        }
        // SAFETY: by contract.
        unsafe {
            self.verify(domain, block);
            let base = block.sub(HEADER_BYTES);
            let total = requested_bytes(block) + Self::EXTRA_BYTES;
            base.write_bytes(DEAD, total);
            if QUARANTINED == 0 {
                self.inner.free(base);
            } else {
                self.hold(Held { base, bytes: total, domain });
            }
        }
    }

    /// Checks a block and makes it `bytes` long, perhaps moving it. Null leaves it as it was; `reallocate(null, n)` is
    /// `allocate(n)`.
    ///
    /// # Safety
    /// As for [`free`](Self::free); the old block is gone unless null is returned.
    #[inline]
    pub unsafe fn reallocate(&mut self, domain: Domain, block: *mut u8, bytes: usize) -> *mut u8 {
        if block.is_null() {
            return self.allocate(domain, bytes);
        }
        // SAFETY: by contract.
        unsafe { self.verify(domain, block) };
        let Some(total) = total(bytes) else { return ptr::null_mut() };
        // SAFETY: the block is live, as far as can be told.
        unsafe {
            if QUARANTINED > 0 {
                self.move_away(domain, block, bytes)
            } else {
                self.resize(domain, block, bytes, total)
            }
        }
    }

    /// Ends the process if a live block was damaged, as [`free`](Self::free) would.
    ///
    /// # Safety
    /// As for [`free`](Self::free), without null.
    #[inline]
    pub unsafe fn verify(&self, domain: Domain, block: *mut u8) {
        // SAFETY: the caller's promise.
        if let Some(misuse) = unsafe { self.examine(domain, block) } {
            misuse.abort();
        }
    }

    /// What is wrong with a block that is about to be freed or resized; `None` if nothing is.
    ///
    /// # Safety
    /// As for [`free`](Self::free), without null.
    #[inline]
    pub unsafe fn examine(&self, domain: Domain, block: *mut u8) -> Option<Misuse> {
        // SAFETY: by contract there is a header before the block; the bytes after it are read once it is intact.
        unsafe {
            let is_marked = block.sub(8).cast::<u64>().read() == domain.mark();
            if is_marked && tail(block).read_unaligned() == [FORBIDDEN; TAIL_BYTES] {
                return None;
            }
            Some(Misuse::of_block(domain, block, &self.quarantine.find(block)))
        }
    }

    /// Looks whether every block in quarantine is still as it was freed, and ends the process if one is not.
    pub fn check_quarantine(&self) {
        self.quarantine.iter().for_each(|held| held.verify());
    }

    /// Bytes that a live block was requested with.
    ///
    /// # Safety
    /// `block` is a live block of these hooks.
    #[inline]
    pub unsafe fn requested_bytes(&self, block: *const u8) -> usize {
        // SAFETY: by contract.
        unsafe { requested_bytes(block) }
    }

    /// The allocator below; it has handed out 24 bytes more for every block.
    pub fn inner(&self) -> &A {
        &self.inner
    }

    /// Resizes as CPython does.
    ///
    /// # Safety
    /// `block` is live and `total` is `bytes` and the decoration.
    unsafe fn resize(&mut self, domain: Domain, block: *mut u8, bytes: usize, total: usize) -> *mut u8 {
        // SAFETY: by contract; ranges lie within the old block before the call below, within the new one after it.
        unsafe {
            let (base, old_bytes) = (block.sub(HEADER_BYTES), requested_bytes(block));
            let saved = Ends::erase(block, old_bytes);
            let resized = self.inner.reallocate(base, total);
            // A block that could not be resized gets its own decoration back.
            let (base, length) = if resized.is_null() { (base, old_bytes) } else { (resized, bytes) };
            let block = decorate(base, domain, length);
            saved.restore(block, old_bytes, length);
            if resized.is_null() {
                return ptr::null_mut();
            }
            if bytes > old_bytes {
                block.add(old_bytes).write_bytes(CLEAN, bytes - old_bytes);
            }
            block
        }
    }

    /// Resizes by way of a new block, so that the old one can be held.
    ///
    /// # Safety
    /// `block` is live.
    unsafe fn move_away(&mut self, domain: Domain, block: *mut u8, bytes: usize) -> *mut u8 {
        let moved = self.allocate(domain, bytes);
        if !moved.is_null() {
            // SAFETY: both are live and distinct, and at least as long as what is copied.
            unsafe {
                moved.copy_from_nonoverlapping(block, requested_bytes(block).min(bytes));
                self.free(domain, block);
            }
        }
        moved
    }

    /// Puts a painted block into quarantine, and gives back what has to leave for it.
    fn hold(&mut self, held: Held) {
        while let Some(oldest) = self.quarantine.pop_for(held.bytes) {
            self.give_back(&oldest);
        }
        if let Some(refused) = self.quarantine.push(held) {
            self.give_back(&refused);
        }
    }

    fn give_back(&mut self, held: &Held) {
        held.verify();
        // SAFETY: the inner allocator handed it out, and it was given back to these hooks once.
        unsafe { self.inner.free(held.base) };
    }
}

impl<A: RawAllocator, const QUARANTINED: usize> Drop for DebugHooks<A, QUARANTINED> {
    fn drop(&mut self) {
        while let Some(oldest) = self.quarantine.pop() {
            self.give_back(&oldest);
        }
    }
}

impl<A: RawAllocator, const QUARANTINED: usize> fmt::Debug for DebugHooks<A, QUARANTINED> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugHooks").field("quarantined", &QUARANTINED).finish_non_exhaustive()
    }
}

/// What the hooks of mem and obj stand on under `pymalloc_debug`.
// SAFETY: blocks of its pools are aligned to 16 bytes, those of its raw allocator as the contract wants; it keeps the
// rest as that does.
unsafe impl<R: RawAllocator, S: ArenaSource> RawAllocator for Allocator<R, S, Current> {
    #[inline]
    fn allocate(&mut self, bytes: usize) -> *mut u8 {
        Self::allocate(self, bytes)
    }

    #[inline]
    fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        Self::allocate_zeroed(self, count, element_bytes)
    }

    #[inline]
    unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: the caller passes a live block.
        unsafe { Self::reallocate(self, block, bytes) }
    }

    #[inline]
    unsafe fn free(&mut self, block: *mut u8) {
        // SAFETY: the caller passes a live block.
        unsafe { Self::free(self, block) }
    }
}

/// Bytes that the allocator below is asked for; `None` where CPython does not even ask.
#[inline(always)]
const fn total(bytes: usize) -> Option<usize> {
    let extra = HEADER_BYTES + TAIL_BYTES;
    if bytes > isize::MAX as usize - extra { None } else { Some(bytes + extra) }
}

/// # Safety
/// A header lies before the block.
#[inline(always)]
unsafe fn requested_bytes(block: *const u8) -> usize {
    // SAFETY: by contract; the header is aligned as blocks of an inner allocator are.
    usize::from_be(unsafe { block.sub(HEADER_BYTES).cast::<usize>().read() })
}

/// # Safety
/// The header before the block is intact.
#[inline(always)]
unsafe fn tail(block: *mut u8) -> *mut [u8; TAIL_BYTES] {
    // SAFETY: by contract, the tail lies within the block of the allocator below.
    unsafe { block.add(requested_bytes(block)) }.cast()
}

/// Writes header and tail around a block of `bytes`, and returns the block.
///
/// # Safety
/// `base` is a block of the allocator below of `bytes` and the decoration.
#[inline(always)]
unsafe fn decorate(base: *mut u8, domain: Domain, bytes: usize) -> *mut u8 {
    // SAFETY: by contract.
    unsafe {
        base.cast::<usize>().write(bytes.to_be());
        base.add(8).cast::<u64>().write(domain.mark());
        let block = base.add(HEADER_BYTES);
        tail(block).write_unaligned([FORBIDDEN; TAIL_BYTES]);
        block
    }
}

/// Both ends of a block's content while it is painted; the whole of a short one.
struct Ends([u8; 2 * ERASED_BYTES]);

impl Ends {
    /// Whether a block is so short that all of it is painted.
    const fn is_all(bytes: usize) -> bool {
        bytes <= 2 * ERASED_BYTES
    }

    /// Paints the decoration of a live block and the ends of its content dead, and keeps the latter.
    ///
    /// # Safety
    /// `block` is live and `bytes` long.
    unsafe fn erase(block: *mut u8, bytes: usize) -> Self {
        let mut saved = [0; 2 * ERASED_BYTES];
        let kept = saved.as_mut_ptr();
        // SAFETY: by contract; the ends of a longer block do not overlap.
        unsafe {
            if Self::is_all(bytes) {
                kept.copy_from_nonoverlapping(block, bytes);
                block.sub(HEADER_BYTES).write_bytes(DEAD, HEADER_BYTES + bytes + TAIL_BYTES);
            } else {
                let last = block.add(bytes - ERASED_BYTES);
                kept.copy_from_nonoverlapping(block, ERASED_BYTES);
                block.sub(HEADER_BYTES).write_bytes(DEAD, HEADER_BYTES + ERASED_BYTES);
                kept.add(ERASED_BYTES).copy_from_nonoverlapping(last, ERASED_BYTES);
                last.write_bytes(DEAD, ERASED_BYTES + TAIL_BYTES);
            }
        }
        Self(saved)
    }

    /// Writes back what a block of now `bytes` still has room for.
    ///
    /// # Safety
    /// `block` is `bytes` long; it was `old_bytes` long when its ends were kept.
    unsafe fn restore(&self, block: *mut u8, old_bytes: usize, bytes: usize) {
        let kept = self.0.as_ptr();
        // SAFETY: by contract.
        unsafe {
            if Self::is_all(old_bytes) {
                return block.copy_from_nonoverlapping(kept, bytes.min(old_bytes));
            }
            block.copy_from_nonoverlapping(kept, bytes.min(ERASED_BYTES));
            let last = old_bytes - ERASED_BYTES;
            if bytes > last {
                block.add(last).copy_from_nonoverlapping(kept.add(ERASED_BYTES), (bytes - last).min(ERASED_BYTES));
            }
        }
    }
}
