//! Raw data: what the preloaded library writes while a program runs, and what the session keeps of it.
//!
//! All numbers are little-endian 64-bit words. One *session file* serves every process of a recording. The session
//! makes it, sparse; a process maps one *slot* of it for each exec image and each forked child.
//!
//! ```text
//! session file                                  slot
//! 0           session words    SESSION_BYTES    0           header words, then fixed text fields    HEADER_BYTES
//! slot_at(0)  first slot       SLOT_BYTES       MARKS_AT    mark entries, MARK_BYTES each           MARKS_MAX entries
//! slot_at(1)  second slot                       MAPS_AT     code mappings, MAP_BYTES each           MAPS_MAX entries
//! ...                                           LIST_AT     imported files, NUL-terminated          LIST_BYTES
//!                                               RING_AT     words of `ring`, then the queue
//!                                               WINDOWS_AT  windows, WINDOW_BYTES each              WINDOWS entries
//! ```
//!
//! A thread writes its records into a *window* that it has taken. It puts a full window into the queue. The session
//! appends queued windows to the slot's *log* and makes them free again. A log begins with the slot's tables
//! (`0..TABLES_BYTES`, written when the recording is over); chunks follow: CHUNK_HEADER_BYTES, then records. The first
//! bytes of a window have the layout of a chunk.
//!
//! Mapped memory survives a kill. A process needs no descriptor and no right once its slot is mapped, and a forked
//! child maps its own slot through the page of session words that it inherits.
//!
//! Invariant: this module has no dependency, so that the preloaded library and the session compile the same text;
//! a chunk belongs to one thread, a thread's chunks lie in the log in the order in which it filled them, and the
//! sequence numbers of a thread's records only rise. A record whose first word is zero is not there.
#![allow(dead_code, reason = "each side uses its own half")]

/// First word of every session file.
pub(crate) const SESSION_MAGIC: u64 = u64::from_le_bytes(*b"PYALSES1");
/// First word of every slot in use, and of every finished log.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"PYALREC2");
/// First word of every window in use, and of every chunk.
pub(crate) const CHUNK_MAGIC: u64 = u64::from_le_bytes(*b"PYALCHNK");

/// Name of the mark at a new maximum of the process's memory.
pub(crate) const READING: &str = "reading";

/// Name of the session file in the folder of raw data.
pub(crate) const SESSION_FILE: &str = "session";
/// Bytes of the session words: one OS page.
pub(crate) const SESSION_BYTES: usize = 4096;

/// Indexes of the session's words.
pub(crate) mod session {
    /// [`super::SESSION_MAGIC`].
    pub(crate) const MAGIC: usize = 0;
    /// Random: tells this session from a file of the same name in another root.
    pub(crate) const TOKEN: usize = 1;
    /// Slots that processes have asked for; may exceed [`SLOTS_MAX`].
    pub(crate) const SLOTS: usize = 2;
    /// Slots that the file has room for.
    pub(crate) const SLOTS_MAX: usize = 3;
    /// 0, or the reason ([`super::stop`]) for which every process has to stop recording.
    pub(crate) const CLOSED: usize = 4;
    /// Rises while the session takes windows out of queues.
    pub(crate) const BEAT: usize = 5;
    /// The process that the session started.
    pub(crate) const MAIN_PID: usize = 6;
    /// Attempts to start an image that cannot load the recorder.
    pub(crate) const NOT_LOADED: usize = 7;
}

