//! Recorded threads, each on a thread of its own.

use super::{Image, ImageSource, contestants, inherit, job, start};
use pyalloc_bench::backend::{self, Role};
use pyalloc_bench::run::{Footprint, Mode, Observation, Pass};
use pyalloc_bench::worker::Job;
use std::io::Write as _;
use trace::image::{Op, OpKind, Order, apart};
use trace::{Domain, Phase};

/// What four threads do at once for a while: blocks of every domain, some of them freed by others, and threads that
/// start and end between phases.
fn many_threads() -> Image {
    use OpKind::{Alloc, Free, Realloc, ThreadEnd, ThreadStart, ThreadSwitch};
    let mut image = Image::default();
    let control = |image: &mut Image, kind, thread| {
        image.push(kind, Domain::Libc, 0, thread);
    };
    let block = |round: u32, i: u32| (Domain::ALL[(i % 6) as usize], 500 + i, 16 + (i * 37 + round) % 3000);
    for slot in 0..500 {
        image.push(Alloc, Domain::Obj, slot, 64);
    }
    image.phase(Phase::Steady);
    for round in 0..40 {
        for worker in 1..4 {
            let thread = 3 * round + worker;
            control(&mut image, ThreadStart, thread);
            control(&mut image, ThreadSwitch, thread);
            for i in (worker - 1) * 100..worker * 100 {
                let (domain, slot, bytes) = block(round, i);
                image.push(Alloc, domain, slot, bytes);
            }
        }
        for step in 0..300 {
            // Half of them are freed by the main thread, the others by the next worker.
            let i = step * 7 % 300;
            let (domain, slot, bytes) = block(round, i);
            let owner = i / 100 + 1;
            control(&mut image, ThreadSwitch, if i % 2 == 0 { 0 } else { 3 * round + owner % 3 + 1 });
            if i % 5 == 0 {
                image.push(Realloc, domain, slot, bytes / 2 + 1);
            }
            image.push(Free, domain, slot, bytes);
        }
        for worker in 1..4 {
            control(&mut image, ThreadSwitch, 3 * round + worker);
            control(&mut image, ThreadEnd, 3 * round + worker);
        }
    }
    control(&mut image, ThreadSwitch, 0);
    image.phase(Phase::Drained);
    image.push(Alloc, Domain::Libc, 500, 1000).push(Free, Domain::Libc, 500, 1000);
    image.phase(Phase::Finalising);
    for slot in 0..500 {
        image.push(Free, Domain::Obj, slot, 64);
    }
    image
}

/// As `observe`, with each recorded thread on a thread of its own.
fn observe_threads(pass: Pass, mode: Mode, key: &str, image: &Image) -> Observation {
    serde_json::from_str(&observe_streams(pass, mode, key, image, |_| {})).unwrap()
}

/// What a worker prints for an image with each recorded thread on a thread of its own; `change` edits its job.
fn observe_streams(pass: Pass, mode: Mode, key: &str, image: &Image, change: impl FnOnce(&mut Job)) -> String {
    let order = match (pass, mode) {
        (Pass::Footprint, _) => Order::Total,
        (_, Mode::Free) => Order::Free,
        _ => Order::Gil,
    };
    let threaded = apart(image.ops.clone(), image.summary.slots, order).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let ops: Vec<u8> = threaded.streams.iter().flatten().flat_map(|op| op.to_le_bytes()).collect();
    file.write_all(&ops).unwrap();
    let source = ImageSource::Streams {
        fd: inherit(&file),
        ops: threaded.streams.iter().map(|stream| stream.len() as u64).collect(),
        slots: threaded.slots,
        lanes: threaded.lanes,
    };
    let mut job = Job { mode, ..job(pass, key, image, source) };
    change(&mut job);
    let output = start(&serde_json::to_vec(&job).unwrap()).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{key} {mode:?} {pass:?}: {text} {:?}", output.status);
    text
}

