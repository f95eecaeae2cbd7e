//! Names for environments that people really run, and a user's own names from a file.
//!
//! Invariant: every name stands for words that could have been typed in its place.

use crate::run::bounded;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Names that stand for variables alone: the name, and its words.
pub(super) const DEPLOYED: &[(&str, &str)] = &[
    (TODAY, ""),
    ("nopool", "PYTHONMALLOC=malloc"),
    ("debug", "PYTHONMALLOC=debug"),
    ("nopool-debug", "PYTHONMALLOC=malloc_debug"),
    ("arrow-system", "ARROW_DEFAULT_MEMORY_POOL=system"),
    ("arrow-mimalloc", "ARROW_DEFAULT_MEMORY_POOL=mimalloc"),
    ("arrow-jemalloc", "ARROW_DEFAULT_MEMORY_POOL=jemalloc"),
    ("arenas-1", "MALLOC_ARENA_MAX=1"),
    ("arenas-2", "MALLOC_ARENA_MAX=2"),
    ("trim-64k", "MALLOC_TRIM_THRESHOLD_=65536"),
    ("mmap-64k", "MALLOC_MMAP_THRESHOLD_=65536"),
    ("mmap-128k", "MALLOC_MMAP_THRESHOLD_=131072"),
];

/// The name of no variable at all: what people run.
pub(super) const TODAY: &str = "today";

/// A user's own names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(BTreeMap<String, String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigsFile {
    config: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    words: String,
}

impl Named {
    /// Reads a file of `[config.NAME]` tables, each with its `words`.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = bounded::read_text(path, bounded::TEXT_BYTES_MAX)
            .map_err(|error| format!("The configurations in {shown} cannot be read: {error}. Correct the path."))?;
        Self::parse(&text).map_err(|error| format!("{shown}: {error}"))
    }

    /// Reads the text of such a file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: ConfigsFile = toml::from_str(text).map_err(|error| {
            format!("{} Write [config.NAME] and, below it, words = \"MALLOC_ARENA_MAX=2\".", error.message())
        })?;
        if let Some(name) = file.config.keys().find(|name| super::is_taken(name) || !is_name(name)) {
            return Err(format!(
                "the configuration {name:?} cannot have that name: it is an allocator's or a preset's, or no single \
                 word. Give another."
            ));
        }
        if let Some((name, _)) = file.config.iter().find(|(_, entry)| entry.words.trim().is_empty()) {
            return Err(format!("the configuration {name:?} has no words. Give it some, or leave it out."));
        }
        Ok(Self(file.config.into_iter().map(|(name, entry)| (name, entry.words)).collect()))
    }

    /// The words that a name stands for.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every name with its words.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, words)| (name.as_str(), words.as_str()))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || matches!(c, '=' | ':' | '/'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_read_from_a_file_and_bad_ones_refused() {
        let named = Named::parse("[config.lean]\nwords = \"MALLOC_ARENA_MAX=2\"\n").unwrap();
        assert_eq!((named.get("lean"), named.get("fat")), (Some("MALLOC_ARENA_MAX=2"), None));
        for (text, expected) in [
            ("[config.lean]\nword = \"x\"\n", "unknown field"),
            ("[config.pool]\nwords = \"system\"\n", "allocator's"),
            ("[config.today]\nwords = \"system\"\n", "preset's"),
            ("[config.\"a b\"]\nwords = \"system\"\n", "single word"),
            ("words = 1", "[config.NAME]"),
        ] {
            let error = Named::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_configuration_without_words_is_refused() {
        for words in ["", " \\t "] {
            let error = Named::parse(&format!("[config.mine]\nwords = \"{words}\"\n")).unwrap_err();
            assert!(error.contains("no words"), "{error}");
        }
    }
}
