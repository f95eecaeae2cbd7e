//! Figures with two modes: values in two groups that lie further apart than their bar allows.
//!
//! Invariant: between two modes lies more than the bar and more than twice what either spans; a value belongs to one
//! mode.

use super::stats::median_of_sorted;
use serde::Serialize;

/// A group of values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mode {
    /// Median.
    pub median: f64,
    /// Smallest and largest.
    pub range: (f64, f64),
    /// Processes.
    pub runs: u32,
}

/// One mode or two, ascending; none without values, and one below three. A mode has at least `runs_min` values: a
/// single real run apart from the others may be an accident, a replay is none.
#[must_use]
pub fn modes(values: impl IntoIterator<Item = f64>, bar: f64, runs_min: usize) -> Vec<Mode> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let gap = |at: &usize| values[*at] - values[*at - 1];
    let widest = (1..values.len()).max_by(|one, other| gap(one).total_cmp(&gap(other)));
    let span = |group: &[f64]| group.last().zip(group.first()).map_or(0.0, |(last, first)| last - first);
    let split = widest.filter(|at| {
        let (low, high) = values.split_at(*at);
        let has_runs = low.len() >= runs_min && high.len() >= runs_min;
        values.len() > 2 && has_runs && gap(at) > bar && gap(at) > 2.0 * span(low).max(span(high))
    });
    let groups = match split {
        Some(at) => vec![&values[..at], &values[at..]],
        None => vec![&values[..]],
    };
    groups.into_iter().filter_map(mode).collect()
}

fn mode(group: &[f64]) -> Option<Mode> {
    Some(Mode {
        median: median_of_sorted(group)?,
        range: (*group.first()?, *group.last()?),
        runs: u32::try_from(group.len()).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medians(values: &[f64], bar: f64, runs_min: usize) -> Vec<f64> {
        modes(values.iter().copied(), bar, runs_min).iter().map(|mode| mode.median).collect()
    }

    #[test]
    fn two_groups_beyond_the_bar_are_two_modes() {
        assert_eq!(medians(&[44.0, 39.0, 39.2, 43.8], 0.5, 2), [39.1, 43.9]);
        assert_eq!(medians(&[39.0, 39.2, 39.1], 0.5, 1), [39.1]);
        // A gap within the bar, and values that spread evenly.
        assert_eq!(medians(&[39.0, 39.0, 43.0], 5.0, 1), [39.0]);
        assert_eq!(medians(&[39.0, 43.0], 0.5, 1), [41.0], "too few to tell");
        assert_eq!(medians(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.5, 1), [3.0]);
        assert_eq!(medians(&[], 0.5, 1), [0.0; 0]);
    }

    #[test]
    fn a_mode_has_as_many_runs_as_asked() {
        let values = [10.0, 10.0, 10.1, 20.0];
        assert_eq!(medians(&values, 0.5, 1), [10.0, 20.0]);
        assert_eq!(modes(values, 0.5, 2).iter().map(|mode| (mode.range, mode.runs)).next(), Some(((10.0, 20.0), 4)));
    }
}
