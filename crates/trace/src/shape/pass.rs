//! The pass over the events that fills a [`Shape`].
//!
//! Invariant: memory is bounded by live blocks; the curve keeps a bounded number of points whatever the length.

use super::steps::Steps;
use super::{COLLECTIONS_MAX, LivePoint, SHAPE_POINTS, Shape};
use crate::error::TraceError;
use crate::format::THREADS_MAX;
use crate::ledger::{Block, MarkEffect, begins_phase, by_domain_name};
use crate::reader::finished;
use crate::{Domain, Event, EventKind, Metadata, Phase, TraceReader};
use std::collections::BTreeSet;
use std::io::Read;

/// Reads a whole trace, checks it as [`crate::validate`] does, and says what its events look like.
///
/// The metadata returned carries the footer's totals.
///
/// # Errors
/// The first [`TraceError`] met.
pub fn shape(from: impl Read) -> Result<(Metadata, Shape), TraceError> {
    let mut reader = TraceReader::new(from)?;
    let mut builder = Builder::default();
    for event in reader.by_ref() {
        builder.event(&event?);
    }
    let (metadata, _) = finished(reader)?;
    Ok((metadata, builder.finish()))
}

/// Ceiling power of two: 0 and 1 give 0, 2 gives 1, 3 and 4 give 2.
fn ceiling_log2(value: u64) -> usize {
    (64 - value.saturating_sub(1).leading_zeros()) as usize
}

/// Adds to an element of a vector that grows as needed.
fn add(sums: &mut Vec<u64>, index: usize, amount: u64) {
    if sums.len() <= index {
        sums.resize(index + 1, 0);
    }
    sums[index] = sums[index].saturating_add(amount);
}

/// What is kept of a live block, in sixteen bytes, since there can be tens of millions.
#[derive(Clone, Copy)]
struct Live {
    block: Block,
    /// Allocations so far, this one included, above the thread's bits.
    born: u64,
}

impl Live {
    /// Bits of a thread id; what is above them counts more allocations than any recording has.
    const THREAD_BITS: u32 = THREADS_MAX.ilog2();

    fn new(size: u64, domain: Domain, birth: u64, thread: u32) -> Self {
        Self { block: Block::live(size, domain as u8), born: birth << Self::THREAD_BITS | u64::from(thread) }
    }

    fn birth(self) -> u64 {
        self.born >> Self::THREAD_BITS
    }

    fn thread(self) -> u32 {
        (self.born & u64::from(THREADS_MAX - 1)) as u32
    }
}

/// The spans of collections that a chart needs: of very many, those of older generations alone, or every so many-th.
#[derive(Default)]
struct Collections {
    kept: Vec<(u64, u64, u8)>,
    all: u64,
    /// The youngest generation that is kept.
    least: u8,
    /// Of the spans of those generations, one of so many is kept: as many as were left out, as a power of two.
    step_log2: u32,
    seen: u64,
}

impl Collections {
    fn push(&mut self, span: (u64, u64, u8)) {
        self.all += 1;
        if span.2 < self.least {
            return;
        }
        let is_kept = self.seen.is_multiple_of(1 << self.step_log2);
        self.seen += 1;
        if !is_kept {
            return;
        }
        if self.kept.len() == COLLECTIONS_MAX {
            self.thin();
        }
        if span.2 >= self.least {
            self.kept.push(span);
        }
    }

