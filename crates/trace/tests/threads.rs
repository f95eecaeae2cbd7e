//! Streams of threads hold what the merged image holds, and no scheduler can make them go wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod streams;

use proptest::prelude::*;
use std::collections::BTreeMap;
use streams::{Random, any_step, build, write};
use trace::image::{
    Control, ImageSummary, Op, OpKind, Order, RecordedClock, ThreadedImage, VecSink, apart, compile, moments,
};
use trace::{Directive, DirectiveCall, Domain, Event, TIME_UNIT_TICKS, TraceReader, WriteOptions};

const OPTIONS: WriteOptions = WriteOptions { level: 1, time: true, sites: true };

fn merged(events: &[Event]) -> (Vec<u64>, ImageSummary) {
    let mut sink = VecSink::new(1 << 16);
    let summary = compile(write(events, OPTIONS).as_slice(), &mut sink).unwrap();
    (sink.ops().to_vec(), summary)
}

fn is_prefix(op: Op) -> bool {
    matches!(op.kind(), OpKind::Align | OpKind::Touched | OpKind::SizeHigh | OpKind::OldTouched)
}

/// What an op controls in the replay; a directive is the program's own.
fn control(op: Op) -> Option<Control> {
    (op.kind() == OpKind::ThreadSwitch).then(|| Control::of(op)).filter(|control| *control != Control::Direct)
}

fn is_life(op: Op) -> bool {
    matches!(op.kind(), OpKind::ThreadStart | OpKind::ThreadEnd) || control(op).is_some()
}

/// An op as it is whatever slot it has.
fn slotless(op: Op) -> u64 {
    op.0 & !(((1 << 25) - 1) << 7)
}

/// Per thread, in the order of their first ops, what is in its stream: told from the merged image.
fn expected(ops: &[u64]) -> Vec<Vec<u64>> {
    let mut by_thread: Vec<(u32, Vec<u64>)> = vec![(0, Vec::new())];
    let mut thread = 0;
    for op in ops.iter().map(|word| Op(*word)) {
        match op.kind() {
            OpKind::ThreadSwitch if is_life(op) => thread = op.value(),
            _ if is_life(op) => {}
            _ => {
                let at = by_thread.iter().position(|(known, _)| *known == thread).unwrap_or(by_thread.len());
                if at == by_thread.len() {
                    by_thread.push((thread, Vec::new()));
                }
                by_thread[at].1.push(slotless(op));
            }
        }
    }
    by_thread.into_iter().map(|(_, ops)| ops).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Unborn,
    Running,
    Done,
}

/// What a scheduler that picks any runnable thread has seen.
struct Machine<'a> {
    image: &'a ThreadedImage,
    at: Vec<usize>,
    reached: Vec<u32>,
    life: Vec<Life>,
    /// The block in each slot: its requested size, or none.
    live: BTreeMap<usize, (Option<Domain>, u32)>,
    /// The ops in the order in which they ran, with their threads.
    ran: Vec<(usize, Op)>,
}

impl<'a> Machine<'a> {
    fn new(image: &'a ThreadedImage) -> Self {
        let count = image.streams.len();
        let mut life = vec![Life::Unborn; count];
        life[0] = Life::Running;
        let live = BTreeMap::new();
        Self { image, at: vec![0; count], reached: vec![0; count], life, live, ran: Vec::new() }
    }

    fn next(&self, thread: usize) -> Option<Op> {
        self.image.streams[thread].get(self.at[thread]).map(|word| Op(*word))
    }

    fn can_run(&self, thread: usize) -> bool {
        let next = self.next(thread);
        self.life[thread] == Life::Running
            && match next.and_then(control) {
                Some(Control::Wait) => self.reached[next.unwrap().slot()] >= next.unwrap().value(),
                Some(Control::Join) => self.life[next.unwrap().slot()] == Life::Done,
                _ => true,
            }
    }

    /// Runs one op of a thread, or notes its end.
    fn step(&mut self, thread: usize) {
        let Some(op) = self.next(thread) else {
            self.life[thread] = Life::Done;
            return;
        };
        self.at[thread] += 1;
        match (op.kind(), control(op)) {
            (_, Some(Control::Signal)) => {
                assert!(self.reached[thread] < op.value());
                self.reached[thread] = op.value();
            }
            (_, Some(Control::Spawn)) => {
                let spawned = std::mem::replace(&mut self.life[op.slot()], Life::Running);
                assert_eq!(spawned, Life::Unborn, "a thread starts once");
            }
            (_, Some(Control::Wait | Control::Join | Control::At)) => {}
            (_, Some(Control::Switch | Control::Direct)) => panic!("{op:?} in a stream"),
            (OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned, _) => {
                assert!(op.slot() < self.image.slots as usize);
                assert!(self.live.insert(op.slot(), (op.domain(), op.value())).is_none(), "slot {} taken", op.slot());
                self.ran.push((thread, op));
            }
            (OpKind::Realloc | OpKind::Advise, _) => {
                assert_eq!(self.live.get(&op.slot()).map(|held| held.0), Some(op.domain()), "{op:?}");
                self.ran.push((thread, op));
            }
            (OpKind::Free, _) => {
                assert_eq!(self.live.remove(&op.slot()).map(|held| held.0), Some(op.domain()), "{op:?}");
                self.ran.push((thread, op));
            }
            (kind, None) if kind != OpKind::ThreadStart && kind != OpKind::ThreadEnd => self.ran.push((thread, op)),
            _ => panic!("{op:?} in a stream"),
        }
    }

