//! Reads a log: its header, its tables, and the records of all threads in the program's own order.
//!
//! Invariant: memory is bounded by one chunk per thread and the list of chunks, whatever the length of the recording;
//! a log cut short at any point gives the records before that point, and bytes of any kind give no panic.

use crate::raw::{self, Record, mark, stop, text, word, word_at};
use crate::slot::raw_chunk;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most threads of a log that are believed.
const THREADS_MAX: usize = 1 << 20;

/// One entry of the table of marks.
#[derive(Clone, Debug)]
pub(crate) struct MarkEntry {
    pub(crate) name: String,
    pub(crate) words: [u64; 9],
}

impl MarkEntry {
    pub(crate) fn by(&self) -> u64 {
        self.words[mark::KIND]
    }

    pub(crate) fn memory(&self) -> Option<trace::MemoryReading> {
        (self.words[mark::RSS] != 0).then(|| trace::MemoryReading {
            rss_bytes: self.words[mark::RSS],
            rss_anon_bytes: self.words[mark::ANON],
            file_bytes: self.words[mark::FILE],
            relocated_bytes: self.words[mark::RELOCATED],
            stack_bytes: self.words[mark::STACK],
            recorder_bytes: 0,
        })
    }
}

/// One code mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) base: u64,
    pub(crate) module: String,
}

/// Where one thread's chunks lie: offset and bytes of each.
type Chunks = Vec<(u64, u64)>;

/// An opened log.
#[derive(Debug)]
pub(crate) struct RawFile {
    pub(crate) path: PathBuf,
    pub(crate) marks: Vec<MarkEntry>,
    pub(crate) mappings: Vec<Mapping>,
    /// Paths of the imported packages.
    pub(crate) imports: Vec<String>,
    file: File,
    head: Vec<u8>,
    threads: Vec<Chunks>,
}

impl RawFile {
    /// Opens a log and reads its tables.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = vec![0; raw::TABLES_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let mut opened = Self {
            path: path.to_owned(),
            marks: Vec::new(),
            mappings: Vec::new(),
            imports: Vec::new(),
            file,
            head,
            threads: Vec::new(),
        };
        if opened.word(word::MAGIC) != raw::MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not complete"));
        }
        opened.read_tables();
        opened.find_chunks()?;
        Ok(opened)
    }

    /// A word of the header.
    pub(crate) fn word(&self, index: usize) -> u64 {
        word_at(&self.head, index)
    }

    /// A text field of the header.
    pub(crate) fn text(&self, (at, room): (usize, usize)) -> String {
        text_of(&self.head[at..at + room])
    }

    pub(crate) fn has_flag(&self, bit: u64) -> bool {
        self.word(word::FLAGS) & bit != 0
    }

    /// The process that wrote it.
    pub(crate) fn pid(&self) -> u32 {
        self.word(word::PID) as u32
    }

    /// Whether the process was seen to exit.
    pub(crate) fn has_exited(&self) -> bool {
        self.word(word::STOP) == stop::EXIT
    }

    /// Name of the program, as the kernel knows it.
    pub(crate) fn program(&self) -> String {
        self.text(text::PROGRAM)
    }

    /// Room for records in the file: an upper bound of their number.
    pub(crate) fn records_max(&self) -> u64 {
        let bytes: u64 = self.threads.iter().flatten().map(|chunk| chunk.1).sum();
        bytes / raw::RECORD_BYTES as u64
    }

    /// Ticks of the time stamp counter in a second; `None` when the recording was too short to tell.
    pub(crate) fn ticks_per_second(&self) -> Option<u64> {
        let ticks = self.word(word::TSC_END).checked_sub(self.word(word::TSC_START))?;
        let ns = self.word(word::MONOTONIC_END_NS).checked_sub(self.word(word::MONOTONIC_START_NS))?;
        let per_second = u128::from(ticks) * 1_000_000_000 / u128::from(ns).max(1);
        (ns >= 1_000_000).then(|| u64::try_from(per_second).ok()).flatten()
    }

    fn read_tables(&mut self) {
        let table = |at: usize, bytes: usize, most: usize, used: u64| {
            self.head[at..at + most * bytes].chunks_exact(bytes).take(used.min(most as u64) as usize)
        };
        self.marks = table(raw::MARKS_AT, raw::MARK_BYTES, raw::MARKS_MAX, self.word(word::MARKS))
            .map(|entry| MarkEntry {
                name: text_of(&entry[mark::NAME_AT..]),
                words: std::array::from_fn(|index| word_at(entry, index)),
            })
            .collect();
        self.mappings = table(raw::MAPS_AT, raw::MAP_BYTES, raw::MAPS_MAX, self.word(word::MAPS))
            .map(|entry| Mapping {
                begin: word_at(entry, 0),
                end: word_at(entry, 1),
                base: word_at(entry, 2),
                module: text_of(&entry[raw::MAP_NAME_AT..]),
            })
            .collect();
        let used = self.word(word::LIST).min(raw::LIST_BYTES as u64) as usize;
        let list = self.head[raw::LIST_AT..][..used].split(|&byte| byte == 0);
        self.imports =
            list.filter(|path| !path.is_empty()).map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    }

    /// Walks the log from chunk to chunk.
    fn find_chunks(&mut self) -> io::Result<()> {
        let end = self.file.metadata()?.len();
        let mut at = raw::TABLES_BYTES as u64;
        while let Some((serial, bytes)) = raw_chunk(&self.file, at, end)? {
            if !(1..=THREADS_MAX).contains(&serial) {
                break;
            }
            if self.threads.len() < serial {
                self.threads.resize(serial, Chunks::default());
            }
            self.threads[serial - 1].push((at, bytes));
            at += bytes;
        }
        Ok(())
    }

    /// All records in the program's own order.
    pub(crate) fn records(&self) -> io::Result<Records<'_>> {
        let mut records = Records { raw: self, cursors: Vec::new(), heads: BinaryHeap::new(), current: None };
        for (thread, chunks) in self.threads.iter().enumerate() {
            let mut cursor = Cursor { chunks, bytes: Vec::new(), at: 0, head: None, last: 0 };
            cursor.advance(&self.file)?;
            if let Some(head) = cursor.head {
                records.heads.push(Reverse((head.seq, thread)));
            }
            records.cursors.push(cursor);
        }
        Ok(records)
    }
}

