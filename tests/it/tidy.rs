//! The order of the repository, held by tests: direction of flow, places of unsafe code, sizes, names, documents.
//!
//! Each rule is a function from files to findings. Each test runs it on the repository, where it has to find nothing,
//! and on a planted offence, which it has to find.

use std::path::Path;

use crate::source::{SourceFile, repository};

/// Shared by both halves; imports neither.
const SHARED: &[&str] = &["units", "run"];
/// Touches allocators; draws nothing and computes no statistic.
const MEASURING: &[&str] = &["workload", "heap", "probe", "replay", "backend", "worker", "measure"];
/// Reads results; touches no allocator.
const READING: &[&str] = &["metric", "analysis", "chart", "report"];
/// Uses both halves; nobody uses it.
const TOP: &[&str] = &["cli", "fuzzing"];

/// Where unsafe code may be; a path, or a folder with everything in it.
const UNSAFE: &[&str] = &[
    "crates/libpython/src/",
    "crates/pypool/examples/",
    "crates/pypool/src/",
    "crates/recorder/",
    "src/backend/",
    "src/heap.rs",
    "src/main.rs",
    "src/probe/sys.rs",
    "src/probe/virtual_time.rs",
    "src/replay/slots.rs",
    "src/worker/seal.rs",
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;
const LINE_COLUMNS_MAX: usize = 120;

/// A name without a noun: code in such a file has no home.
const NAMELESS: &[&str] = &["utils.rs", "util.rs", "helpers.rs", "helper.rs", "common.rs", "misc.rs"];

/// Traces of a machine that the repository was written on. Split, so that this file does not contain them.
const OF_A_MACHINE: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!(".lib", "rary"),
    concat!("fa", "rm-"),
];

type Rule = fn(&[SourceFile]) -> Vec<String>;

/// The rule finds nothing in the repository and something in the offence.
fn hold(rule: Rule, offence: (&str, &str)) {
    let findings = rule(&repository());
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    let (path, text) = (offence.0.to_owned(), offence.1.to_owned());
    assert_ne!(rule(&[SourceFile { path, text }]), Vec::<String>::new(), "the rule does not find a planted offence");
}

fn rust(files: &[SourceFile]) -> impl Iterator<Item = &SourceFile> {
    files.iter().filter(|file| file.is_rust())
}

/// The top-level module that a file of `src/` belongs to; none for `lib.rs`, `main.rs` and files elsewhere.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "lib" && module != "main").then_some(module)
}

/// Top-level modules that code names by `crate::a` or `crate::{a, b::c}`.
fn modules_named(code: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        let word =
            |text: &str| text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
        match rest.strip_prefix('{') {
            None => named.push(&rest[..word(rest)]),
            Some(group) => {
                // Only names at the first level of the braces are modules of the crate.
                let (mut depth, mut start) = (0, true);
                for (at, letter) in group.char_indices() {
                    match letter {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ if letter.is_whitespace() => {}
                        _ if start && depth == 0 => {
                            named.push(&group[at..at + word(&group[at..])]);
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

fn flow_runs_backwards(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let Some(module) = module_of(&file.path) else { continue };
        let forbidden: Vec<&str> = match module {
            _ if SHARED.contains(&module) => [MEASURING, READING, TOP].concat(),
            _ if MEASURING.contains(&module) => [READING, TOP].concat(),
            _ if READING.contains(&module) => [MEASURING, TOP].concat(),
            _ if TOP.contains(&module) => Vec::new(),
            _ => {
                findings.push(format!("{}: module `{module}` is in no half; name it in tests/it/tidy.rs", file.path));
                continue;
            }
        };
        let code = file.code();
        for named in modules_named(&code).into_iter().filter(|named| forbidden.contains(named)) {
            findings.push(format!("{}: `{module}` may not use `{named}`", file.path));
        }
        if !READING.contains(&module) && code.contains("rayon") {
            findings.push(format!("{}: rayon's threads belong to the reading half", file.path));
        }
    }
    findings
}

fn unsafe_out_of_place(files: &[SourceFile]) -> Vec<String> {
    let shipped = |file: &&SourceFile| !file.path.starts_with("tests/") && !file.path.contains("/tests/");
    rust(files)
        .filter(shipped)
        .filter(|file| !file.path.starts_with("benches/"))
        .filter(|file| !UNSAFE.iter().any(|place| file.path.starts_with(place)))
        .filter(|file| words(&file.code()).any(|word| word == "unsafe"))
        .map(|file| format!("{}: unsafe code lives elsewhere (see the list in tests/it/tidy.rs)", file.path))
        .collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

fn too_large(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in rust(files) {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{}: {lines} lines, more than {FILE_LINES_MAX}", file.path));
        }
        for (number, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                findings.push(format!("{}:{}: {columns} columns, more than {LINE_COLUMNS_MAX}", file.path, number + 1));
            }
        }
        for (name, lines) in functions(&file.code()) {
            if lines > FUNCTION_LINES_MAX {
                findings.push(format!("{}: fn {name} has {lines} lines, more than {FUNCTION_LINES_MAX}", file.path));
            }
        }
    }
    findings
}

/// Name and number of lines of each function that has a body.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let mut found = Vec::new();
    for (at, keyword) in code.match_indices("fn ") {
        let name = words(&code[at + keyword.len()..]).next().unwrap_or_default();
        let in_word = code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
        let Some(head) = code[at..].find(['{', ';']).filter(|_| !in_word && !name.is_empty()) else { continue };
        let mut depth = 0_usize;
        for (offset, letter) in code[at + head..].char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                found.push((name, 1 + code[at..at + head + offset].matches('\n').count()));
                break;
            }
        }
    }
    found
}

fn of_a_machine(files: &[SourceFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            for trace in OF_A_MACHINE.iter().filter(|trace| line.contains(**trace)) {
                findings.push(format!("{}:{}: `{trace}` is of one machine", file.path, number + 1));
            }
        }
    }
    findings
}

