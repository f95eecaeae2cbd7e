//! Reads header, blocks and footer, and gives a block's columns to whoever walks them.
//!
//! Invariant: a length is compared with its bound before anything of that length is read or made, and a block's
//! checksum before any of it is decompressed.

use super::history::History;
use crate::error::{Part, TraceError};
use crate::format::{
    AGE_RING, BLOCK_AGES, BLOCK_EVENTS, Column, DICT_ESCAPE, END_MAGIC, ENTRY_BYTES, FLAG_SITES, FLAG_TIME,
    HEADER_BYTES, JSON_BYTES_MAX, MAGIC, SECTION_HEAD_BYTES, TAG_BLOCK, TAG_FOOTER, TRAILER_BYTES, VERSION,
    VERSION_MIN,
};
use crate::varint::{PADDING, VarintCursor, unzigzag};
use crate::{DirectiveCall, Metadata, Totals};
use std::io::{self, Read};

/// Fills `bytes`, or says that the file ends within `part`.
fn read_exact(from: &mut impl Read, bytes: &mut [u8], part: &'static str) -> Result<(), TraceError> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TraceError::Truncated { part },
        _ => TraceError::Io(error),
    })
}

/// Reads `len` bytes onto `bytes`; memory grows with what is really there, not with what was claimed.
fn read_len(from: &mut impl Read, bytes: &mut Vec<u8>, len: usize, part: &'static str) -> Result<(), TraceError> {
    let read = from.take(len as u64).read_to_end(bytes)?;
    if read == len { Ok(()) } else { Err(TraceError::Truncated { part }) }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// Reads the header: metadata and flags.
pub(crate) fn read_header(from: &mut impl Read) -> Result<(Metadata, u16), TraceError> {
    let mut head = vec![0; HEADER_BYTES];
    read_exact(from, &mut head[..MAGIC.len()], "signature")?;
    if head[..MAGIC.len()] != MAGIC {
        return Err(TraceError::NotATrace);
    }
    read_exact(from, &mut head[MAGIC.len()..], "header")?;
    let found = u16::from_le_bytes([head[8], head[9]]);
    if !(VERSION_MIN..=VERSION).contains(&found) {
        return Err(TraceError::Version { found });
    }
    let flags = u16::from_le_bytes([head[10], head[11]]);
    let damaged = |what| TraceError::Damaged { part: Part::Header, what };
    let json_bytes = u32_at(&head, 12);
    if json_bytes > JSON_BYTES_MAX {
        return Err(damaged("its metadata claims more than 16 MiB"));
    }
    read_len(from, &mut head, json_bytes as usize, "metadata")?;
    let mut crc = [0; 4];
    read_exact(from, &mut crc, "metadata")?;
    if crc32fast::hash(&head) != u32::from_le_bytes(crc) {
        return Err(damaged("its checksum does not match"));
    }
    if flags & !(FLAG_TIME | FLAG_SITES) != 0 {
        return Err(damaged("it has flags that this version does not know"));
    }
    let metadata = serde_json::from_slice(&head[HEADER_BYTES..]).map_err(|e| TraceError::Metadata(e.to_string()))?;
    Ok((metadata, flags))
}

/// Checks and parses the footer's last part: JSON, checksum, length, end mark, given its eight bytes of head.
pub(crate) fn read_footer_body(from: &mut impl Read, head: [u8; SECTION_HEAD_BYTES]) -> Result<Totals, TraceError> {
    let damaged = |what| TraceError::Damaged { part: Part::Footer, what };
    let json_bytes = u32_at(&head, 4);
    if head[..4] != [TAG_FOOTER, 0, 0, 0] || json_bytes > JSON_BYTES_MAX {
        return Err(damaged("its head is not one that this version writes"));
    }
    let mut foot = head.to_vec();
    read_len(from, &mut foot, json_bytes as usize, "footer")?;
    let mut trailer = [0; TRAILER_BYTES];
    read_exact(from, &mut trailer, "footer")?;
    if crc32fast::hash(&foot) != u32_at(&trailer, 0) {
        return Err(damaged("its checksum does not match"));
    }
    if u32_at(&trailer, 4) != json_bytes || trailer[8..] != END_MAGIC {
        return Err(damaged("the end mark is not there"));
    }
    serde_json::from_slice(&foot[SECTION_HEAD_BYTES..]).map_err(|e| TraceError::Metadata(e.to_string()))
}

/// The decompressed columns of one block.
pub(crate) struct Block {
    pub(crate) by_age: bool,
    /// By column id, each followed by [`PADDING`] zeros.
    columns: [Vec<u8>; Column::ALL.len()],
    sizes: Box<[u64; 256]>,
    sites: Box<[u64; 256]>,
}

impl Block {
    fn new() -> Self {
        let empty = || Box::new([u64::MAX; 256]);
        Self { by_age: false, columns: std::array::from_fn(|_| vec![0; PADDING]), sizes: empty(), sites: empty() }
    }

    fn column(&self, column: Column) -> &[u8] {
        let padded = &self.columns[column as usize];
        &padded[..padded.len() - PADDING]
    }

    /// One byte an event.
    pub(crate) fn ops(&self) -> &[u8] {
        self.column(Column::Ops)
    }

    /// Cursors at the start of every other column.
    pub(crate) fn cursors(&self) -> Cursors<'_> {
        self.cursors_at(Positions::default())
    }

    /// Cursors where a walk stopped.
    pub(crate) fn cursors_at(&self, at: Positions) -> Cursors<'_> {
        let varints = |column: Column, at: usize| VarintCursor::resume(&self.columns[column as usize], at);
        let rest = |column: Column, at: usize| self.column(column).get(at..).unwrap_or_default();
        Cursors {
            refs: varints(Column::Refs, at.refs),
            sizes: DictCursor {
                codes: rest(Column::Sizes, at.sizes),
                table: &self.sizes,
                escapes: varints(Column::SizeEscapes, at.size_escapes),
            },
            aligns: rest(Column::Aligns, at.aligns),
            touched: varints(Column::Touched, at.touched),
            args: varints(Column::Args, at.args),
            times: varints(Column::Times, 0),
            sites: DictCursor {
                codes: self.column(Column::Sites),
                table: &self.sites,
                escapes: varints(Column::SiteEscapes, 0),
            },
        }
    }

    /// Where a walk stopped, times and sites apart.
    pub(crate) fn positions(&self, cursors: &Cursors<'_>) -> Positions {
        Positions {
            refs: cursors.refs.position(),
            sizes: self.column(Column::Sizes).len() - cursors.sizes.codes.len(),
            size_escapes: cursors.sizes.escapes.position(),
            aligns: self.column(Column::Aligns).len() - cursors.aligns.len(),
            touched: cursors.touched.position(),
            args: cursors.args.position(),
        }
    }
}