    fn thin(&mut self) {
        let older = self.kept.iter().filter(|(.., generation)| *generation > self.least).count();
        if (COLLECTIONS_MAX / 256..COLLECTIONS_MAX).contains(&older) {
            self.least += 1;
            let least = self.least;
            self.kept.retain(|(.., generation)| *generation >= least);
        } else {
            self.step_log2 += 1;
            let mut is_kept = false;
            self.kept.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }
}

/// A sum for each domain.
type ByDomain = [u64; Domain::ALL.len()];

/// The pass over the events.
#[derive(Default)]
struct Builder {
    shape: Shape,
    blocks: Vec<Live>,
    events: u64,
    allocs: u64,
    live_blocks: u64,
    live_bytes: ByDomain,
    phase: Phase0,
    thread: u32,
    threads: BTreeSet<u32>,
    /// Start of the collection that is running: event, generation, thread.
    collection: Option<(u64, u8, u32)>,
    collections: Collections,
    curve: Curve,
    /// Most live bytes, and by domain then, within the phase that counts.
    peak_bytes: u64,
    peak: ByDomain,
    steady_calls: ByDomain,
    steady_bytes: ByDomain,
    steps: Steps,
}

/// A phase that begins as a trace does.
struct Phase0(Phase);

impl Default for Phase0 {
    fn default() -> Self {
        Self(Phase::Startup)
    }
}

impl Builder {
    fn event(&mut self, event: &Event) {
        if self.events == 0 {
            self.shape.phase_events[0] = Some(0);
        }
        match event.kind {
            EventKind::Alloc { slot, domain, size, .. } => self.alloc(slot, domain, size),
            EventKind::Free { slot } => self.free(slot),
            EventKind::Realloc { slot, size, .. } => self.realloc(slot, size),
            EventKind::ThreadSwitch { thread } => self.thread = thread,
            EventKind::ThreadStart { thread } => _ = self.threads.insert(thread),
            EventKind::ThreadEnd { thread } => {
                self.threads.insert(thread);
                self.steps.thread_ends(thread);
            }
            EventKind::Mark { mark } => self.mark(mark),
            EventKind::GcStart { generation } => self.collection = Some((self.events, generation, self.thread)),
            EventKind::GcStop { generation } => {
                if let Some((start, ..)) = self.collection.take() {
                    self.collections.push((start, self.events, generation));
                }
            }
            EventKind::Advise { .. } | EventKind::Fork | EventKind::Direct(_) => {}
        }
        self.curve.point(LivePoint { event: self.events, bytes: self.bytes(), blocks: self.live_blocks });
        self.events += 1;
    }

    fn bytes(&self) -> u64 {
        self.live_bytes.iter().sum()
    }

    fn call(&mut self, domain: u8) {
        self.threads.insert(self.thread);
        self.shape.calls_by_phase[self.phase.0 as usize] += 1;
        if self.phase.0 == Phase::Steady {
            self.steady_calls[usize::from(domain)] += 1;
        }
    }

    fn alloc(&mut self, slot: u32, domain: Domain, size: u64) {
        self.allocs += 1;
        let live = Live::new(size, domain, self.allocs, self.thread);
        match self.blocks.get_mut(slot as usize) {
            Some(place) => *place = live,
            None => self.blocks.push(live),
        }
        self.live_blocks += 1;
        let class = ceiling_log2(size);
        add(&mut self.shape.sizes, class, 1);
        add(&mut self.shape.sizes_bytes, class, size);
        self.shape.small_allocs += u64::from(size <= 512);
        if self.phase.0 == Phase::Steady {
            let bytes = &mut self.steady_bytes[domain as usize];
            *bytes = bytes.saturating_add(size);
        }
        self.steps.request(domain, size, self.thread);
        self.grow(domain as u8, size);
        self.call(domain as u8);
    }

    fn free(&mut self, slot: u32) {
        let live = self.blocks[slot as usize];
        let (size, domain) = (live.block.size(), live.block.domain_bits());
        self.live_bytes[usize::from(domain)] -= size;
        self.steps.drop(domain, size);
        self.live_blocks -= 1;
        add(&mut self.shape.lifetimes, ceiling_log2(self.allocs - live.birth()), 1);
        self.shape.frees_cross_thread += u64::from(live.thread() != self.thread);
        if self.collection.is_some_and(|(_, _, collecting)| collecting == self.thread) {
            self.shape.deaths_by_collector += 1;
            self.shape.bytes_by_collector = self.shape.bytes_by_collector.saturating_add(size);
        } else {
            self.shape.deaths_by_reference += 1;
        }
        self.call(domain);
    }

    fn realloc(&mut self, slot: u32, size: u64) {
        let live = &mut self.blocks[slot as usize];
        let (old, domain) = (live.block.size(), live.block.domain_bits());
        live.block = Block::live(size, domain);
        self.live_bytes[usize::from(domain)] -= old;
        self.steps.drop(domain, old);
        self.steps.request(Domain::ALL[usize::from(domain)], size, self.thread);
        self.shape.reallocs_not_growing += u64::from(size <= old);
        self.grow(domain, size);
        self.call(domain);
    }

    fn grow(&mut self, domain: u8, size: u64) {
        self.live_bytes[usize::from(domain)] += size;
        self.note_peak();
    }

