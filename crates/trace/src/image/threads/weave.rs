//! Which edges there are, and which of them need a wait.
//!
//! Invariant: what a thread's clock says of another one is true whenever the thread has got to the group at hand,
//! whatever the scheduler does: it only ever learns by program order, by a wait, by its start or by a join.

use super::{Control, Group, Groups, Op, OpKind, Order, THREADS_REPLAYED_MAX, is_kept};
use crate::{Domain, Phase};
use std::collections::{HashMap, VecDeque};

/// Clocks of a thread that are kept for those who wait for it later. One too few costs a needless wait, no more.
const CLOCKS_KEPT: usize = 64;

/// A point in a thread: a stream's index and a position; position 0 is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Point {
    thread: usize,
    position: u32,
}

/// What is known about one thread.
#[derive(Debug, Default)]
pub(super) struct Thread {
    /// Control ops, and the index of the op in the merged image that each stands before at the latest; ascending.
    pub(super) controls: Vec<(u32, Op)>,
    /// Groups and prefixes that it will have.
    ops: usize,
    /// Index of its last group.
    last_group: usize,
    started: bool,
    /// Its end was recorded, though it may have ops after that.
    ends: bool,
    /// It has ended, and will have no more ops.
    ended: bool,
    /// How far it knows every thread to be.
    clock: Vec<u32>,
    /// Its clock after each of the last changes: from the group with this index on.
    clocks: VecDeque<(u32, Vec<u32>)>,
    /// Slots that it freed, and the position of the free; the last one at the back.
    free_slots: VecDeque<(u32, u32)>,
    /// Position of its latest group.
    position: u32,
}

impl Thread {
    /// An estimate of the length of its stream.
    pub(super) fn room(&self) -> usize {
        self.ops + 2 * self.controls.len()
    }
}

/// The block in a slot of the merged image.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    slot: u32,
    /// The last op on it.
    last: Point,
}

/// The first pass over a merged image: finds edges and renumbers slots.
#[derive(Debug)]
pub(super) struct Weaver {
    order: Order,
    pub(super) threads: Vec<Thread>,
    streams: HashMap<u32, usize>,
    /// Thread as recorded whose ops come now.
    pub(super) recorded_thread: u32,
    pub(super) waits: u64,
    /// Threads that are there, and the most so far.
    live: u32,
    pub(super) lanes: u32,
    /// By slot of the merged image.
    held: Vec<Held>,
    slots_used: u32,
    slots_max: u32,
    /// Slots whose threads have ended, and where they were freed.
    orphans: Vec<(u32, Point)>,
    /// One bit per op of the merged image: whether a thread waits for it.
    signalled: Vec<u64>,
    /// The last group, the last one of a Python domain, the last mark of a phase, and the first of the thread started
    /// last.
    last: Point,
    last_python: Point,
    barrier: Point,
    last_start: Point,
    /// Ended, and not yet joined.
    to_join: Vec<usize>,
    ops: usize,
}

impl Weaver {
    pub(super) fn new(ops: &[u64], slots: u32, slots_max: u32, order: Order) -> Result<Self, String> {
        let mut streams = HashMap::from([(0, 0)]);
        let mut threads = vec![Thread { started: true, ..Thread::default() }];
        for group in Groups::new(ops).filter(|group| is_kept(group.op)) {
            let thread = *streams.entry(group.thread).or_insert(threads.len());
            if thread == threads.len() {
                threads.push(Thread::default());
            }
            threads[thread].last_group = group.at;
            threads[thread].ops += 1 + group.at - group.from;
        }
        let count = threads.len();
        if count > THREADS_REPLAYED_MAX {
            return Err(format!(
                "{count} threads are more than the {THREADS_REPLAYED_MAX} that are replayed as threads; use --threads \
                 merged"
            ));
        }
        threads.iter_mut().for_each(|thread| thread.clock = vec![0; count]);
        Ok(Self {
            order,
            threads,
            streams,
            recorded_thread: 0,
            waits: 0,
            live: 1,
            lanes: 1,
            held: vec![Held::default(); slots as usize],
            slots_used: if order == Order::Total { slots } else { 0 },
            slots_max,
            orphans: Vec::new(),
            signalled: vec![0; ops.len() / 64 + 1],
            last: Point::default(),
            last_python: Point::default(),
            barrier: Point::default(),
            last_start: Point::default(),
            to_join: Vec::new(),
            ops: ops.len(),
        })
    }

