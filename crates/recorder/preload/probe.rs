//! What the kernel says about the process: its mappings, its resident memory, the pages that are present.
//!
//! Invariant: reads `/proc` through static buffers, so that a reading shows up neither in the heap nor in itself; the
//! recorder's own pages are left out of every figure.

use crate::large;
use crate::lock::{Guarded, Spin};
use crate::raw::{MAP_BYTES, MAP_NAME_AT, MAPS_AT, MAPS_MAX, word};
use crate::{recording, setup, sys};
use core::ffi::{CStr, c_void};
use core::sync::atomic::Ordering;

/// Guards the buffer and the mapping entries. Taken after every other lock.
pub static LOCK: Spin = Spin::new();
const BUFFER: usize = 64 * 1024;
static LINES: Guarded<[u8; BUFFER]> = Guarded::new([0; BUFFER]);

/// `PAGEMAP_SCAN` of the kernel, from 6.7 on, and the categories of pages that it knows.
const PAGEMAP_SCAN: i64 = 0xC060_6610;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_ZERO: u64 = 1 << 5;

/// `struct pm_scan_arg` of the kernel.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walked_to: u64,
    regions: u64,
    regions_max: u64,
    pages_max: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    told: u64,
}

/// Bytes of the block in pages that are present and not the kernel's page of zeros; `None` where the kernel is older
/// than 6.7.
pub fn written_bytes(block: usize, size: usize) -> Option<u64> {
    const REGIONS: usize = 128;
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { sys::open(c"/proc/self/pagemap".as_ptr(), sys::O_RDONLY_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    let mut regions = [[0_u64; 3]; REGIONS];
    let (first, end) = (block & !(sys::OS_PAGE - 1), (block + size).next_multiple_of(sys::OS_PAGE));
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start: first as u64,
        end: end as u64,
        regions: regions.as_mut_ptr() as u64,
        regions_max: REGIONS as u64,
        inverted: PAGE_IS_ZERO,
        mask: PAGE_IS_PRESENT | PAGE_IS_ZERO,
        told: PAGE_IS_PRESENT,
        ..Scan::default()
    };
    let mut written = Some(0);
    while scan.start < scan.end {
        // SAFETY: the kernel writes to the argument and to as many regions as it was told there are.
        let found = unsafe { sys::syscall(sys::SYS_IOCTL, i64::from(fd), PAGEMAP_SCAN, &raw mut scan) };
        if found < 0 || scan.walked_to <= scan.start {
            written = None;
            break;
        }
        let within = |region: &[u64; 3]| region[1].min((block + size) as u64) - region[0].max(block as u64);
        let bytes: u64 = regions.iter().take(found as usize).map(within).sum();
        written = written.map(|before| before + bytes);
        scan.start = scan.walked_to;
    }
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
    written
}

/// Bytes from `begin` on, at most `bytes`, that are mapped without a gap.
pub fn mapped_bytes(begin: usize, bytes: usize) -> usize {
    let mut end = begin & !(sys::OS_PAGE - 1);
    let mut present = 0_u8;
    // SAFETY: room for one page's answer.
    while end < begin + bytes && unsafe { sys::mincore(end as *mut c_void, sys::OS_PAGE, &mut present) } == 0 {
        end += sys::OS_PAGE;
    }
    end.saturating_sub(begin).min(bytes)
}

/// How many whole OS pages are resident; `None` where one of them is not mapped.
pub fn resident_pages(begin: usize, end: usize) -> Option<usize> {
    const PAGES: usize = 4096;
    let mut present = [0_u8; PAGES];
    let mut pages = 0;
    let mut at = begin;
    while at < end {
        let bytes = (end - at).min(PAGES * sys::OS_PAGE);
        // SAFETY: `present` has a byte for each page of the range.
        if unsafe { sys::mincore(at as *mut c_void, bytes, present.as_mut_ptr()) } != 0 {
            return None;
        }
        pages += present[..bytes / sys::OS_PAGE].iter().filter(|&page| page & 1 != 0).count();
        at += bytes;
    }
    Some(pages)
}

/// Calls `each` with every line of a `/proc` file. `LOCK` is held.
fn for_each_line(path: &CStr, mut each: impl FnMut(&[u8])) {
    // SAFETY: the lock is held.
    let buffer = unsafe { LINES.get() };
    // SAFETY: a NUL-terminated path.
    let fd = unsafe { sys::open(path.as_ptr(), sys::O_RDONLY_CLOEXEC) };
    if fd < 0 {
        return;
    }
    let mut filled = 0;
    loop {
        // SAFETY: the free rest of the buffer.
        let got = unsafe { sys::read(fd, buffer[filled..].as_mut_ptr().cast(), BUFFER - filled) };
        if got <= 0 {
            break;
        }
        filled += got as usize;
        let mut begin = 0;
        while let Some(length) = buffer[begin..filled].iter().position(|&byte| byte == b'\n') {
            each(&buffer[begin..begin + length]);
            begin += length + 1;
        }
        buffer.copy_within(begin..filled, 0);
        filled -= begin;
        if filled == BUFFER {
            break; // No line is that long.
        }
    }
    // SAFETY: opened above.
    unsafe { sys::close(fd) };
}

/// A line of `/proc/self/maps`.
struct Mapping<'a> {
    begin: usize,
    end: usize,
    is_code: bool,
    /// Whether it begins where its file does.
    is_first: bool,
    path: &'a [u8],
}

