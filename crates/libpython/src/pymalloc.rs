//! Brings a preloaded libpython's pools up, without a trace of an interpreter in them.
//!
//! Until 3.11 pymalloc's state is a static of the library and works at once. From 3.12 on it belongs to an interpreter
//! and is found through the current thread's state, so one is initialised first, with every domain on a private heap;
//! afterwards the domains get back what they had at the start.
//!
//! **Invariant:** a [`Pymalloc`] exists only after the library itself has said that its objects come from pymalloc.

use crate::functions::{ArenaAllocator, DOMAINS, Functions, MemAllocator, Symbols, set_flag, text};
use crate::private_heap;
use libc::c_void;
use std::fmt;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// First minor version whose pools belong to an interpreter.
const MINOR_WITH_INTERPRETER: u32 = 12;
/// First minor version with arenas of 1 MiB and pools of 16 KiB; before, they have 256 KiB and 4 KiB.
pub(crate) const MINOR_WITH_LARGE_ARENAS: u32 = 10;
/// Oldest minor version whose policy is that of all later ones.
const MINOR_OLDEST: u32 = 9;

/// The pools of the libpython that this process was started with.
#[derive(Clone, Copy)]
pub struct Pymalloc {
    /// Entry points. Whoever calls one holds the GIL: it is the one thread that brought the pools up.
    pub functions: Functions,
    symbols: Symbols,
}

/// Where arenas come from, as two C functions and their context.
#[derive(Clone, Copy, Debug)]
pub struct Arenas {
    /// Passed to both functions.
    pub context: *mut c_void,
    /// An arena of so many bytes, aligned to an OS page at least; null if there is none.
    pub allocate: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    /// Takes an arena back: context, address, bytes.
    pub free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// Why pools cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BringUpError {
    /// The process has no such symbol: no libpython was preloaded, or one that hides it.
    Missing(String),
    /// This version of CPython has other pools.
    Unsupported(String),
    /// The interpreter's private heap cannot be mapped.
    NoAddressSpace,
    /// The library's objects come from somewhere else; its own word for it.
    NotPymalloc(String),
    /// The library cannot be had on its mimalloc: its version, and why.
    NotMimalloc(String, String),
}

impl fmt::Display for BringUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(symbol) => {
                write!(f, "the process has no {symbol}; start it with a libpython of CPython 3.10 or later preloaded")
            }
            Self::Unsupported(version) => {
                write!(f, "CPython {version} has pools of another policy; name a CPython of 3.10 or later")
            }
            Self::NoAddressSpace => write!(f, "no address space for an interpreter; raise the limit (ulimit -v)"),
            Self::NotPymalloc(name) => {
                write!(f, "the objects of this libpython come from {name:?}; name a release build with the GIL")
            }
            Self::NotMimalloc(version, why) => {
                write!(f, "CPython {version} does not run on its mimalloc ({why}); name a CPython of 3.13 or later")
            }
        }
    }
}

impl std::error::Error for BringUpError {}

impl Pymalloc {
    /// Makes the pools of the preloaded libpython ready.
    ///
    /// From 3.12 on this initialises an interpreter, which costs some milliseconds, up to 4 MiB in a private mapping,
    /// and 3 to 4 KB that the C library keeps for itself (locale, streams); before, it costs nothing.
    ///
    /// # Errors
    /// See [`BringUpError`]. An interpreter that cannot find its standard library ends the process with a message of
    /// its own; [`Interpreter::environment`](crate::Interpreter::environment) says where it is.
    ///
    /// # Safety
    /// Called once, in a process with one thread that uses Python for nothing else.
    pub unsafe fn bring_up() -> Result<Self, BringUpError> {
        let symbols =
            Symbols::of_process().map_err(|name| BringUpError::Missing(name.to_string_lossy().into_owned()))?;
        let pymalloc = Self { functions: symbols.functions, symbols };
        let version = pymalloc.version();
        match minor(&version) {
            Some(MINOR_OLDEST..MINOR_WITH_INTERPRETER) => {}
            // SAFETY: the caller's promise.
            Some(MINOR_WITH_INTERPRETER..) => unsafe { initialise(&symbols) }?,
            _ => return Err(BringUpError::Unsupported(version)),
        }
        // SAFETY: with an interpreter where one is needed, this may be asked; the answer is a static string or null.
        let name = unsafe { text((symbols.allocator_name)()) };
        if name == "pymalloc" { Ok(pymalloc) } else { Err(BringUpError::NotPymalloc(name)) }
    }

