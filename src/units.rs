//! How numbers print. Files hold integers in base units; only screens and charts see what this module makes of them.
//!
//! Invariant: printing never changes a stored value, and the same value always prints the same way.

/// Bytes in a MiB.
pub const MIB: f64 = 1024.0 * 1024.0;

/// MiB with three significant figures: `14.1`, `0.42`, `1204`.
#[must_use]
pub fn mib(bytes: f64) -> String {
    significant(bytes / MIB)
}

/// Three significant figures, at most two decimals, no exponent: `0.31`, `6.8`, `14.1`, `120`, `20417`.
#[must_use]
pub fn significant(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 99.95 {
        format!("{value:.0}")
    } else if magnitude >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A count with a suffix: `512`, `4.1 k`, `3.1 M`, `2.0 G`.
#[must_use]
pub fn count(n: f64) -> String {
    match n.abs() {
        m if m < 999.5 => format!("{n:.0}"),
        m if m < 999_950.0 => format!("{:.1} k", n / 1e3),
        m if m < 999_950_000.0 => format!("{:.1} M", n / 1e6),
        _ => format!("{:.1} G", n / 1e9),
    }
}

/// A duration in the unit that reads best: `31 ns`, `1.2 us`, `4.5 ms`, `2.1 s`.
#[must_use]
pub fn nanoseconds(ns: f64) -> String {
    match ns.abs() {
        m if m < 999.5 => format!("{} ns", significant(ns)),
        m if m < 999_500.0 => format!("{} us", significant(ns / 1e3)),
        m if m < 999_500_000.0 => format!("{} ms", significant(ns / 1e6)),
        _ => format!("{} s", significant(ns / 1e9)),
    }
}

/// A delay to a tenth of a second, below one second in milliseconds: `200 ms`, `1.5 s`, `10 s`.
#[must_use]
pub fn delay(ms: u64) -> String {
    let tenths = (ms + 50) / 100;
    match (tenths / 10, tenths % 10) {
        (0, _) => format!("{ms} ms"),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, tenths) => format!("{seconds}.{tenths} s"),
    }
}

/// Days since 1970-01-01 to a Gregorian year, month and day (Howard Hinnant's algorithm); a year begins in March, so
/// that the leap day is its last.
#[must_use]
pub fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_figures() {
        assert_eq!(significant(0.314), "0.31");
        assert_eq!(significant(6.8), "6.80");
        assert_eq!(significant(14.12), "14.1");
        assert_eq!(significant(99.97), "100");
        assert_eq!(count(4_100.0), "4.1 k");
        assert_eq!(nanoseconds(31.0), "31.0 ns");
        assert_eq!(nanoseconds(1_234_000.0), "1.23 ms");
        assert_eq!(mib(1_048_576.0), "1.00");
        assert_eq!([delay(200), delay(1500), delay(10_006)], ["200 ms", "1.5 s", "10 s"]);
    }
}
