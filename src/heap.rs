//! The contract that every allocator is called through, and a check that one keeps it.
//!
//! Invariant: all backends are reached through the same opaque path, plain C function pointers read from memory, so
//! that no call is inlined, removed or devirtualised for one of them and not for another. Python frees without a
//! size, so `free` takes none; NumPy and Arrow tell one, so an allocator of theirs may have [`SizedCalls`] as well.

use libc::c_void;

/// The plain C entry points of one allocator.
///
/// What each promises, and what [`check`] checks:
/// - a block is aligned to 16 bytes; to 8 bytes only when at most 8 were requested (mimalloc and jemalloc do so);
/// - live blocks do not overlap, and `usable_size` of a block is at least what was requested, or 0 where
///   an allocator cannot tell ([`Promise`], [`SizedCalls`]);
/// - `calloc`ed blocks read as zero; `realloc` keeps the shorter of both contents; `aligned` keeps its alignment, save
///   that of a block of no bytes (jemalloc 5.3.0 forgets it), and up to what its [`Promise`] says;
/// - null means that the request failed and nothing changed.
///
/// The floor backends keep none of this: see [`crate::backend::Role::Floor`].
#[derive(Clone, Copy)]
#[repr(C, align(64))] // one cache line each: a domain indexes the table with a shift
pub struct Entry {
    /// `malloc(size)`.
    pub malloc: unsafe extern "C" fn(usize) -> *mut c_void,
    /// `calloc(count, size)`.
    pub calloc: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// `realloc(block, size)`; size at least 1.
    pub realloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// `free(block)`.
    pub free: unsafe extern "C" fn(*mut c_void),
    /// `aligned_alloc(alignment, size)`; the alignment is a power of two, the size need not be a multiple of it.
    pub aligned: unsafe extern "C" fn(usize, usize) -> *mut c_void,
    /// Bytes of the block that may be used; 0 when the allocator cannot tell.
    pub usable_size: unsafe extern "C" fn(*mut c_void) -> usize,
    /// What takes the place of `realloc` and `free` in an allocator that cannot do without a block's size. It serves
    /// `numpy` or `arrow` alone, whose callers tell one, and the two above must not be called.
    pub sized: Option<SizedCalls>,
}

/// Entry points that are told a block's size, exactly as it was requested.
#[derive(Clone, Copy)]
pub struct SizedCalls {
    /// `realloc(block, old size, size)`; size at least 1.
    pub realloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    /// `free(block, size)`.
    pub free: unsafe extern "C" fn(*mut c_void, usize),
    /// Largest alignment of a block that these can resize and free, bytes; `aligned` refuses a larger one.
    pub alignment_bytes_max: usize,
}

impl Entry {
    /// Resizes a block of `old` bytes in the way that the allocator wants.
    ///
    /// # Safety
    /// The block is live, of this allocator and of that size; `bytes` is at least 1.
    #[inline(always)]
    pub unsafe fn resize(&self, block: *mut c_void, old: usize, bytes: usize) -> *mut c_void {
        match self.sized {
            // SAFETY: the caller's promise.
            Some(sized) => unsafe { (sized.realloc)(block, old, bytes) },
            // SAFETY: the caller's promise.
            None => unsafe { (self.realloc)(block, bytes) },
        }
    }

    /// Frees a block of `bytes` bytes in the way that the allocator wants.
    ///
    /// # Safety
    /// The block is live, of this allocator and of that size.
    #[inline(always)]
    pub unsafe fn release(&self, block: *mut c_void, bytes: usize) {
        match self.sized {
            // SAFETY: the caller's promise.
            Some(sized) => unsafe { (sized.free)(block, bytes) },
            // SAFETY: the caller's promise.
            None => unsafe { (self.free)(block) },
        }
    }
}

/// How much of the contract of [`Entry`] an allocator keeps; the rest it keeps whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Largest alignment that `aligned` can give, at least 16 bytes; it refuses a larger one.
    pub alignment_bytes_max: usize,
    /// Whether `usable_size` can tell; else it says 0, and what was requested counts.
    pub tells_usable_size: bool,
}

impl Promise {
    /// All of it.
    pub const ALL: Self = Self { alignment_bytes_max: usize::MAX, tells_usable_size: true };
}

/// Blocks that [`check`] keeps alive at once.
const CHECK_BLOCKS: usize = 600;
/// Calls that [`check`] makes.
const CHECK_CALLS: usize = 20_000;

/// One live block of the check.
#[derive(Clone, Copy)]
struct Block {
    address: *mut u8,
    bytes: usize,
    fill: u8,
}

