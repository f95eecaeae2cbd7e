//! The session's side of the session file: makes it, takes full windows out of the queues of all slots into their logs,
//! and completes the logs when the recording is over.
//!
//! Invariant: a window is made free only after its bytes are in the log; what could not be written is cut off at one
//! sequence number, so that a log never lacks records from its middle.

use crate::raw::{self, CHUNK_HEADER_BYTES, RECORD_BYTES, Record, WINDOW_BYTES, WINDOWS, chunk, ring, session, stop};
use crate::raw::{TABLES_BYTES, word};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Slots that a session file has room for.
pub(crate) const SLOTS_MAX: u64 = 16_384;
/// Bytes of chunks that are written at once.
const BATCH_BYTES: usize = 1 << 20;
/// A trace takes less than a sixteenth of its raw data (0.7 to 1.3 of 32 bytes an event), and its metadata a little.
const RESERVE_BYTES_MIN: u64 = 4 << 20;
const RESERVE_SHARE: u64 = 16;
/// Pauses between two looks at the queues: after one that found something, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(16);
/// Name of the file that keeps disk space for the trace.
pub(crate) const RESERVE_FILE: &str = "reserve";
/// Suffix of the logs' names.
pub(crate) const LOG_SUFFIX: &str = "log";

/// A shared mapping of words.
#[derive(Debug)]
struct Words {
    at: *const AtomicU64,
    bytes: usize,
}

// SAFETY: atomic words, mapped as long as the value lives.
unsafe impl Send for Words {}

impl Words {
    fn map(file: &File, offset: u64, bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping of an open file, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), offset as i64)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { at: at.cast(), bytes }) }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.bytes / 8, "a word of the mapping");
        // SAFETY: inside the mapping; the file is never shorter than what is mapped of it.
        unsafe { &*self.at.add(index) }
    }

    fn get(&self, index: usize) -> u64 {
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
struct Slot {
    /// Header, tables and ring.
    words: Words,
    offset: u64,
    log: PathBuf,
    /// Where the next chunk goes in the log.
    at: u64,
}

/// What became of a slot.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The completed log; none where the process never came to its first record.
    pub(crate) log: Option<PathBuf>,
    /// Time that the process's threads waited for the session, nanoseconds.
    pub(crate) waited_ns: u64,
}

/// The session file, open.
#[derive(Debug)]
pub(crate) struct SessionFile {
    folder: PathBuf,
    file: File,
    words: Words,
    slots: Vec<Slot>,
    reserve_bytes: u64,
    /// The first failure to write.
    refused: Option<io::Error>,
}

