//! The input contract: what a recording of a program's allocations is, and how it is kept.
//!
//! Invariant: no `unsafe`; arbitrary bytes never panic and never make a reader allocate without bound.
#![forbid(unsafe_code)]

mod block;
mod cut;
mod directive;
mod error;
mod event;
mod format;
pub mod image;
mod ledger;
mod metadata;
mod reader;
mod shape;
pub mod slots;
pub mod text;
mod varint;
mod writer;

pub use cut::cut;
pub use directive::{Directive, DirectiveCall};
pub use error::{Fault, Part, TraceError};
pub use event::*;
pub use format::{BLOCK_EVENTS, TIME_UNIT_TICKS, VERSION};
pub use metadata::*;
pub use reader::{TraceReader, read_footer, validate};
pub use shape::*;
pub use slots::SlotAllocator;
pub use writer::{TraceWriter, WriteOptions};
