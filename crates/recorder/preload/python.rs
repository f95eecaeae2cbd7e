//! CPython: the raw, mem and obj domains wrapped, collections marked, the phases of the interpreter's life found.
//!
//! The hooks cannot run Python code, but they can ask the interpreter to call back between two bytecodes
//! (`Py_AddPendingCall`). The first such call finds the collector. Further ones look for the end of start-up: the point
//! after which, for [`STEADY_POLLS`] looks in a row, no module was being imported and none was added. The exit is seen
//! at the first free after it began.
//!
//! Invariant: nothing here makes an object that CPython's collector counts, or holds a reference to one.

use crate::life;
use crate::lock::Guarded;
use crate::python_api::{Allocator, Api, Memory, Object, find};
use crate::raw::{Kind, LIST_AT, LIST_BYTES, flag, text, word};
use crate::{calibration, collector, ending, recording, stream, sys, threads};
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering};

const RAW: u8 = 1;
const OBJ: u8 = 3;
const DOMAINS: usize = 3;
/// Python requests between two looks at the interpreter while the end of start-up is sought.
const POLL_EVERY: u32 = 64;
/// Looks without an import after which start-up is over: about 16 Ki requests.
const STEADY_POLLS: u32 = 256;
const HOOK_MASK_CHECKED: u64 = 1 << 31;

/// One wrapped domain.
struct Hook {
    domain: u8,
    original: MaybeUninit<Allocator>,
}

/// Written once by the constructor, before the program has a second thread.
static HOOKS: Guarded<[Hook; DOMAINS]> =
    Guarded::new([const { Hook { domain: 0, original: MaybeUninit::uninit() } }; DOMAINS]);
/// Written by the constructor.
static API: Guarded<Option<Api>> = Guarded::new(None);

static IS_WRAPPED: AtomicBool = AtomicBool::new(false);
static IS_PENDING: AtomicBool = AtomicBool::new(false);
static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
static IS_LOOKING: AtomicBool = AtomicBool::new(false);
static HAS_FINALISED: AtomicBool = AtomicBool::new(false);
static IS_FREE_THREADED: AtomicBool = AtomicBool::new(false);
static QUIET_POLLS: AtomicU32 = AtomicU32::new(0);
static QUIET_SEQ: AtomicU64 = AtomicU64::new(0);
static QUIET_CPU_NS: AtomicU64 = AtomicU64::new(0);
static MODULES_SEEN: AtomicIsize = AtomicIsize::new(-1);
/// CPython's own types, found by the constructor.
static MODULE_TYPE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static TEXT_TYPE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// The type of the import system's own specifications, borrowed: its attributes are found without running Python code.
static SPEC_TYPE: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
/// Where in the dictionary of modules the one last found to be importing is; below zero for none.
static IMPORTING_AT: AtomicIsize = AtomicIsize::new(-1);
/// Interned names, made when installed, given back at the interpreter's exit: `__spec__`, `_initializing`, `__file__`.
static NAMES: [AtomicPtr<c_void>; 3] = [const { AtomicPtr::new(null_mut()) }; 3];
const SPEC: usize = 0;
const INITIALIZING: usize = 1;
const FILE: usize = 2;

fn api() -> Option<&'static Api> {
    // SAFETY: written only by the constructor.
    unsafe { API.get() }.as_ref()
}

fn name(index: usize) -> Object {
    NAMES[index].load(Ordering::Relaxed)
}

/// Wraps the three domains, if this process has CPython's allocator interface. Runs in the constructor, before
/// `main`: long before CPython configures its allocators, which then leaves them alone.
pub fn wrap() {
    let Some(memory) = Memory::load() else { return };
    // SAFETY: the only thread; nothing has read them yet.
    let (hooks, slot) = unsafe { (HOOKS.get(), API.get()) };
    *slot = Api::load();
    threads::find();
    MODULE_TYPE.store(find(c"PyModule_Type").unwrap_or(null_mut()), Ordering::Relaxed);
    TEXT_TYPE.store(find(c"PyUnicode_Type").unwrap_or(null_mut()), Ordering::Relaxed);
    for (index, hook) in hooks.iter_mut().enumerate() {
        hook.domain = RAW + index as u8;
        // SAFETY: the function fills the allocator in.
        unsafe { (memory.get_allocator)(index as c_int, hook.original.as_mut_ptr()) };
        let mut wrapper = wrapper(core::ptr::from_mut(hook).cast());
        // SAFETY: a filled-in allocator, which is copied.
        unsafe { (memory.set_allocator)(index as c_int, &mut wrapper) };
    }
    IS_WRAPPED.store(true, Ordering::Release);
    begin_anew();
    note_identity();
}

