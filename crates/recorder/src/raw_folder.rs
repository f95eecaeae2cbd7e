//! The folder of raw data: made beside the output, locked while its session lives, found again after a kill.
//!
//! Invariant: a private folder of a random name. Whoever holds the lock is the session; a folder without one is the
//! work of a session that was killed.

use crate::drain::{LOG_SUFFIX, RESERVE_FILE};
use crate::error::RecordError;
use crate::session::{Options, shaping};
use crate::{convert::Host, host, raw};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The recorder has room for so long a path.
const PATH_BYTES_MAX: usize = 1000;
const PREFIX: &str = ".pyalloc-raw-";
const KEPT_FILE: &str = "session.json";

/// What a later command has to know to write the trace.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Kept {
    /// The trace that was asked for; none where its path is no text.
    pub(crate) output: Option<String>,
    /// Whether every Python process gets a trace.
    pub(crate) all: bool,
    /// Options that shaped the recording.
    pub(crate) options: BTreeMap<String, String>,
    /// The recording host.
    pub(crate) host: Host,
}

/// A folder of raw data, locked by this process.
#[derive(Debug)]
pub(crate) struct RawFolder {
    path: PathBuf,
    _lock: Option<OwnedFd>,
}

impl RawFolder {
    /// Makes the folder: beside the output, or in the temporary folder when that is in memory or open to other users.
    pub(crate) fn create(options: &Options) -> Result<Self, RecordError> {
        let beside = beside(&options.output);
        let mut failure = RecordError::MemoryFileSystem(beside.clone());
        for base in bases(&beside) {
            if !base.is_dir() || host::is_memory_file_system(&base) {
                continue;
            }
            match Self::create_in(&base, options) {
                Ok(folder) => return Ok(folder),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    failure = RecordError::Output { path: base, error };
                }
                Err(error) => return Err(RecordError::Output { path: base, error }),
            }
        }
        Err(failure)
    }

    fn create_in(base: &Path, options: &Options) -> io::Result<Self> {
        let folder = loop {
            let path = files::private_folder(base, PREFIX)?;
            if path.as_os_str().len() > PATH_BYTES_MAX {
                let _ = files::remove_folder(&path, is_ours);
                return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
            }
            match files::lock_folder(&path) {
                // Another `record` mistook it for that of a killed session, and removes it.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {}
                // Without locks no later command can find it.
                lock => break Self { path, _lock: lock.ok() },
            }
        };
        let kept = Kept {
            output: std::path::absolute(&options.output)?.to_str().map(str::to_owned),
            all: options.all,
            options: shaping(options),
            host: host::read(),
        };
        let place = folder.path.join(KEPT_FILE);
        let made = files::own_folder(&folder.path).and_then(|_| {
            files::replace(&place, files::Kind::Any, files::Mode::Exact(0o600), &serde_json::to_vec(&kept)?)
        });
        match made {
            Ok(()) => Ok(folder),
            Err(error) => {
                folder.remove();
                Err(error)
            }
        }
    }

    /// Opens what a session left.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |error| RecordError::Raw { path: path.to_owned(), error };
        let is_named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !is_named || !path.is_dir() {
            return Err(RecordError::NoRawData(path.to_owned()));
        }
        let path = files::own_folder(path).map_err(failed)?;
        match files::lock_folder(&path) {
            Ok(lock) => Ok(Self { path, _lock: Some(lock) }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(RecordError::StillRecording(path)),
            Err(error) => Err(failed(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the session wrote down about itself.
    pub(crate) fn kept(&self) -> io::Result<Kept> {
        Ok(serde_json::from_slice(&fs::read(self.path.join(KEPT_FILE))?)?)
    }

    /// Removes the folder with the files that sessions make. What else lies there stays, and so does the folder.
    pub(crate) fn remove(self) {
        let _ = self.discard();
    }

    /// As [`Self::remove`], with what is in the way.
    pub(crate) fn discard(self) -> Result<(), RecordError> {
        // First what makes the rest worth keeping, so that a kill in between leaves nothing to recover.
        let _ = files::remove_folder(&self.path, |name| name == raw::SESSION_FILE);
        files::remove_folder(&self.path, is_ours).map_err(|error| RecordError::NotRemoved { path: self.path, error })
    }

    /// Whether its file system writes a changed page to a new place. There a full disk can end the program: a page
    /// that is written to once more needs new space.
    pub(crate) fn is_copy_on_write(&self) -> bool {
        host::is_copy_on_write(&self.path)
    }
}

/// A sentence for each folder near this output that a killed session left. Folders without a record are removed.
pub(crate) fn leftovers(output: &Path) -> Vec<String> {
    let mut sentences = Vec::new();
    // Two of the places may be one.
    let places: BTreeSet<PathBuf> = bases(&beside(output)).iter().flat_map(fs::canonicalize).collect();
    for base in places {
        let folders = fs::read_dir(&base).into_iter().flatten().flatten();
        for path in folders.map(|entry| entry.path()) {
            let Ok(folder) = RawFolder::open(&path) else { continue };
            let bytes = logged_bytes(folder.path());
            if bytes == 0 || !folder.path().join(raw::SESSION_FILE).exists() {
                folder.remove();
                continue;
            }
            let place = folder.path().display();
            sentences.push(format!(
                "a recording left {} MiB of raw data without a trace. Write its trace: pyalloc-bench record --recover \
                 '{place}'; or remove it: pyalloc-bench record --discard '{place}'",
                (bytes >> 20).max(1)
            ));
        }
    }
    sentences
}

/// Bytes of the disk that logs and the session file take.
fn logged_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let is_data = |name: &str| name == raw::SESSION_FILE || name.ends_with(LOG_SUFFIX);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let data = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_data));
    let blocks: u64 = data.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.blocks()).sum();
    // The session's own words take a block.
    (blocks * 512).saturating_sub(raw::SESSION_BYTES as u64)
}

fn beside(output: &Path) -> PathBuf {
    match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Where raw data may lie, best first.
fn bases(beside: &Path) -> [PathBuf; 3] {
    [beside.to_owned(), std::env::temp_dir(), PathBuf::from("/var/tmp")]
}

fn is_ours(name: &str) -> bool {
    let is_numbered = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
    let is_part = name.strip_suffix(".part").is_some_and(|stem| stem.starts_with('.'));
    is_part
        || [KEPT_FILE, raw::SESSION_FILE, RESERVE_FILE].contains(&name)
        || name.strip_suffix(LOG_SUFFIX).and_then(|stem| stem.strip_suffix('.')).is_some_and(is_numbered)
        || (name.starts_with("recorder-") && name.ends_with(".so"))
}
