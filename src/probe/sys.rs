//! Every system call of the measuring half, behind safe functions.
//!
//! Invariant: nothing here allocates; errors are the system's own numbers.

use super::usage::Usage;
use std::ffi::CStr;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Size of the kernel's page, bytes.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: no precondition.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

fn nanoseconds(seconds: i64, rest_ns: i64) -> u64 {
    seconds as u64 * 1_000_000_000 + rest_ns as u64
}

/// Nanoseconds of the kernel's monotonic clock, also while virtual time is on.
pub(crate) fn monotonic_ns() -> u64 {
    super::virtual_time::real_ns(libc::CLOCK_MONOTONIC)
}

/// Threads of this process; `None` where the kernel does not say.
pub(crate) fn threads() -> Option<u32> {
    let mut buffer = [0; 1024];
    let length = Descriptor::open_read(c"/proc/self/stat").and_then(|file| {
        let length = file.read_start(&mut buffer);
        // SAFETY: the descriptor was just opened.
        unsafe { libc::close(file.0) };
        length
    });
    // The name in parentheses may hold anything; of the fields that follow it the 18th is the number of threads.
    let text = std::str::from_utf8(&buffer[..length.ok()?]).ok()?;
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(17)?.parse().ok()
}

/// Sleeps until the monotonic clock has reached `ns`.
pub(crate) fn sleep_until_ns(ns: u64) {
    let until = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    // SAFETY: `until` may be read; a signal that interrupts the sleep starts it again.
    while monotonic_ns() < ns {
        // SAFETY: as above.
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const until, null_mut()) };
    }
}

/// The processor's counter, read after everything before it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks_begin() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 processor has both instructions.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

/// The processor's counter, read before anything after it.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks_end() -> u64 {
    use std::arch::x86_64::{__rdtscp, _mm_lfence};
    let mut processor = 0;
    // SAFETY: every x86-64 processor of the last fifteen years has both instructions.
    unsafe {
        let ticks = __rdtscp(&raw mut processor);
        _mm_lfence();
        ticks
    }
}

/// Where the counter's rate and ordering are not known, the kernel's clock stands in for it.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn ticks_begin() -> u64 {
    monotonic_ns()
}

/// As [`ticks_begin`].
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn ticks_end() -> u64 {
    monotonic_ns()
}

