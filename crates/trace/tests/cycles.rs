//! An image whose section is repeated is an image, and every cycle asks for what was recorded and leaves what the
//! first one left.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::collections::BTreeMap;
use streams::{any_step, build, write};
use trace::image::{
    CYCLE_MARK, Control, Cycles, CyclesFault, ImageSummary, OS_PAGE_BYTES, Op, OpKind, TOUCH_UNIT_BYTES, VecSink,
    compile, repeat,
};
use trace::{DirectiveCall, Domain, Event, EventKind, Phase, WriteOptions};

const FROM: u32 = Phase::Steady as u32;
const TO: u32 = Phase::Drained as u32;

fn image(events: &[Event]) -> (Vec<u64>, ImageSummary) {
    let bytes = write(events, WriteOptions { level: 1, time: false, sites: false });
    let mut sink = VecSink::new(1 << 12);
    let summary = compile(bytes.as_slice(), &mut sink).unwrap();
    (sink.ops().to_vec(), summary)
}

/// The same steps with `steady` and `drained` at two of them, and no other phase marks.
fn with_marks(mut events: Vec<Event>, from: prop::sample::Index, to: prop::sample::Index) -> Vec<Event> {
    events.retain(|event| !matches!(event.kind, EventKind::Mark { mark } if mark < 4));
    let mut places = [from.index(events.len() + 1), to.index(events.len() + 1)];
    places.sort_unstable();
    let mark = |mark: u32| Event { time: 0, kind: EventKind::Mark { mark } };
    events.insert(places[1], mark(TO));
    events.insert(places[0], mark(FROM));
    events
}

/// A live block as the replay would have it: size, domain bits, touched units.
type Block = (u64, usize, u32);

/// What one cycle, or what lies before or after all, asks for and ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    /// Thread, size, domain and touched units of each allocation and reallocation.
    requests: Vec<(u32, u64, usize, Option<u32>)>,
    frees: usize,
    directives: Vec<DirectiveCall>,
    live: Vec<Block>,
}

/// Replays an image on nothing, holds every rule that the real replay does not check, and parts it at cycle marks.
fn parts(ops: &[u64], summary: &ImageSummary) -> Vec<Part> {
    let mut blocks: BTreeMap<usize, Block> = BTreeMap::new();
    let mut parts = vec![Part::default()];
    let (mut high, mut touched, mut old, mut align, mut thread) = (0_u64, None, None, None, 0);
    for (at, op) in ops.iter().map(|word| Op(*word)).enumerate() {
        let (kind, slot, domain) = (op.kind(), op.slot(), op.domain_bits());
        let part = parts.last_mut().unwrap();
        if let Some(call) = Control::call_of(op) {
            part.directives.push(call);
            continue;
        }
        assert!(slot < summary.slots.max(1) as usize, "op {at} lies outside of the table");
        match kind {
            OpKind::SizeHigh => high = u64::from(op.value()) << 32,
            OpKind::Touched => touched = Some(op.value()),
            OpKind::OldTouched => old = Some(op.value()),
            OpKind::Align => align = Some(op.value()),
            OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Realloc => {
                let bytes = high | u64::from(op.value());
                let whole = u32::try_from(bytes.div_ceil(TOUCH_UNIT_BYTES)).unwrap_or(u32::MAX);
                let block = (bytes, domain, touched.unwrap_or(whole).min(whole));
                let before = blocks.insert(slot, block);
                if kind == OpKind::Realloc {
                    let (_, domain_before, units) = before.unwrap_or_else(|| panic!("op {at} resizes nothing"));
                    assert_eq!(domain_before, domain, "op {at}");
                    assert_eq!(old, (bytes > OS_PAGE_BYTES).then_some(units), "old units at op {at}");
                } else {
                    assert_eq!(before, None, "op {at} allocates over a live block");
                    assert_eq!(old, None, "op {at} is no reallocation");
                }
                assert_eq!(align.is_some(), kind == OpKind::AllocAligned, "op {at}");
                part.requests.push((thread, bytes, domain, align));
                (high, touched, old, align) = (0, None, None, None);
            }
            OpKind::Free => {
                let (bytes, domain_before, _) = blocks.remove(&slot).unwrap_or_else(|| panic!("op {at} frees nothing"));
                assert_eq!((domain_before, u32::try_from(bytes).unwrap_or(u32::MAX)), (domain, op.value()), "op {at}");
                part.frees += 1;
            }
            OpKind::Advise => assert_eq!(blocks.get(&slot).map(|b| b.1), Some(domain), "op {at} advises on nothing"),
            OpKind::ThreadSwitch => thread = op.value(),
            OpKind::Mark if op.value() == CYCLE_MARK => {
                part.live = blocks.values().copied().collect();
                part.live.sort_unstable();
                parts.push(Part::default());
            }
            OpKind::Mark | OpKind::GcStart | OpKind::GcStop | OpKind::ThreadStart | OpKind::ThreadEnd => {}
        }
    }
    let last = parts.last_mut().unwrap();
    last.live = blocks.values().copied().collect();
    last.live.sort_unstable();
    parts
}

