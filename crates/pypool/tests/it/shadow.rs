//! AddressSanitizer's view of memory, if it watches this process; nothing at all otherwise.
//!
//! Blocks of a pool lie in a mapping, of which the sanitizer knows nothing. A test closes its live blocks while it does
//! not use them, and any access to one from inside the allocator is reported where it happens.
//!
//! **Invariant:** memory is open when it goes back to where it came from.

use std::ffi::{CStr, c_void};
use std::mem;
use std::sync::LazyLock;

type Mark = unsafe extern "C" fn(*const c_void, usize);

static CLOSE: LazyLock<Option<Mark>> = LazyLock::new(|| find(c"__asan_poison_memory_region"));
static OPEN: LazyLock<Option<Mark>> = LazyLock::new(|| find(c"__asan_unpoison_memory_region"));

/// Looked up when the program runs: whether a build is instrumented cannot be asked at compile time on stable Rust. An
/// executable has to be linked with `-rdynamic` for it, as `scripts/sanitize` does.
fn find(name: &CStr) -> Option<Mark> {
    // SAFETY: the name ends in a null byte.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: the sanitizer's interface declares both functions like this.
    (!function.is_null()).then(|| unsafe { mem::transmute::<*mut c_void, Mark>(function) })
}

/// Nobody may touch these bytes.
pub(crate) fn close(start: *mut u8, bytes: usize) {
    if let Some(mark) = *CLOSE {
        // SAFETY: changes the sanitizer's own tables only.
        unsafe { mark(start.cast(), bytes) };
    }
}

/// Anybody may touch these bytes.
pub(crate) fn open(start: *mut u8, bytes: usize) {
    if let Some(mark) = *OPEN {
        // SAFETY: as in `close`.
        unsafe { mark(start.cast(), bytes) };
    }
}
