//! What is carried elsewhere: the wheel's description, the licences in it, the files of a source archive, and what the
//! binary embeds. `scripts/wheel` makes a wheel and uses it.
//!
//! **Invariant:** `Cargo.toml` is the one place of version, licence and description; `pyproject.toml` agrees with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyalloc_bench::workload::embedded;
use toml::{Table, Value};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn table(text: &str) -> Table {
    text.parse().unwrap()
}

fn text<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a str> {
    value(table, keys)?.as_str()
}

fn texts<'a>(table: &'a Table, keys: &[&str]) -> Vec<&'a str> {
    value(table, keys).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn value<'a>(table: &'a Table, keys: &[&str]) -> Option<&'a Value> {
    let (last, folders) = keys.split_last()?;
    folders.iter().try_fold(table, |table, key| table.get(*key)?.as_table())?.get(*last)
}

/// Whether a pattern with at most one `*` after each other fits a file's name.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Files of the repository that a pattern of `license-files` names; a `*` stays within its folder.
fn files_of(pattern: &str) -> Vec<PathBuf> {
    let (folder, name) = pattern.rsplit_once('/').unwrap_or((".", pattern));
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    let named = entries.filter(|entry| fits(name, &entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// What of `pyproject.toml` disagrees with `Cargo.toml` or with the files beside it.
fn disagreements(python: &Table, cargo: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("pyproject.toml: {what}"));
        }
    };
    let of_cargo = |key: &str| text(cargo, &["package", key]).or(text(cargo, &["workspace", "package", key]));
    for key in ["name", "description", "license", "readme"] {
        let stated = text(python, &["project", key]);
        expect(stated.is_some() && stated == of_cargo(key), &format!("`{key}` is not Cargo.toml's"));
    }
    // A version that is stated twice is wrong after the first release.
    let is_dynamic = texts(python, &["project", "dynamic"]).contains(&"version");
    expect(is_dynamic && value(python, &["project", "version"]).is_none(), "`version` is not left to Cargo.toml");
    expect(text(python, &["tool", "maturin", "bindings"]) == Some("bin"), "the wheel would hold no program");
    let features = texts(python, &["tool", "maturin", "features"]);
    expect(features.contains(&"packaged"), "the wheel would look into a folder of the machine it was built on");
    for feature in features {
        expect(value(cargo, &["features", feature]).is_some(), &format!("Cargo.toml has no feature `{feature}`"));
    }
    let licences = texts(python, &["project", "license-files"]);
    expect(!licences.is_empty(), "`license-files` names none");
    for pattern in licences {
        expect(!files_of(pattern).is_empty(), &format!("`license-files` names {pattern}, and no file fits"));
    }
    found
}

#[test]
fn the_wheel_is_described_as_the_crate_is() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let (python, cargo) = (read("pyproject.toml"), table(&read("Cargo.toml")));
    assert_eq!(disagreements(&table(&python), &cargo), Vec::<String>::new());
    for (from, to) in [
        ("dynamic = [\"version\"]", "version = \"0.1.0\""),
        ("name = \"pyalloc-bench\"", "name = \"pyalloc\""),
        ("license = \"MIT OR Apache-2.0\"", "license = \"MIT\""),
        ("\"LICENSE-MIT\"", "\"LICENSE-NONE\""),
        ("features = [\"packaged\"]", "features = []"),
        ("features = [\"packaged\"]", "features = [\"packaged\", \"other\"]"),
        ("bindings = \"bin\"", "bindings = \"pyo3\""),
    ] {
        assert!(python.contains(from), "{from} is not there to be changed");
        assert_eq!(disagreements(&table(&python.replacen(from, to, 1)), &cargo).len(), 1, "{to}");
    }
}

#[test]
fn licences_are_of_what_is_linked_in() {
    let carried: BTreeSet<PathBuf> =
        texts(&table(&fs::read_to_string(root().join("pyproject.toml")).unwrap()), &["project", "license-files"])
            .into_iter()
            .flat_map(files_of)
            .collect();
    // Every C library that a build script compiles, by the crate that does.
    for (package, file) in [
        ("tikv-jemalloc-sys", "assets/licences/jemalloc.txt"),
        ("libmimalloc-sys", "assets/licences/mimalloc.txt"),
        ("zstd-sys", "assets/licences/zstd.txt"),
    ] {
        let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
        assert!(lock.contains(&format!("name = \"{package}\"")), "{package} is no longer built; remove {file}");
        assert!(carried.contains(&root().join(file)), "the wheel does not carry {file}");
    }
    assert!(carried.contains(&root().join("assets/DejaVuSans-LICENCE.txt")), "the font is embedded");
}

/// Files that `cargo package` would put into an archive of this crate, which is what an sdist takes too.
fn archived(manifest: &Path) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["package", "--list", "--allow-dirty", "--offline", "--manifest-path"]).arg(manifest);
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_source_archive_builds_and_finds_its_workloads() {
    let files = archived(&root().join("Cargo.toml"));
    for needed in [
        "build.rs",
        "pyproject.toml",
        "README.md",
        "SECURITY.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "src/main.rs",
        "Cargo.lock",
    ] {
        assert!(files.contains(needed), "the source archive lacks {needed}");
    }
    for folder in ["assets", "assets/licences", "workloads/cuts"] {
        for entry in fs::read_dir(root().join(folder)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            assert!(files.contains(&path), "the source archive lacks {path}");
        }
    }
    for heavy in ["workloads/traces/", "results/"] {
        assert!(!files.iter().any(|file| file.starts_with(heavy)), "the source archive holds {heavy}");
    }
    let recorder = archived(&root().join("crates/recorder/Cargo.toml"));
    for needed in ["build.rs", "src/raw.rs", "preload/lib.rs", "announcer/lib.rs", "handler/pyalloc_numpy.py"] {
        assert!(recorder.contains(needed), "the source archive of the recorder lacks {needed}");
    }
}

#[test]
fn the_binary_carries_every_definition_with_its_cut() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("workloads")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if !name.ends_with(".toml") {
            continue;
        }
        seen += 1;
        let definition = fs::read_to_string(entry.path()).unwrap();
        assert_eq!(embedded(&name), Some(definition.as_bytes()), "{name} is not in the binary as it is here");
        let definition = table(&definition);
        let cut = text(&definition, &["cut", "file"]).unwrap();
        let bytes = fs::read(root().join("workloads").join(cut)).unwrap();
        assert_eq!(embedded(cut), Some(bytes.as_slice()), "{cut} is not in the binary as it is here");
    }
    assert!(seen > 0, "no definition was looked at");
}
