//! A text of sections with sentences, tables and lines to paste, for a terminal or as Markdown.
//!
//! Invariant: both forms have the same words in the same order; what is to be pasted is never broken or escaped.

use super::markdown::escape;
use super::table::Table;
use super::terminal;
use std::fmt::Write;

/// A part of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A sentence or more.
    Line(String),
    /// An item of a list: what it is about, and a sentence.
    Item(String, String),
    /// A table; its caption is not printed.
    Table(Table),
    /// Lines to paste, and the language that they are in.
    Code(&'static str, String),
}

/// A heading and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// In order.
    pub parts: Vec<Part>,
}

impl Section {
    /// A section without parts.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), parts: Vec::new() }
    }

    /// Adds a sentence.
    pub fn line(&mut self, text: impl Into<String>) {
        self.parts.push(Part::Line(text.into()));
    }

    /// Adds an item.
    pub fn item(&mut self, about: impl Into<String>, text: impl Into<String>) {
        self.parts.push(Part::Item(about.into(), text.into()));
    }
}

/// For a terminal; empty sections are left out.
#[must_use]
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections.iter().filter(|section| !section.parts.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", section.title);
        for part in &section.parts {
            match part {
                Part::Line(line) => text.push_str(&terminal::wrap(&format!("  {line}"), "  ")),
                Part::Item(about, line) => text.push_str(&terminal::wrap(&format!("  {about}: {line}"), "    ")),
                Part::Table(table) => text.push_str(&table.text()),
                // Flush left: a here document ends at a line that is its word and nothing else.
                Part::Code(_, code) => text.push_str(code),
            }
        }
    }
    text
}

/// As Markdown, headings from level `level` on.
#[must_use]
pub fn markdown(sections: &[Section], level: usize) -> String {
    let mut text = String::new();
    for section in sections.iter().filter(|section| !section.parts.is_empty()) {
        let _ = write!(text, "{} {}\n\n", "#".repeat(level), escape(&section.title));
        let mut was_item = false;
        for part in &section.parts {
            let is_item = matches!(part, Part::Item(..));
            if was_item && !is_item {
                text.push('\n');
            }
            was_item = is_item;
            let _ = match part {
                Part::Line(line) => write!(text, "{}\n\n", escape(line)),
                Part::Item(about, line) => {
                    writeln!(text, "- **{}**: {}", escape(about), escape(line))
                }
                Part::Table(table) => writeln!(text, "{}", table.markdown()),
                Part::Code(language, code) => write!(text, "```{language}\n{code}```\n\n"),
            };
        }
        if was_item {
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same_and_code_stays_as_it_is() {
        let mut section = Section::new("What to do");
        section.line("a*b");
        section.item("x", "y");
        section.parts.push(Part::Code("sh", "cat <<'E'\n  *\nE\n".to_owned()));
        let sections = [section, Section::new("nothing")];
        assert_eq!(text(&sections), "What to do\n  a*b\n  x: y\ncat <<'E'\n  *\nE\n");
        assert_eq!(
            markdown(&sections, 3),
            "### What to do\n\na\\*b\n\n- **x**: y\n\n```sh\ncat <<'E'\n  *\nE\n```\n\n"
        );
    }
}
