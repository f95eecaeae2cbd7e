//! Files from outside, read within bounds: how much of each kind is read, and the one way to read it.
//!
//! Invariant: only a regular file is read, and never more of it than its bound; nothing here waits for a writer.

use crate::units;
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Most bytes of all runs of a result, decompressed: twenty times the largest result so far, and about as much
/// memory as a report may take.
pub const RUNS_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of one run. A run has 256 readings and a few histograms: 0.1 MB is much.
pub const RUN_BYTES_MAX: u64 = 16 << 20;
/// Most runs of a result: 1000 blocks of 5 workloads under 20 configurations are a tenth of it.
pub const RUNS_MAX: usize = 1 << 20;
/// Most bytes of one JSON document (`environment.json`, what `live` found); a workload takes about 0.1 MB of it.
pub const JSON_BYTES_MAX: u64 = 128 << 20;
/// Most bytes of a file that a person writes: configurations, definitions of workloads, documents with regions.
pub const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Most bytes of a shared library of which headers and tables are read; those with debug information are large.
pub const LIBRARY_BYTES_MAX: u64 = 1 << 30;

/// zstd's own default. A frame with a larger window would take as much memory before its first byte.
const WINDOW_LOG_MAX: u32 = 27;

/// Opens a file for reading.
///
/// # Errors
/// The system's, and [`ErrorKind::InvalidInput`] for what is no regular file: a pipe or a device need have no end.
pub fn open(path: &Path) -> io::Result<File> {
    // Of a device the opening alone can have an effect; the second look is at what was opened.
    regular(&fs::metadata(path)?)?;
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(found: &fs::Metadata) -> io::Result<()> {
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "it is a folder and no regular file",
        _ => "it is a pipe or a device and no regular file",
    };
    Err(io::Error::new(ErrorKind::InvalidInput, what))
}

fn too_large(bytes: &str, max: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it {bytes}, and at most {} are read", amount(max)))
}

/// `16 MiB`, `1 GiB`.
fn amount(bytes: u64) -> String {
    if bytes >= 1 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes.div_ceil(1 << 20)) }
}

/// The bytes of a file that has at most `max` of them.
///
/// # Errors
/// As [`open`]; [`ErrorKind::FileTooLarge`] where there are more, before they are read.
pub fn read(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > max {
        return Err(too_large(&format!("has {}", amount(bytes)), max));
    }
    let mut read = Vec::new();
    file.take(max + 1).read_to_end(&mut read)?;
    // The length of some files says nothing, and a file can grow.
    if read.len() as u64 > max { Err(too_large("has more", max)) } else { Ok(read) }
}

/// As [`read`], of text in UTF-8.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] for another encoding.
pub fn read_text(path: &Path, max: u64) -> io::Result<String> {
    String::from_utf8(read(path, max)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Whether a file holds exactly these bytes; of another length it is not read.
#[must_use]
pub fn holds(path: &Path, bytes: &[u8]) -> bool {
    read(path, bytes.len() as u64).is_ok_and(|found| found == bytes)
}

/// A value from JSON of a file whose texts are printed later: they lose what a terminal would obey.
///
/// # Errors
/// The parser's.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    match units::plain_json(bytes) {
        Cow::Borrowed(bytes) => serde_json::from_slice(bytes),
        Cow::Owned(bytes) => serde_json::from_slice(&bytes),
    }
}

/// The lines of a file, decompressed as they are read.
pub struct Lines {
    from: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    /// What is left of [`RUNS_BYTES_MAX`].
    left: u64,
}

impl Lines {
    /// Opens a file, compressed or not.
    ///
    /// # Errors
    /// As [`open`], and [`ErrorKind::FileTooLarge`] for one that declares more than [`RUNS_BYTES_MAX`].
    pub fn open(path: &Path, is_compressed: bool) -> io::Result<Self> {
        let mut file = BufReader::new(open(path)?);
        let from: Box<dyn Read> = if is_compressed {
            if let Ok(Some(bytes)) = zstd::zstd_safe::get_frame_content_size(file.fill_buf()?)
                && bytes > RUNS_BYTES_MAX
            {
                return Err(too_large(&format!("declares {}", amount(bytes)), RUNS_BYTES_MAX));
            }
            let mut decoder = zstd::Decoder::with_buffer(file)?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        } else {
            let bytes = file.get_ref().metadata()?.len();
            if bytes > RUNS_BYTES_MAX {
                return Err(too_large(&format!("has {}", amount(bytes)), RUNS_BYTES_MAX));
            }
            Box::new(file)
        };
        Ok(Self { from: BufReader::with_capacity(1 << 17, from), line: Vec::new(), left: RUNS_BYTES_MAX })
    }

    /// The next line, its end included; `None` after the last one.
    ///
    /// # Errors
    /// The decompressor's, and [`ErrorKind::FileTooLarge`] for more than [`RUN_BYTES_MAX`] in a line or
    /// [`RUNS_BYTES_MAX`] in all.
    pub fn line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let read = (&mut self.from).take(RUN_BYTES_MAX + 1).read_until(b'\n', &mut self.line)? as u64;
        if read > self.left {
            return Err(too_large("has more", RUNS_BYTES_MAX));
        }
        self.left -= read;
        match read {
            0 => Ok(None),
            read if read > RUN_BYTES_MAX => Err(too_large("has a longer one", RUN_BYTES_MAX)),
            _ => Ok(Some(&self.line)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert!(holds(&file, b"12345") && !holds(&file, b"1234") && !holds(&file, b"123456"));
        assert_eq!(read(folder.path(), 5).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(read(Path::new("/dev/zero"), 5).unwrap_err().kind(), ErrorKind::InvalidInput);
        // A file of the kernel that says that it is empty.
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
        assert_eq!(read(Path::new("/proc/self/status"), 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn lines_have_a_bound_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let mut bytes = vec![b'x'; RUN_BYTES_MAX as usize - 1];
        bytes.extend_from_slice(b"\nshort\nno end");
        for is_compressed in [false, true] {
            let stored = if is_compressed { zstd::encode_all(bytes.as_slice(), 1).unwrap() } else { bytes.clone() };
            fs::write(&file, stored).unwrap();
            let mut lines = Lines::open(&file, is_compressed).unwrap();
            assert_eq!(lines.line().unwrap().unwrap().len() as u64, RUN_BYTES_MAX);
            assert_eq!(lines.line().unwrap().unwrap(), b"short\n");
            assert_eq!(lines.line().unwrap().unwrap(), b"no end");
            assert!(lines.line().unwrap().is_none());
        }
        bytes.insert(0, b'x');
        fs::write(&file, bytes).unwrap();
        assert_eq!(Lines::open(&file, false).unwrap().line().unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
