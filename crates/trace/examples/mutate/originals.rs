//! The traces that mutants are made of: the beginnings of real ones, and one by hand with every kind of event.

use trace::{
    Event, EventKind, MarkReading, MemoryReading, Metadata, Phase, ProcessMemory, Site, TraceReader, TraceWriter,
    WriteOptions, text,
};

/// Fast to read, and the columns are those of a recording.
const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

/// Every operation, domain and kind of prefix, three threads, collections, marks of the program's own.
pub(crate) const BY_HAND: &str = "\
# three threads hand blocks over
a 1 48 obj @64
a 2 4096 libc align=64 site=1
c 3 100 mem
a 4 8388608 numpy touched=4194304 @640
h 4
ts 1
t 1
a 5 6000000000 arrow touched=0
r 5 5000000000 touched=4096
f 3
m steady
m @6400 a mark of its own
gc+ 2
f 1
a 1 0 raw
gc- 2
ts 2
t 2
a 6 512 obj
r 6 513
r 6 1
t 1
f 6
te 2
t 0
f 5
te 1
m drained
f 2
fork
f 4
m @64000 finalising
f 1
";

/// The trace by hand, as a file.
pub(crate) fn by_hand() -> Vec<u8> {
    let (metadata, events) = text::parse(BY_HAND.as_bytes()).expect("the text form");
    let memory = Some(MemoryReading { rss_bytes: 9 << 20, rss_anon_bytes: 5 << 20, ..MemoryReading::default() });
    let metadata = Metadata {
        ticks_per_second: Some(1_000_000),
        recorder_ps_per_event: Some(50_000),
        sites: vec![Site::default(), Site { module: "libc.so.6".to_owned(), offset: 640 }],
        process: Some(ProcessMemory { start: memory, peak: memory, end: memory }),
        ..metadata
    };
    write(&metadata, &events)
}

/// The first events of a trace as a trace of their own, with every phase.
pub(crate) fn beginning(of: &[u8], events: usize) -> Vec<u8> {
    let mut reader = TraceReader::new(of).expect("a valid trace");
    let kept: Result<Vec<Event>, _> = reader.by_ref().take(events).collect();
    let mut kept = kept.expect("a valid trace");
    kept.retain(|event| !matches!(event.kind, EventKind::Mark { .. }));
    for (phase, part) in [(Phase::Finalising, 6), (Phase::Drained, 5), (Phase::Steady, 2)] {
        let at = kept.len() * part / 7;
        let time = kept.get(at).map_or(0, |event| event.time);
        kept.insert(at, Event { time, kind: EventKind::Mark { mark: phase as u32 } });
    }
    write(reader.metadata(), &kept)
}

fn write(metadata: &Metadata, events: &[Event]) -> Vec<u8> {
    let metadata = Metadata { mark_readings: readings(events), ..metadata.clone() };
    let mut writer = TraceWriter::new(Vec::new(), &metadata, OPTIONS).expect("usable metadata");
    for event in events {
        writer.push(*event).expect("a possible event");
    }
    writer.finish().expect("memory takes it").0
}

/// A reading at every mark.
fn readings(events: &[Event]) -> Vec<MarkReading> {
    let at = |(index, event): (usize, &Event)| {
        let EventKind::Mark { mark } = event.kind else { return None };
        let event = index as u64;
        let memory = Some(MemoryReading { rss_bytes: 1 << 24, stack_bytes: 1 << 17, ..MemoryReading::default() });
        let mapped_bytes = Some([("libopenblas.so".to_owned(), 1 << 25)].into());
        let nanoseconds = Some(1_000_000 * (1 + event));
        Some(MarkReading { mark, event, cpu_ns: nanoseconds, wall_ns: nanoseconds, memory, mapped_bytes })
    };
    events.iter().enumerate().filter_map(at).collect()
}
