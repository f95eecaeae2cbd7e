//! The allocators that can serve a domain, one file and one line of [`ALL`] each.
//!
//! Invariant: a backend says of itself only what its library reports at run time (version, effective options); the
//! statically linked copies are reached through their prefixed C symbols and serve nothing but the replayed calls.

mod cpython;
mod family;
mod hooks;
mod jemalloc;
mod library;
mod mimalloc;
mod null;
mod numpy_cache;
mod planted;
mod pool;
mod pool_tuned;
mod system;
mod wheel;

pub use cpython::{CPYTHON_KEY, CPYTHON_MIMALLOC_KEY, LINKAGE_VARIABLE};
pub use family::mimalloc::{said as mimalloc_options_said, written as mimalloc_version};
pub use family::{GLIBC, JEMALLOC, MIMALLOC, TCMALLOC, UNKNOWN};
pub use hooks::{MALLOC_DEBUG_KEY, POOL_DEBUG_KEY};
pub use library::LIBRARY_KEY;
pub use numpy_cache::CACHED_KEY;
pub use pool_tuned::{TUNED_KEY, TUNED_VARIANTS};
pub use system::libc_version;
#[cfg(any(test, fuzzing))]
pub(crate) use wheel::local_functions;
pub use wheel::{LIBARROW_VARIABLE, WHEEL_KEY, WHEEL_POOLS};

use crate::heap::{Entry, Promise};
use crate::run::{AllocatorFacts, Held, PoolStatistics};
use family::Family;
use std::collections::BTreeMap;
use std::sync::Arc;
use trace::{Directive, DirectiveCall, Domain};

/// What a backend may know before the seal.
#[derive(Clone, Debug, Default)]
pub struct Need {
    /// Largest single request of the image, bytes.
    pub block_bytes_max: u64,
    /// What follows the colon in `KEY:ARGUMENT`; empty without one.
    pub argument: String,
}

/// Alignment that Arrow asks for unless told otherwise, bytes.
pub(crate) const ARROW_ALIGNMENT_BYTES: usize = 64;

/// What a backend is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Part of the default run.
    Contestant,
    /// Offered, and measured where it is named: it needs something that not every machine has.
    OptIn,
    /// Is many allocators: which, an argument says.
    ByArgument,
    /// What a variable's value puts in, for another end than speed. It has no name of its own in a configuration.
    ByVariable,
    /// Not offered: checks the harness itself.
    Instrument,
    /// Not an allocator to choose: it does not keep the contract of [`Entry`].
    Floor,
}

/// One arena of a backend that is made of pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arena {
    /// Its first byte.
    pub address: usize,
    /// Pools that it holds.
    pub pools: u32,
    /// Pools with a block in use.
    pub pools_in_use: u32,
}

/// How a backend that is made of pools tells what is in them. Neither function allocates, or writes to what it reads.
#[derive(Clone, Copy)]
pub struct PoolReader {
    /// Hands over every mapped arena once, in any order.
    pub arenas: fn(&mut dyn FnMut(Arena)),
    /// Replaces what is there by where every byte of the arenas is now. The list of classes keeps its memory: it has
    /// to have room for [`PoolReader::CLASSES_MAX`].
    pub statistics: fn(&mut PoolStatistics),
}

impl PoolReader {
    /// Most size classes of any backend.
    pub const CLASSES_MAX: usize = 64;
}

/// Gives free memory back to the kernel, as an operator could.
pub type Release = Arc<dyn Fn() + Send + Sync>;

/// The allocators of a job that a recorded program's directives reach.
pub struct Directors {
    each: Vec<Family>,
    /// Of the allocator that serves `arrow`.
    release_unused: Release,
}

impl Directors {
    /// Each copy of a library once, whichever domains it serves. `of_arrow` serves `arrow`.
    #[must_use]
    pub fn of(ready: &[Ready], of_arrow: &Ready) -> Self {
        let mut each: Vec<Family> = Vec::new();
        for family in ready.iter().filter_map(|ready| ready.steered.as_ref()) {
            if each.iter().all(|known| known.identity() != family.identity()) {
                each.push(family.clone());
            }
        }
        Self { each, release_unused: Arc::clone(&of_arrow.release) }
    }

    /// Makes the call where an allocator has such a function; `false` where none has.
    pub fn carry_out(&self, call: DirectiveCall) -> bool {
        if call.directive == Directive::ReleaseUnused {
            (self.release_unused)();
            return true;
        }
        // Every allocator that has the function makes the call, not the first alone.
        self.each.iter().filter(|family| family.carry_out(call)).count() > 0
    }
}

/// Asks an allocator what it holds now. Allocates nothing, but for what a first answer may cost it.
pub type Holds = Box<dyn Fn() -> Held + Send + Sync>;

