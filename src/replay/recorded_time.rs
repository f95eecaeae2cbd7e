//! The recorded time in a footprint pass: served as virtual time, waited for in real time, or left out.
//!
//! Invariant: time never goes back. Idle time that a pass adds moves every later moment by as much.

use crate::probe::{clock, sys, virtual_time};
use crate::run::Time;
use trace::image::PACE_GAP_NS;

/// Where a pass is in the recorded time.
pub(crate) struct RecordedTime {
    kind: Time,
    /// How many times faster than recorded real time passes.
    pace: u32,
    /// Pairs as in [`trace::image::Moments`]; those before `next` have come.
    moments: &'static [u64],
    next: usize,
    /// The op of the next moment.
    next_op: u64,
    /// When the replay began, and when it last waited, on the clock of [`RecordedTime::now_ns`].
    started_ns: u64,
    waited_ns: u64,
    /// Idle time that the pass has added.
    added_ns: u64,
    /// Most threads that the replay itself has at once, and how many there were instead.
    threads_max: u32,
    strangers: Option<u32>,
}

impl RecordedTime {
    pub(crate) fn new(kind: Time, pace: u32, moments: &'static [u64], threads_max: u32) -> Self {
        Self {
            kind,
            pace: pace.max(1),
            moments,
            next: 0,
            next_op: moments.first().copied().unwrap_or(u64::MAX),
            started_ns: 0,
            waited_ns: 0,
            added_ns: 0,
            threads_max,
            strangers: None,
        }
    }

    /// Which time the allocators meet.
    pub(crate) fn kind(&self) -> Time {
        self.kind
    }

    /// The replay begins.
    pub(crate) fn start(&mut self) {
        if self.kind == Time::Virtual {
            virtual_time::begin();
        }
        self.started_ns = self.now_ns();
        self.waited_ns = self.started_ns;
    }

    /// The replay is over.
    pub(crate) fn end(&mut self) {
        self.look_for_strangers();
        if self.kind == Time::Virtual {
            virtual_time::end();
        }
    }

    /// What the allocators' clock shows, from an unknown start.
    pub(crate) fn now_ns(&self) -> u64 {
        if self.kind == Time::Virtual { virtual_time::elapsed_ns() } else { clock::now_ns() }
    }

    /// Has time pass until then.
    pub(crate) fn pass_until(&self, ns: u64) {
        if self.kind == Time::Virtual { virtual_time::advance_to(ns) } else { sys::sleep_until_ns(ns) }
    }

    /// The op with this index comes next.
    #[inline]
    pub(crate) fn reach(&mut self, op: u64) {
        if op >= self.next_op {
            self.catch_up(op);
        }
    }

    #[cold]
    fn catch_up(&mut self, op: u64) {
        let mut recorded_ns = 0;
        while let Some([at, ns]) = self.moments.get(self.next..self.next + 2)
            && *at <= op
        {
            recorded_ns = *ns;
            self.next += 2;
        }
        self.next_op = self.moments.get(self.next).copied().unwrap_or(u64::MAX);
        let until = (self.started_ns + self.added_ns).saturating_add(recorded_ns / u64::from(self.pace));
        // To wait for less takes longer than that.
        if self.kind == Time::Virtual || until >= self.waited_ns.saturating_add(PACE_GAP_NS) {
            self.waited_ns = until;
            self.pass_until(until);
        }
    }

    /// The time since then was not recorded: the pass idled.
    pub(crate) fn added(&mut self, since_ns: u64) {
        self.added_ns += self.now_ns().saturating_sub(since_ns);
    }

    /// Notes threads that are none of the replay's: virtual time does not wake them.
    pub(crate) fn look_for_strangers(&mut self) {
        if self.kind == Time::Virtual && self.strangers.is_none() {
            self.strangers = sys::threads().filter(|threads| *threads > self.threads_max);
        }
    }

    /// How many threads there were, if an allocator started one.
    pub(crate) fn strangers(&self) -> Option<u32> {
        self.strangers
    }
}
