//! The C library's functions and constants that the recorder calls, and nothing else.
//!
//! Invariant: none of these allocates, except `dlopen` and `dlsym`, which are called with recording held back.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

pub const RTLD_DEFAULT: *mut c_void = core::ptr::null_mut();
pub const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;
pub const RTLD_LAZY: c_int = 1;
pub const RTLD_NOLOAD: c_int = 4;
pub const O_RDONLY_CLOEXEC: c_int = 0o2_000_000;
pub const O_RDWR_CLOEXEC: c_int = 0o2 | 0o2_000_000;
pub const O_NOFOLLOW: c_int = 0o400_000;
pub const PROT_READ_WRITE: c_int = 3;
pub const MAP_SHARED: c_int = 1;
pub const MAP_ANONYMOUS: c_int = 0x20;
pub const MAP_NONBLOCK: i64 = 0x10000;
pub const MREMAP_MAYMOVE: i64 = 1;
pub const MADV_RANDOM: i64 = 1;
pub const MADV_HUGEPAGE: c_int = 14;
pub const MADV_POPULATE_WRITE: i64 = 23;
pub const CLOCK_MONOTONIC: c_int = 1;
pub const CLOCK_PROCESS_CPUTIME_ID: c_int = 2;
pub const CLOCK_THREAD_CPUTIME_ID: c_int = 3;
pub const EINVAL: c_int = 22;
pub const ENOMEM: c_int = 12;
pub const ENOSYS: c_int = 38;
pub const SYS_MMAP: i64 = 9;
pub const SYS_MUNMAP: i64 = 11;
pub const SYS_IOCTL: i64 = 16;
pub const SYS_MREMAP: i64 = 25;
pub const SYS_MADVISE: i64 = 28;
pub const SYS_NANOSLEEP: i64 = 35;
pub const SYS_PRCTL: i64 = 157;
pub const PR_GET_NAME: i64 = 16;
pub const SYS_REMAP_FILE_PAGES: i64 = 216;
pub const SYS_CLOCK_GETTIME: i64 = 228;
pub const SYS_EXIT_GROUP: i64 = 231;
pub const SYS_FACCESSAT2: i64 = 439;
pub const AT_FDCWD: i64 = -100;
pub const AT_EACCESS: i64 = 0x200;
pub const R_OK: i64 = 4;
pub const OS_PAGE: usize = 4096;

#[repr(C)]
pub struct Timespec {
    pub seconds: i64,
    pub nanoseconds: i64,
}

#[repr(C)]
struct DlInfo {
    file_name: *const c_char,
    file_base: *mut c_void,
    symbol_name: *const c_char,
    symbol_address: *mut c_void,
}

