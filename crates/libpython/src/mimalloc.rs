//! Brings up the mimalloc that CPython 3.13 and later contain, of a preloaded libpython: what `PYTHONMALLOC=mimalloc`
//! puts in pymalloc's place.
//!
//! Its functions are exported under no name. So the library is made to choose it, by the variable and the very code by
//! which a program would, and is then called through `PyObject_Malloc`, which passes each call on.
//!
//! **Invariant:** a [`Mimalloc`] exists only after the library itself has said that its objects come from mimalloc.

use crate::functions::{Functions, Symbols, choose_allocators, text};
use crate::pymalloc::{BringUpError, initialise, minor};
use std::fmt;

/// First minor version with a mimalloc in it.
const MINOR_WITH_MIMALLOC: u32 = 13;

/// The mimalloc of the libpython that this process was started with.
#[derive(Clone, Copy)]
pub struct Mimalloc {
    /// `PyObject_Malloc` and its kin. Any thread may call them; each has a heap of its own in there.
    pub functions: Functions,
    symbols: Symbols,
}

impl Mimalloc {
    /// Makes the library choose mimalloc and initialises an interpreter on a private heap, as
    /// [`Pymalloc::bring_up`](crate::Pymalloc::bring_up) does.
    ///
    /// # Errors
    /// See [`BringUpError`]; also where the environment does not have `PYTHONMALLOC=mimalloc`.
    ///
    /// # Safety
    /// Called once, in a process with one thread that uses Python for nothing else.
    pub unsafe fn bring_up() -> Result<Self, BringUpError> {
        let symbols =
            Symbols::of_process().map_err(|name| BringUpError::Missing(name.to_string_lossy().into_owned()))?;
        let (version, _) = symbols.banner();
        let is_not = |why: String| BringUpError::NotMimalloc(version.clone(), why);
        if minor(&version).is_none_or(|minor| minor < MINOR_WITH_MIMALLOC) {
            return Err(is_not("it has none".to_owned()));
        }
        // SAFETY: the caller's promise; so below.
        unsafe { choose_allocators() }.map_err(is_not)?;
        // SAFETY: as above; the domains get back what was chosen.
        unsafe { initialise(&symbols) }?;
        // SAFETY: an interpreter is there; the answer is a static string or null.
        let name = unsafe { text((symbols.allocator_name)()) };
        let mimalloc = Self { functions: symbols.functions, symbols };
        if name == "mimalloc" { Ok(mimalloc) } else { Err(is_not(format!("its objects come from {name:?}"))) }
    }

    /// Version of CPython that the library reports, such as `3.13.0`. It does not tell mimalloc's.
    #[must_use]
    pub fn version(&self) -> String {
        self.symbols.banner().0
    }

    /// How the library was built, as it reports it.
    #[must_use]
    pub fn build(&self) -> String {
        self.symbols.banner().1
    }
}

impl fmt::Debug for Mimalloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mimalloc").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_libpython_says_what_is_missing() {
        // SAFETY: nothing is brought up: this process has no libpython.
        let error = unsafe { Mimalloc::bring_up() }.map(|_| ()).expect_err("there is no libpython");
        assert_eq!(error, BringUpError::Missing("PyObject_Malloc".to_owned()));
    }
}
