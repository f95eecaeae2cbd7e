//! One call of a sequence, in eight bytes.
//!
//! ```text
//!  63                             28 27                  3 2    0
//! +---------------------------------+---------------------+------+
//! | bytes, or count and bytes each  | slot                | kind |
//! +---------------------------------+---------------------+------+
//! ```
//! A slot is a place of a table and holds a block or null, as a variable of a C program does: null may be freed and
//! reallocated.
//!
//! **Invariant:** a [`Call`] was made by its constructors or checked by [`Call::from_word`].

use std::fmt;

const SLOT_BITS: u32 = 25;
const SLOT_SHIFT: u32 = 3;
const BYTES_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS;
const BYTES_BITS: u32 = u64::BITS - BYTES_SHIFT;
/// Stands for a request that no allocator can serve.
const IMPOSSIBLE: u64 = (1 << BYTES_BITS) - 1;
const COUNT_BITS: u32 = 8;

const MALLOC: u64 = 0;
const CALLOC: u64 = 1;
const REALLOC: u64 = 2;
const FREE: u64 = 3;
const REPORT: u64 = 4;

/// One call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call(u64);

/// What a [`Call`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `slot = malloc(bytes)`; the slot is empty before.
    Malloc(usize),
    /// `slot = calloc(count, bytes)`; the slot is empty before.
    Calloc(usize, usize),
    /// `slot = realloc(slot, bytes)`, where a null result leaves the slot as it was.
    Realloc(usize),
    /// `free(slot)`, after which the slot is empty.
    Free,
    /// The statistics report.
    Report,
}

impl Call {
    /// Slots that a call can name.
    pub const SLOTS: usize = 1 << SLOT_BITS;

    /// `malloc` into an empty slot. [`usize::MAX`] is passed on as it is.
    ///
    /// # Panics
    /// Like all constructors, if slot or size do not fit: 2^25 slots, 64 GiB.
    #[must_use]
    pub fn malloc(slot: usize, bytes: usize) -> Self {
        Self::new(MALLOC, slot, packed(bytes))
    }

    /// `calloc` into an empty slot, of up to 255 elements of less than 256 MiB.
    #[must_use]
    pub fn calloc(slot: usize, count: usize, element_bytes: usize) -> Self {
        assert!(count >> COUNT_BITS == 0, "calloc of {count} elements: at most 255");
        assert!(element_bytes >> (BYTES_BITS - COUNT_BITS) == 0, "calloc of {element_bytes} bytes: at most 256 MiB");
        Self::new(CALLOC, slot, count as u64 | (element_bytes as u64) << COUNT_BITS)
    }

    /// `realloc` of what the slot holds.
    #[must_use]
    pub fn realloc(slot: usize, bytes: usize) -> Self {
        Self::new(REALLOC, slot, packed(bytes))
    }

    /// `free` of what the slot holds.
    #[must_use]
    pub fn free(slot: usize) -> Self {
        Self::new(FREE, slot, 0)
    }

    /// A report at this point of the sequence.
    #[must_use]
    pub fn report() -> Self {
        Self::new(REPORT, 0, 0)
    }

    fn new(kind: u64, slot: usize, bytes: u64) -> Self {
        assert!(slot < Self::SLOTS, "slot {slot}: a call names fewer than {}", Self::SLOTS);
        Self(kind | (slot as u64) << SLOT_SHIFT | bytes << BYTES_SHIFT)
    }

    /// The eight bytes as a number.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The call of a word; `None` if it is none.
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & 7 <= REPORT { Some(Self(word)) } else { None }
    }

    /// Its slot; 0 for a report.
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.0 >> SLOT_SHIFT) as usize % Self::SLOTS
    }

    /// What it does.
    #[must_use]
    pub const fn action(self) -> Action {
        let bytes = self.0 >> BYTES_SHIFT;
        let whole = if bytes == IMPOSSIBLE { usize::MAX } else { bytes as usize };
        match self.0 & 7 {
            MALLOC => Action::Malloc(whole),
            CALLOC => Action::Calloc((bytes % (1 << COUNT_BITS)) as usize, (bytes >> COUNT_BITS) as usize),
            REALLOC => Action::Realloc(whole),
            FREE => Action::Free,
            _ => Action::Report,
        }
    }
}

fn packed(bytes: usize) -> u64 {
    if bytes == usize::MAX {
        return IMPOSSIBLE;
    }
    assert!((bytes as u64) < IMPOSSIBLE, "a request of {bytes} bytes: less than 64 GiB, or usize::MAX");
    bytes as u64
}

/// As in a log: `malloc 40 into 7`.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action() {
            Action::Free => write!(f, "free {}", self.slot()),
            Action::Report => write!(f, "report"),
            Action::Realloc(_) => write!(f, "realloc {} to {}", self.slot(), self.action()),
            action => write!(f, "{action} into {}", self.slot()),
        }
    }
}

/// The call without its slot: `malloc 40`, `calloc 3 * 8`; the size alone for a reallocation.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malloc(usize::MAX) => write!(f, "malloc of the largest size"),
            Self::Malloc(bytes) => write!(f, "malloc {bytes}"),
            Self::Calloc(count, bytes) => write!(f, "calloc {count} * {bytes}"),
            Self::Realloc(usize::MAX) => write!(f, "the largest size"),
            Self::Realloc(bytes) => write!(f, "{bytes}"),
            Self::Free => write!(f, "free"),
            Self::Report => write!(f, "report"),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({self})")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_call_survives_its_word() {
        let last = Call::SLOTS - 1;
        let calls = [
            (Call::malloc(0, 0), Action::Malloc(0), "malloc 0 into 0"),
            (Call::malloc(last, (1 << 36) - 2), Action::Malloc((1 << 36) - 2), "malloc 68719476734 into 33554431"),
            (Call::malloc(1, usize::MAX), Action::Malloc(usize::MAX), "malloc of the largest size into 1"),
            (Call::calloc(2, 255, (1 << 28) - 1), Action::Calloc(255, (1 << 28) - 1), "calloc 255 * 268435455 into 2"),
            (Call::realloc(last, 513), Action::Realloc(513), "realloc 33554431 to 513"),
            (Call::free(9), Action::Free, "free 9"),
            (Call::report(), Action::Report, "report"),
        ];
        for (call, action, text) in calls {
            let read = Call::from_word(call.word()).unwrap();
            assert_eq!((read, read.action(), read.to_string().as_str()), (call, action, text));
        }
        assert_eq!(Call::free(last).slot(), last);
        assert_eq!(Call::from_word(5), None);
    }
}
