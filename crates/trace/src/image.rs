//! The replay image: fixed 8-byte ops that the timed loop reads one after another and never decodes.
//!
//! ```text
//!  63                            32 31                     7 6    4 3    0
//! +--------------------------------+------------------------+------+------+
//! | size, or what the kind says    | slot                   |domain| kind |
//! +--------------------------------+------------------------+------+------+
//! ```
//! Invariant: an op's slot is live (or, for an allocation, empty) when the op is reached; [`compile`] discharges
//! that, so the loop checks nothing but null pointers. A prefix op qualifies exactly the allocation or reallocation
//! that follows the run of prefixes it stands in.

mod compile;
mod cycles;
mod moments;
mod sink;
mod state;
mod threads;

pub use compile::compile;
pub use cycles::{CYCLE_MARK, Cycles, CyclesFault, repeat, repeated_ops};
pub use moments::{Moments, PACE_GAP_NS, RecordedClock, moments};
pub use sink::{ImageSink, VecSink};
pub use threads::{Control, Order, THREADS_REPLAYED_MAX, ThreadedImage, apart};

use crate::ledger::Block;
use crate::{Domain, Totals};

/// Size of an OS page, bytes.
pub const OS_PAGE_BYTES: u64 = 4096;
/// What `Touched` and `OldTouched` count in, bytes: the header of a block is one unit, and from which page boundary the
/// allocator under test counts is its own affair.
pub const TOUCH_UNIT_BYTES: u64 = 16;

/// What an op does. The discriminants are the low four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpKind {
    /// `malloc(size)` into the slot.
    Alloc = 0,
    /// Free the slot. The size field repeats the block's size (at most `u32::MAX`), for sized frees and accounting.
    Free = 1,
    /// Resize the slot to size.
    Realloc = 2,
    /// `calloc(1, size)` into the slot.
    AllocZeroed = 3,
    /// Aligned allocation; an [`OpKind::Align`] prefix stands before it.
    AllocAligned = 4,
    /// Prefix: the alignment as a power of two, in the size field.
    Align = 5,
    /// Prefix: touched bytes of the block that follows, in units of [`TOUCH_UNIT_BYTES`], in the size field. Without
    /// this prefix the whole block was touched.
    Touched = 6,
    /// Prefix: bits 32 and up of the size that follows, in the size field.
    SizeHigh = 7,
    /// Huge-page advice on the slot's block.
    Advise = 8,
    /// A mark; index in the size field.
    Mark = 9,
    /// Thread switch; dense thread id in the size field. No call. In streams of threads one of the other [`Control`]s,
    /// by the domain bits.
    ThreadSwitch = 10,
    /// Thread start; dense thread id in the size field. No call.
    ThreadStart = 11,
    /// Thread end; dense thread id in the size field. No call.
    ThreadEnd = 12,
    /// A collection starts; generation in the size field. No call.
    GcStart = 13,
    /// A collection stops; generation in the size field. No call.
    GcStop = 14,
    /// Prefix of a reallocation to more than 4 KiB: the touched bytes of the block before it, in the same units.
    OldTouched = 15,
}

/// One 8-byte op.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Op(pub u64);

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Op({:?} {:?} slot {} value {})", self.kind(), self.domain(), self.slot(), self.value())
    }
}

impl Op {
    /// Packs an op. `slot` must be below [`crate::SLOTS_MAX`].
    #[inline]
    #[must_use]
    pub const fn new(kind: OpKind, domain: Domain, slot: u32, value: u32) -> Self {
        Self((kind as u64) | ((domain as u64) << 4) | ((slot as u64) << 7) | ((value as u64) << 32))
    }

    /// The low four bits.
    #[inline]
    #[must_use]
    pub const fn kind_bits(self) -> u8 {
        (self.0 & 15) as u8
    }

    /// What it does.
    #[must_use]
    pub const fn kind(self) -> OpKind {
        match self.kind_bits() {
            0 => OpKind::Alloc,
            1 => OpKind::Free,
            2 => OpKind::Realloc,
            3 => OpKind::AllocZeroed,
            4 => OpKind::AllocAligned,
            5 => OpKind::Align,
            6 => OpKind::Touched,
            7 => OpKind::SizeHigh,
            8 => OpKind::Advise,
            9 => OpKind::Mark,
            10 => OpKind::ThreadSwitch,
            11 => OpKind::ThreadStart,
            12 => OpKind::ThreadEnd,
            13 => OpKind::GcStart,
            14 => OpKind::GcStop,
            _ => OpKind::OldTouched,
        }
    }

    /// Bits 4 to 6.
    #[inline]
    #[must_use]
    pub const fn domain_bits(self) -> usize {
        ((self.0 >> 4) & 7) as usize
    }

    /// Whose request it is.
    #[must_use]
    pub const fn domain(self) -> Option<Domain> {
        Domain::from_bits(self.domain_bits() as u8)
    }

