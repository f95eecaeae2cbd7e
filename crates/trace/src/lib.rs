//! The input contract: what a recording of a program's allocations is, and how it is kept.
//!
//! Invariant: no `unsafe`; arbitrary bytes never panic and never make a reader allocate without bound.
#![forbid(unsafe_code)]

mod event;
pub mod image;
mod metadata;
mod shape;

pub use event::*;
pub use metadata::*;
pub use shape::*;
