//! Replays an image: one loop, and one pass per question asked of it.
//!
//! Invariant: the passes share the loop, the slot table and the calls; they differ in what they do around a call,
//! how much of a block they write, and what they note down. No pass allocates while it replays.

mod arenas;
mod floor;
mod footprint;
mod latency;
mod owners;
mod recorded_time;
mod slots;
mod statistics;
mod threads;
mod throughput;

pub(crate) use floor::Floor;
pub(crate) use footprint::FootprintPass;
pub(crate) use latency::LatencyPass;
pub(crate) use owners::OwnerLog;
pub(crate) use recorded_time::RecordedTime;
pub(crate) use slots::Heap;
pub(crate) use statistics::{Holder, Statistics};
pub(crate) use threads::{Baton, Crew, Streams};
pub(crate) use throughput::ThroughputPass;

use crate::probe::sys::{Descriptor, Mapping};
use crate::run::CallKind;
use std::io;
use trace::image::{Control, Op, OpKind};

/// A live block, for passes that account for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// Whose it is, as in [`Op::domain_bits`].
    pub(crate) domain_bits: usize,
    /// Bytes requested.
    pub(crate) requested: usize,
    /// Bytes that the allocator says can be used.
    pub(crate) usable: usize,
    /// Bytes that were touched.
    pub(crate) touched: usize,
}

/// What one pass does around the replay's steps. Every default is nothing, and costs nothing.
pub(crate) trait Pass {
    /// Whether allocators are called at all.
    const CALLS: bool = true;
    /// Whether every byte of what the program touched is written, and not one per OS page.
    const FULL_TOUCH: bool = false;
    /// Whether [`Pass::gained`] and [`Pass::lost`] want to know usable sizes.
    const ACCOUNTS: bool = false;
    /// Whether allocators that serve one thread at a time are entered under a token: there may be other threads.
    const TOKEN: bool = false;

    /// Makes one call to an allocator.
    #[inline(always)]
    fn call<R>(&mut self, _kind: CallKind, _bytes: usize, call: impl FnOnce() -> R) -> R {
        call()
    }

    /// The block of the last call was just touched.
    #[inline(always)]
    fn touched(&mut self) {}

    /// A block came to be.
    fn gained(&mut self, _block: Account) {}

    /// A block is about to go.
    fn lost(&mut self, _block: Account) {}

    /// The op with this index comes next, or the prefix that it begins with.
    #[inline(always)]
    fn reach(&mut self, _at: u64, _op: Op) {}

    /// A control of a stream of threads. `false` ends the replay here.
    fn control(&mut self, _op: Op, _at: u64) -> bool {
        true
    }

    /// Another thread has come to the mark that begins a phase, and this one is past it.
    fn phase_began(&mut self, _mark: u32) {}

    /// The token was waited for, nanoseconds.
    fn waited(&mut self, _ns: u64) {}

    /// A mark. `false` ends the replay here.
    fn mark(&mut self, _mark: u32, _op: u64, _heap: &mut Heap) -> bool {
        true
    }

    /// The replay waits for its next window: clocks stop.
    fn pause(&mut self) {}

    /// The window is there: clocks go on.
    fn resume(&mut self) {}

    /// The image has ended after this many ops, or a mark has ended it.
    fn finish(&mut self, _ops: u64, _heap: &mut Heap) {}
}

/// Blocks below this take the short way through the loop, bytes.
const SMALL_BYTES: u32 = 4096;
const ALLOC: u8 = OpKind::Alloc as u8;
const FREE: u8 = OpKind::Free as u8;

/// Replays consecutive ops, the first of which has index `first` in the image. `false` when a mark ended it.
pub(crate) fn replay<P: Pass>(ops: &[u64], first: u64, heap: &mut Heap, pass: &mut P) -> bool {
    let mut at = 0;
    if heap.prefix.seen {
        // The last window ended within a run of prefixes.
        match other(ops, at, first, heap, pass) {
            Some(next) => at = next,
            None => return false,
        }
    }
    while let Some(&word) = ops.get(at) {
        let op = Op(word);
        pass.reach(first + at as u64, op);
        match op.kind_bits() {
            FREE => heap.free(op, pass),
            ALLOC if op.value() < SMALL_BYTES => heap.allocate_small(op, pass),
            _ => match other(ops, at, first, heap, pass) {
                Some(next) => {
                    at = next;
                    continue;
                }
                None => return false,
            },
        }
        at += 1;
    }
    true
}

