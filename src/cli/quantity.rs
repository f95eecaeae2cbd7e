//! Amounts as people type them: `1GiB`, `50us`.
//!
//! Invariant: a unit that means two things to two tools is refused, with both meanings named.

use std::time::Duration;

/// Units of memory, in bytes. Kubernetes' `Gi` is a GiB.
const BYTES: &[(&str, f64)] = &[
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("ki", 1024.0),
    ("mi", 1048576.0),
    ("gi", 1073741824.0),
    ("ti", 1099511627776.0),
    ("kib", 1024.0),
    ("mib", 1048576.0),
    ("gib", 1073741824.0),
    ("tib", 1099511627776.0),
];
/// Units of time, in nanoseconds.
const NANOSECONDS: &[(&str, f64)] = &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9)];
/// More than any machine has: above it a slip of the finger is likelier.
const BYTES_MAX: f64 = 1e15;

/// An amount of memory in bytes.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    if matches!(unit.as_str(), "k" | "m" | "g" | "t") {
        let letter = unit.to_uppercase();
        return Err(format!(
            "{letter} is {letter}B (powers of 1000) to Kubernetes and {letter}iB (powers of 1024) to Docker; write \
             {number}{letter}B or {number}{letter}iB"
        ));
    }
    let bytes = scaled(number, &unit, BYTES, "MiB, GiB (powers of 1024), MB or GB (powers of 1000)")?;
    if !(1.0..=BYTES_MAX).contains(&bytes) {
        return Err("this is no amount of memory that a process could have; write such as 512MiB or 1GiB".to_owned());
    }
    Ok(bytes as u64)
}

/// A time in nanoseconds.
pub(super) fn nanoseconds(text: &str) -> Result<f64, String> {
    let (number, unit) = split(text)?;
    let ns = scaled(number, &unit, NANOSECONDS, "ns, us, ms or s")?;
    if ns > 0.0 { Ok(ns) } else { Err("no call takes no time; write such as 50us".to_owned()) }
}

/// A time with a unit: `500ms`, `60s`, `5m`, `1h`; seconds without one.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, seconds) =
        UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds))).unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().map_err(|_| format!("`{text}` is no time; write 500ms, 60s or 5m"))?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is out of range; write 500ms, 60s or 5m"))
}

fn split(text: &str) -> Result<(f64, String), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| "a number with a unit is needed, such as 1GiB or 50us".to_owned())?;
    Ok((number, text[end..].trim().to_lowercase()))
}

fn scaled(number: f64, unit: &str, units: &[(&str, f64)], known: &str) -> Result<f64, String> {
    match units.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => Ok(number * factor),
        None if unit.is_empty() => Err(format!("the unit is missing; add {known}")),
        None => Err(format!("there is no unit {unit:?}; give {known}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert!(duration("soon").is_err() && duration("-1s").is_err() && duration("0s").is_err());
    }

    #[test]
    fn units_mean_what_they_say() {
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("1 GB"), Ok(1_000_000_000));
        assert_eq!(bytes("512Mi"), Ok(512 << 20));
        assert_eq!(bytes("1.5gib"), Ok(3 << 29));
        assert_eq!(nanoseconds("50us"), Ok(50_000.0));
        assert_eq!(nanoseconds("0.5 ms"), Ok(500_000.0));
    }

    #[test]
    fn what_is_unclear_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("1G", "1GB or 1GiB"),
            ("512m", "512MB or 512MiB"),
            ("1024", "unit is missing"),
            ("1GBi", "there is no unit"),
            ("GiB", "a number with a unit"),
            ("-1GiB", "a number with a unit"),
            ("1.2.3GiB", "a number with a unit"),
            ("0GiB", "no amount of memory"),
            ("99999999TiB", "no amount of memory"),
            ("", "a number with a unit"),
        ] {
            let error = bytes(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(nanoseconds("50").unwrap_err().contains("ns, us"));
        assert!(nanoseconds("0us").unwrap_err().contains("no time"));
    }
}
