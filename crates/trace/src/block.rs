//! A block: up to 64 Ki events, column by column.
//!
//! Invariant: what [`encode`] writes, [`decode`] reads back; what it reads, it has bounded first.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod history;
