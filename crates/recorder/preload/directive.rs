//! Functions by which the program steers its allocator: each is called as the program calls it, and recorded.
//!
//! The C library's are entries like `malloc`. Those of mimalloc, jemalloc and tcmalloc are not exported, since programs
//! test for such a symbol to learn which allocator they run on: [`crate::lookup`] puts them into place.
//!
//! Invariant: the real function runs with the program's own arguments, and its result is the program's, whatever
//! becomes of the recording.

use crate::entry::with_caller;
use crate::raw::{Kind, directive};
use crate::{lookup, setup, stream, sys};
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

with_caller! {
    malloc_trim => malloc_trim_from, "rsi";
}

static MALLOC_TRIM: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static MALLOPT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The C library's own function: what it does, it does to the heap that the recorder's entries allocate from.
fn of_libc(slot: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let mut found = slot.load(Ordering::Relaxed);
    if found.is_null() {
        let object = sys::object_of(sys::__libc_malloc as *const c_void);
        found = object.map_or(null_mut(), |object| lookup::own_symbol(object, name));
        slot.store(found, Ordering::Relaxed);
    }
    found
}

/// Writes a record of a call with these two numbers.
pub fn note(directive: u8, key: i64, value: i64) {
    let key = key.clamp(i64::from(i16::MIN), i64::from(i16::MAX)) as i16;
    let value = value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    stream::with(|thread| {
        if !thread.is_held() {
            let value = u64::from(value.cast_unsigned());
            thread.push(Kind::Direct, directive << 3, key.cast_unsigned().into(), value, 0);
        }
    });
}

unsafe extern "C" fn malloc_trim_from(pad: usize, caller: usize) -> c_int {
    let real = of_libc(&MALLOC_TRIM, c"malloc_trim");
    if real.is_null() {
        return 0;
    }
    let object = sys::object_of(caller as *const c_void);
    // Arrow's pool over the C library releases what is unused this way, and each of its other pools in another.
    if object.is_some_and(|object| sys::base_name(object).starts_with(b"libarrow.so")) {
        note(directive::RELEASE_UNUSED, 0, 0);
    } else {
        note(directive::MALLOC_TRIM, 0, i64::try_from(pad).unwrap_or(i64::MAX));
    }
    // SAFETY: the C library's function has this signature; the program's own argument.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn(usize) -> c_int>(real)(pad) }
}

/// # Safety
/// As the C library's.
// SAFETY: the symbol replaces the C library's, with the same signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mallopt(parameter: c_int, value: c_int) -> c_int {
    let real = of_libc(&MALLOPT, c"mallopt");
    if real.is_null() {
        return 0;
    }
    note(directive::MALLOPT, parameter.into(), value.into());
    // SAFETY: the C library's function has this signature; the program's own arguments.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn(c_int, c_int) -> c_int>(real)(parameter, value) }
}

/// A function that the recorder wraps where a program looks it up, whichever library has it.
pub struct Wrapped(AtomicPtr<c_void>);

pub static MI_COLLECT: Wrapped = Wrapped(AtomicPtr::new(null_mut()));
pub static MI_OPTION_SET: Wrapped = Wrapped(AtomicPtr::new(null_mut()));
pub static MALLCTL: Wrapped = Wrapped(AtomicPtr::new(null_mut()));
pub static RELEASE_FREE_MEMORY: Wrapped = Wrapped(AtomicPtr::new(null_mut()));

impl Wrapped {
    /// Whether the wrapper may stand for this function: it calls the first one that was found.
    pub fn takes(&self, found: *mut c_void) -> bool {
        let first = self.0.compare_exchange(null_mut(), found, Ordering::AcqRel, Ordering::Acquire);
        first.is_ok() || first == Err(found)
    }

    /// The function. A program has a wrapper's address only after that was found.
    fn real(&self) -> *mut c_void {
        self.0.load(Ordering::Acquire)
    }
}

pub unsafe extern "C" fn mi_collect(is_forced: bool) {
    note(directive::MI_COLLECT, 0, is_forced.into());
    // SAFETY: the library's function has this signature; the program's own argument.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn(bool)>(MI_COLLECT.real())(is_forced) }
}

pub unsafe extern "C" fn mi_option_set(option: c_int, value: c_long) {
    note(directive::MI_OPTION_SET, option.into(), value);
    // SAFETY: the library's function has this signature; the program's own arguments.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn(c_int, c_long)>(MI_OPTION_SET.real())(option, value) }
}

pub unsafe extern "C" fn release_free_memory() {
    note(directive::RELEASE_FREE_MEMORY, 0, 0);
    // SAFETY: the library's function has this signature.
    unsafe { transmute::<*mut c_void, unsafe extern "C" fn()>(RELEASE_FREE_MEMORY.real())() }
}

type Mallctl = unsafe extern "C" fn(*const c_char, *mut c_void, *mut usize, *mut c_void, usize) -> c_int;

pub unsafe extern "C" fn mallctl(
    name: *const c_char,
    old: *mut c_void,
    old_bytes: *mut usize,
    new: *mut c_void,
    new_bytes: usize,
) -> c_int {
    // SAFETY: the library's function has this signature; the program's own arguments.
    let result = unsafe { transmute::<*mut c_void, Mallctl>(MALLCTL.real())(name, old, old_bytes, new, new_bytes) };
    if result == 0 {
        // SAFETY: the library read the name and the new value itself.
        let (name, new) = unsafe {
            let new = (!new.is_null()).then(|| core::slice::from_raw_parts(new.cast::<u8>(), new_bytes));
            (CStr::from_ptr(name).to_bytes(), new)
        };
        if let Some((directive, key, value)) = mallctl_directive(name, new) {
            note(directive, key, value);
        }
    }
    result
}

/// What a successful `mallctl` did, if it is known to change what the allocator keeps.
fn mallctl_directive(name: &[u8], new: Option<&[u8]>) -> Option<(u8, i64, i64)> {
    let (arena, action) = match name.strip_prefix(b"arena.") {
        Some(rest) => {
            let dot = rest.iter().position(|&byte| byte == b'.')?;
            (setup::parse(&rest[..dot])? as i64, &rest[dot + 1..])
        }
        None => (ALL_NEW_ARENAS, name.strip_prefix(b"arenas.").unwrap_or(name)),
    };
    let number = || Some(i64::from_ne_bytes(new?.try_into().ok()?));
    match (action, arena) {
        (b"purge", 0..) => Some((directive::ARENA_PURGE, arena, 0)),
        (b"decay", 0..) => Some((directive::ARENA_DECAY, arena, 0)),
        (b"dirty_decay_ms", _) => Some((directive::DIRTY_DECAY_MS, arena, number()?)),
        (b"muzzy_decay_ms", _) => Some((directive::MUZZY_DECAY_MS, arena, number()?)),
        (b"background_thread", ALL_NEW_ARENAS) => Some((directive::BACKGROUND_THREAD, 0, i64::from(*new?.first()?))),
        (b"thread.tcache.flush", ALL_NEW_ARENAS) => Some((directive::TCACHE_FLUSH, 0, 0)),
        _ => None,
    }
}

/// The key of what holds for every arena that is made later.
const ALL_NEW_ARENAS: i64 = -1;