    /// Version of CPython that the library reports, such as `3.11.7`.
    #[must_use]
    pub fn version(&self) -> String {
        self.symbols.banner().0
    }

    /// How the library was built, as it reports it: such as `(main, Dec 4 2023, 18:25:24) [GCC 12.2.0]`.
    #[must_use]
    pub fn build(&self) -> String {
        self.symbols.banner().1
    }

    /// Whether arenas have 1 MiB and pools 16 KiB, as since 3.10; else they have 256 KiB and 4 KiB.
    #[must_use]
    pub fn has_large_arenas(&self) -> bool {
        minor(&self.version()).is_some_and(|minor| minor >= MINOR_WITH_LARGE_ARENAS)
    }

    /// Has arenas come from elsewhere from now on. CPython copies the functions.
    ///
    /// # Safety
    /// No arena exists yet, and the functions keep the contract of [`Arenas`] for as long as pools are used.
    pub unsafe fn set_arenas(&self, arenas: Arenas) {
        let Arenas { context, allocate, free } = arenas;
        let mut given = ArenaAllocator { context, allocate, free };
        // SAFETY: the caller's promise; the structure is CPython's and is only read.
        unsafe { (self.symbols.set_arenas)(&raw mut given) };
    }

    /// The report of `sys._debugmallocstats()` on the pools, without the free lists of types.
    ///
    /// # Errors
    /// No memory file or stream can be had.
    ///
    /// # Safety
    /// Called by the thread that brought the pools up.
    pub unsafe fn statistics(&self) -> io::Result<String> {
        let mut file = memory_file()?;
        // The stream closes its descriptor, so it gets one of its own.
        let shared = file.try_clone()?;
        // SAFETY: an open descriptor, given up to the stream; the mode is a terminated string.
        let stream = unsafe { libc::fdopen(shared.as_raw_fd(), c"w".as_ptr()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        std::mem::forget(shared);
        // SAFETY: an open stream, closed once; pools are only walked.
        unsafe {
            (self.symbols.print_statistics)(stream);
            libc::fclose(stream);
        }
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl fmt::Debug for Pymalloc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pymalloc").field("version", &self.version()).finish_non_exhaustive()
    }
}

/// Initialises an interpreter on a private heap and gives all domains back what they had.
///
/// # Safety
/// As for [`Pymalloc::bring_up`].
pub(crate) unsafe fn initialise(symbols: &Symbols) -> Result<(), BringUpError> {
    let mut private = private_heap::allocator().ok_or(BringUpError::NoAddressSpace)?;
    let mut before = [MemAllocator::NONE; DOMAINS.len()];
    // No `site` and no byte code: nothing is imported but what an interpreter cannot start without.
    set_flag(c"Py_NoSiteFlag");
    set_flag(c"Py_DontWriteBytecodeFlag");
    // SAFETY: one thread. Allocators may be exchanged before the interpreter starts, and again after, since blocks of
    // the private heap are never passed to another allocator: no Python code runs from here on.
    unsafe {
        for (domain, before) in DOMAINS.iter().zip(&mut before) {
            (symbols.get_allocator)(*domain, before);
            (symbols.set_allocator)(*domain, &raw mut private);
        }
        (symbols.initialise)(0); // 0: no signal handlers
        for (domain, before) in DOMAINS.iter().zip(&mut before) {
            (symbols.set_allocator)(*domain, before);
        }
    }
    Ok(())
}

/// The 11 of `3.11.7`, of Python 3 only.
pub(crate) fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("3.")?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn memory_file() -> io::Result<std::fs::File> {
    // SAFETY: a terminated name.
    let descriptor = unsafe { libc::memfd_create(c"statistics".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn minors_are_read_from_versions() {
        assert_eq!(minor("3.11.7"), Some(11));
        assert_eq!(minor("3.14.0rc1"), Some(14));
        assert_eq!((minor("2.7.18"), minor("3."), minor("")), (None, None, None));
    }

    #[test]
    fn a_process_without_libpython_says_what_is_missing() {
        // SAFETY: nothing is brought up: this process has no libpython.
        let error = unsafe { Pymalloc::bring_up() }.map(|_| ()).unwrap_err();
        assert_eq!(error, BringUpError::Missing("PyObject_Malloc".to_owned()));
    }
}
