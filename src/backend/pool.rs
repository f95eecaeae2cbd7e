//! Our pymalloc over the C library: up to 512 bytes from its pools, the rest from glibc, as in CPython.
//!
//! Invariant: one state for the process, as in CPython, and called from one thread at a time: whoever calls stands
//! for the GIL.

use super::{Arena, Backend, PoolReader, Ready, Role, system};
use crate::heap::Entry;
use crate::run::{Held, PoolClass, PoolStatistics};
use libc::c_void;
use pypool::{Allocator, ArenaOccupancy, Current, Geometry as _, GilCell, LibcRaw, MappedArenas, Statistics};
use std::collections::BTreeMap;

/// `pool`.
pub(super) const BACKEND: Backend = Backend {
    key: "pool",
    label: "pool (our pymalloc)",
    role: Role::Contestant,
    prepare: |_| {
        let below = system::ready(ENTRY)?;
        Ok(Ready {
            pools: Some(READER),
            holds: Some(Box::new(holds)),
            own_bytes_max: Some(Current::SMALL_BYTES_MAX as u64),
            one_thread_at_a_time: true,
            version: Box::new(version),
            options: Box::new(options),
            ..below
        })
    },
};

const ENTRY: Entry = Entry { malloc, calloc, realloc, free, aligned: libc::memalign, usable_size, sized: None };
const READER: PoolReader = PoolReader {
    // SAFETY: as in `malloc`: the footprint pass reads between two calls, on the thread that makes them.
    arenas: |each| arenas(unsafe { pool() }.occupancy(), each),
    // SAFETY: as above.
    statistics: |into| fill(&unsafe { pool() }.statistics(), into),
};

static POOL: GilCell<Allocator> = GilCell::new(Allocator::new(LibcRaw, MappedArenas));

/// The process's pool allocator.
///
/// # Safety
/// No other thread may be in it, and the reference must be gone before the next call of this.
#[inline(always)]
unsafe fn pool() -> &'static mut Allocator {
    // SAFETY: the caller's promise.
    unsafe { POOL.get() }
}

unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: whoever calls an entry of this backend holds what stands for the GIL; so in all functions below.
    unsafe { pool() }.allocate(size).cast()
}

unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    // SAFETY: as in `malloc`.
    unsafe { pool() }.allocate_zeroed(count, size).cast()
}

unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    // SAFETY: as in `malloc`; the block is the caller's promise.
    unsafe { pool().reallocate(block.cast(), size).cast() }
}

unsafe extern "C" fn free(block: *mut c_void) {
    // SAFETY: as in `realloc`.
    unsafe { pool().free(block.cast()) }
}

unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
    // SAFETY: as in `realloc`; a block that is not the pool's is the C library's.
    unsafe { pool().usable_size(block.cast()).unwrap_or_else(|| libc::malloc_usable_size(block)) }
}

/// Version of the library, which is that of the workspace, and of the C library below it.
pub(super) fn version() -> String {
    format!("pypool {} over {}", env!("CARGO_PKG_VERSION"), system::version())
}

/// The pool's geometry, and the tunables of the C library below it.
pub(super) fn options() -> BTreeMap<String, String> {
    let mut options = system::options();
    options.insert("arena_bytes".to_owned(), Current::ARENA_BYTES.to_string());
    options.insert("pool_bytes".to_owned(), Current::POOL_BYTES.to_string());
    options.insert("small_bytes_max".to_owned(), Current::SMALL_BYTES_MAX.to_string());
    options
}

/// Every mapped arena, in the order in which the pool tells of them.
pub(super) fn arenas(occupancy: impl Iterator<Item = ArenaOccupancy>, each: &mut dyn FnMut(Arena)) {
    for arena in occupancy {
        each(Arena { address: arena.address, pools: arena.pools_total, pools_in_use: arena.pools_in_use });
    }
}

/// Its arenas; larger blocks are the C library's.
fn holds() -> Held {
    // SAFETY: as for `READER`.
    let count = unsafe { pool() }.occupancy().count() as u64;
    let mapped = Some(count * Current::ARENA_BYTES as u64);
    Held { mapped_bytes: mapped, resident_bytes_max: mapped }
}

/// Statistics as results keep them; the list of classes keeps its memory.
pub(super) fn fill(now: &Statistics, into: &mut PoolStatistics) {
    let mut classes = std::mem::take(&mut into.classes);
    classes.clear();
    classes.extend(now.classes().iter().take(PoolReader::CLASSES_MAX).map(|class| PoolClass {
        block_bytes: class.block_bytes as u64,
        pools: class.pools as u64,
        blocks_in_use: class.blocks_in_use as u64,
        blocks_available: class.blocks_available as u64,
    }));
    *into = PoolStatistics {
        arena_bytes: now.arena_bytes as u64,
        pool_bytes: now.pool_bytes as u64,
        arenas_mapped: now.arenas.mapped as u64,
        arenas_mapped_peak: now.arenas.mapped_peak as u64,
        arenas_mapped_total: now.arenas.mapped_total as u64,
        allocated_bytes: now.allocated_bytes as u64,
        available_bytes: now.available_bytes as u64,
        unused_pools: now.unused_pools as u64,
        pool_header_bytes: now.pool_header_bytes as u64,
        quantization_bytes: now.quantization_bytes as u64,
        arena_alignment_bytes: now.arena_alignment_bytes as u64,
        classes,
    };
}
