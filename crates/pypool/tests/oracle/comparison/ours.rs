//! `pypool` as a player of calls, on the arenas that the original has.
//!
//! **Invariant:** a slot holds null or a live block; a call that would lose a block is a fault of the sequence and ends
//! the test.

use std::cell::RefCell;
use std::ptr::null_mut;

use libpython::oracle::{Action, Block, Call, Place, SlotArenas};
use pypool::{Allocator, ArenaSource, Geometry, LibcRaw};

/// Written to the start of each block, as a program would.
const TOUCH: [u8; 8] = [0xA5; 8];

/// In a cell, since an allocator lends its source only shared.
struct Source(RefCell<SlotArenas>);

// SAFETY: slots do not overlap and can be accessed from `map` to `unmap`.
unsafe impl ArenaSource for Source {
    fn map(&mut self, bytes: usize) -> *mut u8 {
        self.0.get_mut().map(bytes)
    }

    unsafe fn unmap(&mut self, arena: *mut u8, _bytes: usize) {
        // SAFETY: by contract.
        let taken = unsafe { self.0.get_mut().unmap(arena) };
        assert!(taken, "an arena is given back once, by its start");
    }
}

/// Blocks of the raw allocator that a case leaves live stay with the process, which ends soon.
pub(crate) struct Ours<G: Geometry> {
    pool: Box<Allocator<LibcRaw, Source, G>>,
    blocks: Vec<*mut u8>,
}

impl<G: Geometry> Ours<G> {
    pub(crate) fn new(shift_bytes: usize) -> Result<Self, String> {
        let arenas = SlotArenas::reserve(shift_bytes);
        let arenas =
            arenas.map_err(|error| format!("no addresses for arenas: {error}. Raise the limit (ulimit -v)."))?;
        Ok(Self { pool: Box::new(Allocator::new(LibcRaw, Source(RefCell::new(arenas)))), blocks: Vec::new() })
    }

    /// Plays a call; a report is added to `reports`.
    pub(crate) fn play(&mut self, call: Call, reports: &mut Vec<String>) -> Place {
        let slot = call.slot();
        if slot >= self.blocks.len() {
            self.blocks.resize(slot + 1, null_mut());
        }
        let held = self.blocks[slot];
        let (block, bytes) = match call.action() {
            Action::Malloc(bytes) => (self.pool.allocate(bytes), bytes),
            Action::Calloc(count, bytes) => (self.pool.allocate_zeroed(count, bytes), count * bytes),
            // SAFETY: the slot holds null or a live block, and is replaced below if that has moved.
            Action::Realloc(bytes) => (unsafe { self.pool.reallocate(held, bytes) }, bytes),
            Action::Free => {
                self.blocks[slot] = null_mut();
                // SAFETY: null or a live block, of which nothing is left.
                unsafe { self.pool.free(held) };
                return self.place(Block::None);
            }
            Action::Report => {
                reports.push(self.pool.statistics().to_string());
                return self.place(Block::None);
            }
        };
        if block.is_null() {
            return self.place(Block::Null);
        }
        assert!(held.is_null() || matches!(call.action(), Action::Realloc(_)), "{call}: the slot is not empty");
        self.blocks[slot] = block;
        // SAFETY: the block is `bytes` long.
        unsafe { block.copy_from_nonoverlapping(TOUCH.as_ptr(), bytes.min(TOUCH.len())) };
        let lies = self.pool.source().0.borrow().place(block);
        self.place(lies.map_or(Block::Raw, |(ordinal, offset)| Block::Pool(ordinal, offset)))
    }

    fn place(&mut self, block: Block) -> Place {
        let (created, released) = self.pool.source().0.borrow_mut().take_events();
        Place::new(block, created, released)
    }
}