fn mapping(line: &[u8]) -> Option<Mapping<'_>> {
    let dash = line.iter().position(|&byte| byte == b'-')?;
    let space = line.iter().position(|&byte| byte == b' ')?;
    let begin = hexadecimal(line.get(..dash)?)?;
    let end = hexadecimal(line.get(dash + 1..space)?)?;
    let is_code = line.get(space + 3)? == &b'x';
    let path = line.iter().position(|&byte| byte == b'/' || byte == b'[').map_or(&[][..], |at| &line[at..]);
    let offset = line.get(space + 6..)?;
    let is_first = offset.iter().take_while(|&&byte| byte != b' ').all(|&byte| byte == b'0');
    Some(Mapping { begin, end, is_code, is_first, path })
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0, |sum: usize, &digit| Some(sum << 4 | (digit as char).to_digit(16)? as usize))
}

/// Anonymous memory by the kernel's counters, bytes. They lag by some pages for each processor.
pub fn anonymous_bytes() -> u64 {
    LOCK.lock();
    let mut pages = [0; 3];
    for_each_line(c"/proc/self/statm", |line| {
        for (field, word) in pages.iter_mut().zip(line.split(|&byte| byte == b' ')) {
            *field = setup::parse(word).unwrap_or(0);
        }
    });
    LOCK.unlock();
    let [_, resident, shared] = pages;
    resident.saturating_sub(shared) * sys::OS_PAGE as u64
}

/// Resident memory by what backs it, bytes: all, anonymous, file, relocated and zeroed data of files, stacks.
/// Told apart as `live` does from outside.
pub fn memory() -> [u64; 5] {
    LOCK.lock();
    let own_path = own_path();
    let (table, table_bytes) = large::extent();
    let mut sums = [0_u64; 5];
    let mut backing = Backing::default();
    let (mut is_own, mut rss) = (false, 0);
    for_each_line(c"/proc/self/smaps", |line| {
        if let Some(found) = line.first().filter(|byte| !byte.is_ascii_uppercase()).and_then(|_| mapping(line)) {
            is_own = found.path.starts_with(setup::get().folder())
                || found.path == own_path
                || (found.begin < table + table_bytes && table < found.end);
            backing.enter(&found, line);
        } else if is_own {
        } else if let Some(bytes) = kibibytes(line, b"Rss:") {
            rss = bytes;
            sums[0] += bytes;
        } else if let Some(anonymous) = kibibytes(line, b"Anonymous:") {
            sums[1] += anonymous;
            match backing.kind {
                Kind::File => {
                    sums[2] += rss - anonymous.min(rss);
                    sums[3] += anonymous;
                }
                Kind::Zeroed => sums[3] += anonymous.min(backing.zeroed_bytes),
                Kind::Stack => sums[4] += anonymous,
                Kind::Heap => {}
            }
        }
    });
    LOCK.unlock();
    sums
}

/// What a mapping is, as far as memory has to be told apart.
#[derive(Clone, Copy, Default, PartialEq)]
enum Kind {
    #[default]
    Heap,
    File,
    /// Begins with the zeroed data of the file before it.
    Zeroed,
    Stack,
}

/// Tells what a mapping is by those before it.
#[derive(Default)]
struct Backing {
    kind: Kind,
    /// Of the last mapping: its end, and whether it was a guard page.
    end: usize,
    is_guard: bool,
    /// Where the file of the last mapping begins, and whether it has code: such a file is an object of the loader's.
    base: usize,
    has_code: bool,
    zeroed_bytes: u64,
}

