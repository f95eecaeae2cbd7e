//! What was compared with what, and how much of it, for the terminal.
//!
//! **Invariant:** a row stands for a comparison that found no difference.

use std::fmt;

use super::Counts;

/// Rows of a part, an original and counts.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<(String, String, Counts)>,
}

impl Table {
    pub(crate) fn row(&mut self, part: &str, whose: &str, counts: Counts) {
        self.rows.push((part.to_owned(), whose.to_owned(), counts));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&(String, String, Counts)) -> usize| self.rows.iter().map(text).max().unwrap_or(0);
        let (part_width, whose_width) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let head = format!("{:part_width$}  {:whose_width$}", "", "equal to");
        writeln!(f, "{head} {:>11} {:>10} classes arenas created released reports", "calls", "reallocs")?;
        for (part, whose, counts) in &self.rows {
            let Counts { calls, reallocs, created, released, reports, .. } = counts;
            write!(f, "{part:part_width$}  {whose:whose_width$} {calls:>11} {reallocs:>10} {:>7}", counts.classes())?;
            writeln!(f, " {created:>14} {released:>8} {reports:>7}")?;
        }
        Ok(())
    }
}