    /// Runs everything, each time a thread that `pick` names among those that can run.
    fn run(mut self, mut pick: impl FnMut(usize) -> usize) -> Self {
        while self.life.contains(&Life::Running) {
            let can: Vec<usize> = (0..self.at.len()).filter(|thread| self.can_run(*thread)).collect();
            assert!(!can.is_empty(), "every thread waits: {:?} {:?}", self.at, self.life);
            let thread = can[pick(can.len())];
            self.step(thread);
            while self.next(thread).is_some_and(|_| self.parts_a_group(thread)) {
                self.step(thread);
            }
        }
        assert!(self.life.iter().all(|life| *life == Life::Done), "a thread never started");
        self
    }

    /// Whether the thread stands between prefixes and what they qualify, where no control may be.
    fn parts_a_group(&self, thread: usize) -> bool {
        let last = Op(self.image.streams[thread][self.at[thread] - 1]);
        if is_prefix(last) {
            assert_eq!(self.next(thread).and_then(control), None, "prefixes are parted from their op");
        }
        is_prefix(last)
    }
}

/// The calls that a filter takes, in order, without their slots.
fn calls(ops: impl Iterator<Item = Op>, keep: fn(Op) -> bool) -> Vec<u64> {
    ops.filter(|op| !is_life(*op) && keep(*op)).map(slotless).collect()
}

fn is_python_call(op: Op) -> bool {
    let call = matches!(
        op.kind(),
        OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Realloc | OpKind::Free
    );
    call && matches!(op.domain(), Some(Domain::Mem | Domain::Obj))
}

