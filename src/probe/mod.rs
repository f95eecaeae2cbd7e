//! What a worker can learn about itself while sealed: clocks, exact memory, faults and CPU time.
//!
//! Invariant: nothing here allocates, on any heap, and a reading never faults an OS page of its own.

pub mod clock;
pub mod memory;
pub(crate) mod sys;
pub mod usage;
pub(crate) mod virtual_time;
