//! Reads a trace, event by event, and checks every one.
//!
//! Invariant: a trace that was read to its end without an error is valid, and its totals are true.

use crate::block::decode::{BlockReader, Cursors, read_footer_body, read_header};
use crate::block::history::History;
use crate::error::{Part, TraceError};
use crate::format::{JSON_BYTES_MAX, SECTION_HEAD_BYTES, TRAILER_BYTES, op};
use crate::ledger::{Ledger, Tables, check_totals};
use crate::{Domain, Event, EventKind, Metadata, TIME_UNIT_TICKS, Totals};
use std::io::{Read, Seek, SeekFrom};

/// Reads a trace in memory bounded by live blocks and one block of events.
///
/// As an iterator it gives every event in order, and after the first error nothing more.
pub struct TraceReader<R: Read> {
    blocks: BlockReader<R>,
    metadata: Metadata,
    ledger: Ledger,
    history: History,
    /// Time of the last event, in units of the time column.
    time: u64,
    /// Events of the block read last, and how many of them were given out.
    events: Vec<Event>,
    given: usize,
    /// What ended the block early.
    error: Option<TraceError>,
    totals: Option<Totals>,
    is_over: bool,
}

impl<R: Read> std::fmt::Debug for TraceReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceReader").field("events", &self.ledger.events()).finish_non_exhaustive()
    }
}

impl<R: Read> TraceReader<R> {
    /// Reads the header. Reads are small: give a buffered reader.
    ///
    /// # Errors
    /// Any [`TraceError`] that a header can have.
    pub fn new(from: R) -> Result<Self, TraceError> {
        let (blocks, metadata) = BlockReader::new(from, true)?;
        let ledger = Ledger::new(Tables::of(&metadata)?);
        Ok(Self {
            blocks,
            metadata,
            ledger,
            history: History::new(),
            time: 0,
            events: Vec::new(),
            given: 0,
            error: None,
            totals: None,
            is_over: false,
        })
    }

    /// The metadata as the header has it; its totals are those of the writer's start, see [`Self::totals`].
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The footer's totals, checked against the events; `None` until all of them were read.
    #[must_use]
    pub fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    /// Whether events carry times.
    #[must_use]
    pub fn has_times(&self) -> bool {
        self.blocks.has_times()
    }

    /// Whether events carry call sites.
    #[must_use]
    pub fn has_sites(&self) -> bool {
        self.blocks.has_sites()
    }

    /// Reads blocks until there is an event to give, an error, or the footer.
    fn refill(&mut self) -> Result<(), TraceError> {
        self.events.clear();
        self.given = 0;
        if let Some(totals) = self.blocks.next_block()? {
            check_totals(&self.ledger.totals(), &totals)?;
            self.metadata.check_readings(totals.events).map_err(TraceError::Metadata)?;
            self.totals = Some(totals);
            return Ok(());
        }
        self.error = self.decode_block().err();
        Ok(())
    }

    fn decode_block(&mut self) -> Result<(), TraceError> {
        let block = self.blocks.block();
        let (with_times, with_sites) = (self.blocks.has_times(), self.blocks.has_sites());
        let mut cursors = block.cursors();
        let short = || self.blocks.damaged("a column ends before its events do");
        for &op in block.ops() {
            if with_times {
                let delta = cursors.times.next().ok_or_else(short)?;
                let time = self.time.checked_add(delta).filter(|time| *time <= u64::MAX / TIME_UNIT_TICKS);
                self.time = time.ok_or_else(|| self.blocks.damaged("a time is out of range"))?;
            }
            let walk = Walk { cursors: &mut cursors, history: &mut self.history, with_sites };
            let next_slot = self.ledger.slots.peek();
            let kind = walk.kind(op, block.by_age, next_slot).map_err(|Stop| self.blocks.damaged(Stop::WHAT))?;
            let event = self.ledger.events();
            self.ledger.apply(&kind).map_err(|fault| TraceError::Impossible { event, fault })?;
            self.events.push(Event { time: self.time * TIME_UNIT_TICKS, kind });
        }
        if cursors.are_done(true, true) {
            Ok(())
        } else {
            Err(self.blocks.damaged("a column goes on after its events"))
        }
    }
}

impl<R: Read> Iterator for TraceReader<R> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.get(self.given) {
                self.given += 1;
                return Some(Ok(*event));
            }
            if self.is_over || self.totals.is_some() {
                return None;
            }
            let error = match self.error.take() {
                Some(error) => Some(error),
                None => self.refill().err(),
            };
            if let Some(error) = error {
                self.is_over = true;
                return Some(Err(error));
            }
        }
    }
}

/// A column ended early, or an operation byte means nothing.
struct Stop;

impl Stop {
    const WHAT: &'static str = "an operation is unknown, or a column ends before its events do";
}

/// One step of the walk over a block's columns.
struct Walk<'a, 'b> {
    cursors: &'a mut Cursors<'b>,
    history: &'a mut History,
    with_sites: bool,
}

