//! The replay image says what the events say, in any windows, and a bad trace gives none.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::collections::HashMap;
use streams::{Random, any_step, build, write};
use trace::image::{
    Control, GROUP_OPS_MAX, ImageSink, ImageSummary, OS_PAGE_BYTES, Op, OpKind, TOUCH_UNIT_BYTES, VecSink, compile,
    size_bound,
};
use trace::{BLOCK_EVENTS, Domain, Event, EventKind, Phase, TraceError, WriteOptions, validate};

const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

/// What the compiler should make of these events, told event by event.
fn expected(events: &[Event]) -> (Vec<Op>, ImageSummary) {
    let mut ops = Vec::new();
    let mut live: HashMap<u32, (u64, Domain, u32)> = HashMap::new();
    let mut phase = Phase::Startup;
    let mut summary = ImageSummary { phase_ops: [Some(0), None, None, None], ..ImageSummary::default() };
    let (mut bytes, mut peaks) = (0_u64, [0_u64; 4]);
    let units = |bytes: u64| u32::try_from(bytes.div_ceil(TOUCH_UNIT_BYTES)).unwrap_or(u32::MAX);
    let touched_units = |size: u64, touched: Option<u64>| touched.map_or(units(size), |t| units(t).min(units(size)));
    let sized = |ops: &mut Vec<Op>, kind, domain, slot, size: u64, touched| {
        let touched = touched_units(size, touched);
        if touched < units(size) {
            ops.push(Op::new(OpKind::Touched, domain, slot, touched));
        }
        if size >> 32 != 0 {
            ops.push(Op::new(OpKind::SizeHigh, domain, slot, (size >> 32) as u32));
        }
        ops.push(Op::new(kind, domain, slot, size as u32));
    };
    for event in events {
        let none = |kind, value| Op::new(kind, Domain::Libc, 0, value);
        match event.kind {
            EventKind::Alloc { slot, domain, size, align_log2, zeroed, touched, .. } => {
                let kind = match (align_log2, zeroed) {
                    (0, false) => OpKind::Alloc,
                    (0, true) => OpKind::AllocZeroed,
                    _ => OpKind::AllocAligned,
                };
                if align_log2 > 0 {
                    ops.push(Op::new(OpKind::Align, domain, slot, u32::from(align_log2)));
                }
                sized(&mut ops, kind, domain, slot, size, touched);
                live.insert(slot, (size, domain, touched_units(size, touched)));
                bytes += size;
                summary.slots = summary.slots.max(slot + 1);
                summary.calls_by_phase[phase as usize] += 1;
            }
            EventKind::Free { slot } => {
                let (size, domain, _) = live.remove(&slot).unwrap();
                ops.push(Op::new(OpKind::Free, domain, slot, u32::try_from(size).unwrap_or(u32::MAX)));
                bytes -= size;
                summary.calls_by_phase[phase as usize] += 1;
            }
            EventKind::Realloc { slot, size, touched, .. } => {
                let (old, domain, old_touched) = live[&slot];
                if size > OS_PAGE_BYTES {
                    ops.push(Op::new(OpKind::OldTouched, domain, slot, old_touched));
                }
                sized(&mut ops, OpKind::Realloc, domain, slot, size, touched);
                live.insert(slot, (size, domain, touched_units(size, touched)));
                bytes = bytes - old + size;
                summary.calls_by_phase[phase as usize] += 1;
            }
            EventKind::Advise { slot } => ops.push(Op::new(OpKind::Advise, live[&slot].1, slot, 0)),
            EventKind::ThreadSwitch { thread } => ops.push(none(OpKind::ThreadSwitch, thread)),
            EventKind::ThreadStart { thread } => ops.push(none(OpKind::ThreadStart, thread)),
            EventKind::ThreadEnd { thread } => ops.push(none(OpKind::ThreadEnd, thread)),
            EventKind::GcStart { generation } => ops.push(none(OpKind::GcStart, generation.into())),
            EventKind::GcStop { generation } => ops.push(none(OpKind::GcStop, generation.into())),
            EventKind::Fork => {}
            EventKind::Direct(call) => ops.push(Control::direct(call)),
            EventKind::Mark { mark } => match Phase::from_mark(mark) {
                Some(next) if next <= phase => {}
                next => {
                    if let Some(next) = next {
                        phase = next;
                        summary.phase_ops[next as usize] = Some(ops.len() as u64);
                    }
                    ops.push(none(OpKind::Mark, mark));
                }
            },
        }
        peaks[phase as usize] = peaks[phase as usize].max(bytes);
    }
    summary.ops = ops.len() as u64;
    summary.events = events.len() as u64;
    let has_steady = summary.phase_ops[1].is_some();
    summary.live_bytes_peak_steady = if has_steady { peaks[1] } else { peaks.into_iter().max().unwrap() };
    (ops, summary)
}

