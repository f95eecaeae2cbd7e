//! The bytes of the trace file that writer and reader share; `docs/TRACE_FORMAT.md` says the same in prose.
//!
//! Invariant: every length that a file can claim has a bound here.

use crate::varint::VARINT_BYTES_MAX;

/// First bytes of a trace. The byte above 127 and the line ends show a transfer that treated the file as text.
pub(crate) const MAGIC: [u8; 8] = *b"\x89PyAT\r\n\x1a";
/// Last bytes of a trace.
pub(crate) const END_MAGIC: [u8; 8] = *b"PyATend\n";
/// Version of the format that is written.
pub const VERSION: u16 = 2;
/// The oldest version that is read: it lacks [`op::DIRECT`] and is otherwise the same.
pub(crate) const VERSION_MIN: u16 = 1;
/// Header flag: the time column is present.
pub(crate) const FLAG_TIME: u16 = 1;
/// Header flag: the site column is present.
pub(crate) const FLAG_SITES: u16 = 2;
/// Bytes of the header in front of the metadata.
pub(crate) const HEADER_BYTES: usize = 16;
/// Bytes after the footer's JSON: its CRC32, its length, the end mark.
pub(crate) const TRAILER_BYTES: usize = 16;
/// Largest metadata or footer, bytes. Recordings so far have up to 34 KB; parsed, a list of empty texts takes eight
/// times as much.
pub(crate) const JSON_BYTES_MAX: u32 = 16 << 20;

/// Events of a block; only the last block of a trace may have fewer.
pub const BLOCK_EVENTS: usize = 1 << 16;
/// First byte of a block.
pub(crate) const TAG_BLOCK: u8 = 1;
/// First byte of the footer.
pub(crate) const TAG_FOOTER: u8 = 2;
/// Block flag: references are ages, not slot deltas.
pub(crate) const BLOCK_AGES: u8 = 1;
/// Bytes of a block in front of its directory, and of the footer in front of its JSON.
pub(crate) const SECTION_HEAD_BYTES: usize = 8;
/// Bytes of a directory entry.
pub(crate) const ENTRY_BYTES: usize = 12;

/// Allocations that an age can reach back to.
pub(crate) const AGE_RING: usize = 1 << 20;
/// Ticks of one unit of the time column.
pub const TIME_UNIT_TICKS: u64 = 64;
/// Largest thread id plus one.
pub(crate) const THREADS_MAX: u32 = 1 << 20;
/// Code of a dictionary column whose value stands in the escape column.
pub(crate) const DICT_ESCAPE: u8 = 255;

/// Kinds of the operation column, its low four bits. Those that are also image ops have the same number there.
pub(crate) mod op {
    pub(crate) const ALLOC: u8 = 0;
    pub(crate) const FREE: u8 = 1;
    pub(crate) const REALLOC: u8 = 2;
    pub(crate) const ALLOC_ZEROED: u8 = 3;
    pub(crate) const ALLOC_ALIGNED: u8 = 4;
    /// Here alone; in an image it is [`crate::image::Control::Direct`].
    pub(crate) const DIRECT: u8 = 7;
    pub(crate) const ADVISE: u8 = 8;
    pub(crate) const MARK: u8 = 9;
    pub(crate) const THREAD_SWITCH: u8 = 10;
    pub(crate) const THREAD_START: u8 = 11;
    pub(crate) const THREAD_END: u8 = 12;
    pub(crate) const GC_START: u8 = 13;
    pub(crate) const GC_STOP: u8 = 14;
    pub(crate) const FORK: u8 = 15;
    /// Bit 7, on allocations and reallocations: the touched column has an entry.
    pub(crate) const TOUCHED: u8 = 0x80;
}

/// Columns of a block, by the id in its directory. An empty column has no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Column {
    /// One byte an event.
    Ops = 0,
    /// Which block a free, reallocation or advice means.
    Refs = 1,
    /// Size codes, one byte for each allocation and reallocation.
    Sizes = 2,
    /// The sizes that the codes stand for, ascending, as differences.
    SizeDict = 3,
    /// Sizes without a code.
    SizeEscapes = 4,
    /// Alignments, one byte for each aligned allocation.
    Aligns = 5,
    /// Touched bytes.
    Touched = 6,
    /// Threads, marks, generations, and two entries for each directive.
    Args = 7,
    /// Time differences, one an event.
    Times = 8,
    /// Call-site codes, one byte for each allocation and reallocation.
    Sites = 9,
    /// The call sites that the codes stand for.
    SiteDict = 10,
    /// Call sites without a code.
    SiteEscapes = 11,
}

impl Column {
    /// Every column, by id.
    pub(crate) const ALL: [Self; 12] = [
        Self::Ops,
        Self::Refs,
        Self::Sizes,
        Self::SizeDict,
        Self::SizeEscapes,
        Self::Aligns,
        Self::Touched,
        Self::Args,
        Self::Times,
        Self::Sites,
        Self::SiteDict,
        Self::SiteEscapes,
    ];

    /// Most bytes that this column of a block with so many events can have before compression.
    pub(crate) const fn bytes_max(self, events: usize) -> usize {
        match self {
            Self::Ops | Self::Sizes | Self::Sites | Self::Aligns => events,
            // An age that the ring cannot reach is an escape byte and a slot.
            Self::Refs => events * 5,
            Self::SizeDict | Self::SiteDict => DICT_ESCAPE as usize * VARINT_BYTES_MAX,
            Self::SizeEscapes | Self::SiteEscapes | Self::Touched | Self::Args | Self::Times => {
                events * VARINT_BYTES_MAX
            }
        }
    }

    /// Most bytes that it can have in the file, given its bytes before compression.
    pub(crate) const fn stored_bytes_max(bytes: usize) -> usize {
        // zstd's own worst case is bytes + bytes / 256 + a little.
        bytes + bytes / 128 + 512
    }
}

/// Requested bytes that may be live at once. Far beyond any address space; it keeps sums within 64 bits.
pub(crate) const LIVE_BYTES_MAX: u64 = 1 << 62;