/// Bytes of the header: words from [`word`], text from [`text`].
pub(crate) const HEADER_BYTES: usize = 4096;
/// Where the mark entries begin.
pub(crate) const MARKS_AT: usize = HEADER_BYTES;
/// Most marks that keep a reading.
pub(crate) const MARKS_MAX: usize = 256;
/// Bytes of one mark entry: the words of [`mark`], then the name.
pub(crate) const MARK_BYTES: usize = 128;
/// Where the code mappings begin.
pub(crate) const MAPS_AT: usize = MARKS_AT + MARKS_MAX * MARK_BYTES;
/// Most code mappings kept.
pub(crate) const MAPS_MAX: usize = 1024;
/// Bytes of one mapping: first address, address after the last, load base, then the base name.
pub(crate) const MAP_BYTES: usize = 128;
/// Offset of the base name in a mapping entry.
pub(crate) const MAP_NAME_AT: usize = 24;
/// Where the list of imported files begins.
pub(crate) const LIST_AT: usize = MAPS_AT + MAPS_MAX * MAP_BYTES;
/// Bytes reserved for the list of imported files.
pub(crate) const LIST_BYTES: usize = 64 * 1024;
/// Bytes of header, marks, mappings and list: what a log begins with. Its chunks begin here.
pub(crate) const TABLES_BYTES: usize = LIST_AT + LIST_BYTES;

/// Where the words of the ring begin in a slot.
pub(crate) const RING_AT: usize = TABLES_BYTES;
/// Windows of a slot: the most threads that record at once, and with [`WINDOW_BYTES`] the backlog of 32 MiB.
pub(crate) const WINDOWS: usize = 2048;
/// Bytes of one window: its header and 510 records.
pub(crate) const WINDOW_BYTES: usize = 16 << 10;
/// Where the windows begin in a slot.
pub(crate) const WINDOWS_AT: usize = RING_AT + 4096 + WINDOWS * 8;
/// Bytes from one slot to the next.
pub(crate) const SLOT_BYTES: usize = 33 << 20;
const _: () = assert!(WINDOWS_AT + WINDOWS * WINDOW_BYTES <= SLOT_BYTES && WINDOWS_AT.is_multiple_of(4096));

/// The word of this index in bytes.
pub(crate) fn word_at(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index * 8..][..8]);
    u64::from_le_bytes(word)
}

/// Where a slot begins in the session file.
pub(crate) const fn slot_at(index: u64) -> u64 {
    SESSION_BYTES as u64 + index * SLOT_BYTES as u64
}

/// Word indexes of the ring, counted from [`RING_AT`].
pub(crate) mod ring {
    /// Windows put into the queue so far; entry `n` of the queue is at `QUEUE + n % WINDOWS`.
    pub(crate) const HEAD: usize = 0;
    /// Windows taken out of the queue so far. Written by the session alone.
    pub(crate) const TAIL: usize = 1;
    /// Time that threads waited for a free window, nanoseconds.
    pub(crate) const WAITED_NS: usize = 2;
    /// Bytes of chunks put into the queue.
    pub(crate) const BYTES: usize = 3;
    /// One bit for each window: free.
    pub(crate) const FREE: usize = 16;
    /// One bit for each window: its OS pages are there.
    pub(crate) const POPULATED: usize = 64;
    /// Words of each bit map.
    pub(crate) const MAP_WORDS: usize = super::WINDOWS / 64;
    /// Entries: index of the window plus one; 0 while the entry is not written.
    pub(crate) const QUEUE: usize = 512;
}

/// Words of the header of a window and of a chunk.
pub(crate) mod chunk {
    /// [`super::CHUNK_MAGIC`].
    pub(crate) const MAGIC: usize = 0;
    /// Serial number of the thread, from 1.
    pub(crate) const SERIAL: usize = 1;
    /// Bytes of the chunk with its header; 0 in a window that a thread still fills.
    pub(crate) const BYTES: usize = 2;
    /// The sequence number that was next when the thread took the window: its records are not below.
    pub(crate) const FIRST_SEQ: usize = 3;
}

/// Bytes of the header of a window or chunk.
pub(crate) const CHUNK_HEADER_BYTES: usize = 64;
/// Bytes of one record.
pub(crate) const RECORD_BYTES: usize = 32;
/// Blocks of at least this many bytes are probed for touched pages: two OS pages.
pub(crate) const PROBED_BYTES: u64 = 8 * 1024;
/// Blocks of at least this many bytes may be mappings of their own, and the program may give advice on them.
pub(crate) const LARGE_BYTES: u64 = 128 * 1024;

