//! Marked regions of a Markdown file: where they are, and the file with their insides replaced.
//!
//! **Invariant:** nothing outside of a region changes, not a byte; a file whose marks are wrong is not read further
//! than the first wrong one, which is named by its line.

use std::ops::Range;

/// What begins a mark, after `<!--` and blanks.
const MARK: &str = "pyalloc-bench:";

/// A marked region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Line of its first mark, from 1.
    pub line: usize,
    /// The words behind `begin`: kind, result, options.
    pub words: Vec<String>,
    /// Bytes between the lines of the two marks.
    body: Range<usize>,
}

/// A mark that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its line, from 1.
    pub line: usize,
    /// A sentence that ends with what to do.
    pub reason: String,
}

impl Region {
    /// What is inside now.
    #[must_use]
    pub fn body<'a>(&self, text: &'a str) -> &'a str {
        &text[self.body.clone()]
    }
}

/// Every region of a text, in its order. A mark stands alone on its line; inside a fenced block it is an example.
///
/// # Errors
/// When a region is not closed, is closed twice, lies within another, or a mark cannot be read.
pub fn regions(text: &str) -> Result<Vec<Region>, Fault> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Vec<String>, usize)> = None;
    let mut fence: Option<&str> = None;
    let mut at = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let (start, end) = (at, at + line.len());
        at = end;
        let fault = |reason: &str| Fault { line: number, reason: reason.to_owned() };
        let trimmed = line.trim_start_matches('\u{feff}').trim();
        if open.is_none() {
            if let Some(mark) = fence {
                let closes = trimmed.starts_with(mark) && trimmed.trim_start_matches(&mark[..1]).is_empty();
                fence = Some(mark).filter(|_| !closes);
                continue;
            }
            fence = fence_mark(trimmed);
        }
        if line.starts_with("    ") || line.starts_with('\t') {
            continue; // an example as well
        }
        let Some(mark) = mark(trimmed).transpose().map_err(|reason| fault(&reason))? else { continue };
        match (mark.first().map(String::as_str), &open) {
            (Some("begin"), None) => open = Some((number, mark[1..].to_vec(), end)),
            (Some("begin"), Some((line, ..))) => {
                return Err(fault(&format!("A region begins within that of line {line}. Close that one before.")));
            }
            (Some("end"), Some((line, words, from))) => {
                found.push(Region { line: *line, words: words.clone(), body: *from..start });
                open = None;
            }
            (Some("end"), None) => return Err(fault("A region ends that did not begin. Take the mark out.")),
            (other, _) => {
                let other = other.unwrap_or_default();
                return Err(fault(&format!("A mark is `begin` or `end`, not `{other}`. Write one of these.")));
            }
        }
    }
    match open {
        None => Ok(found),
        Some((line, ..)) => {
            let reason = "The region is not closed. Put `<!-- pyalloc-bench:end -->` on a line behind it.";
            Err(Fault { line, reason: reason.into() })
        }
    }
}

/// The backquotes or tildes that a line begins a fenced block with.
fn fence_mark(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(if line.starts_with('~') { '~' } else { '`' });
    let mark = &line[..line.len() - rest.len()];
    // What is closed on the same line is code in a sentence.
    (mark.len() >= 3 && !(mark.starts_with('`') && rest.contains('`'))).then_some(mark)
}

/// The words of a mark; `None` where a line is none.
fn mark(line: &str) -> Option<Result<Vec<String>, String>> {
    let inside = line.strip_prefix("<!--")?.trim_start().strip_prefix(MARK)?;
    let Some(inside) = inside.strip_suffix("-->") else {
        return Some(Err("A mark stands alone on its line and ends in `-->`. Put the rest on another line.".into()));
    };
    Some(split(inside))
}

/// Words separated by blanks; quotes of either kind hold a word together.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => (quote, word) = (Some(c), Some(word.unwrap_or_default())),
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(quote) => Err(format!("A quote {quote} is not closed. Close it.")),
        None => Ok(words),
    }
}

/// A text as it stands in a region of a file: between empty lines, with the line ends that the file has.
#[must_use]
pub fn inside(file: &str, text: &str) -> String {
    let text = format!("\n{}\n\n", text.trim_matches('\n'));
    let crlf = file.split_inclusive('\n').next().is_some_and(|line| line.ends_with("\r\n"));
    if crlf { text.replace('\n', "\r\n") } else { text }
}

