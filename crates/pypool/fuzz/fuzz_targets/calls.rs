//! Any bytes as a sequence of calls, made by the caller of the tests: contents, overlap, alignment, refused memory.

#![no_main]
#![allow(dead_code, reason = "the modules are the tests', which use more of them")]

#[path = "../../tests/it/caller.rs"]
mod caller;
#[path = "../../tests/it/calls.rs"]
mod calls;
#[path = "../../tests/it/shadow.rs"]
mod shadow;
#[path = "../../tests/it/sources.rs"]
mod sources;
#[path = "../../tests/it/subject.rs"]
mod subject;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| calls::run(bytes));
