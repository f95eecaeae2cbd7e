//! The entry points: allocate, reallocate, free.
//!
//! The common case of each touches one header and the block. Everything that happens once per pool or OS page is out of
//! line, in functions that never unwind, so that the short ones end with a jump (see `crate::allocator`).
//!
//! **Invariant:** `front[c]` is the first of the used pools of class `c`, or [`NONE`]. A pool without a free block may
//! be among them until an allocation comes to it and finds it full.

use std::fmt;
use std::ptr;

use super::empties::Empties;
use super::lookup::Lookup;
use super::policy;
use super::pool::{Header, NONE, state};
use super::range::{OS_PAGE_BYTES, POOL_BYTES, Range};
use crate::pool::{link, set_link};
use crate::source::{LibcRaw, RawAllocator};

/// Largest request that is tried at all, as in CPython.
const REQUEST_BYTES_MAX: usize = isize::MAX as usize;
/// Distance of two classes, and their number, up to [`SMALL_BYTES_MAX`].
const STEP_BYTES: usize = 16;
const SMALL_CLASSES: usize = SMALL_BYTES_MAX / STEP_BYTES;
/// Largest request of pymalloc's own classes.
const SMALL_BYTES_MAX: usize = 512;
/// Distance of two classes beyond, and the largest request with [`policy::WIDE`].
const WIDE_STEP_BYTES: usize = 128;
const WIDE_BYTES_MAX: usize = 2048;
pub(super) const CLASSES: usize = SMALL_CLASSES + WIDE_CLASSES;
const WIDE_CLASSES: usize = (WIDE_BYTES_MAX - SMALL_BYTES_MAX) / WIDE_STEP_BYTES;
/// Requests that a class beyond 512 bytes passes on before it has pools: one that is seldom asked is not worth one.
const WIDE_REQUESTS_BEFORE_POOLS: u32 = 256;
/// Full pools of a class from which on its next pool is expected to be filled as well.
const FULL_POOLS_OF_GROWTH: u32 = 32;
/// Address space that is wished for.
const ROOM_BYTES: usize = 64 << 30;

/// An allocator with pymalloc's structure and the [`policies`](super::policy) whose bits are in `POLICIES`, over a raw
/// allocator.
///
/// Not thread-safe: the caller provides the lock (see [`GilCell`](crate::GilCell)). The first small request reserves 64
/// GiB of addresses, or as much of it as the process may have; what the pools cannot serve, the raw allocator does.
/// Dropping it gives all of that back, and with it all blocks of pools.
///
/// ```
/// use pypool::{Price, Tuned};
///
/// let mut pool: Tuned = Tuned::new(pypool::LibcRaw);
/// let block = pool.allocate(48);
/// // SAFETY: live, and given up once.
/// unsafe {
///     assert_eq!(pool.usable_size(block), Some(48));
///     pool.free(block);
/// }
/// assert_eq!(pool.allocate(33), block, "the block freed last comes first");
/// pool.check(Price::Full).unwrap();
/// ```
pub struct Tuned<R: RawAllocator = LibcRaw, const POLICIES: u32 = { policy::ALL }> {
    /// Front of the list of used pools, per class.
    pub(super) front: [*mut Header; CLASSES],
    /// Requests that each class beyond 512 bytes has passed on.
    asked: [u32; WIDE_CLASSES],
    /// Full pools, per class.
    pub(super) full: [u32; CLASSES],
    pub(super) range: Range<POLICIES>,
    pub(super) empties: Empties<POLICIES>,
    /// Live blocks of the raw allocator that were handed out.
    pub(super) raw_blocks: isize,
    pub(super) lookup: Lookup<POLICIES>,
    raw: R,
}

// SAFETY: all pointers lead into memory that the allocator owns alone, or to a header that nobody writes.
unsafe impl<R: RawAllocator + Send, const POLICIES: u32> Send for Tuned<R, POLICIES> {}

#[allow(improper_ctypes_definitions, reason = "called from Rust only; the ABI is chosen because it never unwinds")]
impl<R: RawAllocator, const POLICIES: u32> Tuned<R, POLICIES> {
    const BATCHES: bool = POLICIES & policy::BATCH != 0;
    const LINGERS: bool = POLICIES & policy::LINGER != 0;
    /// Largest request that pools serve.
    pub const POOL_REQUEST_BYTES_MAX: usize =
        if POLICIES & policy::WIDE != 0 { WIDE_BYTES_MAX } else { SMALL_BYTES_MAX };
    pub(super) const CLASSES: usize = if POLICIES & policy::WIDE != 0 { CLASSES } else { SMALL_CLASSES };