/// The file with new insides, one for each of its regions.
#[must_use]
pub fn replaced(text: &str, regions: &[Region], insides: &[String]) -> String {
    let mut new = String::with_capacity(text.len());
    let mut from = 0;
    for (region, inside) in regions.iter().zip(insides) {
        new.push_str(&text[from..region.body.start]);
        new.push_str(inside);
        from = region.body.end;
    }
    new.push_str(&text[from..]);
    new
}

/// How two texts differ, in at most so many lines of each: what both begin and end with is left out.
#[must_use]
pub fn difference(old: &str, new: &str, most: usize) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let behind = old[same..].iter().rev().zip(new[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let mut text = String::new();
    for (sign, lines) in [('-', &old[same..old.len() - behind]), ('+', &new[same..new.len() - behind])] {
        for line in lines.iter().take(most) {
            text.push_str(&format!("  {sign} {}\n", super::words::cut(line, 100)));
        }
        if let Some(more) = lines.len().checked_sub(most).filter(|more| *more > 0) {
            text.push_str(&format!("  {sign} and {}\n", super::words::plural(more, "more line")));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, String) {
        let fault = regions(text).unwrap_err();
        (fault.line, fault.reason)
    }

    #[test]
    fn regions_are_found_and_nothing_else_changes() {
        let text = "a\n<!-- pyalloc-bench:begin table 'one two' --workload \"x\" -->\nold\n\
                    <!-- pyalloc-bench:end -->\nb\n  <!--pyalloc-bench:begin terminal-->\n<!-- pyalloc-bench:end -->";
        let found = regions(text).unwrap();
        assert_eq!(found.iter().map(|region| region.line).collect::<Vec<_>>(), [2, 6]);
        assert_eq!(found[0].words, ["table", "one two", "--workload", "x"]);
        assert_eq!((found[0].body(text), found[1].body(text)), ("old\n", ""));
        let new = replaced(text, &found, &["1\n".into(), "2\n".into()]);
        assert_eq!(new, text.replace("old", "1").replace("terminal-->\n", "terminal-->\n2\n"));
        assert_eq!(regions(&new).unwrap().len(), 2);
    }

    #[test]
    fn an_example_in_a_fence_and_a_mark_in_a_sentence_are_not_marks() {
        let text = "~~~\n<!-- pyalloc-bench:begin table -->\n```\n~~~\nUse `<!-- pyalloc-bench:begin x -->`.\n````\n\
                    ```\n<!-- pyalloc-bench:end -->\n````\n```x``` is code.\n    <!-- pyalloc-bench:begin y -->\n";
        assert_eq!(regions(text), Ok(vec![]));
        // A fence inside a region is the region's own.
        let text = "<!-- pyalloc-bench:begin t -->\n```text\n<!-- pyalloc-bench:end -->\nmore\n";
        assert_eq!(regions(text).unwrap().len(), 1);
    }

    #[test]
    fn wrong_marks_are_named_by_their_line() {
        let (begin, end) = ("<!-- pyalloc-bench:begin table -->\n", "<!-- pyalloc-bench:end -->\n");
        assert_eq!(fault(&format!("\n{begin}x\n")).0, 2);
        assert_eq!(fault(&format!("{begin}\n{begin}{end}")).0, 3);
        assert_eq!(fault(&format!("{begin}{end}{end}")).0, 3);
        assert_eq!(fault("<!-- pyalloc-bench:start table -->\n").0, 1);
        assert!(fault("<!-- pyalloc-bench:begin table --> x\n").1.contains("alone on its line"));
        assert!(fault("<!-- pyalloc-bench:begin table 'x -->\n").1.contains("quote"));
    }

    #[test]
    fn line_ends_are_those_of_the_file() {
        assert_eq!(inside("a\r\nb", "x\ny\n"), "\r\nx\r\ny\r\n\r\n");
        assert_eq!(inside("a\nb", "\nx"), "\nx\n\n");
        assert_eq!(difference("a\nb\nc", "a\nd\nc", 3), "  - b\n  + d\n");
    }
}
