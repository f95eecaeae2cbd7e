//! Ranges and ticks: round numbers, sensible units.
//!
//! Invariant: ticks lie within the range of their axis, ascend, and print differently from each other.

use super::figure::{Axis, Scale, Tick};
use super::theme::Ink;
use crate::units;

/// A unit of bytes in which the largest value of an axis reads well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByteUnit {
    /// Name.
    pub(super) name: &'static str,
    /// Bytes in it.
    pub(super) bytes: f64,
}

/// MiB, unless everything is far below one or far above a thousand.
#[must_use]
pub(super) fn byte_unit(max_bytes: f64) -> ByteUnit {
    if max_bytes < units::MIB / 10.0 {
        ByteUnit { name: "KiB", bytes: 1024.0 }
    } else if max_bytes < 10.0 * 1024.0 * units::MIB {
        ByteUnit { name: "MiB", bytes: units::MIB }
    } else {
        ByteUnit { name: "GiB", bytes: 1024.0 * units::MIB }
    }
}

fn axis(label: &str, scale: Scale, low: f64, high: f64, ticks: Vec<Tick>) -> Axis {
    Axis { label: label.into(), scale, low, high, ticks, grid: true, shared: false, down: false }
}

fn tick(at: f64, text: String) -> Tick {
    Tick { at, text, ink: Ink::Muted, name: false }
}

fn named(at: f64, name: &str) -> Tick {
    Tick { name: true, ..tick(at, name.to_owned()) }
}

/// The round step (1, 2 or 5 times a power of ten) that cuts a span into at most `pieces`.
fn round_step(span: f64, pieces: f64) -> f64 {
    let rough = span / pieces;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough * 0.999_999).unwrap_or(power * 10.0)
}

