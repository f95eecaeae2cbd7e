//! How fast a trace is written, read and compiled, in events a second.
//!
//! The stream is a bundled workload's when `workloads/traces` has one, and a generated one otherwise; the bench
//! prints which, with its bytes an event.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use trace::image::{ImageSink, compile, size_bound};
use trace::{Domain, Event, EventKind, Metadata, SlotAllocator, TraceReader, TraceWriter, WriteOptions, validate};

/// Events of the generated stream, and the most that are taken from a bundled one.
const EVENTS: usize = 2_000_000;

/// A window that takes a whole image, again and again.
struct Whole(Vec<u64>);

impl ImageSink for Whole {
    fn window(&mut self) -> io::Result<&mut [u64]> {
        Ok(&mut self.0)
    }

    fn commit(&mut self, _ops: usize) -> io::Result<()> {
        Ok(())
    }
}

/// The smallest bundled trace, or the generated stream.
fn stream() -> (String, Metadata, Vec<Event>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("workloads/traces");
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bundled = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.path())));
    for (_, path) in std::collections::BTreeSet::from_iter(bundled) {
        let Ok(file) = std::fs::File::open(&path) else { continue };
        let Ok(reader) = TraceReader::new(io::BufReader::new(file)) else { continue };
        let metadata = reader.metadata().clone();
        let events: Vec<Event> = reader.take(EVENTS).map_while(Result::ok).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return (name, metadata, events);
    }
    let metadata = Metadata { marks: Metadata::phase_marks(), ..Metadata::default() };
    ("a generated stream".to_owned(), metadata, generated())
}

/// Requests of a loop like an interpreter's: short-lived objects, some kept, tables that grow.
fn generated() -> Vec<Event> {
    let mut slots = SlotAllocator::new();
    let mut random = 88_172_645_463_325_252_u64;
    let mut live: Vec<u32> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS);
    for turn in 0.. {
        if events.len() >= EVENTS {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kind = match random % 16 {
            0..=3 if live.len() > 20_000 => {
                let slot = live.swap_remove((random >> 20) as usize % live.len());
                slots.free(slot);
                EventKind::Free { slot }
            }
            4..=8 if !live.is_empty() => {
                let slot = live.pop().expect("it was just looked at");
                slots.free(slot);
                EventKind::Free { slot }
            }
            9 if !live.is_empty() => {
                let slot = live[(random >> 20) as usize % live.len()];
                EventKind::Realloc { slot, size: 64 + (random >> 40) % 4000, touched: None, site: 0 }
            }
            _ => {
                let slot = slots.next().expect("few blocks are live");
                live.push(slot);
                let domain = Domain::ALL[(random >> 8) as usize % 4];
                let size = [24, 28, 32, 48, 56, 64, 72, 120, 184, 232][(random >> 12) as usize % 10];
                EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: false, touched: None, site: 0 }
            }
        };
        events.push(Event { time: turn * 300 + random % 256, kind });
    }
    events
}

fn written(metadata: &Metadata, events: &[Event], options: WriteOptions) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), metadata, options).expect("the metadata is fit to write");
    for event in events {
        writer.push(*event).expect("the stream is valid");
    }
    writer.finish().expect("memory takes it").0
}

fn codec(criterion: &mut Criterion) {
    let (name, metadata, events) = stream();
    let bytes = written(&metadata, &events, WriteOptions::default());
    let bare = written(&metadata, &events, WriteOptions { time: false, sites: false, ..WriteOptions::default() });
    let per_event = |bytes: &[u8]| bytes.len() as f64 / events.len() as f64;
    println!(
        "codec: {} events of {name}, {:.3} B an event, {:.3} B with times and call sites",
        events.len(),
        per_event(&bare),
        per_event(&bytes)
    );
    let (_, totals) = validate(bytes.as_slice()).expect("it was just written");
    let mut whole = Whole(vec![0; size_bound(&totals) as usize / 8]);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(events.len() as u64)).sample_size(10);
    group.bench_function("encode", |bencher| {
        bencher.iter(|| written(&metadata, black_box(&events), WriteOptions::default()));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| validate(black_box(bytes.as_slice())).expect("it was just written"));
    });
    group.bench_function("compile", |bencher| {
        bencher.iter(|| compile(black_box(bytes.as_slice()), &mut whole).expect("it was just written"));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
