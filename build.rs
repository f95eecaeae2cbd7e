//! Gathers what the binary carries for use outside a clone (workload definitions, their small cuts) and says what it
//! was built from: compiler, clone, revision.
//!
//! Invariant: needs nothing but the files of the package; a clone without workloads still builds. A build with the
//! feature `packaged` names no folder of the machine that it was made on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    println!("cargo:rerun-if-changed=build.rs");
    let workloads = root.join("workloads");
    let mut files = files_with_ending(&workloads, "", ".toml");
    files.extend(files_with_ending(&workloads, "cuts", ""));
    let mut table = String::from("&[\n");
    for (name, path) in &files {
        writeln!(table, "    ({name:?}, include_bytes!({:?})),", path.display().to_string()).expect("a String grows");
    }
    table.push_str("]\n");
    fs::write(out.join("embedded.rs"), table).expect("cargo's OUT_DIR can be written");
    println!("cargo:rustc-env=PYALLOC_BENCH_RUSTC={}", compiler_version());
    name_origin(&root);
}

/// The clone, which the binary looks into as long as it exists; or, for a build that is carried to other machines, the
/// revision alone, which nobody there could ask for.
fn name_origin(root: &Path) {
    let packaged = env::var_os("CARGO_FEATURE_PACKAGED").is_some();
    if packaged {
        // A file that never exists: cargo then runs this script each time, for the revision may be another one.
        println!("cargo:rerun-if-changed=revision-of-the-clone");
    }
    let clone = if packaged { String::new() } else { root.display().to_string() };
    let revision = if packaged { revision(root) } else { None };
    println!("cargo:rustc-env=PYALLOC_BENCH_CLONE={clone}");
    println!("cargo:rustc-env=PYALLOC_BENCH_REVISION={}", revision.unwrap_or_default());
}

/// Revision of the clone in this folder, `-dirty` added when tracked files differ from it; none of an unpacked archive.
fn revision(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let done = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
    };
    root.join(".git").exists().then_some(())?;
    let head = git(&["rev-parse", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changes.is_empty() { head } else { format!("{head}-dirty") })
}

/// Files of one folder of the workloads, by name relative to it, sorted; the folder is watched if it exists.
fn files_with_ending(workloads: &Path, folder: &str, ending: &str) -> Vec<(String, PathBuf)> {
    let directory = workloads.join(folder);
    let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
    println!("cargo:rerun-if-changed={}", directory.display());
    let mut files: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let hidden = name.starts_with('.');
            let relative = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            (!hidden && relative.ends_with(ending)).then(|| (relative, entry.path()))
        })
        .collect();
    files.sort();
    files
}

fn compiler_version() -> String {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc).arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&printed).trim().to_owned()
}
