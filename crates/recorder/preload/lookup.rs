//! `dlsym`: a program that looks an allocator's function up in a library gets the recorder's entry for it.
//!
//! Looked up that way, `malloc` of the C library's handle would bypass every entry. Look-ups in the global order find
//! the entries by themselves.
//!
//! Invariant: the real `dlsym` runs with the caller's own return address, which decides what `RTLD_NEXT` means, and
//! with the caller's own errors. A function of another library than the C library is never replaced by one of the C
//! library's kind.

use crate::directive::{self, Wrapped};
use crate::{entry, stream, sys};
use core::ffi::{CStr, c_char, c_void};
use core::ptr::null_mut;

/// # Safety
/// As the C library's.
// SAFETY: the symbol replaces the C library's, with the same signature. All registers that carry arguments are kept.
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn dlsym() {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {instead}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jnz 2f",
        "jmp qword ptr [rip + {real}]",
        "2:",
        "ret",
        instead = sym instead,
        real = sym sys::REAL_DLSYM,
    )
}

/// What the recorder has for a name.
enum Entry {
    /// Stands for the C library's function of that name.
    Libc(*const c_void),
    /// Calls whichever library's function was found first.
    Any(&'static Wrapped, *const c_void),
}

/// What the caller gets instead of what `dlsym` finds; null: just that.
unsafe extern "C" fn instead(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    sys::find_dlsym();
    if handle == sys::RTLD_DEFAULT || handle == sys::RTLD_NEXT || name.is_null() {
        return null_mut();
    }
    // SAFETY: the program's own argument is a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    let Some(entry) = entry_of(name.to_bytes()) else { return null_mut() };
    let found = symbol(handle, name);
    if found.is_null() {
        return null_mut();
    }
    match entry {
        Entry::Libc(own) if sys::base_of(found) == sys::base_of(sys::__libc_malloc as *const c_void) => own.cast_mut(),
        Entry::Any(wrapped, own) if wrapped.takes(found) => own.cast_mut(),
        Entry::Libc(_) | Entry::Any(..) => null_mut(),
    }
}

fn entry_of(name: &[u8]) -> Option<Entry> {
    let libc = |own: *const c_void| Some(Entry::Libc(own));
    let any = |wrapped, own: *const c_void| Some(Entry::Any(wrapped, own));
    match name {
        b"malloc" => libc(entry::malloc as *const c_void),
        b"calloc" => libc(entry::calloc as *const c_void),
        b"realloc" => libc(entry::realloc as *const c_void),
        b"reallocarray" => libc(entry::reallocarray as *const c_void),
        b"memalign" => libc(entry::memalign as *const c_void),
        b"aligned_alloc" => libc(entry::aligned_alloc as *const c_void),
        b"posix_memalign" => libc(entry::posix_memalign as *const c_void),
        b"valloc" => libc(entry::valloc as *const c_void),
        b"pvalloc" => libc(entry::pvalloc as *const c_void),
        b"free" => libc(entry::free as *const c_void),
        b"malloc_trim" => libc(directive::malloc_trim as *const c_void),
        b"mallopt" => libc(directive::mallopt as *const c_void),
        b"mi_collect" => any(&directive::MI_COLLECT, directive::mi_collect as *const c_void),
        b"mi_option_set" => any(&directive::MI_OPTION_SET, directive::mi_option_set as *const c_void),
        b"mallctl" | b"je_mallctl" | b"_rjem_mallctl" => any(&directive::MALLCTL, directive::mallctl as *const c_void),
        b"MallocExtension_ReleaseFreeMemory" => {
            any(&directive::RELEASE_FREE_MEMORY, directive::release_free_memory as *const c_void)
        }
        _ => None,
    }
}

/// What a handle has under a name. A failure leaves no message, and recording is held back meanwhile.
fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
    let find = || {
        // SAFETY: the caller's handle, and a NUL-terminated name.
        let found = unsafe { sys::dlsym(handle, name.as_ptr()) };
        if found.is_null() {
            sys::forget_loader_error();
        }
        found
    };
    stream::with(|thread| sys::keeping_errno(|| thread.holding(find)))
}

/// The symbol as a loaded object itself has it; null when it has not.
pub fn own_symbol(object: &CStr, name: &CStr) -> *mut c_void {
    let open = || {
        // SAFETY: the name of a loaded object, as the loader gave it.
        let handle = unsafe { sys::dlopen(object.as_ptr(), sys::RTLD_LAZY | sys::RTLD_NOLOAD) };
        if handle.is_null() {
            sys::forget_loader_error();
        }
        handle
    };
    let handle = stream::with(|thread| sys::keeping_errno(|| thread.holding(open)));
    // A null handle would mean the global order, which leads back here.
    if handle.is_null() { null_mut() } else { symbol(handle, name) }
}
