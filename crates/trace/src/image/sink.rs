//! Where a replay image goes: windows of ops, one after another.
//!
//! Invariant: a window is filled from its start and committed once, before the next one is asked for.

use super::GROUP_OPS_MAX;
use std::io;

/// Takes a replay image, whole or in windows.
pub trait ImageSink {
    /// The next empty window, at least [`GROUP_OPS_MAX`] ops long.
    ///
    /// # Errors
    /// When there is no place for more.
    fn window(&mut self) -> io::Result<&mut [u64]>;

    /// Says that the window last given holds `ops` ops from its start; the rest of it has no meaning.
    ///
    /// # Errors
    /// When they cannot be passed on.
    fn commit(&mut self, ops: usize) -> io::Result<()>;
}

/// Collects the image in memory, through windows of a chosen length.
#[derive(Debug)]
pub struct VecSink {
    window: Vec<u64>,
    ops: Vec<u64>,
    windows: Vec<usize>,
}

impl VecSink {
    /// Windows of `window_ops` ops, at least [`GROUP_OPS_MAX`].
    #[must_use]
    pub fn new(window_ops: usize) -> Self {
        Self { window: vec![0; window_ops.max(GROUP_OPS_MAX)], ops: Vec::new(), windows: Vec::new() }
    }

    /// Every op so far.
    #[must_use]
    pub fn ops(&self) -> &[u64] {
        &self.ops
    }

    /// Ops of each window so far.
    #[must_use]
    pub fn windows(&self) -> &[usize] {
        &self.windows
    }
}

impl ImageSink for VecSink {
    fn window(&mut self) -> io::Result<&mut [u64]> {
        Ok(&mut self.window)
    }

    fn commit(&mut self, ops: usize) -> io::Result<()> {
        self.ops.extend_from_slice(&self.window[..ops]);
        self.windows.push(ops);
        Ok(())
    }
}