/// Faults and CPU time of this process.
pub(crate) fn usage() -> Usage {
    // SAFETY: a structure of integers.
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` may be written.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut raw) };
    Usage {
        user_ns: nanoseconds(raw.ru_utime.tv_sec, raw.ru_utime.tv_usec * 1_000),
        system_ns: nanoseconds(raw.ru_stime.tv_sec, raw.ru_stime.tv_usec * 1_000),
        faults_minor: raw.ru_minflt as u64,
        faults_major: raw.ru_majflt as u64,
    }
}

/// Minor faults of this thread.
pub(crate) fn faults_of_thread() -> u64 {
    // SAFETY: a structure of integers.
    let mut raw: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `raw` may be written.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut raw) };
    raw.ru_minflt as u64
}

/// CPU time that this thread has used, nanoseconds.
pub(crate) fn cpu_ns_of_thread() -> u64 {
    let mut used = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `used` may be written.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut used) };
    nanoseconds(used.tv_sec, used.tv_nsec)
}

/// Sleeps while the word has this value, until somebody wakes; may also return for no reason.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word outlives the call; there is no timeout.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, null_mut::<libc::timespec>()) };
}

/// Wakes whoever sleeps on the word.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word is only an address here.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// What a thread begins with. It is the plain thread of the C library: Rust's own would allocate.
pub(crate) struct Start<T: 'static> {
    /// What it is given.
    pub(crate) argument: &'static T,
    /// What it does; its end is the thread's.
    pub(crate) run: fn(&'static T),
}

extern "C" fn start_thread_here<T: Sync + 'static>(start: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `start_thread` passes a start that lives forever, and what is shared by it is `Sync`.
    let start: &'static Start<T> = unsafe { &*start.cast::<Start<T>>() };
    (start.run)(start.argument);
    null_mut()
}

/// How a started thread is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By [`join_thread`]. The joining thread frees what the C library allocated for the thread.
    Joined,
    /// By [`wait_until_gone`]. The thread frees that itself, as CPython's threads do up to 3.12.
    Detached,
}

/// Starts a thread on a stack of its own, which nobody else may use until the thread was waited for.
pub(crate) fn start_thread<T: Sync + 'static>(stack: Mapping, start: &'static Start<T>, end: End) -> io::Result<()> {
    let as_result = |error: i32| if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) };
    // SAFETY: a structure that may be written, and is made valid first.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        as_result(libc::pthread_attr_init(&raw mut attributes))?;
        as_result(libc::pthread_attr_setstack(&raw mut attributes, stack.base.as_ptr().cast(), stack.bytes))?;
        if end == End::Detached {
            as_result(libc::pthread_attr_setdetachstate(&raw mut attributes, libc::PTHREAD_CREATE_DETACHED))?;
        }
        let mut thread = std::mem::zeroed();
        let argument = std::ptr::from_ref(start).cast_mut().cast();
        as_result(libc::pthread_create(&raw mut thread, &raw const attributes, start_thread_here::<T>, argument))
    }
}

/// This thread, for [`join_thread`].
pub(crate) fn this_thread() -> u64 {
    // SAFETY: no precondition.
    unsafe { libc::pthread_self() as u64 }
}

/// Waits until a thread has ended and the C library has let go of it; once for each thread.
pub(crate) fn join_thread(thread: u64) {
    // SAFETY: the streams of an image join each thread once, after it has said who it is.
    unsafe { libc::pthread_join(thread as libc::pthread_t, null_mut()) };
}

/// The kernel's number of this thread, for [`wait_until_gone`].
pub(crate) fn this_kernel_thread() -> u64 {
    // SAFETY: no precondition.
    unsafe { libc::gettid() as u64 }
}

/// Waits until the kernel has no such thread in this process. The thread must be about to end.
pub(crate) fn wait_until_gone(kernel_thread: u64) {
    // SAFETY: signal 0 only asks whether the thread exists.
    while unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), kernel_thread as libc::pid_t, 0) } == 0 {
        // SAFETY: no precondition.
        unsafe { libc::sched_yield() };
    }
}

/// What glibc's heap says of itself, bytes.
pub(crate) struct LibcHeap {
    /// Handed out, by whatever way.
    pub(crate) used_bytes: u64,
    /// In its arenas and in mappings of single blocks. `None` before glibc 2.33, whose counters are 32 bits wide.
    pub(crate) mapped_bytes: Option<u64>,
}

/// `mallinfo2`, which glibc has since 2.33. A program that links against it does not start on an older one.
fn libc_counters() -> Option<libc::mallinfo2> {
    // SAFETY: returns a pointer to a static string that ends in a zero byte.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_str().ok()?;
    let (major, minor) = version.split_once('.')?;
    // A look-up that fails takes memory from the heap that is asked about, so it is not tried where it would fail.
    if (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?) < (2, 33) {
        return None;
    }
    // SAFETY: the name ends in a zero byte.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    // SAFETY: the function of this name, with this signature; null is `None`.
    let function: Option<unsafe extern "C" fn() -> libc::mallinfo2> = unsafe { std::mem::transmute(address) };
    // SAFETY: no precondition; it reads counters and allocates nothing.
    function.map(|counters| unsafe { counters() })
}

/// What the C library's heap says; it has used 0 bytes if it was never asked for any, and never again afterwards, since
/// with the first request it makes a cache for itself.
pub(crate) fn libc_heap() -> LibcHeap {
    if let Some(counters) = libc_counters() {
        return LibcHeap {
            used_bytes: (counters.uordblks + counters.hblkhd) as u64,
            mapped_bytes: Some((counters.arena + counters.hblkhd) as u64),
        };
    }
    // SAFETY: no precondition; it reads counters and allocates nothing.
    let counters = unsafe { libc::mallinfo() };
    let used_bytes = u64::from(counters.uordblks as u32) + u64::from(counters.hblkhd as u32);
    LibcHeap { used_bytes, mapped_bytes: None }
}

/// Bytes that the C library's heap has handed out. `None` where it cannot be asked.
pub(crate) fn libc_heap_bytes() -> Option<u64> {
    cfg!(target_env = "gnu").then(|| libc_heap().used_bytes)
}

/// A descriptor that this process owns or was given; it is not closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor(pub(crate) i32);

impl Descriptor {
    /// Opens a file for reading.
    pub(crate) fn open_read(path: &CStr) -> io::Result<Self> {
        // SAFETY: the path ends in a zero byte.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// Opens a file for writing.
    pub(crate) fn open_write(path: &CStr) -> io::Result<Self> {
        // SAFETY: the path ends in a zero byte.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// Reads from the start of a file, until it ends or the buffer is full.
    pub(crate) fn read_start(self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            // SAFETY: `rest` may be written to its length.
            let n = unsafe { libc::pread(self.0, rest.as_mut_ptr().cast(), rest.len(), length as i64) };
            match n {
                0 => break,
                1.. => length += n as usize,
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(length)
    }

    /// Reads what is there, at least one byte; 0 at the end.
    pub(crate) fn read(self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: `buffer` may be written to its length.
            let n = unsafe { libc::read(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
            if n >= 0 {
                return Ok(n as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write_all(self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            // SAFETY: `bytes` may be read to its length.
            let n = unsafe { libc::write(self.0, bytes.as_ptr().cast(), bytes.len()) };
            match n {
                0.. => bytes = bytes.get(n as usize..).unwrap_or_default(),
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

/// Memory shared with other processes or with nobody: it never counts as anonymous. Never unmapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: addresses that are never unmapped; what is shared through them is whoever reads or writes there.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

fn map(at: usize, bytes: usize, protection: i32, flags: i32, fd: i32) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh mapping, or one over addresses that the caller reserved.
    let base = unsafe { libc::mmap(at as *mut _, bytes, protection, flags, fd, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Mapping {
    /// Fresh zeroed memory; its pages come when they are touched, or by [`Mapping::make_present`].
    pub(crate) fn shared(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        Ok(Self { base: map(0, bytes.max(1), READ_WRITE, flags, -1)?, bytes })
    }

    /// The first `bytes` of a file, read only, every page present.
    pub(crate) fn file(fd: Descriptor, bytes: usize) -> io::Result<Self> {
        // SAFETY: a structure of integers that may be written.
        let size = unsafe {
            let mut status: libc::stat = std::mem::zeroed();
            if libc::fstat(fd.0, &raw mut status) != 0 {
                return Err(io::Error::last_os_error());
            }
            status.st_size as u64
        };
        if size < bytes as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Ok(Self { base: map(0, bytes.max(1), libc::PROT_READ, flags, fd.0)?, bytes })
    }

    /// Touches every page of the first `bytes`, for a mapping that was just made.
    pub(crate) fn make_present(&self, bytes: usize) {
        for at in (0..bytes.min(self.bytes)).step_by(4096) {
            // SAFETY: within a writable mapping of which nobody holds a reference yet.
            unsafe { self.base.add(at).write_volatile(0) };
        }
    }

    /// Its first byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The words from `from`, as many as asked for and there.
    pub(crate) fn words(&self, from: usize, words: usize) -> &'static [u64] {
        let all = self.bytes / 8;
        let (from, words) = (from.min(all), words.min(all - from.min(all)));
        // SAFETY: within the mapping, which is never unmapped. A window is refilled only after it was handed back.
        unsafe { std::slice::from_raw_parts(self.base.cast::<u64>().add(from).as_ptr(), words) }
    }

    /// All of a fresh mapping as words.
    pub(crate) fn into_words(self) -> &'static mut [u64] {
        // SAFETY: within a writable mapping, which is never unmapped; taking it by value keeps it from being borrowed
        // twice by the callers here, each of which makes a mapping of its own.
        unsafe { std::slice::from_raw_parts_mut(self.base.cast().as_ptr(), self.bytes / 8) }
    }
}

/// Maps one stretch of `bytes` shared memory `copies` times in a row, every page present; the first address.
pub(crate) fn map_repeatedly(bytes: usize, copies: usize) -> io::Result<usize> {
    // SAFETY: the name ends in a zero byte.
    let fd = unsafe { libc::memfd_create(c"ring".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: plain system call on the descriptor just made.
    if fd < 0 || unsafe { libc::ftruncate(fd, bytes as i64) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let base = map(0, bytes * copies, libc::PROT_NONE, reserve, -1)?.as_ptr() as usize;
    for copy in 0..copies {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        map(base + copy * bytes, bytes, READ_WRITE, flags, fd)?;
    }
    // SAFETY: the mappings keep the memory.
    unsafe { libc::close(fd) };
    Ok(base)
}

/// Maps private anonymous memory, touches every page of it and never gives it back.
pub(crate) fn hold_anonymous(bytes: usize) {
    if let Ok(base) = map(0, bytes, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1) {
        for at in (0..bytes).step_by(4096) {
            // SAFETY: within the mapping just made.
            unsafe { base.add(at).write_volatile(1) };
        }
    }
}

/// Faults in the stack below this frame, so that the replay never does.
#[inline(never)]
pub(crate) fn make_stack_present() {
    let mut room = [0u8; 256 * 1024];
    for at in (0..room.len()).step_by(4096) {
        room[at] = 1;
        std::hint::black_box(&mut room);
    }
}

/// Ends the process at once: no destructor of an allocator runs.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: no precondition.
    unsafe { libc::_exit(code) }
}

/// Has the kernel kill the command's process when the thread that started it ends, however that ends.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let parent = std::process::id() as i32;
    let tie = move || {
        // A sandbox that forbids this leaves the child as it would be without. SAFETY: takes no memory of ours, and
        // may be called between fork and exec.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // A parent that ended before that call sends no signal any more. SAFETY: as above.
        let is_alone = unsafe { libc::getppid() } != parent;
        if is_alone { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(tie) };
}

/// Where [`signals_to`] writes.
static SIGNALS: AtomicI32 = AtomicI32::new(-1);

extern "C" fn pass_signal(signal: libc::c_int) {
    let byte = signal as u8;
    // SAFETY: `write` may be called in a handler; the descriptor is never closed, and `errno` is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(SIGNALS.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

/// From now on each of these signals is written to the pipe as one byte. One that this program was started with
/// ignored, as under `nohup`, stays ignored.
pub(crate) fn signals_to(pipe: OwnedFd, signals: &[i32]) {
    SIGNALS.store(pipe.into_raw_fd(), Ordering::Relaxed);
    for signal in signals {
        // SAFETY: all-zero is a valid sigaction.
        let (mut old, mut new): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        new.sa_sigaction = pass_signal as *const () as usize;
        new.sa_flags = libc::SA_RESTART;
        // SAFETY: both structures are valid, and the handler does only what a handler may.
        unsafe {
            libc::sigaction(*signal, std::ptr::null(), &raw mut old);
            if old.sa_sigaction != libc::SIG_IGN {
                libc::sigaction(*signal, &raw const new, null_mut());
            }
        }
    }
}

/// Runs a check in a process of its own, undisturbed by the tests on other threads.
#[cfg(test)]
pub(crate) fn in_a_child(check: impl FnOnce() + std::panic::UnwindSafe) {
    // SAFETY: the child runs the check on its only thread and leaves without returning.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "no child process");
    if child == 0 {
        exit_now(i32::from(std::panic::catch_unwind(check).is_err()));
    }
    let mut status = 0;
    // SAFETY: `status` may be written.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "the check failed in its child process");
}
