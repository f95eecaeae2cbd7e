//! A trace file as its parts: header, columns of each block decompressed, footer.
//!
//! Invariant: what [`TraceFile::encode`] writes carries right lengths and checksums, whatever its parts hold.

use std::ops::Range;

/// Bytes of the header before the metadata, of a block's or footer's head, and of a directory entry.
const HEADER_BYTES: usize = 16;
const HEAD_BYTES: usize = 8;
const ENTRY_BYTES: usize = 12;
/// Tag of a block.
const TAG_BLOCK: u8 = 1;
/// Last bytes of a trace.
const END_MAGIC: [u8; 8] = *b"PyATend\n";
/// Level at which columns are compressed again: fast.
const LEVEL: i32 = 1;
/// Most bytes that a column can have.
const COLUMN_BYTES_MAX: usize = 9 << 16;

/// A column of a block, decompressed.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) id: u32,
    pub(crate) bytes: Vec<u8>,
}

/// A block: the eight bytes of its head, its number of columns and events included, and its columns.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) head: [u8; HEAD_BYTES],
    pub(crate) columns: Vec<Column>,
}

/// A trace file.
#[derive(Clone)]
pub(crate) struct TraceFile {
    pub(crate) header: [u8; HEADER_BYTES],
    pub(crate) metadata: Vec<u8>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) totals: Vec<u8>,
}

/// The bytes of a file, and the parts of it that a checksum of four bytes follows.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    /// Header, then each block, then the footer up to its checksum.
    pub(crate) sections: Vec<Range<usize>>,
    /// The directory of each block.
    pub(crate) directories: Vec<Range<usize>>,
    /// The compressed columns of each block.
    pub(crate) stored: Vec<Range<usize>>,
}

impl Encoded {
    /// Makes every checksum right again, after bytes within the sections were changed.
    pub(crate) fn seal(&mut self) {
        for section in &self.sections {
            let crc = crc32fast::hash(&self.bytes[section.clone()]);
            self.bytes[section.end..section.end + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte))
}

impl TraceFile {
    /// Takes a valid file apart.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let metadata_end = HEADER_BYTES + u32_at(bytes, 12);
        let mut at = metadata_end + 4;
        let mut blocks = Vec::new();
        while bytes[at] == TAG_BLOCK {
            let mut head = [0; HEAD_BYTES];
            head.copy_from_slice(&bytes[at..at + HEAD_BYTES]);
            let directory = &bytes[at + HEAD_BYTES..][..usize::from(head[1]) * ENTRY_BYTES];
            at += HEAD_BYTES + directory.len();
            let mut columns = Vec::new();
            for entry in directory.chunks_exact(ENTRY_BYTES) {
                let stored = &bytes[at..at + u32_at(entry, 4)];
                at += stored.len();
                let column = zstd::bulk::decompress(stored, COLUMN_BYTES_MAX).expect("a column of a valid trace");
                columns.push(Column { id: u32_at(entry, 0) as u32, bytes: column });
            }
            at += 4;
            blocks.push(Block { head, columns });
        }
        let totals = bytes[at + HEAD_BYTES..][..u32_at(bytes, at + 4)].to_vec();
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&bytes[..HEADER_BYTES]);
        Self { header, metadata: bytes[HEADER_BYTES..metadata_end].to_vec(), blocks, totals }
    }

    /// Puts it together again.
    pub(crate) fn encode(&self) -> Encoded {
        let mut bytes = Vec::new();
        let (mut sections, mut directories, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        bytes.extend_from_slice(&self.header[..12]);
        bytes.extend_from_slice(&(self.metadata.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.metadata);
        close(&mut bytes, 0, &mut sections);
        for block in &self.blocks {
            let from = bytes.len();
            bytes.extend_from_slice(&block.head);
            bytes[from + 1] = block.columns.len() as u8;
            let directory = bytes.len();
            let mut columns = Vec::new();
            for column in &block.columns {
                let compressed = zstd::bulk::compress(&column.bytes, LEVEL).expect("memory takes it");
                for number in [column.id, compressed.len() as u32, column.bytes.len() as u32] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                columns.extend(compressed);
            }
            directories.push(directory..bytes.len());
            stored.push(bytes.len()..bytes.len() + columns.len());
            bytes.extend(columns);
            close(&mut bytes, from, &mut sections);
        }
        let from = bytes.len();
        bytes.extend_from_slice(&[2, 0, 0, 0]);
        bytes.extend_from_slice(&(self.totals.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.totals);
        close(&mut bytes, from, &mut sections);
        bytes.extend_from_slice(&(self.totals.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&END_MAGIC);
        Encoded { bytes, sections, directories, stored }
    }
}

/// Ends a section with its checksum.
fn close(bytes: &mut Vec<u8>, from: usize, sections: &mut Vec<Range<usize>>) {
    sections.push(from..bytes.len());
    let crc = crc32fast::hash(&bytes[from..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
}
