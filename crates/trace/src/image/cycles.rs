//! Repeats what lies between two marks of an image, so that a replay tells a plateau from a slope.
//!
//! The ops between the marks come N times, each time followed by a mark of its own, [`CYCLE_MARK`]. A recording goes
//! through its work once, so later cycles have to say what becomes of blocks that cross the section's borders:
//! - A block from before the section that the section frees is freed in the first cycle only. Where a later cycle
//!   would resize it, it allocates.
//! - A block that a cycle leaves behind is replaced by its successor: once the next cycle has allocated that, the
//!   older one is freed, as an entry of a dictionary is when a new value has taken its place.
//!
//! So every cycle ends with the same blocks live, of the same sizes, and what then still grows is not the program's.
//! Programs that do grow with every cycle cannot be told from those that do not: what the first cycle adds stays.
//!
//! Invariant: made from an image whose every slot is live or empty as its ops need, the result is such an image; one
//! cycle is the image itself. Every cycle begins on the thread that the recorded section began on, with its threads.

use super::{Control, ImageSummary, Op, OpKind, units};
use crate::{Phase, SLOTS_MAX};
use std::collections::{HashMap, HashSet};

/// The mark at the end of each cycle. No trace has it: marks of a trace are indices of names.
pub const CYCLE_MARK: u32 = u32::MAX;

/// What to repeat, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycles {
    /// How often it comes in all, at least once.
    pub times: u32,
    /// The mark that it follows.
    pub from: u32,
    /// The mark that it ends before: the first such one after `from`.
    pub to: u32,
}

/// Why nothing can be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CyclesFault {
    /// The marks are not there in that order.
    #[error("its first mark is missing, or no second one follows it")]
    NoSection,
    /// Both ends of a section stand beside each other.
    #[error("nothing is called between the two marks")]
    Empty,
    /// The blocks that cycles leave behind need more slots than there are.
    #[error("its cycles hold more blocks than the {SLOTS_MAX} that an image can")]
    Slots,
}

/// The image with its section repeated.
///
/// # Errors
/// When there is no such section, or it leaves too many blocks behind.
pub fn repeat(ops: &[u64], summary: &ImageSummary, cycles: Cycles) -> Result<(Vec<u64>, ImageSummary), CyclesFault> {
    let (first, end) = section(ops, cycles).ok_or(CyclesFault::NoSection)?;
    if !ops[first..end].iter().any(|word| is_call(Op(*word).kind())) {
        return Err(CyclesFault::Empty);
    }
    if cycles.times <= 1 {
        return Ok((ops.to_vec(), summary.clone()));
    }
    let survivors = survivors(&ops[first..end]);
    let slots = summary.slots as usize + 2 * survivors.len();
    if slots > SLOTS_MAX as usize {
        return Err(CyclesFault::Slots);
    }
    let mut writer = Writer::new(summary.slots, survivors, ops.len() + (end - first) * cycles.times as usize);
    writer.plain(&ops[..first]);
    writer.repeat(&ops[first..end], cycles.times);
    writer.plain(&ops[end..]);
    let repeated = writer.out;
    let summary = recount(&repeated, summary, slots as u32);
    Ok((repeated, summary))
}

/// About how many ops [`repeat`] makes of these: what cycles free of each other comes on top, and is little.
#[must_use]
pub fn repeated_ops(ops: &[u64], cycles: Cycles) -> u64 {
    let (first, end) = section(ops, cycles).unwrap_or((0, 0));
    (ops.len() as u64).saturating_add((end - first) as u64 * u64::from(cycles.times.saturating_sub(1)))
}

/// The ops between the marks.
fn section(ops: &[u64], cycles: Cycles) -> Option<(usize, usize)> {
    let find = |mark: u32, from: usize| {
        let is_it = |word: &u64| Op(*word).kind() == OpKind::Mark && Op(*word).value() == mark;
        ops[from..].iter().position(is_it).map(|at| from + at)
    };
    // A trace begins in its start-up, without a mark.
    let first = if cycles.from == Phase::Startup as u32 { 0 } else { find(cycles.from, 0)? + 1 };
    Some((first, find(cycles.to, first)?))
}