fn nameless(files: &[SourceFile]) -> Vec<String> {
    let name = |file: &SourceFile| file.path.rsplit('/').next().map(str::to_owned);
    files
        .iter()
        .filter(|file| name(file).is_some_and(|name| NAMELESS.contains(&name.as_str())))
        .map(|file| format!("{}: a file needs a noun for a name", file.path))
        .collect()
}

/// Paths in backquotes in a section of ARCHITECTURE.md: words that end in `/` or in a known extension.
fn paths_in_section<'a>(document: &'a str, title: &str) -> Vec<&'a str> {
    let section = document.split("\n## ").find(|section| section.starts_with(title)).unwrap_or_default();
    section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.contains(' '))
        .filter(|word| {
            word.ends_with('/') || word.rsplit_once('.').is_some_and(|(_, end)| ["rs", "md", "toml"].contains(&end))
        })
        .collect()
}

fn architecture_out_of_date(files: &[SourceFile]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == "ARCHITECTURE.md") else {
        return vec!["ARCHITECTURE.md is missing".to_owned()];
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = paths_in_section(&document.text, "Code map");
    let mut findings: Vec<String> = map
        .iter()
        .filter(|path| !root.join(path).exists())
        .map(|path| format!("ARCHITECTURE.md: the code map names `{path}`, which does not exist"))
        .collect();
    let modules = [SHARED, MEASURING, READING, TOP].concat();
    for module in modules {
        let named =
            [format!("src/{module}.rs"), format!("src/{module}/")].iter().any(|path| map.contains(&path.as_str()));
        if !named {
            findings.push(format!("ARCHITECTURE.md: the code map does not name module `{module}`"));
        }
    }
    let listed = paths_in_section(&document.text, "Unsafe code");
    for place in UNSAFE.iter().filter(|place| !listed.contains(place)) {
        findings.push(format!("ARCHITECTURE.md: the list of unsafe code does not name `{place}`"));
    }
    findings
}

#[test]
fn each_half_imports_only_what_it_may() {
    hold(flow_runs_backwards, ("src/chart/new.rs", "use crate::{\n    run::{Run, Pass},\n    worker::Job,\n};\n"));
    hold(flow_runs_backwards, ("src/replay/new.rs", "fn draw() { crate::chart::draw() }\n"));
    hold(flow_runs_backwards, ("src/measure/new.rs", "use rayon::prelude::*;\n"));
    hold(flow_runs_backwards, ("src/elsewhere.rs", ""));
}

#[test]
fn unsafe_code_is_where_it_is_explained() {
    hold(unsafe_out_of_place, ("src/measure/new.rs", "fn read(at: *const u8) -> u8 { unsafe { *at } }\n"));
    hold(unsafe_out_of_place, ("crates/trace/src/new.rs", "unsafe fn read() {}\n"));
}

#[test]
fn places_of_unsafe_code_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in UNSAFE {
        assert!(root.join(place).exists(), "{place} is gone; take it off the list");
    }
}

#[test]
fn files_lines_and_functions_fit_the_eye() {
    hold(too_large, ("src/new.rs", &"\n".repeat(601)));
    hold(too_large, ("src/new.rs", &format!("// {}\n", "x".repeat(120))));
    hold(too_large, ("src/new.rs", &format!("fn long() {{\n{}}}\n", "    step();\n".repeat(80))));
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    hold(of_a_machine, ("README.md", &format!("see {}notes\n", OF_A_MACHINE[0])));
}

#[test]
fn files_have_nouns_for_names() {
    hold(nameless, ("src/chart/utils.rs", ""));
}

#[test]
fn architecture_is_of_this_tree() {
    let offence = "\n## Code map\n- `src/nowhere/`: nothing\n\n## Unsafe code\nNone.\n";
    hold(architecture_out_of_date, ("ARCHITECTURE.md", offence));
}
