//! The sampler: the memory of another process, read from outside in `/proc`.
//!
//! What no allocator handed out is told apart: written pages of file mappings (relocations and data of the interpreter
//! and its libraries), zero-initialised data behind them, stacks. What remains is heap from the first call on, as in a
//! replay, which begins at start-up too.
//!
//! Invariant: exact page counts (`smaps`, `smaps_rollup`); looking for a peak takes a twentieth of the time at most.

use crate::run::bounded;
use object::Endianness;
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Shortest time between two looks.
const EVERY_MIN: Duration = Duration::from_millis(3);
/// A look may take this share of the time until the next.
const SHARE: u32 = 20;
/// Longest wait for a held program's threads to stop: one that ends takes some 100 us, or a time slice of a busy host.
const SETTLE_MAX: Duration = Duration::from_millis(50);
const SETTLE_EVERY: Duration = Duration::from_micros(200);
/// Size of the guard page below a thread's stack.
const GUARD_BYTES: u64 = 4096;
const OS_PAGE: u64 = 4096;

/// Resident anonymous memory at one moment, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// All of it.
    pub anonymous: u64,
    /// Of which no heap.
    pub no_heap: u64,
    /// Of which transparent huge pages.
    pub huge: u64,
}

impl Reading {
    /// What allocators hold.
    pub(super) fn heap(&self) -> u64 {
        self.anonymous.saturating_sub(self.no_heap)
    }
}

/// The kernel's own high-water mark, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HighWater {
    /// Of all resident memory.
    pub rss: u64,
    /// Of the anonymous part: less file and shared pages as they are now.
    pub anonymous: u64,
}

/// Follows one process.
#[derive(Debug)]
pub(crate) struct Sampler {
    pid: u32,
    /// Zero-initialised bytes of each mapped library.
    static_bytes: HashMap<PathBuf, u64>,
    /// Largest anonymous reading since the last [`Self::forget`].
    peak: u64,
    next: Instant,
    /// Times that it looked.
    pub polls: u32,
}

impl Sampler {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid, static_bytes: HashMap::new(), peak: 0, next: Instant::now(), polls: 0 }
    }

    /// Looks for a new peak, if it is time to; how long to wait until the next look.
    pub(super) fn look(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.next {
            // A process that has just ended or not yet begun has nothing to read.
            if let Some(anonymous) = anonymous_bytes(self.pid) {
                self.peak = self.peak.max(anonymous);
                self.polls += 1;
            }
            self.next = Instant::now() + EVERY_MIN.max(now.elapsed() * SHARE);
        }
        self.next.saturating_duration_since(Instant::now())
    }

    /// Largest anonymous memory since the last [`Self::forget`] or the start.
    pub(super) fn peak_anonymous(&self) -> u64 {
        self.peak.max(self.high_water().map_or(0, |high| high.anonymous))
    }

    pub(super) fn high_water(&self) -> Option<HighWater> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let field = |name: &str| text.lines().find_map(|line| kibibytes(line, name));
        let (rss, file, shared) = (field("VmHWM:")?, field("RssFile:")?, field("RssShmem:")?);
        Some(HighWater { rss, anonymous: rss.saturating_sub(file + shared) })
    }

    /// Waits until the threads of a program that is held at a mark have stopped, [`SETTLE_MAX`] at most: a thread that
    /// was joined may not have ended yet, and what it holds goes with it.
    pub(super) fn settle(&self) {
        let began = Instant::now();
        while began.elapsed() < SETTLE_MAX && is_running(self.pid) {
            thread::sleep(SETTLE_EVERY);
        }
    }

    /// Minor page faults of the process so far.
    pub(super) fn faults_minor(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
    }

    /// Starts to look for the peak anew.
    pub(super) fn forget(&mut self) {
        self.peak = 0;
        // Where it is not allowed the looks alone find the peak.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    /// Reads everything; the process should be held meanwhile.
    pub(super) fn read(&mut self) -> io::Result<Reading> {
        let text = fs::read(format!("/proc/{}/smaps", self.pid))?;
        let reading = self.reading(&String::from_utf8_lossy(&text));
        self.peak = self.peak.max(reading.anonymous);
        Ok(reading)
    }

    /// What a text of `smaps` says.
    pub(crate) fn reading(&mut self, text: &str) -> Reading {
        let mut reading = Reading::default();
        let mut before: Option<Mapping> = None;
        let mut now: Option<Mapping> = None;
        for line in text.lines() {
            if let Some(mapping) = Mapping::parse(line) {
                before = now.replace(mapping);
            } else if let (Some(bytes), Some(mapping)) = (kibibytes(line, "Anonymous:"), &now) {
                reading.anonymous = reading.anonymous.saturating_add(bytes);
                let no_heap = self.no_heap(mapping, before.as_ref(), bytes);
                reading.no_heap = reading.no_heap.saturating_add(no_heap);
            } else if let Some(bytes) = kibibytes(line, "AnonHugePages:") {
                reading.huge = reading.huge.saturating_add(bytes);
            }
        }
        reading
    }

    /// How much of a mapping's anonymous memory is no heap, given the mapping before it.
    fn no_heap(&mut self, mapping: &Mapping, before: Option<&Mapping>, bytes: u64) -> u64 {
        if mapping.name.starts_with('/') || mapping.name == "[stack]" {
            return bytes;
        }
        match before.filter(|before| mapping.name.is_empty() && before.end == mapping.start) {
            Some(before) if before.name.starts_with('/') => bytes.min(self.static_bytes_of(&before.name)),
            Some(before) if before.is_guard() => bytes, // a thread's stack above its guard page
            _ => 0,
        }
    }

    fn static_bytes_of(&mut self, path: &str) -> u64 {
        let path = Path::new(path);
        if let Some(known) = self.static_bytes.get(path) {
            return *known;
        }
        let bytes = static_bytes(path).unwrap_or(0);
        self.static_bytes.insert(path.to_path_buf(), bytes);
        bytes
    }
}

