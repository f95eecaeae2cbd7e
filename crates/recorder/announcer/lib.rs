//! The announcer: preloaded by `live` into the program that runs for real, it says when a mark falls and holds the
//! program there until the sampler outside has read its memory.
//!
//! The modules from the outside in: [`entry`] is what the program calls (its own marks, and a few functions of the C
//! library whose calls show that the interpreter has begun to work, or to exit); [`interpreter`] announces the exit at
//! the recorder's moment ([`ending`]); [`channel`] is the way to the sampler.
//!
//! Invariant: no allocator is interposed and nothing here allocates; a program that nobody listens to runs on. The
//! announcer makes no object that CPython's collector counts.

mod channel;
#[path = "../preload/ending.rs"]
mod ending;
mod entry;
mod interpreter;
#[path = "../preload/python_api.rs"]
#[allow(dead_code, reason = "shared with the recorder, which uses the rest")]
mod python_api;
#[path = "../preload/sys.rs"]
#[allow(dead_code, reason = "shared with the recorder, which uses the rest")]
mod sys;