/// Requested bytes and blocks that are live before the op with this index.
fn live_before(image: &Image, op: u64) -> (u64, u64) {
    let mut live = std::collections::BTreeMap::new();
    for op in image.ops.iter().take(op as usize).map(|word| Op(*word)) {
        match op.kind() {
            OpKind::Alloc | OpKind::Realloc => live.insert(op.slot(), u64::from(op.value())),
            OpKind::Free => live.remove(&op.slot()),
            _ => None,
        };
    }
    (live.values().sum(), live.len() as u64)
}

#[test]
fn threads_make_every_call_once_in_both_modes_on_every_backend() {
    let image = many_threads();
    for mode in [Mode::Gil, Mode::Free] {
        for key in backend::ALL.iter().filter(|b| !matches!(b.role, Role::OptIn | Role::ByArgument)).map(|b| b.key) {
            let seen = observe_threads(Pass::Throughput, mode, key, &image);
            let Observation::Throughput(seen) = seen else { panic!("another pass") };
            let calls: Vec<u64> = seen.phases.iter().map(|p| p.calls).collect();
            assert_eq!(calls, image.summary.calls_by_phase, "{key}");
            assert_eq!((seen.failed_allocations, seen.seal.harness_allocations), (0, 0), "{key}");
            let threads = seen.threads.unwrap();
            assert_eq!(threads.threads, 121, "{key}");
            assert!(threads.waits > 1000 && threads.alive_ns > threads.waiting_ns, "{key}: {threads:?}");
        }
        for key in contestants() {
            let Observation::Latency(seen) = observe_threads(Pass::Latency, mode, key, &image) else {
                panic!("another pass")
            };
            let total: u64 = seen.cells.iter().map(|cell| cell.histogram.total()).sum();
            assert_eq!(total, image.summary.calls_by_phase[1], "{key}: every thread times its calls of steady");
        }
    }
}

#[test]
fn the_footprint_of_threads_is_that_of_one_recorded_order() {
    let image = many_threads();
    for key in contestants() {
        let footprint = || {
            let Observation::Footprint(seen) = observe_threads(Pass::Footprint, Mode::Gil, key, &image) else {
                panic!("another pass")
            };
            seen
        };
        let (seen, again, merged) = (footprint(), footprint(), super::footprint(key, &image));
        // Each reading is that of the merged image at the op that it names.
        let requested = |seen: &Footprint| -> Vec<_> {
            seen.curve.iter().map(|point| (point.op, point.requested_bytes, point.blocks)).collect()
        };
        for (op, bytes, blocks) in requested(&seen) {
            assert_eq!((bytes, blocks), live_before(&image, op), "{key} at {op}");
        }
        assert_eq!(requested(&seen), requested(&again), "{key}");
        let marks = |seen: &Footprint| -> Vec<_> {
            seen.at_phase.iter().map(|(phase, point)| (*phase, point.op, point.requested_bytes)).collect()
        };
        assert_eq!(marks(&seen), marks(&merged), "{key}");
        assert_eq!((seen.rest_from.as_str(), seen.failed_allocations), ("drained", 0), "{key}");
        if key == "system" {
            let usable = |seen: &Footprint| seen.curve.iter().map(|point| point.usable_bytes).collect::<Vec<_>>();
            assert_eq!(usable(&seen), usable(&again), "one thread at a time leaves nothing to chance");
        }
    }
}

/// The C library's heap has one small block for each thread that lives, in a program as in a replay.
fn thread_block_bytes(threads: u32) -> u64 {
    if threads > 4 { (u64::from(threads) * 512).next_multiple_of(4096) } else { 0 }
}