/// One allocator's descriptor.
pub struct Backend {
    /// Key in jobs, files and configurations.
    pub key: &'static str,
    /// How charts and tables label it.
    pub label: &'static str,
    /// What it is there for.
    pub role: Role,
    /// Makes ready whatever must exist before the seal. May be called again.
    ///
    /// # Errors
    /// A sentence that says what could not be had.
    pub prepare: fn(&Need) -> Result<Ready, String>,
}

/// A prepared allocator: everything that can only be said of one that is there.
pub struct Ready {
    /// Its entry points.
    pub entry: Entry,
    /// Its entry points for single domains, where those are others: for Arrow, which wants 64 bytes of alignment also
    /// when a block is resized; for domains whose blocks are marked.
    pub others: &'static [(Domain, Entry)],
    /// How much of the contract of [`Entry`] it keeps.
    pub promise: Promise,
    /// Version that the library reports.
    pub version: Box<dyn Fn() -> String + Send + Sync>,
    /// Effective options that the library reports, by the library's own names.
    pub options: Box<dyn Fn() -> BTreeMap<String, String> + Send + Sync>,
    /// See [`Release`].
    pub release: Release,
    /// Whose functions for steering an allocator reach this one's memory, if any do.
    steered: Option<Family>,
    /// Reads its pools, of a backend that is made of them and can tell; for the footprint pass.
    pub pools: Option<PoolReader>,
    /// Family of the library that reports the options, such as [`GLIBC`]; empty where none does.
    pub family: &'static str,
    /// Says what it holds, of a library that can tell what is its own; for the footprint pass.
    pub holds: Option<Holds>,
    /// Requests of more bytes go to the C library's heap; null where none does.
    pub own_bytes_max: Option<u64>,
    /// Whether no two threads may be in it at once.
    pub one_thread_at_a_time: bool,
    /// Why it needs real time, if virtual time does not reach all that it does.
    pub real_time: Option<&'static str>,
}

impl Ready {
    /// An allocator that is its own, has no pools to read, and does not tell what it holds.
    pub fn new(
        entry: Entry,
        version: impl Fn() -> String + Send + Sync + 'static,
        options: impl Fn() -> BTreeMap<String, String> + Send + Sync + 'static,
        release: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (version, options, release) = (Box::new(version), Box::new(options), Arc::new(release));
        Self {
            entry,
            others: &[],
            promise: Promise::ALL,
            version,
            options,
            release,
            steered: None,
            pools: None,
            family: "",
            holds: None,
            own_bytes_max: None,
            one_thread_at_a_time: false,
            real_time: None,
        }
    }

    /// Its entry points for a domain.
    #[must_use]
    pub fn entry_for(&self, domain: Domain) -> Entry {
        self.others.iter().find(|(other, _)| *other == domain).map_or(self.entry, |(_, entry)| *entry)
    }
}

/// Every backend.
pub const ALL: &[Backend] = &[
    pool::BACKEND,
    system::BACKEND,
    mimalloc::BACKEND,
    jemalloc::BACKEND,
    pool_tuned::BACKEND,
    cpython::BACKEND,
    cpython::MIMALLOC,
    library::BACKEND,
    wheel::BACKEND,
    numpy_cache::BACKEND,
    null::BACKEND,
    null::LOOP,
    system::AGAIN,
    hooks::POOL,
    hooks::MALLOC,
    planted::TEN_NS,
    planted::TEN_PERCENT,
    planted::SIXTY_FOUR_MIB,
];

/// Key of the C library's own allocator.
pub const LIBC_KEY: &str = "system";

/// What the process's `malloc` holds, whoever put it there; none of a preloaded library that cannot tell.
#[must_use]
pub fn libc_holds() -> Option<Holds> {
    system::holds()
}

/// Key of the floor at which nothing is called: decode and slot table alone.
pub const LOOP_KEY: &str = "loop";

/// The backend of `KEY` or `KEY:ARGUMENT`, and the argument; empty without one.
#[must_use]
pub fn find(key: &str) -> Option<(&'static Backend, &str)> {
    let (key, argument) = key.split_once(':').unwrap_or((key, ""));
    ALL.iter().find(|backend| backend.key == key).map(|backend| (backend, argument))
}

/// The key of whose memory a block is in: what stands behind a cache.
#[must_use]
pub fn behind(key: &str) -> &str {
    key.split_once(':').filter(|(name, _)| *name == CACHED_KEY).map_or(key, |(_, behind)| behind)
}

