//! What the events of a trace say in a screenful: sizes, lifetimes, deaths, collections, the live curve.
//!
//! Invariant: computed in one streaming pass in memory bounded by live blocks.

mod pass;
mod steps;

pub use pass::shape;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most evenly spaced points of the live curve; a trace of fewer events has one for each.
pub const SHAPE_POINTS: u64 = 512;

/// Most collections whose spans are kept.
pub const COLLECTIONS_MAX: usize = 1 << 16;

/// Upper bounds in bytes, inclusive, of the sizes that allocators' settings tell apart; the last is open. 512 is where
/// CPython's pools end. The others are the largest requests that stay below a threshold of glibc, 64 KiB, 128 KiB and
/// 32 MiB, each less the 24 bytes that a chunk's head and its rounding may take.
pub const STEP_BOUNDS: [u64; 5] = [512, 65_512, 131_048, 33_554_408, u64::MAX];

/// Requests of one domain between two of [`STEP_BOUNDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SizeStep {
    /// Allocations and reallocations, by the new size, in `steady` (in everything without that mark).
    pub requests: u64,
    /// Bytes that these asked for.
    pub bytes: u64,
    /// Live bytes at the peak of [`Shape::live_bytes_peak_steady`].
    pub live_bytes_peak: u64,
    /// Live bytes at `drained`; without that mark at `finalising`, else after the last event.
    pub live_bytes_rest: u64,
}

/// A summary of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Live requested bytes and blocks, at evenly spaced events.
    pub live: Vec<LivePoint>,
    /// Collections: first event, last event, generation. Of more than [`COLLECTIONS_MAX`], some.
    pub collections: Vec<(u64, u64, u8)>,
    /// How many there were, if these are not all.
    #[serde(skip_serializing_if = "is_none_more")]
    pub collections_all: u64,
    /// Frees outside collections: the reference count fell to zero (or C code freed).
    pub deaths_by_reference: u64,
    /// Frees inside collections, on the collecting thread.
    pub deaths_by_collector: u64,
    /// Bytes of the same.
    pub bytes_by_collector: u64,
    /// Allocations by ceiling power of two of their size: `[i]` counts sizes up to `2^i` and above `2^(i-1)`.
    pub sizes: Vec<u64>,
    /// Bytes of the same.
    pub sizes_bytes: Vec<u64>,
    /// Freed blocks by lifetime in allocations made since, ceiling power of two.
    pub lifetimes: Vec<u64>,
    /// Calls per phase, indexed by [`crate::Phase`].
    pub calls_by_phase: [u64; 4],
    /// Event that begins each phase.
    pub phase_events: [Option<u64>; 4],
    /// Live requested bytes at `finalising` (or the last event).
    pub live_bytes_end: u64,
    /// Live requested bytes at `drained`, if marked.
    pub live_bytes_drained: Option<u64>,
    /// Most live requested bytes within `steady` (within everything without the mark).
    pub live_bytes_peak_steady: u64,
    /// Calls of `steady` by domain name.
    pub steady_calls_by_domain: BTreeMap<String, u64>,
    /// Bytes requested in `steady` by domain name.
    pub steady_bytes_by_domain: BTreeMap<String, u64>,
    /// Live bytes by domain name at the peak of `live_bytes_peak_steady`.
    pub peak_bytes_by_domain: BTreeMap<String, u64>,
    /// Allocations up to 512 bytes: those that the pool serves in the Python domains.
    pub small_allocs: u64,
    /// Reallocations that shrink or keep the size.
    pub reallocs_not_growing: u64,
    /// Blocks freed by a thread other than the one that allocated them.
    pub frees_cross_thread: u64,
    /// Threads seen.
    pub threads: u32,
    /// By domain name, requests between each two of [`STEP_BOUNDS`]. Empty in summaries from before this was counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps_by_domain: BTreeMap<String, [SizeStep; STEP_BOUNDS.len()]>,
    /// Threads that asked for what the C library's `malloc` serves under CPython's pools: everything but
    /// Arrow's buffers
    /// and Python's own requests of up to 512 bytes. 0 in summaries from before this was counted.
    #[serde(skip_serializing_if = "is_zero")]
    pub malloc_threads: u32,
    /// Most of these at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub malloc_threads_at_once: u32,
}

impl Shape {
    /// How many collections there were.
    #[must_use]
    pub fn collections_total(&self) -> u64 {
        self.collections_all.max(self.collections.len() as u64)
    }
}

/// Serde wants a function of a reference.
const fn is_none_more(n: &u64) -> bool {
    *n == 0
}

/// Serde wants a function of a reference.
const fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A point of the live curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePoint {
    /// Event index.
    pub event: u64,
    /// Requested bytes live after it.
    pub bytes: u64,
    /// Blocks live after it.
    pub blocks: u64,
}