/// Indexes of the header's words.
pub(crate) mod word {
    /// [`super::MAGIC`].
    pub(crate) const MAGIC: usize = 0;
    /// Process id.
    pub(crate) const PID: usize = 1;
    /// Parent's process id.
    pub(crate) const PARENT_PID: usize = 2;
    /// Time stamp counter when recording began.
    pub(crate) const TSC_START: usize = 3;
    /// `CLOCK_MONOTONIC` at the same moment, nanoseconds.
    pub(crate) const MONOTONIC_START_NS: usize = 4;
    /// Why recording ended, from [`super::stop`].
    pub(crate) const STOP: usize = 5;
    /// Records from this sequence number on do not count; 0 when recording was not cut short.
    pub(crate) const STOP_SEQ: usize = 6;
    /// Time stamp counter at the last mark, rollover or exit.
    pub(crate) const TSC_END: usize = 7;
    /// `CLOCK_MONOTONIC` at the same moment, nanoseconds.
    pub(crate) const MONOTONIC_END_NS: usize = 8;
    /// Domains that were wrapped when last checked, one bit each.
    pub(crate) const HOOK_MASK: usize = 9;
    /// Bits from [`super::flag`].
    pub(crate) const FLAGS: usize = 10;
    /// In a forked child, the sequence number at the fork.
    pub(crate) const FORK_SEQ: usize = 11;
    /// Calibrated cost of one record, picoseconds.
    pub(crate) const OWN_PS: usize = 12;
    /// Records that found no room.
    pub(crate) const LOST: usize = 13;
    /// Mark entries in use.
    pub(crate) const MARKS: usize = 14;
    /// Mapping entries in use.
    pub(crate) const MAPS: usize = 15;
    /// Bytes in use of the list of imported files.
    pub(crate) const LIST: usize = 16;
    /// The system's error number behind [`STOP`]; 0 where there is none.
    pub(crate) const STOP_ERRNO: usize = 17;
    /// Sequence number at which the start-up of a Python program was over, found by itself; 0 when not found.
    pub(crate) const STEADY_SEQ: usize = 18;
    /// CPU time of the process at that moment, nanoseconds.
    pub(crate) const STEADY_CPU_NS: usize = 19;
    /// Wall time since the start at that moment, nanoseconds.
    pub(crate) const STEADY_WALL_NS: usize = 20;
    /// Address of the block of the calls that measured [`OWN_PS`]: records that name it are no calls of the program.
    pub(crate) const CALIBRATION: usize = 21;
}

/// Fixed text fields of the header: offset and room in bytes; NUL-terminated.
pub(crate) mod text {
    /// Name of the program's process (`comm`).
    pub(crate) const PROGRAM: (usize, usize) = (512, 64);
    /// What `Py_GetVersion` says.
    pub(crate) const PYTHON_VERSION: (usize, usize) = (576, 192);
    /// `PYTHONHASHSEED`.
    pub(crate) const HASH_SEED: (usize, usize) = (768, 32);
    /// Base name of the object that holds `PyObject_Malloc`.
    pub(crate) const PYTHON_OBJECT: (usize, usize) = (896, 128);
}

/// Values of [`word::STOP`].
pub(crate) mod stop {
    /// Still recording, or killed.
    pub(crate) const RUNNING: u64 = 0;
    /// The process reached its exit.
    pub(crate) const EXIT: u64 = 1;
    /// The size limit was reached.
    pub(crate) const SIZE: u64 = 2;
    /// The file system of the raw data refused to write.
    pub(crate) const DISK: u64 = 3;
    /// The time limit was reached.
    pub(crate) const TIME: u64 = 4;
    /// The session was over while this process still ran.
    pub(crate) const LEFT: u64 = 5;
    /// All windows were full, and the session took none for a second.
    pub(crate) const UNREAD: u64 = 6;
    /// More threads than windows.
    pub(crate) const THREADS: u64 = 7;
}

