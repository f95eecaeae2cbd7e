//! What the crate makes of a mutant, and in what an accepted one differs from its original.
//!
//! Invariant: readers that check every event agree on what is valid; whatever they accept can be used.

use std::collections::BTreeSet;
use std::io::{Cursor, sink};
use trace::image::{Cycles, Order, RecordedClock, VecSink, apart, compile, moments, repeat};
use trace::{Event, EventKind, Metadata, Phase, Totals, TraceReader, TraceWriter, WriteOptions};

/// Ops of a window: small, so that images have several.
const WINDOW_OPS: usize = 4096;
/// Cheap to write.
const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };
/// Events that a cut keeps.
const CUT_EVENTS: u64 = 500;
/// Moments of one table.
const MOMENTS_MAX: usize = 4096;
/// The clock of a trace without one, whose times are all 0.
const NO_CLOCK: RecordedClock = RecordedClock { ticks_per_second: 1, recorder_ps_per_event: 0 };

/// A valid trace, read.
pub(crate) struct Read {
    metadata: Metadata,
    events: Vec<Event>,
}

impl Read {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut reader = TraceReader::new(bytes).ok()?;
        let events: Result<Vec<Event>, _> = reader.by_ref().collect();
        let metadata = reader.metadata().clone();
        Some(Self { metadata, events: events.ok()? })
    }
}

/// What is to be known of an accepted mutant.
pub(crate) struct Accepted {
    /// In what it differs from its original.
    pub(crate) differs: BTreeSet<String>,
    /// Most bytes that it keeps live: a replay has to touch them.
    pub(crate) live_bytes: u64,
}

/// The totals of what a file's events say, as JSON, if they can all be read.
pub(crate) fn totals(bytes: &[u8]) -> Option<Vec<u8>> {
    let reader = TraceReader::new(bytes).ok()?;
    let mut writer = TraceWriter::new(sink(), reader.metadata(), OPTIONS).ok()?;
    for event in reader {
        match event {
            Ok(event) => writer.push(event).ok()?,
            // The totals are what is to be repaired.
            Err(trace::TraceError::Totals { .. } | trace::TraceError::Metadata(_)) => break,
            Err(_) => return None,
        }
    }
    serde_json::to_vec(&writer.finish().ok()?.1).ok()
}

/// Has every reader look at a mutant: `None` when it is refused, else in what it differs
/// and its most live bytes.
///
/// # Errors
/// What is wrong with the readers.
pub(crate) fn judge(mutant: &[u8], original: &Read) -> Result<Option<Accepted>, String> {
    let valid = trace::validate(mutant);
    let shape = trace::shape(mutant);
    let footer = trace::read_footer(Cursor::new(mutant));
    let mut window = VecSink::new(WINDOW_OPS);
    let compiled = compile(mutant, &mut window);
    if valid.is_ok() != shape.is_ok() {
        return Err(format!("validate says {:?}, shape says {:?}", valid.err(), shape.err()));
    }
    let Ok((metadata, totals)) = valid else { return Ok(None) };
    let summary = compiled.map_err(|e| format!("validate accepts what the compiler refuses: {e}"))?;
    if footer.is_ok_and(|(_, stated)| stated != totals) || summary.ops != totals.image_ops {
        return Err("footer, image and events do not agree".to_owned());
    }
    let read = Read::of(mutant).ok_or("validate accepts what cannot be read")?;
    use_it(&read, &totals, &window, &summary)?;
    _ = trace::cut(mutant, sink(), CUT_EVENTS, OPTIONS);
    let mut different = differences(original, &read);
    different.extend(fields(&original.metadata, &metadata));
    Ok(Some(Accepted { differs: different, live_bytes: totals.live_bytes_peak }))
}