fn is_call(kind: OpKind) -> bool {
    is_alloc(kind) || matches!(kind, OpKind::Free | OpKind::Realloc)
}

fn is_alloc(kind: OpKind) -> bool {
    matches!(kind, OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned)
}

fn is_prefix(kind: OpKind) -> bool {
    matches!(kind, OpKind::Align | OpKind::Touched | OpKind::SizeHigh | OpKind::OldTouched)
}

/// A block that the section allocates and leaves live.
#[derive(Clone, Copy, Debug)]
struct Survivor {
    /// Which of them it is.
    number: u32,
    /// The free that ends it, but for its slot.
    free: Op,
}

/// The blocks that a section leaves behind, by the index of the op that allocates them, and the slots that they are in.
fn survivors(section: &[u64]) -> HashMap<usize, Survivor> {
    let mut born: HashMap<usize, (usize, Op)> = HashMap::new();
    let mut high = 0;
    for (at, op) in section.iter().map(|word| Op(*word)).enumerate() {
        let kind = op.kind();
        if kind == OpKind::SizeHigh {
            high = op.value();
            continue;
        }
        // A free says the size as far as 32 bits can.
        let value = if high > 0 { u32::MAX } else { op.value() };
        let free = with_value(Op((op.0 & !15) | OpKind::Free as u64), value);
        if is_alloc(kind) {
            born.insert(op.slot(), (at, free));
        } else if kind == OpKind::Realloc {
            born.entry(op.slot()).and_modify(|(_, last)| *last = free);
        } else if kind == OpKind::Free {
            born.remove(&op.slot());
        }
        if is_call(kind) {
            high = 0;
        }
    }
    let mut left: Vec<(usize, Op)> = born.into_values().collect();
    left.sort_unstable_by_key(|(at, _)| *at);
    let numbered = left.into_iter().zip(0..).map(|((at, free), number)| (at, Survivor { number, free }));
    numbered.collect()
}

fn with_value(op: Op, value: u32) -> Op {
    Op((op.0 & u64::from(u32::MAX)) | (u64::from(value) << 32))
}

fn with_slot(op: Op, slot: u32) -> Op {
    const BITS: u64 = ((1 << 25) - 1) << 7;
    Op((op.0 & !BITS) | (u64::from(slot) << 7))
}

/// What is known where the next op is written.
struct Writer {
    out: Vec<u64>,
    survivors: HashMap<usize, Survivor>,
    /// The first of the slots that survivors have to themselves, two each, taken in turn.
    survivor_slots: u32,
    /// By recorded slot: whether a block is in it, and the slot that this block has in the result.
    live: Vec<bool>,
    place: Vec<u32>,
    /// Touched units of blocks that the section has allocated or resized, by recorded slot.
    touched: HashMap<usize, u32>,
    thread: u32,
    /// Whether a thread that has begun or ended lives.
    alive: HashMap<u32, bool>,
    /// Which cycle this is, from 0, and how many there are; no cycles outside of the section.
    cycle: Option<(u32, u32)>,
}

impl Writer {
    fn new(slots: u32, survivors: HashMap<usize, Survivor>, capacity: usize) -> Self {
        Self {
            out: Vec::with_capacity(capacity),
            survivors,
            survivor_slots: slots,
            live: vec![false; slots as usize],
            place: (0..slots).collect(),
            touched: HashMap::new(),
            thread: 0,
            alive: HashMap::new(),
            cycle: None,
        }
    }

    /// Writes ops as they are, but for slots.
    fn plain(&mut self, ops: &[u64]) {
        self.cycle = None;
        self.groups(ops);
    }

