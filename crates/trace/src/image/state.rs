//! The compiler's inner loop, and what it knows about live blocks between two events.
//!
//! Invariant: the same checks as the ledger's, event for event, but sums that the loop need not keep are derived:
//! frees from allocations less live blocks, calls of a phase or thread from differences.

use super::{Control, GROUP_OPS_MAX, ImageSummary, OS_PAGE_BYTES, OldTouched, OpKind, partly_touched};
use crate::block::decode::Cursors;
use crate::block::history::History;
use crate::error::Fault;
use crate::format::{LIVE_BYTES_MAX, op};
use crate::ledger::{
    Block, MarkEffect, Tables, begins_phase, by_directive_name, by_domain_name, check_generation, check_thread,
    check_touched,
};
use crate::{ALIGN_LOG2_MAX, Directive, Domain, Phase, SIZE_MAX, SlotAllocator, Totals};
use std::collections::BTreeMap;

/// Why a block was not compiled to its end.
pub(super) enum Stop {
    /// A column ended early, or an operation byte means nothing.
    Column,
    /// The event of this index is impossible.
    Fault(u64, Fault),
}

/// Why one event was not compiled.
enum EventStop {
    Column,
    Fault(Fault),
}

impl From<Fault> for EventStop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Sums over the allocations of a domain. Eight of them, since three bits name one.
#[derive(Clone, Copy, Debug, Default)]
struct DomainSums {
    allocs: u64,
    bytes: u64,
    reallocs: u64,
}

/// Live blocks, sums, and the ops and events of finished windows.
pub(super) struct State {
    tables: Tables,
    history: History,
    slots: SlotAllocator,
    blocks: Vec<Block>,
    old_touched: OldTouched,
    events: u64,
    /// Ops in windows that are full.
    ops: u64,
    live_bytes: u64,
    /// Most live bytes since the phase began.
    peak_bytes: u64,
    peak_bytes_by_phase: [u64; 4],
    phase: Phase,
    phase_ops: [Option<u64>; 4],
    calls_by_phase: [u64; 4],
    /// Calls so far when the phase began, and when the thread was switched to.
    calls_before_phase: u64,
    calls_before_thread: u64,
    thread: u32,
    thread_calls: BTreeMap<u32, u64>,
    domains: [DomainSums; 8],
    allocs_zeroed: u64,
    allocs_aligned: u64,
    reallocs: u64,
    collections: u64,
    directives: [u64; Directive::ALL.len()],
}

impl State {
    pub(super) fn new(tables: Tables) -> Self {
        Self {
            tables,
            history: History::new(),
            slots: SlotAllocator::new(),
            blocks: Vec::new(),
            old_touched: OldTouched::default(),
            events: 0,
            ops: 0,
            live_bytes: 0,
            peak_bytes: 0,
            peak_bytes_by_phase: [0; 4],
            phase: Phase::Startup,
            phase_ops: [Some(0), None, None, None],
            calls_by_phase: [0; 4],
            calls_before_phase: 0,
            calls_before_thread: 0,
            thread: 0,
            thread_calls: BTreeMap::new(),
            domains: [DomainSums::default(); 8],
            allocs_zeroed: 0,
            allocs_aligned: 0,
            reallocs: 0,
            collections: 0,
            directives: [0; Directive::ALL.len()],
        }
    }

    /// Compiles events until they end or the window is full; gives the numbers of events and of ops. `before` ops
    /// are in the window already.
    pub(super) fn run<const AGES: bool>(
        &mut self,
        ops: &[u8],
        cursors: &mut Cursors<'_>,
        window: &mut [u64],
        before: u64,
    ) -> Result<(usize, usize), Stop> {
        let mut local = *cursors;
        let mut out = Out { window, filled: 0 };
        let mut events = 0;
        let result = loop {
            let Some(&op) = ops.get(events) else { break Ok(()) };
            if out.is_full() {
                break Ok(());
            }
            let done = if op & 0x8f == op::ALLOC {
                self.alloc_plain(op, &mut local, &mut out)
            } else if op == op::FREE {
                self.free::<AGES>(&mut local, &mut out)
            } else {
                self.rare::<AGES>(op, &mut local, &mut out, before)
            };
            if let Err(stop) = done {
                break Err(stop);
            }
            events += 1;
        };
        *cursors = local;
        let filled = out.filled;
        self.events += events as u64;
        match result {
            Err(EventStop::Column) => Err(Stop::Column),
            Err(EventStop::Fault(fault)) => Err(Stop::Fault(self.events, fault)),
            // At most 2^16 blocks of 2^47 bytes were added since the last look: 64 bits hold that.
            Ok(()) if self.peak_bytes > LIVE_BYTES_MAX => Err(Stop::Fault(self.events, Fault::TooManyBytes)),
            Ok(()) => Ok((events, filled)),
        }
    }

