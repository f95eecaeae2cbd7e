//! CPython's debug hooks over the pool and over the C library: what `PYTHONMALLOC=debug`, `pymalloc_debug` and
//! `malloc_debug` put between a program and its allocators.
//!
//! Each domain has hooks of its own, which know their blocks by a letter, and all of one backend stand on one
//! allocator, as in CPython. Nothing is in quarantine: CPython has none, and this is its cost.
//!
//! Invariant: a block that was spoilt ends the process with a report. A replay spoils none, so that is a fault of ours.

use super::{Backend, PoolReader, Ready, Role, pool, system};
use crate::heap::{Entry, Promise};
use libc::c_void;
use pypool::{Allocator, Current, DebugHooks, Domain as Letter, Geometry as _, GilCell, LibcRaw, MappedArenas};
use std::collections::BTreeMap;
use trace::Domain;

/// Key of the pool with debug hooks.
pub const POOL_DEBUG_KEY: &str = "pool-debug";
/// Key of the C library's `malloc` with debug hooks.
pub const MALLOC_DEBUG_KEY: &str = "malloc-debug";

/// Alignment of every block; the hooks can give no other.
const ALIGNMENT_BYTES: usize = 16;
const PROMISE: Promise = Promise { alignment_bytes_max: ALIGNMENT_BYTES, ..Promise::ALL };
/// Largest request that still comes from a pool: the hooks add 24 bytes.
const POOL_BYTES_MAX: usize = Current::SMALL_BYTES_MAX - DebugHooks::<Allocator>::EXTRA_BYTES;

/// `pool-debug`.
pub(super) const POOL: Backend = Backend {
    key: POOL_DEBUG_KEY,
    label: "pool with debug hooks",
    role: Role::ByVariable,
    prepare: |_| {
        let below = system::ready(POOL_OBJ)?;
        Ok(Ready {
            others: &[(Domain::Mem, POOL_MEM)],
            promise: PROMISE,
            pools: Some(READER),
            // Blocks of 489 to 512 bytes are small and not in the arenas, so what these hold is no bound.
            holds: None,
            own_bytes_max: Some(POOL_BYTES_MAX as u64),
            one_thread_at_a_time: true,
            version: Box::new(pool::version),
            options: Box::new(|| options(pool::options(), "mo")),
            ..below
        })
    },
};

/// `malloc-debug`.
pub(super) const MALLOC: Backend = Backend {
    key: MALLOC_DEBUG_KEY,
    label: "malloc with debug hooks",
    role: Role::ByVariable,
    prepare: |_| {
        let below = system::ready(MALLOC_OBJ)?;
        Ok(Ready {
            others: &[(Domain::Raw, MALLOC_RAW), (Domain::Mem, MALLOC_MEM)],
            promise: PROMISE,
            // Nothing is its own.
            holds: None,
            own_bytes_max: Some(0),
            version: Box::new(pool::version),
            options: Box::new(|| options(system::options(), "rmo")),
            ..below
        })
    },
};

static DEBUG_POOL: GilCell<DebugHooks<Allocator>> =
    GilCell::new(DebugHooks::new(Allocator::new(LibcRaw, MappedArenas)));

/// The process's pool with hooks.
///
/// # Safety
/// No other thread may be in it, and the reference must be gone before the next call of this.
#[inline(always)]
unsafe fn pool() -> &'static mut DebugHooks<Allocator> {
    // SAFETY: the caller's promise.
    unsafe { DEBUG_POOL.get() }
}

/// The hooks that a call goes through.
macro_rules! hooks {
    (pool) => {
        // SAFETY: whoever calls an entry of this backend holds what stands for the GIL.
        unsafe { pool() }
    };
    // They hold nothing, so each call may have its own.
    (malloc) => {
        &mut DebugHooks::<LibcRaw>::new(LibcRaw)
    };
}

/// Entry points of one domain.
macro_rules! entry {
    ($below:ident, $letter:expr) => {{
        unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
            let hooks = hooks!($below);
            hooks.allocate($letter, size).cast()
        }
        unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
            let hooks = hooks!($below);
            hooks.allocate_zeroed($letter, count, size).cast()
        }
        unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
            let hooks = hooks!($below);
            // SAFETY: a live block of this entry is the caller's promise; so in the functions below.
            unsafe { hooks.reallocate($letter, block.cast(), size).cast() }
        }
        unsafe extern "C" fn free(block: *mut c_void) {
            let hooks = hooks!($below);
            // SAFETY: as in `realloc`.
            unsafe { hooks.free($letter, block.cast()) }
        }
        // Python's domains have no such call, and the hooks none that could free its block.
        unsafe extern "C" fn aligned(alignment: usize, size: usize) -> *mut c_void {
            let hooks = hooks!($below);
            if alignment > ALIGNMENT_BYTES { std::ptr::null_mut() } else { hooks.allocate($letter, size).cast() }
        }
        unsafe extern "C" fn usable_size(block: *mut c_void) -> usize {
            let hooks = hooks!($below);
            // SAFETY: as in `realloc`. Behind what was requested lie the hooks' own bytes.
            unsafe { hooks.requested_bytes(block.cast()) }
        }
        Entry { malloc, calloc, realloc, free, aligned, usable_size, sized: None }
    }};
}

const POOL_MEM: Entry = entry!(pool, Letter::Mem);
const POOL_OBJ: Entry = entry!(pool, Letter::Obj);
const MALLOC_RAW: Entry = entry!(malloc, Letter::Raw);
const MALLOC_MEM: Entry = entry!(malloc, Letter::Mem);
const MALLOC_OBJ: Entry = entry!(malloc, Letter::Obj);

/// What is below, and the letters of the domains that have hooks.
fn options(below: BTreeMap<String, String>, letters: &str) -> BTreeMap<String, String> {
    let mut options = below;
    options.insert("debug_hooks".to_owned(), letters.to_owned());
    options
}

const READER: PoolReader = PoolReader {
    // SAFETY: the footprint pass reads between two calls, on the thread that makes them.
    arenas: |each| pool::arenas(unsafe { pool() }.inner(), each),
    // SAFETY: as above.
    statistics: |into| pool::fill(&unsafe { pool() }.inner().statistics(), into),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domain_marks_its_blocks_and_the_pools_are_told_of_24_bytes_more() {
        for (entry, letter) in [(MALLOC_RAW, b'r'), (MALLOC_MEM, b'm'), (MALLOC_OBJ, b'o')] {
            // SAFETY: a live block with its header; these hooks hold nothing, so any thread may call them.
            unsafe {
                let block = (entry.malloc)(40);
                assert_eq!(block.cast::<u8>().sub(8).read(), letter);
                assert_eq!(((entry.usable_size)(block), (entry.aligned)(32, 8).is_null()), (40, true));
                (entry.free)(block);
            }
        }
        assert_eq!(POOL_BYTES_MAX, 488);
    }
}
