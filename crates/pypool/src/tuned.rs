//! A faster pymalloc: the same blocks, pools and arenas, and what the real one lacks.
//!
//! [`Tuned`] keeps pymalloc's structure and its rules for a block's life (see the [guide](crate::guide)): size classes,
//! pools of 16 KiB, the block freed last comes first, a pool that stops being full goes to the front of its class,
//! three quarters decide whether a shrinking block moves. What it does differently are seven [policies](policy), each
//! of which can be left out by a bit of the constant `POLICIES`, so that what each is worth can be measured.
//!
//! ```text
//!  reserved address space, once per allocator; an OS page of it exists when it is touched
//!  | headers: 32 bytes per pool | arena 0: pool 0, pool 1, ... pool 63 | arena 1 | ...  virgin ... |
//!                               ^ base                                           ^ base + span
//! ```
//! Pools come from the front of that space, and are in one of five states:
//!
//! | state | blocks | where it is |
//! |---|---|---|
//! | virgin | never had any | behind the last pool that was ever taken |
//! | used | some in use, or none while it lingers | the list of its class |
//! | full | none free | in no list |
//! | empty | none in use; its OS pages are still there | the stack of empty pools |
//! | purged | none in use; the kernel has its OS pages back | the list of purged pools |
//!
//! A class that needs a pool gets the one emptied last, else a purged one, else a virgin one. That leaves out
//! pymalloc's order of arenas, whose purpose is that sparse arenas drain: here a pool goes back to the kernel by
//! itself.
//!
//! An allocator of this kind is as little thread-safe as [`Allocator`](crate::Allocator) is, and has the same contract.
//!
//! **Invariant:** a pool below `virgin` is in exactly one of the lists of its class, of empty and of purged pools, or
//! full and in none.

mod allocator;
mod check;
mod empties;
mod lookup;
pub mod policy;
mod pool;
mod range;
mod statistics;

pub use allocator::Tuned;