    /// An allocator without pools. Takes no memory until the first small request.
    pub const fn new(raw: R) -> Self {
        Self::with_room(raw, ROOM_BYTES)
    }

    /// An allocator whose pools get so many bytes of address space at most, 1 MiB at least.
    pub const fn with_room(raw: R, room_bytes: usize) -> Self {
        Self {
            front: [NONE; CLASSES],
            asked: [0; WIDE_CLASSES],
            full: [0; CLASSES],
            range: Range::new(room_bytes),
            empties: Empties::new(),
            raw_blocks: 0,
            lookup: Lookup::new(),
            raw,
        }
    }

    /// Size of the blocks of a class.
    pub(super) const fn block_bytes(class: usize) -> usize {
        if class < SMALL_CLASSES {
            (class + 1) * STEP_BYTES
        } else {
            SMALL_BYTES_MAX + (class + 1 - SMALL_CLASSES) * WIDE_STEP_BYTES
        }
    }

    /// Blocks that fit a pool of a class.
    pub(super) const fn blocks_per_pool(class: usize) -> usize {
        (POOL_BYTES - Range::<POLICIES>::SKIPPED_BYTES) / Self::block_bytes(class)
    }

    /// A block of `bytes`, aligned to 16 bytes if it comes from a pool, else as the raw allocator does.
    ///
    /// Requests of 0 bytes and of more than [`Self::POOL_REQUEST_BYTES_MAX`] go to the raw allocator; 0 bytes as 1.
    /// Null if there is no memory or `bytes` exceeds `isize::MAX`.
    #[inline]
    pub fn allocate(&mut self, bytes: usize) -> *mut u8 {
        // One comparison for both ends: 0 wraps around.
        if bytes.wrapping_sub(1) >= SMALL_BYTES_MAX {
            return self.allocate_large(bytes);
        }
        self.allocate_of((bytes - 1) / STEP_BYTES, bytes)
    }

    /// A block of a class, for a request of `bytes`.
    #[inline(always)]
    fn allocate_of(&mut self, class: usize, bytes: usize) -> *mut u8 {
        let header = self.front[class];
        // SAFETY: what is at the front may be read; it has a free block only if it is a pool.
        unsafe {
            let block = (*header).free;
            if block.is_null() {
                return self.allocate_from_next(class, bytes);
            }
            Self::pop(header, block)
        }
    }

    /// # Safety
    /// `block` is the first on the free list of `header`.
    #[inline(always)]
    unsafe fn pop(header: *mut Header, block: *mut u8) -> *mut u8 {
        // SAFETY: by contract.
        unsafe {
            (*header).free = link(block);
            (*header).countdown += 1;
        }
        block
    }

    /// A zeroed block of `count` elements of `element_bytes`; null also if the product exceeds `isize::MAX`.
    #[inline]
    pub fn allocate_zeroed(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        let Some(bytes) = count.checked_mul(element_bytes).filter(|&bytes| bytes <= REQUEST_BYTES_MAX) else {
            return ptr::null_mut();
        };
        let is_small = bytes.wrapping_sub(1) < SMALL_BYTES_MAX;
        if !is_small && (bytes.wrapping_sub(1) >= Self::POOL_REQUEST_BYTES_MAX || !self.is_asked_enough(bytes)) {
            return self.allocate_zeroed_raw(count, element_bytes);
        }
        let block = self.allocate(bytes);
        if !block.is_null() {
            // SAFETY: it is at least `bytes` long. The rest of it is left as it is.
            unsafe { block.write_bytes(0, bytes) };
        }
        block
    }

    /// Gives a block back. Null is allowed and does nothing.
    ///
    /// # Safety
    /// `block` is null, a live block of this allocator, or a live block of its raw allocator.
    #[inline]
    pub unsafe fn free(&mut self, block: *mut u8) {
        if !self.covers_nearby(block) {
            // SAFETY: by contract.
            return unsafe { self.free_far(block) };
        }
        // SAFETY: the block lies in an arena; the caller gives it up.
        unsafe { self.free_to_pool(block) }
    }

