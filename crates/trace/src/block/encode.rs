//! Gathers events into columns and writes them as a block.
//!
//! Invariant: after [`BlockBuilder::write`] the builder is empty and the history carries on.

use super::history::History;
use crate::error::TraceError;
use crate::format::{AGE_RING, BLOCK_AGES, BLOCK_EVENTS, Column, DICT_ESCAPE, TAG_BLOCK, op};
use crate::varint::{put, zigzag};
use crate::{Event, EventKind};
use std::collections::HashMap;
use std::io::{self, Write};

/// The columns of the block that is being filled, before compression.
pub(crate) struct BlockBuilder {
    history: History,
    /// For each slot, how many allocations there had been at its block's birth (modulo 2^32).
    births: Vec<u32>,
    ops: Vec<u8>,
    refs_as_deltas: Vec<u8>,
    refs_as_ages: Vec<u8>,
    sizes: Vec<u64>,
    aligns: Vec<u8>,
    touched: Vec<u8>,
    args: Vec<u8>,
    times: Vec<u8>,
    sites: Vec<u64>,
    /// Whether times and sites are kept.
    with_times: bool,
    with_sites: bool,
    /// Time of the last event, in units of the time column.
    time: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl BlockBuilder {
    pub(crate) fn new(level: i32, with_times: bool, with_sites: bool) -> io::Result<Self> {
        Ok(Self {
            history: History::new(),
            births: Vec::new(),
            ops: Vec::with_capacity(BLOCK_EVENTS),
            refs_as_deltas: Vec::new(),
            refs_as_ages: Vec::new(),
            sizes: Vec::new(),
            aligns: Vec::new(),
            touched: Vec::new(),
            args: Vec::new(),
            times: Vec::new(),
            sites: Vec::new(),
            with_times,
            with_sites,
            time: 0,
            compressor: zstd::bulk::Compressor::new(level)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ops.len() == BLOCK_EVENTS
    }

    /// Adds an event that a ledger has accepted.
    pub(crate) fn push(&mut self, event: &Event) {
        if self.with_times {
            // Stamps of different threads may cross; order is the trace's, so time stands still rather than go back.
            let time = (event.time / crate::TIME_UNIT_TICKS).max(self.time);
            put(&mut self.times, time - self.time);
            self.time = time;
        }
        match event.kind {
            EventKind::Alloc { slot, domain, size, align_log2, zeroed, touched, site } => {
                let kind = match (zeroed, align_log2) {
                    (true, _) => op::ALLOC_ZEROED,
                    (false, 0) => op::ALLOC,
                    (false, _) => op::ALLOC_ALIGNED,
                };
                if kind == op::ALLOC_ALIGNED {
                    self.aligns.push(align_log2);
                }
                self.push_sized(kind | ((domain as u8) << 4), size, touched, site);
                self.note_birth(slot);
            }
            EventKind::Free { slot } => self.push_ref(op::FREE, slot),
            EventKind::Realloc { slot, size, touched, site } => {
                self.push_sized(op::REALLOC, size, touched, site);
                self.reference(slot);
            }
            EventKind::Advise { slot } => self.push_ref(op::ADVISE, slot),
            EventKind::ThreadSwitch { thread } => self.push_arg(op::THREAD_SWITCH, thread),
            EventKind::ThreadStart { thread } => self.push_arg(op::THREAD_START, thread),
            EventKind::ThreadEnd { thread } => self.push_arg(op::THREAD_END, thread),
            EventKind::Mark { mark } => self.push_arg(op::MARK, mark),
            EventKind::GcStart { generation } => self.push_arg(op::GC_START, u32::from(generation)),
            EventKind::GcStop { generation } => self.push_arg(op::GC_STOP, u32::from(generation)),
            EventKind::Fork => self.ops.push(op::FORK),
            EventKind::Direct(call) => {
                self.push_arg(op::DIRECT, call.code());
                put(&mut self.args, zigzag(i64::from(call.value)));
            }
        }
    }

    fn push_sized(&mut self, op: u8, size: u64, touched: Option<u64>, site: u32) {
        self.ops.push(if touched.is_some() { op | op::TOUCHED } else { op });
        self.sizes.push(size);
        if let Some(bytes) = touched {
            put(&mut self.touched, bytes);
        }
        if self.with_sites {
            self.sites.push(u64::from(site));
        }
    }

    fn push_ref(&mut self, op: u8, slot: u32) {
        self.ops.push(op);
        self.reference(slot);
    }

    fn push_arg(&mut self, op: u8, value: u32) {
        self.ops.push(op);
        put(&mut self.args, u64::from(value));
    }

    fn note_birth(&mut self, slot: u32) {
        let birth = self.history.born() as u32;
        match self.births.get_mut(slot as usize) {
            Some(place) => *place = birth,
            None => self.births.push(birth),
        }
        self.history.alloc(slot);
    }

    fn reference(&mut self, slot: u32) {
        put(&mut self.refs_as_deltas, zigzag(i64::from(slot) - i64::from(self.history.last)));
        let age = (self.history.born() as u32).wrapping_sub(self.births[slot as usize]) as usize;
        // The second test also settles ages that wrapped: whatever the ring says is what a reader will read.
        if age <= AGE_RING && self.history.slot_of_age(age) == slot {
            put(&mut self.refs_as_ages, age as u64);
        } else {
            put(&mut self.refs_as_ages, 0);
            put(&mut self.refs_as_ages, u64::from(slot));
        }
        self.history.last = slot;
    }

    /// Writes the block and empties the builder.
    pub(crate) fn write(&mut self, to: &mut impl Write) -> Result<(), TraceError> {
        let sizes = DictEncoded::of(&self.sizes);
        let sites = DictEncoded::of(&self.sites);
        let deltas = self.compressor.compress(&self.refs_as_deltas)?;
        let ages = self.compressor.compress(&self.refs_as_ages)?;
        let by_age = ages.len() < deltas.len();
        let (refs, refs_bytes) =
            if by_age { (ages, self.refs_as_ages.len()) } else { (deltas, self.refs_as_deltas.len()) };
        let mut columns = vec![(Column::Refs, refs, refs_bytes)];
        for (column, bytes) in [
            (Column::Ops, &self.ops),
            (Column::Sizes, &sizes.codes),
            (Column::SizeDict, &sizes.dict),
            (Column::SizeEscapes, &sizes.escapes),
            (Column::Aligns, &self.aligns),
            (Column::Touched, &self.touched),
            (Column::Args, &self.args),
            (Column::Times, &self.times),
            (Column::Sites, &sites.codes),
            (Column::SiteDict, &sites.dict),
            (Column::SiteEscapes, &sites.escapes),
        ] {
            if !bytes.is_empty() {
                columns.push((column, self.compressor.compress(bytes)?, bytes.len()));
            }
        }
        columns.retain(|(_, _, bytes)| *bytes > 0);
        columns.sort_by_key(|(column, ..)| *column as u8);
        self.write_columns(to, &columns, by_age)?;
        self.clear();
        Ok(())
    }

    fn write_columns(
        &self,
        to: &mut impl Write,
        columns: &[(Column, Vec<u8>, usize)],
        by_age: bool,
    ) -> Result<(), TraceError> {
        let mut head = vec![TAG_BLOCK, columns.len() as u8, if by_age { BLOCK_AGES } else { 0 }, 0];
        head.extend_from_slice(&(self.ops.len() as u32).to_le_bytes());
        for (column, stored, bytes) in columns {
            head.extend_from_slice(&u32::from(*column as u8).to_le_bytes());
            head.extend_from_slice(&(stored.len() as u32).to_le_bytes());
            head.extend_from_slice(&(*bytes as u32).to_le_bytes());
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        to.write_all(&head)?;
        for (_, stored, _) in columns {
            crc.update(stored);
            to.write_all(stored)?;
        }
        to.write_all(&crc.finalize().to_le_bytes())?;
        Ok(())
    }

    fn clear(&mut self) {
        for column in [
            &mut self.ops,
            &mut self.refs_as_deltas,
            &mut self.refs_as_ages,
            &mut self.aligns,
            &mut self.touched,
            &mut self.args,
            &mut self.times,
        ] {
            column.clear();
        }
        self.sizes.clear();
        self.sites.clear();
    }
}

/// A column in which a byte stands for one of the 255 commonest values, and an escape for any other.
struct DictEncoded {
    codes: Vec<u8>,
    dict: Vec<u8>,
    escapes: Vec<u8>,
}

impl DictEncoded {
    /// Values below this are counted in a table.
    const SMALL: usize = 4096;

    fn of(values: &[u64]) -> Self {
        let mut small = vec![0_u32; Self::SMALL];
        let mut large: HashMap<u64, u32> = HashMap::new();
        for &value in values {
            match small.get_mut(value as usize) {
                Some(count) => *count += 1,
                None => *large.entry(value).or_default() += 1,
            }
        }
        let counted_small = small.iter().enumerate().filter(|(_, count)| **count > 0);
        let mut counted: Vec<(u64, u32)> = counted_small.map(|(value, &count)| (value as u64, count)).collect();
        counted.extend(large);
        // By count, then by value: the same events give the same bytes.
        counted.sort_unstable_by_key(|&(value, count)| (std::cmp::Reverse(count), value));
        counted.truncate(usize::from(DICT_ESCAPE));
        let mut kept: Vec<u64> = counted.into_iter().map(|(value, _)| value).collect();
        kept.sort_unstable();
        Self::with_dict(values, &kept)
    }

    fn with_dict(values: &[u64], kept: &[u64]) -> Self {
        let mut dict = Vec::new();
        let mut small = vec![DICT_ESCAPE; Self::SMALL];
        let mut large: HashMap<u64, u8> = HashMap::new();
        let mut before = 0;
        for (code, &value) in kept.iter().enumerate() {
            put(&mut dict, value - before);
            before = value;
            match small.get_mut(value as usize) {
                Some(place) => *place = code as u8,
                None => _ = large.insert(value, code as u8),
            }
        }
        let mut escapes = Vec::new();
        let code_of = |&value: &u64| {
            let code = match small.get(value as usize) {
                Some(&code) => code,
                None => large.get(&value).copied().unwrap_or(DICT_ESCAPE),
            };
            if code == DICT_ESCAPE {
                put(&mut escapes, value);
            }
            code
        };
        let codes = values.iter().map(code_of).collect();
        Self { codes, dict, escapes }
    }
}