/// Bytes of each column that a walk has used up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Positions {
    refs: usize,
    sizes: usize,
    size_escapes: usize,
    aligns: usize,
    touched: usize,
    args: usize,
}

/// Walks a dictionary column.
#[derive(Clone, Copy)]
pub(crate) struct DictCursor<'a> {
    codes: &'a [u8],
    table: &'a [u64; 256],
    escapes: VarintCursor<'a>,
}

impl DictCursor<'_> {
    /// The next value; `u64::MAX`, which is out of range everywhere, for a code that stands for nothing.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let (&code, rest) = self.codes.split_first()?;
        self.codes = rest;
        if code == DICT_ESCAPE { self.escapes.next() } else { Some(self.table[usize::from(code)]) }
    }

    fn is_done(&self) -> bool {
        self.codes.is_empty() && self.escapes.is_done()
    }
}

/// Where a walk over a block stands in each column.
#[derive(Clone, Copy)]
pub(crate) struct Cursors<'a> {
    pub(crate) refs: VarintCursor<'a>,
    pub(crate) sizes: DictCursor<'a>,
    pub(crate) aligns: &'a [u8],
    pub(crate) touched: VarintCursor<'a>,
    pub(crate) args: VarintCursor<'a>,
    pub(crate) times: VarintCursor<'a>,
    pub(crate) sites: DictCursor<'a>,
}