/// What the result must be for a recorded image.
fn hold(ops: &[u64], summary: &ImageSummary, times: u32) {
    let cycles = Cycles { times, from: FROM, to: TO };
    let first = summary.phase_ops[FROM as usize].unwrap() as usize + 1;
    let end = summary.phase_ops[TO as usize].unwrap() as usize;
    let of_range = |from: usize, to: usize| {
        // Everything before a part decides what is live in it.
        let mut marked = ops[..from].to_vec();
        let mark = Op::new(OpKind::Mark, Domain::Libc, 0, CYCLE_MARK).0;
        marked.push(mark);
        marked.extend(&ops[from..to]);
        marked.push(mark);
        parts(&marked, summary)[1].clone()
    };
    let recorded = of_range(first, end);
    let (repeated, after) = match repeat(ops, summary, cycles) {
        Err(fault) => {
            assert!(fault == CyclesFault::Empty && recorded.requests.is_empty() && recorded.frees == 0);
            return;
        }
        Ok(result) => result,
    };
    if times == 1 {
        assert_eq!((&repeated, &after), (&ops.to_vec(), summary), "once is the image itself");
        return;
    }
    let parts = parts(&repeated, &after);
    assert_eq!(parts.len(), times as usize + 1);
    let before = of_range(0, first);
    assert!(parts[0].requests.starts_with(&before.requests));
    assert_eq!(parts[0].requests[before.requests.len()..], recorded.requests, "the first cycle is the section");
    assert_eq!(parts[0].live, recorded.live);
    for cycle in &parts[1..times as usize] {
        assert_eq!((&cycle.requests, &cycle.live), (&recorded.requests, &recorded.live), "a cycle is the section");
        assert_eq!(cycle.directives, recorded.directives);
        assert!(cycle.frees <= cycle.requests.len());
    }
    let rest = of_range(end, ops.len());
    assert_eq!(parts[times as usize], rest, "what follows is as recorded");
    check_summary(&repeated, summary, &after);
}

fn check_summary(ops: &[u64], before: &ImageSummary, after: &ImageSummary) {
    assert_eq!(after.ops, ops.len() as u64);
    let calls = |op: &&u64| {
        matches!(
            Op(**op).kind(),
            OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Free | OpKind::Realloc
        )
    };
    assert_eq!(after.calls_by_phase.iter().sum::<u64>(), ops.iter().filter(calls).count() as u64);
    assert_eq!(after.calls_by_phase[0], before.calls_by_phase[0]);
    for phase in [FROM, TO] {
        let at = after.phase_ops[phase as usize].unwrap() as usize;
        assert_eq!((Op(ops[at]).kind(), Op(ops[at]).value()), (OpKind::Mark, phase));
    }
    assert!(after.live_bytes_peak_steady >= before.live_bytes_peak_steady);
}

proptest! {
    #[test]
    fn cycles_are_the_section(
        steps in prop::collection::vec(any_step(), 1..300),
        from: prop::sample::Index,
        to: prop::sample::Index,
        times in 1_u32..6,
    ) {
        let (ops, summary) = image(&with_marks(build(&steps), from, to));
        hold(&ops, &summary, times);
    }
}

