//! From trace to replay image, column by column, at a rate that makes compiling cheaper than replaying.
//!
//! Invariant: it accepts exactly the traces that [`crate::validate`] accepts, times and call sites apart, which it
//! does not read; so an image that was compiled without an error is safe to replay unchecked.

use super::state::{State, Stop};
use super::{GROUP_OPS_MAX, ImageSink, ImageSummary};
use crate::block::decode::{BlockReader, Positions};
use crate::error::TraceError;
use crate::ledger::{Tables, check_totals};
use std::io::{self, Read};

/// Compiles a trace into a replay image.
///
/// Memory is bounded by live blocks and one block of events. A fork has no op, nor has a phase mark that changes
/// nothing because its phase or a later one has begun.
///
/// # Errors
/// [`TraceError::Image`] from the sink; otherwise whatever is wrong with the trace. Windows committed before an error
/// must not be replayed.
pub fn compile(from: impl Read, sink: &mut dyn ImageSink) -> Result<ImageSummary, TraceError> {
    let mut compiler = Compiler::new(from)?;
    loop {
        let window = sink.window().map_err(TraceError::Image)?;
        if window.len() < GROUP_OPS_MAX {
            let text = format!("a window of {} ops is too small, {GROUP_OPS_MAX} are needed", window.len());
            return Err(TraceError::Image(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let (filled, is_over) = compiler.fill(window)?;
        if filled > 0 {
            sink.commit(filled).map_err(TraceError::Image)?;
        }
        if is_over {
            return Ok(compiler.state.summary());
        }
    }
}

/// A trace that is being compiled, stopped wherever a window was full.
struct Compiler<R: Read> {
    blocks: BlockReader<R>,
    state: State,
    /// Where the current block goes on: the event, and the place in each column.
    event: usize,
    positions: Positions,
}

impl<R: Read> Compiler<R> {
    fn new(from: R) -> Result<Self, TraceError> {
        let (blocks, metadata) = BlockReader::new(from, false)?;
        let state = State::new(Tables::of(&metadata)?);
        Ok(Self { blocks, state, event: 0, positions: Positions::default() })
    }

    /// Fills a window from its start; gives the number of ops, and whether they are the last ones.
    fn fill(&mut self, window: &mut [u64]) -> Result<(usize, bool), TraceError> {
        let mut filled = 0;
        loop {
            if self.event == self.blocks.block().ops().len() {
                if let Some(totals) = self.blocks.next_block()? {
                    check_totals(&self.state.totals(filled as u64), &totals)?;
                    self.state.end(filled as u64);
                    return Ok((filled, true));
                }
                self.event = 0;
                self.positions = Positions::default();
            }
            filled += self.fill_from_block(&mut window[filled..], filled as u64)?;
            if window.len() - filled < GROUP_OPS_MAX {
                self.state.end_window(filled as u64);
                return Ok((filled, false));
            }
        }
    }

    /// Compiles the current block until it ends or the window is full.
    fn fill_from_block(&mut self, window: &mut [u64], before: u64) -> Result<usize, TraceError> {
        let block = self.blocks.block();
        let mut cursors = block.cursors_at(self.positions);
        let ops = &block.ops()[self.event..];
        let result = if block.by_age {
            self.state.run::<true>(ops, &mut cursors, window, before)
        } else {
            self.state.run::<false>(ops, &mut cursors, window, before)
        };
        let (events, filled) = result.map_err(|stop| match stop {
            Stop::Column => self.blocks.damaged("an operation is unknown, or a column ends before its events do"),
            Stop::Fault(event, fault) => TraceError::Impossible { event, fault },
        })?;
        self.event += events;
        self.positions = block.positions(&cursors);
        if self.event == block.ops().len() && !cursors.are_done(false, false) {
            return Err(self.blocks.damaged("a column goes on after its events"));
        }
        Ok(filled)
    }
}
