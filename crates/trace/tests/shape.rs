//! The shape of small traces, worked out by hand.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use streams::{Random, build, write};
use trace::{BLOCK_EVENTS, EventKind, SHAPE_POINTS, Shape, SizeStep, WriteOptions, shape, text, validate};

const OPTIONS: WriteOptions = WriteOptions { level: 1, time: false, sites: false };

fn shape_of(text: &str) -> Shape {
    let (_, events) = text::parse(text.as_bytes()).unwrap();
    shape(write(&events, OPTIONS).as_slice()).unwrap().1
}

#[test]
fn every_field_of_a_small_trace() {
    let shape = shape_of(
        "\
a 1 1000 libc
a 2 16 obj
m steady
f 2
a 3 512 obj
gc+ 1
f 3
t 1
f 1
gc- 1
a 4 4 arrow
r 4 3
r 4 300
m drained
f 4
m finalising
a 5 7 raw
",
    );
    assert_eq!(shape.collections, [(5, 9, 1)]);
    // Block 3 died in the collection; block 1 was freed during it, but by another thread.
    assert_eq!((shape.deaths_by_collector, shape.bytes_by_collector, shape.deaths_by_reference), (1, 512, 3));
    assert_eq!(shape.sizes, [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]);
    assert_eq!(shape.sizes_bytes, [0, 0, 4, 7, 16, 0, 0, 0, 0, 512, 1000]);
    // Nothing was allocated while blocks 2, 3 and 4 lived, and those two after block 1.
    assert_eq!(shape.lifetimes, [3, 1]);
    assert_eq!(shape.calls_by_phase, [2, 7, 1, 1]);
    assert_eq!(shape.phase_events, [Some(0), Some(2), Some(13), Some(15)]);
    assert_eq!((shape.live_bytes_end, shape.live_bytes_drained), (0, Some(300)));
    assert_eq!(shape.live_bytes_peak_steady, 1512);
    let sums = |sums: &[(&str, u64)]| sums.iter().map(|(name, sum)| ((*name).to_owned(), *sum)).collect();
    assert_eq!(shape.steady_calls_by_domain, sums(&[("arrow", 3), ("libc", 1), ("obj", 3)]));
    assert_eq!(shape.steady_bytes_by_domain, sums(&[("arrow", 4), ("obj", 512)]));
    assert_eq!(shape.peak_bytes_by_domain, sums(&[("libc", 1000), ("obj", 512)]));
    assert_eq!((shape.small_allocs, shape.reallocs_not_growing), (4, 1));
    assert_eq!((shape.frees_cross_thread, shape.threads), (1, 2));
    assert_eq!(shape.live.len(), 17);
    assert_eq!((shape.live[1].bytes, shape.live[1].blocks), (1016, 2));
}

#[test]
fn requests_are_told_apart_where_settings_tell_them_apart() {
    let shape = shape_of(
        "\
a 1 9000 libc
m steady
a 2 512 obj
a 3 513 obj
t 1
a 4 65512 libc
a 5 65513 libc
ts 2
t 2
a 6 131049 numpy
f 6
te 2
t 3
a 7 4096 arrow
a 8 400 mem
t 4
r 8 600
f 3
m drained
a 9 1 libc
",
    );
    let step = |requests, bytes, live_bytes_peak, live_bytes_rest| SizeStep {
        requests,
        bytes,
        live_bytes_peak,
        live_bytes_rest,
    };
    let none = SizeStep::default();
    let of = |domain: &str| shape.steps_by_domain[domain];
    assert_eq!(of("obj"), [step(1, 512, 512, 512), step(1, 513, 513, 0), none, none, none]);
    // What was asked for before `steady` and after it is live, and no request of it.
    assert_eq!(of("libc")[1], step(1, 65_512, 9000 + 65_512, 9000 + 65_512));
    assert_eq!((of("libc")[0], of("libc")[2]), (none, step(1, 65_513, 65_513, 65_513)));
    assert_eq!(of("numpy")[3], step(1, 131_049, 131_049, 0));
    assert_eq!((of("mem")[0], of("mem")[1]), (step(1, 400, 0, 0), step(1, 600, 0, 600)));
    // Threads 0, 1, 2 and 4 asked for what malloc serves; thread 2 was over when 4 began.
    assert_eq!((shape.malloc_threads, shape.malloc_threads_at_once), (4, 3));
}

#[test]
fn without_marks_everything_counts() {
    let shape = shape_of("a 1 100\na 2 50\nf 1\ngc+ 0\n");
    assert_eq!((shape.live_bytes_peak_steady, shape.live_bytes_end), (150, 50));
    assert_eq!(shape.phase_events, [Some(0), None, None, None]);
    assert_eq!(shape.collections, [(3, 3, 0)], "one that the recording's end cut off");
}

#[test]
fn an_empty_trace_has_an_empty_shape() {
    assert_eq!(shape_of(""), Shape::default());
}

#[test]
fn the_curve_of_a_long_trace_is_even_and_ends_at_its_end() {
    let events = build(&Random(9).steps(BLOCK_EVENTS + 4321));
    let bytes = write(&events, OPTIONS);
    let (_, totals) = validate(bytes.as_slice()).unwrap();
    let (metadata, shape) = shape(bytes.as_slice()).unwrap();
    assert_eq!(metadata.totals, totals);
    assert_eq!(shape.live.len() as u64, SHAPE_POINTS);
    let last = shape.live.last().unwrap();
    assert_eq!(
        (last.event, last.bytes, last.blocks),
        (totals.events - 1, totals.live_bytes_end, totals.live_blocks_end)
    );
    let gaps = shape.live.windows(2).map(|pair| pair[1].event - pair[0].event);
    let (least, most) = (gaps.clone().min().unwrap(), gaps.max().unwrap());
    let even = totals.events / SHAPE_POINTS;
    assert!(least * 10 >= even * 9 && most * 10 <= even * 11 + 10, "gaps of {least} to {most} around {even}");
    assert_eq!(shape.deaths_by_reference + shape.deaths_by_collector, totals.frees);
    let collections = events.iter().filter(|event| matches!(event.kind, EventKind::GcStart { .. })).count();
    assert!(shape.collections.len() <= collections);
}
