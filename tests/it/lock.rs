//! What `Cargo.lock` says about what a crate is built from.

use std::collections::BTreeSet;

use crate::source::{SourceFile, repository};

/// Crates that build scripts compile or find C with.
const C_BUILDERS: &[&str] = &["autotools", "bindgen", "cc", "cmake", "nasm-rs", "pkg-config", "vcpkg"];

/// Everything that a package is built, run or tested with, on any system, by the names in a lock file.
fn closure<'a>(lock: &'a str, package: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut left = vec![package];
    while let Some(name) = left.pop() {
        if found.insert(name) {
            let heading = format!("name = \"{name}\"\n");
            let sections = lock.split("[[package]]\n").filter(|section| section.starts_with(&heading));
            let lists =
                sections.filter_map(|section| Some(section.split_once("dependencies = [\n")?.1.split_once(']')?.0));
            // A line is a quoted name, with a version if there are several of it.
            left.extend(
                lists.flat_map(str::lines).filter_map(|line| line.trim().trim_matches(['"', ',']).split(' ').next()),
            );
        }
    }
    found
}

fn c_in_the_pool(files: &[SourceFile]) -> Vec<String> {
    let Some(lock) = files.iter().find(|file| file.path == "Cargo.lock") else {
        return vec!["Cargo.lock is missing".to_owned()];
    };
    let closure = closure(&lock.text, "pypool");
    let builders = C_BUILDERS.iter().filter(|builder| closure.contains(*builder));
    builders.map(|builder| format!("Cargo.lock: pypool needs `{builder}`; it builds without any C")).collect()
}

#[test]
fn the_pool_builds_without_c() {
    assert_eq!(c_in_the_pool(&repository()), Vec::<String>::new());
    let lock = "[[package]]\nname = \"cc\"\n\n[[package]]\nname = \"pypool\"\ndependencies = [\n \"zip 2.0.0\",\n]\n\n\
                [[package]]\nname = \"zip\"\nversion = \"2.0.0\"\ndependencies = [\n \"cc\",\n]\n";
    let offence = SourceFile { path: "Cargo.lock".to_owned(), text: lock.to_owned() };
    assert_ne!(c_in_the_pool(&[offence]), Vec::<String>::new(), "the rule does not find a planted offence");
    assert!(closure(lock, "pypool").contains("zip"), "dependencies are followed");
}
