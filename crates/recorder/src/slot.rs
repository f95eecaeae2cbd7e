//! One exec image or forked child: its ring, and the log that takes its windows.
//!
//! Invariant: a window is made free only after its bytes are in the log; what could not be written is cut off at one
//! sequence number, so that a log never lacks records from its middle.

use crate::raw::{self, CHUNK_HEADER_BYTES, RECORD_BYTES, Record, TABLES_BYTES, WINDOW_BYTES, WINDOWS};
use crate::raw::{chunk, ring, session, stop, word, word_at};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of chunks that are written at once.
const BATCH_BYTES: usize = 1 << 20;

/// A shared mapping of words.
#[derive(Debug)]
pub(crate) struct Words {
    at: *const AtomicU64,
    bytes: usize,
}

// SAFETY: atomic words, mapped as long as the value lives.
unsafe impl Send for Words {}

impl Words {
    pub(crate) fn map(file: &File, offset: u64, bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of an open file, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), offset as i64)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { at: at.cast(), bytes }) }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.bytes / 8, "a word of the mapping");
        // SAFETY: inside the mapping; the file is never shorter than what is mapped of it.
        unsafe { &*self.at.add(index) }
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; nothing borrowed from it outlives the value.
        unsafe { libc::munmap(self.at.cast_mut().cast(), self.bytes) };
    }
}

/// One exec image or forked child.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Header, tables and ring.
    words: Words,
    offset: u64,
    log: PathBuf,
    /// Where the next chunk goes in the log.
    at: u64,
}

impl Slot {
    pub(crate) fn open(file: &File, offset: u64, log: PathBuf) -> io::Result<Self> {
        let words = Words::map(file, offset, raw::WINDOWS_AT)?;
        let at = if log.exists() { end_of_chunks(&log)? } else { TABLES_BYTES as u64 };
        Ok(Self { words, offset, log, at })
    }

