//! The only place where the replay meets raw memory: the slot table, the calls through it, and what is written to
//! the blocks.
//!
//! Invariant: a slot holds null or a live block of the backend that serves its domain. Every 25-bit slot number lies
//! inside the table, whatever the image says. That a block is freed and resized in the domain that allocated it is the
//! image's promise, made when it was compiled from a validated trace.

use super::{Account, Pass};
use crate::backend::Directors;
use crate::heap::Entry;
use crate::probe::clock;
use crate::probe::sys::Mapping;
use crate::run::CallKind;
use std::io;
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};
use trace::image::{OS_PAGE_BYTES, Op, TOUCH_UNIT_BYTES};
use trace::{Directive, DirectiveCall, Domain, SLOTS_MAX};

const PAGE: usize = OS_PAGE_BYTES as usize;

/// What a run of prefix ops says about the allocation or reallocation after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Prefix {
    /// Whether any prefix was seen.
    pub(crate) seen: bool,
    /// Alignment as a power of two.
    pub(crate) align_log2: u32,
    /// Bits 32 and up of the size.
    pub(crate) size_high: u32,
    /// Touched units; all of them when unknown.
    pub(crate) touched: Option<u32>,
    /// Touched units of the block before a reallocation.
    pub(crate) old_touched: Option<u32>,
}

impl Prefix {
    fn bytes(&self, op: Op) -> usize {
        ((u64::from(self.size_high) << 32) | u64::from(op.value())) as usize
    }

    /// How many bytes from the block's start the program touched.
    fn touched_bytes(&self, bytes: usize) -> usize {
        self.touched.map_or(bytes, |units| bytes.min(units as usize * TOUCH_UNIT_BYTES as usize))
    }
}

/// Held by whoever is in an allocator that serves one thread at a time: what the GIL is to pymalloc.
static TOKEN: Mutex<()> = Mutex::new(());

/// The slot table and the entry points of each domain.
pub(crate) struct Heap {
    /// The block in each slot, or null.
    blocks: *mut *mut u8,
    /// The bytes requested for it; kept up for passes that account for them, and for blocks of NumPy and Arrow, which
    /// tell a block's size when they resize or free it.
    sizes: *mut usize,
    /// The bytes of it that were touched; kept up as the sizes are.
    touched: *mut usize,
    /// The bytes of it that its allocator says can be used; kept up for passes that account for them. Only the thread
    /// that made the block asks: jemalloc sets up a thread that asks.
    usable: *mut usize,
    /// Indexed by the three domain bits of an op, so that no index is out of range.
    table: [Entry; 8],
    /// The prefixes read so far; kept here because a window may end between them and their op.
    pub(crate) prefix: Prefix,
    /// Failed allocations and reallocations.
    pub(crate) failed: u64,
    /// A bit per domain: whether its allocator is entered under the token.
    guarded: u8,
    /// Who carries out the program's directives; nobody in a test of the loop.
    directors: Option<&'static Directors>,
    /// Calls of each directive that no allocator has.
    pub(crate) unreplayed: [u64; Directive::ALL.len()],
}

// SAFETY: the tables live as long as the process. Which thread may use a slot is the image's promise: its streams make
// threads wait for each other wherever they meet over one.
unsafe impl Send for Heap {}

impl Heap {
    /// A table over `entries` (by [`Domain`]), of which the first `slots` slots are made present.
    pub(crate) fn new(entries: [Entry; 6], slots: u32) -> io::Result<Self> {
        let table = || {
            let table = Mapping::shared(SLOTS_MAX as usize * 8)?;
            table.make_present(slots as usize * 8);
            io::Result::Ok(table.base().as_ptr())
        };
        let [libc, raw, mem, obj, numpy, arrow] = entries;
        Ok(Self {
            blocks: table()?.cast(),
            sizes: table()?.cast(),
            touched: table()?.cast(),
            usable: table()?.cast(),
            table: [libc, raw, mem, obj, numpy, arrow, libc, libc],
            prefix: Prefix::default(),
            failed: 0,
            guarded: 0,
            directors: None,
            unreplayed: [0; Directive::ALL.len()],
        })
    }

    /// Has the allocators of these domains entered under the token, where a pass has several threads.
    pub(crate) fn guard(&mut self, domains: impl Iterator<Item = Domain>) {
        self.guarded = domains.fold(0, |bits, domain| bits | 1 << domain as u8);
    }

