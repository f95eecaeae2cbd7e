//! Which blocks are live, how large they are, and the totals so far: what makes an event possible or impossible.
//!
//! Invariant: an event that [`Ledger::apply`] accepts leaves the ledger as a heap that did the same would be; one
//! that it refuses leaves it unchanged.

use crate::error::{Fault, TraceError};
use crate::format::{LIVE_BYTES_MAX, THREADS_MAX};
use crate::image::{prefix_ops_of_alloc, prefix_ops_of_realloc};
use crate::{
    ALIGN_LOG2_MAX, Directive, DirectiveCall, Domain, EventKind, Metadata, Phase, SIZE_MAX, SlotAllocator, Totals,
};
use std::collections::BTreeMap;

/// What a slot holds, in eight bytes: size in bits 0 to 46, then domain, then the flags below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block(u64);

impl Block {
    /// Nothing.
    pub(crate) const EMPTY: Self = Self(0);
    const DOMAIN_SHIFT: u32 = 47;
    const LIVE: u64 = 1 << 50;
    /// The block was not touched whole; how much is kept beside.
    const PARTIAL: u64 = 1 << 51;

    /// A live block. `size` is at most [`SIZE_MAX`].
    #[inline(always)]
    pub(crate) const fn live(size: u64, domain_bits: u8) -> Self {
        Self(size | ((domain_bits as u64) << Self::DOMAIN_SHIFT) | Self::LIVE)
    }

    /// The same, marked as touched in part.
    pub(crate) const fn partial(self) -> Self {
        Self(self.0 | Self::PARTIAL)
    }

    #[inline(always)]
    pub(crate) const fn is_live(self) -> bool {
        self.0 & Self::LIVE != 0
    }

    #[inline(always)]
    pub(crate) const fn is_partial(self) -> bool {
        self.0 & Self::PARTIAL != 0
    }

    #[inline(always)]
    pub(crate) const fn size(self) -> u64 {
        self.0 & SIZE_MAX
    }

    #[inline(always)]
    pub(crate) const fn domain_bits(self) -> u8 {
        ((self.0 >> Self::DOMAIN_SHIFT) & 7) as u8
    }
}

/// How many entries the tables of a trace's metadata have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    marks: u32,
    sites: u32,
}

impl Tables {
    /// Checks the tables that events point into.
    pub(crate) fn of(metadata: &Metadata) -> Result<Self, TraceError> {
        for (phase, mark) in Phase::ALL.iter().zip(&metadata.marks) {
            if phase.name() != mark {
                let text = format!("mark {} must be `{}` and is `{mark}`", *phase as u8, phase.name());
                return Err(TraceError::Metadata(text));
            }
        }
        let bounded = |count: usize, least: usize| u32::try_from(count.max(least)).unwrap_or(u32::MAX);
        Ok(Self { marks: bounded(metadata.marks.len(), Phase::ALL.len()), sites: bounded(metadata.sites.len(), 1) })
    }

    pub(crate) fn check_mark(self, mark: u32) -> Result<(), Fault> {
        if mark < self.marks { Ok(()) } else { Err(Fault::Mark(mark)) }
    }

    pub(crate) fn check_site(self, site: u32) -> Result<(), Fault> {
        if site < self.sites { Ok(()) } else { Err(Fault::Site(site)) }
    }
}

pub(crate) fn check_thread(thread: u32) -> Result<(), Fault> {
    if thread < THREADS_MAX { Ok(()) } else { Err(Fault::Thread(thread)) }
}

pub(crate) fn check_generation(generation: u8) -> Result<(), Fault> {
    if generation <= 2 { Ok(()) } else { Err(Fault::Generation(generation)) }
}

pub(crate) fn check_touched(touched: Option<u64>) -> Result<(), Fault> {
    match touched {
        Some(bytes) if bytes > SIZE_MAX => Err(Fault::Touched(bytes)),
        _ => Ok(()),
    }
}

/// Live blocks and totals.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) slots: SlotAllocator,
    pub(crate) blocks: Vec<Block>,
    tables: Tables,
    /// Of the totals, those that need no more than a sum; the rest is added by [`Self::totals`].
    sums: Totals,
    live_bytes: u64,
    thread: u32,
    thread_calls: BTreeMap<u32, u64>,
    calls_of_thread: u64,
    calls_by_domain: [u64; Domain::ALL.len()],
    bytes_by_domain: [u64; Domain::ALL.len()],
    directives: [u64; Directive::ALL.len()],
    phase: Phase,
}