    /// Bytes of the log so far.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.at
    }

    /// Time that the process's threads waited for the session, nanoseconds.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.ring(ring::WAITED_NS).load(Ordering::Acquire)
    }

    fn ring(&self, index: usize) -> &AtomicU64 {
        self.words.word(raw::RING_AT / 8 + index)
    }

    /// Takes what is queued; whether there was anything. `is_last`: an entry that its thread has not written yet is
    /// passed over.
    pub(crate) fn drain(&mut self, file: &File, session: &Words, is_last: bool) -> io::Result<bool> {
        let mut has_taken = false;
        // Up to where the queue goes now: a busy process always adds more.
        let head = self.ring(ring::HEAD).load(Ordering::Acquire);
        loop {
            let (mut batch, mut taken) = (Vec::new(), Vec::new());
            let tail = self.ring(ring::TAIL).load(Ordering::Relaxed);
            let mut next = tail;
            while batch.len() < BATCH_BYTES && next < head {
                let entry = self.ring(ring::QUEUE + next as usize % WINDOWS).load(Ordering::Acquire) as usize;
                if (1..=WINDOWS).contains(&entry) {
                    append_window(&self.window(file, entry - 1)?, &mut batch);
                    taken.push(entry - 1);
                } else if !is_last {
                    break;
                }
                next += 1;
            }
            if next == tail {
                return Ok(has_taken);
            }
            self.write(file, &batch)?;
            for place in tail..next {
                self.ring(ring::QUEUE + place as usize % WINDOWS).store(0, Ordering::Release);
            }
            for index in taken {
                self.ring(ring::FREE + index / 64).fetch_or(1 << (index % 64), Ordering::AcqRel);
            }
            // After the windows are free: who sees an empty queue has seen them.
            self.ring(ring::TAIL).store(next, Ordering::Release);
            session.word(session::BEAT).fetch_add(1, Ordering::AcqRel);
            has_taken = true;
        }
    }

    /// Appends to the log, which begins with the tables as they are now, so that their place is kept.
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<()> {
        let is_new = self.at == TABLES_BYTES as u64;
        if self.at + bytes.len() as u64 > limit_of_files() {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let log = if is_new && !self.log.exists() { files::new_data(&self.log)? } else { files::open_data(&self.log)? };
        if is_new {
            log.write_all_at(&self.tables(file)?, 0)?;
        }
        log.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn tables(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut tables = vec![0; TABLES_BYTES];
        file.read_exact_at(&mut tables, self.offset)?;
        Ok(tables)
    }

    /// Completes the log with what threads have in their windows, and with the tables as they are now.
    pub(crate) fn finish(&mut self, file: &File, session: &Words) -> io::Result<Option<PathBuf>> {
        if self.words.get(word::MAGIC) != raw::MAGIC {
            return Ok(None);
        }
        let taken = self.windows_in_use();
        let result = self.drain(file, session, true).and_then(|_| {
            let mut batch = Vec::new();
            for index in self.windows_in_use() {
                append_window(&self.window(file, index)?, &mut batch);
            }
            self.write(file, &batch)
        });
        let mut tables = self.tables(file)?;
        if word_at(&tables, word::STOP) == stop::RUNNING && self.is_alive(word_at(&tables, word::PID)) {
            put(&mut tables, word::STOP, stop::LEFT);
        }
        if let Err(error) = result {
            let first_seq = |index: usize| {
                let window = self.window(file, index).ok()?;
                Some(word_at(&window, chunk::FIRST_SEQ)).filter(|_| word_at(&window, chunk::MAGIC) == raw::CHUNK_MAGIC)
            };
            let cut = taken.iter().filter_map(|&index| first_seq(index)).min();
            cut_off(&mut tables, cut.unwrap_or(1), &error);
        }
        files::open_data(&self.log)?.write_all_at(&tables, 0)?;
        Ok(Some(self.log.clone()))
    }

    /// Whether a process of this id has this slot mapped.
    fn is_alive(&self, pid: u64) -> bool {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let (offset, path) = (format!(" {:08x} ", self.offset), self.log.with_file_name(raw::SESSION_FILE));
        maps.lines().any(|line| line.contains(&offset) && path.to_str().is_some_and(|path| line.ends_with(path)))
    }

    /// Windows whose records no log holds yet.
    fn windows_in_use(&self) -> Vec<usize> {
        let map = |kind: usize, index: usize| self.ring(kind + index / 64).load(Ordering::Acquire) >> (index % 64) & 1;
        (0..WINDOWS).filter(|&index| map(ring::POPULATED, index) == 1 && map(ring::FREE, index) == 0).collect()
    }

    fn window(&self, file: &File, index: usize) -> io::Result<Vec<u8>> {
        let mut window = vec![0; WINDOW_BYTES];
        file.read_exact_at(&mut window, self.offset + (raw::WINDOWS_AT + index * WINDOW_BYTES) as u64)?;
        Ok(window)
    }
}

/// Appends the window's records as a chunk. In a window that a thread still fills they end where a record is older than
/// the one before it.
fn append_window(window: &[u8], batch: &mut Vec<u8>) {
    if word_at(window, chunk::MAGIC) != raw::CHUNK_MAGIC {
        return;
    }
    let declared = word_at(window, chunk::BYTES) as usize;
    let is_full = (CHUNK_HEADER_BYTES..=WINDOW_BYTES).contains(&declared);
    let bytes = if is_full { declared } else { CHUNK_HEADER_BYTES + bytes_of_records(window) };
    let begin = batch.len();
    batch.extend_from_slice(&window[..bytes]);
    batch[begin + chunk::BYTES * 8..][..8].copy_from_slice(&(bytes as u64).to_le_bytes());
}

fn bytes_of_records(window: &[u8]) -> usize {
    let mut next_seq = word_at(window, chunk::FIRST_SEQ);
    let is_record = |record: &&[u8]| {
        let found = Record::unpack(std::array::from_fn(|index| word_at(record, index)));
        let is_next = found.is_some_and(|found| found.seq >= next_seq);
        next_seq = found.map_or(0, |found| found.seq + 1);
        is_next
    };
    window[CHUNK_HEADER_BYTES..].chunks_exact(RECORD_BYTES).take_while(is_record).count() * RECORD_BYTES
}

/// Says in a log's tables that records from this sequence number on are missing, and why.
fn cut_off(tables: &mut [u8], seq: u64, error: &io::Error) {
    put(tables, word::STOP, stop::DISK);
    put(tables, word::STOP_SEQ, seq.max(1));
    put(tables, word::STOP_ERRNO, error.raw_os_error().unwrap_or(0) as u64);
}

fn put(tables: &mut [u8], index: usize, value: u64) {
    tables[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
}

/// Where the last whole chunk of a log ends.
fn end_of_chunks(log: &Path) -> io::Result<u64> {
    let file = files::open_data(log)?;
    let end = file.metadata()?.len();
    let mut at = TABLES_BYTES as u64;
    while let Some((_, bytes)) = raw_chunk(&file, at, end)? {
        at += bytes;
    }
    Ok(at)
}

/// Thread and bytes of the whole chunk at this place of a log; none where there is none.
pub(crate) fn raw_chunk(log: &File, at: u64, end: u64) -> io::Result<Option<(usize, u64)>> {
    if at + CHUNK_HEADER_BYTES as u64 > end {
        return Ok(None);
    }
    let mut header = [0; CHUNK_HEADER_BYTES];
    log.read_exact_at(&mut header, at)?;
    let bytes = word_at(&header, chunk::BYTES);
    let is_whole = word_at(&header, chunk::MAGIC) == raw::CHUNK_MAGIC
        && (CHUNK_HEADER_BYTES as u64..=WINDOW_BYTES as u64).contains(&bytes)
        && at + bytes <= end;
    Ok(is_whole.then_some((word_at(&header, chunk::SERIAL) as usize, bytes)))
}

/// Largest file that this process may write; a write beyond it would end the process.
pub(crate) fn limit_of_files() -> u64 {
    let mut limits = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
    // SAFETY: a valid structure.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) };
    limits.rlim_cur
}