fn image(bytes: &[u8], window_ops: usize) -> (Vec<Op>, ImageSummary, Vec<usize>) {
    let mut sink = VecSink::new(window_ops);
    let summary = compile(bytes, &mut sink).unwrap();
    (sink.ops().iter().copied().map(Op).collect(), summary, sink.windows().to_vec())
}

proptest! {
    #[test]
    fn the_image_is_the_events(steps in prop::collection::vec(any_step(), 0..500), window_ops in 4_usize..200) {
        let events = build(&steps);
        let bytes = write(&events, OPTIONS);
        let (ops, summary) = expected(&events);
        let (_, totals) = validate(bytes.as_slice()).unwrap();
        prop_assert_eq!(totals.image_ops, summary.ops);
        let whole = image(&bytes, size_bound(&totals) as usize / 8);
        prop_assert_eq!((&whole.0, &whole.1), (&ops, &summary));
        prop_assert!(whole.2.len() <= 1, "the bound is enough for one window");
        let windows = image(&bytes, window_ops);
        prop_assert_eq!((&windows.0, &windows.1), (&ops, &summary));
        check_windows(&windows.0, &windows.2);
    }

    #[test]
    fn any_flipped_bit_gives_no_image(bit: prop::sample::Index) {
        let mut bytes = write(&build(&Random(3).steps(60)), OPTIONS);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(compile(bytes.as_slice(), &mut VecSink::new(1 << 10)).is_err());
    }

    #[test]
    fn any_bytes_give_no_image_and_no_panic(bytes: Vec<u8>) {
        prop_assert!(compile(bytes.as_slice(), &mut VecSink::new(1 << 10)).is_err());
    }
}

/// No window ends with a prefix.
fn check_windows(ops: &[Op], windows: &[usize]) {
    let mut at = 0;
    for window in windows {
        at += window;
        let last = ops[at - 1].kind();
        let prefixes = [OpKind::Align, OpKind::Touched, OpKind::SizeHigh, OpKind::OldTouched];
        assert!(!prefixes.contains(&last), "a window ends with {last:?}");
    }
    assert_eq!(at, ops.len());
}

#[test]
fn windows_and_blocks_need_not_meet() {
    let events = build(&Random(5).steps(BLOCK_EVENTS * 2 + 999));
    let bytes = write(&events, OPTIONS);
    let (ops, summary) = expected(&events);
    for window_ops in [GROUP_OPS_MAX, 1000, BLOCK_EVENTS, BLOCK_EVENTS + 1] {
        let (windowed, windowed_summary, windows) = image(&bytes, window_ops);
        assert!(windowed == ops, "windows of {window_ops} ops");
        assert_eq!(windowed_summary, summary);
        check_windows(&windowed, &windows);
    }
}

/// A sink whose place runs out.
struct Small([u64; 8], u32);

impl ImageSink for Small {
    fn window(&mut self) -> std::io::Result<&mut [u64]> {
        self.1 += 1;
        if self.1 == 3 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(&mut self.0) }
    }

    fn commit(&mut self, _ops: usize) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_that_fails_ends_the_compilation() {
    let bytes = write(&build(&Random(3).steps(60)), OPTIONS);
    assert!(matches!(compile(bytes.as_slice(), &mut Small([0; 8], 0)), Err(TraceError::Image(_))));
}