fn wrapper(context: *mut c_void) -> Allocator {
    // SAFETY: the naked entries below have these signatures.
    unsafe {
        Allocator {
            context,
            malloc: core::mem::transmute::<extern "C" fn(), _>(py_malloc),
            calloc: core::mem::transmute::<extern "C" fn(), _>(py_calloc),
            realloc: core::mem::transmute::<extern "C" fn(), _>(py_realloc),
            free: py_free,
        }
    }
}

/// Starts to look for the end of start-up, in a new process or a forked child.
pub fn begin_anew() {
    QUIET_POLLS.store(0, Ordering::Relaxed);
    MODULES_SEEN.store(-1, Ordering::Relaxed);
    IS_PENDING.store(false, Ordering::Relaxed);
    IS_LOOKING.store(api().is_some(), Ordering::Relaxed);
}

/// The program says itself when start-up is over, or the command line did.
pub fn stop_looking_for_steady() {
    IS_LOOKING.store(false, Ordering::Relaxed);
}

/// Whether threads run Python at the same time; known once the interpreter has called back.
pub fn is_free_threaded() -> bool {
    IS_FREE_THREADED.load(Ordering::Relaxed)
}

/// Whether the mark of interpreter exit was made.
pub fn has_finalised() -> bool {
    HAS_FINALISED.load(Ordering::Relaxed)
}

macro_rules! naked_entries {
    ($($name:ident => $body:path, $register:literal;)*) => {$(
        #[unsafe(naked)]
        extern "C" fn $name() {
            core::arch::naked_asm!(concat!("mov ", $register, ", [rsp]"), "jmp {body}", body = sym $body)
        }
    )*};
}

naked_entries! {
    py_malloc => malloc_from, "rdx";
    py_calloc => calloc_from, "rcx";
    py_realloc => realloc_from, "rcx";
}

/// # Safety
/// `context` is what `wrap` gave to CPython.
#[inline(always)]
unsafe fn hook(context: *mut c_void) -> (u8, &'static Allocator) {
    // SAFETY: points into `HOOKS`, filled in before CPython got it.
    let hook = unsafe { &*context.cast::<Hook>() };
    // SAFETY: as above.
    (hook.domain, unsafe { hook.original.assume_init_ref() })
}

unsafe extern "C" fn malloc_from(context: *mut c_void, size: usize, caller: usize) -> *mut c_void {
    // SAFETY: CPython passes the context on.
    let (domain, original) = unsafe { hook(context) };
    stream::with(|thread| {
        let was_held = thread.is_held();
        look_at_collector(thread, domain, was_held);
        // SAFETY: the wrapped allocator with its own context.
        let block = thread.holding(|| unsafe { (original.malloc)(original.context, size) });
        if !was_held {
            thread.allocated(Kind::Alloc, domain, 0, block as usize, size, caller);
            count(thread);
        }
        block
    })
}

unsafe extern "C" fn calloc_from(context: *mut c_void, number: usize, size: usize, caller: usize) -> *mut c_void {
    // SAFETY: CPython passes the context on.
    let (domain, original) = unsafe { hook(context) };
    stream::with(|thread| {
        let was_held = thread.is_held();
        look_at_collector(thread, domain, was_held);
        // SAFETY: the wrapped allocator with its own context.
        let block = thread.holding(|| unsafe { (original.calloc)(original.context, number, size) });
        if !was_held {
            thread.allocated(Kind::AllocZeroed, domain, 0, block as usize, number.wrapping_mul(size), caller);
            count(thread);
        }
        block
    })
}

unsafe extern "C" fn realloc_from(context: *mut c_void, block: *mut c_void, size: usize, caller: usize) -> *mut c_void {
    // SAFETY: CPython passes the context on.
    let (domain, original) = unsafe { hook(context) };
    stream::with(|thread| {
        let was_held = thread.is_held();
        look_at_collector(thread, domain, was_held);
        if !was_held && !block.is_null() {
            thread.resizing(domain, block as usize);
        }
        // SAFETY: the wrapped allocator with its own context.
        let resize = || unsafe { (original.realloc)(original.context, block, size) };
        let resized = match was_held || block.is_null() {
            true => thread.holding(resize),
            false => thread.holding(|| thread.releasing(block as usize, resize)),
        };
        if was_held {
        } else if block.is_null() {
            thread.allocated(Kind::Alloc, domain, 0, resized as usize, size, caller);
        } else {
            thread.resized(domain, resized as usize, size, caller);
        }
        resized
    })
}