    /// The slot.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> usize {
        ((self.0 >> 7) & ((1 << 25) - 1)) as usize
    }

    /// Bits 32 to 63: size, or what the kind says.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a compiled image needs from the worker, and what it will do there.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageSummary {
    /// Number of ops.
    pub ops: u64,
    /// Events of the trace that they stand for.
    pub events: u64,
    /// Size of the slot table.
    pub slots: u32,
    /// Calls (allocations, frees, reallocations) per phase, indexed by [`crate::Phase`].
    pub calls_by_phase: [u64; 4],
    /// Index of the op that begins each phase; `None` when the trace lacks its mark.
    pub phase_ops: [Option<u64>; 4],
    /// Most requested bytes live at once within `steady` (within everything when there is no `steady` mark).
    pub live_bytes_peak_steady: u64,
    /// What was repeated, if anything was.
    #[serde(default)]
    pub cycles: Option<Repeated>,
}

/// A section of an image that comes more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Repeated {
    /// How often it comes in all.
    pub times: u32,
    /// Name of the mark that it follows.
    pub from: String,
    /// Name of the mark that it ends before.
    pub to: String,
}

/// Most ops that may not be parted: three prefixes and what they qualify.
pub const GROUP_OPS_MAX: usize = 4;

/// Bytes of one window that takes the whole image of a trace with these totals.
///
/// The compiler asks for a new window when fewer than [`GROUP_OPS_MAX`] ops are left in one, hence a little more
/// than the image's own size.
#[must_use]
pub fn size_bound(totals: &Totals) -> u64 {
    totals.image_ops.saturating_add(GROUP_OPS_MAX as u64).saturating_mul(size_of::<Op>() as u64)
}

/// Whether an op only qualifies the one after the run of prefixes that it stands in.
pub(crate) fn is_prefix(op: Op) -> bool {
    matches!(op.kind(), OpKind::Align | OpKind::Touched | OpKind::SizeHigh | OpKind::OldTouched)
}

/// `bytes` in units of [`TOUCH_UNIT_BYTES`], at most `u32::MAX`.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(TOUCH_UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Touched units of a block, when they are known and fewer than all of them.
pub(crate) fn partly_touched(size: u64, touched: Option<u64>) -> Option<u32> {
    touched.map(units).filter(|&touched| touched < units(size))
}

/// Prefixes that an allocation gets.
pub(crate) fn prefix_ops_of_alloc(size: u64, touched: Option<u64>, align_log2: u8) -> u64 {
    u64::from(align_log2 > 0)
        + u64::from(size > u64::from(u32::MAX))
        + u64::from(partly_touched(size, touched).is_some())
}

/// Prefixes that a reallocation gets.
pub(crate) fn prefix_ops_of_realloc(size: u64, touched: Option<u64>) -> u64 {
    u64::from(size > OS_PAGE_BYTES) + prefix_ops_of_alloc(size, touched, 0)
}

/// Slots of one piece of [`OldTouched`].
const PIECE_SLOTS: usize = 1 << 12;

/// Touched units of the live blocks that were not touched whole: four bytes a slot, in pieces where there are any.
#[derive(Debug, Default)]
pub(crate) struct OldTouched(Vec<Option<Box<[u32]>>>);

impl OldTouched {
    /// Keeps what is known about the new block in `slot`, and returns the block, marked if that is not all of it.
    #[inline]
    pub(crate) fn note(&mut self, slot: u32, block: Block, touched: Option<u64>) -> Block {
        match partly_touched(block.size(), touched) {
            None => block,
            Some(units) => {
                self.keep(slot as usize, units);
                block.partial()
            }
        }
    }

    fn keep(&mut self, slot: usize, units: u32) {
        let piece = slot / PIECE_SLOTS;
        if self.0.len() <= piece {
            self.0.resize_with(piece + 1, || None);
        }
        let pieces = self.0[piece].get_or_insert_with(|| vec![0; PIECE_SLOTS].into_boxed_slice());
        pieces[slot % PIECE_SLOTS] = units;
    }

    /// Touched units of the block in `slot`.
    pub(crate) fn of(&self, slot: u32, block: Block) -> u32 {
        if !block.is_partial() {
            return units(block.size());
        }
        let slot = slot as usize;
        let piece = self.0.get(slot / PIECE_SLOTS).and_then(Option::as_ref);
        piece.map_or_else(|| units(block.size()), |piece| piece[slot % PIECE_SLOTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_units_are_kept_for_the_slots_that_have_them() {
        let mut old = OldTouched::default();
        let whole = Block::live(3 * TOUCH_UNIT_BYTES, 0);
        for slot in [0, 4095, 4096, crate::SLOTS_MAX - 1] {
            let block = old.note(slot, whole, Some(u64::from(slot % 2) * TOUCH_UNIT_BYTES));
            assert_eq!((old.of(slot, block), old.of(slot, whole)), (slot % 2, 3));
        }
        assert_eq!(old.note(7, whole, Some(3 * TOUCH_UNIT_BYTES)), whole, "all of it is touched");
        assert_eq!(old.0.iter().flatten().count(), 3);
    }
}