impl Cursors<'_> {
    /// The slot that a free, reallocation or advice names; `None` when the column does not say.
    #[inline(always)]
    pub(crate) fn slot<const AGES: bool>(&mut self, history: &mut History) -> Option<u32> {
        let value = self.refs.next()?;
        let slot = if !AGES {
            // A sum that wraps is negative or far above any slot, so the conversion refuses it.
            u32::try_from(i64::from(history.last).wrapping_add(unzigzag(value))).ok()?
        } else if value == 0 {
            u32::try_from(self.refs.next()?).ok()?
        } else if value <= AGE_RING as u64 {
            history.slot_of_age(value as usize)
        } else {
            return None;
        };
        history.last = slot;
        Some(slot)
    }

    /// The next alignment.
    pub(crate) fn align(&mut self) -> Option<u8> {
        let (&align, rest) = self.aligns.split_first()?;
        self.aligns = rest;
        Some(align)
    }

    /// The next thread, mark or generation.
    pub(crate) fn arg(&mut self) -> Option<u32> {
        u32::try_from(self.args.next()?).ok()
    }

    /// The next directive, with its two numbers.
    pub(crate) fn directive(&mut self) -> Option<DirectiveCall> {
        let code = self.arg()?;
        let value = i32::try_from(unzigzag(self.args.next()?)).ok()?;
        DirectiveCall::from_code(code, value)
    }

    /// Whether the events used every column up. Times and sites are asked about only by who walks them.
    pub(crate) fn are_done(&self, with_times: bool, with_sites: bool) -> bool {
        self.refs.is_done()
            && self.sizes.is_done()
            && self.aligns.is_empty()
            && self.touched.is_done()
            && self.args.is_done()
            && (!with_times || self.times.is_done())
            && (!with_sites || self.sites.is_done())
    }
}

/// An entry of a block's directory.
#[derive(Clone, Copy)]
struct Entry {
    column: Column,
    stored: usize,
    bytes: usize,
}

/// Reads a trace block by block.
pub(crate) struct BlockReader<R: Read> {
    from: R,
    block: Block,
    index: u64,
    /// Whether the last block was a short one, after which none may follow.
    was_short: bool,
    /// Flags of the header.
    flags: u16,
    /// Whether times and sites are decompressed; a reader that does not look at them leaves them out.
    with_times_and_sites: bool,
    stored: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
}

impl<R: Read> BlockReader<R> {
    /// Reads the header.
    pub(crate) fn new(mut from: R, with_times_and_sites: bool) -> Result<(Self, Metadata), TraceError> {
        let (metadata, flags) = read_header(&mut from)?;
        let reader = Self {
            from,
            block: Block::new(),
            index: 0,
            was_short: false,
            flags,
            with_times_and_sites,
            stored: Vec::new(),
            decompressor: zstd::bulk::Decompressor::new()?,
        };
        Ok((reader, metadata))
    }

    pub(crate) fn has_times(&self) -> bool {
        self.flags & FLAG_TIME != 0
    }

    pub(crate) fn has_sites(&self) -> bool {
        self.flags & FLAG_SITES != 0
    }

    /// The block read last.
    pub(crate) fn block(&self) -> &Block {
        &self.block
    }

    /// An error in the block read last.
    pub(crate) fn damaged(&self, what: &'static str) -> TraceError {
        TraceError::Damaged { part: Part::Block(self.index.saturating_sub(1)), what }
    }

    /// Reads the next block, or the footer: then, and only then, there are totals.
    pub(crate) fn next_block(&mut self) -> Result<Option<Totals>, TraceError> {
        let mut head = [0; SECTION_HEAD_BYTES];
        read_exact(&mut self.from, &mut head, "events")?;
        if head[0] != TAG_BLOCK {
            let totals = read_footer_body(&mut self.from, head)?;
            let mut after = [0];
            return match self.from.read(&mut after)? {
                0 => Ok(Some(totals)),
                _ => Err(TraceError::Damaged { part: Part::Footer, what: "something follows the end mark" }),
            };
        }
        self.index += 1;
        self.read_block(head)?;
        Ok(None)
    }

    fn read_block(&mut self, head: [u8; SECTION_HEAD_BYTES]) -> Result<(), TraceError> {
        let events = u32_at(&head, 4) as usize;
        if events == 0 || events > BLOCK_EVENTS || self.was_short || head[2] & !BLOCK_AGES != 0 || head[3] != 0 {
            return Err(self.damaged("its head is not one that this version writes"));
        }
        self.was_short = events < BLOCK_EVENTS;
        let mut directory = vec![0; usize::from(head[1]) * ENTRY_BYTES];
        read_exact(&mut self.from, &mut directory, "events")?;
        let entries = self.parse_directory(&directory, events)?;
        self.stored.clear();
        let stored_bytes = entries.iter().map(|entry| entry.stored).sum();
        read_len(&mut self.from, &mut self.stored, stored_bytes, "events")?;
        let mut stated = [0; 4];
        read_exact(&mut self.from, &mut stated, "events")?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(&directory);
        crc.update(&self.stored);
        if crc.finalize() != u32::from_le_bytes(stated) {
            return Err(self.damaged("its checksum does not match"));
        }
        self.block.by_age = head[2] & BLOCK_AGES != 0;
        self.decompress(&entries, events)
    }

