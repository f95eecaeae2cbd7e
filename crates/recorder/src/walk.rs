//! From raw records to the events of a trace.
//!
//! Invariant: what [`Walk::feed`] emits is a possible trace: every free, reallocation and advice names a live slot.
//! Feeding the same records twice emits the same events, which is how the marks' places are known before the trace
//! is written.

use crate::raw::{self, Kind, Record};
use crate::sites::Sites;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use trace::image::OS_PAGE_BYTES;
use trace::{Directive, DirectiveCall, Domain, Event, EventKind, Phase, SIZE_MAX, SlotAllocator, UnknownTouch};

/// Addresses spread well enough by one multiplication.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// A map from addresses.
pub(crate) type ByAddress<T> = HashMap<u64, T, BuildHasherDefault<AddressHasher>>;

/// What the recorder found of a block at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    pub(crate) bytes: u64,
    /// OS pages among them that were present before the program could write to them.
    unknown_pages: u64,
}

impl Touched {
    /// As it stands in a record; `None` where nothing was found.
    fn of(record: &Record) -> Option<Self> {
        Some(Self { bytes: record.size.checked_sub(1)?, unknown_pages: record.caller })
    }
}

/// What the first look at a recording found, needed to walk it.
#[derive(Default)]
pub(crate) struct Survey {
    /// By ordinal of the record that made or resized the block.
    pub(crate) touched: ByAddress<Touched>,
    /// By thread: the sequence number of its last record, if it was seen to end.
    pub(crate) thread_ends: Vec<Option<u64>>,
    /// By the sequence number of a collection's start: its generation.
    pub(crate) collections: HashMap<u64, u8>,
}

/// A mark that the walk puts in: from this sequence number on, the mark with this index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    pub(crate) seq: u64,
    pub(crate) mark: u32,
}

/// What was dropped or repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Frees and resizes of blocks never seen allocated.
    pub(crate) unknown_frees: u64,
    /// Allocations at the address of a live block, whose free was missed.
    pub(crate) missed_frees: u64,
}

/// The events of one recording.
pub(crate) struct Walk<'a, F> {
    survey: &'a Survey,
    sites: &'a mut Sites,
    /// By mark entry: its index in the trace, or none for a reading that is no mark.
    marks: &'a [Option<u32>],
    injected: Vec<Injected>,
    emit: F,
    pub(crate) events: u64,
    pub(crate) dropped: Dropped,
    /// Where each emitted mark fell: mark entry (none for an injected one), index in the trace, event.
    pub(crate) mark_events: Vec<(Option<usize>, u32, u64)>,
    /// What libraries had mapped for themselves: resident bytes by mark entry and module.
    pub(crate) mapped: BTreeMap<usize, BTreeMap<String, u64>>,
    /// By phase: what was present in new blocks before the program could write there.
    pub(crate) unknown: [UnknownTouch; Phase::ALL.len()],
    phase: Phase,
    ordinal: u64,
    slots: SlotAllocator,
    live: ByAddress<Live>,
    /// Large live blocks by address: end and slot.
    large: BTreeMap<u64, (u64, u32)>,
    threads: Vec<ThreadState>,
    threads_seen: u32,
    current: u32,
    time: u64,
}

#[derive(Clone, Copy, Debug)]
struct Live {
    slot: u32,
    domain: Domain,
    size: u64,
}

#[derive(Clone, Default)]
struct ThreadState {
    dense: Option<u32>,
    /// Resizes between their two ends, the inner ones last: the block's old address and what it was, or none for a
    /// block never seen allocated. While Arrow resizes a buffer, the loader may resize a table of the thread's.
    resizing: Vec<Option<(u64, Live)>>,
}

impl<'a, E, F: FnMut(Event) -> Result<(), E>> Walk<'a, F> {
    pub(crate) fn new(
        survey: &'a Survey,
        sites: &'a mut Sites,
        marks: &'a [Option<u32>],
        injected: Vec<Injected>,
        emit: F,
    ) -> Self {
        Self {
            survey,
            sites,
            marks,
            injected,
            emit,
            events: 0,
            dropped: Dropped::default(),
            mark_events: Vec::new(),
            mapped: BTreeMap::new(),
            unknown: Default::default(),
            phase: Phase::Startup,
            ordinal: 0,
            slots: SlotAllocator::new(),
            live: ByAddress::default(),
            large: BTreeMap::new(),
            threads: Vec::new(),
            threads_seen: 0,
            current: 0,
            time: 0,
        }
    }

