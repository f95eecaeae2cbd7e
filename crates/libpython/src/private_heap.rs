//! A heap for the interpreter that CPython 3.12 and later need before pymalloc works: its objects must lie neither in
//! pymalloc's arenas nor in the C library's heap, since both are about to be measured.
//!
//! Blocks are cut off one mapping in order and never reused; an interpreter that runs no program needs under 4 MiB.
//!
//! **Invariant:** every block is preceded by 16 bytes that hold its size, and lies in the one mapping.

use crate::functions::MemAllocator;
use libc::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Address space; only what is used becomes memory.
const HEAP_BYTES: usize = 64 << 20;
const ALIGNMENT_BYTES: usize = 16;

/// First free address; 0 before the mapping exists.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// End of the mapping.
static END: AtomicUsize = AtomicUsize::new(0);

/// The heap as CPython wants it described; `None` if no address space can be had.
pub(crate) fn allocator() -> Option<MemAllocator> {
    if END.load(Ordering::Acquire) == 0 {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(null_mut(), HEAP_BYTES, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        NEXT.store(start.addr(), Ordering::Release);
        END.store(start.addr() + HEAP_BYTES, Ordering::Release);
    }
    Some(MemAllocator {
        context: null_mut(),
        malloc: Some(allocate),
        calloc: Some(allocate_zeroed),
        realloc: Some(reallocate),
        free: Some(forget),
    })
}

unsafe extern "C" fn allocate(_: *mut c_void, bytes: usize) -> *mut c_void {
    let room = bytes.checked_next_multiple_of(ALIGNMENT_BYTES).and_then(|room| room.checked_add(ALIGNMENT_BYTES));
    let end = END.load(Ordering::Acquire);
    let after = |start: usize| room.and_then(|room| start.checked_add(room)).filter(|after| *after <= end);
    // A request that does not fit takes nothing away from those that do.
    let Ok(start) = NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, after) else {
        return null_mut();
    };
    let header = std::ptr::with_exposed_provenance_mut::<usize>(start);
    // SAFETY: these bytes of the mapping have just been taken by this call alone.
    unsafe {
        header.write(bytes);
        header.byte_add(ALIGNMENT_BYTES).cast()
    }
}

unsafe extern "C" fn allocate_zeroed(context: *mut c_void, count: usize, bytes: usize) -> *mut c_void {
    // Fresh memory of a mapping is zero.
    // SAFETY: `allocate` takes any size.
    count.checked_mul(bytes).map_or(null_mut(), |bytes| unsafe { allocate(context, bytes) })
}

unsafe extern "C" fn reallocate(context: *mut c_void, block: *mut c_void, bytes: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: any size may be asked for.
        return unsafe { allocate(context, bytes) };
    }
    // SAFETY: CPython passes a block of this heap, which has its size before it.
    let old_bytes = unsafe { block.byte_sub(ALIGNMENT_BYTES).cast::<usize>().read() };
    if bytes <= old_bytes {
        return block;
    }
    // SAFETY: as above; the blocks are distinct, and the new one is the longer.
    unsafe {
        let moved = allocate(context, bytes);
        if !moved.is_null() {
            moved.copy_from_nonoverlapping(block, old_bytes);
        }
        moved
    }
}

unsafe extern "C" fn forget(_: *mut c_void, _: *mut c_void) {}