impl Ledger {
    pub(crate) fn new(tables: Tables) -> Self {
        Self {
            slots: SlotAllocator::new(),
            blocks: Vec::new(),
            tables,
            sums: Totals::default(),
            live_bytes: 0,
            thread: 0,
            thread_calls: BTreeMap::new(),
            calls_of_thread: 0,
            calls_by_domain: [0; Domain::ALL.len()],
            bytes_by_domain: [0; Domain::ALL.len()],
            directives: [0; Directive::ALL.len()],
            phase: Phase::Startup,
        }
    }

    /// Events accepted so far.
    pub(crate) fn events(&self) -> u64 {
        self.sums.events
    }

    /// The live block in `slot`.
    #[inline]
    pub(crate) fn block(&self, slot: u32) -> Result<Block, Fault> {
        match self.blocks.get(slot as usize) {
            Some(block) if block.is_live() => Ok(*block),
            _ => Err(Fault::NotLive(slot)),
        }
    }

    /// Takes one event in, or says why it cannot have happened.
    pub(crate) fn apply(&mut self, kind: &EventKind) -> Result<(), Fault> {
        match *kind {
            EventKind::Alloc { .. } => self.alloc(kind)?,
            EventKind::Free { slot } => {
                let block = self.block(slot)?;
                self.blocks[slot as usize] = Block::EMPTY;
                self.slots.free(slot);
                self.live_bytes -= block.size();
                self.sums.frees += 1;
                self.count_call(block.domain_bits());
                self.sums.image_ops += 1;
            }
            EventKind::Realloc { slot, size, touched, site } => self.realloc(slot, size, touched, site)?,
            EventKind::Advise { slot } => {
                self.block(slot)?;
                self.sums.image_ops += 1;
            }
            EventKind::ThreadSwitch { thread } => {
                check_thread(thread)?;
                self.switch_thread(thread);
                self.sums.image_ops += 1;
            }
            EventKind::ThreadStart { thread } | EventKind::ThreadEnd { thread } => {
                check_thread(thread)?;
                self.sums.image_ops += 1;
            }
            EventKind::Mark { mark } => {
                self.tables.check_mark(mark)?;
                match begins_phase(self.phase, mark) {
                    MarkEffect::Begins(phase) => {
                        self.phase = phase;
                        self.sums.image_ops += 1;
                    }
                    MarkEffect::Own => self.sums.image_ops += 1,
                    MarkEffect::Nothing => {}
                }
            }
            EventKind::GcStart { generation } => {
                check_generation(generation)?;
                self.sums.collections += 1;
                self.sums.image_ops += 1;
            }
            EventKind::GcStop { generation } => {
                check_generation(generation)?;
                self.sums.image_ops += 1;
            }
            EventKind::Fork => {}
            EventKind::Direct(DirectiveCall { directive, .. }) => {
                self.directives[directive as usize] += 1;
                self.sums.image_ops += 1;
            }
        }
        self.sums.events += 1;
        Ok(())
    }

    fn alloc(&mut self, kind: &EventKind) -> Result<(), Fault> {
        let EventKind::Alloc { slot, domain, size, align_log2, zeroed, touched, site } = *kind else { return Ok(()) };
        if size > SIZE_MAX {
            return Err(Fault::Size(size));
        }
        if align_log2 > ALIGN_LOG2_MAX || (zeroed && align_log2 > 0) {
            return Err(Fault::Align(align_log2));
        }
        check_touched(touched)?;
        self.tables.check_site(site)?;
        let expected = self.slots.peek();
        if slot != expected {
            return Err(Fault::WrongSlot { got: slot, expected });
        }
        let live_bytes = self.grown(size, 0)?;
        self.slots.next().ok_or(Fault::TooManyBlocks)?;
        let block = Block::live(size, domain as u8);
        match self.blocks.get_mut(slot as usize) {
            Some(place) => *place = block,
            None => self.blocks.push(block),
        }
        self.set_live_bytes(live_bytes);
        self.sums.allocs += 1;
        self.sums.allocs_zeroed += u64::from(zeroed);
        self.sums.allocs_aligned += u64::from(align_log2 > 0);
        self.sums.requested_bytes = self.sums.requested_bytes.saturating_add(size);
        let bytes = &mut self.bytes_by_domain[domain as usize];
        *bytes = bytes.saturating_add(size);
        self.count_call(domain as u8);
        self.sums.image_ops += 1 + prefix_ops_of_alloc(size, touched, align_log2);
        Ok(())
    }

