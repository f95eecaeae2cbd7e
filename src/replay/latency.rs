//! Latency: every call of `steady` timed by the processor's counter.
//!
//! A call that took long enough to hold a page fault is asked about: the thread's fault count is read and compared
//! with the count before. Touches of the harness that took long refresh that count, so that their faults are not
//! taken for the allocator's.
//!
//! Invariant: only the call itself lies between the two counter reads; touches, table lookups and the notes do not.

use super::{Heap, Pass};
use crate::probe::{clock, sys};
use crate::run::{BUCKETS, CallKind, Histogram, LatencyCell, SIZE_CLASS_BOUNDS, bucket};
use std::io;
use trace::Phase;
use trace::image::ImageSummary;

/// No page fault is cheaper than this, ticks.
const FAULT_TICKS_MIN: u64 = 400;
/// Empty timer pairs that are timed.
const CLOCK_SAMPLES: u32 = 200_000;
/// Words of one histogram: its buckets and its largest value.
const CELL_WORDS: usize = BUCKETS + 1;
const CELLS: usize = CallKind::ALL.len() * SIZE_CLASS_BOUNDS.len() * 2;

/// Histograms in shared memory.
pub(crate) struct LatencyPass {
    /// `CELLS` histograms and that of the clock.
    words: &'static mut [u64],
    timing: bool,
    has_steady: bool,
    /// Minor faults of the thread when last asked.
    faults: u64,
    /// The counter after the last timed call.
    ended: u64,
}

impl LatencyPass {
    /// Tables for an image; nothing is timed before its `steady` mark, everything when it has none.
    ///
    /// # Errors
    /// The tables cannot be mapped.
    pub(crate) fn new(image: &ImageSummary) -> io::Result<Self> {
        let bytes = (CELLS + 1) * CELL_WORDS * 8;
        let memory = sys::Mapping::shared(bytes)?;
        memory.make_present(bytes);
        let has_steady = image.phase_ops[Phase::Steady as usize].is_some();
        Ok(Self { words: memory.into_words(), timing: !has_steady, has_steady, faults: 0, ended: 0 })
    }

    /// Times the empty timer pair as a call is timed.
    pub(crate) fn time_the_clock(&mut self) {
        self.faults = sys::faults_of_thread();
        for _ in 0..CLOCK_SAMPLES {
            let start = clock::begin();
            std::hint::black_box(());
            let end = clock::end();
            self.note(CELLS, end - start);
        }
    }

    #[inline]
    fn note(&mut self, cell: usize, ticks: u64) {
        let from = cell * CELL_WORDS;
        self.words[from + bucket(ticks)] += 1;
        let max = &mut self.words[from + BUCKETS];
        *max = (*max).max(ticks);
    }

    fn histogram(&self, cell: usize) -> Histogram {
        let words = &self.words[cell * CELL_WORDS..][..CELL_WORDS];
        Histogram::from_dense(&words[..BUCKETS], words[BUCKETS])
    }

    /// Adds what another thread has noted.
    pub(crate) fn add(&mut self, other: &Self) {
        for cell in 0..=CELLS {
            let from = cell * CELL_WORDS;
            let (own, more) = (&mut self.words[from..][..CELL_WORDS], &other.words[from..][..CELL_WORDS]);
            for (own, more) in own.iter_mut().zip(more).take(BUCKETS) {
                *own += more;
            }
            own[BUCKETS] = own[BUCKETS].max(more[BUCKETS]);
        }
    }

    /// The empty timer pair's durations.
    pub(crate) fn clock(&self) -> Histogram {
        self.histogram(CELLS)
    }

    /// The histograms that hold anything.
    pub(crate) fn cells(&self) -> Vec<LatencyCell> {
        let mut cells = Vec::new();
        for kind in CallKind::ALL {
            for class in 0..SIZE_CLASS_BOUNDS.len() {
                for fault in [false, true] {
                    let histogram = self.histogram(index(kind, class, fault));
                    if !histogram.counts.is_empty() {
                        cells.push(LatencyCell { kind, class: class as u8, fault, histogram });
                    }
                }
            }
        }
        cells
    }

    /// Whether a page fault fell between the last reading of the thread's count and now.
    #[cold]
    fn faulted(&mut self) -> bool {
        let before = std::mem::replace(&mut self.faults, sys::faults_of_thread());
        self.faults > before
    }
}

#[inline]
fn index(kind: CallKind, class: usize, fault: bool) -> usize {
    (kind as usize * SIZE_CLASS_BOUNDS.len() + class) * 2 + usize::from(fault)
}

#[inline]
fn size_class(bytes: usize) -> usize {
    SIZE_CLASS_BOUNDS.iter().take_while(|bound| bytes as u64 > **bound).count()
}

impl Pass for LatencyPass {
    #[inline(always)]
    fn call<R>(&mut self, kind: CallKind, bytes: usize, call: impl FnOnce() -> R) -> R {
        if !self.timing {
            return call();
        }
        let start = clock::begin();
        let result = call();
        let end = clock::end();
        let ticks = end.saturating_sub(start);
        let fault = ticks > FAULT_TICKS_MIN && self.faulted();
        self.note(index(kind, size_class(bytes), fault), ticks);
        self.ended = clock::end();
        result
    }

    #[inline(always)]
    fn touched(&mut self) {
        if self.timing && clock::end().saturating_sub(self.ended) > FAULT_TICKS_MIN {
            self.faulted();
        }
    }

    fn mark(&mut self, mark: u32, _op: u64, _heap: &mut Heap) -> bool {
        self.phase_began(mark);
        true
    }

    fn phase_began(&mut self, mark: u32) {
        if let Some(phase) = Phase::from_mark(mark).filter(|_| self.has_steady) {
            self.timing = phase == Phase::Steady;
            self.faulted();
        }
    }

    fn resume(&mut self) {
        self.faulted();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_have_inclusive_bounds() {
        for (class, bound) in SIZE_CLASS_BOUNDS.iter().enumerate() {
            assert_eq!(size_class(*bound as usize), class);
        }
        assert_eq!((size_class(0), size_class(65), size_class(513)), (0, 1, 2));
    }
}