    #[inline(always)]
    fn alloc_plain(&mut self, op: u8, cursors: &mut Cursors<'_>, out: &mut Out<'_>) -> Result<(), EventStop> {
        let size = cursors.sizes.next().ok_or(EventStop::Column)?;
        let slot = self.place(op, size)?;
        let slot_bits = u64::from(slot) << 7;
        if size > u64::from(u32::MAX) {
            out.push_op(OpKind::SizeHigh, op >> 4, slot, (size >> 32) as u32);
        }
        out.push(u64::from(op) | slot_bits | (size << 32));
        Ok(())
    }

    /// Puts a new block into the next slot.
    #[inline(always)]
    fn place(&mut self, op: u8, size: u64) -> Result<u32, EventStop> {
        let domain_bits = (op >> 4) & 7;
        if size > SIZE_MAX {
            return Err(EventStop::Fault(Fault::Size(size)));
        }
        if usize::from(domain_bits) >= Domain::ALL.len() {
            return Err(EventStop::Column);
        }
        let slot = self.slots.next().ok_or(EventStop::Fault(Fault::TooManyBlocks))?;
        let block = Block::live(size, domain_bits);
        match self.blocks.get_mut(slot as usize) {
            Some(place) => *place = block,
            None => self.blocks.push(block),
        }
        self.history.alloc(slot);
        let sums = &mut self.domains[usize::from(domain_bits)];
        sums.allocs += 1;
        sums.bytes = sums.bytes.saturating_add(size);
        self.live_bytes += size;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        Ok(slot)
    }

    #[inline(always)]
    fn free<const AGES: bool>(&mut self, cursors: &mut Cursors<'_>, out: &mut Out<'_>) -> Result<(), EventStop> {
        let slot = cursors.slot::<AGES>(&mut self.history).ok_or(EventStop::Column)?;
        let place = self.blocks.get_mut(slot as usize).ok_or(EventStop::Fault(Fault::NotLive(slot)))?;
        let block = *place;
        if !block.is_live() {
            return Err(EventStop::Fault(Fault::NotLive(slot)));
        }
        *place = Block::EMPTY;
        self.slots.free(slot);
        self.live_bytes -= block.size();
        let size = block.size().min(u64::from(u32::MAX));
        let domain = u64::from(block.domain_bits()) << 4;
        out.push(u64::from(op::FREE) | domain | (u64::from(slot) << 7) | (size << 32));
        Ok(())
    }

    /// Everything but a plain allocation and a free.
    #[inline(never)]
    fn rare<const AGES: bool>(
        &mut self,
        op: u8,
        cursors: &mut Cursors<'_>,
        out: &mut Out<'_>,
        before: u64,
    ) -> Result<(), EventStop> {
        let (kind, flags) = (op & 15, op & 0xf0);
        match kind {
            op::ALLOC | op::ALLOC_ZEROED | op::ALLOC_ALIGNED => return self.alloc(op, cursors, out),
            op::REALLOC if flags & !op::TOUCHED == 0 => return self.realloc::<AGES>(op, cursors, out),
            _ if flags != 0 => return Err(EventStop::Column),
            op::ADVISE => {
                let slot = cursors.slot::<AGES>(&mut self.history).ok_or(EventStop::Column)?;
                let block = self.live(slot)?;
                out.push_op(OpKind::Advise, block.domain_bits(), slot, 0);
                return Ok(());
            }
            op::FORK => return Ok(()),
            op::DIRECT => {
                let call = cursors.directive().ok_or(EventStop::Column)?;
                self.directives[call.directive as usize] += 1;
                out.push(Control::direct(call).0);
                return Ok(());
            }
            _ => {}
        }
        let arg = cursors.arg().ok_or(EventStop::Column)?;
        let kind = match kind {
            op::MARK => return self.mark(arg, out, before),
            op::THREAD_SWITCH => {
                check_thread(arg)?;
                self.end_thread();
                self.thread = arg;
                OpKind::ThreadSwitch
            }
            op::THREAD_START => check_thread(arg).map(|()| OpKind::ThreadStart)?,
            op::THREAD_END => check_thread(arg).map(|()| OpKind::ThreadEnd)?,
            op::GC_START | op::GC_STOP => {
                check_generation(u8::try_from(arg).map_err(|_| EventStop::Column)?)?;
                self.collections += u64::from(kind == op::GC_START);
                if kind == op::GC_START { OpKind::GcStart } else { OpKind::GcStop }
            }
            _ => return Err(EventStop::Column),
        };
        out.push_op(kind, 0, 0, arg);
        Ok(())
    }