impl Backing {
    fn enter(&mut self, found: &Mapping<'_>, line: &[u8]) {
        let (was, follows) = (self.kind, self.end == found.begin);
        self.kind = if found.path.first() == Some(&b'/') {
            if was != Kind::File || found.is_first {
                (self.base, self.has_code) = (found.begin, false);
            }
            self.has_code |= found.is_code;
            Kind::File
        } else if found.path == b"[stack]" || (found.path.is_empty() && follows && self.is_guard) {
            Kind::Stack
        } else if found.path.is_empty() && follows && was == Kind::File && self.has_code {
            self.zeroed_bytes = zeroed_bytes(self.base);
            Kind::Zeroed
        } else {
            Kind::Heap
        };
        let mode = line.iter().position(|&byte| byte == b' ').map_or(&[][..], |at| &line[at + 1..]);
        self.is_guard = mode.starts_with(b"---p") && found.end - found.begin == sys::OS_PAGE;
        self.end = found.end;
    }
}

/// Bytes of zeroed data that the loader maps behind a loaded object's file pages, by the headers in its first page.
fn zeroed_bytes(base: usize) -> u64 {
    const WRITABLE: u32 = 2;
    const LOADED: u32 = 1;
    // SAFETY: an object with code is mapped readable from its first page on; its headers lie there.
    let page = unsafe { core::slice::from_raw_parts(base as *const u8, sys::OS_PAGE) };
    let word = |at: usize| page.get(at..at + 8).map_or(0, |bytes| crate::raw::word_at(bytes, 0));
    if !page.starts_with(b"\x7fELF\x02") {
        return 0;
    }
    let (headers, count) = (word(32) as usize, (word(56) & 0xffff) as usize);
    let header = |index: usize| {
        let at = headers + index * 56;
        let (kind, flags) = (word(at) as u32, (word(at) >> 32) as u32);
        let is_data = kind == LOADED && flags & WRITABLE != 0;
        let bytes = word(at + 40).saturating_sub(word(at + 32));
        if is_data { bytes.next_multiple_of(sys::OS_PAGE as u64) } else { 0 }
    };
    (0..count).map(header).sum()
}

/// The value of a line like `Rss:    12 kB`, in bytes.
fn kibibytes(line: &[u8], name: &[u8]) -> Option<u64> {
    let value = line.strip_prefix(name)?.strip_suffix(b" kB")?;
    setup::parse(value.trim_ascii()).map(|count| count * 1024)
}

/// The path of this library as the loader knows it.
fn own_path() -> &'static [u8] {
    sys::object_of(memory as *const c_void).map_or(b"", CStr::to_bytes)
}

/// Adds the code mappings that are not known yet to the file.
pub fn snapshot_mappings() {
    LOCK.lock();
    let mut base = 0;
    let mut last = [0_u8; 256];
    let mut last_bytes = 0;
    // SAFETY: the lock is held.
    let area = unsafe { recording::area(MAPS_AT, MAPS_MAX * MAP_BYTES) };
    let count = recording::header(word::MAPS);
    if let (Some(area), Some(count)) = (area, count) {
        for_each_line(c"/proc/self/maps", |line| {
            let Some(found) = mapping(line).filter(|found| found.path.first() == Some(&b'/')) else { return };
            let kept = &found.path[..found.path.len().min(last.len())];
            if kept != &last[..last_bytes] {
                base = found.begin;
                last[..kept.len()].copy_from_slice(kept);
                last_bytes = kept.len();
            }
            if found.is_code {
                let used = count.load(Ordering::Relaxed) as usize;
                if add_mapping(area, used, &found, base) {
                    count.store(used as u64 + 1, Ordering::Release);
                }
            }
        });
    }
    LOCK.unlock();
}

fn add_mapping(area: &mut [u8], used: usize, found: &Mapping<'_>, base: usize) -> bool {
    let name = found.path.rsplit(|&byte| byte == b'/').next().unwrap_or(b"");
    let name = &name[..name.len().min(MAP_BYTES - MAP_NAME_AT - 1)];
    let mut entry = [0; MAP_BYTES];
    for (index, value) in [found.begin, found.end, base].into_iter().enumerate() {
        entry[index * 8..][..8].copy_from_slice(&(value as u64).to_le_bytes());
    }
    entry[MAP_NAME_AT..][..name.len()].copy_from_slice(name);
    let is_known = area.chunks_exact(MAP_BYTES).take(used).any(|known| known == entry);
    if is_known || used >= MAPS_MAX {
        return false;
    }
    area[used * MAP_BYTES..][..MAP_BYTES].copy_from_slice(&entry);
    true
}
