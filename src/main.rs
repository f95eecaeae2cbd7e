//! The binary: a worker before anything else has happened in the process, or the command line.
//!
//! Invariant: on a worker's path nothing touches the C library's heap. Rust's own start-up code does (it asks for the
//! bounds of the main thread's stack, and glibc reads `/proc/self/maps` for that with a buffer from `malloc`), so C's
//! `main` is defined here and the worker begins in it.
#![no_main]

use pyalloc_bench::worker;
use std::ffi::{CStr, c_char, c_int};
use std::panic::catch_unwind;

#[global_allocator]
static HARNESS: worker::HarnessAllocator = worker::HarnessAllocator;

/// C's entry point.
///
/// # Safety
/// Called once, by C's start-up code: `arguments` holds `count` pointers to strings that live as long as the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    let argument = |at: usize| {
        // SAFETY: C's promise.
        (at < count as usize).then(|| unsafe { CStr::from_ptr(*arguments.add(at)) }.to_str().unwrap_or("?"))
    };
    if argument(1) == Some("worker") {
        if let Err(error) = worker::use_arena() {
            worker::refuse(&error);
        }
        let rest: Vec<&str> = (2..).map_while(argument).collect();
        worker::main(&rest);
    }
    worker::use_system();
    // As Rust's own start-up does: a closed pipe is an error to report, not a signal to die of.
    // SAFETY: no other thread exists yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    catch_unwind(|| c_int::from(pyalloc_bench::cli::main(std::env::args_os()))).unwrap_or(101)
}