unsafe extern "C" fn py_free(context: *mut c_void, block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: CPython passes the context on.
    let (domain, original) = unsafe { hook(context) };
    stream::with(|thread| {
        // SAFETY: the wrapped allocator with its own context.
        let free = || unsafe { (original.free)(original.context, block) };
        if !thread.is_own_free(block as usize) {
            return free();
        }
        look_at_collector(thread, domain, false);
        if domain != RAW && ending::has_begun() {
            finalise();
        }
        thread.freeing(domain, block as usize);
        thread.releasing(block as usize, free);
    });
}

/// Requests of the domain `raw` may be made without the GIL.
#[inline(always)]
fn look_at_collector(thread: &stream::Thread, domain: u8, is_held: bool) {
    if domain != RAW && !is_held {
        collector::look(thread);
    }
}

/// Every so many requests of the main phase, asks the interpreter for a call back.
#[inline(always)]
fn count(thread: &stream::Thread) {
    let left = thread.until_poll.get() - 1;
    if left == 0 {
        ask(thread);
    } else {
        thread.until_poll.set(left);
    }
}

#[cold]
fn ask(thread: &stream::Thread) {
    threads::note(thread);
    let Some(api) = api().filter(|_| IS_LOOKING.load(Ordering::Relaxed) || !IS_INSTALLED.load(Ordering::Relaxed))
    else {
        thread.until_poll.set(u32::MAX);
        return;
    };
    thread.until_poll.set(POLL_EVERY);
    // SAFETY: may be called at any time.
    if unsafe { (api.is_initialized)() } == 0 || !recording::is_active() || IS_PENDING.swap(true, Ordering::AcqRel) {
        return;
    }
    if !IS_INSTALLED.load(Ordering::Relaxed) {
        ending::watch(api.is_initialized);
    }
    // SAFETY: needs neither the GIL nor a thread state; the function is static.
    if thread.holding(|| unsafe { (api.add_pending_call)(on_pending, null_mut()) }) != 0 {
        IS_PENDING.store(false, Ordering::Release);
    }
}

/// Called by the interpreter between two bytecodes.
unsafe extern "C" fn on_pending(_argument: *mut c_void) -> c_int {
    let Some(api) = api() else { return 0 };
    if !IS_INSTALLED.swap(true, Ordering::Relaxed) {
        install(api);
    }
    if IS_LOOKING.load(Ordering::Relaxed) {
        look(api);
    }
    IS_PENDING.store(false, Ordering::Release);
    0
}

/// Finds the collector, measures what a record costs, and notes which interpreter this is.
fn install(api: &Api) {
    let words = [c"__spec__", c"_initializing", c"__file__"];
    // SAFETY: the interpreter is initialised and this thread runs in it; references are given back where owned.
    unsafe {
        for (slot, word) in NAMES.iter().zip(words) {
            slot.store((api.interned)(word.as_ptr()), Ordering::Relaxed);
        }
        let version = CStr::from_ptr((api.version)()).to_bytes();
        IS_FREE_THREADED.store(contains(version, b"free-threading"), Ordering::Relaxed);
    }
    if !IS_FREE_THREADED.load(Ordering::Relaxed) {
        collector::find_state();
        find_spec_type(api);
    }
    if !collector::is_found() {
        recording::add_flags(flag::NO_COLLECTIONS);
    }
    note_state();
    let mut idle = Hook { domain: OBJ, original: MaybeUninit::new(calibration::NOTHING) };
    calibration::measure(&wrapper(core::ptr::from_mut(&mut idle).cast()));
}

/// The first module is `sys`, whose specification the import system made.
fn find_spec_type(api: &Api) {
    // SAFETY: called from a pending call.
    let modules = unsafe { (api.modules)() };
    for_each_module(api, modules, 0, |module, _| {
        let spec = module_item(api, module, SPEC);
        if !spec.is_null() {
            SPEC_TYPE.store(type_of(api, spec), Ordering::Relaxed);
        }
        spec.is_null()
    });
}

