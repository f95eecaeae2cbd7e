//! The preloaded recorder: loaded into the recorded program by `LD_PRELOAD`, it writes one record per request.
//!
//! The modules from the outside in: [`entry`] is what the program calls instead of the C library, [`python`] what
//! CPython's three domains call, [`collector`] when its collector ran, [`ending`] when its exit began, [`arrow`] what
//! Arrow's pool calls, [`directive`] what steers an allocator, [`lookup`] how entries reach a program that looks them
//! up; [`stream`] turns a call into a record; [`ring`] has the windows that take records, [`recording`] begins and
//! ends the recording, [`session_file`] maps it, [`setup`] reads what was asked for; [`large`] knows the live blocks
//! of two OS pages and more, [`touch`] how much of one was touched, [`mapped`] what libraries map for themselves,
//! [`watch`] how much memory the process holds; [`life`] sees marks, forks, thread ends and the exit, [`threads`]
//! which threads are about to end, [`exec`] what replaces an image; [`probe`] reads `/proc`. The layout of raw data
//! is [`raw`], shared with the session.
//!
//! Invariant: nothing here allocates from the heap it records, changes `errno`, panics, or blocks the program when
//! recording fails; a request is recorded exactly once, by the outermost hook that sees it.

mod arrow;
mod calibration;
mod collector;
mod directive;
mod ending;
mod entry;
mod exec;
mod large;
mod life;
mod lock;
mod lookup;
mod mapped;
mod probe;
mod python;
#[allow(dead_code, reason = "shared with the announcer, which uses the rest")]
mod python_api;
#[path = "../src/raw.rs"]
mod raw;
mod recording;
mod ring;
mod session_file;
mod setup;
mod stream;
mod sys;
mod threads;
mod touch;
mod watch;
