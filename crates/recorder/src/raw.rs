//! The raw file: what the preloaded library writes while a program runs and the converter reads afterwards.
//!
//! One file per exec image (and per forked child). All numbers are little-endian 64-bit words.
//!
//! ```text
//! 0         header words, then fixed text fields           HEADER_BYTES
//! MARKS_AT  mark entries, MARK_BYTES each                  MARKS_MAX entries
//! MAPS_AT   code mappings, MAP_BYTES each                  MAPS_MAX entries
//! LIST_AT   imported files, NUL-terminated                 LIST_BYTES
//! CHUNKS_AT chunks: CHUNK_HEADER_BYTES, then records       to the end of the file
//! ```
//!
//! A thread writes its records into its *window*, a chunk that it has mapped; when that is full, it is written to the
//! file once more as a *log* chunk, and the window is used again from its start. Mapped memory survives a kill, and
//! one copy costs a fraction of what fresh pages of a mapped file cost.
//!
//! Invariant: this module has no dependency, so that the preloaded library and the converter compile the same text;
//! a chunk belongs to one thread, a thread's log chunks lie in the file in the order in which it filled them, and the
//! sequence numbers of a thread's records only rise. So a window's records count up to the first whose number is
//! not above the last one before it. A record whose first word is zero is not there.
#![allow(dead_code, reason = "each side of the file uses its own half")]

/// First word of every raw file.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"PYALREC1");
/// First word of every log chunk.
pub(crate) const LOG_MAGIC: u64 = u64::from_le_bytes(*b"PYALLOGC");
/// First word of every window.
pub(crate) const WINDOW_MAGIC: u64 = u64::from_le_bytes(*b"PYALWNDW");

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
/// Where the chunks begin.
pub(crate) const CHUNKS_AT: usize = LIST_AT + LIST_BYTES;

/// Bytes of a chunk's header: magic, thread serial, bytes of the chunk, operating system's thread id.
pub(crate) const CHUNK_HEADER_BYTES: usize = 64;
/// Bytes of one record.
pub(crate) const RECORD_BYTES: usize = 32;
/// Blocks of at least this many bytes are probed for touched pages.
pub(crate) const LARGE_BYTES: u64 = 128 * 1024;

/// Indexes of the header's words.
pub(crate) mod word {
    /// [`super::MAGIC`].
    pub(crate) const MAGIC: usize = 0;
    /// Process id.
    pub(crate) const PID: usize = 1;
    /// Parent's process id.
    pub(crate) const PARENT_PID: usize = 2;
    /// Time stamp counter when the file was made.
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
    /// Sequence number at which the start-up of a Python program was over, found by itself; 0 when not found.
    pub(crate) const STEADY_SEQ: usize = 18;
    /// CPU time of the process at that moment, nanoseconds.
    pub(crate) const STEADY_CPU_NS: usize = 19;
    /// Wall time since the start at that moment, nanoseconds.
    pub(crate) const STEADY_WALL_NS: usize = 20;
}

/// Fixed text fields of the header: offset and room in bytes; NUL-terminated.
pub(crate) mod text {
    /// Name of the program's process (`comm`).
    pub(crate) const PROGRAM: (usize, usize) = (512, 64);
    /// What `Py_GetVersion` says.
    pub(crate) const PYTHON_VERSION: (usize, usize) = (576, 192);
    /// `PYTHONHASHSEED`.
    pub(crate) const HASH_SEED: (usize, usize) = (768, 32);
    /// File name of the parent's raw file, in a forked child.
    pub(crate) const PARENT_FILE: (usize, usize) = (800, 96);
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
    /// The file system refused more space.
    pub(crate) const DISK: u64 = 3;
    /// The time limit was reached.
    pub(crate) const TIME: u64 = 4;
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
    /// Anonymous bytes of file mappings.
    pub(crate) const RELOCATED: usize = 6;
    /// Bytes of the main stack.
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
    /// The block at `address` is about to be freed; `size` is its touched bytes plus one, or 0.
    Free = 4,
    /// The block at `address` is about to be resized; `size` as for a free.
    ReallocBegin = 5,
    /// The resized block is at `address` (0: the call failed) and has `size` bytes.
    ReallocEnd = 6,
    /// Huge pages were asked for from `address`, `size` bytes.
    Advise = 7,
    /// The live block at `address` has `size` bytes touched, plus one.
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
}

impl Kind {
    /// Every kind; the discriminant is the index plus one.
    const ALL: [Self; 14] = [
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
    /// Sixteenths of time stamp counter ticks since the file was made, 48 bits.
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
