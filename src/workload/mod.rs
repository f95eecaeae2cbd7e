//! Which recordings there are: the bundled ones of a clone, the small cuts that the binary carries, a user's own trace.
//!
//! Invariant: finding a workload reads definitions only; the trace itself is read, and held against its checksum and
//! totals, by the process that compiles it.

mod definition;
mod load;
mod open;

pub use definition::*;
pub use load::*;
pub use open::*;
