//! What a `workloads/NAME.toml` says: the story of a recording, how to make it again, and what its files must hold.
//!
//! Invariant: every key is known and every required one is there, or the definition is refused with a sentence.

use serde::{Deserialize, Serialize};

/// A workload definition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name, which is also the file's stem and the word on the command line.
    pub name: String,
    /// One line.
    pub title: String,
    /// What the recorded program does and why it is here.
    pub story: Story,
    /// How it was recorded.
    pub recipe: Recipe,
    /// The full recording.
    pub trace: TraceFile,
    /// A smaller cut of it, for tests, `--quick` and use outside a clone.
    pub cut: TraceFile,
}

/// Why a workload exists.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Story {
    /// What the program does.
    pub what: String,
    /// Why it is here: which question about allocators it asks.
    pub why: String,
}

/// How to record a workload again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The command, run in the root of a clone.
    pub command: String,
    /// Version of the Python that was recorded, such as `3.11.7`.
    pub python: String,
    /// Pinned requirements, such as `numpy==2.3.1`; empty when the standard library is enough.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// A trace file and what it must hold.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFile {
    /// Path relative to the `workloads` folder.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
    /// Totals that its footer must state.
    pub totals: ExpectedTotals,
}

/// The totals that a definition promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedTotals {
    /// All events.
    pub events: u64,
    /// Allocations.
    pub allocs: u64,
    /// Frees.
    pub frees: u64,
    /// Reallocations.
    pub reallocs: u64,
    /// Most requested bytes live at once.
    pub live_bytes_peak: u64,
}

impl Definition {
    /// Reads a definition from TOML text; `file` names it in errors.
    ///
    /// # Errors
    /// A sentence when the text is not a definition.
    pub fn parse(text: &str, file: &str) -> Result<Self, String> {
        let definition: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            format!("{file} is not a workload definition: line {line}: {}. Correct the file.", e.message())
        })?;
        let stem = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".toml");
        if definition.name != stem {
            return Err(format!(
                "{file} defines the workload {:?}, but a definition's name is its file's. Rename one of them.",
                definition.name
            ));
        }
        for part in [&definition.trace, &definition.cut] {
            let relative = !part.file.starts_with('/') && !part.file.split('/').any(|step| step == "..");
            if !relative {
                return Err(format!("{file} names the file {:?}. Give a path below its own folder.", part.file));
            }
            if part.sha256.len() != 64 || !part.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("{file} gives no SHA-256 for {}. Give its 64 hex digits.", part.file));
            }
        }
        Ok(definition)
    }

    /// The story as one text.
    #[must_use]
    pub fn story_text(&self) -> String {
        format!("{} {}", self.story.what.trim(), self.story.why.trim())
    }
}

impl ExpectedTotals {
    /// The first total that a trace's own disagrees with, as a sentence.
    #[must_use]
    pub fn mismatch(&self, totals: &trace::Totals) -> Option<String> {
        let pairs = [
            ("events", self.events, totals.events),
            ("allocations", self.allocs, totals.allocs),
            ("frees", self.frees, totals.frees),
            ("reallocations", self.reallocs, totals.reallocs),
            ("live bytes at peak", self.live_bytes_peak, totals.live_bytes_peak),
        ];
        let (what, expected, found) = pairs.into_iter().find(|(_, expected, found)| expected != found)?;
        Some(format!("the definition promises {expected} {what}, the trace holds {found}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(crate) const TEXT: &str = r#"
name = "sample"
title = "A sample"
[story]
what = "Does a thing."
why = "Asks a question."
[recipe]
command = "cargo run --release -- record -o sample.trace -- python3 workloads/recipes/sample.py"
python = "3.11.2"
[trace]
file = "traces/sample.zst"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
totals = { events = 5, allocs = 3, frees = 2, reallocs = 0, live_bytes_peak = 48 }
[cut]
file = "cuts/sample.zst"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
totals = { events = 5, allocs = 3, frees = 2, reallocs = 0, live_bytes_peak = 48 }
"#;

    #[test]
    fn a_definition_is_read() {
        let definition = Definition::parse(TEXT, "workloads/sample.toml").unwrap();
        assert_eq!(definition.story_text(), "Does a thing. Asks a question.");
        assert!(definition.recipe.packages.is_empty());
    }

    #[test]
    fn what_is_not_known_or_missing_is_refused() {
        for (from, to, expected) in [
            ("title =", "colour = 1\ntitle =", "colour"),
            ("python = \"3.11.2\"", "", "python"),
            ("file = \"cuts/", "file = \"../", "below its own folder"),
            ("sha256 = \"0", "sha256 = \"g", "64 hex digits"),
            ("name = \"sample\"", "name = \"other\"", "Rename"),
        ] {
            let error = Definition::parse(&TEXT.replacen(from, to, 1), "sample.toml").unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_broken_promise_is_named() {
        let expected = Definition::parse(TEXT, "sample.toml").unwrap().trace.totals;
        let mut totals =
            trace::Totals { events: 5, allocs: 3, frees: 2, live_bytes_peak: 48, ..trace::Totals::default() };
        assert_eq!(expected.mismatch(&totals), None);
        totals.frees = 1;
        assert_eq!(expected.mismatch(&totals).unwrap(), "the definition promises 2 frees, the trace holds 1");
    }
}