    /// # Safety
    /// `block` is a live block of a pool.
    #[inline(always)]
    unsafe fn free_to_pool(&mut self, block: *mut u8) {
        let header = self.range.header_of(block);
        // SAFETY: the block's pool has a header; the caller gives the block up.
        unsafe {
            set_link(block, (*header).free);
            (*header).free = block;
            let countdown = (*header).countdown.wrapping_sub(1);
            (*header).countdown = countdown;
            if countdown == 0 {
                self.turn(header);
            }
        }
    }

    /// Makes a block `bytes` long, perhaps moving it; the content up to the smaller length stays. Null leaves it alone.
    /// What moves and what stays is decided as by [`Allocator::reallocate`](crate::Allocator::reallocate).
    ///
    /// # Safety
    /// As for [`free`](Self::free); the old block is gone unless null is returned.
    #[inline]
    pub unsafe fn reallocate(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        if !self.covers_nearby(block) {
            // SAFETY: by contract.
            return unsafe { self.reallocate_far(block, bytes) };
        }
        // SAFETY: the block lies in an arena and is live.
        unsafe { self.reallocate_in_pool(block, bytes) }
    }

    /// # Safety
    /// `block` is a live block of a pool.
    #[inline(always)]
    unsafe fn reallocate_in_pool(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        // SAFETY: the block's pool has a header, and the class of a live one.
        let old_bytes = Self::block_bytes(unsafe { (*self.range.header_of(block)).class } as usize);
        if bytes <= old_bytes && 4 * bytes > 3 * old_bytes {
            return block;
        }
        // SAFETY: a live block of a pool, `old_bytes` long.
        unsafe { self.reallocate_by_move(block, old_bytes, bytes) }
    }

    /// Bytes that a pool block really has; `None` if `block` is not in an arena of this allocator.
    ///
    /// # Safety
    /// If `block` lies in an arena it is a live block.
    #[inline]
    pub unsafe fn usable_size(&self, block: *mut u8) -> Option<usize> {
        // SAFETY: by contract.
        self.owns(block).then(|| Self::block_bytes(unsafe { (*self.range.header_of(block)).class } as usize))
    }

    /// Whether an address lies in an arena of this allocator. Any address may be asked about.
    #[inline]
    pub fn owns(&self, address: *const u8) -> bool {
        self.lookup.finds(&self.range, address.addr())
    }

    /// The raw allocator; shared only, as [`Allocator::raw`](crate::Allocator::raw).
    pub fn raw(&self) -> &R {
        &self.raw
    }

    /// Gives every empty pool back to the kernel, what an operator may ask for.
    pub fn release(&mut self) {
        // SAFETY: all pools come from the one range.
        unsafe { self.empties.purge(&self.range, 0) };
    }

    /// Whether a block lies in an arena, as far as one look can tell.
    #[inline(always)]
    fn covers_nearby(&self, block: *mut u8) -> bool {
        self.lookup.covers_nearby(&self.range, block.addr())
    }

    /// A request of 0 bytes, or of more than pymalloc's classes serve.
    #[inline(never)]
    extern "C" fn allocate_large(&mut self, bytes: usize) -> *mut u8 {
        if bytes.wrapping_sub(1) >= Self::POOL_REQUEST_BYTES_MAX {
            return self.allocate_raw(bytes);
        }
        if !self.is_asked_enough(bytes) {
            return self.allocate_raw(bytes);
        }
        self.allocate_of(SMALL_CLASSES + Self::wide_class(bytes), bytes)
    }

    /// Class of a request beyond 512 bytes, counted from the first of these classes.
    const fn wide_class(bytes: usize) -> usize {
        (bytes - SMALL_BYTES_MAX - 1) / WIDE_STEP_BYTES
    }

    /// Whether the class of such a request has pools; if not, the request counts towards it.
    fn is_asked_enough(&mut self, bytes: usize) -> bool {
        let asked = &mut self.asked[Self::wide_class(bytes)];
        let is_enough = *asked >= WIDE_REQUESTS_BEFORE_POOLS;
        *asked += u32::from(!is_enough);
        is_enough
    }