impl SessionFile {
    /// Makes the session file, and keeps disk space for a trace.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        if limit_of_files() < raw::slot_at(1) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let file = files::new_data(&folder.join(raw::SESSION_FILE))?;
        let slots_max = SLOTS_MAX.min(limit_of_files().saturating_sub(raw::slot_at(0)) / raw::SLOT_BYTES as u64);
        file.set_len(raw::slot_at(slots_max))?;
        files::new_data(&folder.join(RESERVE_FILE))?;
        let mut created = Self::of(folder, file)?;
        for (index, value) in
            [(session::TOKEN, random()), (session::SLOTS_MAX, slots_max), (session::MAGIC, raw::SESSION_MAGIC)]
        {
            created.words.word(index).store(value, Ordering::Release);
        }
        created.keep_reserve()?;
        Ok(created)
    }

    /// Opens what a session left, with the logs as far as they go; none where the session was killed before it could
    /// start the program.
    pub(crate) fn open(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(raw::SESSION_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let file = files::open_data(&path)?;
        if file.metadata()?.len() < raw::slot_at(1) {
            return Ok(None);
        }
        let opened = Self::of(folder, file)?;
        match opened.words.get(session::MAGIC) {
            0 => Ok(None),
            raw::SESSION_MAGIC => Ok(Some(opened)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "another version made it")),
        }
    }

    fn of(folder: &Path, file: File) -> io::Result<Self> {
        let words = Words::map(&file, 0, raw::SESSION_BYTES)?;
        Ok(Self { folder: folder.to_owned(), file, words, slots: Vec::new(), reserve_bytes: 0, refused: None })
    }

    /// The process that the session started; 0 where that is not known.
    pub(crate) fn main_pid(&self) -> u32 {
        self.words.get(session::MAIN_PID) as u32
    }

    /// Processes that asked for a slot.
    pub(crate) fn claimed(&self) -> u64 {
        self.words.get(session::SLOTS)
    }

    /// Processes that asked for a slot and found none.
    pub(crate) fn turned_away(&self) -> u64 {
        self.claimed().saturating_sub(self.words.get(session::SLOTS_MAX))
    }

    /// Whether a program was started that could not load the recorder.
    pub(crate) fn has_not_loaded(&self) -> bool {
        self.words.get(session::NOT_LOADED) > 0
    }

    /// Why raw data could not be written, if so.
    pub(crate) fn refused(&self) -> Option<&io::Error> {
        self.refused.as_ref()
    }

    /// Takes every queued window. Whether there was one.
    pub(crate) fn drain(&mut self) -> bool {
        self.find_slots();
        let mut has_taken = false;
        for index in 0..self.slots.len() {
            let taken = self.slots[index].drain(&self.file, &self.words, false);
            has_taken |= taken.as_ref().is_ok_and(|taken| *taken);
            if let Err(error) = taken.and_then(|_| if has_taken { self.keep_reserve() } else { Ok(()) }) {
                close(&self.words, stop::DISK);
                self.refused.get_or_insert(error);
            }
        }
        has_taken
    }

    /// Ends the recording in every process that still runs, and completes the logs.
    pub(crate) fn finish(&mut self) -> Vec<Finished> {
        close(&self.words, stop::LEFT);
        self.drain();
        let Self { file, words, slots, refused, .. } = self;
        let finish = |slot: &mut Slot| match slot.finish(file, words) {
            Ok(log) => Finished { log, waited_ns: slot.words.get(raw::RING_AT / 8 + ring::WAITED_NS) },
            Err(error) => {
                refused.get_or_insert(error);
                Finished { log: None, waited_ns: 0 }
            }
        };
        slots.iter_mut().map(finish).collect()
    }

    /// Gives the disk space back that was kept for the trace.
    pub(crate) fn drop_reserve(&self) {
        if let Ok(reserve) = files::open_data(&self.folder.join(RESERVE_FILE)) {
            let _ = reserve.set_len(0);
        }
    }

    fn find_slots(&mut self) {
        let count = self.claimed().min(self.words.get(session::SLOTS_MAX));
        while (self.slots.len() as u64) < count {
            let index = self.slots.len() as u64;
            let log = self.folder.join(format!("{index:04}.{LOG_SUFFIX}"));
            // Without a mapping (a limit of ours) the slot is looked at again later.
            match Slot::open(&self.file, raw::slot_at(index), log) {
                Ok(slot) => self.slots.push(slot),
                Err(error) => {
                    self.refused.get_or_insert(error);
                    return;
                }
            }
        }
    }

    /// Keeps as much disk space as the trace of what is logged may need.
    fn keep_reserve(&mut self) -> io::Result<()> {
        let logged: u64 = self.slots.iter().map(|slot| slot.at).sum();
        let wanted = logged / RESERVE_SHARE + RESERVE_BYTES_MIN;
        if wanted <= self.reserve_bytes {
            return Ok(());
        }
        let wanted = (wanted + RESERVE_BYTES_MIN / 4).min(limit_of_files());
        let reserve = files::open_data(&self.folder.join(RESERVE_FILE))?;
        // SAFETY: an open descriptor.
        match unsafe { libc::posix_fallocate(reserve.as_raw_fd(), 0, wanted as i64) } {
            0 => self.reserve_bytes = wanted,
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(())
    }
}

/// The thread that takes windows out of the queues while the program runs.
pub(crate) struct Drainer {
    words: Words,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<SessionFile>,
}

impl Drainer {
    pub(crate) fn start(mut session: SessionFile) -> io::Result<Self> {
        let words = Words::map(&session.file, 0, raw::SESSION_BYTES)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&is_over);
        let drain = move || {
            let mut pause = PAUSE_MIN;
            while !watched.load(Ordering::Acquire) {
                pause = if session.drain() { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                std::thread::park_timeout(pause);
            }
            session
        };
        let thread = std::thread::Builder::new().name("drain".to_owned()).spawn(drain)?;
        Ok(Self { words, is_over, thread })
    }

    /// Notes which process the session started.
    pub(crate) fn set_main_pid(&self, pid: u32) {
        self.words.word(session::MAIN_PID).store(u64::from(pid), Ordering::Release);
    }

    /// Ends the recording in every process that still runs, and stops draining.
    pub(crate) fn finish(self) -> SessionFile {
        close(&self.words, stop::LEFT);
        self.is_over.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Slot {
    fn open(file: &File, offset: u64, log: PathBuf) -> io::Result<Self> {
        let words = Words::map(file, offset, raw::WINDOWS_AT)?;
        let at = if log.exists() { end_of_chunks(&log)? } else { TABLES_BYTES as u64 };
        Ok(Self { words, offset, log, at })
    }

    fn ring(&self, index: usize) -> &AtomicU64 {
        self.words.word(raw::RING_AT / 8 + index)
    }

    /// Takes what is queued; whether there was anything. `is_last`: an entry that its thread has not written yet is
    /// passed over.
    fn drain(&mut self, file: &File, session: &Words, is_last: bool) -> io::Result<bool> {
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
    fn finish(&mut self, file: &File, session: &Words) -> io::Result<Option<PathBuf>> {
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

    /// Windows with records that are in no log.
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

/// Has every process stop recording for this reason, unless there is one already.
fn close(session: &Words, reason: u64) {
    let _ = session.word(session::CLOSED).compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
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

fn word_at(bytes: &[u8], index: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[index * 8..][..8]);
    u64::from_le_bytes(word)
}

/// Largest file that this process may write; a write beyond it would end the process.
fn limit_of_files() -> u64 {
    let mut limits = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
    // SAFETY: a valid structure.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) };
    limits.rlim_cur
}

fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() | 1
}