/// The first line of a mapping in `smaps`.
#[derive(Debug)]
struct Mapping {
    start: u64,
    end: u64,
    mode: String,
    name: String,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |digits| u64::from_str_radix(digits, 16).ok();
        let mut words = rest.splitn(5, ' ');
        let mode = words.next()?.to_owned();
        // Offset, device and inode stand before the name, which is padded with spaces.
        let name = words.nth(3).unwrap_or_default().trim_start().to_owned();
        Some(Self { start: address(start)?, end: address(end)?, mode, name })
    }

    fn is_guard(&self) -> bool {
        self.mode == "---p" && self.end.checked_sub(self.start) == Some(GUARD_BYTES)
    }
}

/// Whether any thread of a process runs, or waits for the kernel.
fn is_running(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let state = |stat: String| stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
    stats.filter_map(state).any(|state| matches!(state, 'R' | 'D'))
}

/// Anonymous memory of a process, bytes: cheap.
fn anonymous_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| kibibytes(line, "Anonymous:"))
}

fn kibibytes(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of zero-initialised data that the loader maps behind a library's file pages; none for other files.
pub(crate) fn static_bytes(path: &Path) -> Option<u64> {
    let file = ReadCache::new(bounded::open(path).ok()?);
    let header = FileHeader64::<Endianness>::parse(&file).ok()?;
    let endian = header.endian().ok()?;
    let entries = header.program_headers(endian, &file).ok()?.iter();
    let written = entries.filter(|entry| entry.p_type(endian) == PT_LOAD && entry.p_flags(endian).contains(PF_W));
    let behind = written.map(|entry| entry.p_memsz(endian).saturating_sub(entry.p_filesz(endian)));
    Some(behind.map(|bytes| bytes.div_ceil(OS_PAGE).saturating_mul(OS_PAGE)).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::probe::sys;

    #[test]
    fn mappings_are_parsed_with_and_without_a_name() {
        let line = "7f00-8000 rw-p 00001000 fe:00 1234                       /usr/lib/a b.so";
        let named = Mapping::parse(line).unwrap();
        assert_eq!((named.start, named.end, named.name.as_str()), (0x7f00, 0x8000, "/usr/lib/a b.so"));
        let unnamed = Mapping::parse("8000-9000 ---p 00000000 00:00 0 ").unwrap();
        assert!(unnamed.name.is_empty() && unnamed.is_guard());
        assert_eq!(Mapping::parse("7f-80 rw-p 00000000 00:00 0    [stack]").unwrap().name, "[stack]");
        assert!(Mapping::parse("Anonymous:            12 kB").is_none());
    }

    #[test]
    fn what_is_no_heap_is_taken_off() {
        sys::in_a_child(|| {
            let mut sampler = Sampler::new(std::process::id());
            let before = sampler.read().unwrap();
            assert!(before.no_heap > 0 && before.no_heap < before.anonymous, "{before:?}");
            let block = vec![1_u8; 64 << 20];
            let after = sampler.read().unwrap();
            let grown = after.heap() - before.heap();
            assert!((64 << 20..66 << 20).contains(&grown), "{after:?} after {before:?}");
            drop(block);
            assert!(sampler.peak_anonymous() >= after.anonymous);
            sampler.forget();
            sampler.look();
            assert!(sampler.polls > 0 && sampler.peak > 0);
        });
    }

    #[test]
    fn zeroed_data_is_read_from_the_program_headers() {
        assert_eq!(static_bytes(Path::new("/dev/null")), None, "shorter than a header");
        let own = static_bytes(&std::env::current_exe().unwrap()).unwrap();
        assert!(own > 0 && own.is_multiple_of(OS_PAGE), "{own}");
    }
}