    /// A block of a class whose front pool has a dry free list: by carving, from the next pool, or from a new one.
    #[inline(never)]
    extern "C" fn allocate_from_next(&mut self, class: usize, bytes: usize) -> *mut u8 {
        // SAFETY: listed pools have initialised headers.
        unsafe {
            loop {
                let header = self.front[class];
                if header == NONE {
                    break;
                }
                if !(*header).free.is_null() {
                    return Self::pop(header, (*header).free);
                }
                if (*header).virgin > 0 {
                    return Self::carve(&self.range, header, class);
                }
                self.set_full(header, class);
            }
            if !self.add_pool(class) {
                return self.allocate_raw(bytes);
            }
            let header = self.front[class];
            if (*header).free.is_null() {
                return Self::carve(&self.range, header, class);
            }
            Self::pop(header, (*header).free)
        }
    }

    /// Takes a pool that has no free block off the front of its list.
    ///
    /// # Safety
    /// `header` is the front of the list of `class` and has no free block, carved or virgin.
    unsafe fn set_full(&mut self, header: *mut Header, class: usize) {
        self.full[class] += 1;
        // SAFETY: listed pools have initialised headers.
        unsafe {
            (*header).state = state::FULL;
            (*header).countdown = 1;
            let next = (*header).next;
            if next.is_null() {
                self.front[class] = NONE;
            } else {
                (*next).previous = ptr::null_mut();
                self.front[class] = next;
            }
        }
    }

    /// Gives an empty list of a class a pool. False if there is none to be had.
    #[cold]
    fn add_pool(&mut self, class: usize) -> bool {
        if !self.empties.has_warm() {
            self.end_linger();
        }
        if self.empties.is_dry(&self.range) && !self.add_arena() {
            return false;
        }
        let is_growing = self.full[class] >= FULL_POOLS_OF_GROWTH;
        // SAFETY: there is a pool to take; it belongs to this class from now on.
        unsafe {
            let header = self.empties.take(&self.range, is_growing);
            (*header).state = state::USED;
            (*header).countdown = 0;
            if (*header).class as usize != class {
                (*header).class = class as u8;
                (*header).free = ptr::null_mut();
                (*header).virgin = Self::blocks_per_pool(class) as u16;
            }
            self.link_front(header, class);
        }
        true
    }

    /// Has one lingering pool serve another class, before that takes a pool which has no memory yet.
    fn end_linger(&mut self) {
        if !Self::LINGERS {
            return;
        }
        for front in &mut self.front {
            let header = *front;
            // SAFETY: what is at the front may be read; only a pool that is alone in its list lingers there.
            unsafe {
                if header != NONE && (*header).countdown == 0 {
                    let next = (*header).next;
                    *front = NONE;
                    if !next.is_null() {
                        (*next).previous = ptr::null_mut();
                        *front = next;
                    }
                    return self.empties.put(header, &self.range);
                }
            }
        }
    }

    /// One more arena of virgin pools. False if there is no address space, or no memory for the address map.
    fn add_arena(&mut self) -> bool {
        let arena = self.range.grow();
        if arena.is_null() {
            return false;
        }
        if !self.lookup.mark(arena.addr(), &mut self.raw) {
            self.range.shrink();
            return false;
        }
        true
    }

    /// # Safety
    /// `header` is in no list and belongs to `class`.
    unsafe fn link_front(&mut self, header: *mut Header, class: usize) {
        let front = self.front[class];
        // SAFETY: listed pools have initialised headers; the one that stands for none is not written.
        unsafe {
            (*header).previous = ptr::null_mut();
            if front == NONE {
                (*header).next = ptr::null_mut();
            } else {
                (*header).next = front;
                (*front).previous = header;
            }
        }
        self.front[class] = header;
    }

    /// Hands out the next virgin block, and makes those behind it that end on the same OS page the free list.
    ///
    /// # Safety
    /// `header` is a used pool of `class` with a virgin block and an empty free list.
    unsafe fn carve(range: &Range<POLICIES>, header: *mut Header, class: usize) -> *mut u8 {
        let block_bytes = Self::block_bytes(class);
        // SAFETY: virgin blocks lie within the pool, and nobody uses them.
        unsafe {
            let virgin = (*header).virgin as usize;
            let carved = Self::blocks_per_pool(class) - virgin;
            let pool = range.pool(range.index(header));
            let first = pool.add(Range::<POLICIES>::SKIPPED_BYTES + carved * block_bytes);
            let end = first.addr() + block_bytes;
            let more = if Self::BATCHES { (end.next_multiple_of(OS_PAGE_BYTES) - end) / block_bytes } else { 0 };
            let more = more.min(virgin - 1);
            let mut list = ptr::null_mut();
            for place in (1..=more).rev() {
                let block = first.add(place * block_bytes);
                set_link(block, list);
                list = block;
            }
            (*header).free = list;
            (*header).virgin = (virgin - 1 - more) as u16;
            (*header).countdown += 1;
            first
        }
    }

