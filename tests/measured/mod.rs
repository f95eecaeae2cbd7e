//! What one child of a prepared measurement observed.
//!
//! Invariant: a child that fails fails the test, with its own sentence.

use pyalloc_bench::measure::{Cell, Prepared};
use pyalloc_bench::run::{Footprint, Observation, Outcome, Pass};

/// One pass of the first workload under a configuration.
pub(crate) fn observe(prepared: &Prepared, config: usize, pass: Pass) -> Observation {
    let cell = Cell { workload: 0, config, pass, block: 0, padding_bytes: 0 };
    match prepared.measure(&cell).outcome {
        Outcome::Ok(observation) => observation,
        Outcome::Failed { stage, reason } => panic!("{} {pass:?}, {stage}: {reason}", prepared.configs[config].name),
    }
}

/// Its memory.
pub(crate) fn footprint(prepared: &Prepared, config: usize) -> Footprint {
    let Observation::Footprint(seen) = observe(prepared, config, Pass::Footprint) else { panic!("another pass") };
    *seen
}