    /// Has the program's directives carried out.
    pub(crate) fn steer(&mut self, directors: &'static Directors) {
        self.directors = Some(directors);
    }

    /// Carries out a directive, and counts it where no allocator has the function.
    #[cold]
    pub(crate) fn direct<P: Pass>(&mut self, call: DirectiveCall, pass: &mut P) {
        if !self.directors.is_some_and(|directors| directors.carry_out(call)) {
            self.unreplayed[call.directive as usize] += 1;
        }
        pass.touched();
    }

    /// The same tables and entry points for another thread.
    pub(crate) fn twin(&self) -> Self {
        Self { prefix: Prefix::default(), failed: 0, unreplayed: [0; Directive::ALL.len()], ..*self }
    }

    /// The token, if the op's allocator is entered under it. Waiting for it is no part of the call.
    #[inline(always)]
    fn enter<P: Pass>(&self, op: Op, pass: &mut P) -> Option<MutexGuard<'static, ()>> {
        if !P::TOKEN || self.guarded >> op.domain_bits() & 1 == 0 {
            return None;
        }
        Some(TOKEN.try_lock().unwrap_or_else(|_| {
            let begun = clock::now_ns();
            let token = TOKEN.lock().unwrap_or_else(PoisonError::into_inner);
            pass.waited(clock::now_ns() - begun);
            token
        }))
    }

    #[inline(always)]
    fn block(&mut self, op: Op) -> &mut *mut u8 {
        // SAFETY: the table has `SLOTS_MAX` entries, and an op's 25 bits say less; zeroed memory is null pointers;
        // `&mut self` keeps the reference unique.
        unsafe { &mut *self.blocks.add(op.slot() & (SLOTS_MAX as usize - 1)) }
    }

    #[inline(always)]
    fn size(&mut self, op: Op) -> &mut usize {
        // SAFETY: as in `block`.
        unsafe { &mut *self.sizes.add(op.slot() & (SLOTS_MAX as usize - 1)) }
    }

    #[inline(always)]
    fn touched(&mut self, op: Op) -> &mut usize {
        // SAFETY: as in `block`.
        unsafe { &mut *self.touched.add(op.slot() & (SLOTS_MAX as usize - 1)) }
    }

    #[inline(always)]
    fn usable(&mut self, op: Op) -> &mut usize {
        // SAFETY: as in `block`.
        unsafe { &mut *self.usable.add(op.slot() & (SLOTS_MAX as usize - 1)) }
    }

    /// A plain allocation of less than one OS page, all of it touched: nearly every op of a Python program.
    #[inline(always)]
    pub(crate) fn allocate_small<P: Pass>(&mut self, op: Op, pass: &mut P) {
        if !P::CALLS {
            *self.block(op) = op.0 as *mut u8; // any value but null; nothing reads through it
            return;
        }
        let bytes = op.value() as usize;
        let malloc = self.table[op.domain_bits()].malloc;
        let token = self.enter(op, pass);
        // SAFETY: no precondition.
        let block = pass.call(CallKind::Malloc, bytes, || unsafe { malloc(bytes) }).cast::<u8>();
        drop(token);
        *self.block(op) = block;
        if block.is_null() {
            self.failed += 1;
            return;
        }
        if P::FULL_TOUCH {
            fill(block, 0, bytes);
        } else {
            write_header(block, bytes);
        }
        pass.touched();
        self.gain(op, bytes, bytes, pass);
    }

    /// Any allocation, with its prefixes. `advised` when the next op asks for huge pages on this very block: the
    /// advice must come before the touch, as it did in the program.
    pub(crate) fn allocate<P: Pass>(&mut self, op: Op, kind: CallKind, advised: bool, pass: &mut P) {
        let prefix = std::mem::take(&mut self.prefix);
        let bytes = prefix.bytes(op);
        let block = if P::CALLS {
            let entry = self.table[op.domain_bits()];
            let _token = self.enter(op, pass);
            // SAFETY: no precondition on any of the three; an alignment is a power of two.
            pass.call(kind, bytes, || unsafe {
                match kind {
                    CallKind::Calloc => (entry.calloc)(1, bytes),
                    CallKind::Aligned => (entry.aligned)(1 << (prefix.align_log2 & 63), bytes),
                    _ => (entry.malloc)(bytes),
                }
            })
            .cast::<u8>()
        } else {
            op.0 as *mut u8
        };
        *self.block(op) = block;
        if block.is_null() {
            self.failed += 1;
        } else if P::CALLS {
            if advised {
                advise(block, bytes);
            }
            touch::<P>(block, bytes, 0, prefix.touched_bytes(bytes));
            pass.touched();
            self.gain(op, bytes, prefix.touched_bytes(bytes), pass);
        }
    }

    /// A reallocation, with its prefixes. A block that was never had stays missing; one that cannot be resized stays
    /// as it was.
    pub(crate) fn reallocate<P: Pass>(&mut self, op: Op, pass: &mut P) {
        let prefix = std::mem::take(&mut self.prefix);
        let bytes = prefix.bytes(op);
        let old = *self.block(op);
        if old.is_null() || !P::CALLS {
            return;
        }
        let (old_bytes, old_touched) = (*self.size(op), *self.touched(op));
        self.lose(op, pass);
        let entry = self.table[op.domain_bits()];
        let token = self.enter(op, pass);
        // SAFETY: the slot's block is live and of this domain; its old address is forgotten below. Who wants its size
        // serves NumPy or Arrow, of whose blocks it is known.
        let resize = || unsafe { entry.resize(old.cast(), old_bytes, bytes) };
        let block = pass.call(CallKind::Realloc, bytes, resize).cast::<u8>();
        drop(token);
        if block.is_null() {
            self.failed += 1;
            self.gain(op, old_bytes, old_touched, pass);
            return;
        }
        *self.block(op) = block;
        let was = if P::ACCOUNTS { old_bytes } else { usize::MAX };
        let already = prefix.old_touched.map_or(was, |units| was.min(units as usize * TOUCH_UNIT_BYTES as usize));
        touch::<P>(block, bytes, already, prefix.touched_bytes(bytes));
        pass.touched();
        self.gain(op, bytes, prefix.touched_bytes(bytes), pass);
    }

    /// A free; nothing when the block was never had.
    #[inline(always)]
    pub(crate) fn free<P: Pass>(&mut self, op: Op, pass: &mut P) {
        if P::ACCOUNTS {
            self.lose(op, pass);
        }
        let block = std::mem::replace(self.block(op), null_mut());
        if block.is_null() || !P::CALLS {
            return;
        }
        if is_sized(op) {
            return self.free_sized(op, block, pass);
        }
        let free = self.table[op.domain_bits()].free;
        let _token = self.enter(op, pass);
        // SAFETY: the slot's block is live and of this domain; the slot has forgotten it.
        pass.call(CallKind::Free, op.value() as usize, || unsafe { free(block.cast()) });
    }

    /// Frees a block of NumPy or Arrow that its slot has forgotten, with its size if the allocator wants to be told.
    fn free_sized<P: Pass>(&mut self, op: Op, block: *mut u8, pass: &mut P) {
        let (entry, bytes) = (self.table[op.domain_bits()], *self.size(op));
        let _token = self.enter(op, pass);
        // SAFETY: the block is live, of this domain and of the size that was noted when it came to be.
        pass.call(CallKind::Free, op.value() as usize, || unsafe { entry.release(block.cast(), bytes) });
    }

    /// Huge-page advice on a block that is older than the op before. What was requested is not known any more, so all
    /// that is usable is meant.
    pub(crate) fn advise(&mut self, op: Op) {
        let block = *self.block(op);
        if !block.is_null() {
            advise(block, self.usable_size(op));
        }
    }

    /// Notes the size of the block that the slot holds now, where somebody will want it.
    #[inline(always)]
    fn gain<P: Pass>(&mut self, op: Op, bytes: usize, touched: usize, pass: &mut P) {
        if P::ACCOUNTS || is_sized(op) {
            *self.size(op) = bytes;
        }
        if P::ACCOUNTS {
            *self.touched(op) = touched;
            *self.usable(op) = self.usable_size(op).max(bytes);
            pass.gained(self.account(op));
        }
    }

    /// Tells an accounting pass that the slot's block is about to go.
    #[inline(always)]
    fn lose<P: Pass>(&mut self, op: Op, pass: &mut P) {
        if P::ACCOUNTS && !self.block(op).is_null() {
            pass.lost(self.account(op));
        }
    }

    /// The slot's live block.
    fn account(&mut self, op: Op) -> Account {
        let (requested, touched, usable) = (*self.size(op), *self.touched(op), *self.usable(op));
        Account { domain_bits: op.domain_bits(), requested, usable, touched }
    }

    /// Usable bytes of the slot's block; 0 when its allocator cannot tell.
    fn usable_size(&mut self, op: Op) -> usize {
        let block = self.block(op).cast();
        // SAFETY: only called while the slot's block is live, and of this domain.
        unsafe { (self.table[op.domain_bits()].usable_size)(block) }
    }

    /// Allocates a block that stays: what follows begins so much further on.
    pub(crate) fn shift(&mut self, domain: Domain, bytes: usize) {
        if bytes > 0 {
            // SAFETY: no precondition.
            let block = unsafe { (self.table[domain as usize].malloc)(bytes) };
            if !block.is_null() {
                write_header(block.cast(), bytes);
            }
        }
    }

    /// Allocates one block of each size, writes their headers and frees them all: one beat of a trickle.
    pub(crate) fn churn(&mut self, domain: Domain, sizes: &[usize; 20]) {
        let entry = &self.table[domain as usize];
        let mut blocks = [null_mut(); 20];
        for (block, bytes) in blocks.iter_mut().zip(sizes) {
            // SAFETY: no precondition.
            *block = unsafe { (entry.malloc)(*bytes) };
            if !block.is_null() {
                write_header(block.cast(), *bytes);
            }
        }
        // SAFETY: each block is live, or null, which every `free` takes.
        blocks.into_iter().for_each(|block| unsafe { (entry.free)(block) });
    }
}

