#![doc = include_str!("../README.md")]
//!
//! # Vocabulary
//! - A *block* is what a request gets. Requests of 1 to 512 bytes are served in 32 *classes*, 16 bytes apart.
//! - A *pool* is 16 KiB of blocks of one class, aligned to its size: an address leads to its pool's header by a mask.
//! - An *arena* is 1 MiB of memory that the arena source gave, cut into 64 pools (63 if it is not aligned to a pool).
//! - The *raw allocator* serves everything else: requests of 0 bytes, of more than 512 bytes, and the tables in here.
//!
//! The [`guide`] tells the whole policy, and what it costs, in these words.
//!
//! # Layers, bottom first; a module uses only those above it in this list
//! - `source`: the two seams to the outside.
//! - `pool` and `geometry`: one pool and the sizes of everything.
//! - `radix`: whether an address is ours.
//! - `arena`: which arena gives the next pool, and when an arena goes back.
//! - `allocator`: allocate, reallocate, free.
//! - `statistics`, `check`: where every byte is; whether everything holds.
//! - `tuned`: another allocator of the same structure, faster, with policies that CPython's does not have.
//! - `debug`: CPython's debug hooks, over this allocator or any raw one.
//! - `gil`: a cell that makes a process-wide allocator out of it.
//! - `global`: several of them, with locks, as the allocator of a Rust program.
//!
//! # Where it departs from CPython
//! - [`Allocator`] is not thread-safe and there is no interpreter: the caller's lock stands for the GIL.
//! - The address map remembers the leaf that it used last, and answers with one comparison; the answers are the same.
//! - Lists of used pools end in null instead of running in a ring through a sentinel; the order is the same.
//! - [`Before310`] finds an address's owner by the address map too, not by reading memory that may not be its own.

mod allocator;
mod arena;
mod check;
mod debug;
mod geometry;
mod gil;
mod global;
pub mod guide;
mod pool;
mod radix;
mod source;
mod statistics;
mod tuned;

pub use allocator::Allocator;
pub use arena::ArenaCounts;
pub use check::{Price, Violation};
pub use debug::{DebugHooks, Domain, Misuse, MisuseKind};
pub use geometry::{Before310, Current, Geometry};
pub use gil::GilCell;
pub use global::GlobalPool;
pub use radix::MapStatistics;
pub use source::{ArenaSource, LibcRaw, MappedArenas, RawAllocator};
pub use statistics::{ArenaOccupancy, ClassStatistics, Statistics};
pub use tuned::{Tuned, policy};
