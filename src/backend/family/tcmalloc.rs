//! tcmalloc (gperftools), which tells its version and gives memory back, and nothing else through plain C.
//!
//! Invariant: what it cannot tell is not said.

use super::symbols::Symbols;
use libc::{c_char, c_int};
use std::ffi::CStr;
use trace::{Directive, DirectiveCall};

type Version = unsafe extern "C" fn(*mut c_int, *mut c_int, *mut *const c_char) -> *const c_char;

/// Functions of one copy.
#[derive(Clone, Copy, Debug)]
pub(in crate::backend) struct Tcmalloc {
    release: unsafe extern "C" fn(),
    version: Option<Version>,
}

impl Tcmalloc {
    pub(super) fn find(symbols: &Symbols) -> Option<Self> {
        let release = symbols.find(c"MallocExtension_ReleaseFreeMemory")?;
        let version = symbols.find(c"tc_version");
        // SAFETY: gperftools declares both functions so.
        unsafe {
            Some(Self {
                release: std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn()>(release),
                version: version.map(|version| std::mem::transmute::<*mut libc::c_void, Version>(version)),
            })
        }
    }

    /// Such as `2.10`.
    pub(super) fn version(self) -> String {
        let Some(version) = self.version else { return "of unknown version".to_owned() };
        let (mut major, mut minor, mut patch) = (0, 0, std::ptr::null());
        // SAFETY: the three may be written; the text is static.
        let text = unsafe { CStr::from_ptr(version(&raw mut major, &raw mut minor, &raw mut patch)) };
        let text = text.to_string_lossy();
        text.strip_prefix("gperftools ").unwrap_or(&text).to_owned()
    }

    /// `MallocExtension_ReleaseFreeMemory`.
    pub(super) fn carry_out(self, call: DirectiveCall) -> bool {
        let is_own = call.directive == Directive::ReleaseFreeMemory;
        if is_own {
            self.release();
        }
        is_own
    }

    /// What distinguishes one copy from another.
    pub(super) fn identity(self) -> usize {
        self.release as usize
    }

    pub(super) fn release(self) {
        // SAFETY: no precondition.
        unsafe { (self.release)() };
    }
}
