//! Recordings of nothing but what CPython's pools are asked for: the mem and obj events of a workload.
//!
//! Invariant: events keep their order and marks their places; only slots are numbered anew.

use pyalloc_bench::workload::{OpenTrace, Workload, trace_sentence};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use trace::{Domain, Event, EventKind, TraceError, TraceReader, TraceWriter, WriteOptions};

/// Read at once and thrown away: no column but what is replayed, and little compression.
const OPTIONS: WriteOptions = WriteOptions { level: 1, time: false, sites: false };

/// Writes the mem and obj events of a workload to a file.
///
/// # Errors
/// A sentence when the recording cannot be read or the file not written.
pub(crate) fn write(workload: &Workload, to: &Path) -> Result<(), String> {
    let named = |reason: String| format!("{}: {reason}", workload.source.describe());
    let mut trace = OpenTrace::open(&workload.source).map_err(named)?;
    let from = trace.rewound().map_err(named)?;
    let file = File::create(to).map_err(|e| format!("{} cannot be written: {e}. Make room for it.", to.display()))?;
    copy(TraceReader::new(from).map_err(|e| named(trace_sentence(&e)))?, file).map_err(|e| named(trace_sentence(&e)))
}

fn copy<R: std::io::Read>(reader: TraceReader<R>, file: File) -> Result<(), TraceError> {
    let mut metadata = reader.metadata().clone();
    metadata.notes.push("only the events of the mem and obj domains".to_owned());
    // What the program's process was measured at is not true of a part of its requests.
    metadata.mark_readings.clear();
    metadata.process = None;
    let mut writer = TraceWriter::new(BufWriter::new(file), &metadata, OPTIONS)?;
    // The slot of each kept block by its slot in the whole recording.
    let mut slots: Vec<Option<u32>> = Vec::new();
    for event in reader {
        let Event { time, kind } = event?;
        let kept = match kind {
            EventKind::Alloc { slot, domain, .. } => {
                let place = slot as usize;
                slots.resize(slots.len().max(place + 1), None);
                slots[place] = matches!(domain, Domain::Mem | Domain::Obj).then(|| writer.next_slot());
                slots[place].map(|slot| with_slot(kind, slot))
            }
            EventKind::Realloc { slot, .. } => slots[slot as usize].map(|slot| with_slot(kind, slot)),
            EventKind::Free { slot } => slots[slot as usize].take().map(|slot| with_slot(kind, slot)),
            EventKind::Mark { .. } => Some(kind),
            _ => None,
        };
        if let Some(kind) = kept {
            writer.push(Event { time, kind })?;
        }
    }
    writer.finish().map(|_| ())
}

/// The same event on another slot.
fn with_slot(mut kind: EventKind, new: u32) -> EventKind {
    if let EventKind::Alloc { slot, .. } | EventKind::Free { slot } | EventKind::Realloc { slot, .. } = &mut kind {
        *slot = new;
    }
    kind
}
