//! How numbers and foreign texts print. Files hold integers in base units; only screens and charts see what this module
//! makes of them.
//!
//! Invariant: printing never changes a stored value, and the same value always prints the same way.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

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

/// A time that someone would have to wait: `45 s`, `10 min`, `3 h`, `12 days`, `10 years`.
#[must_use]
pub fn span(time: Duration) -> String {
    const UNITS: [(u64, &str); 5] = [(365 * 86_400, "years"), (86_400, "days"), (3600, "h"), (60, "min"), (1, "s")];
    // Up to two of a unit the next smaller one says more.
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() >= 500_000_000);
    let (length, unit) = UNITS.into_iter().find(|(length, _)| seconds >= 2 * length).unwrap_or((1, "s"));
    format!("{} {unit}", seconds / length)
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

/// Whether a terminal obeys a character instead of showing it: control characters, and those that turn the direction
/// of the text around them.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_shown = |c: char| !is_obeyed(c) || is_kept(c);
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_shown(c) {
            plain.push(c);
        } else {
            // The escape of JSON, so that JSON that is printed stays JSON. None of them is above U+FFFF.
            let _ = write!(plain, "\\u{:04x}", u32::from(c));
        }
    }
    Cow::Owned(plain)
}

/// A text that a terminal shows as it is: what it would obey is written as `\u001b`. Lines and tabs stay.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// As [`plain`], of a text that stands within a line: its own line ends are escaped too.
#[must_use]
pub fn plain_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// JSON whose texts hold nothing that a terminal obeys: in its place the texts hold the escape, and a space for a line
/// end. What is no JSON stays none.
#[must_use]
pub fn plain_json(json: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(json) else { return Cow::Borrowed(json) };
    let is_raw = |c: char| is_obeyed(c) && !c.is_ascii_control() || c == '\u{7f}';
    // Most JSON has neither an escape nor such a character.
    let is_plain = text.is_ascii() && !text.contains(['\\', '\u{7f}']) || !text.contains(|c| c == '\\' || is_raw(c));
    if is_plain {
        return Cow::Borrowed(json);
    }
    let mut plain = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(|c| c == '\\' || is_raw(c)) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match rest.as_bytes() {
            // A story has lines, and the page breaks them where it likes.
            [b'\\', b'n', ..] => {
                plain.push(' ');
                2
            }
            [b'\\', letter @ (b'r' | b't' | b'b' | b'f'), ..] => {
                let code = match letter {
                    b'r' => 13,
                    b't' => 9,
                    b'b' => 8,
                    _ => 12,
                };
                let _ = write!(plain, "\\\\u{code:04x}");
                2
            }
            [b'\\', b'u', ..] => {
                let code = rest.get(2..6).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                if code.and_then(char::from_u32).is_some_and(is_obeyed) {
                    plain.push('\\');
                }
                plain.push_str("\\u");
                2
            }
            // An escaped backslash, or one that escapes what is shown.
            [b'\\', next, ..] if next.is_ascii() => {
                plain.push_str(&rest[..2]);
                2
            }
            [b'\\', ..] => {
                plain.push('\\');
                1
            }
            _ => {
                let c = rest.chars().next().unwrap_or_default();
                let _ = write!(plain, "\\\\u{:04x}", u32::from(c));
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain.into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
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

    #[test]
    fn times_to_wait_have_one_unit() {
        let said = [0, 1, 119, 600, 3 * 3600, 42_949, 3 * 86_400, 10 * 365 * 86_400].map(Duration::from_secs).map(span);
        assert_eq!(said, ["0 s", "1 s", "119 s", "10 min", "3 h", "11 h", "3 days", "10 years"]);
    }

    /// What a terminal obeys, and what it is printed as.
    const OBEYED: &str = "a\u{1b}[1m\u{7}\u{7f}\u{9b}\u{202e}\r";
    const SHOWN: &str = "a\\u001b[1m\\u0007\\u007f\\u009b\\u202e\\u000d";

    #[test]
    fn a_terminal_obeys_nothing_of_a_text() {
        assert_eq!(plain(OBEYED), SHOWN);
        assert_eq!(plain("two\nlines\tµ · 日本 \\"), "two\nlines\tµ · 日本 \\");
        assert_eq!(plain_line("two\nlines"), "two\\u000alines");
    }

    #[test]
    fn texts_of_json_are_plain_and_json_stays_json() {
        let value = serde_json::json!({ "é\n": [OBEYED, "\\n \\\\ \" µ", "\u{8}\u{c}\t😀"], "n": 1.5 });
        let expected = serde_json::json!({ "é ": [SHOWN, "\\n \\\\ \" µ", "\\u0008\\u000c\\u0009😀"], "n": 1.5 });
        let json = serde_json::to_vec(&value).unwrap();
        let plain = plain_json(&json);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&plain).unwrap(), expected);
        assert_eq!(plain_json(&plain), plain, "once is enough");
        // Escapes that a writer need not have used.
        let text = br#"{"a":"\u001b\u202E\ud83d\ude00\/\\u001b"}"#;
        let read: serde_json::Value = serde_json::from_slice(&plain_json(text)).unwrap();
        assert_eq!(read["a"], "\\u001b\\u202E😀/\\u001b");
        for broken in [&b"\"\\"[..], b"\"\\u", b"\"\\u00\xc3\xa9", b"\xff", "\\é".as_bytes()] {
            assert!(serde_json::from_slice::<serde_json::Value>(&plain_json(broken)).is_err());
        }
    }
}
