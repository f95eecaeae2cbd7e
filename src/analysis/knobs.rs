//! What each setting of an allocator meets in a trace: how much lies on either side of its threshold, and who asks.
//!
//! Invariant: about requests alone, exact, before any allocator comes into it; `None` where a summary is from before
//! this was counted.

use serde::Serialize;
use std::collections::BTreeMap;
use trace::{Domain, Metadata, Phase, STEP_BOUNDS, Shape, SizeStep};

/// Sums over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Requests of the headline.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// Bytes of them live at the live peak.
    pub live_bytes_peak: u64,
    /// Bytes of them live at `drained` (else at the end).
    pub live_bytes_rest: u64,
}

impl Share {
    fn add(mut self, step: &SizeStep) -> Self {
        self.requests += step.requests;
        self.bytes = self.bytes.saturating_add(step.bytes);
        self.live_bytes_peak += step.live_bytes_peak;
        self.live_bytes_rest += step.live_bytes_rest;
        self
    }
}

/// A threshold of glibc.
pub const MMAP_THRESHOLDS: [(u64, usize); 3] = [(64 << 10, 2), (128 << 10, 3), (32 << 20, 4)];

/// What settings meet in a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Knobs {
    /// Everything.
    pub all: Share,
    /// Python's own requests that CPython's pools serve, and those that it hands on.
    pub python: [Share; 2],
    /// What the C library's `malloc` serves under CPython's pools.
    pub malloc: Share,
    /// Of these, NumPy's.
    pub numpy: Share,
    /// Arrow's buffers.
    pub arrow: Share,
    /// Of [`Self::malloc`], what is at least as large as each of [`MMAP_THRESHOLDS`].
    pub mapped: [Share; MMAP_THRESHOLDS.len()],
    /// Threads that ask `malloc`, and most of them at once.
    pub threads: [u32; 2],
    /// CPUs of the recorded process, which glibc's limit of arenas follows.
    pub cpus: Option<u32>,
    /// Nanoseconds from `drained` to interpreter exit in the recording; `None` when that is not known.
    pub idle_ns: Option<u64>,
}

/// What settings meet in a trace; `None` where its summary does not count it.
#[must_use]
pub fn knobs(metadata: &Metadata, shape: &Shape) -> Option<Knobs> {
    let steps: &BTreeMap<String, [SizeStep; STEP_BOUNDS.len()]> = &shape.steps_by_domain;
    if steps.is_empty() {
        return None;
    }
    let of = |domains: &[Domain], from: usize, to: usize| {
        let all = domains.iter().filter_map(|domain| steps.get(domain.name()));
        all.flat_map(|steps| &steps[from..to]).fold(Share::default(), Share::add)
    };
    let ends = STEP_BOUNDS.len();
    let python = [Domain::Mem, Domain::Obj];
    let c = [Domain::Libc, Domain::Raw, Domain::Numpy];
    let malloc = |from: usize| sum(&[of(&c, from, ends), of(&python, from.max(1), ends)]);
    let wall = |phase: Phase| metadata.mark_readings.iter().find(|r| r.mark == phase as u32).and_then(|r| r.wall_ns);
    Some(Knobs {
        all: of(&Domain::ALL, 0, ends),
        python: [of(&python, 0, 1), of(&python, 1, ends)],
        malloc: malloc(0),
        numpy: of(&[Domain::Numpy], 0, ends),
        arrow: of(&[Domain::Arrow], 0, ends),
        mapped: MMAP_THRESHOLDS.map(|(_, from)| malloc(from)),
        threads: [shape.malloc_threads, shape.malloc_threads_at_once],
        cpus: metadata.cpu_count,
        idle_ns: wall(Phase::Drained).zip(wall(Phase::Finalising)).and_then(|(from, to)| to.checked_sub(from)),
    })
}

fn sum(shares: &[Share]) -> Share {
    shares.iter().fold(Share::default(), |sum, share| Share {
        requests: sum.requests + share.requests,
        bytes: sum.bytes.saturating_add(share.bytes),
        live_bytes_peak: sum.live_bytes_peak + share.live_bytes_peak,
        live_bytes_rest: sum.live_bytes_rest + share.live_bytes_rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_of_each_threshold_is_added_up() {
        let step = |n: u64| SizeStep { requests: n, bytes: n * 10, live_bytes_peak: n * 100, live_bytes_rest: n };
        let steps = |a, b, c, d, e| [step(a), step(b), step(c), step(d), step(e)];
        let shape = Shape {
            steps_by_domain: [
                ("obj", steps(1, 2, 0, 4, 0)),
                ("libc", steps(8, 16, 32, 64, 128)),
                ("arrow", steps(0, 0, 0, 0, 256)),
            ]
            .map(|(name, steps)| (name.to_owned(), steps))
            .into(),
            malloc_threads: 3,
            malloc_threads_at_once: 2,
            ..Shape::default()
        };
        let knobs = knobs(&Metadata::default(), &shape).expect("counted");
        assert_eq!(knobs.all.requests, 511);
        assert_eq!(knobs.python.map(|share| share.requests), [1, 6]);
        assert_eq!((knobs.malloc.requests, knobs.arrow.bytes), (6 + 248, 2560));
        assert_eq!(knobs.mapped.map(|share| share.requests), [4 + 32 + 64 + 128, 4 + 64 + 128, 128]);
        assert_eq!((knobs.threads, knobs.idle_ns), ([3, 2], None));
        assert_eq!(super::knobs(&Metadata::default(), &Shape::default()), None);
    }
}
