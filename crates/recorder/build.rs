//! Compiles the preloaded library, so that the recorder carries it.
//!
//! Invariant: dependency-free source, compiled by the same compiler for the same target as everything else. Where
//! the library does not work (anything but glibc on x86-64), nothing is embedded and `record` says so.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=preload");
    println!("cargo::rerun-if-changed=src/raw.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let out = PathBuf::from(variable("OUT_DIR")).join("libpyalloc_recorder.so");
    let target = variable("TARGET");
    if target != "x86_64-unknown-linux-gnu" {
        std::fs::write(&out, b"").expect("OUT_DIR is writable");
        return;
    }
    let status = Command::new(variable("RUSTC"))
        .args(["--crate-name", "pyalloc_recorder", "--crate-type", "cdylib", "--edition", "2024"])
        .args(["-Cpanic=abort", "-Copt-level=3", "-Ccodegen-units=1", "-Cstrip=debuginfo", "-Cdebug-assertions=off"])
        .args(["--target", &target, "-o"])
        .arg(&out)
        .arg("preload/lib.rs")
        .status()
        .expect("the compiler that runs this script runs again");
    assert!(status.success(), "the preloaded library did not compile");
}
