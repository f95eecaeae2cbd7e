//! The floor at which nothing is called and no block is touched: decode and slot table alone.
//!
//! Invariant: it runs the very loop of the throughput pass and notes down the same figures.

use super::{Heap, Pass, ThroughputPass};

/// A throughput pass that calls nothing.
pub(crate) struct Floor(pub(crate) ThroughputPass);

impl Pass for Floor {
    const CALLS: bool = false;

    fn mark(&mut self, mark: u32, op: u64, heap: &mut Heap) -> bool {
        self.0.mark(mark, op, heap)
    }

    fn pause(&mut self) {
        self.0.pause();
    }

    fn resume(&mut self) {
        self.0.resume();
    }

    fn finish(&mut self, ops: u64, heap: &mut Heap) {
        self.0.finish(ops, heap);
    }
}
