//! NumPy's data-memory handler (NEP 49): array data from the functions of a library that is named at run time.
//!
//! Built as a shared library of its own by `build.rs` and set up by `pyalloc_numpy.py` beside it. NumPy keeps with each
//! array the handler that it was born with, so a block needs no lookup of whose it is: each handler's context holds
//! its own functions.
//!
//! A handler stands in the place of NumPy's own, and with it of NumPy's cache of small blocks: every request comes
//! through here. NumPy advises huge pages in its own handler alone, so that is done here, by the same rule.
//!
//! Invariant: a block goes back to the library that it came from, under whatever handler is set by then. Nothing is
//! allocated beside the requests, so a recording has those alone; and a handler once made is never unmade, since arrays
//! may outlive everything else.

mod library;

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::hint::black_box;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};
use library::Functions;

/// From so many bytes on NumPy advises huge pages.
const ADVISED_BYTES_MIN: usize = 4 << 20;
const OS_PAGE: usize = 4096;
const MADV_HUGEPAGE: c_int = 14;
/// Room for a handler's name, with the zero byte at its end.
const NAME_BYTES: usize = 127;
/// What begins the names of our handlers.
const NAME_PREFIX: &[u8] = b"pyalloc:";

/// The name that NumPy wants on the capsule around a handler.
// SAFETY: no other library has this symbol.
#[unsafe(no_mangle)]
pub static pyalloc_numpy_capsule_name: [u8; 12] = *b"mem_handler\0";

unsafe extern "C" {
    fn madvise(at: *mut c_void, bytes: usize, advice: c_int) -> c_int;
}

/// `PyDataMemAllocator` of NumPy's headers.
#[repr(C)]
struct Allocator {
    context: *mut c_void,
    malloc: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    calloc: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
    realloc: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// `PyDataMem_Handler` of NumPy's headers, version 1.
#[repr(C)]
struct Handler {
    name: [u8; NAME_BYTES],
    version: u8,
    allocator: Allocator,
}

/// What a handler's context points at.
struct Context {
    functions: Functions,
    /// Whether huge pages are advised.
    advises: bool,
}

/// A handler and what its context points at; both are written before NumPy is told of them.
struct Made(UnsafeCell<MaybeUninit<(Context, Handler)>>);

// SAFETY: each place is written once, by the one thread that took it, and only read from then on.
unsafe impl Sync for Made {}

/// Handlers of one process, each on another library.
const HANDLERS_MAX: usize = 16;
static HANDLERS: [Made; HANDLERS_MAX] = [const { Made(UnsafeCell::new(MaybeUninit::uninit())) }; HANDLERS_MAX];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Makes a handler on the functions of a library, or on the process's own `malloc` where `path` is null; null, and a
/// sentence in `error`, where there is none. It lives as long as the process. May be called on any thread.
///
/// # Safety
/// `path` is null or a NUL-terminated string; `error` has room for `error_bytes` bytes.
// SAFETY: no other library has this symbol.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pyalloc_numpy_handler(
    path: *const c_char,
    advises: c_int,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut c_void {
    // SAFETY: the caller's word.
    let path = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) });
    let made = library::functions(path).and_then(|functions| {
        let file = path.map_or(&b"system"[..], library::base_name);
        make(Context { functions, advises: advises != 0 }, name(file))
    });
    match made {
        Ok(handler) => handler,
        Err(reason) => {
            let kept = reason.len().min(error_bytes.saturating_sub(1));
            if error_bytes > 0 {
                // SAFETY: the caller's word, and what is written ends within the room.
                unsafe {
                    reason.as_ptr().cast::<c_char>().copy_to_nonoverlapping(error, kept);
                    error.add(kept).write(0);
                }
            }
            null_mut()
        }
    }
}

fn make(context: Context, name: [u8; NAME_BYTES]) -> Result<*mut c_void, String> {
    let made = HANDLERS
        .get(TAKEN.fetch_add(1, Ordering::Relaxed))
        .ok_or_else(|| format!("this process has {HANDLERS_MAX} handlers already. Have it use fewer libraries"))?;
    let place: *mut (Context, Handler) = made.0.get().cast();
    // SAFETY: this call took the place, and nobody knows of it yet.
    unsafe {
        let (own, handler) = (&raw mut (*place).0, &raw mut (*place).1);
        let allocator = Allocator { context: own.cast(), malloc, calloc, realloc, free };
        own.write(context);
        handler.write(Handler { name, version: 1, allocator });
        Ok(handler.cast())
    }
}

/// As much of it as there is room for.
fn name(file: &[u8]) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    let bytes = NAME_PREFIX.iter().chain(file);
    name.iter_mut().take(NAME_BYTES - 1).zip(bytes).for_each(|(to, from)| *to = *from);
    name
}

/// The handler that a context belongs to.
///
/// # Safety
/// NumPy passes what [`pyalloc_numpy_handler`] has put into the handler.
unsafe fn of<'a>(context: *mut c_void) -> &'a Context {
    // SAFETY: written before NumPy was told of it, and never again.
    unsafe { &*context.cast::<Context>() }
}

// The functions below look at what they got before they return it: a jump to the library's function in place of a call
// would leave NumPy's own code as the caller that a recorder sees, and the request would pass for one of the cache.

unsafe extern "C" fn malloc(context: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: NumPy's word.
    let context = unsafe { of(context) };
    // SAFETY: no precondition.
    let block = black_box(unsafe { (context.functions.malloc)(bytes) });
    context.advise(block, bytes);
    block
}

unsafe extern "C" fn calloc(context: *mut c_void, count: usize, size: usize) -> *mut c_void {
    // SAFETY: NumPy's word.
    let context = unsafe { of(context) };
    // SAFETY: no precondition.
    let block = black_box(unsafe { (context.functions.calloc)(count, size) });
    context.advise(block, count.wrapping_mul(size));
    block
}

unsafe extern "C" fn realloc(context: *mut c_void, block: *mut c_void, bytes: usize) -> *mut c_void {
    // SAFETY: NumPy's word: a live block of this handler, or null.
    black_box(unsafe { (of(context).functions.realloc)(block, bytes) })
}

/// NumPy tells the size; plain `free` is what every library has, and what replays call.
unsafe extern "C" fn free(context: *mut c_void, block: *mut c_void, _bytes: usize) {
    // SAFETY: NumPy's word: a live block of this handler, or null.
    unsafe { (of(context).functions.free)(block) }
}

impl Context {
    /// From the first page boundary after the block's start to the end of the request: NumPy's own rule, for what it
    /// has from `malloc` and `calloc`.
    #[inline(always)]
    fn advise(&self, block: *mut c_void, bytes: usize) {
        if bytes >= ADVISED_BYTES_MIN && self.advises && !block.is_null() {
            let skipped = OS_PAGE - block as usize % OS_PAGE;
            // SAFETY: advice on pages of a live block; it changes no content, and its failure changes nothing.
            unsafe { madvise(block.cast::<u8>().add(skipped).cast(), bytes - skipped, MADV_HUGEPAGE) };
        }
    }
}