/// One thread's records.
struct Cursor<'a> {
    chunks: &'a [(u64, u64)],
    bytes: Vec<u8>,
    at: usize,
    head: Option<Record>,
    /// Number of the last record taken: what is not above it was read before.
    last: u64,
}

impl Cursor<'_> {
    /// Moves to the next record.
    fn advance(&mut self, file: &File) -> io::Result<()> {
        loop {
            if let Some(bytes) = self.bytes.get(self.at..self.at + raw::RECORD_BYTES) {
                let words = std::array::from_fn(|index| word_at(bytes, index));
                self.at += raw::RECORD_BYTES;
                self.head = Record::unpack(words).filter(|record| record.seq > self.last);
                if let Some(record) = self.head {
                    self.last = record.seq;
                    return Ok(());
                }
            }
            let Some((&(offset, bytes), rest)) = self.chunks.split_first() else {
                self.head = None;
                self.bytes = Vec::new();
                return Ok(());
            };
            self.chunks = rest;
            self.bytes.resize(bytes as usize, 0);
            file.read_exact_at(&mut self.bytes, offset)?;
            self.at = raw::CHUNK_HEADER_BYTES;
        }
    }
}

/// The records of all threads, merged by sequence number.
pub(crate) struct Records<'a> {
    raw: &'a RawFile,
    cursors: Vec<Cursor<'a>>,
    /// Next sequence number of every thread but the current one.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
    current: Option<usize>,
}

impl Records<'_> {
    /// The next record and the thread (from 0, in the order of first appearance in the file) that wrote it.
    pub(crate) fn next(&mut self) -> io::Result<Option<(usize, Record)>> {
        let mine = self.current.and_then(|thread| Some((self.cursors[thread].head?.seq, thread)));
        let first = self.heads.peek().map(|head| head.0);
        let thread = match (mine, first) {
            (Some(mine), Some(first)) if first < mine => {
                self.heads.pop();
                self.heads.push(Reverse(mine));
                first.1
            }
            (Some(mine), _) => mine.1,
            (None, Some(first)) => {
                self.heads.pop();
                first.1
            }
            (None, None) => return Ok(None),
        };
        self.current = Some(thread);
        let record = self.cursors[thread].head;
        self.cursors[thread].advance(&self.raw.file)?;
        Ok(record.map(|record| (thread, record)))
    }
}

fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
