//! The shape of memory: what happens to it after the work, and what becomes of it when the work is repeated.
//!
//! Invariant: a class is a rule over readings of one run, and the readings stand beside it; a slope is called one only
//! if its interval lies on one side of zero and it adds up to something.

use super::stats::{median, median_of_sorted, sorted};
use crate::run::{MemoryPoint, RestPoint, RestState};
use serde::Serialize;

/// Resident memory is near what is live up to this share of that, or this many bytes.
const NEAR: (f64, f64) = (0.10, 1024.0 * 1024.0);
/// A step down counts from this share of the first reading on, and this many bytes.
const STEP: (f64, f64) = (0.05, 512.0 * 1024.0);
/// A decay has settled where this share of it is left.
const SETTLED: f64 = 0.10;
/// A slope counts if what it adds over the readings it is of exceeds this share of their level, and this many bytes.
const GROWTH: (f64, f64) = (0.01, 256.0 * 1024.0);
/// Fewest cycles whose ends can be told to rise: below that no interval of 95 % exists.
const CYCLES_MIN: usize = 5;
/// Chance that the interval of a slope misses.
const MISS: f64 = 0.05;

/// What happens to resident memory after the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RestClass {
    /// Near what is live at once.
    Flat,
    /// Idle time brings it down most.
    Decays,
    /// A trickle of calls brings it down most.
    Trickle,
    /// The explicit release brings it down most.
    Release,
    /// Nothing brings it down.
    Held,
}

/// Memory after the work, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RestShape {
    /// Which rule it follows.
    pub class: RestClass,
    /// Live requested bytes.
    pub live_bytes: u64,
    /// Resident at the first idle reading, at the last, after the trickle and after the release.
    pub first_bytes: u64,
    /// See [`Self::first_bytes`].
    pub idle_bytes: u64,
    /// See [`Self::first_bytes`].
    pub trickle_bytes: u64,
    /// See [`Self::first_bytes`].
    pub released_bytes: u64,
    /// Milliseconds until a tenth of what idle time brings down is left, as near as readings tell.
    pub settled_ms: u64,
    /// Which of idle time, trickle and release are steps that count.
    pub steps: [bool; 3],
}

fn passes((share, bytes): (f64, f64), of: f64) -> f64 {
    (of * share).max(bytes)
}

/// The shape after the work; `None` without a reading of each kind.
#[must_use]
pub fn rest(readings: &[RestPoint]) -> Option<RestShape> {
    let idle = || readings.iter().filter(|point| point.state == RestState::Idle);
    let of = |state| readings.iter().find(|point| point.state == state).map(|point| point.memory);
    let (first, last) = (idle().next()?, idle().next_back()?);
    let (first_bytes, idle_bytes) = (first.memory.resident_bytes, last.memory.resident_bytes);
    let (trickle, released) = (of(RestState::Trickle)?, of(RestState::Release)?);
    let (trickle_bytes, released_bytes) = (trickle.resident_bytes, released.resident_bytes);
    let live_bytes = first.memory.requested_bytes;
    let down = |from: u64, to: u64| from as f64 - to as f64;
    // Between `drained` and the end the program may free more of its own, which is no merit of what was done.
    let drop = |from: &MemoryPoint, to: &MemoryPoint| {
        down(from.resident_bytes, to.resident_bytes) - down(from.requested_bytes, to.requested_bytes).max(0.0)
    };
    let drops = [drop(&first.memory, &last.memory), drop(&last.memory, &trickle), drop(&trickle, &released)];
    let steps = drops.map(|drop| drop >= passes(STEP, first_bytes as f64));
    let mut class = RestClass::Held;
    let mut most = 0.0;
    for (own, (drop, counts)) in
        [RestClass::Decays, RestClass::Trickle, RestClass::Release].into_iter().zip(drops.into_iter().zip(steps))
    {
        if counts && drop > most {
            (class, most) = (own, drop);
        }
    }
    if down(first_bytes, live_bytes) <= passes(NEAR, live_bytes as f64) {
        class = RestClass::Flat;
    }
    let is_settled = |bytes: u64| down(bytes, idle_bytes) <= drops[0].max(0.0) * SETTLED;
    let settled = idle().find(|point| is_settled(point.memory.resident_bytes)).unwrap_or(last);
    Some(RestShape {
        class,
        live_bytes,
        first_bytes,
        idle_bytes,
        trickle_bytes,
        released_bytes,
        settled_ms: settled.after_ms,
        steps,
    })
}

