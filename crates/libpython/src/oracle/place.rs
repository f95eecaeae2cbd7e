//! The answer to one call, in eight bytes: where the block is, and which arenas came and went.
//!
//! ```text
//!  63    49 48       37 36 35       24 23 22    21 20        0
//! +--------+-----------+--+-----------+--+--------+-----------+
//! | 0      | released  |1 | created   |1 | kind   | offset    |   kind pool: bits 49.. hold the arena's ordinal
//! +--------+-----------+--+-----------+--+--------+-----------+
//! ```
//! **Invariant:** two places are equal exactly if their words are.

use std::fmt;

const OFFSET_BITS: u32 = 21;
const ORDINAL_BITS: u32 = 12;
const KIND_SHIFT: u32 = OFFSET_BITS;
const CREATED_SHIFT: u32 = KIND_SHIFT + 2;
const RELEASED_SHIFT: u32 = CREATED_SHIFT + 1 + ORDINAL_BITS;
const ARENA_SHIFT: u32 = RELEASED_SHIFT + 1 + ORDINAL_BITS;

const NONE: u64 = 0;
const POOL: u64 = 1;
const RAW: u64 = 2;
const NULL: u64 = 3;

/// What a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Nothing: the call was no request.
    None,
    /// A block of an arena: the arena's ordinal and the offset from its slot's start.
    Pool(usize, usize),
    /// A block of the raw allocator, wherever that put it.
    Raw,
    /// Null.
    Null,
}

/// The answer to one call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// What was returned, the ordinal of the arena that the call created, and of the one that it released.
    #[must_use]
    pub fn new(block: Block, created: Option<usize>, released: Option<usize>) -> Self {
        let event = |ordinal: Option<usize>| {
            ordinal.map_or(0, |ordinal| {
                debug_assert!(ordinal >> ORDINAL_BITS == 0);
                1 | (ordinal as u64) << 1
            })
        };
        let events = event(created) << CREATED_SHIFT | event(released) << RELEASED_SHIFT;
        Self(match block {
            Block::None => NONE << KIND_SHIFT | events,
            Block::Raw => RAW << KIND_SHIFT | events,
            Block::Null => NULL << KIND_SHIFT | events,
            Block::Pool(ordinal, offset) => {
                debug_assert!(ordinal >> ORDINAL_BITS == 0 && offset >> OFFSET_BITS == 0);
                offset as u64 | POOL << KIND_SHIFT | events | (ordinal as u64) << ARENA_SHIFT
            }
        })
    }

    /// The eight bytes as a number.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The place of a word.
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// What was returned.
    #[must_use]
    pub const fn block(self) -> Block {
        match self.0 >> KIND_SHIFT & 3 {
            NONE => Block::None,
            RAW => Block::Raw,
            NULL => Block::Null,
            _ => Block::Pool(
                (self.0 >> ARENA_SHIFT) as usize % (1 << ORDINAL_BITS),
                self.0 as usize % (1 << OFFSET_BITS),
            ),
        }
    }

    /// Ordinal of the arena that the call created.
    #[must_use]
    pub const fn created(self) -> Option<usize> {
        event(self.0 >> CREATED_SHIFT)
    }

    /// Ordinal of the arena that the call released.
    #[must_use]
    pub const fn released(self) -> Option<usize> {
        event(self.0 >> RELEASED_SHIFT)
    }
}

const fn event(bits: u64) -> Option<usize> {
    if bits & 1 == 1 { Some((bits >> 1) as usize % (1 << ORDINAL_BITS)) } else { None }
}

/// As in a log: `arena 0 at 48, arena 0 created`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block() {
            Block::None => write!(f, "nothing")?,
            Block::Pool(ordinal, offset) => write!(f, "arena {ordinal} at {offset}")?,
            Block::Raw => write!(f, "raw")?,
            Block::Null => write!(f, "null")?,
        }
        if let Some(ordinal) = self.created() {
            write!(f, ", arena {ordinal} created")?;
        }
        if let Some(ordinal) = self.released() {
            write!(f, ", arena {ordinal} released")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_word() {
        let places = [
            (Block::None, None, Some(4095), "nothing, arena 4095 released"),
            (Block::Pool(0, 48), Some(0), None, "arena 0 at 48, arena 0 created"),
            (
                Block::Pool(4095, (2 << 20) - 1),
                Some(4095),
                Some(0),
                "arena 4095 at 2097151, arena 4095 created, arena 0 released",
            ),
            (Block::Raw, None, None, "raw"),
            (Block::Null, None, None, "null"),
        ];
        for (block, created, released, text) in places {
            let place = Place::from_word(Place::new(block, created, released).word());
            assert_eq!((place.block(), place.created(), place.released()), (block, created, released));
            assert_eq!(place.to_string(), text);
        }
    }
}