    fn put(&mut self, kind: EventKind) -> Result<(), E> {
        self.events += 1;
        (self.emit)(Event { time: self.time, kind })
    }

    /// Takes the next record.
    pub(crate) fn feed(&mut self, thread: usize, record: &Record) -> Result<(), E> {
        self.ordinal += 1;
        self.time = record.time << raw::TIME_SHIFT;
        while let Some(injected) = self.injected.first().copied().filter(|mark| mark.seq <= record.seq) {
            self.injected.remove(0);
            self.put_mark(None, injected.mark)?;
        }
        match record.kind {
            Kind::Touch => return Ok(()),
            Kind::Mapped => {
                let module = self.sites.module_of(record.caller).to_owned();
                let of_mark = self.mapped.entry(record.address as usize).or_default();
                *of_mark.entry(module).or_default() += record.size;
                return Ok(());
            }
            _ => {}
        }
        self.enter(thread)?;
        match record.kind {
            Kind::Alloc | Kind::AllocZeroed | Kind::AllocAligned => self.alloc(record)?,
            Kind::Free => match self.take(record.address) {
                Some(block) => self.free(block.slot)?,
                None => self.dropped.unknown_frees += 1,
            },
            Kind::ReallocBegin => {
                let block = self.take(record.address).map(|block| (record.address, block));
                self.dropped.unknown_frees += u64::from(block.is_none());
                self.threads[thread].resizing.push(block);
            }
            Kind::ReallocEnd => self.resized(thread, record)?,
            Kind::Advise => {
                let below = self.large.range(..=record.address).next_back();
                if let Some((_, &(end, slot))) = below
                    && record.address < end
                {
                    self.put(EventKind::Advise { slot })?;
                }
            }
            Kind::Mark => {
                let entry = record.address as usize;
                if let Some(mark) = self.marks.get(entry).copied().flatten() {
                    self.put_mark(Some(entry), mark)?;
                }
            }
            Kind::GcStart => {
                // Which generation it is, the interpreter counts at the end.
                let generation =
                    self.survey.collections.get(&record.seq).copied().unwrap_or(record.address.min(2) as u8);
                self.put(EventKind::GcStart { generation })?;
            }
            Kind::GcStop => self.put(EventKind::GcStop { generation: record.address.min(2) as u8 })?,
            Kind::Fork => self.put(EventKind::Fork)?,
            Kind::Direct => {
                if let Some(directive) = Directive::from_bits(record.align_log2) {
                    let (key, value) = (record.address as u16, record.size as u32);
                    let (key, value) = (key.cast_signed(), value.cast_signed());
                    self.put(EventKind::Direct(DirectiveCall { directive, key, value }))?;
                }
            }
            Kind::Touch | Kind::Mapped | Kind::ThreadEnd => {}
        }
        let last = self.survey.thread_ends.get(thread).copied().flatten();
        if last == Some(record.seq)
            && let Some(dense) = self.threads[thread].dense
        {
            self.put(EventKind::ThreadEnd { thread: dense })?;
        }
        Ok(())
    }

    fn put_mark(&mut self, entry: Option<usize>, mark: u32) -> Result<(), E> {
        self.mark_events.push((entry, mark, self.events));
        self.phase = Phase::from_mark(mark).map_or(self.phase, |phase| phase.max(self.phase));
        self.put(EventKind::Mark { mark })
    }

    /// What follows is this thread's doing.
    fn enter(&mut self, thread: usize) -> Result<(), E> {
        if self.threads.len() <= thread {
            self.threads.resize(thread + 1, ThreadState::default());
        }
        let dense = match self.threads[thread].dense {
            Some(dense) => dense,
            None => {
                let dense = self.threads_seen;
                self.threads_seen += 1;
                self.threads[thread].dense = Some(dense);
                if dense != 0 {
                    self.put(EventKind::ThreadStart { thread: dense })?;
                }
                dense
            }
        };
        if dense != self.current {
            self.current = dense;
            self.put(EventKind::ThreadSwitch { thread: dense })?;
        }
        Ok(())
    }