    fn realloc(&mut self, slot: u32, size: u64, touched: Option<u64>, site: u32) -> Result<(), Fault> {
        if size == 0 || size > SIZE_MAX {
            return Err(Fault::Size(size));
        }
        check_touched(touched)?;
        self.tables.check_site(site)?;
        let old = self.block(slot)?;
        let live_bytes = self.grown(size, old.size())?;
        self.blocks[slot as usize] = Block::live(size, old.domain_bits());
        self.set_live_bytes(live_bytes);
        self.sums.reallocs += 1;
        self.count_call(old.domain_bits());
        self.sums.image_ops += 1 + prefix_ops_of_realloc(size, touched);
        Ok(())
    }

    /// Live bytes with `size` more and `less` fewer.
    fn grown(&self, size: u64, less: u64) -> Result<u64, Fault> {
        let live = self.live_bytes - less + size;
        if live <= LIVE_BYTES_MAX { Ok(live) } else { Err(Fault::TooManyBytes) }
    }

    fn set_live_bytes(&mut self, live: u64) {
        self.live_bytes = live;
        self.sums.live_bytes_peak = self.sums.live_bytes_peak.max(live);
    }

    fn count_call(&mut self, domain_bits: u8) {
        self.calls_by_domain[usize::from(domain_bits)] += 1;
        self.calls_of_thread += 1;
    }

    fn switch_thread(&mut self, thread: u32) {
        if self.calls_of_thread > 0 {
            *self.thread_calls.entry(self.thread).or_default() += self.calls_of_thread;
            self.calls_of_thread = 0;
        }
        self.thread = thread;
    }

    /// The totals of all events so far.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.sums.clone();
        totals.slots = self.slots.used();
        // A slot is new only when every other one is taken, so these two are one number.
        totals.live_blocks_peak = u64::from(self.slots.used());
        totals.live_blocks_end = u64::from(self.slots.live());
        totals.live_bytes_end = self.live_bytes;
        totals.calls_by_domain = by_domain_name(&self.calls_by_domain);
        totals.bytes_by_domain = by_domain_name(&self.bytes_by_domain);
        totals.directives = by_directive_name(&self.directives);
        totals.calls_by_thread = self.thread_calls.clone();
        if self.calls_of_thread > 0 {
            *totals.calls_by_thread.entry(self.thread).or_default() += self.calls_of_thread;
        }
        totals
    }
}

/// What a mark does to the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkEffect {
    /// It begins this phase.
    Begins(Phase),
    /// It names a phase that has begun already, and changes nothing.
    Nothing,
    /// It is one of the program's own.
    Own,
}

/// A life goes one way: a mark of the phase it is in, or of an earlier one, changes nothing.
pub(crate) fn begins_phase(now: Phase, mark: u32) -> MarkEffect {
    match Phase::from_mark(mark) {
        Some(phase) if phase > now => MarkEffect::Begins(phase),
        Some(_) => MarkEffect::Nothing,
        None => MarkEffect::Own,
    }
}

/// Sums per domain under their names; a domain without any is left out.
pub(crate) fn by_domain_name(sums: &[u64; Domain::ALL.len()]) -> BTreeMap<String, u64> {
    let named = Domain::ALL.iter().zip(sums).filter(|(_, sum)| **sum > 0);
    named.map(|(domain, sum)| (domain.name().to_owned(), *sum)).collect()
}

/// Calls of each directive under its name; one that was not called is left out.
pub(crate) fn by_directive_name(calls: &[u64; Directive::ALL.len()]) -> BTreeMap<String, u64> {
    let named = Directive::ALL.iter().zip(calls).filter(|(_, calls)| **calls > 0);
    named.map(|(directive, calls)| (directive.name().to_owned(), *calls)).collect()
}

/// The first total that differs between what the events say and what the footer says.
pub(crate) fn check_totals(counted: &Totals, stated: &Totals) -> Result<(), TraceError> {
    let checks: [(&'static str, bool); 8] = [
        ("events", counted.events == stated.events),
        (
            "allocations, frees or reallocations",
            (counted.allocs, counted.frees, counted.reallocs) == (stated.allocs, stated.frees, stated.reallocs),
        ),
        ("requested bytes", counted.requested_bytes == stated.requested_bytes),
        ("live bytes", counted.live_bytes_peak == stated.live_bytes_peak),
        ("calls by domain", counted.calls_by_domain == stated.calls_by_domain),
        ("calls by thread", counted.calls_by_thread == stated.calls_by_thread),
        ("image ops", counted.image_ops == stated.image_ops),
        ("another of them", counted == stated),
    ];
    match checks.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(TraceError::Totals { what }),
        None => Ok(()),
    }
}