/// Holds everything that is promised of the streams of these ops, under a scheduler.
fn check(ops: &[u64], summary: &ImageSummary, order: Order, seed: u64) {
    let image = apart(ops.to_vec(), summary.slots, order).unwrap();
    let held: Vec<Vec<u64>> = image
        .streams
        .iter()
        .map(|stream| stream.iter().map(|word| Op(*word)).filter(|op| control(*op).is_none()).map(slotless).collect())
        .collect();
    assert_eq!(held, expected(ops));
    assert!(image.slots <= summary.slots + summary.slots / 2 + 1024);
    let mut random = Random(seed | 1);
    let lazy = seed.is_multiple_of(3); // one thread as long as it can, or any at any time
    let machine = Machine::new(&image).run(|n| if lazy { 0 } else { random.next() as usize % n });
    let ran = || machine.ran.iter().map(|(_, op)| *op);
    let recorded = || ops.iter().map(|word| Op(*word));
    match order {
        Order::Total => assert_eq!(calls(ran(), |_| true), calls(recorded(), |_| true)),
        Order::Gil => assert_eq!(calls(ran(), is_python_call), calls(recorded(), is_python_call)),
        Order::Free => {}
    }
    // The phases part the calls as they did in the recording.
    let by_phase = |ops: &mut dyn Iterator<Item = Op>| {
        let mut counts = vec![BTreeMap::<u64, u32>::new()];
        for op in ops.filter(|op| !is_life(*op)) {
            if op.kind() == OpKind::Mark && op.value() < 4 {
                counts.push(BTreeMap::new());
            }
            *counts.last_mut().unwrap().entry(slotless(op)).or_default() += 1;
        }
        counts
    };
    assert_eq!(by_phase(&mut ran()), by_phase(&mut recorded()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_image_is_taken_apart_and_any_scheduler_may_run_it(
        steps in prop::collection::vec(any_step(), 0..400),
        seed in any::<u64>(),
    ) {
        let (ops, summary) = merged(&build(&steps));
        for order in [Order::Total, Order::Gil, Order::Free] {
            check(&ops, &summary, order, seed);
        }
    }
}

#[test]
fn long_images_of_many_threads_too() {
    for seed in 1..6 {
        let (ops, summary) = merged(&build(&Random(seed * 7919).steps(30_000)));
        for order in [Order::Total, Order::Gil, Order::Free] {
            check(&ops, &summary, order, seed);
        }
    }
}

fn op(kind: OpKind, domain: Domain, slot: u32, value: u32) -> u64 {
    Op::new(kind, domain, slot, value).0
}

fn switch(thread: u32) -> u64 {
    op(OpKind::ThreadSwitch, Domain::Libc, 0, thread)
}

/// The streams of one-domain ops in words.
fn told(image: &ThreadedImage) -> Vec<String> {
    let word = |op: Op| match control(op) {
        Some(Control::Wait) => format!("wait{}@{}", op.slot(), op.value()),
        Some(Control::Signal) => format!("signal@{}", op.value()),
        Some(Control::Spawn) => format!("spawn{}", op.slot()),
        Some(Control::Join) => format!("join{}", op.slot()),
        Some(other) => format!("{other:?}@{}", op.value()),
        None => format!("{:?}{}", op.kind(), op.slot()),
    };
    let line = |stream: &Vec<u64>| stream.iter().map(|w| word(Op(*w))).collect::<Vec<_>>().join(" ");
    image.streams.iter().map(line).collect()
}

#[test]
fn edges_are_where_they_must_be_and_nowhere_else() {
    use OpKind::{Alloc, Free, ThreadEnd, ThreadStart};
    let libc = Domain::Libc;
    let ops = vec![
        op(Alloc, libc, 0, 8),
        op(Alloc, libc, 1, 8),
        op(ThreadStart, libc, 0, 1),
        switch(1),
        op(Free, libc, 0, 8), // known from the start of the thread
        op(Alloc, libc, 0, 8),
        switch(0),
        op(Free, libc, 0, 8), // allocated by the other thread
        op(Free, libc, 1, 8),
        switch(1),
        op(Alloc, libc, 1, 8), // the slot belongs to the other thread: takes a fresh one
        op(ThreadEnd, libc, 0, 1),
        op(ThreadStart, libc, 0, 2),
        switch(2),
        op(Free, libc, 1, 8), // the thread is gone: its start knows
    ];
    let free = apart(ops.clone(), 2, Order::Free).unwrap();
    assert_eq!(
        told(&free),
        [
            "Alloc0 Alloc1 spawn1 wait1@6 Free0 Free1 wait1@11 join1 spawn2 wait2@15 join2",
            "Free0 Alloc0 signal@6 Alloc2 signal@11",
            "Free2 signal@15",
        ]
    );
    let total = apart(ops, 2, Order::Total).unwrap();
    assert_eq!(
        told(&total),
        [
            "Alloc0 Alloc1 spawn1 wait1@6 At@7 Free0 Free1 signal@9 wait1@11 join1 spawn2 wait2@15 join2",
            "At@4 Free0 Alloc0 signal@6 wait0@9 At@10 Alloc1 signal@11",
            "At@14 Free1 signal@15",
        ]
    );
}

#[test]
fn python_calls_keep_their_order_under_the_gil_only() {
    use OpKind::Alloc;
    let ops: Vec<u64> = (0..8)
        .flat_map(|i| {
            let domain = if i % 4 < 2 { Domain::Obj } else { Domain::Arrow };
            [switch(i % 2), op(Alloc, domain, i, 8)]
        })
        .collect();
    let waits = |order| apart(ops.clone(), 8, order).unwrap().waits;
    // The first of the second thread follows from its start; the last wait is for its end.
    assert_eq!((waits(Order::Free), waits(Order::Gil), waits(Order::Total)), (1, 3, 7));
}

#[test]
fn a_directive_comes_after_all_that_was_done_before_it() {
    use OpKind::{Alloc, Free};
    let call = DirectiveCall { directive: Directive::MallocTrim, key: 0, value: 0 };
    let libc = Domain::Libc;
    let ops = vec![
        op(Alloc, libc, 0, 8),
        switch(1),
        op(Alloc, libc, 1, 8),
        op(Free, libc, 1, 8),
        switch(0),
        Control::direct(call).0,
        op(Free, libc, 0, 8),
    ];
    for order in [Order::Free, Order::Gil] {
        let image = apart(ops.clone(), 2, order).unwrap();
        assert_eq!(told(&image), ["Alloc0 spawn1 wait1@4 ThreadSwitch0 Free0 join1", "Alloc1 Free1 signal@4"]);
        assert_eq!(Control::call_of(Op(image.streams[0][3])), Some(call));
    }
}

#[test]
fn moments_name_the_ops_of_the_merged_image() {
    let events: Vec<Event> = build(&Random(99).steps(20_000));
    let (ops, summary) = merged(&events);
    let bytes = write(&events, OPTIONS);
    let clock = RecordedClock { ticks_per_second: 10_000_000, recorder_ps_per_event: 0 };
    let found = moments(TraceReader::new(bytes.as_slice()).unwrap(), clock, usize::MAX).unwrap();
    assert_eq!(found.ops, summary.ops);
    assert!(found.pairs.len() > 1000 && found.pairs.is_sorted());
    // A moment is at the op of its event, before the prefixes of that op and after the op before it.
    for [at, _] in &found.pairs {
        let at = *at as usize;
        assert!(at == 0 || !is_prefix(Op(ops[at - 1])), "moment at op {at} is inside a group");
    }
    let began = |phase: usize| summary.phase_ops[phase].filter(|at| *at > 0);
    let marks: Vec<u64> = (1..4).filter_map(began).collect();
    assert!(!marks.is_empty() && marks.iter().all(|mark| found.pairs.iter().any(|[at, _]| at == mark)));
    let took_ns = (events.last().unwrap().time - events[0].time) * 100;
    assert!(found.last_ns.abs_diff(took_ns) <= 2 * TIME_UNIT_TICKS * 100, "{} {took_ns}", found.last_ns);
}