    fn repeat(&mut self, section: &[u64], times: u32) {
        let thread = self.thread;
        let restarted = ended_first(section);
        let moved: Vec<usize> = self.survivors.keys().map(|at| Op(section[*at]).slot()).collect();
        for cycle in 0..times {
            self.cycle = Some((cycle, times));
            if cycle > 0 {
                for started in &restarted {
                    self.lifetime(Op::new(OpKind::ThreadStart, crate::Domain::Libc, 0, *started));
                }
                if self.thread != thread {
                    self.control(OpKind::ThreadSwitch, thread);
                    self.thread = thread;
                }
                // What the last cycle left is out of the way of what this one allocates.
                for slot in &moved {
                    self.live[*slot] = false;
                    self.place[*slot] = *slot as u32;
                }
            }
            self.groups(section);
            self.control(OpKind::Mark, CYCLE_MARK);
        }
    }

    fn control(&mut self, kind: OpKind, value: u32) {
        self.out.push(Op::new(kind, crate::Domain::Libc, 0, value).0);
    }

    fn groups(&mut self, ops: &[u64]) {
        let mut from = 0;
        while from < ops.len() {
            let run = ops[from..].iter().take_while(|word| is_prefix(Op(**word).kind())).count();
            let at = from + run;
            let Some(word) = ops.get(at) else { break };
            let advised = ops.get(at + 1).map(|next| Op(*next)).filter(|next| {
                is_alloc(Op(*word).kind()) && next.kind() == OpKind::Advise && next.slot() == Op(*word).slot()
            });
            self.group(&ops[from..at], Op(*word), at, advised);
            from = at + 1 + usize::from(advised.is_some());
        }
    }

    /// Writes an op with its prefixes, and the advice on the block that it allocates.
    fn group(&mut self, prefixes: &[u64], op: Op, at: usize, advised: Option<Op>) {
        let again = self.cycle.is_some_and(|(cycle, _)| cycle > 0);
        let slot = op.slot();
        match op.kind() {
            OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned => {
                let survivor = self.cycle.and_then(|(cycle, _)| Some((cycle, *self.survivors.get(&at)?)));
                let of_turn = |number: u32, turn: u32| self.survivor_slots + 2 * number + turn % 2;
                let place = survivor.map_or(slot as u32, |(cycle, of)| of_turn(of.number, cycle));
                let before = survivor.filter(|(cycle, _)| *cycle > 0);
                let before = before.map(|(cycle, of)| with_slot(of.free, of_turn(of.number, cycle - 1)));
                self.live[slot] = true;
                self.place[slot] = place;
                self.sized(prefixes, op, op.kind());
                // The replay looks for advice right behind its block.
                self.out.extend(advised.map(|advice| with_slot(advice, place).0));
                self.out.extend(before.map(|free| free.0));
            }
            OpKind::Realloc if again && !self.live[slot] => {
                self.live[slot] = true;
                self.place[slot] = slot as u32;
                self.sized(prefixes, op, OpKind::Alloc);
            }
            OpKind::Realloc => self.sized(prefixes, op, OpKind::Realloc),
            OpKind::Free | OpKind::Advise if !self.live[slot] => {}
            OpKind::Free => {
                self.out.push(with_slot(op, self.place[slot]).0);
                self.live[slot] = false;
            }
            OpKind::Advise => self.out.push(with_slot(op, self.place[slot]).0),
            OpKind::Mark => {
                // A phase begins once, in the last cycle.
                let is_kept = self.cycle.is_none_or(|(cycle, times)| cycle + 1 == times);
                if is_kept || Phase::from_mark(op.value()).is_none() {
                    self.out.push(op.0);
                }
            }
            OpKind::ThreadSwitch if Control::of(op) == Control::Direct => self.out.push(op.0),
            OpKind::ThreadSwitch => {
                self.thread = op.value();
                self.out.push(op.0);
            }
            OpKind::ThreadStart | OpKind::ThreadEnd => self.lifetime(op),
            _ => self.out.push(op.0),
        }
    }

