//! The way to the screen.
//!
//! Invariant: a reader that went away (`| head`) is success, never a panic. Every verb writes through here, and what a
//! terminal would obey in a text from a trace, a result, a file's name or the system is escaped.

use crate::units::{plain, plain_line};
use std::io::{ErrorKind, Write};

/// Why a verb ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Something that was checked failed: exit code 1.
    Failed(String),
    /// Usage, input or an unfit host: exit code 2.
    Unusable(String),
    /// Nothing was found to fail, and not for want of difference: exit code 3.
    Inconclusive(String),
}

impl Stop {
    pub(super) fn unusable(reason: impl std::fmt::Display) -> Self {
        Self::Unusable(reason.to_string())
    }
}

/// Writes to the standard output.
pub(super) fn print(text: &str) -> Result<(), Stop> {
    let mut out = std::io::stdout().lock();
    match out.write_all(plain(text).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::Unusable(format!("The output cannot be written: {e}. Make room for it.")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to the error output; nobody may be there to read it.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// Columns of text, each as wide as its widest cell; columns named in `right` are aligned to the right.
pub(super) fn columns(rows: &[Vec<String>], right: &[usize]) -> String {
    let plain = |row: &Vec<String>| row.iter().map(|cell| plain_line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..count).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            line.push(' ');
            line.push_str(&if right.contains(&column) { gap + cell } else { cell.clone() + &gap });
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".into()], vec!["bcd".into(), "20".into()]];
        assert_eq!(columns(&rows, &[1]), "  a     1\n  bcd  20\n");
        assert_eq!(columns(&[vec!["a\nb".into()]], &[]), "  a\\u000ab\n", "a cell is one line");
    }
}
