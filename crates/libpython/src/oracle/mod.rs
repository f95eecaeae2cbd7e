//! The real pool as an oracle: plays a sequence of calls in a process of its own and tells where each block lies.
//!
//! [`Original::start`] starts the running program again, with an interpreter's library preloaded and the one argument
//! [`DRIVE`]; the program's `main` then has nothing to do but call [`drive`]. The child brings the pools up once and
//! forks for each case, so that a case costs about a millisecond and always meets pools that were never used.
//!
//! Both sides of a comparison take their arenas from [`SlotArenas`]: an address is then a pair (arena ordinal, offset)
//! that does not depend on the process.
//!
//! ```text
//! parent                                child
//!   case:  shift in bytes          ->   fork; the fork reserves slots
//!   frame: n, then n calls         ->   plays them
//!                                  <-   n places, then length and text of each report
//!   frame: 0                       ->   the fork ends
//! ```
//! All numbers are 64-bit words in the byte order of the machine.
//!
//! **Invariant:** a place answers exactly one call, in order; a report stands for the moment of its call.

mod arenas;
mod call;
mod drive;
mod original;
mod place;

pub use arenas::{SLOT_BYTES, SlotArenas};
pub use call::{Action, Call};
pub use drive::drive;
pub use original::{Original, Replies};
pub use place::{Block, Place};

/// The argument with which a program starts itself as a driver.
pub const DRIVE: &str = "--drive";

/// First word that a driver writes, once its pools are up.
const READY: u64 = u64::from_ne_bytes(*b"pymalloc");
/// First word of a driver whose library has other pools; a text that says so follows, after its length.
const REFUSED: u64 = u64::from_ne_bytes(*b"no pools");
