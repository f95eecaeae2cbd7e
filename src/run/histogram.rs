//! A log-linear histogram of ticks: 16 buckets per octave, so a value is known to within 6.25 %.
//!
//! Invariant: `bucket` and `lower_bound` agree (`lower_bound(bucket(v)) <= v < lower_bound(bucket(v) + 1)`), and the
//! number of buckets is fixed, so recording never allocates.

use serde::{Deserialize, Serialize};

/// Number of buckets: exact up to 15 ticks, then 16 per octave up to 2^40 ticks; larger values fall into the last.
pub const BUCKETS: usize = 16 * 37;

/// The bucket of a value.
#[inline]
#[must_use]
pub const fn bucket(ticks: u64) -> usize {
    if ticks < 16 {
        return ticks as usize;
    }
    let octave = 63 - ticks.leading_zeros() as usize; // 4 and up
    let index = (octave - 3) * 16 + ((ticks >> (octave - 4)) & 15) as usize;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The smallest value of a bucket.
#[must_use]
pub const fn lower_bound(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let octave = bucket / 16 + 3;
    (16 + (bucket % 16) as u64) << (octave - 4)
}

/// Non-empty buckets only: what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// `(bucket, count)`, ascending, counts above 0.
    pub counts: Vec<(u16, u64)>,
    /// Largest value, exact.
    pub max: u64,
}

impl Histogram {
    /// From a dense array of [`BUCKETS`] counts.
    #[must_use]
    pub fn from_dense(dense: &[u64], max: u64) -> Self {
        let counts = dense.iter().enumerate().filter(|(_, n)| **n > 0).map(|(i, n)| (i as u16, *n)).collect();
        Self { counts, max }
    }

    /// Number of values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, n)| n).sum()
    }

    /// Adds another histogram to this one.
    pub fn merge(&mut self, other: &Self) {
        let mut dense = vec![0u64; BUCKETS];
        for (i, n) in self.counts.iter().chain(&other.counts) {
            dense[usize::from(*i).min(BUCKETS - 1)] += n;
        }
        *self = Self::from_dense(&dense, self.max.max(other.max));
    }

    /// The value below which `per_100k` of 100,000 values lie (the bucket's middle), or `None` when fewer than ten
    /// values lie beyond it.
    #[must_use]
    pub fn percentile(&self, per_100k: u32) -> Option<f64> {
        let total = self.total();
        let rank = (total as f64 * f64::from(per_100k) / 100_000.0).ceil().max(1.0) as u64;
        if total == 0 || total - rank.min(total) < 10 {
            return None;
        }
        let mut seen = 0;
        for (i, n) in &self.counts {
            seen += n;
            if seen >= rank {
                let low = lower_bound(usize::from(*i));
                let high = lower_bound(usize::from(*i) + 1) - 1;
                return Some((low + high.min(self.max.max(low))) as f64 / 2.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_bounds_agree() {
        for v in (0..70_000u64).chain((17..40).flat_map(|s| [(1 << s) - 1, 1 << s, (1 << s) + 1])) {
            let b = bucket(v);
            assert!(lower_bound(b) <= v, "{v}");
            assert!(b == BUCKETS - 1 || v < lower_bound(b + 1), "{v}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_percentile_needs_ten_values_beyond_it() {
        let mut dense = vec![0u64; BUCKETS];
        dense[bucket(10)] = 990;
        dense[bucket(1000)] = 10;
        let h = Histogram::from_dense(&dense, 1000);
        assert_eq!(h.percentile(50_000), Some(10.0));
        assert_eq!(h.percentile(99_000), Some(10.0));
        assert_eq!(h.percentile(99_900), None);
    }
}