/// Bits of [`word::FLAGS`].
pub(crate) mod flag {
    /// The image has CPython's allocator interface.
    pub(crate) const PYTHON: u64 = 1;
    /// The image is a forked child.
    pub(crate) const FORKED: u64 = 2;
    /// `PyObject_Malloc` lives in the executable itself.
    pub(crate) const STATIC: u64 = 4;
    /// Arrow's own entry points were called and passed on.
    pub(crate) const ARROW: u64 = 8;
    /// The process left through `_exit`.
    pub(crate) const RAW_EXIT: u64 = 16;
    /// A library with an Arrow pool that cannot be seen was told to use the system's allocator.
    pub(crate) const ARROW_TO_SYSTEM: u64 = 32;
    /// Not all that libraries mapped for themselves could be kept account of.
    pub(crate) const MAPPED_FULL: u64 = 64;
    /// The collector's state was not found in the interpreter.
    pub(crate) const NO_COLLECTIONS: u64 = 128;
    /// More blocks lived at once than are probed for touched pages.
    pub(crate) const PROBED_FULL: u64 = 256;
}

/// Word indexes of a mark entry.
pub(crate) mod mark {
    /// Sequence number of the mark.
    pub(crate) const SEQ: usize = 0;
    /// CPU time of the process, nanoseconds.
    pub(crate) const CPU_NS: usize = 1;
    /// Wall time since the start, nanoseconds.
    pub(crate) const WALL_NS: usize = 2;
    /// Resident bytes; the five words from here are a memory reading.
    pub(crate) const RSS: usize = 3;
    /// Anonymous bytes.
    pub(crate) const ANON: usize = 4;
    /// Bytes of clean and shared file pages.
    pub(crate) const FILE: usize = 5;
    /// Anonymous bytes of file mappings, and of the zeroed data behind them.
    pub(crate) const RELOCATED: usize = 6;
    /// Bytes of stacks.
    pub(crate) const STACK: usize = 7;
    /// Who made the mark: one of the constants below.
    pub(crate) const KIND: usize = 8;
    /// Byte offset of the name.
    pub(crate) const NAME_AT: usize = 72;
    /// The program's own mark.
    pub(crate) const BY_PROGRAM: u64 = 1;
    /// Made by the recorder.
    pub(crate) const BY_RECORDER: u64 = 2;
    /// A reading at the process's exit; not a mark of the trace.
    pub(crate) const AT_EXIT: u64 = 3;
    /// A reading soon after the end of start-up was found; not a mark of the trace.
    pub(crate) const AFTER_STARTUP: u64 = 4;
    /// The process held more memory than ever before; a mark of the trace.
    pub(crate) const AT_MAXIMUM: u64 = 5;
}