/// One look for the end of start-up.
fn look(api: &Api) {
    // SAFETY: called from a pending call; the dictionary of modules is borrowed.
    let modules = unsafe { (api.modules)() };
    // SAFETY: as above.
    let count = unsafe { (api.count)(modules) };
    let is_quiet = count == MODULES_SEEN.swap(count, Ordering::Relaxed) && QUIET_POLLS.load(Ordering::Relaxed) > 0;
    if !is_quiet && is_importing(api, modules) {
        QUIET_POLLS.store(0, Ordering::Relaxed);
        return;
    }
    if !is_quiet {
        QUIET_POLLS.store(0, Ordering::Relaxed);
        QUIET_SEQ.store(stream::sequence(), Ordering::Relaxed);
        QUIET_CPU_NS.store(life::cpu_ns(), Ordering::Relaxed);
        life::note_steady(QUIET_SEQ.load(Ordering::Relaxed), QUIET_CPU_NS.load(Ordering::Relaxed));
    }
    if QUIET_POLLS.fetch_add(1, Ordering::Relaxed) + 1 >= STEADY_POLLS {
        IS_LOOKING.store(false, Ordering::Relaxed);
        note_state();
        life::mark(b"after-startup", crate::raw::mark::AFTER_STARTUP);
    }
}

/// Whether any module is being imported. The one found last time is asked first: a long import holds one module
/// in that state for thousands of looks.
fn is_importing(api: &Api, modules: Object) -> bool {
    if IS_FREE_THREADED.load(Ordering::Relaxed) {
        return false; // The dictionary may change under an iteration without a lock.
    }
    let mut found = false;
    let mut look_from = |at: isize, most: usize| {
        let mut left = most;
        for_each_module(api, modules, at, |module, at| {
            found = is_initializing(api, module);
            if found {
                IMPORTING_AT.store(at, Ordering::Relaxed);
            }
            left -= 1;
            !found && left > 0
        });
    };
    let last = IMPORTING_AT.swap(-1, Ordering::Relaxed);
    if last >= 0 {
        look_from(last, 1);
    }
    if IMPORTING_AT.load(Ordering::Relaxed) < 0 {
        look_from(0, usize::MAX);
    }
    found
}

/// Calls `each` with every real module from a place in the dictionary on, and with its place, until it says false. No
/// Python code runs meanwhile. Any number is a place: beyond the last one there are no modules.
fn for_each_module(api: &Api, modules: Object, from: isize, mut each: impl FnMut(Object, isize) -> bool) {
    let module_type = MODULE_TYPE.load(Ordering::Relaxed);
    let (mut next, mut value) = (from, null_mut());
    loop {
        let at = next;
        // SAFETY: the dictionary is not changed during the iteration; `value` is borrowed.
        if unsafe { (api.next)(modules, &mut next, null_mut(), &mut value) } == 0 {
            break;
        }
        // SAFETY: both are types; the module type is never freed.
        if unsafe { (api.is_subtype)(type_of(api, value), module_type) } != 0 && !each(value, at) {
            break;
        }
    }
}

/// The type of a live object, borrowed from it.
fn type_of(api: &Api, object: Object) -> Object {
    // SAFETY: a live object; the reference is given back, and the object keeps its type.
    unsafe {
        let kind = (api.type_of)(object);
        (api.decrement)(kind);
        kind
    }
}

/// A module's entry under one of [`NAMES`], borrowed; null when it has none.
fn module_item(api: &Api, module: Object, index: usize) -> Object {
    // SAFETY: a module, and an interned string.
    unsafe { (api.item)((api.module_dictionary)(module), name(index)) }
}

/// A specification of another type than the import system's might run Python code, or make an exception.
fn is_initializing(api: &Api, module: Object) -> bool {
    let spec = module_item(api, module, SPEC);
    if spec.is_null() || type_of(api, spec) != SPEC_TYPE.load(Ordering::Relaxed) {
        return false;
    }
    keeping_error(api, || {
        // SAFETY: a live object and an interned string; the result is owned.
        unsafe {
            let value = (api.attribute)(spec, name(INITIALIZING));
            let is_initializing = !value.is_null() && (api.is_true)(value) == 1;
            (api.decrement)(value);
            is_initializing
        }
    })
}

/// Runs `body` and puts the thread's exception back, which may be set when a hook runs.
fn keeping_error<T>(api: &Api, body: impl FnOnce() -> T) -> T {
    let (mut kind, mut value, mut traceback) = (null_mut(), null_mut(), null_mut());
    // SAFETY: this thread runs in the interpreter; the references are taken and given back.
    unsafe { (api.take_error)(&mut kind, &mut value, &mut traceback) };
    let result = body();
    // SAFETY: as above.
    unsafe { (api.put_error_back)(kind, value, traceback) };
    result
}