/// A key without the folders of the file in it: results name no machine.
#[must_use]
pub fn shown_key(key: &str) -> String {
    match key.split_once(':') {
        Some((LIBRARY_KEY, path)) => format!("{LIBRARY_KEY}:{}", path.rsplit('/').next().unwrap_or_default()),
        Some((CACHED_KEY, behind)) => format!("{CACHED_KEY}:{}", shown_key(behind)),
        _ => key.to_owned(),
    }
}

impl Backend {
    /// Whether it keeps the contract of [`Entry`].
    ///
    /// # Errors
    /// The first broken promise, as a sentence. The floor backends keep none and are not asked.
    pub fn check(&self, argument: &str) -> Result<(), String> {
        if self.role == Role::Floor {
            return Ok(());
        }
        let ready = (self.prepare)(&Need { argument: argument.to_owned(), ..Need::default() })?;
        let entries = std::iter::once(&ready.entry).chain(ready.others.iter().map(|(_, entry)| entry));
        for entry in entries {
            // SAFETY: the entry points belong to one working allocator. Those that may not be called from two threads
            // at once are called by one test or none, and the worker has one thread.
            unsafe { crate::heap::check(entry, ready.promise) }?;
        }
        Ok(())
    }

    /// What the library says of itself, in the state in which a worker calls it. `argument` as in [`Need`].
    ///
    /// # Errors
    /// As [`Backend::prepare`].
    pub fn facts(&self, argument: &str) -> Result<AllocatorFacts, String> {
        let ready = (self.prepare)(&Need { argument: argument.to_owned(), ..Need::default() })?;
        let key = if argument.is_empty() { self.key.to_owned() } else { format!("{}:{argument}", self.key) };
        let (family, version, options) = (ready.family.to_owned(), (ready.version)(), (ready.options)());
        Ok(AllocatorFacts { key, family, version, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contestant_and_instrument_keeps_the_contract() {
        let mut checked = 0;
        for backend in ALL.iter().filter(|b| !matches!(b.role, Role::Floor | Role::OptIn | Role::ByArgument)) {
            backend.check("").unwrap_or_else(|broken| panic!("{}: {broken}", backend.key));
            checked += 1;
        }
        assert_eq!(checked, 10);
    }

    #[test]
    fn a_broken_allocator_is_found_out() {
        /// Hands out blocks that start within the last one.
        unsafe extern "C" fn overlapping(size: usize) -> *mut libc::c_void {
            static ROOM: [std::sync::atomic::AtomicU64; 1 << 20] =
                [const { std::sync::atomic::AtomicU64::new(0) }; 1 << 20];
            static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
            let at = NEXT.fetch_add(2 + size / 32 * 2, std::sync::atomic::Ordering::Relaxed) % 1_024;
            (ROOM[at..].as_ptr() as usize).next_multiple_of(16) as *mut libc::c_void
        }
        unsafe extern "C" fn anything(_: *mut libc::c_void) -> usize {
            usize::MAX
        }
        unsafe extern "C" fn nothing(_: *mut libc::c_void) {}
        unsafe extern "C" fn forgetful(_: *mut libc::c_void, size: usize) -> *mut libc::c_void {
            // SAFETY: as far as its caller can tell.
            unsafe { overlapping(size) }
        }
        let (system, _) = find("system").expect("in the table");
        let system = (system.prepare)(&Need::default()).expect("it needs nothing").entry;
        let broken = Entry { malloc: overlapping, realloc: forgetful, free: nothing, usable_size: anything, ..system };
        // SAFETY: the blocks lie in a static of 8 MiB, with room for the largest request behind every address.
        let found = unsafe { crate::heap::check(&broken, Promise::ALL) };
        assert!(found.is_err_and(|broken| broken.contains("overlaps")));
    }

    #[test]
    fn keys_are_unique_and_versions_come_from_the_libraries() {
        for (i, backend) in ALL.iter().enumerate() {
            assert!(ALL[..i].iter().all(|other| other.key != backend.key), "{} twice", backend.key);
            let is_there = !matches!(backend.role, Role::OptIn | Role::ByArgument);
            assert!(!is_there || backend.facts("").is_ok_and(|facts| !facts.version.is_empty()), "{}", backend.key);
        }
        for (key, start) in [("mimalloc", "3."), ("jemalloc", "5."), ("system", "glibc 2.")] {
            let (backend, argument) = find(key).expect("in the table");
            assert!(backend.facts(argument).is_ok_and(|f| f.version.starts_with(start)), "{key}");
        }
        // This process was started for no interpreter.
        let (cpython, _) = find(CPYTHON_KEY).expect("in the table");
        assert!(cpython.facts("").is_err_and(|reason| reason.contains("no interpreter")));
        assert_eq!(
            find("pool:of/what:ever").map(|(backend, argument)| (backend.key, argument)),
            Some(("pool", "of/what:ever"))
        );
    }
}
