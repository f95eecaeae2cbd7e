//! What can be wrong with a trace, each as a sentence that ends with what the user can do.
//!
//! Invariant: bytes from outside lead to one of these, never to a panic.

use crate::format::{VERSION, VERSION_MIN};

/// Why a trace could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused.
    #[error("reading or writing the trace failed: {0}; check the path, its permissions and the free space on its disk")]
    Io(#[from] std::io::Error),
    /// The first bytes are not a trace's.
    #[error("this is not a trace, its first bytes are not a trace's; give a file that `pyalloc-bench record` wrote")]
    NotATrace,
    /// Another version of the format.
    #[error(
        "this trace has format version {found} and this build reads versions {VERSION_MIN} to {VERSION}; \
         record it again, or use the release that wrote it"
    )]
    Version {
        /// Version in the file.
        found: u16,
    },
    /// The file ends before its footer does.
    #[error("the trace ends too early, within its {part}; copy it again from its source, or record it again")]
    Truncated {
        /// Where it ends.
        part: &'static str,
    },
    /// The bytes are not what the format allows.
    #[error("the trace is damaged: {part}, {what}; copy it again from its source, or record it again")]
    Damaged {
        /// Which part of the file.
        part: Part,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The metadata cannot be read, or contradicts itself.
    #[error("the trace's metadata is not usable: {0}; record it again, or write it with this version's tools")]
    Metadata(String),
    /// An event that cannot have happened.
    #[error("event {event} of the trace is impossible: {fault}; record it again, or correct what wrote it")]
    Impossible {
        /// Index of the event, from 0.
        event: u64,
        /// What is impossible about it.
        fault: Fault,
    },
    /// A cut of a trace that has no `steady` mark.
    #[error(
        "the trace has no `steady` mark to cut at; \
         record it again with `pyalloc_mark(\"steady\")` where its work begins"
    )]
    NoSteady,
    /// The footer does not agree with the events.
    #[error(
        "the totals at the end of the trace do not match its events ({what}); \
         copy it again from its source, or record it again"
    )]
    Totals {
        /// The first total that differs.
        what: &'static str,
    },
    /// The receiver of a replay image failed.
    #[error("writing the replay image failed: {0}; check free memory and limits, or replay in windows")]
    Image(#[source] std::io::Error),
    /// A line of the text form is wrong.
    #[error("line {line} of the text trace is wrong: {what}; correct it after docs/TRACE_FORMAT.md")]
    Text {
        /// Line number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
}

/// A part of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Signature, version, flags and metadata.
    Header,
    /// A block of events, by index from 0.
    Block(u64),
    /// Totals and end mark.
    Footer,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => f.write_str("header"),
            Self::Block(index) => write!(f, "block {index}"),
            Self::Footer => f.write_str("footer"),
        }
    }
}

/// What is impossible about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A free, reallocation or advice whose slot holds no block.
    #[error("it names slot {0}, which holds no live block")]
    NotLive(u32),
    /// An allocation into another slot than the free list gives.
    #[error("it allocates slot {got} where the free list gives slot {expected}")]
    WrongSlot {
        /// Slot of the event.
        got: u32,
        /// Slot of the free list.
        expected: u32,
    },
    /// More live blocks than slots.
    #[error("more than {} blocks are live", crate::SLOTS_MAX)]
    TooManyBlocks,
    /// More requested bytes live than any address space has.
    #[error("more than 2^62 bytes are live")]
    TooManyBytes,
    /// A size that no allocator could give, or a reallocation to nothing.
    #[error("a size of {0} bytes is out of range")]
    Size(u64),
    /// More touched bytes than a block can have.
    #[error("{0} touched bytes are out of range")]
    Touched(u64),
    /// An alignment that no allocator could give, or one on a zeroed request.
    #[error("an alignment of 2^{0} bytes is out of range, or stands on a zeroed request")]
    Align(u8),
    /// A call site that is not in the metadata.
    #[error("call site {0} is not in the metadata")]
    Site(u32),
    /// A mark that is not in the metadata.
    #[error("mark {0} is not in the metadata")]
    Mark(u32),
    /// A thread id beyond all reason.
    #[error("thread id {0} is not dense")]
    Thread(u32),
    /// A generation that CPython does not have.
    #[error("generation {0} does not exist")]
    Generation(u8),
}
