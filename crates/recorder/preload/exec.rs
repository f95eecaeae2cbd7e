//! What a new program image is given: it is asked to preload this library only where it can.
//!
//! Invariant: the environment changes only where the loader would complain on the program's error output: as another
//! user or below another root the library may not be readable. Nothing here allocates or takes a lock, since a vforked
//! child runs in its parent's memory.

use crate::raw::session;
use crate::{session_file, stream, sys};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// Entries of an environment that are copied; a larger one stays as it is.
const ENTRIES_MAX: usize = 4096;
const VALUE_MAX: usize = 4096;

type Environment = *const *const c_char;

/// A copy of an environment in which this library is not preloaded.
struct Copy {
    entries: [*const c_char; ENTRIES_MAX],
    value: [u8; VALUE_MAX],
}

/// Calls `run` with the environment that a new image is to have.
fn with_environment<T>(environment: Environment, run: impl FnOnce(Environment) -> T) -> T {
    if environment.is_null() || can_be_loaded() { run(environment) } else { with_copy(environment, run) }
}

/// The copy takes 36 KiB of the stack, which a thread may not have: only this frame has it.
#[cold]
#[inline(never)]
fn with_copy<T>(environment: Environment, run: impl FnOnce(Environment) -> T) -> T {
    if let Some(count) = session_file::word(session::NOT_LOADED) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let mut copy = Copy { entries: [null(); ENTRIES_MAX], value: [0; VALUE_MAX] };
    // SAFETY: an environment ends with a null entry.
    if unsafe { copy.fill(environment) } { run(copy.entries.as_ptr()) } else { run(environment) }
}

/// Whether a new image of this process could load this library.
fn can_be_loaded() -> bool {
    let Some(path) = sys::object_of(can_be_loaded as *const c_void) else { return true };
    sys::keeping_errno(|| {
        let at = path.as_ptr();
        // SAFETY: a NUL-terminated path.
        let answer = unsafe { sys::syscall(sys::SYS_FACCESSAT2, sys::AT_FDCWD, at, sys::R_OK, sys::AT_EACCESS) };
        answer == 0 || sys::errno() == sys::ENOSYS // Before Linux 5.8.
    })
}

impl Copy {
    /// Whether the copy is whole.
    ///
    /// # Safety
    /// The environment is an array of strings that ends with a null entry.
    unsafe fn fill(&mut self, environment: Environment) -> bool {
        let mut used = 0;
        for index in 0.. {
            // SAFETY: not beyond the null entry.
            let entry = unsafe { *environment.add(index) };
            if entry.is_null() {
                return true;
            }
            if used + 1 == ENTRIES_MAX {
                return false;
            }
            // SAFETY: a string of the environment.
            let text = unsafe { CStr::from_ptr(entry) }.to_bytes();
            let Some(value) = text.strip_prefix(VARIABLE) else {
                self.entries[used] = entry;
                used += 1;
                continue;
            };
            match self.without_own(value) {
                None => return false,
                Some(0) => {}
                Some(_) => {
                    self.entries[used] = self.value.as_ptr().cast();
                    used += 1;
                }
            }
        }
        true
    }

    /// Writes the variable without this library; the number of libraries that are left, none where it is too long.
    fn without_own(&mut self, value: &[u8]) -> Option<usize> {
        let own = sys::object_of(can_be_loaded as *const c_void).map_or(&[][..], CStr::to_bytes);
        let mut end = VARIABLE.len();
        let mut left = 0;
        self.value[..end].copy_from_slice(VARIABLE);
        let is_other = |path: &&[u8]| !path.is_empty() && *path != own;
        for path in value.split(|byte| matches!(byte, b':' | b' ')).filter(is_other) {
            let separator = usize::from(left > 0);
            let begin = end + separator;
            self.value.get_mut(end..begin)?.fill(b':');
            self.value.get_mut(begin..begin + path.len() + 1)?[..path.len()].copy_from_slice(path);
            (end, left) = (begin + path.len(), left + 1);
        }
        self.value[end] = 0;
        Some(left)
    }
}

/// Defines the functions of the `exec` family that take an environment (or use the process's own).
macro_rules! with_environment_of {
    ($($name:ident, $symbol:literal, ($($argument:ident: $kind:ty),*);)*) => {$(
        /// # Safety
        /// As the C library's.
        // SAFETY: the symbol is meant to stand before the C library's, with the same signature.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*, environment: Environment) -> c_int {
            static NEXT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
            type Function = unsafe extern "C" fn($($kind),*, Environment) -> c_int;
            let next = stream::next_definition(&NEXT, $symbol);
            with_environment(environment, |environment| {
                // SAFETY: the C library always has it, with this signature; the program's own arguments.
                unsafe { transmute::<*mut c_void, Function>(next)($($argument),*, environment) }
            })
        }
    )*};
}

type Text = *const c_char;
type Unread = *const c_void;

with_environment_of! {
    execve, c"execve", (path: Text, arguments: Environment);
    execvpe, c"execvpe", (file: Text, arguments: Environment);
    fexecve, c"fexecve", (fd: c_int, arguments: Environment);
    posix_spawn, c"posix_spawn",
        (pid: *mut c_int, path: Text, actions: Unread, attributes: Unread, arguments: Environment);
    posix_spawnp, c"posix_spawnp",
        (pid: *mut c_int, file: Text, actions: Unread, attributes: Unread, arguments: Environment);
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: Environment) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { execve(path, arguments, sys::environ) }
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, arguments: Environment) -> c_int {
    // SAFETY: the program's own arguments.
    unsafe { execvpe(file, arguments, sys::environ) }
}
