//! Families of allocators: how a copy tells its version and its options, and how it is made to give memory back,
//! whether it was linked, loaded or preloaded. A file each.
//!
//! Invariant: what is said comes from the copy itself, or from a child process with the same copy in the same
//! environment. The process's own `malloc` is never guessed: the loader says which file it lies in.

pub(super) mod glibc;
pub(super) mod jemalloc;
pub(super) mod mimalloc;
pub(super) mod symbols;
pub(super) mod tcmalloc;

use super::{Holds, Ready};
use crate::heap::Entry;
use jemalloc::Jemalloc;
use mimalloc::{Copy, Mimalloc};
use std::collections::BTreeMap;
use symbols::{Object, Symbols};
use tcmalloc::Tcmalloc;
use trace::DirectiveCall;

/// Name of the C library's own allocator, as [`super::Ready::family`] says it.
pub const GLIBC: &str = "glibc";
/// Name of the mimalloc family.
pub const MIMALLOC: &str = "mimalloc";
/// Name of the jemalloc family.
pub const JEMALLOC: &str = "jemalloc";
/// Name of the tcmalloc family.
pub const TCMALLOC: &str = "tcmalloc";
/// A library that has a `malloc` and tells nothing else.
pub const UNKNOWN: &str = "unknown";

/// Looks for one family's functions in a library.
type Find = fn(&Symbols) -> Option<Family>;

/// The functions of one copy that are not an [`Entry`]'s.
#[derive(Clone, Debug)]
pub(super) enum Family {
    Glibc,
    Mimalloc(Mimalloc),
    Jemalloc(Jemalloc),
    Tcmalloc(Tcmalloc),
    Unknown,
}

impl Family {
    /// Of a loaded or preloaded library. A lookup that fails allocates, so the family that the file's name promises is
    /// looked for first.
    pub(super) fn of(symbols: &Symbols) -> Self {
        if Object::of(libc::gnu_get_libc_version as *const libc::c_void).as_ref() == Some(&symbols.object) {
            return Self::Glibc;
        }
        let mut ways: [(&str, Find); 3] = [
            ("mi", |symbols| Mimalloc::find(symbols).map(Self::Mimalloc)),
            ("jemalloc", |symbols| Jemalloc::find(symbols).map(Self::Jemalloc)),
            ("tcmalloc", |symbols| Tcmalloc::find(symbols).map(Self::Tcmalloc)),
        ];
        let name = symbols.object.name();
        ways.sort_by_key(|(part, _)| !name.contains(part));
        ways.iter().find_map(|(_, find)| find(symbols)).unwrap_or(Self::Unknown)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Glibc => GLIBC,
            Self::Mimalloc(_) => MIMALLOC,
            Self::Jemalloc(_) => JEMALLOC,
            Self::Tcmalloc(_) => TCMALLOC,
            Self::Unknown => UNKNOWN,
        }
    }

    /// Such as `glibc 2.36`, or `mimalloc 2.0.9 (libmimalloc.so.2)`.
    pub(super) fn version(&self, object: &Object) -> String {
        let version = match self {
            Self::Glibc => return glibc::version(),
            Self::Mimalloc(copy) => copy.version(),
            Self::Jemalloc(copy) => copy.version(),
            Self::Tcmalloc(copy) => copy.version(),
            Self::Unknown => return format!("unknown malloc ({})", object.name()),
        };
        format!("{} {version} ({})", self.name(), object.name())
    }

    /// Effective options, by the library's own names, and the file that it is.
    pub(super) fn options(&self, object: &Object) -> BTreeMap<String, String> {
        let mut options = match self {
            Self::Glibc => return glibc::options(),
            Self::Mimalloc(_) => mimalloc::options(&Copy::File(object.file.clone())),
            Self::Jemalloc(copy) => copy.options(),
            Self::Tcmalloc(_) | Self::Unknown => BTreeMap::new(),
        };
        options.insert("library".to_owned(), object.name());
        options
    }

    /// Gives free memory back to the kernel.
    pub(super) fn release(&self) {
        match self {
            Self::Glibc => glibc::release(),
            Self::Mimalloc(copy) => copy.release(),
            Self::Jemalloc(copy) => copy.release(),
            Self::Tcmalloc(copy) => copy.release(),
            Self::Unknown => {}
        }
    }

    /// Makes the call if this copy has such a function. Allocates nothing of the harness's.
    pub(super) fn carry_out(&self, call: DirectiveCall) -> bool {
        match self {
            Self::Glibc => glibc::carry_out(call),
            Self::Mimalloc(copy) => copy.carry_out(call),
            Self::Jemalloc(copy) => copy.carry_out(call),
            Self::Tcmalloc(copy) => copy.carry_out(call),
            Self::Unknown => false,
        }
    }

    /// What distinguishes one copy from another.
    pub(super) fn identity(&self) -> (&'static str, usize) {
        let address = match self {
            Self::Glibc | Self::Unknown => 0,
            Self::Mimalloc(copy) => copy.collect as usize,
            Self::Jemalloc(copy) => copy.mallctl as usize,
            Self::Tcmalloc(copy) => copy.identity(),
        };
        (self.name(), address)
    }

    /// Why a copy needs real time, if it does.
    ///
    /// Virtual time reaches what reads the clock through the C library, on the thread that replays. The disassembly of
    /// glibc's allocator, mimalloc (2.0.9, 3.3.2), jemalloc (5.3.0) and tcmalloc (gperftools 2.10) has no instruction
    /// that reads the processor's counter.
    pub(super) fn real_time(&self) -> Option<&'static str> {
        match self {
            Self::Glibc | Self::Mimalloc(_) | Self::Tcmalloc(_) => None,
            Self::Jemalloc(copy) => copy.real_time(),
            Self::Unknown => Some("which clock this malloc reads is unknown"),
        }
    }

    /// How a copy tells what it holds. A loaded mimalloc's statistics look otherwise in every version: unknown.
    pub(super) fn holds(&self) -> Option<Holds> {
        match self {
            Self::Glibc => Some(Box::new(glibc::holds)),
            Self::Jemalloc(copy) => {
                let copy = *copy;
                Some(Box::new(move || copy.holds()))
            }
            Self::Mimalloc(_) | Self::Tcmalloc(_) | Self::Unknown => None,
        }
    }

    /// A prepared allocator of this family.
    pub(super) fn ready(self, entry: Entry, object: Object) -> Ready {
        let family = self.name();
        let (other, place) = (self.clone(), object.clone());
        let (last, holds, real_time, steered) = (self.clone(), self.holds(), self.real_time(), Some(self.clone()));
        let ready =
            Ready::new(entry, move || self.version(&object), move || other.options(&place), move || last.release());
        Ready { family, holds, real_time, steered, ..ready }
    }
}