    /// A thread begins or ends; in a later cycle only one that does not live, or that does.
    fn lifetime(&mut self, op: Op) {
        let again = self.cycle.is_some_and(|(cycle, _)| cycle > 0);
        let begins = op.kind() == OpKind::ThreadStart;
        let was_alive = self.alive.insert(op.value(), begins);
        if !again || was_alive != Some(begins) {
            self.out.push(op.0);
        }
    }

    /// An allocation or reallocation with its prefixes, into the place of its slot.
    fn sized(&mut self, prefixes: &[u64], op: Op, kind: OpKind) {
        let (slot, place) = (op.slot(), self.place[op.slot()]);
        let again = self.cycle.is_some_and(|(cycle, _)| cycle > 0);
        let (mut high, mut touched) = (0, None);
        for prefix in prefixes.iter().map(|word| Op(*word)) {
            let mut value = prefix.value();
            match prefix.kind() {
                OpKind::OldTouched if kind != OpKind::Realloc => continue,
                // In a later cycle the block may be the one that the cycle before resized.
                OpKind::OldTouched if again => value = self.touched.get(&slot).copied().unwrap_or(value),
                OpKind::SizeHigh => high = u64::from(value) << 32,
                OpKind::Touched => touched = Some(value),
                _ => {}
            }
            self.out.push(with_value(with_slot(prefix, place), value).0);
        }
        let bytes = high | u64::from(op.value());
        if self.cycle.is_some() {
            let whole = units(bytes);
            self.touched.insert(slot, touched.map_or(whole, |touched: u32| touched.min(whole)));
        }
        self.out.push((with_slot(op, place).0 & !15) | kind as u64);
    }
}

/// Threads that end in a section that they did not begin in: every cycle but the first has to begin them.
fn ended_first(section: &[u64]) -> Vec<u32> {
    let mut seen = HashSet::new();
    let mut ended = Vec::new();
    for op in section.iter().map(|word| Op(*word)) {
        match op.kind() {
            OpKind::ThreadStart => {
                seen.insert(op.value());
            }
            OpKind::ThreadEnd if seen.insert(op.value()) => ended.push(op.value()),
            _ => {}
        }
    }
    ended
}

/// The summary of an image with other ops than it had.
fn recount(ops: &[u64], before: &ImageSummary, slots: u32) -> ImageSummary {
    let mut sizes = vec![0_u64; slots as usize];
    let (mut live, mut peak, mut peaks, mut high) = (0_u64, 0_u64, [0_u64; 4], 0_u64);
    let mut phase = Phase::Startup;
    let mut summary = ImageSummary {
        ops: ops.len() as u64,
        slots,
        calls_by_phase: [0; 4],
        phase_ops: [Some(0), None, None, None],
        ..before.clone()
    };
    for (at, op) in ops.iter().map(|word| Op(*word)).enumerate() {
        let kind = op.kind();
        if kind == OpKind::SizeHigh {
            high = u64::from(op.value()) << 32;
        } else if is_call(kind) {
            let bytes = if kind == OpKind::Free { 0 } else { std::mem::take(&mut high) | u64::from(op.value()) };
            live = live + bytes - std::mem::replace(&mut sizes[op.slot()], bytes);
            peak = peak.max(live);
            summary.calls_by_phase[phase as usize] += 1;
        } else if let (OpKind::Mark, Some(next)) = (kind, Phase::from_mark(op.value())) {
            peaks[phase as usize] = peak;
            (phase, peak) = (next, live);
            summary.phase_ops[phase as usize] = Some(at as u64);
        }
    }
    peaks[phase as usize] = peak;
    let has_steady = summary.phase_ops[Phase::Steady as usize].is_some();
    let of_all = peaks.into_iter().max().unwrap_or(0);
    summary.live_bytes_peak_steady = if has_steady { peaks[Phase::Steady as usize] } else { of_all };
    summary
}