    /// A countdown is over: a full pool has a free block again, or a used one has no block in use.
    ///
    /// # Safety
    /// `header` is a used or full pool whose block was freed just now.
    #[inline(never)]
    unsafe extern "C" fn turn(&mut self, header: *mut Header) {
        // SAFETY: by contract; listed pools have initialised headers.
        unsafe {
            let class = (*header).class as usize;
            if (*header).state == state::FULL {
                self.full[class] -= 1;
                (*header).state = state::USED;
                (*header).countdown = (Self::blocks_per_pool(class) - 1) as u16;
                return self.link_front(header, class);
            }
            let (next, previous) = ((*header).next, (*header).previous);
            if Self::LINGERS && next.is_null() && previous.is_null() {
                return;
            }
            if previous.is_null() {
                self.front[class] = if next.is_null() { NONE } else { next };
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
            self.empties.put(header, &self.range);
        }
    }

    #[inline(never)]
    extern "C" fn allocate_raw(&mut self, bytes: usize) -> *mut u8 {
        if bytes > REQUEST_BYTES_MAX {
            return ptr::null_mut();
        }
        let block = self.raw.allocate(bytes.max(1));
        self.raw_blocks += isize::from(!block.is_null());
        block
    }

    #[inline(never)]
    extern "C" fn allocate_zeroed_raw(&mut self, count: usize, element_bytes: usize) -> *mut u8 {
        let (count, element_bytes) = if count == 0 || element_bytes == 0 { (1, 1) } else { (count, element_bytes) };
        let block = self.raw.allocate_zeroed(count, element_bytes);
        self.raw_blocks += isize::from(!block.is_null());
        block
    }

    /// Frees what one look did not find: the raw allocator's, null, or a block that only the whole map knows.
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    #[inline(never)]
    unsafe extern "C" fn free_far(&mut self, block: *mut u8) {
        if self.lookup.covers_far(block.addr()) {
            // SAFETY: the block lies in an arena; the caller gives it up.
            return unsafe { self.free_to_pool(block) };
        }
        if !block.is_null() {
            self.raw_blocks -= 1;
            // SAFETY: an address outside the arenas can only be the raw allocator's, by contract.
            unsafe { self.raw.free(block) }
        }
    }

    /// # Safety
    /// As for [`reallocate`](Self::reallocate).
    #[inline(never)]
    unsafe extern "C" fn reallocate_far(&mut self, block: *mut u8, bytes: usize) -> *mut u8 {
        if block.is_null() {
            return self.allocate(bytes);
        }
        if self.lookup.covers_far(block.addr()) {
            // SAFETY: the block lies in an arena and is live.
            return unsafe { self.reallocate_in_pool(block, bytes) };
        }
        if bytes > REQUEST_BYTES_MAX {
            return ptr::null_mut();
        }
        // SAFETY: an address outside the arenas can only be the raw allocator's, by contract.
        unsafe { self.raw.reallocate(block, bytes.max(1)) }
    }

    /// # Safety
    /// `block` is a live block of a pool, `old_bytes` long.
    #[inline(never)]
    unsafe extern "C" fn reallocate_by_move(&mut self, block: *mut u8, old_bytes: usize, bytes: usize) -> *mut u8 {
        let moved = self.allocate(bytes);
        if !moved.is_null() {
            // SAFETY: both blocks are live, distinct and at least as long as the part that is copied.
            unsafe {
                ptr::copy_nonoverlapping(block, moved, bytes.min(old_bytes));
                self.free(block);
            }
        }
        moved
    }
}

impl<R: RawAllocator, const POLICIES: u32> Drop for Tuned<R, POLICIES> {
    fn drop(&mut self) {
        // SAFETY: nobody can use a block of a pool any more.
        unsafe { self.range.clear() };
        self.lookup.clear(&mut self.raw);
    }
}

impl<R: RawAllocator, const POLICIES: u32> fmt::Debug for Tuned<R, POLICIES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuned")
            .field("arenas", &self.range.arenas())
            .field("pools_in_use", &self.empties.in_use)
            .field("raw_blocks", &self.raw_blocks)
            .finish_non_exhaustive()
    }
}