/// Functions of [`Kind::Direct`], as the trace has them.
pub(crate) mod directive {
    pub(crate) const MALLOC_TRIM: u8 = 0;
    pub(crate) const MALLOPT: u8 = 1;
    pub(crate) const MI_COLLECT: u8 = 2;
    pub(crate) const MI_OPTION_SET: u8 = 3;
    pub(crate) const ARENA_PURGE: u8 = 4;
    pub(crate) const ARENA_DECAY: u8 = 5;
    pub(crate) const DIRTY_DECAY_MS: u8 = 6;
    pub(crate) const MUZZY_DECAY_MS: u8 = 7;
    pub(crate) const BACKGROUND_THREAD: u8 = 8;
    pub(crate) const TCACHE_FLUSH: u8 = 9;
    pub(crate) const RELEASE_UNUSED: u8 = 10;
    pub(crate) const RELEASE_FREE_MEMORY: u8 = 11;
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A block at `address` of `size` bytes.
    Alloc = 1,
    /// The same, zeroed.
    AllocZeroed = 2,
    /// The same, aligned.
    AllocAligned = 3,
    /// The block at `address` is about to be freed; `size` is its touched bytes plus one, or 0. `caller` says how many
    /// OS pages among them were present before the program could write to them.
    Free = 4,
    /// The block at `address` is about to be resized; `size` as for a free.
    ReallocBegin = 5,
    /// The resized block is at `address` (0: the call failed) and has `size` bytes.
    ReallocEnd = 6,
    /// Huge pages were asked for from `address`, `size` bytes.
    Advise = 7,
    /// The live block at `address` has `size` bytes touched, plus one; `caller` as for a free.
    Touch = 8,
    /// The thread ended (later records of it are its last frees).
    ThreadEnd = 9,
    /// Mark entry number `address`.
    Mark = 10,
    /// A collection of generation `address` began.
    GcStart = 11,
    /// It ended.
    GcStop = 12,
    /// The process forked.
    Fork = 13,
    /// Of what a library mapped for itself, `size` bytes are resident at mark entry number `address`.
    Mapped = 14,
    /// The program steered its allocator by the function of [`directive`] in the bits of the alignment: `address` is
    /// the key in 16 bits, `size` the value in 32.
    Direct = 15,
}

impl Kind {
    /// Every kind; the discriminant is the index plus one.
    const ALL: [Self; 15] = [
        Self::Alloc,
        Self::AllocZeroed,
        Self::AllocAligned,
        Self::Free,
        Self::ReallocBegin,
        Self::ReallocEnd,
        Self::Advise,
        Self::Touch,
        Self::ThreadEnd,
        Self::Mark,
        Self::GcStart,
        Self::GcStop,
        Self::Fork,
        Self::Mapped,
        Self::Direct,
    ];
}

/// One record, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// What happened.
    pub(crate) kind: Kind,
    /// Domain bits, as in the trace.
    pub(crate) domain: u8,
    /// Alignment as a power of two; 0 for a plain request.
    pub(crate) align_log2: u8,
    /// Place in the program's global order, 48 bits.
    pub(crate) seq: u64,
    /// Sixteenths of time stamp counter ticks since recording began, 48 bits.
    pub(crate) time: u64,
    /// Address, 48 bits.
    pub(crate) address: u64,
    /// Size, 48 bits.
    pub(crate) size: u64,
    /// Return address of the call, 48 bits.
    pub(crate) caller: u64,
}

/// Ticks of the time stamp counter in one unit of [`Record::time`], as a shift.
pub(crate) const TIME_SHIFT: u32 = 4;
const LOW: u64 = (1 << 48) - 1;

impl Record {
    /// The four words of the file. The first one is never zero.
    #[inline(always)]
    pub(crate) const fn pack(self) -> [u64; 4] {
        let tag = (self.domain & 7) as u64 | ((self.align_log2 & 31) as u64) << 3;
        [
            self.address & LOW | (self.kind as u64) << 48 | tag << 56,
            self.size & LOW | self.seq << 48,
            self.caller & LOW | (self.seq >> 16) << 48,
            self.time & LOW | (self.seq >> 32) << 48,
        ]
    }

    /// The record in these words; `None` where none was written (or the bytes are not a record).
    pub(crate) fn unpack(words: [u64; 4]) -> Option<Self> {
        let kind = Kind::ALL.get(((words[0] >> 48 & 0xff) as usize).checked_sub(1)?)?;
        Some(Self {
            kind: *kind,
            domain: (words[0] >> 56 & 7) as u8,
            align_log2: (words[0] >> 59) as u8,
            seq: words[1] >> 48 | (words[2] >> 48) << 16 | (words[3] >> 48) << 32,
            time: words[3] & LOW,
            address: words[0] & LOW,
            size: words[1] & LOW,
            caller: words[2] & LOW,
        })
    }
}
