//! How fast a trace is written, read and compiled, in events a second.
//!
//! The stream is a bundled workload's when `workloads/traces` has one, and a generated one otherwise; the bench
//! prints which, with its bytes an event.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
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

/// Sizes of the generated stream's requests, bytes.
const SIZES: [u64; 10] = [24, 28, 32, 48, 56, 64, 72, 120, 184, 4000];

/// A service's requests: each makes much the same objects, frees most at once, grows a table, and leaves one block in
/// a cache that drops its oldest.
fn generated() -> Vec<Event> {
    let mut slots = SlotAllocator::new();
    let (mut kept, mut cache) = (Vec::new(), VecDeque::new());
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut random = 88_172_645_463_325_252_u64;
    let mut push = |kind| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let time = events.last().map_or(0, |event: &Event| event.time) + 200 + random % 256;
        events.push(Event { time, kind });
        if events.len() < EVENTS { None } else { Some(std::mem::take(&mut events)) }
    };
    for turn in 0_usize.. {
        let (request, step) = (turn / 50, turn % 50);
        let slot = slots.next().expect("few blocks are live");
        let (domain, size) = (Domain::ALL[step % 4], SIZES[(step * 7 + request % 3) % SIZES.len()]);
        let mut kinds =
            vec![EventKind::Alloc { slot, domain, size, align_log2: 0, zeroed: false, touched: None, site: 0 }];
        match step {
            49 => {
                cache.push_back(slot);
                kept.extend(if cache.len() > 4000 { cache.pop_front() } else { None });
                kinds.extend(
                    kept.drain(..).rev().inspect(|slot| slots.free(*slot)).map(|slot| EventKind::Free { slot }),
                );
            }
            _ if (step + request % 5) % 3 == 0 => kept.push(slot),
            _ => {
                let table = kept.first().copied().filter(|_| step % 12 == 1);
                let size = 64 * (step as u64 + 1);
                kinds.extend(table.map(|slot| EventKind::Realloc { slot, size, touched: None, site: 0 }));
                slots.free(slot);
                kinds.push(EventKind::Free { slot });
            }
        }
        if let Some(events) = kinds.into_iter().find_map(&mut push) {
            return events;
        }
    }
    Vec::new()
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
    group.throughput(Throughput::Elements(events.len() as u64)).sample_size(10).nresamples(10_000);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
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

criterion_group! {
    name = benches;
    // plotters is built without system fonts here, and criterion's own plots would ask it for one.
    config = Criterion::default().without_plots();
    targets = codec
}
criterion_main!(benches);
