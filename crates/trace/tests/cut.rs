//! A cut is a valid trace of the blocks live at the steady mark and of what follows.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::collections::BTreeMap;
use streams::{any_step, build, metadata, read, write};
use trace::{Directive, DirectiveCall, Event, EventKind, Phase, TraceError, WriteOptions, cut, text, validate};

const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

/// The live blocks' sizes and domains, in slot order.
fn live(events: &[Event]) -> Vec<(u64, u8, u8)> {
    let mut blocks = BTreeMap::new();
    for event in events {
        match event.kind {
            EventKind::Alloc { slot, domain, size, align_log2, .. } => {
                _ = blocks.insert(slot, (size, domain as u8, align_log2));
            }
            EventKind::Free { slot } => _ = blocks.remove(&slot),
            EventKind::Realloc { slot, size, .. } => blocks.get_mut(&slot).unwrap().0 = size,
            _ => {}
        }
    }
    blocks.into_values().collect()
}

fn without_marks(steps: &[Event]) -> Vec<Event> {
    steps.iter().copied().filter(|event| !matches!(event.kind, EventKind::Mark { .. })).collect()
}

proptest! {
    #[test]
    fn a_cut_is_the_live_set_and_what_follows(
        steps in prop::collection::vec(any_step(), 1..400),
        at: prop::sample::Index,
        wanted in 0_u64..300,
    ) {
        let mut events = without_marks(&build(&steps));
        let at = at.index(events.len() + 1);
        let time = events.get(at).or(events.last()).map_or(0, |event| event.time);
        events.insert(at, Event { time, kind: EventKind::Mark { mark: Phase::Steady as u32 } });
        let bytes = write(&events, OPTIONS);
        let mut out = Vec::new();
        let totals = cut(bytes.as_slice(), &mut out, wanted, OPTIONS).unwrap();
        let (cut_metadata, cut_totals) = validate(out.as_slice()).unwrap();
        prop_assert_eq!(&cut_totals, &totals);
        let kept = wanted.min((events.len() - at - 1) as u64);
        prop_assert_eq!(cut_metadata.cut, Some((at as u64 + 1, kept)));
        prop_assert_eq!(&cut_metadata.sites, &metadata().sites);

        let cut_events = read(&out).unwrap();
        let is_mark = |event: &Event, phase: Phase| event.kind == EventKind::Mark { mark: phase as u32 };
        let steady = cut_events.iter().position(|event| is_mark(event, Phase::Steady)).unwrap();
        prop_assert_eq!(live(&cut_events[..steady]), live(&events[..at]));
        prop_assert_eq!((cut_events.len() - steady - 2) as u64, kept);
        prop_assert!(is_mark(cut_events.last().unwrap(), Phase::Finalising));
        // The same sizes live at the end of the cut, whatever their slots are.
        let mut at_end = live(&cut_events);
        let mut expected = live(&events[..at + 1 + kept as usize]);
        at_end.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(at_end, expected);
    }
}

fn trace_of(text: &str) -> Vec<u8> {
    let (_, events) = text::parse(text.as_bytes()).unwrap();
    write(&events, OPTIONS)
}

#[test]
fn a_cut_ends_with_the_phase() {
    let bytes = trace_of("a 1 10\nt 3\nm steady\na 2 20\nm drained\nf 1\nf 2\n");
    let mut out = Vec::new();
    let totals = cut(bytes.as_slice(), &mut out, 100, OPTIONS).unwrap();
    assert_eq!((totals.allocs, totals.frees, totals.live_bytes_end), (2, 0, 30));
    let kinds: Vec<EventKind> = read(&out).unwrap().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds[1], EventKind::ThreadSwitch { thread: 3 });
    assert_eq!(*kinds.last().unwrap(), EventKind::Mark { mark: Phase::Finalising as u32 });
}

#[test]
fn what_was_set_before_holds_in_the_cut_and_what_was_done_before_does_not_come_again() {
    let bytes = trace_of(
        "d mallopt -3 65536\na 1 10\nd malloc_trim 0 0\nd mallopt -3 131072\nm steady\nd malloc_trim 0 4096\n",
    );
    let mut out = Vec::new();
    let totals = cut(bytes.as_slice(), &mut out, 100, OPTIONS).unwrap();
    assert_eq!(totals.directives, [("malloc_trim".to_owned(), 1), ("mallopt".to_owned(), 1)].into());
    let kinds: Vec<EventKind> = read(&out).unwrap().into_iter().map(|event| event.kind).collect();
    let call = |directive, key, value| EventKind::Direct(DirectiveCall { directive, key, value });
    assert_eq!(kinds[0], call(Directive::Mallopt, -3, 131_072));
    assert_eq!(kinds[3], call(Directive::MallocTrim, 0, 4096));
}

/// Readings of the whole do not fit what is left of it.
#[test]
fn readings_are_left_out() {
    let (_, events) =
        text::parse(format!("a 1 10\nm steady\n{}m drained\n", "a 2 20\nf 2\n".repeat(20)).as_bytes()).unwrap();
    let reading = trace::MarkReading { mark: Phase::Drained as u32, event: 42, ..trace::MarkReading::default() };
    let whole = trace::Metadata { mark_readings: vec![reading], ..metadata() };
    let mut writer = trace::TraceWriter::new(Vec::new(), &whole, OPTIONS).unwrap();
    events.iter().for_each(|event| writer.push(*event).unwrap());
    let mut out = Vec::new();
    cut(writer.finish().unwrap().0.as_slice(), &mut out, 1, OPTIONS).unwrap();
    validate(out.as_slice()).unwrap();
}

#[test]
fn a_trace_without_the_mark_is_not_cut() {
    for text in ["a 1 10\n", "m drained\nm steady\n"] {
        let mut out = Vec::new();
        assert!(matches!(cut(trace_of(text).as_slice(), &mut out, 1, OPTIONS), Err(TraceError::NoSteady)));
        assert!(out.is_empty());
    }
}
