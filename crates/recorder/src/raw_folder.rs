//! The folder of raw data: made beside the output, locked while its session lives, found again when it was left behind.
//!
//! Invariant: a private folder of a random name. Whoever holds the lock is the session; a folder without one is the
//! work of a session that was killed.

use crate::drain::{LOG_SUFFIX, RESERVE_FILE};
use crate::error::RecordError;
use crate::session::{Options, shaping};
use crate::{convert::Host, host, raw};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = ".pyalloc-raw-";
const LOCK_FILE: &str = "lock";
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
    _lock: File,
}

impl RawFolder {
    /// Makes the folder: beside the output, or in the temporary folder when that is in memory.
    pub(crate) fn create(options: &Options) -> Result<Self, RecordError> {
        let beside = beside(&options.output);
        let Some(base) = bases(&beside).into_iter().find(|base| base.is_dir() && !host::is_memory_file_system(base))
        else {
            return Err(RecordError::MemoryFileSystem(beside));
        };
        let failed = |error| RecordError::Output { path: base.clone(), error };
        let path = files::private_folder(&base, PREFIX).map_err(failed)?;
        let made = lock(&path, true).and_then(|lock| {
            let kept = Kept {
                output: std::path::absolute(&options.output)?.to_str().map(str::to_owned),
                all: options.all,
                options: shaping(options),
                host: host::read(),
            };
            let text = serde_json::to_vec(&kept)?;
            files::replace(&path.join(KEPT_FILE), files::Kind::Any, files::Mode::Exact(0o600), &text)?;
            Ok(Self { path: path.clone(), _lock: lock })
        });
        made.map_err(|error| {
            let _ = files::remove_folder(&path, is_ours);
            failed(error)
        })
    }

    /// Opens what a session left.
    pub(crate) fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |error| RecordError::Raw { path: path.to_owned(), error };
        let is_named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
        if !is_named || !path.join(LOCK_FILE).is_file() {
            return Err(RecordError::NoRawData(path.to_owned()));
        }
        let path = files::own_folder(path).map_err(failed)?;
        match lock(&path, false) {
            Ok(lock) => Ok(Self { path, _lock: lock }),
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
        let _ = files::remove_folder(&self.path, is_ours);
    }
}

/// A sentence for each folder near this output that a killed session left. Folders without a record are removed.
pub(crate) fn leftovers(output: &Path) -> Vec<String> {
    let mut sentences = Vec::new();
    for base in bases(&beside(output)) {
        let folders = fs::read_dir(&base).into_iter().flatten().flatten();
        for path in folders.map(|entry| entry.path()) {
            let Ok(folder) = RawFolder::open(&path) else { continue };
            let bytes = logged_bytes(folder.path());
            if bytes == 0 {
                folder.remove();
                continue;
            }
            let place = folder.path().display();
            sentences.push(format!(
                "a recording that was killed left {} MiB of raw data. Write its trace: pyalloc-bench record --recover \
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

fn lock(folder: &Path, is_new: bool) -> io::Result<File> {
    let path = folder.join(LOCK_FILE);
    let file = if is_new { files::append_new(&path)? } else { File::open(&path)? };
    file.try_lock()?;
    Ok(file)
}

fn is_ours(name: &str) -> bool {
    let is_numbered = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
    [LOCK_FILE, KEPT_FILE, raw::SESSION_FILE, RESERVE_FILE].contains(&name)
        || name.strip_suffix(LOG_SUFFIX).and_then(|stem| stem.strip_suffix('.')).is_some_and(is_numbered)
        || (name.starts_with("recorder-") && name.ends_with(".so"))
}
