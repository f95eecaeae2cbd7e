//! The session's side of the session file: makes it, has the slots' windows taken into their logs while the program
//! runs, and ends the recording.
//!
//! Invariant: disk space for the trace is kept before raw data takes it; where that fails, every process stops.

use crate::raw::{self, session, stop};
use crate::slot::{Slot, Words, limit_of_files};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Slots that a session file has room for.
pub(crate) const SLOTS_MAX: u64 = 16_384;
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
        let token = u64::from_str_radix(&files::random()?, 16).unwrap_or_default();
        let mut created = Self::of(folder, file)?;
        for (index, value) in
            [(session::TOKEN, token), (session::SLOTS_MAX, slots_max), (session::MAGIC, raw::SESSION_MAGIC)]
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
            Ok(log) => Finished { log, waited_ns: slot.waited_ns() },
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
        let logged: u64 = self.slots.iter().map(Slot::log_bytes).sum();
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

/// Has every process stop recording for this reason, unless there is one already.
fn close(session: &Words, reason: u64) {
    let _ = session.word(session::CLOSED).compare_exchange(0, reason, Ordering::AcqRel, Ordering::Acquire);
}
