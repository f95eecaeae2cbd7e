//! Libraries of allocators for tests, built from C.
//!
//! Invariant: built once per test binary, below a folder that goes with it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

pub(crate) fn compile(source: &Path, to: &str, arguments: &[&str]) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let library = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join(to);
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The allocator of a screen.
pub(crate) fn tiny(to: &str, arguments: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/allocators/tiny.c");
    // Its own functions may not be taken for the compiler's.
    compile(&source, to, &[arguments, &["-fno-builtin"]].concat())
}

/// This machine as the compiler names it: packages of other platforms need not be there.
fn host() -> String {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// mimalloc 2, from the sources of the crate that links mimalloc 3: another version than any that is linked.
pub(crate) fn mimalloc_2() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let cargo = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &host(), "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .output()
            .unwrap();
        assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == "libmimalloc-sys").unwrap();
        let root = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("c_src/mimalloc/v2");
        let include = format!("-I{}", root.join("include").display());
        let defines = ["-DNDEBUG", "-DMI_MALLOC_OVERRIDE", "-DMI_SHARED_LIB", "-DMI_SHARED_LIB_EXPORT"];
        let shape = ["-fvisibility=hidden", "-ftls-model=initial-exec", &include, "-lpthread"];
        compile(&root.join("src/static.c"), "libmimalloc-two.so", &[&defines[..], &shape[..]].concat())
    })
}
