//! Answers as text that can be kept: every call for people, or a hash of them every 4,096 calls.
//!
//! **Invariant:** the text depends on calls, places and, in a [`Log`], reports, and on nothing else.

use std::fmt::{self, Write};

use libpython::oracle::{Action, Block, Call, Place, Replies};

/// Calls per hash.
const HASH_CALLS: u64 = 4096;
const HASHES_PER_LINE: usize = 6;

/// A rolling hash: that of call n stands for all calls up to n.
pub(crate) struct Hashes {
    state: u64,
    calls: u64,
    hashes: Vec<u64>,
}

impl Hashes {
    pub(crate) fn new() -> Self {
        Self { state: 0x9E37_79B9_7F4A_7C15, calls: 0, hashes: Vec::new() }
    }

    pub(crate) fn add(&mut self, calls: &[Call], replies: &Replies) {
        for (call, place) in calls.iter().zip(&replies.places) {
            // Two rounds of a multiplication by an odd constant and a rotation; both can be undone, so two states meet
            // only by what is mixed in.
            for word in [call.word(), place.word()] {
                self.state = (self.state ^ word).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29);
            }
            self.calls += 1;
            if self.calls.is_multiple_of(HASH_CALLS) {
                self.hashes.push(self.state);
            }
        }
    }

    /// Number of the first call of each line, then hashes; the last one covers the rest.
    pub(crate) fn text(mut self) -> String {
        if !self.calls.is_multiple_of(HASH_CALLS) {
            self.hashes.push(self.state);
        }
        let mut text = format!("{} calls\n", self.calls);
        for (line, hashes) in self.hashes.chunks(HASHES_PER_LINE).enumerate() {
            write!(text, "{:>8}:", line as u64 * HASHES_PER_LINE as u64 * HASH_CALLS).expect("a string takes it");
            for hash in hashes {
                write!(text, " {hash:016x}").expect("a string takes it");
            }
            text.push('\n');
        }
        text
    }
}

/// Every call with its place. Calls that do the same in equal steps share a line; so do pools that are filled alike.
#[derive(Default)]
pub(crate) struct Log {
    text: String,
    calls: u64,
    run: Option<Run>,
    repeated: Option<Repeated>,
}

#[allow(dead_code, reason = "the test of the workloads has no readable logs")]
impl Log {
    pub(crate) fn add(&mut self, calls: &[Call], replies: &Replies) {
        let mut reports = replies.reports.iter();
        for (call, place) in calls.iter().zip(&replies.places) {
            let entry = Entry { call: *call, place: *place };
            if !self.run.as_mut().is_some_and(|run| run.takes(entry)) {
                self.end_run();
                self.run = Some(Run { number: self.calls, first: entry, last: entry, length: 1, steps: (0, 0) });
            }
            self.calls += 1;
            if *call == Call::report() {
                self.end_run();
                self.end_repeated();
                for line in reports.next().map_or("", String::as_str).lines().filter(|line| !line.is_empty()) {
                    writeln!(self.text, "    {line}").expect("a string takes it");
                }
            }
        }
    }

    pub(crate) fn text(mut self) -> String {
        self.end_run();
        self.end_repeated();
        self.text
    }

    fn end_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        if !self.repeated.as_mut().is_some_and(|repeated| repeated.takes(run)) {
            self.end_repeated();
            self.repeated = Some(Repeated { first: run, last: run, times: 1, step: 0 });
        }
    }

    fn end_repeated(&mut self) {
        if let Some(repeated) = self.repeated.take() {
            writeln!(self.text, "{repeated}").expect("a string takes it");
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    call: Call,
    place: Place,
}

impl Entry {
    /// Steps of slot and offset to another entry, if both may share a line.
    fn steps(self, next: Self) -> Option<(isize, isize)> {
        let is_eventful = |entry: Self| entry.place.created().is_some() || entry.place.released().is_some();
        let offset = match (self.place.block(), next.place.block()) {
            (Block::Pool(arena, one), Block::Pool(other, two)) if arena == other => two as isize - one as isize,
            (one, two) if one == two && !matches!(one, Block::Pool(..)) => 0,
            _ => return None,
        };
        let slot = next.call.slot() as isize - self.call.slot() as isize;
        let fits = self.call.action() == next.call.action() && slot.abs() == 1;
        (fits && !is_eventful(self) && !is_eventful(next)).then_some((slot, offset))
    }

    /// Distance of the offsets.
    fn distance(self, next: Self) -> isize {
        match (self.place.block(), next.place.block()) {
            (Block::Pool(_, one), Block::Pool(_, two)) => two as isize - one as isize,
            _ => 0,
        }
    }
}

/// Entries in equal steps.
#[derive(Clone, Copy)]
struct Run {
    number: u64,
    first: Entry,
    last: Entry,
    length: u64,
    steps: (isize, isize),
}

impl Run {
    fn takes(&mut self, entry: Entry) -> bool {
        let steps = self.last.steps(entry);
        let fits = steps.is_some_and(|steps| self.length == 1 || steps == self.steps);
        if let Some(steps) = steps.filter(|_| fits) {
            self.steps = steps;
            self.last = entry;
            self.length += 1;
        }
        fits
    }
}

/// Runs that are alike, each at the same distance from the one before.
struct Repeated {
    first: Run,
    last: Run,
    times: u64,
    step: isize,
}

impl Repeated {
    fn takes(&mut self, run: Run) -> bool {
        let is_alike = (run.length, run.steps) == (self.last.length, self.last.steps) && run.length > 1;
        let goes_on = self.last.last.steps(run.first).is_some_and(|(slot, _)| slot == run.steps.0);
        let step = self.last.first.distance(run.first);
        let fits = is_alike && goes_on && (self.times == 1 || step == self.step);
        if fits {
            self.step = step;
            self.last = run;
            self.times += 1;
        }
        fits
    }
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first: Run { number, first, length, steps, last: row_last }, last: Run { last, .. }, .. } = self;
        let calls = length * self.times;
        if calls == 1 {
            return write!(f, "{number}: {}: {}", first.call, first.place);
        }
        let (from, to) = (first.call.slot(), last.call.slot());
        write!(f, "{number}..{}: ", number + calls - 1)?;
        match first.call.action() {
            Action::Free => write!(f, "free {from}..{to}: ")?,
            Action::Realloc(_) => write!(f, "realloc {from}..{to} to {}: ", first.call.action())?,
            action => write!(f, "{action} into {from}..{to}: ")?,
        }
        match (first.place.block(), row_last.place.block()) {
            (Block::Pool(arena, one), Block::Pool(_, two)) => {
                write!(f, "arena {arena} at {one}..{two} by {}", steps.1)?
            }
            _ => write!(f, "{}", first.place)?,
        }
        if self.times > 1 { write!(f, ", {} times, each {} further", self.times, self.step) } else { Ok(()) }
    }
}