/// A number with as many decimals as a step needs.
fn with_step(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// An axis from zero to a little above `max`.
#[must_use]
pub(super) fn from_zero(label: &str, max: f64, pieces: f64) -> Axis {
    let max = if max.is_finite() && max > 0.0 { max } else { 1.0 };
    let step = round_step(max, pieces);
    let high = max * 1.04;
    let ticks = (0..).map(|i| f64::from(i) * step).take_while(|at| *at <= high).map(|at| tick(at, with_step(at, step)));
    axis(label, Scale::Linear, 0.0, high, ticks.collect())
}

/// Progress of the recording, per cent.
#[must_use]
pub(super) fn progress() -> Axis {
    let ticks = [0.0, 25.0, 50.0, 75.0, 100.0].map(|at| tick(at, format!("{at:.0} %")));
    Axis { grid: false, ..axis("progress of the recording (% of its calls)", Scale::Linear, 0.0, 100.0, ticks.into()) }
}

/// A logarithmic axis of durations in nanoseconds, widened to at least a decade.
#[must_use]
pub(super) fn nanoseconds(label: &str, low: f64, high: f64) -> Axis {
    let low = low.max(0.1);
    let high = high.max(low * 10.0);
    let decades: Vec<f64> = decades(low, high).collect();
    let every = decades.len().div_ceil(7).max(1);
    let ticks = decades.into_iter().step_by(every).map(|at| tick(at, round_duration(at))).collect();
    axis(label, Scale::Log, low, high, ticks)
}

/// Powers of ten within a range.
fn decades(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let (first, last) = ((low * 0.999_999).log10().ceil() as i32, (high * 1.000_001).log10().floor() as i32);
    (first..=last).map(|power| 10f64.powi(power))
}

fn round_duration(ns: f64) -> String {
    let (value, unit) = match ns {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    if value < 1.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Share of calls slower, from all of them at the head down to `least`, with the percentile that each line is.
#[must_use]
pub(super) fn share_slower(label: &str, least: f64) -> Axis {
    let power = least.clamp(1e-9, 1e-2).log10().floor() as i32;
    let ticks = (power..=0).map(|p| {
        let per_cent = match p {
            0 => "100 %".to_string(),
            p => format!("{:.*} %", usize::try_from(-p - 2).unwrap_or(0), 10f64.powi(p + 2)),
        };
        let nines = usize::try_from(-p).unwrap_or(0);
        let text = match nines {
            0 => per_cent,
            1 => format!("p90 · {per_cent}"),
            2 => format!("p99 · {per_cent}"),
            n => format!("p99.{} · {per_cent}", "9".repeat(n - 2)),
        };
        tick(10f64.powi(p), text)
    });
    axis(label, Scale::Log, 10f64.powi(power), 1.0, ticks.collect())
}

/// A logarithmic axis of ratios around 1.
#[must_use]
pub(super) fn ratio(label: &str, low: f64, high: f64) -> Axis {
    let (low, high) = (low.clamp(1e-6, 0.98) / 1.08, high.clamp(1.02, 1e6) * 1.12);
    let within = |at: &f64| *at >= low && *at <= high;
    let one_two_five: Vec<f64> =
        decades(low / 10.0, high).flat_map(|power| [power, 2.0 * power, 5.0 * power]).filter(within).collect();
    let values: Vec<f64> = match one_two_five.len() {
        0..=3 => {
            let step = round_step(high - low, 8.0);
            let first = (low / step).ceil() as i64;
            (first..).map(|i| i as f64 * step).take_while(|at| *at <= high).collect()
        }
        4..=9 => one_two_five,
        n => decades(low, high).step_by((n / 3).div_ceil(8).max(1)).collect(),
    };
    let ticks = values.into_iter().map(|at| tick(at, plain(at))).collect();
    axis(label, Scale::Log, low, high, ticks)
}

/// Shortest decimal text: `0.5`, `1`, `1.05`, `20`.
fn plain(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// Things numbered from 1 at the foot, each as high as the next.
#[must_use]
pub(super) fn ordinals(label: &str, count: usize) -> Axis {
    // Multiples of 2 would stand oddly beside 1.
    let steps = [1, 5, 10, 20, 50].into_iter().chain((2..).map(|power| 10usize.pow(power)));
    let step = steps.into_iter().take(12).find(|step| count / step <= 10).unwrap_or(count.max(1));
    let ticks = (0..=count / step).map(|i| (i * step).max(1)).filter(|at| *at <= count);
    let mut ticks: Vec<Tick> = ticks.map(|at| tick(at as f64, at.to_string())).collect();
    ticks.dedup_by(|a, b| a.at == b.at);
    Axis { grid: false, ..axis(label, Scale::Linear, 0.5, count as f64 + 0.5, ticks) }
}

/// Rows, from the head down; `ticks` name them.
#[must_use]
pub(super) fn rows(label: &str, count: f64, ticks: Vec<Tick>) -> Axis {
    Axis { grid: false, down: true, ..axis(label, Scale::Linear, -0.5, count - 0.5, ticks) }
}

/// Seconds of idle time and then named steps at places of their own: `(place, name)`.
#[must_use]
pub(super) fn rest(label: &str, idle_s: f64, high: f64, steps: &[(f64, String)]) -> Axis {
    let step = round_step(idle_s, 2.0);
    let mut ticks: Vec<Tick> = (0..)
        .map(|i| f64::from(i) * step)
        .take_while(|at| *at <= idle_s * 1.000_001)
        .map(|at| tick(at, format!("{} s", plain(at))))
        .collect();
    ticks.extend(steps.iter().map(|(at, name)| named(*at, name)));
    Axis { grid: false, ..axis(label, Scale::Linear, 0.0, high, ticks) }
}

/// Named places from left to right, each as wide as the next: the first reaches from 0 to 1.
#[must_use]
pub(super) fn places(label: &str, names: &[&str]) -> Axis {
    let ticks = names.iter().enumerate().map(|(i, name)| tick(i as f64 + 0.5, (*name).into())).collect();
    Axis { grid: false, ..axis(label, Scale::Linear, 0.0, names.len() as f64, ticks) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
    }

    #[test]
    fn linear_ticks_are_round() {
        assert_eq!(texts(&from_zero("", 14.1, 6.0)), ["0", "5", "10"]);
        assert_eq!(texts(&from_zero("", 0.23, 6.0)), ["0.00", "0.05", "0.10", "0.15", "0.20"]);
        assert_eq!(texts(&from_zero("", 0.0, 2.0)), ["0.0", "0.5", "1.0"]);
    }

    #[test]
    fn things_are_numbered_from_one() {
        assert_eq!(texts(&ordinals("", 1)), ["1"]);
        assert_eq!(texts(&ordinals("", 3)), ["1", "2", "3"]);
        assert_eq!(texts(&ordinals("", 9)).len(), 9);
        assert_eq!(texts(&ordinals("", 27)), ["1", "5", "10", "15", "20", "25"]);
        assert_eq!(texts(&ordinals("", 300)), ["1", "50", "100", "150", "200", "250", "300"]);
        assert_eq!(texts(&ordinals("", 5_000)), ["1", "1000", "2000", "3000", "4000", "5000"]);
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(texts(&nanoseconds("", 8.0, 2.0e6)), ["10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms"]);
    }

    #[test]
    fn shares_name_their_percentile() {
        let axis = share_slower("", 1.2e-5);
        assert_eq!(axis.low, 1e-5);
        assert_eq!(texts(&axis)[0], "p99.999 · 0.001 %");
        assert_eq!(texts(&axis)[5], "100 %");
    }

    #[test]
    fn ratios_near_and_far_have_ticks_and_one_is_among_them() {
        for (low, high) in [(0.99, 1.01), (0.9, 1.3), (0.2, 3.0), (0.001, 5000.0), (1.0, 1.0), (0.0, 1.0)] {
            let axis = ratio("", low, high);
            assert!(axis.ticks.len() >= 3 && axis.ticks.len() <= 12, "{low} to {high}: {:?}", texts(&axis));
            assert!(axis.ticks.iter().any(|tick| (tick.at - 1.0).abs() < 1e-9), "{low} to {high}: {:?}", texts(&axis));
            assert!(axis.ticks.windows(2).all(|pair| pair[0].at < pair[1].at && pair[0].text != pair[1].text));
        }
    }

    #[test]
    fn bytes_choose_their_unit() {
        assert_eq!(byte_unit(2.0e4).name, "KiB");
        assert_eq!(byte_unit(2.0e7).name, "MiB");
        assert_eq!(byte_unit(2.0e11).name, "GiB");
    }
}
