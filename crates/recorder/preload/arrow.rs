//! Arrow's own memory pool: from version 25 on its calls into the bundled mimalloc go through exported entry points.
//!
//! Before version 25 there are none and the default pool cannot be seen: such a library is told to take its buffers
//! from the system's allocator, unless the user chose a pool.
//!
//! Invariant: the real functions are those that the library would have called: next in the global order, or the
//! caller's own.

use crate::entry::with_caller;
use crate::lookup::own_symbol;
use crate::raw::{self, Kind, flag};
use crate::{directive, recording, stream, sys};
use core::ffi::{CStr, c_char, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

const ARROW: u8 = 5;

with_caller! {
    arrow_mi_malloc_aligned => malloc_from, "rdx";
    arrow_mi_realloc_aligned => realloc_from, "rcx";
    arrow_mi_free => free_from, "rsi";
    arrow_mi_collect => collect_from, "rsi";
}

with_caller! {
    getenv => getenv_from, "rsi";
}

type GetEnv = unsafe extern "C" fn(*const c_char) -> *const c_char;

/// The next `getenv` in the global order.
static GETENV: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

unsafe extern "C" fn getenv_from(name: *const c_char, caller: usize) -> *const c_char {
    let real = stream::next_definition(&GETENV, c"getenv");
    // SAFETY: the C library always has it, with this signature; the program's own argument.
    let value = unsafe { transmute::<*mut c_void, GetEnv>(real)(name) };
    // SAFETY: the program's own argument is a NUL-terminated string.
    let asks_for_pool = value.is_null() && unsafe { CStr::from_ptr(name) } == c"ARROW_DEFAULT_MEMORY_POOL";
    if asks_for_pool && recording::is_active() && has_hidden_pool(caller) {
        recording::add_flags(flag::ARROW_TO_SYSTEM);
        return c"system".as_ptr();
    }
    value
}

/// Whether the caller is an Arrow library without the entry points above.
fn has_hidden_pool(caller: usize) -> bool {
    let Some(object) = sys::object_of(caller as *const c_void) else { return false };
    sys::base_name(object).starts_with(b"libarrow.so") && own_symbol(object, MALLOC.name).is_null()
}

type Malloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Collect = unsafe extern "C" fn(bool);

/// The function behind one entry point, found at its first call.
struct Real {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

static MALLOC: Real = Real::new(c"arrow_mi_malloc_aligned");
static REALLOC: Real = Real::new(c"arrow_mi_realloc_aligned");
static FREE: Real = Real::new(c"arrow_mi_free");
static COLLECT: Real = Real::new(c"arrow_mi_collect");

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(null_mut()) }
    }

    #[inline(always)]
    fn get(&self, caller: usize) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if known.is_null() { self.find(caller) } else { known }
    }

    #[cold]
    fn find(&self, caller: usize) -> *mut c_void {
        let find = || {
            // SAFETY: a NUL-terminated name.
            let next = unsafe { sys::dlsym(sys::RTLD_NEXT, self.name.as_ptr()) };
            if !next.is_null() {
                return next;
            }
            // Python loads extension modules outside the global scope: ask the library that is calling.
            sys::object_of(caller as *const c_void).map_or(null_mut(), |object| own_symbol(object, self.name))
        };
        let found = stream::with(|thread| sys::keeping_errno(|| thread.holding(find)));
        self.address.store(found, Ordering::Relaxed);
        recording::add_flags(flag::ARROW);
        found
    }
}

unsafe extern "C" fn malloc_from(size: usize, align: usize, caller: usize) -> *mut c_void {
    let real = MALLOC.get(caller);
    if real.is_null() {
        return null_mut();
    }
    // SAFETY: the symbol of this name has this signature.
    let real = unsafe { transmute::<*mut c_void, Malloc>(real) };
    stream::with(|thread| {
        let is_inner = thread.is_held() || thread.is_in_pool();
        // SAFETY: the library's own arguments.
        let block = thread.running_pool(|| unsafe { real(size, align) });
        if !is_inner {
            let align_log2 = align.max(1).next_power_of_two().trailing_zeros() as u8;
            thread.allocated(Kind::AllocAligned, ARROW, align_log2, block as usize, size, caller);
        }
        block
    })
}

unsafe extern "C" fn realloc_from(block: *mut c_void, size: usize, align: usize, caller: usize) -> *mut c_void {
    if block.is_null() {
        // SAFETY: resizing nothing is allocating.
        return unsafe { malloc_from(size, align, caller) };
    }
    let real = REALLOC.get(caller);
    if real.is_null() {
        return null_mut();
    }
    // SAFETY: the symbol of this name has this signature.
    let real = unsafe { transmute::<*mut c_void, Realloc>(real) };
    stream::with(|thread| {
        let is_inner = thread.is_held() || thread.is_in_pool();
        if !is_inner {
            thread.resizing(ARROW, block as usize);
        }
        // SAFETY: the library's own arguments.
        let resized = thread.running_pool(|| unsafe { real(block, size, align) });
        if !is_inner {
            thread.resized(ARROW, resized as usize, size, caller);
        }
        resized
    })
}

unsafe extern "C" fn free_from(block: *mut c_void, caller: usize) {
    let real = FREE.get(caller);
    if block.is_null() || real.is_null() {
        return;
    }
    // SAFETY: the symbol of this name has this signature.
    let real = unsafe { transmute::<*mut c_void, Free>(real) };
    stream::with(|thread| {
        if !thread.is_held() && !thread.is_in_pool() {
            thread.freeing(ARROW, block as usize);
        }
        // SAFETY: the library's own argument.
        thread.running_pool(|| unsafe { real(block) });
    });
}

/// The pool's `ReleaseUnused` alone calls this.
unsafe extern "C" fn collect_from(is_forced: bool, caller: usize) {
    let real = COLLECT.get(caller);
    if real.is_null() {
        return;
    }
    directive::note(raw::directive::RELEASE_UNUSED, 0, 0);
    // SAFETY: the symbol of this name has this signature.
    let real = unsafe { transmute::<*mut c_void, Collect>(real) };
    // SAFETY: the library's own argument.
    stream::with(|thread| thread.running_pool(|| unsafe { real(is_forced) }));
}