    fn alloc(&mut self, record: &Record) -> Result<(), E> {
        if let Some(block) = self.take(record.address) {
            self.dropped.missed_frees += 1;
            self.free(block.slot)?;
        }
        let site = self.sites.index(record.caller);
        let domain = self.domain(record.domain, site);
        let Some(slot) = self.slots.next() else { return Ok(()) };
        self.settle(record, slot, domain);
        let touched = self.touched(record, 0);
        self.put(EventKind::Alloc {
            slot,
            domain,
            size: record.size.min(SIZE_MAX),
            // glibc gives 16 bytes to everybody, so a smaller wish is a plain request.
            align_log2: if record.align_log2 > 4 { record.align_log2.min(trace::ALIGN_LOG2_MAX) } else { 0 },
            zeroed: record.kind == Kind::AllocZeroed,
            touched,
            site,
        })
    }

    fn free(&mut self, slot: u32) -> Result<(), E> {
        self.slots.free(slot);
        self.put(EventKind::Free { slot })
    }

    fn resized(&mut self, thread: usize, record: &Record) -> Result<(), E> {
        let Some((old, block)) = self.threads[thread].resizing.pop().flatten() else {
            // Its beginning named an unknown block: from here on it is known.
            return if record.address == 0 { Ok(()) } else { self.alloc(record) };
        };
        if record.address == 0 {
            self.live.insert(old, block); // The resize failed.
            return Ok(());
        }
        if let Some(other) = self.take(record.address) {
            self.dropped.missed_frees += 1;
            self.free(other.slot)?;
        }
        self.settle(record, block.slot, block.domain);
        let site = self.sites.index(record.caller);
        let size = record.size.clamp(1, SIZE_MAX);
        let touched = self.touched(record, block.size);
        self.put(EventKind::Realloc { slot: block.slot, size, touched, site })
    }

    fn settle(&mut self, record: &Record, slot: u32, domain: Domain) {
        self.live.insert(record.address, Live { slot, domain, size: record.size });
        if record.size >= raw::LARGE_BYTES {
            self.large.insert(record.address, (record.address + record.size, slot));
        }
    }

    fn take(&mut self, address: u64) -> Option<Live> {
        let found = self.live.remove(&address)?;
        if !self.large.is_empty() {
            self.large.remove(&address);
        }
        Some(found)
    }

    /// Touched bytes of a new or resized block, which has `kept` bytes from before. Counts the pages of which nobody
    /// knows whether the program wrote there.
    fn touched(&mut self, record: &Record, kept: u64) -> Option<u64> {
        if record.size < raw::PROBED_BYTES {
            return None;
        }
        let found = self.survey.touched.get(&self.ordinal);
        let pages = |bytes: u64| bytes / OS_PAGE_BYTES;
        let at_first = found.map_or_else(|| pages(record.size), |touched| touched.unknown_pages);
        let unknown = &mut self.unknown[self.phase as usize];
        // A resize moved what was there before.
        let pages = at_first.saturating_sub(pages(kept));
        unknown.blocks += u64::from(pages != 0);
        unknown.bytes += pages * OS_PAGE_BYTES;
        found.map(|touched| touched.bytes.min(record.size))
    }

    /// Array data comes from `malloc` as other requests do: the call site tells.
    fn domain(&self, bits: u8, site: u32) -> Domain {
        match Domain::from_bits(bits).unwrap_or(Domain::Libc) {
            domain if self.sites.is_of_numpy(domain, site) => Domain::Numpy,
            domain => domain,
        }
    }
}

/// The first look at a recording: touched bytes of probed blocks, and which threads ended.
#[derive(Default)]
pub(crate) struct Surveyor {
    pub(crate) survey: Survey,
    ordinal: u64,
    /// Live probed blocks by address: ordinal of the record that made or resized it.
    live: ByAddress<u64>,
    /// What was found of blocks that stayed live, by the same ordinal.
    found: ByAddress<Touched>,
    ended: Vec<bool>,
    /// Sequence number of a collection's start without its end.
    collection: Option<u64>,
}

