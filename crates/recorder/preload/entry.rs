//! What the program calls instead of the C library: the `malloc` family, `madvise`, `_exit`, and its own marks.
//!
//! Invariant: each entry does what glibc's does, through glibc's own `__libc_*` functions, whatever becomes of the
//! recording. The entries are naked: they add their own return address, which is the call site, as one more argument
//! and jump on, so that no frame lies between.

use crate::raw::{Kind, flag};
use crate::{life, stream, sys, touch};
use core::ffi::{CStr, c_char, c_int, c_void};

const LIBC: u8 = 0;

/// Defines an exported function that passes its return address on in the register after its last argument.
macro_rules! with_caller {
    ($($name:ident => $body:path, $register:literal;)*) => {$(
        // SAFETY: the symbol is meant to stand before the C library's, with the same signature.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub extern "C" fn $name() {
            core::arch::naked_asm!(concat!("mov ", $register, ", [rsp]"), "jmp {body}", body = sym $body)
        }
    )*};
}
pub(crate) use with_caller;

with_caller! {
    malloc => malloc_from, "rsi";
    calloc => calloc_from, "rdx";
    realloc => realloc_from, "rdx";
    reallocarray => reallocarray_from, "rcx";
    memalign => memalign_from, "rdx";
    aligned_alloc => memalign_from, "rdx";
    posix_memalign => posix_memalign_from, "rcx";
    valloc => valloc_from, "rsi";
    pvalloc => pvalloc_from, "rsi";
}

unsafe extern "C" fn malloc_from(size: usize, caller: usize) -> *mut c_void {
    // SAFETY: glibc's own malloc.
    let block = unsafe { sys::__libc_malloc(size) };
    note(Kind::Alloc, 1, block, size, caller);
    block
}

unsafe extern "C" fn calloc_from(count: usize, size: usize, caller: usize) -> *mut c_void {
    // SAFETY: glibc's own calloc.
    let block = unsafe { sys::__libc_calloc(count, size) };
    note(Kind::AllocZeroed, 1, block, count.wrapping_mul(size), caller);
    block
}

unsafe extern "C" fn realloc_from(block: *mut c_void, size: usize, caller: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: realloc of nothing is malloc.
        return unsafe { malloc_from(size, caller) };
    }
    stream::with(|thread| {
        if thread.is_held() {
            // SAFETY: the program's own arguments.
            return unsafe { sys::__libc_realloc(block, size) };
        }
        if size == 0 {
            // glibc frees and returns null.
            thread.freeing(LIBC, block as usize);
            // SAFETY: as above.
            return unsafe { sys::__libc_realloc(block, size) };
        }
        thread.resizing(LIBC, block as usize);
        // SAFETY: as above.
        let resized = unsafe { sys::__libc_realloc(block, size) };
        thread.resized(LIBC, resized as usize, size, caller);
        resized
    })
}

unsafe extern "C" fn reallocarray_from(block: *mut c_void, count: usize, size: usize, caller: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the program's own arguments.
        Some(bytes) => unsafe { realloc_from(block, bytes, caller) },
        None => {
            // SAFETY: the calling thread's own errno.
            unsafe { *sys::__errno_location() = sys::ENOMEM };
            core::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn memalign_from(align: usize, size: usize, caller: usize) -> *mut c_void {
    // SAFETY: glibc's own memalign, which rounds odd alignments up.
    let block = unsafe { sys::__libc_memalign(align, size) };
    note(Kind::AllocAligned, align, block, size, caller);
    block
}

unsafe extern "C" fn posix_memalign_from(result: *mut *mut c_void, align: usize, size: usize, caller: usize) -> c_int {
    if !align.is_power_of_two() || align % size_of::<usize>() != 0 {
        return sys::EINVAL;
    }
    // SAFETY: a valid alignment.
    let block = sys::keeping_errno(|| unsafe { memalign_from(align, size, caller) });
    if block.is_null() {
        return sys::ENOMEM;
    }
    // SAFETY: the program's own pointer to where the result goes.
    unsafe { *result = block };
    0
}

unsafe extern "C" fn valloc_from(size: usize, caller: usize) -> *mut c_void {
    // SAFETY: glibc's own valloc.
    let block = unsafe { sys::__libc_valloc(size) };
    note(Kind::AllocAligned, sys::OS_PAGE, block, size, caller);
    block
}

unsafe extern "C" fn pvalloc_from(size: usize, caller: usize) -> *mut c_void {
    // SAFETY: glibc's own pvalloc.
    let block = unsafe { sys::__libc_pvalloc(size) };
    note(Kind::AllocAligned, sys::OS_PAGE, block, size.next_multiple_of(sys::OS_PAGE), caller);
    block
}

#[inline(always)]
fn note(kind: Kind, align: usize, block: *mut c_void, size: usize, caller: usize) {
    stream::with(|thread| {
        if !thread.is_held() {
            let align_log2 = align.max(1).next_power_of_two().trailing_zeros() as u8;
            thread.allocated(kind, LIBC, align_log2, block as usize, size, caller);
        }
    });
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    stream::with(|thread| {
        if thread.is_own_free(block as usize) {
            thread.freeing(LIBC, block as usize);
        } else {
            thread.has_released(block as usize);
        }
    });
    // SAFETY: the program's own argument.
    unsafe { sys::__libc_free(block) };
    touch::freed();
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    // SAFETY: the program's own arguments.
    let result = unsafe { sys::syscall(sys::SYS_MADVISE, at, bytes, advice) } as c_int;
    if advice == sys::MADV_HUGEPAGE && result == 0 {
        stream::with(|thread| {
            // A pool advises on what it took from the kernel, not on a block.
            if !thread.is_held() && !thread.is_in_pool() {
                thread.push(Kind::Advise, LIBC, at as usize, bytes as u64, 0);
            }
        });
    }
    result
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _exit(status: c_int) -> ! {
    life::finish(flag::RAW_EXIT);
    loop {
        // SAFETY: ends the process.
        unsafe { sys::syscall(sys::SYS_EXIT_GROUP, status) };
    }
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol is meant to stand before the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _Exit(status: c_int) -> ! {
    // SAFETY: the same function under another name.
    unsafe { _exit(status) }
}

/// The program's own mark, to be called through `ctypes`. At most 31 bytes of the name are kept.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
// SAFETY: no other library has this symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyalloc_mark(name: *const c_char) {
    if !name.is_null() {
        // SAFETY: the caller's word.
        life::mark_by_program(unsafe { CStr::from_ptr(name) }.to_bytes());
    }
}
