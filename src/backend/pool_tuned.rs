//! The tuned pool over the C library, with all its policies or without some: `pool-tuned`, `pool-tuned:no-packed`, ...
//!
//! Which policies an allocator has is part of its type, so each variant has a state and entry points of its own, and a
//! call costs the same as one of `pool`.
//!
//! Invariant: one state per variant for the process, called from one thread at a time, as `pool`.

use super::{Arena, Backend, Need, PoolReader, Ready, Role, pool, system};
use crate::heap::Entry;
use crate::run::{Held, PoolStatistics};
use libc::c_void;
use pypool::{GilCell, LibcRaw, Tuned, policy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Key of the tuned pool. Behind a colon may stand one of [`TUNED_VARIANTS`].
pub const TUNED_KEY: &str = "pool-tuned";

/// `pool-tuned`.
pub(super) const BACKEND: Backend = Backend { key: TUNED_KEY, label: TUNED_KEY, role: Role::OptIn, prepare };

/// A variant: what it is called, the policies that it has, and its functions.
struct Variant {
    name: &'static str,
    policies: u32,
    entry: Entry,
    reader: PoolReader,
    holds: fn() -> Held,
    release: fn(),
    request_bytes_max: u64,
}

/// Declares a module per variant, and the table of them.
macro_rules! variants {
    ($($module:ident $name:literal $policies:expr;)*) => {
        $(mod $module {
            use super::*;

            type Pool = Tuned<LibcRaw, { $policies }>;

            static POOL: GilCell<Pool> = GilCell::new(Pool::new(LibcRaw));

            /// The variant's allocator.
            ///
            /// # Safety
            /// No other thread may be in it, and the reference must be gone before the next call of this.
            #[inline(always)]
            unsafe fn pool() -> &'static mut Pool {
                // SAFETY: the caller's promise.
                unsafe { POOL.get() }
            }

            unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
                // SAFETY: whoever calls an entry of this backend holds what stands for the GIL; so in all below.
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

            fn arenas(each: &mut dyn FnMut(Arena)) {
                // SAFETY: as in `malloc`: the footprint pass reads between two calls, on the thread that makes them.
                super::pool::arenas(unsafe { pool() }.occupancy(), each);
            }

            fn statistics(into: &mut PoolStatistics) {
                // SAFETY: as in `arenas`.
                super::pool::fill(&unsafe { pool() }.statistics(), into);
            }

            /// Its arenas, of which pools that the kernel has back are not present; larger blocks are the C library's.
            fn holds() -> Held {
                // SAFETY: as in `arenas`.
                let (statistics, present) = unsafe { (pool().statistics(), pool().present_bytes_max()) };
                let mapped = (statistics.arenas.mapped * statistics.arena_bytes) as u64;
                Held { mapped_bytes: Some(mapped), resident_bytes_max: Some(present as u64) }
            }

            fn release() {
                // SAFETY: as in `arenas`.
                unsafe { pool() }.release();
            }

            pub(super) const VARIANT: Variant = Variant {
                name: $name,
                policies: $policies,
                entry: Entry { malloc, calloc, realloc, free, aligned: libc::memalign, usable_size, sized: None },
                reader: PoolReader { arenas, statistics },
                holds,
                release,
                request_bytes_max: Pool::POOL_REQUEST_BYTES_MAX as u64,
            };
        })*

        const VARIANTS: &[Variant] = &[$($module::VARIANT),*];
        /// What may stand behind `pool-tuned:`. The first is what nothing behind it means.
        pub const TUNED_VARIANTS: &[&str] = &[$($name),*];
    };
}

variants! {
    all "all" policy::ALL;
    no_packed "no-packed" policy::ALL & !policy::PACKED;
    no_range "no-range" policy::ALL & !policy::RANGE;
    no_batch "no-batch" policy::ALL & !policy::BATCH;
    no_linger "no-linger" policy::ALL & !policy::LINGER;
    no_purge "no-purge" policy::ALL & !policy::PURGE;
    no_populate "no-populate" policy::ALL & !policy::POPULATE;
    no_wide "no-wide" policy::ALL & !policy::WIDE;
    none "none" 0;
}

fn prepare(need: &Need) -> Result<Ready, String> {
    let wanted = if need.argument.is_empty() { TUNED_VARIANTS[0] } else { need.argument.as_str() };
    let variant = VARIANTS
        .iter()
        .find(|variant| variant.name == wanted)
        .ok_or_else(|| format!("{TUNED_KEY} has no variant {wanted:?}; use one of: {}", TUNED_VARIANTS.join(", ")))?;
    let below = system::ready(variant.entry)?;
    let release_below = below.release;
    Ok(Ready {
        pools: Some(variant.reader),
        holds: Some(Box::new(variant.holds)),
        own_bytes_max: Some(variant.request_bytes_max),
        one_thread_at_a_time: true,
        version: Box::new(pool::version),
        options: Box::new(|| options(variant)),
        release: Arc::new(move || {
            (variant.release)();
            release_below();
        }),
        ..below
    })
}

/// What the faithful pool says of itself too, and which policies it has.
fn options(variant: &Variant) -> BTreeMap<String, String> {
    let mut options = pool::options();
    let has = policy::POLICIES.iter().filter(|policy| variant.policies & policy.bit != 0);
    options.insert("policies".to_owned(), has.map(|policy| policy.name).collect::<Vec<_>>().join(","));
    options.insert("small_bytes_max".to_owned(), variant.request_bytes_max.to_string());
    options
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_policy_can_be_left_out_by_its_name() {
        for policy in policy::POLICIES {
            let name = format!("no-{}", policy.name);
            let variant = VARIANTS.iter().find(|variant| variant.name == name).unwrap();
            assert_eq!(variant.policies, policy::ALL & !policy.bit, "{name}");
        }
        assert_eq!(VARIANTS.len(), policy::POLICIES.len() + 2);
    }

    #[test]
    fn the_page_about_it_names_every_policy() {
        let page = include_str!("../../docs/POOL_TUNED.md");
        for policy in policy::POLICIES {
            assert!(page.contains(&format!("| `{}` |", policy.name)), "{}", policy.name);
        }
    }

    #[test]
    fn every_variant_keeps_the_contract_and_says_what_it_is() {
        for name in TUNED_VARIANTS {
            BACKEND.check(name).unwrap();
            let facts = BACKEND.facts(name).unwrap();
            assert_eq!(facts.options["policies"].is_empty(), *name == "none", "{name}");
        }
        assert!(BACKEND.facts("no-such").unwrap_err().contains("no-packed"));
    }
}
