//! The repository's own text files, read for the tests that hold its order.
//!
//! **Invariant:** [`SourceFile::code`] has the lines and columns of the file, with comments and literals blanked, so a
//! word found in it is code.

use std::fs;
use std::path::Path;

/// A text file of the repository.
pub(crate) struct SourceFile {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl SourceFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The text without comments and the insides of literals.
    pub(crate) fn code(&self) -> String {
        blank_comments_and_literals(&self.text)
    }
}

/// Folders that hold nothing of the repository's own: version control, builds, caches, results of this machine.
const SKIPPED: &[&str] = &[".git", "target", "__pycache__", "pyalloc-bench-results", "proptest-regressions"];

/// Every text file of the repository, in path order.
pub(crate) fn repository() -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files
}

fn collect(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap();
        let new_result = prefix == "results/" && kind.is_dir() && !["reference", "fidelity"].contains(&name.as_str());
        if kind.is_dir() && !SKIPPED.contains(&name.as_str()) && !new_result {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if kind.is_file()
            && path != ".git"
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(SourceFile { path, text });
        }
    }
}

/// Replaces comments and the insides of string and character literals by blanks; line breaks stay.
fn blank_comments_and_literals(text: &str) -> String {
    let mut rest = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = rest.chars().next() {
        let length = blank_length(rest, code.chars().next_back());
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|letter| if letter == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// Bytes at the start of `rest` that are a comment or a literal; 0 if neither starts here.
fn blank_length(rest: &str, before: Option<char>) -> usize {
    let in_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let raw = rest.trim_start_matches(['b', 'c']);
    if !in_word && raw.starts_with('r') && raw[1..].trim_start_matches('#').starts_with('"') {
        let hashes = raw[1..].len() - raw[1..].trim_start_matches('#').len();
        let open = rest.len() - raw.len() + 2 + hashes;
        let close = format!("\"{}", "#".repeat(hashes));
        return rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len());
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    // A quote starts a character only if one closes it; else it is a lifetime.
    let is_character = rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'');
    if rest.starts_with('\'') && is_character { quoted_length(rest, '\'') } else { 0 }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a(\"unsafe \\\" //\"); // unsafe\nr#\"un\"safe\"#; 'u'; b'\\''; &'static x; /* unsafe\n */ unsafe";
    let code = blank_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>(),
        ["a(", ");", ";", ";", "b", ";", "&'static", "x;", "unsafe"]
    );
}
