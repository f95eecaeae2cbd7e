//! Who owned memory at a moment: what the domains had requested, and what each allocator held.
//!
//! Invariant: what the domains have is counted block by block and exact; what an allocator holds is its own account,
//! null where it gives none.

use super::MemoryPoint;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest request that CPython's pools serve, bytes; its larger ones in the same domains go to the C library.
pub const SMALL_BYTES_MAX: u64 = 512;

/// A moment at which owners are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// The resident peak that [`super::Footprint::peak`] holds.
    Peak,
    /// The `drained` mark.
    Drained,
    /// [`super::Footprint::end`].
    End,
    /// The last idle reading at rest.
    Rest,
}

/// Who owned memory at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Which.
    pub moment: Moment,
    /// All memory then.
    pub memory: MemoryPoint,
    /// Live blocks by domain and size; rows that never had a block are absent.
    pub owned: Vec<Owned>,
    /// What each allocator says that it holds, by key; the C library's always among them.
    pub held: BTreeMap<String, Held>,
}

/// Live blocks of one domain, up to [`SMALL_BYTES_MAX`] or larger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Domain name.
    pub domain: String,
    /// Whether these are the blocks of up to [`SMALL_BYTES_MAX`].
    pub small: bool,
    /// Key of the allocator whose memory they are in.
    pub allocator: String,
    /// Blocks.
    pub blocks: u64,
    /// Requested bytes.
    pub requested_bytes: u64,
    /// Usable bytes, as the allocator reports them.
    pub usable_bytes: u64,
    /// Bytes that the program touched, of those requested. They are resident.
    pub touched_bytes: u64,
}

/// What an allocator holds, by its own account; null where it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Bytes that it has from the kernel and may use without asking again.
    pub mapped_bytes: Option<u64>,
    /// Most bytes of these that can be resident.
    pub resident_bytes_max: Option<u64>,
}
