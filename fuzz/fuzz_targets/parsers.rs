//! Any bytes through the parser that FUZZ_TARGET names: one program for all, since each would link every allocator.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pyalloc_bench::fuzzing::{Target, target};
use std::sync::LazyLock;

static TARGET: LazyLock<Target> =
    LazyLock::new(|| target(&std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target of src/fuzzing.rs")));

fuzz_target!(|bytes: &[u8]| (*TARGET)(bytes));
