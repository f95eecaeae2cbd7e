//! A call becomes a record: each thread's own window, the global order, the guard against recording twice.
//!
//! Invariant: an allocation takes its number after the call returned, a free before the call is made, so the numbers
//! order any two uses of one address as they really happened. On one thread, numbers only rise.

use crate::large;
use crate::raw::{CHUNK_HEADER_BYTES, Kind, PROBED_BYTES, RECORD_BYTES, Record, TIME_SHIFT, WINDOW_BYTES};
use crate::{life, recording, ring, sys};
use core::cell::Cell;
use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

static SEQUENCE: AtomicU64 = AtomicU64::new(1);
static SERIAL: AtomicU32 = AtomicU32::new(0);
static START_TICKS: AtomicU64 = AtomicU64::new(0);
/// Time stamp at which [`life::deadline`] wants to be called.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);

/// What a thread needs to write its records.
pub struct Thread {
    /// Above zero while an outer hook is at work, or the recorder itself.
    pub depth: Cell<u32>,
    /// While a pool of a library's own is at work.
    in_pool: Cell<bool>,
    /// The block that Python frees or resizes, whose way may lead to the C library; 0 for none.
    released: Cell<usize>,
    next: Cell<*mut [AtomicU64; 4]>,
    end: Cell<*mut [AtomicU64; 4]>,
    window: Cell<*mut u8>,
    serial: Cell<u32>,
    /// Python requests until the interpreter is looked at again.
    pub until_poll: Cell<u32>,
    /// Rounds of thread-exit destructors seen.
    pub exit_rounds: Cell<u32>,
    /// Whether [`crate::threads`] counts this thread as one that made a request of Python.
    pub is_counted: Cell<bool>,
}

thread_local! {
    // Constant and without a destructor, so that reaching it neither allocates nor registers anything.
    static THREAD: Thread = const {
        Thread {
            depth: Cell::new(0),
            in_pool: Cell::new(false),
            released: Cell::new(0),
            next: Cell::new(null_mut()),
            end: Cell::new(null_mut()),
            window: Cell::new(null_mut()),
            serial: Cell::new(0),
            until_poll: Cell::new(1),
            exit_rounds: Cell::new(0),
            is_counted: Cell::new(false),
        }
    };
}

/// Runs `body` with the calling thread's state.
#[inline(always)]
pub fn with<T>(body: impl FnOnce(&Thread) -> T) -> T {
    THREAD.with(body)
}

/// The next definition of a function in the global order, looked up once, with recording held back.
pub fn next_definition(slot: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let mut found = slot.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: a NUL-terminated name.
        found = with(|thread| thread.holding(|| unsafe { sys::dlsym(sys::RTLD_NEXT, name.as_ptr()) }));
        slot.store(found, Ordering::Relaxed);
    }
    found
}

impl Thread {
    /// Whether an outer hook records the current request.
    #[inline(always)]
    pub fn is_held(&self) -> bool {
        self.depth.get() != 0
    }

    /// Runs `body` with recording held back on this thread.
    #[inline(always)]
    pub fn holding<T>(&self, body: impl FnOnce() -> T) -> T {
        self.depth.set(self.depth.get() + 1);
        let result = body();
        self.depth.set(self.depth.get() - 1);
        result
    }

    /// Whether a pool of a library's own is at work.
    #[inline(always)]
    pub fn is_in_pool(&self) -> bool {
        self.in_pool.get()
    }

    /// Runs the entry point of a pool that never hands out blocks of the C library. What it asks of itself is part of
    /// the request. What happens to ask the C library is a request of its own: the first use of the pool's
    /// thread-local variables makes the loader allocate them, and the C library frees them when the thread is over.
    #[inline(always)]
    pub fn running_pool<T>(&self, body: impl FnOnce() -> T) -> T {
        let was_in_pool = self.in_pool.replace(true);
        let result = body();
        self.in_pool.set(was_in_pool);
        result
    }

