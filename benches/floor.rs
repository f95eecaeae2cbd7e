//! The harness floor: nanoseconds per op of the replay when nothing is called (`loop`), and when the null allocator is
//! called the way contestants are (`null`), with the contestants beside them; and the time of one hand-over between
//! threads that may only run one at a time.
//!
//! Every iteration is a fresh worker, as in a real run. `PYALLOC_BENCH_IMAGE` names a compiled image to use instead of
//! the synthetic one.
#![allow(clippy::unwrap_used, missing_docs, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pyalloc_bench::run::{Mode, Observation, Pass, Time};
use pyalloc_bench::worker::{ImageSource, Job};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::Duration;
use trace::Domain;
use trace::image::{Control, ImageSummary, Op, OpKind, Order, apart};

/// Calls in the synthetic image.
const CALLS: u64 = 3_000_000;

/// Turns in the image whose threads take turns.
const HAND_OVERS: u32 = 20_000;

/// Request sizes of pure Python code: mostly below 128 bytes, few above a pool's limit.
const SIZES: [u32; 16] = [32, 48, 56, 64, 32, 72, 80, 56, 48, 104, 64, 136, 232, 56, 424, 1200];

/// Short-lived blocks in stack order, as expressions make them, above a slowly changing long-lived set.
fn synthetic() -> Vec<u64> {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) as usize % below
    };
    let (mut ops, mut free, mut highest) = (Vec::new(), Vec::new(), 0);
    let mut long: Vec<(u32, u32)> = Vec::new();
    while (ops.len() as u64) < CALLS {
        let mut short = Vec::new();
        for _ in 0..1 + next(6) {
            let slot = free.pop().unwrap_or_else(|| {
                highest += 1;
                highest - 1
            });
            let bytes = SIZES[next(SIZES.len())];
            ops.push(Op::new(OpKind::Alloc, Domain::Obj, slot, bytes).0);
            short.push((slot, bytes));
        }
        if next(8) == 0 {
            long.extend(short.pop());
            if long.len() > 20_000 {
                short.insert(0, long.swap_remove(next(20_000)));
            }
        }
        for (slot, bytes) in short.into_iter().rev() {
            ops.push(Op::new(OpKind::Free, Domain::Obj, slot, bytes).0);
            free.push(slot);
        }
    }
    ops
}

/// An inherited file with these bytes.
fn inherited(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    // SAFETY: plain system call on an open descriptor; the worker is to inherit it.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) };
    file
}

/// The image in an inherited file, and what a job says of it.
fn image() -> (File, ImageSummary) {
    let bytes = match std::env::var_os("PYALLOC_BENCH_IMAGE") {
        Some(path) => std::fs::read(path).unwrap(),
        None => synthetic().iter().flat_map(|op| op.to_le_bytes()).collect(),
    };
    let ops = bytes.chunks_exact(8).map(|op| Op(u64::from_le_bytes(op.try_into().unwrap())));
    let mut summary = ImageSummary { ops: bytes.len() as u64 / 8, ..ImageSummary::default() };
    for op in ops {
        summary.slots = summary.slots.max(op.slot() as u32 + 1);
    }
    (inherited(&bytes), summary)
}

/// Threads that take turns, each with one block that it allocates and frees in its turn, in the total order: an
/// inherited file, what a job says of the image, and where its streams are.
fn turns(threads: u32) -> (File, ImageSummary, ImageSource) {
    let turn = |thread: u32| {
        let calls = [OpKind::Alloc, OpKind::Free].map(|kind| Op::new(kind, Domain::Obj, thread, 64));
        [Control::Switch.op(0, thread), calls[0], calls[1]].map(|op| op.0)
    };
    let ops: Vec<u64> = (0..HAND_OVERS).flat_map(|at| turn(at % threads)).collect();
    let summary = ImageSummary { ops: ops.len() as u64, slots: threads, ..ImageSummary::default() };
    let image = apart(ops, threads, Order::Total).unwrap();
    let lengths = image.streams.iter().map(|stream| stream.len() as u64).collect();
    let file = inherited(&image.streams.iter().flatten().flat_map(|op| op.to_le_bytes()).collect::<Vec<u8>>());
    let (fd, slots, lanes) = (file.as_raw_fd(), image.slots, image.lanes);
    (file, summary, ImageSource::Streams { fd, ops: lengths, slots, lanes })
}

/// Nanoseconds of one replay, all phases.
fn replay_ns(key: &str, image: &ImageSummary, source: &ImageSource) -> u64 {
    let job = Job {
        pass: Pass::Throughput,
        mode: if matches!(source, ImageSource::Streams { .. }) { Mode::Gil } else { Mode::Merged },
        backends: [(); 6].map(|()| key.to_owned()),
        image: image.clone(),
        source: source.clone(),
        idle_ms: Vec::new(),
        points: 0,
        time: Time::None,
        pace: 1,
        moments: None,
        shift_bytes: 0,
        allow_debug: cfg!(debug_assertions),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"));
    let mut child = command.arg("worker").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&job).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let Ok(Observation::Throughput(seen)) = serde_json::from_slice(&output.stdout) else { panic!("{output:?}") };
    seen.phases.iter().map(|phase| phase.wall_ns).sum()
}

fn floor(criterion: &mut Criterion) {
    let (file, image) = image();
    let source = ImageSource::Whole { fd: file.as_raw_fd() };
    let mut group = criterion.benchmark_group("floor");
    group.throughput(Throughput::Elements(image.ops));
    group.sample_size(10).nresamples(10_000);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for key in ["loop", "null", "pool", "system", "mimalloc", "jemalloc"] {
        group.bench_function(key, |bencher| {
            bencher.iter_custom(|n| Duration::from_nanos((0..n).map(|_| replay_ns(key, &image, &source)).sum()));
        });
    }
    group.finish();
}

/// The time of one hand-over: two threads find each other awake, of twelve all but one or two sleep.
fn hand_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-over");
    group.sample_size(10).nresamples(10_000);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for threads in [2, 12] {
        let (_file, image, source) = turns(threads);
        group.bench_function(format!("{threads} threads"), |bencher| {
            bencher.iter_custom(|n| {
                let replays = n.div_ceil(u64::from(HAND_OVERS));
                let ns: u64 = (0..replays).map(|_| replay_ns("null", &image, &source)).sum();
                Duration::from_nanos((ns as f64 / (replays * u64::from(HAND_OVERS)) as f64 * n as f64) as u64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, floor, hand_over);
criterion_main!(benches);