/// Everything but plain small allocations and frees. Reads a whole run of prefixes and the op that they qualify.
/// Returns the index of the next op, or `None` when a mark ended the replay.
#[inline(never)]
fn other<P: Pass>(ops: &[u64], mut at: usize, first: u64, heap: &mut Heap, pass: &mut P) -> Option<usize> {
    while let Some(&word) = ops.get(at) {
        let op = Op(word);
        let kind = op.kind();
        let is_new = matches!(kind, OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned);
        let advised = is_new && ops.get(at + 1).is_some_and(|next| is_advice_on(Op(*next), op));
        match kind {
            OpKind::Align => heap.prefix.align_log2 = op.value(),
            OpKind::Touched => heap.prefix.touched = Some(op.value()),
            OpKind::SizeHigh => heap.prefix.size_high = op.value(),
            OpKind::OldTouched => heap.prefix.old_touched = Some(op.value()),
            OpKind::Alloc => heap.allocate(op, CallKind::Malloc, advised, pass),
            OpKind::AllocZeroed => heap.allocate(op, CallKind::Calloc, advised, pass),
            OpKind::AllocAligned => heap.allocate(op, CallKind::Aligned, advised, pass),
            OpKind::Realloc => heap.reallocate(op, pass),
            OpKind::Free => heap.free(op, pass),
            OpKind::Advise if P::CALLS => heap.advise(op),
            OpKind::Mark => {
                if !pass.mark(op.value(), first + at as u64, heap) {
                    return None;
                }
            }
            OpKind::ThreadSwitch => {
                if let Some(call) = Control::call_of(op).filter(|_| P::CALLS) {
                    heap.direct(call, pass);
                }
                if !pass.control(op, first + at as u64) {
                    return None;
                }
            }
            OpKind::Advise | OpKind::ThreadStart | OpKind::ThreadEnd => {}
            OpKind::GcStart | OpKind::GcStop => {}
        }
        // Advice on the new block has been given, before it was touched.
        at += 1 + usize::from(advised);
        heap.prefix.seen = matches!(kind, OpKind::Align | OpKind::Touched | OpKind::SizeHigh | OpKind::OldTouched);
        if !heap.prefix.seen {
            break;
        }
    }
    Some(at)
}

fn is_advice_on(next: Op, op: Op) -> bool {
    next.kind() == OpKind::Advise && next.slot() == op.slot()
}

/// Where the ops are, mapped.
pub(crate) enum Source {
    /// All of them.
    Whole(&'static [u64]),
    /// Two windows that another process fills in turn.
    Windows {
        /// Both windows.
        memory: Mapping,
        /// Ops in one.
        window_ops: u64,
        /// Where the number of ops in the next filled window arrives.
        ready: Descriptor,
        /// Where a used window is handed back.
        done: Descriptor,
    },
    /// One stream per thread; replayed by a [`Crew`].
    Streams(Streams),
}

impl Source {
    /// Replays all of it.
    ///
    /// # Errors
    /// The process that fills the windows is gone, or said something that cannot be.
    pub(crate) fn replay<P: Pass>(&self, heap: &mut Heap, pass: &mut P) -> io::Result<()> {
        let mut first = 0;
        match self {
            Self::Whole(ops) => {
                replay(ops, 0, heap, pass);
                first = ops.len() as u64;
            }
            Self::Streams(_) => return Err(io::ErrorKind::Unsupported.into()),
            Self::Windows { memory, window_ops, ready, done } => {
                for window in [0, *window_ops].into_iter().cycle() {
                    pass.pause();
                    let ops = read_count(*ready)?;
                    pass.resume();
                    if ops > *window_ops {
                        return Err(io::ErrorKind::InvalidData.into());
                    }
                    let goes_on = replay(memory.words(window as usize, ops as usize), first, heap, pass);
                    first += ops;
                    if ops == 0 || !goes_on {
                        break;
                    }
                    pass.pause();
                    done.write_all(&[1])?;
                    pass.resume();
                }
            }
        }
        pass.finish(first, heap);
        Ok(())
    }

    /// Largest request of the image, as far as it is known before the replay, bytes.
    pub(crate) fn block_bytes_max(&self) -> u64 {
        let ops: Vec<&[u64]> = match self {
            Self::Whole(ops) => vec![ops],
            Self::Streams(streams) => streams.ops.clone(),
            Self::Windows { .. } => return 1 << 30,
        };
        let (mut high, mut largest) = (0, 0);
        for op in ops.into_iter().flatten().map(|word| Op(*word)) {
            match op.kind() {
                OpKind::SizeHigh => high = u64::from(op.value()) << 32,
                OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Realloc => {
                    largest = largest.max(high | u64::from(op.value()));
                    high = 0;
                }
                _ => {}
            }
        }
        largest
    }
}

/// Waits for a little-endian count.
fn read_count(ready: Descriptor) -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    let mut have = 0;
    while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match ready.read(rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    Ok(u64::from_le_bytes(bytes))
}
