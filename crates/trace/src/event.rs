//! What a trace is made of: one recorded call or mark after another, in the program's own global order.
//!
//! Invariant: an [`EventKind::Free`], [`EventKind::Realloc`] or [`EventKind::Advise`] names a slot whose block is
//! live at that point, and the slot of an allocation is always [the one the LIFO free list gives](crate::slots).

use crate::DirectiveCall;
use serde::{Deserialize, Serialize};

/// Who asked for a block: CPython's three PEP 445 domains, any C code, array data, Arrow buffers.
///
/// The discriminants are part of the trace file and the replay image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Domain {
    /// Any C code through the C library's `malloc` family.
    Libc = 0,
    /// `PyMem_RawMalloc` and its family.
    Raw = 1,
    /// `PyMem_Malloc` and its family.
    Mem = 2,
    /// `PyObject_Malloc` and its family.
    Obj = 3,
    /// NumPy array data, told from `libc` or `raw` by call site.
    Numpy = 4,
    /// Arrow buffers through Arrow's own memory pool.
    Arrow = 5,
}

impl Domain {
    /// Every domain, in discriminant order.
    pub const ALL: [Self; 6] = [Self::Libc, Self::Raw, Self::Mem, Self::Obj, Self::Numpy, Self::Arrow];

    /// The domain with this discriminant, if there is one.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Libc),
            1 => Some(Self::Raw),
            2 => Some(Self::Mem),
            3 => Some(Self::Obj),
            4 => Some(Self::Numpy),
            5 => Some(Self::Arrow),
            _ => None,
        }
    }

    /// The word used in files and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Libc => "libc",
            Self::Raw => "raw",
            Self::Mem => "mem",
            Self::Obj => "obj",
            Self::Numpy => "numpy",
            Self::Arrow => "arrow",
        }
    }
}

/// Largest request that a trace may hold, in bytes (2^47 - 1: the user half of an x86-64 address space).
pub const SIZE_MAX: u64 = (1 << 47) - 1;
/// Largest alignment that a trace may hold, as a power of two (1 GiB).
pub const ALIGN_LOG2_MAX: u8 = 30;
/// Largest number of blocks live at once (the slot field of an image op has 25 bits).
pub const SLOTS_MAX: u32 = 1 << 25;
/// Blocks of at least this many bytes carry how much of them was touched: two OS pages.
pub const TOUCH_THRESHOLD_BYTES: u64 = 8 * 1024;

/// One recorded call or mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Ticks since the recording began; 0 throughout when the trace has no time column.
    pub time: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A block was allocated.
    Alloc {
        /// The slot that the LIFO free list gives it.
        slot: u32,
        /// Who asked.
        domain: Domain,
        /// Requested bytes, 0 to [`SIZE_MAX`].
        size: u64,
        /// Requested alignment as a power of two; 0 for a plain request.
        align_log2: u8,
        /// Whether the request was `calloc`'s. Never together with an alignment.
        zeroed: bool,
        /// Bytes that the program really touched, known for blocks of [`TOUCH_THRESHOLD_BYTES`] and more unless all of
        /// their pages were present before.
        touched: Option<u64>,
        /// Call site, an index into [`crate::Metadata::sites`]; 0 is "unknown".
        site: u32,
    },
    /// The block in this slot was freed.
    Free {
        /// Its slot.
        slot: u32,
    },
    /// The block in this slot was resized and keeps its slot and domain.
    Realloc {
        /// Its slot.
        slot: u32,
        /// New size in bytes, 1 to [`SIZE_MAX`].
        size: u64,
        /// Touched bytes after the resize, as for an allocation.
        touched: Option<u64>,
        /// Call site, as for an allocation.
        site: u32,
    },
    /// The program asked the kernel for huge pages on this block (`MADV_HUGEPAGE`, as NumPy does from 4 MiB).
    Advise {
        /// Its slot.
        slot: u32,
    },
    /// What follows was done by this thread (dense ids; 0 is the first thread seen and needs no switch).
    ThreadSwitch {
        /// Dense thread id.
        thread: u32,
    },
    /// A thread began.
    ThreadStart {
        /// Dense thread id.
        thread: u32,
    },
    /// A thread ended.
    ThreadEnd {
        /// Dense thread id.
        thread: u32,
    },
    /// A named mark: an index into [`crate::Metadata::marks`], whose first four are the phases.
    Mark {
        /// Index of the name.
        mark: u32,
    },
    /// A cyclic collection began.
    GcStart {
        /// Generation, 0 to 2.
        generation: u8,
    },
    /// The cyclic collection ended.
    GcStop {
        /// Generation, 0 to 2.
        generation: u8,
    },
    /// The process forked here (the child has a trace of its own).
    Fork,
    /// The program steered its allocator.
    Direct(DirectiveCall),
}

/// Part of a program's life. Headline figures cover `Steady`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Phase {
    /// Interpreter start and imports. A trace begins in it; no mark is needed.
    Startup = 0,
    /// The program's own work.
    Steady = 1,
    /// The program says that its work is dropped (its own mark).
    Drained = 2,
    /// Interpreter exit has begun; the live set at this mark is what [end](crate) means.
    Finalising = 3,
}

impl Phase {
    /// Every phase in the order of a life; the discriminant is the phase's index in [`crate::Metadata::marks`].
    pub const ALL: [Self; 4] = [Self::Startup, Self::Steady, Self::Drained, Self::Finalising];

    /// The word used in files and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Steady => "steady",
            Self::Drained => "drained",
            Self::Finalising => "finalising",
        }
    }

    /// The phase that a mark with this index begins, if it is not one of the program's own marks.
    #[must_use]
    pub const fn from_mark(mark: u32) -> Option<Self> {
        match mark {
            0 => Some(Self::Startup),
            1 => Some(Self::Steady),
            2 => Some(Self::Drained),
            3 => Some(Self::Finalising),
            _ => None,
        }
    }
}
