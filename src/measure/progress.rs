//! What the person in front of a run sees: how long it will take in all, then how much is left.
//!
//! Invariant: writes to the error output alone and never fails the run; on anything but a terminal only whole lines
//! leave, and no control sequence. Nothing here has a colour, so that `NO_COLOR` is kept whether it is set or not.

use crate::run::{Outcome, Run};
use crate::units::{plain, plain_line};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line appears where nothing can be rewritten.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Columns that every terminal is taken to have.
const COLUMNS: usize = 79;
/// How often the line on a terminal is rewritten.
const REWRITE_EVERY: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Silent,
    Lines,
    Rewrite,
}

/// Progress of one run of the harness.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    started: Instant,
    shown: Option<Instant>,
    children: u32,
    done: u32,
    failed: u32,
    expected: Duration,
    left: Duration,
    now: String,
}

impl Progress {
    /// On the error output; `quiet` says nothing but failures.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let style = match (quiet, std::io::stderr().is_terminal() && !dumb) {
            (true, _) => Style::Silent,
            (false, true) => Style::Rewrite,
            (false, false) => Style::Lines,
        };
        Self::in_style(style)
    }

    fn in_style(style: Style) -> Self {
        let (expected, left) = (Duration::ZERO, Duration::ZERO);
        let (started, shown, now) = (Instant::now(), None, String::new());
        Self { style, started, shown, children: 0, done: 0, failed: 0, expected, left, now }
    }

    /// One line about what happens now.
    pub fn say(&mut self, text: &str) {
        if self.style != Style::Silent {
            self.line(text);
        }
    }

    /// One line about how far it is, left out when another came shortly before.
    pub fn say_at_times(&mut self, text: &str) {
        let due = self.shown.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if self.style != Style::Silent && due {
            self.shown = Some(Instant::now());
            self.line(text);
        }
    }

    /// The estimate before the first run.
    pub fn begin(&mut self, children: u32, expected: Duration) {
        (self.children, self.expected, self.left, self.started) = (children, expected, expected, Instant::now());
    }

    /// A child starts: its workload, configuration and pass. Shown before, so that nothing is written meanwhile.
    pub fn starts(&mut self, what: &str) {
        what.clone_into(&mut self.now);
        self.show();
    }

    /// A child has ended; `left` is the time that the rest should take.
    pub fn finished(&mut self, run: &Run, left: Duration) {
        self.done += 1;
        if let Outcome::Failed { stage, reason } = &run.outcome {
            self.failed += 1;
            self.line(&format!("FAILED {} with {}, {stage}: {reason}", run.workload, run.config));
        }
        self.left = left;
        self.show();
    }

    /// Time since [`Progress::begin`].
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last word.
    pub fn end(&mut self) {
        (self.shown, self.left) = (None, Duration::ZERO);
        self.show();
        if self.style == Style::Rewrite {
            write_error("\r\x1b[K");
        }
    }

    fn show(&mut self) {
        let every = if self.style == Style::Rewrite { REWRITE_EVERY } else { LINE_EVERY };
        let due = self.shown.is_none_or(|at| at.elapsed() >= every);
        if self.style == Style::Silent || !due {
            return;
        }
        self.shown = Some(Instant::now());
        let text = plain_line(&self.status()).into_owned();
        match self.style {
            // A line that wraps could not be rewritten.
            Style::Rewrite => write_error(&format!("\r\x1b[K{}", text.chars().take(COLUMNS).collect::<String>())),
            _ => write_error(&format!("{text}\n")),
        }
    }

    fn status(&self) -> String {
        let failed = if self.failed > 0 { format!(" · {} failed", self.failed) } else { String::new() };
        if self.done >= self.children {
            return format!("{} of {} runs{failed}", self.done, self.children);
        }
        let now = if self.now.is_empty() { String::new() } else { format!(" · {}", self.now) };
        let (left, all) = (seconds(self.left), seconds(self.expected));
        format!("{} of {} runs{failed} · about {left} of {all} left{now}", self.done, self.children)
    }

    fn line(&self, text: &str) {
        let text = plain(text);
        let clear = if self.style == Style::Rewrite { "\r\x1b[K" } else { "" };
        write_error(&format!("{clear}{text}\n"));
    }
}

/// A duration for people: `95 s`, `3 min`.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs_f64().ceil() as u64;
    if whole < 180 { format!("{whole} s") } else { format!("{} min", whole.div_ceil(60)) }
}

fn write_error(text: &str) {
    // A closed error output is no reason to stop measuring.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(94_100)), "95 s");
        assert_eq!(seconds(Duration::from_secs(600)), "10 min");
    }

    #[test]
    fn the_status_counts_down() {
        let mut progress = Progress::in_style(Style::Silent);
        progress.begin(3, Duration::from_secs(10));
        progress.starts("small-objects, pool, latency");
        (progress.done, progress.failed, progress.left) = (1, 1, Duration::from_secs(7));
        assert_eq!(progress.status(), "1 of 3 runs · 1 failed · about 7 s of 10 s left · small-objects, pool, latency");
        progress.done = 3;
        assert_eq!(progress.status(), "3 of 3 runs · 1 failed");
    }
}