    fn parse_directory(&self, directory: &[u8], events: usize) -> Result<Vec<Entry>, TraceError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(Column::ALL.len());
        for entry in directory.chunks_exact(ENTRY_BYTES) {
            let column = Column::ALL.get(u32_at(entry, 0) as usize).copied();
            let column = column.ok_or_else(|| self.damaged("it has a column that this version does not know"))?;
            let (stored, bytes) = (u32_at(entry, 4) as usize, u32_at(entry, 8) as usize);
            if entries.last().is_some_and(|last| last.column as u8 >= column as u8) {
                return Err(self.damaged("its columns are out of order"));
            }
            let bounded = bytes > 0 && bytes <= column.bytes_max(events);
            if !bounded || stored > Column::stored_bytes_max(bytes) {
                return Err(self.damaged("a column claims more bytes than its events can need"));
            }
            entries.push(Entry { column, stored, bytes });
        }
        Ok(entries)
    }

    fn decompress(&mut self, entries: &[Entry], events: usize) -> Result<(), TraceError> {
        for column in &mut self.block.columns {
            column.clear();
            column.resize(PADDING, 0);
        }
        let mut at = 0;
        for entry in entries {
            let stored = &self.stored[at..at + entry.stored];
            at += entry.stored;
            let is_extra =
                matches!(entry.column, Column::Times | Column::Sites | Column::SiteDict | Column::SiteEscapes);
            if is_extra && !self.with_times_and_sites {
                continue;
            }
            let column = &mut self.block.columns[entry.column as usize];
            column.resize(entry.bytes + PADDING, 0);
            let result = self.decompressor.decompress_to_buffer(stored, &mut column[..entry.bytes]);
            if !result.is_ok_and(|bytes| bytes == entry.bytes) {
                return Err(self.damaged("a column does not decompress to the bytes it claims"));
            }
        }
        if self.block.ops().len() != events {
            return Err(self.damaged("it has no operation for each of its events"));
        }
        for (column, table) in [(Column::SizeDict, &mut self.block.sizes), (Column::SiteDict, &mut self.block.sites)] {
            if !read_dict(&self.block.columns[column as usize], table) {
                return Err(TraceError::Damaged { part: Part::Block(self.index - 1), what: "a dictionary is wrong" });
            }
        }
        Ok(())
    }
}

/// Reads ascending values from their differences; `false` when there are too many or one does not fit.
fn read_dict(padded: &[u8], table: &mut [u64; 256]) -> bool {
    *table = [u64::MAX; 256];
    let mut cursor = VarintCursor::resume(padded, 0);
    let mut value = 0_u64;
    for place in table.iter_mut().take(usize::from(DICT_ESCAPE)) {
        let Some(difference) = cursor.next() else { break };
        let Some(sum) = value.checked_add(difference) else { return false };
        value = sum;
        *place = value;
    }
    cursor.is_done()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::varint::{put, zigzag};

    #[test]
    fn a_reference_to_no_slot_is_refused_and_never_another_slot() {
        let slot = |by_age: bool, values: &[u64]| {
            let mut block = Block::new();
            let mut bytes = Vec::new();
            values.iter().for_each(|value| put(&mut bytes, *value));
            bytes.resize(bytes.len() + PADDING, 0);
            block.columns[Column::Refs as usize] = bytes;
            let mut history = History::new();
            history.alloc(5);
            let mut cursors = block.cursors();
            if by_age { cursors.slot::<true>(&mut history) } else { cursors.slot::<false>(&mut history) }
        };
        for difference in [i64::MAX, i64::MIN, 1 << 32, -6] {
            assert_eq!(slot(false, &[zigzag(difference)]), None, "{difference}");
        }
        assert_eq!(slot(true, &[0, (1 << 32) + 5]), None);
        assert_eq!((slot(false, &[zigzag(-5)]), slot(true, &[0, 5]), slot(true, &[1])), (Some(0), Some(5), Some(5)));
    }
}