    fn live(&self, slot: u32) -> Result<Block, EventStop> {
        let block = self.blocks.get(slot as usize).copied().filter(|block| block.is_live());
        block.ok_or(EventStop::Fault(Fault::NotLive(slot)))
    }

    /// An allocation with anything special about it.
    fn alloc(&mut self, op: u8, cursors: &mut Cursors<'_>, out: &mut Out<'_>) -> Result<(), EventStop> {
        let align_log2 = match op & 15 {
            op::ALLOC_ALIGNED => cursors.align().filter(|align| *align > 0).ok_or(EventStop::Column)?,
            _ => 0,
        };
        if align_log2 > ALIGN_LOG2_MAX {
            return Err(EventStop::Fault(Fault::Align(align_log2)));
        }
        let size = cursors.sizes.next().ok_or(EventStop::Column)?;
        let touched = read_touched(op, cursors)?;
        let slot = self.place(op, size)?;
        let domain_bits = (op >> 4) & 7;
        self.blocks[slot as usize] = self.old_touched.note(slot, Block::live(size, domain_bits), touched);
        if align_log2 > 0 {
            out.push_op(OpKind::Align, domain_bits, slot, u32::from(align_log2));
            self.allocs_aligned += 1;
        }
        let kind = match op & 15 {
            op::ALLOC_ZEROED => OpKind::AllocZeroed,
            op::ALLOC_ALIGNED => OpKind::AllocAligned,
            _ => OpKind::Alloc,
        };
        self.allocs_zeroed += u64::from(kind == OpKind::AllocZeroed);
        out.push_sized(kind, domain_bits, slot, size, touched);
        Ok(())
    }

    fn realloc<const AGES: bool>(
        &mut self,
        op: u8,
        cursors: &mut Cursors<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), EventStop> {
        let size = cursors.sizes.next().ok_or(EventStop::Column)?;
        let touched = read_touched(op, cursors)?;
        let slot = cursors.slot::<AGES>(&mut self.history).ok_or(EventStop::Column)?;
        if size == 0 || size > SIZE_MAX {
            return Err(EventStop::Fault(Fault::Size(size)));
        }
        let old = self.live(slot)?;
        let domain_bits = old.domain_bits();
        if size > OS_PAGE_BYTES {
            out.push_op(OpKind::OldTouched, domain_bits, slot, self.old_touched.of(slot, old));
        }
        self.blocks[slot as usize] = self.old_touched.note(slot, Block::live(size, domain_bits), touched);
        self.live_bytes = self.live_bytes - old.size() + size;
        self.peak_bytes = self.peak_bytes.max(self.live_bytes);
        self.reallocs += 1;
        self.domains[usize::from(domain_bits)].reallocs += 1;
        out.push_sized(OpKind::Realloc, domain_bits, slot, size, touched);
        Ok(())
    }

    fn mark(&mut self, mark: u32, out: &mut Out<'_>, before: u64) -> Result<(), EventStop> {
        self.tables.check_mark(mark)?;
        match begins_phase(self.phase, mark) {
            MarkEffect::Nothing => return Ok(()),
            MarkEffect::Own => {}
            MarkEffect::Begins(phase) => {
                self.end_phase();
                self.phase = phase;
                self.phase_ops[phase as usize] = Some(self.ops + before + out.filled as u64);
            }
        }
        out.push_op(OpKind::Mark, 0, 0, mark);
        Ok(())
    }

    /// Allocations, frees and reallocations so far.
    fn calls(&self) -> u64 {
        let allocs = self.history.born() as u64;
        allocs + (allocs - u64::from(self.slots.live())) + self.reallocs
    }

    fn end_phase(&mut self) {
        let calls = self.calls();
        self.calls_by_phase[self.phase as usize] = calls - self.calls_before_phase;
        self.calls_before_phase = calls;
        self.peak_bytes_by_phase[self.phase as usize] = self.peak_bytes;
        self.peak_bytes = self.live_bytes;
    }

    fn end_thread(&mut self) {
        let calls = self.calls();
        if calls > self.calls_before_thread {
            *self.thread_calls.entry(self.thread).or_default() += calls - self.calls_before_thread;
            self.calls_before_thread = calls;
        }
    }

