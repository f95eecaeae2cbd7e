//! What the recorded process held at its marks: what a replay of the configuration that it was recorded under has to
//! come out at.
//!
//! Invariant: taken from a trace's metadata alone, in the order in which a replay meets the marks.

use serde::{Deserialize, Serialize};
use trace::{Metadata, Phase};

/// Name of the marks that the recorder makes where the process holds more than before.
pub const READING: &str = "reading";

/// The recorded process at one mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedMark {
    /// Name of the mark; [`READING`] where the process held more than ever before.
    pub name: String,
    /// Resident anonymous memory less what no allocator handed out, bytes; null where it was not read.
    pub heap_bytes: Option<u64>,
    /// Of which libraries mapped for themselves, which no replay has, bytes.
    pub mapped_bytes: u64,
}

/// Every mark that a replay meets. Empty for a trace without readings.
#[must_use]
pub fn recorded_marks(metadata: &Metadata) -> Vec<RecordedMark> {
    let marks: Vec<RecordedMark> = metadata
        .replayed_marks()
        .map(|reading| RecordedMark {
            name: metadata.marks.get(reading.mark as usize).cloned().unwrap_or_default(),
            heap_bytes: reading.memory.map(|memory| {
                memory.rss_anon_bytes.saturating_sub(memory.relocated_bytes).saturating_sub(memory.stack_bytes)
            }),
            mapped_bytes: reading
                .mapped_bytes
                .iter()
                .flat_map(|by_module| by_module.values())
                .fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)),
        })
        .collect();
    if marks.iter().any(|mark| mark.heap_bytes.is_some()) { marks } else { Vec::new() }
}

impl RecordedMark {
    /// Whether the mark begins this phase.
    #[must_use]
    pub fn begins(&self, phase: Phase) -> bool {
        self.name == phase.name()
    }
}