/// Drives an allocator through a fixed pseudo-random sequence and checks the contract of [`Entry`], as far as it is
/// promised.
///
/// # Errors
/// The first broken promise, as a sentence.
///
/// # Safety
/// The entry points must belong to one working allocator that may be called from this thread.
pub unsafe fn check(entry: &Entry, promise: Promise) -> Result<(), String> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let mut live: Vec<Block> = Vec::with_capacity(CHECK_BLOCKS);
    let alignment_max = entry.sized.map_or(4096, |sized| sized.alignment_bytes_max).min(promise.alignment_bytes_max);
    for call in 0..CHECK_CALLS {
        let bytes = match next() % 100 {
            0 => next() % 3_000_000,
            1..10 => next() % 40_000,
            10..15 => next() % 9, // 0 to 8: where only 8 bytes of alignment are promised
            _ => next() % 700,
        };
        if live.len() < CHECK_BLOCKS && (live.is_empty() || next() % 100 < 55) {
            let fill = (call % 251) as u8 + 1;
            // SAFETY: the caller's promise; sizes are small and the alignment is a power of two.
            live.push(unsafe {
                allocate(entry, promise, next() % 10, bytes, alignment_max.min(16 << (next() % 9)), fill)
            }?);
        } else {
            let at = next() % live.len();
            let block = live[at];
            intact(&block, block.bytes, "before it was freed or resized")?;
            if next() % 4 == 0 {
                // SAFETY: the block is live and stays known only under its new address.
                live[at] = unsafe { resize(entry, promise, block, bytes.max(1)) }?;
            } else {
                // SAFETY: the block is live and leaves the list.
                unsafe { entry.release(block.address.cast(), block.bytes) };
                live.swap_remove(at);
            }
        }
    }
    // Arrow's pools give one address for all blocks of no bytes.
    let shares_nothing = |block: &&Block| block.bytes > 0 || entry.sized.is_none();
    disjoint(live.iter().filter(shares_nothing))?;
    for block in live {
        intact(&block, block.bytes, "at the end")?;
        // SAFETY: the block is live and dropped here.
        unsafe { entry.release(block.address.cast(), block.bytes) };
    }
    Ok(())
}

/// Allocates one block by `malloc`, `calloc` or `aligned`, checks what is promised of it and fills it.
///
/// # Safety
/// As [`check`].
unsafe fn allocate(
    entry: &Entry,
    promise: Promise,
    how: usize,
    bytes: usize,
    alignment: usize,
    fill: u8,
) -> Result<Block, String> {
    let (name, wanted) = match how {
        0 => ("aligned", if bytes == 0 { 8 } else { alignment }),
        1 => ("calloc", if bytes > 8 { 16 } else { 8 }),
        _ => ("malloc", if bytes > 8 { 16 } else { 8 }),
    };
    // SAFETY: the caller's promise.
    let address = unsafe {
        match how {
            0 => (entry.aligned)(alignment, bytes),
            1 => (entry.calloc)(1, bytes),
            _ => (entry.malloc)(bytes),
        }
    }
    .cast::<u8>();
    if address.is_null() {
        return Err(format!("{name} of {bytes} bytes returned null"));
    }
    if !(address as usize).is_multiple_of(wanted) {
        return Err(format!("{name} of {bytes} bytes returned {address:p}, which is not aligned to {wanted}"));
    }
    if how == 1 && (0..bytes).any(|i| read(address, i) != 0) {
        return Err(format!("calloc of {bytes} bytes returned a block that does not read as zero"));
    }
    // SAFETY: the block was just allocated.
    unsafe { fill_block(entry, promise, name, address, bytes, fill) }
}

/// Resizes a block, checks that its content was kept, and fills it again.
///
/// # Safety
/// As [`check`]; the block must be live.
unsafe fn resize(entry: &Entry, promise: Promise, block: Block, bytes: usize) -> Result<Block, String> {
    // SAFETY: the caller's promise.
    let address = unsafe { entry.resize(block.address.cast(), block.bytes, bytes) }.cast::<u8>();
    if address.is_null() {
        return Err(format!("realloc from {} to {bytes} bytes returned null", block.bytes));
    }
    let wanted = if bytes > 8 { 16 } else { 8 };
    if !(address as usize).is_multiple_of(wanted) {
        return Err(format!("realloc to {bytes} bytes returned {address:p}, which is not aligned to {wanted}"));
    }
    intact(&Block { address, ..block }, bytes.min(block.bytes), "after it was resized")?;
    // SAFETY: the block was just allocated.
    unsafe { fill_block(entry, promise, "realloc", address, bytes, block.fill.wrapping_add(1).max(1)) }
}

/// Checks the usable size and writes every requested byte.
///
/// # Safety
/// `address` must be a live block of `entry` of at least `bytes` bytes.
unsafe fn fill_block(
    entry: &Entry,
    promise: Promise,
    name: &str,
    address: *mut u8,
    bytes: usize,
    fill: u8,
) -> Result<Block, String> {
    // SAFETY: the caller's promise.
    let usable = unsafe { (entry.usable_size)(address.cast()) };
    let is_untold = usable == 0 && (entry.sized.is_some() || !promise.tells_usable_size);
    if usable < bytes && !is_untold {
        return Err(format!("{name} of {bytes} bytes returned a block of only {usable} usable bytes"));
    }
    // SAFETY: the caller's promise; what was requested may be written.
    unsafe { address.write_bytes(fill, bytes) };
    Ok(Block { address, bytes, fill })
}

/// Reads one byte of a live block.
fn read(address: *const u8, at: usize) -> u8 {
    // SAFETY: only called on live blocks of this check, below their requested size, after they were written or
    // `calloc`ed; volatile so that the compiler cannot know the content.
    unsafe { address.add(at).read_volatile() }
}

/// Whether the first `bytes` of a block still hold its fill byte.
fn intact(block: &Block, bytes: usize, when: &str) -> Result<(), String> {
    match (0..bytes).find(|i| read(block.address, *i) != block.fill) {
        None => Ok(()),
        Some(at) => Err(format!(
            "byte {at} of a block of {} bytes changed {when}: another block overlaps it, or its content was not kept",
            block.bytes
        )),
    }
}

/// Whether no two live blocks overlap.
fn disjoint<'a>(live: impl Iterator<Item = &'a Block>) -> Result<(), String> {
    let mut ranges: Vec<(usize, usize)> = live.map(|b| (b.address as usize, b.bytes.max(1))).collect();
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(format!("blocks at {:#x} and {:#x} overlap", pair[0].0, pair[1].0)),
    }
}