    /// Runs Python's free or resize of a block. What else is freed meanwhile is a request of its own: `tracemalloc`
    /// removes its entry for a large block when that block reaches the domain `raw`.
    #[inline(always)]
    pub fn releasing<T>(&self, block: usize, body: impl FnOnce() -> T) -> T {
        let outer = self.released.replace(block);
        let result = body();
        self.released.set(outer);
        result
    }

    /// Whether a free is a request of its own.
    #[inline(always)]
    pub fn is_own_free(&self, block: usize) -> bool {
        match self.released.get() {
            0 => !self.is_held(),
            released => released != block,
        }
    }

    /// The C library frees the block: from now on its address may be another one's.
    #[inline(always)]
    pub fn has_released(&self, block: usize) {
        if self.released.get() == block {
            self.released.set(usize::MAX);
        }
    }

    /// An allocation returned. A null block is a failed call and leaves no record.
    #[inline(always)]
    pub fn allocated(&self, kind: Kind, domain: u8, align_log2: u8, block: usize, size: usize, caller: usize) {
        if block != 0 {
            self.push(kind, domain | align_log2 << 3, block, size as u64, caller);
            if size as u64 >= PROBED_BYTES {
                large::insert(block, size, kind == Kind::AllocZeroed);
            }
        }
    }

    /// A block is about to be freed.
    #[inline(always)]
    pub fn freeing(&self, domain: u8, block: usize) {
        let (touched, unknown_pages) = large::take_touched(block);
        self.push(Kind::Free, domain, block, touched, unknown_pages);
    }

    /// A block is about to be resized.
    #[inline(always)]
    pub fn resizing(&self, domain: u8, block: usize) {
        let (touched, unknown_pages) = large::take_touched(block);
        self.push(Kind::ReallocBegin, domain, block, touched, unknown_pages);
    }

    /// A resize returned; `block` is 0 when it failed.
    #[inline(always)]
    pub fn resized(&self, domain: u8, block: usize, size: usize, caller: usize) {
        self.push(Kind::ReallocEnd, domain, block, size as u64, caller);
        if block != 0 && size as u64 >= PROBED_BYTES {
            large::insert(block, size, false);
        }
    }

    /// Writes one record; its number is taken here.
    #[inline(always)]
    pub fn push(&self, kind: Kind, tag: u8, address: usize, size: u64, caller: usize) {
        if self.next.get() == self.end.get() && !self.refill() {
            return;
        }
        let ticks = sys::ticks();
        if ticks >= DEADLINE.load(Ordering::Relaxed) {
            self.deadline(ticks);
            if self.next.get() == self.end.get() && !self.refill() {
                return;
            }
        }
        let record = Record {
            kind,
            domain: tag & 7,
            align_log2: tag >> 3,
            seq: SEQUENCE.fetch_add(1, Ordering::SeqCst),
            time: ticks.wrapping_sub(START_TICKS.load(Ordering::Relaxed)) >> TIME_SHIFT,
            address: address as u64,
            size,
            caller: caller as u64,
        };
        let at = self.next.get();
        // SAFETY: `next` is below `end`, inside this thread's window.
        unsafe { write(at, record) };
        // SAFETY: at most one past the last record of the window.
        self.next.set(unsafe { at.add(1) });
    }

    #[cold]
    fn deadline(&self, ticks: u64) {
        // About 30 ms ahead at 3 GHz; the clock decides, the counter only says when to look.
        DEADLINE.store(ticks + (1 << 26), Ordering::Relaxed);
        sys::keeping_errno(|| self.holding(|| life::deadline(self)));
    }

    /// Makes room; false when nothing is to be recorded.
    #[cold]
    #[inline(never)]
    fn refill(&self) -> bool {
        sys::keeping_errno(|| self.holding(|| self.refill_held()))
    }