    /// The stream of a recorded thread that has groups.
    pub(super) fn stream_of(&self, recorded: u32) -> usize {
        self.streams.get(&recorded).copied().unwrap_or(0)
    }

    pub(super) fn is_signalled(&self, at: usize) -> bool {
        self.signalled[at / 64] >> (at % 64) & 1 != 0
    }

    pub(super) fn slots_used(&self) -> u32 {
        self.slots_used
    }

    /// Takes the next group; gives the slot that it has from now on, if it has one and that is another.
    pub(super) fn take(&mut self, group: Group) -> Option<u32> {
        if group.op.kind() == OpKind::ThreadEnd {
            self.recorded_end(group.op.value(), group.at);
        }
        if !is_kept(group.op) {
            return None;
        }
        let thread = self.stream_of(group.thread);
        let now = Point { thread, position: group.at as u32 + 1 };
        if self.threads[thread].started {
            self.need_joins(thread, group.at);
        } else {
            self.start(thread, group.at);
        }
        let slot = match self.order {
            Order::Total => {
                self.need(thread, self.last, group.at);
                None
            }
            Order::Gil | Order::Free => self.take_apart(group, now),
        };
        self.threads[thread].position = now.position;
        self.last = now;
        if self.threads[thread].ends && self.threads[thread].last_group == group.at {
            self.end(thread);
        }
        slot
    }

    /// In the total order a thread is gone before anything else happens.
    fn need_joins(&mut self, thread: usize, at: usize) {
        if self.order == Order::Total && !self.to_join.is_empty() {
            self.need(thread, self.last, at);
            self.join_all(thread, at);
        }
    }

    fn take_apart(&mut self, group: Group, now: Point) -> Option<u32> {
        let (op, thread, at) = (group.op, now.thread, group.at);
        self.need(thread, self.barrier, at);
        let is_python = matches!(op.domain(), Some(Domain::Mem | Domain::Obj));
        let kind = op.kind();
        let is_call =
            matches!(kind, OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Realloc | OpKind::Free);
        if self.order == Order::Gil && is_python && is_call {
            self.need(thread, self.last_python, at);
            self.last_python = now;
        }
        match kind {
            OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned => {
                let slot = self.new_slot(thread, at);
                *self.held.get_mut(op.slot())? = Held { slot, last: now };
                Some(slot)
            }
            OpKind::Realloc | OpKind::Advise | OpKind::Free => {
                let held = *self.held.get(op.slot())?;
                self.need(thread, held.last, at);
                self.held[op.slot()].last = now;
                if kind == OpKind::Free {
                    self.threads[thread].free_slots.push_back((held.slot, now.position));
                }
                Some(held.slot)
            }
            OpKind::Mark => {
                if Phase::from_mark(op.value()).is_some() {
                    self.meet(now, at);
                }
                None
            }
            OpKind::ThreadSwitch if Control::of(op) == Control::Direct => {
                // What it gives back or changes depends on what every thread did before.
                self.need_all(now, at);
                self.last_python = now;
                None
            }
            _ => None,
        }
    }

    /// Everything before this group is done.
    fn need_all(&mut self, now: Point, at: usize) {
        for other in 0..self.threads.len() {
            let position = self.threads[other].position;
            self.need(now.thread, Point { thread: other, position }, at);
        }
    }

    /// A phase begins: everything before it is done, and nothing after it has begun.
    fn meet(&mut self, now: Point, at: usize) {
        self.need_all(now, at);
        self.join_all(now.thread, at);
        self.barrier = now;
    }

    /// The group at `at` of a thread comes after that point.
    fn need(&mut self, thread: usize, point: Point, at: usize) {
        let Point { thread: source, position } = point;
        if source == thread || position == 0 || self.threads[thread].clock[source] >= position {
            return;
        }
        self.waits += 1;
        let index = position as usize - 1;
        self.signalled[index / 64] |= 1 << (index % 64);
        self.threads[thread].controls.push((at as u32, Control::Wait.op(source as u32, position)));
        let known = self.threads[source].clocks.iter().rev().find(|(from, _)| (*from as usize) < position as usize);
        let known = known.map(|(_, clock)| clock.clone());
        self.threads[thread].clock[source] = position;
        self.learn(thread, known.as_deref(), at);
    }

