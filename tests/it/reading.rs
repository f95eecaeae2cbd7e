//! Files from outside are read in one place, which knows how much of each kind may be read.

use crate::source::{SourceFile, repository};

/// Where files are opened otherwise, and why they have an end.
const ELSEWHERE: &[(&str, &str)] = &[
    ("src/run/bounded.rs", "it is that place"),
    ("src/backend/family/glibc.rs", "of the kernel"),
    ("src/measure/environment.rs", "of the kernel"),
    ("src/measure/footprint.rs", "of the kernel"),
    ("src/measure/live/program.rs", "of the kernel"),
    ("src/measure/live/sampler.rs", "of the kernel"),
];

/// What reads a file to its end, opens whatever is there, or decompresses without a bound.
const UNBOUNDED: &[&str] = &["fs::read(", "fs::read_to_string(", "File::open(", "decode_all("];

fn unbounded(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && file.path.starts_with("src/")) {
        if ELSEWHERE.iter().any(|(place, _)| *place == file.path) || file.path.ends_with("/tests.rs") {
            continue;
        }
        let code = file.code();
        let shipped = code.split("mod tests {").next().unwrap_or_default();
        for call in UNBOUNDED.iter().filter(|call| shipped.contains(**call)) {
            findings.push(format!("{}: `{call}` has no bound; read through src/run/bounded.rs", file.path));
        }
    }
    findings
}

#[test]
fn files_from_outside_are_read_within_bounds() {
    let findings = unbounded(&repository());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    for call in UNBOUNDED {
        let planted = SourceFile { path: "src/chart/new.rs".into(), text: format!("fn read() {{ {call}path) }}\n") };
        assert_eq!(unbounded(&[planted]).len(), 1, "{call}");
    }
}

#[test]
fn places_that_read_otherwise_exist() {
    let files = repository();
    for (place, _) in ELSEWHERE {
        let file = files.iter().find(|file| file.path == *place);
        let reads = file.is_some_and(|file| UNBOUNDED.iter().any(|call| file.code().contains(call)));
        assert!(reads || *place == "src/run/bounded.rs", "{place} reads nothing by itself; take it off the list");
    }
}
