//! What the events of a trace say in a screenful: sizes, lifetimes, deaths, collections, the live curve.
//!
//! Invariant: computed in one streaming pass in memory bounded by live blocks.

mod pass;

pub use pass::shape;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most evenly spaced points of the live curve; a trace of fewer events has one for each.
pub const SHAPE_POINTS: u64 = 512;

/// A summary of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Live requested bytes and blocks, at evenly spaced events.
    pub live: Vec<LivePoint>,
    /// Collections: first event, last event, generation.
    pub collections: Vec<(u64, u64, u8)>,
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
