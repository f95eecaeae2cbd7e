//! Opens a trace wherever it is, so that it can be read more than once.
//!
//! Invariant: what goes wrong is a sentence that ends with what to do; it does not name the trace, since the caller
//! knows how the user named it.

use super::{TraceSource, embedded};
use crate::run::bounded;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use trace::{Metadata, Shape, TraceError};

/// What the readers of the `trace` crate need.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

/// An open trace.
pub enum OpenTrace {
    /// On disk.
    File(BufReader<File>),
    /// In the binary.
    Embedded(Cursor<&'static [u8]>),
}

/// What is wrong with a trace, as a sentence.
#[must_use]
pub fn trace_sentence(e: &TraceError) -> String {
    format!("{e}.")
}

impl OpenTrace {
    /// Opens a trace.
    ///
    /// # Errors
    /// A sentence when it is not there or may not be read.
    pub fn open(source: &TraceSource) -> Result<Self, String> {
        match source {
            TraceSource::Embedded(name) => embedded(name)
                .map(|bytes| Self::Embedded(Cursor::new(bytes)))
                .ok_or_else(|| "it is not in this binary. Give the path of a trace file.".to_owned()),
            TraceSource::File(path) => bounded::open(path)
                .map(|file| Self::File(BufReader::with_capacity(1 << 20, file)))
                .map_err(|e| format!("it cannot be read: {e}. Check the path and its permissions.")),
        }
    }

    fn reader(&mut self) -> &mut dyn ReadSeek {
        match self {
            Self::File(reader) => reader,
            Self::Embedded(reader) => reader,
        }
    }

    /// The trace from its first byte on.
    ///
    /// # Errors
    /// A sentence when it cannot be rewound.
    pub fn rewound(&mut self) -> Result<&mut dyn ReadSeek, String> {
        let reader = self.reader();
        reader
            .seek(SeekFrom::Start(0))
            .map_err(|e| format!("it cannot be read from its start: {e}. Give a plain file."))?;
        Ok(reader)
    }

    /// SHA-256 of all bytes in hex, and their number.
    ///
    /// # Errors
    /// A sentence when it cannot be read.
    pub fn digest(&mut self) -> Result<(String, u64), String> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0u8; 1 << 20];
        let mut bytes = 0;
        let reader = self.rewound()?;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    bytes += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("it cannot be read: {e}. Check the file and its disk.")),
            }
        }
        Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
    }

    /// Metadata with the totals of the footer; the events are not looked at.
    ///
    /// # Errors
    /// A sentence when header or footer are damaged.
    pub fn metadata(&mut self) -> Result<Metadata, String> {
        trace::read_footer(self.rewound()?).map(|(metadata, _)| metadata).map_err(|e| trace_sentence(&e))
    }

    /// What the events say; all of them are checked.
    ///
    /// # Errors
    /// A sentence about the first damage.
    pub fn shape(&mut self) -> Result<Shape, String> {
        trace::shape(self.rewound()?).map(|(_, shape)| shape).map_err(|e| trace_sentence(&e))
    }
}
