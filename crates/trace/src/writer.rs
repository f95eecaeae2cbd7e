//! Writes a trace, event by event, in memory bounded by live blocks and one block of events.
//!
//! Invariant: every event was checked before it was written, so what it wrote, [`crate::TraceReader`] accepts.

use crate::block::encode::BlockBuilder;
use crate::error::TraceError;
use crate::format::{END_MAGIC, FLAG_SITES, FLAG_TIME, HEADER_BYTES, JSON_BYTES_MAX, MAGIC, TAG_FOOTER, VERSION};
use crate::ledger::{Ledger, Tables};
use crate::{Event, Metadata, Totals};
use std::io::Write;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Whether the time column is kept, in units of [`crate::TIME_UNIT_TICKS`].
    pub time: bool,
    /// Whether call sites are kept.
    pub sites: bool,
}

impl Default for WriteOptions {
    /// Time and sites at a level that keeps up with a recording.
    fn default() -> Self {
        Self { level: 6, time: true, sites: true }
    }
}

impl WriteOptions {
    /// For traces that are kept: smallest, slow to write.
    pub const BUNDLED: Self = Self { level: 19, time: true, sites: true };
}

/// Writes a trace.
///
/// A trace that was not ended by [`Self::finish`] has no footer, and every reader refuses it.
pub struct TraceWriter<W: Write> {
    to: W,
    ledger: Ledger,
    block: BlockBuilder,
    /// What the readings are checked against at the end.
    metadata: Metadata,
}

impl<W: Write> std::fmt::Debug for TraceWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceWriter").field("events", &self.ledger.events()).finish_non_exhaustive()
    }
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header. `metadata.totals` is written as it is; the true totals go to the footer.
    ///
    /// # Errors
    /// [`TraceError::Metadata`] when its first marks are not the phases, or it is larger than 16 MiB as JSON;
    /// [`TraceError::Io`].
    pub fn new(mut to: W, metadata: &Metadata, options: WriteOptions) -> Result<Self, TraceError> {
        let tables = Tables::of(metadata)?;
        write_header(&mut to, metadata, options)?;
        let block = BlockBuilder::new(options.level, options.time, options.sites)?;
        Ok(Self { to, ledger: Ledger::new(tables), block, metadata: metadata.without_sites() })
    }

    /// The slot that the next allocation must name.
    #[must_use]
    pub fn next_slot(&self) -> u32 {
        self.ledger.slots.peek()
    }

    /// Events taken so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.ledger.events()
    }

    /// Adds an event. A time earlier than the one before is raised to it.
    ///
    /// # Errors
    /// [`TraceError::Impossible`] for an event that cannot have happened here: it is not written, and the writer can
    /// go on. [`TraceError::Io`].
    pub fn push(&mut self, event: Event) -> Result<(), TraceError> {
        let index = self.ledger.events();
        self.ledger.apply(&event.kind).map_err(|fault| TraceError::Impossible { event: index, fault })?;
        self.block.push(&event);
        if self.block.is_full() {
            self.block.write(&mut self.to)?;
        }
        Ok(())
    }

    /// Writes what is left and the footer, and flushes.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn finish(mut self) -> Result<(W, Totals), TraceError> {
        if !self.block.is_empty() {
            self.block.write(&mut self.to)?;
        }
        let totals = self.ledger.totals();
        self.metadata.check_readings(totals.events).map_err(TraceError::Metadata)?;
        let json = serde_json::to_vec(&totals).map_err(|error| TraceError::Metadata(error.to_string()))?;
        let mut foot = vec![TAG_FOOTER, 0, 0, 0];
        foot.extend_from_slice(&(json.len() as u32).to_le_bytes());
        foot.extend_from_slice(&json);
        self.to.write_all(&foot)?;
        self.to.write_all(&crc32fast::hash(&foot).to_le_bytes())?;
        self.to.write_all(&(json.len() as u32).to_le_bytes())?;
        self.to.write_all(&END_MAGIC)?;
        self.to.flush()?;
        Ok((self.to, totals))
    }
}

/// Writes signature, version, flags, metadata and their checksum.
pub(crate) fn write_header(to: &mut impl Write, metadata: &Metadata, options: WriteOptions) -> Result<(), TraceError> {
    let json = serde_json::to_vec(metadata).map_err(|error| TraceError::Metadata(error.to_string()))?;
    if json.len() > JSON_BYTES_MAX as usize {
        return Err(TraceError::Metadata(format!("it has {} bytes, at most {JSON_BYTES_MAX} fit", json.len())));
    }
    let flags = if options.time { FLAG_TIME } else { 0 } | if options.sites { FLAG_SITES } else { 0 };
    let mut head = Vec::with_capacity(HEADER_BYTES + json.len());
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&flags.to_le_bytes());
    head.extend_from_slice(&(json.len() as u32).to_le_bytes());
    head.extend_from_slice(&json);
    to.write_all(&head)?;
    to.write_all(&crc32fast::hash(&head).to_le_bytes())?;
    Ok(())
}
