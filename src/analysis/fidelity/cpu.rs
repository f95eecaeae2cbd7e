//! CPU time of the real program beside what the replay predicts, of `steady` and of everything up to the mark that rest
//! follows.
//!
//! Invariant: a prediction is the recorded program's time, less the replay of what it ran under, plus the replay of the
//! configuration; times have no bar that decides an exit code.

use super::{as_recorded, median};
use crate::run::{Fidelity, FidelityConfig};
use serde::Serialize;

/// An absolute prediction is near within this share of the real median.
pub const ABSOLUTE_SHARE: f64 = 0.10;
/// A ratio to the configuration that was recorded is near within this share, and is worth a look where the real ratio
/// differs from 1 by more.
pub const RATIO_SHARE: f64 = 0.05;

/// Which part of the program's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Span {
    /// From `steady` on.
    Steady,
    /// From the start of the process on.
    All,
}

/// How many predictions are near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Near {
    /// Within the share.
    pub near: usize,
    /// Of these.
    pub of: usize,
}

/// CPU time of one configuration, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CpuRow {
    /// Index into [`Fidelity::configs`].
    pub config: usize,
    /// Of what.
    pub span: Span,
    /// Median of the real runs.
    pub real: f64,
    /// What the replay says.
    pub predicted: f64,
}

/// Real times beside predicted ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Everything that was both read and predicted.
    pub rows: Vec<CpuRow>,
    /// Predictions within [`ABSOLUTE_SHARE`].
    pub absolute: Near,
    /// Ratios to the configuration that was recorded within [`RATIO_SHARE`].
    pub ratios: Near,
}

/// Predicted nanoseconds. `None` where the recording, or the timing of a replay, is missing.
#[must_use]
pub fn predicted_ns(found: &Fidelity, config: &FidelityConfig, span: Span) -> Option<f64> {
    let recorded = match span {
        Span::Steady => found.recorded_cpu_ns?,
        Span::All => found.recorded_cpu_ns_all?,
    };
    let replayed = |config: &FidelityConfig| {
        let times = match span {
            Span::Steady => &config.replayed_ns,
            Span::All => &config.replayed_ns_all,
        };
        median(times.iter().copied())
    };
    Some((recorded as f64 - replayed(as_recorded(found)?)? + replayed(config)?).max(0.0))
}

/// Median of the real runs, nanoseconds.
#[must_use]
pub fn real_ns(config: &FidelityConfig, span: Span) -> Option<f64> {
    median(config.real.iter().filter_map(|run| match span {
        Span::Steady => run.cpu_ns,
        Span::All => run.cpu_ns_all,
    }))
}

/// Holds every time that was read against its prediction.
#[must_use]
pub fn judge(found: &Fidelity) -> Cpu {
    let row = |(config, own): (usize, &FidelityConfig), span| {
        Some(CpuRow { config, span, real: real_ns(own, span)?, predicted: predicted_ns(found, own, span)? })
    };
    let rows: Vec<CpuRow> = [Span::Steady, Span::All]
        .into_iter()
        .flat_map(|span| found.configs.iter().enumerate().filter_map(move |config| row(config, span)))
        .collect();
    let reference =
        as_recorded(found).and_then(|own| found.configs.iter().position(|config| std::ptr::eq(config, own)));
    let ratios = |row: &CpuRow| {
        let of =
            |other: &&CpuRow| other.span == row.span && Some(other.config) == reference && other.config != row.config;
        let base = rows.iter().find(of)?;
        Some((row.real / base.real, row.predicted / base.predicted))
    };
    let differing: Vec<(f64, f64)> =
        rows.iter().filter_map(ratios).filter(|(real, _)| (real - 1.0).abs() > RATIO_SHARE).collect();
    let is_near = |real: f64, predicted: f64, share: f64| (predicted / real - 1.0).abs() <= share;
    Cpu {
        absolute: Near {
            near: rows.iter().filter(|row| is_near(row.real, row.predicted, ABSOLUTE_SHARE)).count(),
            of: rows.len(),
        },
        ratios: Near {
            near: differing.iter().filter(|(real, predicted)| is_near(*real, *predicted, RATIO_SHARE)).count(),
            of: differing.len(),
        },
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RealRun;

    fn config(name: &str, real_ns: u64, replayed_ns: u64) -> FidelityConfig {
        let run = RealRun { cpu_ns: Some(real_ns), cpu_ns_all: Some(2 * real_ns), ..RealRun::default() };
        FidelityConfig {
            name: name.to_owned(),
            real: vec![run],
            replayed_ns: vec![replayed_ns],
            replayed_ns_all: vec![2 * replayed_ns],
            ..FidelityConfig::default()
        }
    }

    #[test]
    fn a_prediction_is_what_was_recorded_and_the_difference_of_two_replays() {
        let mut found = Fidelity {
            recorded_cpu_ns: Some(1_000),
            recorded_cpu_ns_all: Some(2_000),
            configs: vec![config("pool", 1_050, 200), config("b", 1_500, 600), config("c", 1_060, 230)],
            ..Fidelity::default()
        };
        assert_eq!(predicted_ns(&found, &found.configs[1], Span::Steady), Some(1_400.0));
        assert_eq!(predicted_ns(&found, &found.configs[1], Span::All), Some(2_800.0));
        let judged = judge(&found);
        // All six are within a tenth; of the two ratios that differ from 1, 1.43 is predicted as 1.40, in both spans.
        assert_eq!((judged.absolute, judged.ratios), (Near { near: 6, of: 6 }, Near { near: 2, of: 2 }));
        found.configs[1].replayed_ns = vec![900];
        let judged = judge(&found);
        assert_eq!((judged.absolute, judged.ratios), (Near { near: 5, of: 6 }, Near { near: 1, of: 2 }));
        found.recorded_as = Some("b".to_owned());
        assert_eq!(
            predicted_ns(&found, &found.configs[1], Span::Steady),
            Some(1_000.0),
            "it was recorded under that one"
        );
        assert_eq!(predicted_ns(&Fidelity::default(), &found.configs[1], Span::Steady), None);
    }
}
