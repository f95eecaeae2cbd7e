//! Makes a shorter trace: the live set at the `steady` mark, then the first events after it.
//!
//! Invariant: a cut's blocks at its `steady` mark are those of the original there, in slot order, with their sizes,
//! domains and alignments.

use crate::error::TraceError;
use crate::ledger::{MarkEffect, begins_phase};
use crate::writer::write_header;
use crate::{
    Directive, DirectiveCall, Event, EventKind, Metadata, Phase, Totals, TraceReader, TraceWriter, WriteOptions,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// Writes a cut of the trace `from` to `to`.
///
/// The cut begins with the settings of the allocator that hold at the `steady` mark, then with allocations that
/// recreate the live set there, in slot order, as its start-up.
/// The mark and the first `steady_events` events after it follow, fewer when the phase ends before that, and a
/// `finalising` mark. A reallocated block appears with its last size and the call site that allocated it. What the
/// original's process was measured at (mark readings, its own memory) does not fit a cut and is left out. Memory is
/// bounded by live blocks and the bytes of the cut.
///
/// # Errors
/// [`TraceError::NoSteady`] for a trace without that mark. Any other [`TraceError`] of reading the whole trace, or of
/// writing: a cut of a damaged trace would pass for a recording.
pub fn cut(
    from: impl Read,
    mut to: impl Write,
    steady_events: u64,
    options: WriteOptions,
) -> Result<Totals, TraceError> {
    let mut reader = TraceReader::new(from)?;
    let (live, before, time) = read_to_steady(&mut reader)?;
    let mut metadata = reader.metadata().clone();
    metadata.mark_readings.clear();
    metadata.process = None;
    if metadata.marks.len() < Phase::ALL.len() {
        metadata.marks = Metadata::phase_marks();
    }
    let mut cutter = Cutter::new(&metadata, WriteOptions { time: options.time && reader.has_times(), ..options })?;
    cutter.prologue(live, time)?;
    let mut kept = 0;
    for event in reader.by_ref().take(usize::try_from(steady_events).unwrap_or(usize::MAX)) {
        let event = event?;
        if !cutter.event(event)? {
            break;
        }
        kept += 1;
    }
    for event in reader {
        event?;
    }
    describe(&mut metadata, before, kept);
    cutter.finish(&mut metadata, &mut to)
}

/// Puts into the metadata what this is a cut of.
fn describe(metadata: &mut Metadata, before: u64, kept: u64) {
    metadata.notes.push(format!(
        "cut: the blocks live at the steady mark, then {kept} events from event {before} on of a `{}` trace",
        metadata.source
    ));
    "cut".clone_into(&mut metadata.source);
    env!("CARGO_PKG_VERSION").clone_into(&mut metadata.source_version);
    metadata.cut = Some((before, kept));
}

/// A block as a cut's start-up allocates it.
#[derive(Clone, Copy)]
struct Kept {
    /// Its allocation, with the size and touched bytes it has now.
    alloc: EventKind,
    is_advised: bool,
}

/// The live blocks by slot, what the program set in its allocator, and the thread that runs.
#[derive(Default)]
struct LiveSet {
    blocks: Vec<Option<Kept>>,
    /// By directive and key.
    settings: BTreeMap<(Directive, i16), DirectiveCall>,
    thread: u32,
}

impl LiveSet {
    fn apply(&mut self, kind: &EventKind) {
        match *kind {
            EventKind::Alloc { slot, .. } => {
                let kept = Some(Kept { alloc: *kind, is_advised: false });
                match self.blocks.get_mut(slot as usize) {
                    Some(place) => *place = kept,
                    None => self.blocks.push(kept),
                }
            }
            EventKind::Free { slot } => self.blocks[slot as usize] = None,
            EventKind::Realloc { slot, size: now, touched: known, .. } => {
                if let Some(Kept { alloc: EventKind::Alloc { size, touched, zeroed, .. }, .. }) =
                    &mut self.blocks[slot as usize]
                {
                    (*size, *touched, *zeroed) = (now, known, false);
                }
            }
            EventKind::Advise { slot } => {
                if let Some(kept) = &mut self.blocks[slot as usize] {
                    kept.is_advised = true;
                }
            }
            EventKind::ThreadSwitch { thread } => self.thread = thread,
            EventKind::Direct(call) if call.directive.is_setting() => {
                self.settings.insert((call.directive, call.key), call);
            }
            _ => {}
        }
    }
}

/// Reads up to the `steady` mark and past it: the live set there, the number of events so far, the mark's time.
fn read_to_steady<R: Read>(reader: &mut TraceReader<R>) -> Result<(LiveSet, u64, u64), TraceError> {
    let mut live = LiveSet::default();
    for (before, event) in (1..).zip(reader) {
        let Event { time, kind } = event?;
        if let EventKind::Mark { mark } = kind {
            match begins_phase(Phase::Startup, mark) {
                MarkEffect::Begins(Phase::Steady) => return Ok((live, before, time)),
                MarkEffect::Begins(_) => return Err(TraceError::NoSteady),
                _ => {}
            }
        }
        live.apply(&kind);
    }
    Err(TraceError::NoSteady)
}

/// Writes the cut into memory, since its header states what is known only at its end.
struct Cutter {
    writer: TraceWriter<Vec<u8>>,
    options: WriteOptions,
    header_bytes: usize,
    /// The cut's slot for each slot of the original.
    slots: Vec<u32>,
    time: u64,
}

impl Cutter {
    fn new(metadata: &Metadata, options: WriteOptions) -> Result<Self, TraceError> {
        let mut header = Vec::new();
        write_header(&mut header, metadata, options)?;
        let writer = TraceWriter::new(Vec::new(), metadata, options)?;
        Ok(Self { writer, options, header_bytes: header.len(), slots: Vec::new(), time: 0 })
    }

    fn push(&mut self, kind: EventKind) -> Result<(), TraceError> {
        self.writer.push(Event { time: self.time, kind })
    }

    /// Sets what was set, recreates the live set and marks `steady` at its time.
    fn prologue(&mut self, live: LiveSet, time: u64) -> Result<(), TraceError> {
        for call in live.settings.into_values() {
            self.push(EventKind::Direct(call))?;
        }
        self.slots = vec![u32::MAX; live.blocks.len()];
        for (old, kept) in live.blocks.iter().enumerate() {
            let Some(Kept { alloc, is_advised }) = *kept else { continue };
            let new = self.writer.next_slot();
            self.slots[old] = new;
            self.push(with_slot(alloc, |_| new))?;
            if is_advised {
                self.push(EventKind::Advise { slot: new })?;
            }
        }
        if live.thread != 0 {
            self.push(EventKind::ThreadSwitch { thread: live.thread })?;
        }
        self.time = time;
        self.push(EventKind::Mark { mark: Phase::Steady as u32 })
    }

    /// Takes an event of `steady` over; `false`, and nothing done, at the mark that ends the phase.
    fn event(&mut self, event: Event) -> Result<bool, TraceError> {
        self.time = event.time;
        match event.kind {
            EventKind::Mark { mark } if matches!(begins_phase(Phase::Steady, mark), MarkEffect::Begins(_)) => {
                return Ok(false);
            }
            EventKind::Alloc { slot, .. } => {
                let new = self.writer.next_slot();
                match self.slots.get_mut(slot as usize) {
                    Some(place) => *place = new,
                    None => self.slots.push(new),
                }
            }
            _ => {}
        }
        let kind = with_slot(event.kind, |old| self.slots[old as usize]);
        self.push(kind)?;
        Ok(true)
    }

    /// Ends the cut and writes all of it to `to`.
    fn finish(mut self, metadata: &mut Metadata, to: &mut impl Write) -> Result<Totals, TraceError> {
        self.push(EventKind::Mark { mark: Phase::Finalising as u32 })?;
        let (bytes, totals) = self.writer.finish()?;
        metadata.totals = totals.clone();
        write_header(to, metadata, self.options)?;
        to.write_all(&bytes[self.header_bytes..])?;
        to.flush()?;
        Ok(totals)
    }
}

/// The same event on another slot.
fn with_slot(mut kind: EventKind, new: impl FnOnce(u32) -> u32) -> EventKind {
    if let EventKind::Alloc { slot, .. }
    | EventKind::Free { slot }
    | EventKind::Realloc { slot, .. }
    | EventKind::Advise { slot } = &mut kind
    {
        *slot = new(*slot);
    }
    kind
}
