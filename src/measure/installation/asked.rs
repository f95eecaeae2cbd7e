//! What a copy says when a process of the interpreter loads its library with variables that make it speak.
//!
//! Invariant: each answer is attributed by the very variable that caused it, or by being the last to start: a library's
//! dependencies start before it. A copy that says nothing is one that does not answer, never one without options.

use super::copy::{Copy, Family};
use super::interpreter::Python;
use crate::backend::mimalloc_options_said;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Loads a library, as importing it would; nothing of it is called.
const LOAD: &str = "import ctypes, os, sys; os.write(2, b'\\n--\\n'); ctypes.CDLL(sys.argv[1])";
/// What stands between what the interpreter's own copies say and what the library's do.
const BORDER: &str = "\n--\n";
/// Makes every mimalloc name its options as it starts.
const MIMALLOC_SPEAKS: (&str, &str) = ("MIMALLOC_VERBOSE", "1");
/// Makes a jemalloc name every option that it is given, and where from (5.2 and later).
const JEMALLOC_SPEAKS: &str = "confirm_conf:true";

/// What one copy told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Options: mimalloc's all, jemalloc's as far as they were set.
    pub options: BTreeMap<String, String>,
    /// What a mimalloc says of its version (3.x and late 2.x).
    pub version: Option<String>,
    /// Pairs that a jemalloc does not take.
    pub refused: Vec<String>,
}

/// Asks a copy in a library, or in the interpreter itself where `library` is `None`; with `set`, the value of the
/// variable that it reads.
///
/// # Errors
/// Why nothing was heard: the library does not load by itself, or the copy does not speak.
pub(super) fn ask(
    python: &Python,
    library: Option<&Path>,
    copy: &Copy,
    set: Option<(&str, &str)>,
) -> Result<Answer, String> {
    let mut variables: Vec<(String, OsString)> = Vec::new();
    let jemalloc = copy.variable.as_deref().filter(|_| copy.family == Family::Jemalloc);
    match (copy.family, jemalloc) {
        (Family::Mimalloc, _) => {
            variables.push((MIMALLOC_SPEAKS.0.to_owned(), MIMALLOC_SPEAKS.1.into()));
            variables.extend(set.map(|(name, value)| (name.to_owned(), value.into())));
        }
        (_, Some(variable)) => {
            let given = set.map_or(String::new(), |(_, value)| format!(",{value}"));
            variables.push((variable.to_owned(), format!("{JEMALLOC_SPEAKS}{given}").into()));
        }
        _ => return Err("no variable makes it speak".to_owned()),
    }
    let path = library.map(|path| path.to_string_lossy().into_owned());
    let text = match &path {
        // -I and -S hide variables from Python and packages from it, not variables from C libraries.
        Some(path) => python.run(&["-I", "-S", "-c", LOAD, path.as_str()], &variables)?,
        None => python.run(&["-I", "-S", "-c", "pass"], &variables)?,
    };
    let own = if path.is_some() { text.rsplit_once(BORDER.trim_start()).map_or("", |(_, own)| own) } else { &text };
    let answer = if copy.family == Family::Mimalloc { mimalloc(own) } else { self::jemalloc(own) };
    answer.ok_or_else(|| "it says nothing as it starts".to_owned())
}

/// The last copy that spoke. Its version is a line such as `v3.4.1, release (built on Oct 30 2026, 08:17:28)`.
fn mimalloc(text: &str) -> Option<Answer> {
    let options = mimalloc_options_said(text).pop()?;
    let version = |line: &str| {
        let (_, rest) = line.split_once('v')?;
        let version = rest.split([',', ' ']).next()?;
        let is_version = version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok());
        (is_version && line.contains("built on")).then(|| version.to_owned())
    };
    let version = text.lines().rev().find_map(version);
    Some(Answer { options, version, refused: Vec::new() })
}

/// Options as they were set one after the other; one that is set again has its last value.
fn jemalloc(text: &str) -> Option<Answer> {
    let mut answer = Answer::default();
    let mut has_spoken = false;
    for line in text.lines().filter_map(|line| line.strip_prefix("<jemalloc>: ")) {
        has_spoken = true;
        if let Some((name, value)) = line.strip_prefix("-- Set conf value: ").and_then(|pair| pair.split_once(':')) {
            answer.options.insert(name.to_owned(), value.to_owned());
        } else if let Some(pair) = line.strip_prefix("Invalid conf pair: ") {
            answer.refused.push(pair.to_owned());
        } else if let Some(pair) = line.strip_prefix("Invalid conf value: ") {
            answer.refused.push(pair.to_owned());
        } else if let Some(pair) = line.strip_prefix("Out-of-range conf value: ") {
            answer.refused.push(pair.to_owned());
        }
    }
    answer.options.remove("confirm_conf");
    has_spoken.then_some(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_mimalloc_says_is_understood_and_the_last_counts() {
        let text = "mimalloc: option 'purge_delay': 10\nmimalloc: process init: 0x1\n\
                    v3.4.1, release (built on Oct 30 2026, 08:17:28)\noption 'purge_delay': 7 \n";
        let answer = mimalloc(text).unwrap();
        assert_eq!((answer.options["purge_delay"].as_str(), answer.version.as_deref()), ("7", Some("3.4.1")));
        assert_eq!(mimalloc("option 'purge_delay': 7 \nvery well, built on sand\n").unwrap().version, None);
        assert_eq!(mimalloc("nothing\n"), None);
    }

    #[test]
    fn what_a_jemalloc_says_is_understood() {
        let text = "<jemalloc>: malloc_conf #1 (string specified via --with-malloc-conf): \"\"\n\
                    <jemalloc>: -- Set conf value: dirty_decay_ms:1000\n\
                    <jemalloc>: -- Set conf value: confirm_conf:true\n\
                    <jemalloc>: Invalid conf pair: decay:1\n<jemalloc>: -- Set conf value: dirty_decay_ms:0\n";
        let answer = jemalloc(text).unwrap();
        assert_eq!(answer.options, BTreeMap::from([("dirty_decay_ms".to_owned(), "0".to_owned())]));
        assert_eq!(answer.refused, ["decay:1"]);
        assert_eq!(jemalloc("Traceback\n"), None);
    }
}
