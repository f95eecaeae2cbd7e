//! Where files are made: one crate creates, opens for writing, renames and removes, so that its rules hold for all.

use crate::source::{SourceFile, repository};

/// Where such calls may be: a file, or a folder with everything in it, and why.
const ALLOWED: &[(&str, &str)] = &[
    ("crates/files/", "the crate that makes files"),
    ("crates/recorder/src/fuzzing.rs", "the input of a fuzz target, in no shipped program"),
    ("src/fuzzing.rs", "the inputs of fuzz targets, in no shipped program"),
    ("src/run/bounded.rs", "opens for reading, without waiting for a pipe"),
    ("crates/recorder/preload/", "the recorded program's process, which has no crate of ours"),
    ("src/measure/compile.rs", "inherited descriptors, opened by /proc/self/fd"),
    ("src/measure/live/sampler.rs", "/proc/PID/clear_refs"),
    ("src/probe/sys.rs", "/proc/self/clear_refs"),
];

/// Functions and types that make or remove, by names that nothing else has.
const WORDS: &[&str] = &[
    "DirBuilder",
    "NamedTempFile",
    "OpenOptions",
    "chmod",
    "chmodat",
    "create_dir",
    "create_dir_all",
    "create_new",
    "fchmod",
    "hard_link",
    "linkat",
    "mkdir",
    "mkdirat",
    "mkfifoat",
    "mknodat",
    "openat",
    "remove_dir",
    "remove_dir_all",
    "remove_file",
    "renameat",
    "renameat_with",
    "rmdir",
    "set_permissions",
    "symlink",
    "symlinkat",
    "tempdir",
    "tempfile",
    "unlinkat",
];
/// Those whose names other things have too, with the path in front of them.
const CALLS: &[&str] =
    &["File::create", "fs::write", "fs::rename", "fs::copy", "fs::open", "libc::open", "libc::rename"];
/// Of the last, names that a braced `use` of `fs` would bring in.
const IMPORTED: &[&str] = &["write", "rename", "copy", "open"];

fn made_elsewhere(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_shipped(file)) {
        let code = shipped(&file.code()).to_owned();
        let mut words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let word = words.find(|word| WORDS.contains(word));
        let call = CALLS.iter().copied().find(|call| calls(&code, call));
        let import = code.split("fs::{").skip(1).find_map(|group| {
            let names = group.split('}').next().unwrap_or_default();
            names.split(',').map(str::trim).find(|name| IMPORTED.contains(name))
        });
        if let Some(found) = word.or(call).or(import) {
            findings.push(format!("{}: `{found}` belongs into crates/files (see tests/it/making.rs)", file.path));
        }
    }
    findings
}

fn is_shipped(file: &SourceFile) -> bool {
    let apart = ["benches/", "build.rs", "examples/", "fuzz/", "tests/", "tests.rs"];
    file.is_rust()
        && !apart.iter().any(|part| file.path.starts_with(part) || file.path.contains(&format!("/{part}")))
        && !ALLOWED.iter().any(|(place, _)| file.path.starts_with(place))
}

/// The code before a module of tests, which every file here has at its end.
fn shipped(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod tests {").map_or(code, |at| &code[..at])
}

/// Whether the code has this path as a whole.
fn calls(code: &str, call: &str) -> bool {
    let in_word = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    code.match_indices(call)
        .any(|(at, _)| !in_word(code[..at].chars().next_back()) && !in_word(code[at + call.len()..].chars().next()))
}

#[test]
fn files_are_made_in_one_place() {
    let findings = made_elsewhere(&repository());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    for offence in [
        "fn save() { std::fs::write(path, text) }\n",
        "use std::fs::File;\nfn save() { File::create(path) }\n",
        "use std::fs::{self, rename};\n",
        "fn open() { OpenOptions::new().write(true).open(path) }\n",
        "fn clear() { fs::remove_dir_all(path) }\n",
        "use std::os::unix::fs::symlink;\n",
        "fn open() { libc::open(path, flags) }\n",
    ] {
        let file = SourceFile { path: "src/new.rs".to_owned(), text: offence.to_owned() };
        assert_eq!(made_elsewhere(&[file]).len(), 1, "{offence}");
    }
    let reads =
        "fn read() { fs::read(path); File::open(path) }\n#[cfg(test)]\nmod tests {\n    fs::write(path, text)\n}\n";
    let file = SourceFile { path: "src/new.rs".to_owned(), text: reads.to_owned() };
    assert_eq!(made_elsewhere(&[file]), Vec::<String>::new());
}

#[test]
fn every_exception_is_one() {
    let files = repository();
    for (place, _) in ALLOWED {
        assert!(files.iter().any(|file| file.path.starts_with(place)), "{place} is gone; take it off the list");
    }
}