/// Threads that allocate and free 400 small blocks together, one after another while all of them live, with the peak in
/// the last one. Arrow allocates nothing.
fn small_heaps(threads: u32) -> Image {
    use OpKind::{Alloc, Free, ThreadEnd, ThreadStart, ThreadSwitch};
    let (mut image, blocks) = (Image::default(), 400 / threads);
    image.phase(Phase::Steady);
    for thread in 0..threads {
        if thread > 0 {
            image.push(ThreadStart, Domain::Libc, 0, thread).push(ThreadSwitch, Domain::Libc, 0, thread);
        }
        for block in 0..blocks {
            image.push(Alloc, Domain::Obj, thread * blocks + block, 64 + block);
        }
    }
    for thread in 0..threads {
        if threads > 1 {
            image.push(ThreadSwitch, Domain::Libc, 0, thread);
        }
        for block in 0..blocks {
            image.push(Free, Domain::Obj, thread * blocks + block, 64 + block);
        }
    }
    for thread in 1..threads {
        image.push(ThreadEnd, Domain::Libc, 0, thread);
    }
    if threads > 1 {
        image.push(ThreadSwitch, Domain::Libc, 0, 0);
    }
    image.phase(Phase::Drained).phase(Phase::Finalising);
    image
}

/// The footprint of an image with each thread on its own, and on one thread; Arrow is served by `arrow`.
fn apart_and_merged(key: &str, arrow: &str, image: &Image) -> [Footprint; 2] {
    let serve = |job: &mut Job| job.backends[Domain::Arrow as usize] = arrow.to_owned();
    let merged = {
        let file = image.file();
        let mut job = job(Pass::Footprint, key, image, ImageSource::Whole { fd: inherit(&file) });
        serve(&mut job);
        let output = start(&serde_json::to_vec(&job).unwrap()).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let apart = observe_streams(Pass::Footprint, Mode::Gil, key, image, serve);
    [apart, merged].map(|text| match serde_json::from_str(&text) {
        Ok(Observation::Footprint(seen)) => *seen,
        other => panic!("{key}: {other:?} in {text}"),
    })
}

#[test]
fn a_replay_thread_adds_no_memory_of_its_own() {
    for threads in [1, 2, 4, 40] {
        let image = small_heaps(threads);
        for arrow in ["mimalloc", "jemalloc", "pool"] {
            let [apart, merged] = apart_and_merged("pool", arrow, &image);
            let figures = |seen: &Footprint| {
                let rest = seen.rest[1].memory.resident_bytes;
                [seen.peak.resident_bytes, seen.end.resident_bytes, rest]
            };
            let most = thread_block_bytes(threads);
            for (one, other) in figures(&apart).into_iter().zip(figures(&merged)) {
                assert!(
                    (other..=other + most).contains(&one),
                    "{threads} threads, Arrow on {arrow}: {one} for {other}"
                );
            }
            let held = |seen: &Footprint| seen.owners.iter().map(|owners| owners.held[arrow]).collect::<Vec<_>>();
            assert_eq!(held(&apart), held(&merged), "{threads} threads, Arrow on {arrow}");
        }
    }
}

#[test]
fn a_thread_that_only_frees_gets_nothing_from_its_allocator() {
    use OpKind::{Alloc, Free, ThreadEnd, ThreadStart, ThreadSwitch};
    let mut image = Image::default();
    image.phase(Phase::Steady);
    for slot in 0..400 {
        image.push(Alloc, Domain::Obj, slot, 1000);
    }
    for thread in 1..40 {
        image.push(ThreadStart, Domain::Libc, 0, thread).push(ThreadSwitch, Domain::Libc, 0, thread);
        image.push(Free, Domain::Obj, thread, 1000);
    }
    for thread in 1..40 {
        image.push(ThreadEnd, Domain::Libc, 0, thread);
    }
    image.push(ThreadSwitch, Domain::Libc, 0, 0).phase(Phase::Drained).phase(Phase::Finalising);
    let [apart, merged] = apart_and_merged("jemalloc", "jemalloc", &image);
    let (one, other) = (apart.end.resident_bytes, merged.end.resident_bytes);
    assert!((other..=other + thread_block_bytes(40)).contains(&one), "{one} for {other}");
}