/// Writes it again, as a file and as text, and makes every image of it.
fn use_it(read: &Read, totals: &Totals, image: &VecSink, summary: &trace::image::ImageSummary) -> Result<(), String> {
    let mut writer = TraceWriter::new(Vec::new(), &read.metadata, OPTIONS).map_err(|e| e.to_string())?;
    for event in &read.events {
        writer.push(*event).map_err(|e| format!("it cannot be written again: {e}"))?;
    }
    let (_, again) = writer.finish().map_err(|e| e.to_string())?;
    if again != *totals {
        return Err("written again it has other totals".to_owned());
    }
    _ = trace::text::write(&mut sink(), &read.metadata, read.events.iter().copied().map(Ok));
    let clock = RecordedClock::of(&read.metadata).unwrap_or(NO_CLOCK);
    let found = moments(read.events.iter().copied().map(Ok), clock, MOMENTS_MAX).map_err(|e| e.to_string())?;
    if found.ops != summary.ops {
        return Err("the table of moments has other ops".to_owned());
    }
    for order in [Order::Total, Order::Gil, Order::Free] {
        let Ok(threads) = apart(image.ops().to_vec(), summary.slots, order) else { continue };
        if threads.streams.is_empty() && !image.ops().is_empty() {
            return Err("an image without streams".to_owned());
        }
    }
    let cycles = Cycles { times: 2, from: Phase::Steady as u32, to: Phase::Finalising as u32 };
    _ = repeat(image.ops(), summary, cycles);
    Ok(())
}

/// In which fields of events two traces differ.
fn differences(original: &Read, mutant: &Read) -> BTreeSet<String> {
    let mut different = BTreeSet::new();
    if original.events.len() != mutant.events.len() {
        different.insert("number of events".to_owned());
        return different;
    }
    for (old, new) in original.events.iter().zip(&mutant.events) {
        if old == new {
            continue;
        }
        if old.time != new.time {
            different.insert("time".to_owned());
        }
        different.extend(event_fields(old.kind, new.kind).into_iter().map(str::to_owned));
    }
    different
}

fn event_fields(old: EventKind, new: EventKind) -> Vec<&'static str> {
    use EventKind::{Advise, Alloc, Free, GcStart, GcStop, Mark, Realloc, ThreadEnd, ThreadStart, ThreadSwitch};
    let mut named = Vec::new();
    let mut compare = |name, is_other| {
        if is_other {
            named.push(name);
        }
    };
    match (old, new) {
        (
            Alloc { slot, domain, size, align_log2, zeroed, touched, site },
            Alloc {
                slot: slot2,
                domain: domain2,
                size: size2,
                align_log2: align2,
                zeroed: zeroed2,
                touched: touched2,
                site: site2,
            },
        ) => {
            compare("slot", slot != slot2);
            compare("domain", domain != domain2);
            compare("size", size != size2);
            compare("alignment", align_log2 != align2);
            compare("operation", zeroed != zeroed2);
            compare("touched bytes", touched != touched2);
            compare("site", site != site2);
        }
        (
            Realloc { slot, size, touched, site },
            Realloc { slot: slot2, size: size2, touched: touched2, site: site2 },
        ) => {
            compare("slot", slot != slot2);
            compare("size", size != size2);
            compare("touched bytes", touched != touched2);
            compare("site", site != site2);
        }
        (Free { slot }, Free { slot: other }) | (Advise { slot }, Advise { slot: other }) => {
            compare("slot", slot != other);
        }
        (ThreadSwitch { thread }, ThreadSwitch { thread: other })
        | (ThreadStart { thread }, ThreadStart { thread: other })
        | (ThreadEnd { thread }, ThreadEnd { thread: other }) => compare("thread", thread != other),
        (Mark { mark }, Mark { mark: other }) => compare("mark", mark != other),
        (GcStart { generation }, GcStart { generation: other })
        | (GcStop { generation }, GcStop { generation: other }) => compare("generation", generation != other),
        (old, new) => compare("operation", old != new),
    }
    named
}

/// Which fields of the metadata differ, but for the totals, which follow from the events.
fn fields(old: &Metadata, new: &Metadata) -> Vec<String> {
    let [old, new] = [old, new].map(|metadata| serde_json::to_value(metadata).unwrap_or_default());
    let keys: BTreeSet<&String> =
        [&old, &new].into_iter().filter_map(|value| value.as_object()).flat_map(|o| o.keys()).collect();
    let differs = keys.into_iter().filter(|key| *key != "totals" && old.get(key.as_str()) != new.get(key.as_str()));
    differs.map(|key| format!("metadata: {key}")).collect()
}