    /// The thread knows what another one knew, from the group at `at` on.
    fn learn(&mut self, thread: usize, known: Option<&[u32]>, at: usize) {
        let thread = &mut self.threads[thread];
        for (own, known) in thread.clock.iter_mut().zip(known.unwrap_or_default()) {
            *own = (*own).max(*known);
        }
        let mut kept = if thread.clocks.len() < CLOCKS_KEPT {
            Vec::new()
        } else {
            thread.clocks.pop_front().map_or_else(Vec::new, |(_, clock)| clock)
        };
        kept.clone_from(&thread.clock);
        thread.clocks.push_back((at as u32, kept));
    }

    /// Starts a thread whose first group is the one at `at`, from the thread that did something last, or from the
    /// first one, which lives as long as the program. In the total order, in which memory is measured, the first
    /// thread starts all: the C library allocates for a new thread in the arena of the thread that starts it.
    fn start(&mut self, thread: usize, at: usize) {
        let is_first = self.order == Order::Total || self.threads[self.last.thread].ended;
        let by = if is_first { 0 } else { self.last.thread };
        self.need(by, self.last, at);
        self.need(by, self.last_start, at);
        self.join_all(by, at);
        self.threads[by].controls.push((at as u32, Control::Spawn.op(thread as u32, 0)));
        self.threads[thread].started = true;
        self.live += 1;
        self.lanes = self.lanes.max(self.live);
        let mut known = self.threads[by].clock.clone();
        known[by] = self.threads[by].position;
        self.learn(thread, Some(&known), at);
        self.last_start = Point { thread, position: at as u32 + 1 };
    }

    /// A thread's end was recorded at `at`; it ends with its last group.
    fn recorded_end(&mut self, recorded: u32, at: usize) {
        let Some(&thread) = self.streams.get(&recorded).filter(|thread| **thread != 0) else { return };
        self.threads[thread].ends = true;
        let Thread { started, ended, last_group, .. } = self.threads[thread];
        if started && !ended && last_group < at {
            if self.order == Order::Total {
                // What it gives back when it ends it gives back then, and after the threads that ended before it.
                self.need(thread, self.last, at);
                self.join_all(thread, at);
            }
            self.end(thread);
        }
    }

    fn end(&mut self, thread: usize) {
        if std::mem::replace(&mut self.threads[thread].ended, true) {
            return;
        }
        self.to_join.push(thread);
        let slots = std::mem::take(&mut self.threads[thread].free_slots);
        self.orphans.extend(slots.into_iter().map(|(slot, position)| (slot, Point { thread, position })));
    }

    /// Joins every thread that has ended.
    fn join_all(&mut self, by: usize, at: usize) {
        for thread in std::mem::take(&mut self.to_join) {
            // It must have started before it can be joined.
            self.need(by, Point { thread, position: self.threads[thread].position }, at);
            self.live -= 1;
            self.threads[by].controls.push((at as u32, Control::Join.op(thread as u32, 0)));
            let mut known = self.threads[thread].clock.clone();
            known[thread] = u32::MAX;
            self.learn(by, Some(&known), at);
        }
    }

    /// A slot for a new block: one that the thread freed, one of an ended thread that nobody has to be waited for, a
    /// fresh one, or else one that another thread freed.
    fn new_slot(&mut self, thread: usize, at: usize) -> u32 {
        if let Some((slot, _)) = self.threads[thread].free_slots.pop_back() {
            return slot;
        }
        let clock = &self.threads[thread].clock;
        if let Some((slot, _)) = self.orphans.pop_if(|(_, freed)| clock[freed.thread] >= freed.position) {
            return slot;
        }
        if self.slots_used < self.slots_max {
            self.slots_used += 1;
            return self.slots_used - 1;
        }
        let (slot, freed) = self.orphans.pop().unwrap_or_else(|| self.steal());
        self.need(thread, freed, at);
        slot
    }

    /// The slot that was freed longest ago by the thread that has most of them.
    fn steal(&mut self) -> (u32, Point) {
        let richest = (0..self.threads.len()).max_by_key(|thread| self.threads[*thread].free_slots.len()).unwrap_or(0);
        // There are more slots than blocks that ever live at once, so one is free.
        let (slot, position) = self.threads[richest].free_slots.pop_front().unwrap_or_default();
        (slot, Point { thread: richest, position })
    }

    /// The first thread sees all others out.
    pub(super) fn finish(&mut self) {
        let running = (1..self.threads.len()).filter(|thread| self.threads[*thread].started);
        let running: Vec<usize> = running.filter(|thread| !self.threads[*thread].ended).collect();
        running.into_iter().for_each(|thread| self.end(thread));
        self.join_all(0, self.ops);
    }
}