impl Walk<'_, '_> {
    fn kind(mut self, op: u8, by_age: bool, next_slot: u32) -> Result<EventKind, Stop> {
        // Only sized kinds have a touched bit, only allocations a domain.
        let flags_allowed = match op & 15 {
            op::ALLOC | op::ALLOC_ZEROED | op::ALLOC_ALIGNED => 0xf0,
            op::REALLOC => op::TOUCHED,
            _ => 0,
        };
        if op & 0xf0 & !flags_allowed != 0 {
            return Err(Stop);
        }
        match op & 15 {
            kind @ (op::ALLOC | op::ALLOC_ZEROED | op::ALLOC_ALIGNED) => self.alloc(op, kind, next_slot),
            op::FREE => Ok(EventKind::Free { slot: self.slot(by_age)? }),
            op::REALLOC => {
                let (size, touched, site) = self.sized(op)?;
                Ok(EventKind::Realloc { slot: self.slot(by_age)?, size, touched, site })
            }
            op::ADVISE => Ok(EventKind::Advise { slot: self.slot(by_age)? }),
            op::MARK => Ok(EventKind::Mark { mark: self.arg()? }),
            op::THREAD_SWITCH => Ok(EventKind::ThreadSwitch { thread: self.arg()? }),
            op::THREAD_START => Ok(EventKind::ThreadStart { thread: self.arg()? }),
            op::THREAD_END => Ok(EventKind::ThreadEnd { thread: self.arg()? }),
            op::GC_START => Ok(EventKind::GcStart { generation: self.generation()? }),
            op::GC_STOP => Ok(EventKind::GcStop { generation: self.generation()? }),
            op::FORK => Ok(EventKind::Fork),
            op::DIRECT => Ok(EventKind::Direct(self.cursors.directive().ok_or(Stop)?)),
            _ => Err(Stop),
        }
    }

    fn alloc(&mut self, op: u8, kind: u8, slot: u32) -> Result<EventKind, Stop> {
        let domain = Domain::from_bits((op >> 4) & 7).ok_or(Stop)?;
        let align_log2 = match kind {
            op::ALLOC_ALIGNED => self.cursors.align().filter(|align| *align > 0).ok_or(Stop)?,
            _ => 0,
        };
        let (size, touched, site) = self.sized(op)?;
        self.history.alloc(slot);
        Ok(EventKind::Alloc { slot, domain, size, align_log2, zeroed: kind == op::ALLOC_ZEROED, touched, site })
    }

    fn sized(&mut self, op: u8) -> Result<(u64, Option<u64>, u32), Stop> {
        let size = self.cursors.sizes.next().ok_or(Stop)?;
        let touched = match op & op::TOUCHED {
            0 => None,
            _ => Some(self.cursors.touched.next().ok_or(Stop)?),
        };
        let site = if self.with_sites { self.cursors.sites.next().ok_or(Stop)? } else { 0 };
        Ok((size, touched, u32::try_from(site).unwrap_or(u32::MAX)))
    }

    fn slot(&mut self, by_age: bool) -> Result<u32, Stop> {
        let slot =
            if by_age { self.cursors.slot::<true>(self.history) } else { self.cursors.slot::<false>(self.history) };
        slot.ok_or(Stop)
    }

    fn arg(&mut self) -> Result<u32, Stop> {
        self.cursors.arg().ok_or(Stop)
    }

    fn generation(&mut self) -> Result<u8, Stop> {
        u8::try_from(self.arg()?).map_err(|_| Stop)
    }
}

/// Reads a whole trace and checks all of it: every free and reallocation names a live block, sizes, alignments and
/// table indexes are in range, and the totals match.
///
/// The metadata returned carries those totals.
///
/// # Errors
/// The first [`TraceError`] met.
pub fn validate(from: impl Read) -> Result<(Metadata, Totals), TraceError> {
    let mut reader = TraceReader::new(from)?;
    for event in reader.by_ref() {
        event?;
    }
    finished(reader)
}

/// Metadata and totals of a reader whose events were all read.
pub(crate) fn finished<R: Read>(reader: TraceReader<R>) -> Result<(Metadata, Totals), TraceError> {
    let TraceReader { mut metadata, totals, .. } = reader;
    let totals = totals.ok_or(TraceError::Truncated { part: "events" })?;
    metadata.totals = totals.clone();
    Ok((metadata, totals))
}

/// Reads metadata and totals only, from both ends of a trace; the events between them are not looked at.
///
/// The metadata returned carries those totals.
///
/// # Errors
/// Any [`TraceError`] that a header or footer can have.
pub fn read_footer(mut from: impl Read + Seek) -> Result<(Metadata, Totals), TraceError> {
    from.seek(SeekFrom::Start(0))?;
    let (mut metadata, _) = read_header(&mut from)?;
    let header_end = from.stream_position()?;
    let end = from.seek(SeekFrom::End(0))?;
    let truncated = TraceError::Truncated { part: "events" };
    let frame_bytes = (SECTION_HEAD_BYTES + TRAILER_BYTES) as u64;
    if end < header_end + frame_bytes {
        return Err(truncated);
    }
    from.seek(SeekFrom::Start(end - 12))?;
    let mut tail = [0; 12];
    from.read_exact(&mut tail)?;
    if tail[4..] != crate::format::END_MAGIC {
        return Err(truncated);
    }
    let json_bytes = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    let footer_bytes = u64::from(json_bytes) + frame_bytes;
    if json_bytes > JSON_BYTES_MAX || end - header_end < footer_bytes {
        return Err(TraceError::Damaged { part: Part::Footer, what: "its length does not fit the file" });
    }
    from.seek(SeekFrom::Start(end - footer_bytes))?;
    let mut head = [0; SECTION_HEAD_BYTES];
    from.read_exact(&mut head)?;
    let totals = read_footer_body(&mut from, head)?;
    metadata.totals = totals.clone();
    Ok((metadata, totals))
}