/// Whether the block's size is told when it is resized or freed: two neighbouring domains, by one comparison.
#[inline(always)]
fn is_sized(op: Op) -> bool {
    const { assert!(Domain::Numpy as usize == 4 && Domain::Arrow as usize == 5) };
    op.domain_bits() & !1 == Domain::Numpy as usize
}

/// Writes the first 16 bytes of a block, or all of a smaller one: what any program does first.
#[inline(always)]
fn write_header(block: *mut u8, bytes: usize) {
    if bytes >= 16 {
        // SAFETY: callers pass a live block of at least `bytes` bytes; eight bytes of alignment are not assumed.
        unsafe { block.cast::<[u64; 2]>().write_unaligned([1, 1]) };
    } else {
        fill(block, 0, bytes);
    }
}

/// Writes bytes `from` to `to` of a block.
#[inline]
fn fill(block: *mut u8, from: usize, to: usize) {
    if from < to {
        // SAFETY: callers pass a live block of at least `to` bytes.
        unsafe { block.add(from).write_bytes(1, to - from) };
    }
}

/// Huge-page advice on a new block as NumPy gives it: from the first page boundary after its start to the end of what
/// was requested. What an allocator rounds up to is not meant: one touch there would make 2 MiB present.
fn advise(block: *mut u8, bytes: usize) {
    let skipped = PAGE - block as usize % PAGE;
    if bytes > skipped {
        // SAFETY: advice on pages of a live block of at least this size; it changes no content.
        unsafe { libc::madvise(block.add(skipped).cast(), bytes - skipped, libc::MADV_HUGEPAGE) };
    }
}

/// Touches what the program touched of a block: its first `touched` bytes, less the first `already` for the pages
/// beyond the header. Nothing at all when the program touched nothing.
fn touch<P: Pass>(block: *mut u8, bytes: usize, already: usize, touched: usize) {
    if touched == 0 {
        return;
    }
    if P::FULL_TOUCH {
        return fill(block, already, touched);
    }
    write_header(block, bytes);
    for page in already.div_ceil(PAGE).max(1)..touched.div_ceil(PAGE) {
        // SAFETY: `page * PAGE` is below `touched`, which is at most the block's size.
        unsafe { block.add(page * PAGE).write(1) };
    }
    if touched == bytes && already < touched && bytes > PAGE {
        // A block that does not start on a page boundary reaches into one page more.
        // SAFETY: the block's last byte.
        unsafe { block.add(bytes - 1).write(1) };
    }
}
