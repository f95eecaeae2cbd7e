//! What the pools of one configuration held, of the run that its memory curve is of.
//!
//! Invariant: nothing is estimated; a moment is as the allocator's statistics gave it, and what the map did not read is
//! unknown.

use crate::run::{ArenaMap, Footprint, PoolStatistics};
use serde::Serialize;
use trace::Phase;

/// The pools of one configuration on one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolsAnalysis {
    /// Arenas over the trace.
    pub map: ArenaMap,
    /// At the resident peak, at rest where `drained` is marked, and at the end.
    pub moments: Vec<PoolMoment>,
}

/// The pools at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolMoment {
    /// `at peak`, `at rest`, `at end`.
    pub name: &'static str,
    /// Index of the op before it.
    pub op: u64,
    /// Where every byte is.
    pub statistics: PoolStatistics,
    /// Of the mapped arenas, those with less than half of their pools in use; `None` where the map has no reading.
    pub arenas_below_half: Option<u64>,
}

/// The pools of a run; `None` of an allocator that cannot tell.
#[must_use]
pub fn pools(run: &Footprint) -> Option<PoolsAnalysis> {
    let pools = run.pools.as_ref()?;
    let drained = run.at_phase.iter().find(|(phase, _)| *phase == Phase::Drained).map(|(_, point)| point.op);
    let moment = |name, op: u64, statistics: &PoolStatistics| PoolMoment {
        name,
        op,
        statistics: statistics.clone(),
        arenas_below_half: below_half(&pools.map, op),
    };
    let mut moments = vec![moment("at peak", run.peak.op, &pools.at_peak)];
    moments.extend(drained.zip(pools.at_drained.as_ref()).map(|(op, at)| moment("at rest", op, at)));
    moments.push(moment("at end", run.end.op, &pools.at_end));
    Some(PoolsAnalysis { map: pools.map.clone(), moments })
}

/// Arenas with less than half of their pools in use at the reading before an op.
fn below_half(map: &ArenaMap, op: u64) -> Option<u64> {
    let reading = map.ops.binary_search(&op).ok()?;
    let below = map.arenas.iter().filter(|arena| {
        let in_use = arena.at_each_reading().nth(reading).flatten();
        in_use.is_some_and(|in_use| in_use * 2 < arena.pools)
    });
    Some(below.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ArenaRow;

    #[test]
    fn half_is_not_less_than_half_and_unmapped_is_nothing() {
        let arena = |pools, in_use: &[(u32, Option<u32>)]| ArenaRow { pools, in_use: in_use.to_vec() };
        let map = ArenaMap {
            ops: vec![0, 10, 20],
            arenas: vec![
                arena(64, &[(1, None), (2, Some(32))]),
                arena(63, &[(2, Some(31)), (1, Some(0))]),
                arena(64, &[(1, Some(0)), (1, Some(64)), (1, None)]),
            ],
            stopped_at: None,
        };
        let at = |op| below_half(&map, op);
        assert_eq!([at(0), at(10), at(20), at(15)], [Some(2), Some(1), Some(1), None]);
    }
}
