//! Record a Python program's allocations once; replay them on every allocator it could run on.
//!
//! The modules in the order in which data flows through them. The measuring half computes no statistic and draws
//! nothing; the reading half imports nothing of the measuring half; they share `units`, `run` and the `trace` crate.

pub mod run;
pub mod units;

// The measuring half.
pub mod backend;
pub mod heap;
pub mod measure;
pub mod probe;
pub mod replay;
pub mod worker;
pub mod workload;

// The reading half.
pub mod analysis;
pub mod chart;
pub mod metric;
pub mod report;

pub mod cli;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