/// An image from ops written by hand, steady and drained around the section.
fn by_hand(before: &[Op], section: &[Op], after: &[Op]) -> (Vec<u64>, ImageSummary) {
    let mark = |mark: u32| Op::new(OpKind::Mark, Domain::Libc, 0, mark);
    let ops: Vec<Op> = [before, &[mark(FROM)], section, &[mark(TO)], after].concat();
    let slots = ops.iter().map(|op| op.slot() as u32 + 1).max().unwrap();
    let summary = ImageSummary { ops: ops.len() as u64, slots, ..ImageSummary::default() };
    (ops.into_iter().map(|op| op.0).collect(), summary)
}

fn op(kind: OpKind, slot: u32, value: u32) -> Op {
    Op::new(kind, Domain::Obj, slot, value)
}

#[test]
fn a_cache_entry_is_replaced_by_its_successor() {
    let (alloc, free) = (OpKind::Alloc, OpKind::Free);
    // An old entry goes, a temporary comes and goes in its slot, and a new entry stays there.
    let section = [op(free, 0, 10), op(alloc, 0, 20), op(free, 0, 20), op(alloc, 0, 30)];
    let (ops, summary) = by_hand(&[op(alloc, 0, 10)], &section, &[op(free, 0, 30)]);
    let (repeated, after) = repeat(&ops, &summary, Cycles { times: 3, from: FROM, to: TO }).unwrap();
    let calls: Vec<Op> = repeated.iter().map(|word| Op(*word)).filter(|op| op.kind() != OpKind::Mark).collect();
    let expected = [
        vec![op(alloc, 0, 10)],
        vec![op(free, 0, 10), op(alloc, 0, 20), op(free, 0, 20), op(alloc, 1, 30)],
        vec![op(alloc, 0, 20), op(free, 0, 20), op(alloc, 2, 30), op(free, 1, 30)],
        vec![op(alloc, 0, 20), op(free, 0, 20), op(alloc, 1, 30), op(free, 2, 30)],
        vec![op(free, 1, 30)],
    ];
    assert_eq!((calls, after.slots), (expected.concat(), 3));
}

#[test]
fn threads_are_there_when_a_cycle_begins() {
    let thread = |kind, id| Op::new(kind, Domain::Libc, 0, id);
    let (switch, start, end) = (OpKind::ThreadSwitch, OpKind::ThreadStart, OpKind::ThreadEnd);
    // Thread 1 ends here, thread 2 has all its life here, thread 3 begins here and stays.
    let section = [
        thread(switch, 1),
        op(OpKind::Alloc, 0, 8),
        thread(end, 1),
        thread(start, 2),
        thread(switch, 2),
        op(OpKind::Free, 0, 8),
        thread(end, 2),
        thread(start, 3),
        thread(switch, 3),
    ];
    let (ops, summary) = by_hand(&[thread(start, 1)], &section, &[]);
    let (repeated, _) = repeat(&ops, &summary, Cycles { times: 2, from: FROM, to: TO }).unwrap();
    let at = repeated.iter().position(|word| Op(*word).value() == CYCLE_MARK).unwrap();
    let second: Vec<Op> = repeated[at + 1..].iter().map(|word| Op(*word)).collect();
    let expected = [
        vec![thread(start, 1), thread(switch, 0)],
        section[..7].to_vec(),
        section[8..].to_vec(), // thread 3 lives already
        vec![thread(OpKind::Mark, CYCLE_MARK), thread(OpKind::Mark, TO)],
    ];
    assert_eq!(second, expected.concat());
}

#[test]
fn a_section_has_two_marks_and_something_between() {
    let (ops, summary) = by_hand(&[], &[op(OpKind::Alloc, 0, 8)], &[]);
    let of = |from, to| repeat(&ops, &summary, Cycles { times: 2, from, to }).map(|_| ()).unwrap_err();
    assert_eq!(of(TO, FROM), CyclesFault::NoSection);
    assert_eq!(of(FROM, 5), CyclesFault::NoSection);
    assert_eq!(of(Phase::Startup as u32, FROM), CyclesFault::Empty);
    assert!(repeat(&ops, &summary, Cycles { times: 2, from: Phase::Startup as u32, to: TO }).is_ok());
}