/// What becomes of resident memory when the work is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CyclesClass {
    /// It does not rise from cycle to cycle.
    Plateau,
    /// It does.
    Slope,
    /// Too few cycles to say.
    Unknown,
}

/// Resident memory at the ends of cycles, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CyclesShape {
    /// Which rule it follows.
    pub class: CyclesClass,
    /// Cycles.
    pub cycles: u32,
    /// The last so many of them are what the rest is about; those before warm up.
    pub used: u32,
    /// Median of their ends.
    pub level_bytes: f64,
    /// Live requested bytes at the last end.
    pub live_bytes: u64,
    /// Bytes per cycle: Theil and Sen's median slope, and Sen's interval of 95 %; NaN (`null` in files) where too few.
    pub slope_bytes: [f64; 3],
}

/// The shape over cycles; `None` where the work was not repeated.
#[must_use]
pub fn cycles(ends: &[MemoryPoint]) -> Option<CyclesShape> {
    let last = ends.last()?;
    // The first cycle always warms up.
    let used = ends.len().div_ceil(2).max(CYCLES_MIN).min(ends.len().saturating_sub(1).max(1));
    let bytes: Vec<f64> = ends[ends.len() - used..].iter().map(|end| end.resident_bytes as f64).collect();
    let level_bytes = median(bytes.iter().copied())?;
    let slope = if used < CYCLES_MIN { None } else { theil_sen(&bytes) };
    let class = slope.map_or(CyclesClass::Unknown, |[median, low, _]| {
        let grown = median * (used - 1) as f64;
        let rises = low > 0.0 && grown > passes(GROWTH, level_bytes);
        if rises { CyclesClass::Slope } else { CyclesClass::Plateau }
    });
    Some(CyclesShape {
        class,
        cycles: ends.len() as u32,
        used: used as u32,
        level_bytes,
        live_bytes: last.requested_bytes,
        slope_bytes: slope.unwrap_or([f64::NAN; 3]),
    })
}

/// The median of the slopes between any two values at equal distances, and Sen's interval: the innermost two slopes
/// that miss the true one with a chance of at most [`MISS`] if the values scatter around a line in no order.
fn theil_sen(values: &[f64]) -> Option<[f64; 3]> {
    let n = values.len();
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let slopes = sorted(&pairs.map(|(i, j)| (values[j] - values[i]) / (j - i) as f64).collect::<Vec<_>>());
    let rank = sen_rank(n)?;
    Some([median_of_sorted(&slopes)?, slopes[rank - 1], slopes[slopes.len() - rank]])
}

