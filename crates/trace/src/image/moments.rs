//! When the ops of a merged image happened, beside the image: so that a replay can give allocators the recorded time.
//!
//! Invariant: the image itself holds no times; a table that was made from the same events names its ops.

use super::{prefix_ops_of_alloc, prefix_ops_of_realloc};
use crate::error::TraceError;
use crate::ledger::{MarkEffect, begins_phase};
use crate::{Event, EventKind, Metadata, Phase};

/// Between two moments at least so much time passes, nanoseconds: a hundredth of the shortest delay of any allocator.
const GAP_NS: u64 = 20_000;
/// A replay that waits for recorded moments waits for gaps of this length and longer, nanoseconds.
pub const PACE_GAP_NS: u64 = 200_000;

/// The clock of a recording.
#[derive(Clone, Copy, Debug)]
pub struct RecordedClock {
    /// Ticks of [`Event::time`] in one second.
    pub ticks_per_second: u64,
    /// What the recorder itself took for an event, picoseconds.
    pub recorder_ps_per_event: u64,
}

impl RecordedClock {
    /// `None` of a trace that was recorded without times.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let recorder_ps_per_event = metadata.recorder_ps_per_event.unwrap_or(0);
        metadata.ticks_per_second.map(|ticks_per_second| Self { ticks_per_second, recorder_ps_per_event })
    }
}

/// When ops happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// Pairs in ascending order: the index of an op in the merged image (of its first prefix, if it has any), and
    /// nanoseconds since the first event.
    pub pairs: Vec<[u64; 2]>,
    /// The last event, nanoseconds since the first.
    pub last_ns: u64,
    /// Ops of the image.
    pub ops: u64,
}

/// The moments of these events, at most `pairs_max` (at least 2) of them: a longer recording has coarser ones.
///
/// The recorder's own cost is taken off: of each moment the cost of all events before it. Of events that several
/// threads recorded at the same time this takes off too much, since their costs overlapped; time then stands still and
/// never goes back.
///
/// # Errors
/// What is wrong with the events.
pub fn moments(
    events: impl Iterator<Item = Result<Event, TraceError>>,
    clock: RecordedClock,
    pairs_max: usize,
) -> Result<Moments, TraceError> {
    let mut found = Moments::default();
    let (mut begin, mut before, mut gap_ns, mut phase) = (None, 0_u64, GAP_NS, Phase::Startup);
    for event in events {
        let Event { time, kind } = event?;
        let begin = *begin.get_or_insert(time);
        let ticks = time.saturating_sub(begin);
        let wall_ps = u128::from(ticks) * 1_000_000_000_000 / u128::from(clock.ticks_per_second.max(1));
        let own_ps = u128::from(before) * u128::from(clock.recorder_ps_per_event);
        let now_ns = u64::try_from(wall_ps.saturating_sub(own_ps) / 1000).unwrap_or(u64::MAX);
        before += 1;
        found.last_ns = found.last_ns.max(now_ns);
        let ops = ops_of(kind, &mut phase);
        if ops == 0 {
            continue;
        }
        let last_ns = found.pairs.last().map_or(0, |pair| pair[1]);
        let since_ns = found.last_ns - last_ns;
        // What is read at a mark is read at the mark's own moment.
        if since_ns >= gap_ns || (matches!(kind, EventKind::Mark { .. }) && since_ns > 0) {
            if found.pairs.len() >= pairs_max {
                gap_ns = gap_ns.saturating_mul(2);
                thin(&mut found.pairs);
            }
            found.pairs.push([found.ops, found.last_ns]);
        }
        found.ops += ops;
    }
    Ok(found)
}

/// Leaves every other moment out.
fn thin(pairs: &mut Vec<[u64; 2]>) {
    let mut is_kept = false;
    pairs.retain(|_| {
        is_kept = !is_kept;
        is_kept
    });
}

/// Ops that the compiler gives an event: a fork has none, nor has a phase that has begun already.
fn ops_of(kind: EventKind, phase: &mut Phase) -> u64 {
    match kind {
        EventKind::Fork => 0,
        EventKind::Mark { mark } => match begins_phase(*phase, mark) {
            MarkEffect::Begins(begun) => {
                *phase = begun;
                1
            }
            effect => u64::from(effect == MarkEffect::Own),
        },
        EventKind::Alloc { size, touched, align_log2, .. } => 1 + prefix_ops_of_alloc(size, touched, align_log2),
        EventKind::Realloc { size, touched, .. } => 1 + prefix_ops_of_realloc(size, touched),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MICROSECONDS: RecordedClock = RecordedClock { ticks_per_second: 1_000_000, recorder_ps_per_event: 0 };

    fn at(times: impl IntoIterator<Item = u64>, clock: RecordedClock, pairs_max: usize) -> Moments {
        let event = |time| Ok(Event { time, kind: EventKind::GcStart { generation: 0 } });
        moments(times.into_iter().map(event), clock, pairs_max).unwrap()
    }

    #[test]
    fn a_moment_beyond_every_clock_is_the_last_one() {
        let found = at([0, u64::MAX, u64::MAX], RecordedClock { ticks_per_second: 1, ..MICROSECONDS }, 10);
        assert_eq!(found, Moments { pairs: vec![[1, u64::MAX]], last_ns: u64::MAX, ops: 3 });
    }

    #[test]
    fn gaps_become_moments_from_the_first_event_on() {
        let found = at([7, 20, 27, 30, 60], MICROSECONDS, 10);
        assert_eq!(found, Moments { pairs: vec![[2, 20_000], [4, 53_000]], last_ns: 53_000, ops: 5 });
    }

    #[test]
    fn the_recorders_cost_is_taken_off_and_time_never_goes_back() {
        // 3 us for each of the events before: the fourth would be at -1 us, the fifth is at 88 us.
        let found = at([0, 3, 6, 8, 100], RecordedClock { recorder_ps_per_event: 3_000_000, ..MICROSECONDS }, 10);
        assert_eq!(found, Moments { pairs: vec![[4, 88_000]], last_ns: 88_000, ops: 5 });
    }

    #[test]
    fn a_long_recording_has_coarser_moments_to_its_end() {
        let found = at((0..100_000).map(|i| i * 20), MICROSECONDS, 64);
        assert!((32..=64).contains(&found.pairs.len()), "{}", found.pairs.len());
        assert!(found.pairs.is_sorted());
        let last = found.pairs.last().unwrap();
        assert!(last[1] == last[0] * 20_000 && last[1] > 1_900_000_000, "{last:?}");
    }

    #[test]
    fn a_mark_has_its_own_moment() {
        let kinds = [EventKind::GcStart { generation: 0 }, EventKind::Mark { mark: 1 }, EventKind::Mark { mark: 1 }];
        let events = kinds.into_iter().zip(0..).map(|(kind, time)| Ok(Event { time, kind }));
        let found = moments(events, MICROSECONDS, 10).unwrap();
        assert_eq!(found, Moments { pairs: vec![[1, 1000]], last_ns: 2000, ops: 2 });
    }
}