    fn refill_held(&self) -> bool {
        if !recording::start() {
            if recording::ended_for_want_of_room() {
                recording::count_lost();
            }
            return false;
        }
        let is_new = self.serial.get() == 0;
        if is_new {
            self.serial.set(SERIAL.fetch_add(1, Ordering::Relaxed) + 1);
        }
        self.give_window();
        // Giving a window may have ended the recording.
        let window = if recording::is_active() { ring::take(self.serial.get()) } else { null_mut() };
        self.place(window);
        if is_new {
            life::watch_thread_end();
        }
        if window.is_null() {
            return false;
        }
        life::rolled_over();
        true
    }

    /// Puts what the window holds into the queue.
    fn give_window(&self) {
        let window = self.window.get();
        if !window.is_null() {
            // SAFETY: inside the window.
            let records = unsafe { window.add(CHUNK_HEADER_BYTES) };
            ring::give(window, self.next.get() as usize - records as usize);
        }
    }

    /// The next record goes to the start of this window; null: nowhere.
    fn place(&self, window: *mut u8) {
        const RECORDS: usize = (WINDOW_BYTES - CHUNK_HEADER_BYTES) / RECORD_BYTES;
        self.window.set(window);
        if window.is_null() {
            self.next.set(null_mut());
            self.end.set(null_mut());
            return;
        }
        // SAFETY: inside the window.
        self.next.set(unsafe { window.add(CHUNK_HEADER_BYTES) }.cast());
        // SAFETY: the window holds that many records.
        self.end.set(unsafe { self.next.get().add(RECORDS) });
    }

    /// The thread is over: what its window holds goes into the queue.
    pub fn leave(&self) {
        self.holding(|| self.give_window());
        self.place(null_mut());
    }

    /// In a forked child, which has this thread only.
    pub fn begin_anew(&self) {
        SERIAL.store(0, Ordering::Relaxed);
        // The window is the parent's.
        self.place(null_mut());
        self.serial.set(0);
        self.until_poll.set(1);
    }
}

/// # Safety
/// `at` points to room for a record.
#[inline(always)]
unsafe fn write(at: *mut [AtomicU64; 4], record: Record) {
    // SAFETY: the caller's word.
    let cells = unsafe { &*at };
    let words = record.pack();
    // This word says that the record is there: it goes first and comes last, so that a process killed in between
    // leaves no mixture of an old record and a new one.
    cells[0].store(0, Ordering::Release);
    for index in 1..4 {
        cells[index].store(words[index], Ordering::Release);
    }
    cells[0].store(words[0], Ordering::Release);
}

/// The number that the next record will get.
pub fn sequence() -> u64 {
    SEQUENCE.load(Ordering::SeqCst)
}

/// Ticks of the time stamp counter since recording began.
pub fn elapsed_ticks() -> u64 {
    sys::ticks().wrapping_sub(START_TICKS.load(Ordering::Relaxed))
}

/// Sets where time begins, and whether the clock must be looked at.
pub fn begin(ticks: u64, watches_clock: bool) {
    START_TICKS.store(ticks, Ordering::Relaxed);
    DEADLINE.store(if watches_clock { 0 } else { u64::MAX }, Ordering::Relaxed);
}

/// What one record costs here, picoseconds: the same steps into a scratch record, the best of a few rounds.
pub fn calibrate_ps() -> u64 {
    const STEPS: u64 = 512;
    let scratch = [const { AtomicU64::new(0) }; 4];
    let counter = AtomicU64::new(0);
    let round = || {
        let begin = sys::clock_ns(sys::CLOCK_MONOTONIC);
        for step in 0..STEPS {
            let depth = with(|thread| core::hint::black_box(thread.depth.get()));
            let record = Record {
                kind: Kind::Alloc,
                domain: depth as u8 & 7,
                align_log2: 0,
                seq: counter.fetch_add(1, Ordering::SeqCst),
                time: sys::ticks(),
                address: step,
                size: step,
                caller: step,
            };
            // SAFETY: `scratch` is a record's room.
            unsafe { write(core::ptr::from_ref(core::hint::black_box(&scratch)).cast_mut(), record) };
        }
        (sys::clock_ns(sys::CLOCK_MONOTONIC) - begin) * 1000 / STEPS
    };
    (0..4).map(|_| round()).min().unwrap_or(0)
}