    /// The peak counts within steady; before it is known whether there is a steady phase, within everything.
    fn note_peak(&mut self) {
        let counts = self.phase.0 == Phase::Steady || self.shape.phase_events[Phase::Steady as usize].is_none();
        let bytes = self.bytes();
        if counts && bytes > self.peak_bytes {
            self.peak_bytes = bytes;
            self.peak = self.live_bytes;
            self.steps.note_peak();
        }
    }

    fn mark(&mut self, mark: u32) {
        let MarkEffect::Begins(phase) = begins_phase(self.phase.0, mark) else { return };
        self.phase.0 = phase;
        self.shape.phase_events[phase as usize] = Some(self.events);
        self.steps.phase(phase);
        match phase {
            Phase::Steady => {
                self.peak_bytes = 0;
                self.peak = ByDomain::default();
                self.note_peak();
            }
            Phase::Drained => self.shape.live_bytes_drained = Some(self.bytes()),
            Phase::Finalising => self.shape.live_bytes_end = self.bytes(),
            Phase::Startup => {}
        }
    }

    fn finish(mut self) -> Shape {
        if self.shape.phase_events[Phase::Finalising as usize].is_none() {
            self.shape.live_bytes_end = self.bytes();
        }
        // A collection that was cut off by the end of the recording ends there.
        if let Some((start, generation, _)) = self.collection {
            self.collections.push((start, self.events - 1, generation));
        }
        self.shape.collections_all =
            if self.collections.all > self.collections.kept.len() as u64 { self.collections.all } else { 0 };
        self.shape.collections = self.collections.kept;
        self.shape.live = self.curve.finish();
        self.shape.live_bytes_peak_steady = self.peak_bytes;
        self.shape.peak_bytes_by_domain = by_domain_name(&self.peak);
        self.shape.steady_calls_by_domain = by_domain_name(&self.steady_calls);
        self.shape.steady_bytes_by_domain = by_domain_name(&self.steady_bytes);
        self.shape.threads = self.threads.len() as u32;
        self.steps.finish(&mut self.shape);
        self.shape
    }
}

/// Evenly spaced points of a curve whose length is not known before its end.
struct Curve {
    points: Vec<LivePoint>,
    /// Every so many events a point is kept; doubled when there are too many of them.
    step: u64,
    last: LivePoint,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), step: 1, last: LivePoint::default() }
    }
}

impl Curve {
    /// Points kept on the way. A multiple of what is wanted, so that choosing among them stays even.
    const KEPT_MAX: usize = 16 * SHAPE_POINTS as usize;

    fn point(&mut self, point: LivePoint) {
        self.last = point;
        if !point.event.is_multiple_of(self.step) {
            return;
        }
        if self.points.len() == Self::KEPT_MAX {
            self.step *= 2;
            let step = self.step;
            self.points.retain(|point| point.event.is_multiple_of(step));
            if !point.event.is_multiple_of(step) {
                return;
            }
        }
        self.points.push(point);
    }

    fn finish(mut self) -> Vec<LivePoint> {
        if self.points.last().is_some_and(|point| point.event < self.last.event) {
            self.points.push(self.last);
        }
        let (kept, wanted) = (self.points.len(), SHAPE_POINTS as usize);
        if kept <= wanted {
            return self.points;
        }
        (0..wanted).map(|index| self.points[index * (kept - 1) / (wanted - 1)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(generations: impl Fn(u64) -> u8) -> Collections {
        let mut collections = Collections::default();
        for index in 0..20 * COLLECTIONS_MAX as u64 {
            collections.push((index, index + 1, generations(index)));
        }
        collections
    }

    #[test]
    fn of_very_many_collections_older_generations_or_even_spaced_ones_are_kept() {
        let all = 20 * COLLECTIONS_MAX as u64;
        // Of one generation: spread over the recording.
        let young = kept(|_| 0);
        assert!(young.kept.len() <= COLLECTIONS_MAX && young.kept.len() > COLLECTIONS_MAX / 4);
        let gaps: BTreeSet<u64> = young.kept.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(young.all == all && gaps.len() == 1, "{gaps:?}");
        // As CPython's defaults have them: every oldest one.
        let mixed = kept(|index| if index % 100 == 0 { 2 } else { u8::from(index % 10 == 0) });
        assert!(mixed.kept.iter().all(|(.., generation)| *generation == 2));
        assert_eq!((mixed.kept.len() as u64, mixed.all), (all.div_ceil(100), all));
    }
}
