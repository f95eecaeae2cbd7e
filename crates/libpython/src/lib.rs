//! The small-object allocator of a real CPython, pymalloc, outside of any Python program.
//!
//! A process that was started with a `libpython` preloaded ([`Interpreter::environment`]) can bring its pools up
//! ([`Pymalloc::bring_up`]) and call `PyObject_Malloc` and its kin directly. Two things in this workspace need that:
//! the test that holds `pypool` against the original address by address, and the allocator `cpython` of the harness.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let interpreter = libpython::Interpreter::find("python3.12".as_ref())?;
//! let mut child = std::process::Command::new(std::env::current_exe()?);
//! child.envs(interpreter.environment());
//! // In the child, before anything else:
//! // SAFETY: the process has one thread and uses Python for nothing else.
//! let pymalloc = unsafe { libpython::Pymalloc::bring_up() }?;
//! // SAFETY: one thread, which holds the GIL.
//! let block = unsafe { (pymalloc.functions.malloc)(48) };
//! # let _ = block;
//! # Ok(())
//! # }
//! ```
//!
//! [`Mimalloc`] is the same for the other allocator that 3.13 and later contain.
//!
//! Tested on Linux with CPython 3.10 to 3.13, and by the oracle alone with 3.9: shared builds with the GIL. 3.14 is let
//! through, untested.
//!
//! **Invariant:** after [`Pymalloc::bring_up`] no arena exists and no block has come from a pool, whatever the version:
//! what an interpreter needs for itself lies in a private heap.

mod functions;
mod interpreter;
mod mimalloc;
pub mod oracle;
mod private_heap;
mod pymalloc;

pub use functions::Functions;
pub use interpreter::{FindError, Interpreter, Linkage, candidates, distinct, distinct_since};
pub use mimalloc::Mimalloc;
pub use pymalloc::{Arenas, BringUpError, Pymalloc};
