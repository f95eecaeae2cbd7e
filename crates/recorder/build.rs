//! Compiles the libraries that go into other processes, so that this crate carries them: the recorder, the announcer of
//! `live`, and NumPy's handler.
//!
//! Invariant: dependency-free source, compiled by the same compiler, with the same flags, and linked by the same linker
//! for the same target as everything else, so that a build for an old C library embeds libraries for it. Where the
//! libraries do not work (anything but glibc on x86-64), nothing is embedded and their callers say so.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const LIBRARIES: [(&str, &str); 3] = [
    ("pyalloc_recorder", "preload/lib.rs"),
    ("pyalloc_announcer", "announcer/lib.rs"),
    ("pyalloc_numpy", "handler/lib.rs"),
];

fn main() {
    for watched in ["preload", "announcer", "handler", "src/raw.rs", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target = variable("TARGET");
    for (name, source) in LIBRARIES {
        let out = PathBuf::from(variable("OUT_DIR")).join(format!("lib{name}.so"));
        if target != "x86_64-unknown-linux-gnu" {
            std::fs::write(&out, b"").expect("OUT_DIR is writable");
            continue;
        }
        let status = Command::new(variable("RUSTC"))
            .args(flags_of_cargo())
            .args(["--crate-name", name, "--crate-type", "cdylib", "--edition", "2024"])
            .args([
                "-Cpanic=abort",
                "-Copt-level=3",
                "-Ccodegen-units=1",
                "-Cstrip=debuginfo",
                "-Cdebug-assertions=off",
            ])
            .args(["--target", &target, "-o"])
            .arg(&out)
            .arg(source)
            .status()
            .expect("the compiler that runs this script runs again");
        assert!(status.success(), "{name} did not compile");
    }
}

/// What cargo would pass to the compiler for this target: the flags of the user, and the linker if one is set. Ours
/// come after them and win. `maturin --zig` sets a linker that knows the oldest C library to link against.
fn flags_of_cargo() -> Vec<String> {
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let encoded = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let flags = encoded.split('\x1f').filter(|flag| !flag.is_empty()).map(str::to_owned);
    let linker = env::var("RUSTC_LINKER").ok().map(|linker| format!("-Clinker={linker}"));
    flags.chain(linker).collect()
}