    /// Notes that a window is full.
    pub(super) fn end_window(&mut self, filled: u64) {
        self.ops += filled;
    }

    /// Notes that the trace has ended, with so many ops in the last window.
    pub(super) fn end(&mut self, filled: u64) {
        self.end_phase();
        self.ops += filled;
    }

    /// The totals of all events so far, with so many ops in the last window.
    pub(super) fn totals(&mut self, filled: u64) -> Totals {
        self.end_thread();
        let allocs = self.history.born() as u64;
        let live = u64::from(self.slots.live());
        let mut calls_by_domain = [0; Domain::ALL.len()];
        let mut bytes_by_domain = [0; Domain::ALL.len()];
        for (domain, sums) in self.domains.iter().take(Domain::ALL.len()).enumerate() {
            // Every allocation was freed once, but for the live blocks below.
            calls_by_domain[domain] = 2 * sums.allocs + sums.reallocs;
            bytes_by_domain[domain] = sums.bytes;
        }
        for block in self.blocks.iter().filter(|block| block.is_live()) {
            calls_by_domain[usize::from(block.domain_bits())] -= 1;
        }
        let peak_before = self.peak_bytes_by_phase.iter().copied().max().unwrap_or(0);
        Totals {
            events: self.events,
            allocs,
            allocs_zeroed: self.allocs_zeroed,
            allocs_aligned: self.allocs_aligned,
            frees: allocs - live,
            reallocs: self.reallocs,
            collections: self.collections,
            requested_bytes: bytes_by_domain.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes)),
            live_blocks_peak: u64::from(self.slots.used()),
            live_bytes_peak: peak_before.max(self.peak_bytes),
            live_blocks_end: live,
            live_bytes_end: self.live_bytes,
            slots: self.slots.used(),
            image_ops: self.ops + filled,
            calls_by_domain: by_domain_name(&calls_by_domain),
            bytes_by_domain: by_domain_name(&bytes_by_domain),
            calls_by_thread: self.thread_calls.clone(),
            directives: by_directive_name(&self.directives),
        }
    }

    /// What the worker needs to know, once the trace has ended.
    pub(super) fn summary(&self) -> ImageSummary {
        let peak_of_all = self.peak_bytes_by_phase.iter().copied().max().unwrap_or(0);
        let has_steady = self.phase_ops[Phase::Steady as usize].is_some();
        let peak_steady = self.peak_bytes_by_phase[Phase::Steady as usize];
        ImageSummary {
            ops: self.ops,
            events: self.events,
            slots: self.slots.used(),
            calls_by_phase: self.calls_by_phase,
            phase_ops: self.phase_ops,
            live_bytes_peak_steady: if has_steady { peak_steady } else { peak_of_all },
            cycles: None,
        }
    }
}

fn read_touched(op: u8, cursors: &mut Cursors<'_>) -> Result<Option<u64>, EventStop> {
    if op & op::TOUCHED == 0 {
        return Ok(None);
    }
    let touched = Some(cursors.touched.next().ok_or(EventStop::Column)?);
    check_touched(touched)?;
    Ok(touched)
}

/// What is left of a window.
struct Out<'a> {
    window: &'a mut [u64],
    filled: usize,
}

impl Out<'_> {
    /// Whether another event's ops might not fit.
    #[inline(always)]
    fn is_full(&self) -> bool {
        self.filled + GROUP_OPS_MAX > self.window.len()
    }

    #[inline(always)]
    fn push(&mut self, op: u64) {
        self.window[self.filled] = op;
        self.filled += 1;
    }

    fn push_op(&mut self, kind: OpKind, domain_bits: u8, slot: u32, value: u32) {
        let domain = u64::from(domain_bits) << 4;
        self.push(kind as u64 | domain | (u64::from(slot) << 7) | (u64::from(value) << 32));
    }

    /// An allocation or reallocation with the prefixes that its size and touched bytes call for.
    fn push_sized(&mut self, kind: OpKind, domain_bits: u8, slot: u32, size: u64, touched: Option<u64>) {
        if let Some(units) = partly_touched(size, touched) {
            self.push_op(OpKind::Touched, domain_bits, slot, units);
        }
        if size > u64::from(u32::MAX) {
            self.push_op(OpKind::SizeHigh, domain_bits, slot, (size >> 32) as u32);
        }
        self.push_op(kind, domain_bits, slot, size as u32);
    }
}