/// The largest rank `k` for which fewer than `k` of the pairs of `n` values in random order are inversions with a
/// chance of at most half of [`MISS`] (Kendall's distribution, exact up to 40 values); `None` when there is none.
fn sen_rank(n: usize) -> Option<usize> {
    let pairs = n * n.saturating_sub(1) / 2;
    if n > 40 {
        let deviation = ((n * (n - 1) * (2 * n + 5)) as f64 / 18.0).sqrt();
        return Some(((pairs as f64 - 1.96 * deviation) / 2.0).floor().max(1.0) as usize);
    }
    // Chance of each number of inversions: the value that comes last among i inverts any number of 0 to i - 1 others.
    let mut chance = vec![0.0; pairs + 1];
    chance[0] = 1.0;
    for i in 2..=n {
        let before = chance.clone();
        for (at, now) in chance.iter_mut().enumerate() {
            *now = before[at.saturating_sub(i - 1)..=at].iter().sum::<f64>() / i as f64;
        }
    }
    let mut below = 0.0;
    let rank = chance.iter().take_while(|chance| {
        below += **chance;
        below <= MISS / 2.0
    });
    Some(rank.count()).filter(|rank| *rank > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn point(resident_mib: f64) -> MemoryPoint {
        let resident_bytes = (resident_mib * MIB as f64) as u64;
        MemoryPoint { requested_bytes: 20 * MIB, resident_bytes, ..MemoryPoint::default() }
    }

    /// 20 MiB live; resident MiB idle at 0, 0.1, 1 and 10 s, after a trickle and after a release.
    fn after_work(idle: [f64; 4], trickle: f64, released: f64) -> RestShape {
        let at = |state, after_ms, mib| RestPoint { state, after_ms, memory: point(mib) };
        let mut points: Vec<RestPoint> =
            [0, 100, 1_000, 10_000].into_iter().zip(idle).map(|(ms, mib)| at(RestState::Idle, ms, mib)).collect();
        points.push(at(RestState::Trickle, 10_200, trickle));
        points.push(at(RestState::Release, 10_201, released));
        rest(&points).unwrap()
    }

    #[test]
    fn every_class_after_the_work() {
        for (idle, trickle, released, class) in [
            ([21.9; 4], 21.9, 21.0, RestClass::Flat),
            ([60.0, 60.0, 30.0, 29.0], 28.8, 25.0, RestClass::Decays),
            ([60.0, 60.0, 60.0, 59.0], 30.0, 29.0, RestClass::Trickle),
            ([60.0, 60.0, 60.0, 59.0], 58.0, 22.0, RestClass::Release),
            ([60.0, 60.0, 60.0, 59.0], 58.0, 57.0, RestClass::Held),
            // The larger of two steps names it.
            ([60.0, 55.0, 50.0, 50.0], 50.0, 22.0, RestClass::Release),
            // An allocator that takes more on a trickle has not been brought down.
            ([40.0; 4], 44.0, 43.0, RestClass::Held),
        ] {
            let shape = after_work(idle, trickle, released);
            assert_eq!(shape.class, class, "{idle:?} {trickle} {released}: {shape:?}");
        }
        let shape = after_work([60.0, 60.0, 30.0, 29.0], 28.8, 22.0);
        assert_eq!((shape.settled_ms, shape.steps), (1_000, [true, false, true]));
        assert_eq!(rest(&[]), None);
    }

    #[test]
    fn what_the_program_frees_itself_is_no_step() {
        let mut points: Vec<RestPoint> =
            [(RestState::Idle, 60.0), (RestState::Trickle, 50.0), (RestState::Release, 50.0)]
                .map(|(state, mib)| RestPoint { state, after_ms: 0, memory: point(mib) })
                .into();
        assert_eq!(rest(&points).unwrap().class, RestClass::Trickle);
        for later in &mut points[1..] {
            later.memory.requested_bytes -= 10 * MIB;
        }
        assert_eq!(rest(&points).unwrap().class, RestClass::Held);
    }

    fn ends(mib: impl IntoIterator<Item = f64>) -> CyclesShape {
        cycles(&mib.into_iter().map(point).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_class_over_cycles() {
        let wobble = |i: i32| f64::from(i * 7 % 5) * 0.3;
        // It rises while it warms up, and then wobbles.
        let plateau = ends((0..20).map(|i| 50.0 - 20.0 * 0.5_f64.powi(i) + wobble(i)));
        assert_eq!((plateau.class, plateau.used), (CyclesClass::Plateau, 10), "{plateau:?}");
        let [_, low, high] = plateau.slope_bytes;
        assert!(low <= 0.0 && high >= 0.0, "{plateau:?}");
        let slope = ends((0..20).map(|i| 50.0 + f64::from(i) + wobble(i)));
        assert_eq!(slope.class, CyclesClass::Slope, "{slope:?}");
        let [median, low, high] = slope.slope_bytes.map(|bytes| bytes / MIB as f64);
        assert!(low > 0.5 && low <= 1.0 && (1.0..1.5).contains(&high) && (median - 1.0).abs() < 0.2, "{slope:?}");
        // Certain, and nothing: 10 KiB per cycle of 50 MiB.
        let crumbs = ends((0..20).map(|i| 50.0 + f64::from(i) / 100.0));
        assert!(crumbs.class == CyclesClass::Plateau && crumbs.slope_bytes[1] > 0.0, "{crumbs:?}");
        assert_eq!(ends((0..20).map(|i| 50.0 - f64::from(i))).class, CyclesClass::Plateau);
        assert_eq!(ends((0..5).map(|i| 50.0 + f64::from(i))).class, CyclesClass::Unknown);
        assert_eq!(ends((0..6).map(|i| 50.0 + f64::from(i))).class, CyclesClass::Slope);
        assert_eq!(cycles(&[]), None);
    }

    #[test]
    fn ranks_are_those_of_kendalls_table() {
        // Two-sided 5 %: of 4 values nothing is significant; of 5 only full order is; of 10 a score of 23 and more is,
        // which is at most 11 inversions of 45 pairs; large numbers meet the normal approximation.
        assert_eq!([4, 5, 6, 10].map(sen_rank), [None, Some(1), Some(2), Some(12)]);
        let (exact, normal) = (sen_rank(40).unwrap() as f64, sen_rank(41).unwrap() as f64);
        assert!((exact / 780.0 - normal / 820.0).abs() < 0.01, "{exact} of 780, {normal} of 820");
    }
}