unsafe extern "C" {
    pub static environ: *const *const c_char;

    pub fn __libc_malloc(size: usize) -> *mut c_void;
    pub fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    pub fn __libc_realloc(block: *mut c_void, size: usize) -> *mut c_void;
    pub fn __libc_memalign(align: usize, size: usize) -> *mut c_void;
    pub fn __libc_valloc(size: usize) -> *mut c_void;
    pub fn __libc_pvalloc(size: usize) -> *mut c_void;
    pub fn __libc_free(block: *mut c_void);

    pub fn open(path: *const c_char, flags: c_int, ...) -> c_int;
    pub fn close(fd: c_int) -> c_int;
    pub fn read(fd: c_int, buffer: *mut c_void, bytes: usize) -> isize;
    pub fn sbrk(increment: isize) -> *mut c_void;
    pub fn mincore(at: *mut c_void, bytes: usize, vector: *mut u8) -> c_int;
    pub fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    pub fn syscall(number: i64, ...) -> i64;
    pub fn getpid() -> c_int;
    pub fn getppid() -> c_int;
    pub fn sched_yield() -> c_int;
    pub fn __errno_location() -> *mut c_int;
    pub fn pthread_atfork(
        prepare: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> c_int;
    pub fn pthread_key_create(key: *mut u32, destructor: Option<extern "C" fn(*mut c_void)>) -> c_int;
    pub fn pthread_setspecific(key: u32, value: *const c_void) -> c_int;
    fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void;
    pub fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// The next `dlsym` in the global order: the C library's, unless another preloaded library has one.
pub static REAL_DLSYM: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Finds the real `dlsym`. Every C library of this processor has it under its first version.
#[inline]
pub fn find_dlsym() {
    if REAL_DLSYM.load(Ordering::Relaxed).is_null() {
        // SAFETY: NUL-terminated texts.
        let found = unsafe { dlvsym(RTLD_NEXT, c"dlsym".as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
        let found = if found.is_null() { find_nothing as *mut c_void } else { found };
        REAL_DLSYM.store(found, Ordering::Relaxed);
    }
}

unsafe extern "C" fn find_nothing(_handle: *mut c_void, _name: *const c_char) -> *mut c_void {
    null_mut()
}

/// The real `dlsym`, called from this library.
///
/// # Safety
/// As the C library's.
pub unsafe fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;
    find_dlsym();
    // SAFETY: the function of this name has this signature.
    let real = unsafe { core::mem::transmute::<*mut c_void, Dlsym>(REAL_DLSYM.load(Ordering::Relaxed)) };
    // SAFETY: the caller's own arguments.
    unsafe { real(handle, name) }
}

/// `mmap` as the kernel has it: the library's own function is the hook.
///
/// # Safety
/// As the C library's.
pub unsafe fn mmap(at: *mut c_void, bytes: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void {
    // SAFETY: the caller's own arguments, each as wide as a register.
    unsafe { syscall(SYS_MMAP, at, bytes, i64::from(prot), i64::from(flags), i64::from(fd), offset) as *mut c_void }
}

/// `munmap` as the kernel has it.
///
/// # Safety
/// As the C library's.
pub unsafe fn munmap(at: *mut c_void, bytes: usize) -> c_int {
    // SAFETY: the caller's own arguments.
    unsafe { syscall(SYS_MUNMAP, at, bytes) as c_int }
}

/// Time on this clock, nanoseconds.
pub fn clock_ns(clock: c_int) -> u64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is a live timespec.
    unsafe { clock_gettime(clock, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// The time stamp counter.
#[inline(always)]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Name of the calling thread, which is the process's while it has one: 16 bytes with a NUL.
pub fn process_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: room for what the kernel writes.
    unsafe { syscall(SYS_PRCTL, PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// The calling thread's `errno`.
pub fn errno() -> c_int {
    // SAFETY: the location is the calling thread's own and always valid.
    unsafe { *__errno_location() }
}

/// Runs `body` and puts `errno` back: a hooked call must not show that it was recorded.
#[inline]
pub fn keeping_errno<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: the location is the calling thread's own and always valid.
    let errno = unsafe { __errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let result = body();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}

/// Frees the loader's message about a failed look-up. Called with recording held back, as the look-up was: otherwise
/// the free would be seen without its allocation.
pub fn forget_loader_error() {
    // SAFETY: no preconditions. The first call takes the message over, the second one frees it.
    unsafe {
        dlerror();
        dlerror();
    }
}

/// The path of the loaded object that holds this address, as the loader knows it.
pub fn object_of(address: *const c_void) -> Option<&'static CStr> {
    let info = info_of(address)?;
    // SAFETY: the loader's own string, which lives as long as the object.
    (!info.file_name.is_null()).then(|| unsafe { CStr::from_ptr(info.file_name) })
}

/// Where the loaded object that holds this address begins.
pub fn base_of(address: *const c_void) -> Option<usize> {
    info_of(address).map(|info| info.file_base as usize)
}

fn info_of(address: *const c_void) -> Option<DlInfo> {
    let mut info = DlInfo { file_name: null(), file_base: null_mut(), symbol_name: null(), symbol_address: null_mut() };
    // SAFETY: `info` has the layout of `Dl_info`.
    (unsafe { dladdr(address, &mut info) } != 0).then_some(info)
}

/// A path without its folders.
pub fn base_name(path: &CStr) -> &[u8] {
    path.to_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