impl Surveyor {
    /// Takes the next record.
    pub(crate) fn feed(&mut self, thread: usize, record: &Record) {
        self.ordinal += 1;
        if self.ended.len() <= thread {
            self.ended.resize(thread + 1, false);
            self.survey.thread_ends.resize(thread + 1, None);
        }
        self.ended[thread] |= record.kind == Kind::ThreadEnd;
        if self.ended[thread] {
            self.survey.thread_ends[thread] = Some(record.seq);
        }
        match record.kind {
            Kind::Alloc | Kind::AllocZeroed | Kind::AllocAligned | Kind::ReallocEnd
                if record.size >= raw::PROBED_BYTES && record.address != 0 =>
            {
                self.live.insert(record.address, self.ordinal);
            }
            Kind::Free | Kind::ReallocBegin if !self.live.is_empty() => {
                if let Some(made) = self.live.remove(&record.address) {
                    let found = self.found.remove(&made);
                    if let Some(touched) = Touched::of(record).or(found) {
                        self.survey.touched.insert(made, touched);
                    }
                }
            }
            Kind::Touch => {
                if let (Some(&made), Some(touched)) = (self.live.get(&record.address), Touched::of(record)) {
                    self.found.insert(made, touched);
                }
            }
            Kind::GcStart => self.collection = Some(record.seq),
            Kind::GcStop => {
                if let Some(start) = self.collection.take() {
                    self.survey.collections.insert(start, record.address.min(2) as u8);
                }
            }
            _ => {}
        }
    }

    /// What was found. Blocks that stayed live have what the last probe said.
    pub(crate) fn finish(mut self) -> Survey {
        self.survey.touched.extend(self.found);
        self.survey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_have_the_numbers_of_the_trace() {
        use crate::raw::directive as raw;
        let numbers = [
            (raw::MALLOC_TRIM, Directive::MallocTrim),
            (raw::MALLOPT, Directive::Mallopt),
            (raw::MI_COLLECT, Directive::MiCollect),
            (raw::MI_OPTION_SET, Directive::MiOptionSet),
            (raw::ARENA_PURGE, Directive::ArenaPurge),
            (raw::ARENA_DECAY, Directive::ArenaDecay),
            (raw::DIRTY_DECAY_MS, Directive::DirtyDecayMs),
            (raw::MUZZY_DECAY_MS, Directive::MuzzyDecayMs),
            (raw::BACKGROUND_THREAD, Directive::BackgroundThread),
            (raw::TCACHE_FLUSH, Directive::TcacheFlush),
            (raw::RELEASE_UNUSED, Directive::ReleaseUnused),
            (raw::RELEASE_FREE_MEMORY, Directive::ReleaseFreeMemory),
        ];
        assert_eq!(numbers.map(|(_, directive)| directive), Directive::ALL);
        for (number, directive) in numbers {
            assert_eq!(Directive::from_bits(number), Some(directive));
        }
    }

    #[test]
    fn a_resize_inside_a_resize_keeps_both_blocks() {
        const LIBC: u8 = 0;
        const ARROW: u8 = 5;
        let steps = [
            (Kind::Alloc, ARROW, 0x1000, 100),
            (Kind::Alloc, LIBC, 0x2000, 200),
            (Kind::ReallocBegin, ARROW, 0x1000, 0),
            (Kind::ReallocBegin, LIBC, 0x2000, 0),
            (Kind::ReallocEnd, LIBC, 0x3000, 300),
            (Kind::ReallocEnd, ARROW, 0x4000, 400),
            (Kind::Free, LIBC, 0x3000, 0),
            (Kind::Free, ARROW, 0x4000, 0),
        ];
        let (survey, mut sites, mut events) = (Survey::default(), Sites::new(&[], None), Vec::new());
        let mut walk = Walk::new(&survey, &mut sites, &[], Vec::new(), |event: Event| {
            events.push(event.kind);
            Ok::<_, ()>(())
        });
        for (seq, (kind, domain, address, size)) in (1..).zip(steps) {
            let record = Record { kind, domain, align_log2: 0, seq, time: seq, address, size, caller: 0 };
            walk.feed(0, &record).expect("the closure accepts every event");
        }
        assert_eq!(walk.dropped, Dropped::default());
        let resize = |slot, size| EventKind::Realloc { slot, size, touched: None, site: 0 };
        assert_eq!(
            events[2..],
            [resize(1, 300), resize(0, 400), EventKind::Free { slot: 1 }, EventKind::Free { slot: 0 }]
        );
    }
}
