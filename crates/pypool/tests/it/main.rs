//! Tests of the pool allocator through its public interface.
//!
//! Arenas come from numbered slots at fixed distances, so a block's address is a pair (arena ordinal, offset) that can
//! be worked out by hand or by a simpler model.
#![allow(clippy::unwrap_used, reason = "tests")]

mod caller;
mod calls;
mod contents;
mod debug;
mod failures;
mod naive;
mod policy;
mod shadow;
mod sources;
mod statistics;
mod subject;
mod tuned;
