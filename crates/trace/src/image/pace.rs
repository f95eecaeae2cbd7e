//! When things happened, put into a merged image: so that a replay can leave the recorded gaps where they were.
//!
//! Invariant: but for the ops that are put in, the image stays as it was.

use super::{Control, ImageSummary, Op, is_prefix};
use crate::error::TraceError;
use crate::ledger::{MarkEffect, begins_phase};
use crate::{Event, EventKind, Phase};

/// Unit of [`Control::Pace`], nanoseconds.
pub const PACE_UNIT_NS: u64 = 10_000;
/// The last moment that a [`Control::Pace`] can say, nanoseconds: 32 bits of its unit are twelve hours.
pub const PACE_NS_MAX: u64 = u32::MAX as u64 * PACE_UNIT_NS;
/// A moment is put in where so much time has passed since the last one, nanoseconds.
pub const PACE_GAP_NS: u64 = 200_000;

/// The merged image of these events with the moments put in, what is then to be said of it, and the last moment,
/// nanoseconds. A replay that keeps gaps waits until then; one above [`PACE_NS_MAX`] is not kept.
///
/// # Errors
/// What is wrong with the events, which must be those that the image was compiled from.
pub fn paced(
    ops: &[u64],
    summary: &ImageSummary,
    events: impl Iterator<Item = Result<Event, TraceError>>,
    ticks_per_second: u64,
) -> Result<(Vec<u64>, ImageSummary, u64), TraceError> {
    let mut out = Vec::with_capacity(ops.len() + ops.len() / 64);
    let mut summary = summary.clone();
    let (mut at, mut begin, mut last_ns, mut phase) = (0, None, 0_u64, Phase::Startup);
    for event in events {
        let event = event?;
        if !has_op(event.kind, &mut phase) {
            continue;
        }
        let begin = *begin.get_or_insert(event.time);
        let ticks = event.time.saturating_sub(begin);
        let now_ns = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
        let now_ns = u64::try_from(now_ns).unwrap_or(u64::MAX);
        if now_ns.saturating_sub(last_ns) >= PACE_GAP_NS {
            last_ns = now_ns;
            let units = u32::try_from(now_ns / PACE_UNIT_NS).unwrap_or(u32::MAX);
            out.push(Control::Pace.op(0, units).0);
        }
        if let EventKind::Mark { mark } = event.kind
            && let Some(begun) = Phase::from_mark(mark)
        {
            summary.phase_ops[begun as usize] = Some(out.len() as u64);
        }
        let rest = ops.get(at..).unwrap_or_default();
        let prefixes = rest.iter().take_while(|word| is_prefix(Op(**word))).count();
        let group = rest.get(..=prefixes).unwrap_or(rest);
        out.extend_from_slice(group);
        at += group.len();
    }
    summary.ops = out.len() as u64;
    Ok((out, summary, last_ns))
}

/// Whether the compiler gives an event an op: a fork has none, nor has a phase that has begun already.
fn has_op(kind: EventKind, phase: &mut Phase) -> bool {
    match kind {
        EventKind::Fork => false,
        EventKind::Mark { mark } => match begins_phase(*phase, mark) {
            MarkEffect::Begins(begun) => {
                *phase = begun;
                true
            }
            effect => effect == MarkEffect::Own,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{Domain, image::OpKind};

    #[test]
    fn a_moment_beyond_every_clock_is_the_last_one() {
        let collection = Op::new(OpKind::GcStart, Domain::Libc, 0, 0).0;
        let events = [0, u64::MAX, u64::MAX];
        let events = events.map(|time| Ok(Event { time, kind: EventKind::GcStart { generation: 0 } }));
        let (ops, ..) = paced(&[collection; 3], &ImageSummary::default(), events.into_iter(), 1).unwrap();
        assert_eq!(ops, [collection, Control::Pace.op(0, u32::MAX).0, collection, collection]);
    }
}
