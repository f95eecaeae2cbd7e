//! The pool allocator: micro patterns under criterion, then the real CPython on the bundled recordings.
//!
//! `cargo bench -- pool` runs both; `cargo bench -- pool/cpython` the comparison alone.

#[path = "../arguments/mod.rs"]
mod arguments;
mod comparison;
mod filtered;
mod instructions;
mod patterns;

use arguments::Wanted;

fn main() {
    patterns::run();
    let compared = match Wanted::now() {
        Wanted::Everything => comparison::run(),
        Wanted::Matching(filter) if comparison::NAME.contains(&filter) => comparison::run(),
        Wanted::Matching(_) | Wanted::Nothing => Ok(()),
    };
    if let Err(reason) = compared {
        eprintln!("{reason}");
        std::process::exit(1);
    }
}