/// The interpreter's exit has begun, and this thread runs in it: nothing was freed yet.
#[cold]
#[inline(never)]
fn finalise() {
    if !ending::take() {
        return;
    }
    stop_looking_for_steady();
    note_hooks();
    if let Some(api) = api().filter(|_| !name(FILE).is_null()) {
        list_imports(api);
        give_back(api);
    }
    life::finalising();
    HAS_FINALISED.store(true, Ordering::Relaxed);
}

/// Gives the names back. The import system has them as well, so that none is freed here.
fn give_back(api: &Api) {
    for object in &NAMES {
        // SAFETY: owned, or null, which is allowed.
        unsafe { (api.decrement)(object.swap(null_mut(), Ordering::Relaxed)) };
    }
}

/// Notes that this is Python, and which one. Allocates nothing; may be called from a hook.
pub fn note_identity() {
    if !IS_WRAPPED.load(Ordering::Acquire) {
        return;
    }
    recording::add_flags(flag::PYTHON);
    if let Some(api) = api().filter(|_| !name(FILE).is_null()) {
        // SAFETY: may be called at any time once the interpreter runs; static text.
        let version = unsafe { CStr::from_ptr((api.version)()) };
        recording::set_text(text::PYTHON_VERSION, version.to_bytes());
    }
    note_object();
}

/// Notes what the converter wants to know of the interpreter: hooks in place, version, imported files.
pub fn note_state() {
    note_hooks();
    let Some(api) = api() else { return };
    // SAFETY: both may be called at any time.
    if unsafe { (api.is_initialized)() != 0 && (api.holds_gil)() != 0 } && !name(FILE).is_null() {
        list_imports(api);
    }
}

fn note_hooks() {
    if IS_WRAPPED.load(Ordering::Acquire) {
        recording::set(word::HOOK_MASK, 1 | wrapped_domains() | HOOK_MASK_CHECKED);
        note_identity();
    } else {
        recording::set(word::HOOK_MASK, 1 | HOOK_MASK_CHECKED);
    }
}

fn wrapped_domains() -> u64 {
    let Some(memory) = Memory::load() else { return 0 };
    let mut mask = 0;
    for index in 0..DOMAINS {
        let mut now = MaybeUninit::<Allocator>::uninit();
        // SAFETY: the function fills the allocator in.
        let now = unsafe {
            (memory.get_allocator)(index as c_int, now.as_mut_ptr());
            now.assume_init()
        };
        mask |= u64::from(now.malloc as usize == py_malloc as *const () as usize) << (RAW as usize + index);
    }
    mask
}

/// Notes which object holds `PyObject_Malloc`: the executable itself or a shared library.
fn note_object() {
    let Some(path) = find(c"PyObject_Malloc").and_then(|address| sys::object_of(address)) else { return };
    let path = path.to_bytes();
    let base_name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    recording::set_text(text::PYTHON_OBJECT, base_name);
    if !contains(base_name, b".so") {
        recording::add_flags(flag::STATIC);
    }
}

/// Writes the installed packages that modules came from: their paths up to the name after `*-packages/`.
fn list_imports(api: &Api) {
    // SAFETY: the GIL keeps other writers out.
    let Some(list) = (unsafe { recording::area(LIST_AT, LIST_BYTES) }) else { return };
    let mut used = 0;
    // SAFETY: the GIL is held.
    let modules = unsafe { (api.modules)() };
    if modules.is_null() {
        return;
    }
    for_each_module(api, modules, 0, |module, _| {
        let file = module_item(api, module, FILE);
        if file.is_null() || type_of(api, file) != TEXT_TYPE.load(Ordering::Relaxed) {
            return true;
        }
        // SAFETY: a text; null when it cannot be encoded.
        let path = keeping_error(api, || unsafe { (api.text)(file) });
        if path.is_null() {
            return true;
        }
        // SAFETY: the string lives as long as its object.
        if let Some(package) = package_path(unsafe { CStr::from_ptr(path) }.to_bytes()) {
            let is_known = list[..used].split(|&byte| byte == 0).any(|known| known == package);
            if !is_known && used + package.len() < LIST_BYTES {
                list[used..used + package.len()].copy_from_slice(package);
                list[used + package.len()] = 0;
                used += package.len() + 1;
            }
        }
        true
    });
    recording::set(word::LIST, used as u64);
}

fn package_path(path: &[u8]) -> Option<&[u8]> {
    const MARKER: &[u8] = b"-packages/";
    let after = path.windows(MARKER.len()).position(|window| window == MARKER)? + MARKER.len();
    let end = path[after..].iter().position(|&byte| byte == b'/').map_or(path.len(), |at| after + at);
    Some(&path[..end])
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
