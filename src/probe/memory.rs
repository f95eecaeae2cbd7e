//! Exact memory of this process, from `/proc/self/smaps_rollup` and `/proc/self/statm`; and the kernel's high-water
//! mark.
//!
//! Invariant: read through descriptors opened before the seal into buffers on the stack; no heap is used. The
//! counters of `status` and `statm` for resident memory may be approximate, so only the size is taken from there.

use super::sys;
use std::io;

/// One reading, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Address space.
    pub mapped_bytes: u64,
    /// Resident anonymous memory; shared mappings, and so the harness's own tables, do not count.
    pub anonymous_bytes: u64,
    /// Of which the kernel may take back at will.
    pub lazy_free_bytes: u64,
    /// Of which transparent huge pages.
    pub huge_bytes: u64,
}

/// The opened files.
#[derive(Debug)]
pub struct Reader {
    rollup: sys::Descriptor,
    statm: sys::Descriptor,
}

impl Reader {
    /// Opens both files.
    ///
    /// # Errors
    /// The system's, when `/proc` is missing or older than Linux 4.14.
    pub fn open() -> io::Result<Self> {
        let rollup = sys::Descriptor::open_read(c"/proc/self/smaps_rollup")?;
        Ok(Self { rollup, statm: sys::Descriptor::open_read(c"/proc/self/statm")? })
    }

    /// Reads both files.
    ///
    /// # Errors
    /// The system's, or `InvalidData` when a line is missing.
    pub fn read(&self) -> io::Result<Memory> {
        let mut buffer = [0u8; 4096];
        let length = self.statm.read_start(&mut buffer)?;
        let pages = number(buffer.get(..length).unwrap_or_default()).ok_or(io::ErrorKind::InvalidData)?;
        let length = self.rollup.read_start(&mut buffer)?;
        let text = buffer.get(..length).unwrap_or_default();
        let field = |name: &[u8]| kib_field(text, name).ok_or(io::Error::from(io::ErrorKind::InvalidData));
        Ok(Memory {
            mapped_bytes: pages * sys::page_bytes(),
            anonymous_bytes: field(b"Anonymous:")?,
            lazy_free_bytes: field(b"LazyFree:")?,
            huge_bytes: field(b"AnonHugePages:")?,
        })
    }
}

/// The kernel's own high-water mark of this process: it sees what lasts shorter than the time between two readings.
#[derive(Debug)]
pub struct HighWater {
    status: sys::Descriptor,
    clear: sys::Descriptor,
}

impl HighWater {
    /// Opens its files.
    ///
    /// # Errors
    /// The system's; where the mark cannot be reset it is of no use.
    pub fn open() -> io::Result<Self> {
        let status = sys::Descriptor::open_read(c"/proc/self/status")?;
        Ok(Self { status, clear: sys::Descriptor::open_write(c"/proc/self/clear_refs")? })
    }

    /// Has the mark begin anew.
    ///
    /// # Errors
    /// The system's.
    pub fn reset(&self) -> io::Result<()> {
        self.clear.write_all(b"5")
    }

    /// Its anonymous part, bytes: less file and shared pages as they are now, which in a replay only ever grow. The
    /// kernel's counters may lag by some pages for each CPU.
    ///
    /// # Errors
    /// The system's, or `InvalidData` when a line is missing.
    pub fn anonymous_bytes(&self) -> io::Result<u64> {
        let mut buffer = [0u8; 4096];
        let length = self.status.read_start(&mut buffer)?;
        let text = buffer.get(..length).unwrap_or_default();
        let field = |name: &[u8]| kib_field(text, name).ok_or(io::Error::from(io::ErrorKind::InvalidData));
        Ok(field(b"VmHWM:")?.saturating_sub(field(b"RssFile:")? + field(b"RssShmem:")?))
    }
}

/// The value of a line such as `Anonymous:      1234 kB`, in bytes.
pub(crate) fn kib_field(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(name))?;
    number(line.get(name.len()..)?)?.checked_mul(1024)
}

/// The first decimal number of a line.
fn number(text: &[u8]) -> Option<u64> {
    let from = text.iter().position(u8::is_ascii_digit)?;
    let digits = text.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit());
    digits.into_iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = b"1-2 ---p\nRss:  9 kB\nAnonymous:    2044 kB\nKSM: 0 kB\nAnonHugePages:       8 kB\n";
        assert_eq!(kib_field(text, b"Anonymous:"), Some(2044 * 1024));
        assert_eq!(kib_field(text, b"AnonHugePages:"), Some(8 * 1024));
        assert_eq!(kib_field(text, b"LazyFree:"), None);
    }

    #[test]
    fn the_high_water_mark_outlives_what_made_it_until_it_is_reset() {
        sys::in_a_child(|| {
            let (reader, high) = (Reader::open().expect("readings"), HighWater::open().expect("a high-water mark"));
            high.reset().expect("a reset");
            let before = high.anonymous_bytes().expect("a mark");
            drop(vec![1u8; 64 << 20]);
            let after = high.anonymous_bytes().expect("a mark");
            assert!(reader.read().expect("a reading").anonymous_bytes < before + (32 << 20), "the block is gone");
            assert!((60 << 20..70 << 20).contains(&(after - before)), "{before} {after}");
            high.reset().expect("a reset");
            assert!(high.anonymous_bytes().expect("a mark") < before + (32 << 20));
        });
    }

    #[test]
    fn touched_anonymous_memory_shows_and_shared_memory_does_not() {
        sys::in_a_child(|| {
            let reader = Reader::open().expect("a kernel with smaps_rollup");
            let before = reader.read().expect("a reading");
            let shared = sys::Mapping::shared(32 << 20).expect("32 MiB");
            shared.make_present(32 << 20);
            sys::hold_anonymous(16 << 20);
            let after = reader.read().expect("a reading");
            let grown = after.anonymous_bytes as i64 - before.anonymous_bytes as i64;
            assert!((15 << 20..18 << 20).contains(&grown), "{grown}");
            assert!(after.mapped_bytes >= before.mapped_bytes + (48 << 20));
        });
    }
}
