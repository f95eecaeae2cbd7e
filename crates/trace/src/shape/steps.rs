//! Requests and live bytes by domain between the sizes that allocators' settings tell apart, and who asks `malloc`.
//!
//! Invariant: a block is in the step of its present size; what is counted of requests belongs to the phase that the
//! headline covers.

use super::{STEP_BOUNDS, Shape, SizeStep};
use crate::{Domain, Phase};
use std::collections::BTreeSet;

const DOMAINS: usize = Domain::ALL.len();
const STEPS: usize = STEP_BOUNDS.len();

/// The counts while events pass by.
#[derive(Default)]
pub(super) struct Steps {
    counts: [[SizeStep; STEPS]; DOMAINS],
    live: [[u64; STEPS]; DOMAINS],
    /// Requests count up to the first mark after `steady`.
    is_over: bool,
    is_steady: bool,
    has_rest: bool,
    threads: BTreeSet<u32>,
    alive: BTreeSet<u32>,
    at_once: usize,
    /// The thread that asked last, so that most requests look into no set.
    last: Option<u32>,
}

fn step(size: u64) -> usize {
    STEP_BOUNDS.iter().position(|bound| size <= *bound).unwrap_or(STEPS - 1)
}

impl Steps {
    /// An allocation, or a reallocation by its new size.
    pub(super) fn request(&mut self, domain: Domain, size: u64, thread: u32) {
        let step = step(size);
        self.live[domain as usize][step] += size;
        if !self.is_over {
            let count = &mut self.counts[domain as usize][step];
            count.requests += 1;
            count.bytes = count.bytes.saturating_add(size);
        }
        let in_pools = step == 0 && matches!(domain, Domain::Mem | Domain::Obj);
        if domain != Domain::Arrow && !in_pools && self.last != Some(thread) {
            self.last = Some(thread);
            self.threads.insert(thread);
            self.alive.insert(thread);
            self.at_once = self.at_once.max(self.alive.len());
        }
    }

    /// A block of this size is freed, or about to have another size.
    pub(super) fn drop(&mut self, domain: u8, size: u64) {
        self.live[usize::from(domain)][step(size)] -= size;
    }

    pub(super) fn thread_ends(&mut self, thread: u32) {
        self.alive.remove(&thread);
        self.last = None;
    }

    /// What is live now is what is live at the peak.
    pub(super) fn note_peak(&mut self) {
        self.note(|count, live| count.live_bytes_peak = live);
    }

    pub(super) fn phase(&mut self, phase: Phase) {
        match phase {
            Phase::Startup => {}
            Phase::Steady => {
                self.counts = Default::default();
                self.is_steady = true;
            }
            Phase::Drained | Phase::Finalising => {
                self.is_over = self.is_steady;
                self.note_rest();
            }
        }
    }

    fn note_rest(&mut self) {
        if !self.has_rest {
            self.has_rest = true;
            self.note(|count, live| count.live_bytes_rest = live);
        }
    }

    fn note(&mut self, set: fn(&mut SizeStep, u64)) {
        for (counts, live) in self.counts.iter_mut().zip(&self.live) {
            counts.iter_mut().zip(live).for_each(|(count, live)| set(count, *live));
        }
    }

    pub(super) fn finish(mut self, shape: &mut Shape) {
        self.note_rest();
        let used = Domain::ALL.iter().zip(self.counts).filter(|(_, counts)| *counts != [SizeStep::default(); STEPS]);
        shape.steps_by_domain = used.map(|(domain, counts)| (domain.name().to_owned(), counts)).collect();
        shape.malloc_threads = self.threads.len() as u32;
        shape.malloc_threads_at_once = self.at_once as u32;
    }
}
