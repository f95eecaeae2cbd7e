//! What a target may be: absent, or a regular file of the kind that is replaced.

use crate::place::{Place, kind_of, open_folder, parent};
use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat, accessat, fstat, openat};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Bytes that a trace begins with; a test holds them against the crate `trace`.
const TRACE_START: &[u8] = b"\x89PyAT\r\n\x1a";
const PNG_START: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The bit of a folder in which only a file's owner, the folder's and root may rename or remove it.
pub(crate) const STICKY: u32 = 0o1000;

/// What may be in a file that is replaced. An empty file is of every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A trace.
    Trace,
    /// A JSON object whose first key is `schema`, as in every JSON file that is read again.
    Json,
    /// An SVG image.
    Svg,
    /// A PNG image.
    Png,
    /// Any regular file: for names that the program chose, or that say what is in the file.
    Any,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Trace => "a trace",
            Self::Json => "a JSON file of this program",
            Self::Svg => "an SVG image",
            Self::Png => "a PNG image",
            Self::Any => "a regular file",
        }
    }

    fn fits(self, start: &[u8]) -> bool {
        let text = start.trim_ascii_start();
        match self {
            Self::Trace => start.starts_with(TRACE_START),
            Self::Json => {
                text.strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\"schema\""))
            }
            Self::Svg => text.starts_with(b"<svg") || text.starts_with(b"<?xml"),
            Self::Png => start.starts_with(PNG_START),
            Self::Any => true,
        }
    }
}

/// Why a target is not written: a sentence that names it and ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(String);

impl Refusal {
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        Self::other(refusal)
    }
}

/// Checks that a file could be put at `path`: nothing is there, or a regular file of that kind, and its folder exists
/// and can be written to. It leaves nothing behind.
///
/// # Errors
/// A sentence that ends with what to do.
pub fn check_target(path: &Path, kind: Kind) -> Result<(), Refusal> {
    if path.file_name().is_none() {
        return Err(Refusal(format!("{} is a folder. Name a file in it.", path.display())));
    }
    let folder = parent(path).display();
    let place = Place::of(path).map_err(|error| {
        Refusal(match error.kind() {
            io::ErrorKind::NotFound => format!("The folder {folder} does not exist. Create it, or name another one."),
            _ => format!("The folder {folder} cannot be used: {error}. Name another one."),
        })
    })?;
    replaceable(&place, kind)?;
    writable(&place.folder, parent(path))
}

/// As [`check_target`], where the folder and those above it need not exist yet.
///
/// # Errors
/// A sentence that ends with what to do.
pub fn check_target_below(path: &Path, kind: Kind) -> Result<(), Refusal> {
    let folder = parent(path);
    if folder.is_dir() { check_target(path, kind) } else { check_base(folder) }
}

/// Checks that files could be made in a folder, or in one that is made there. It leaves nothing behind.
///
/// # Errors
/// A sentence that ends with what to do.
pub fn check_base(folder: &Path) -> Result<(), Refusal> {
    let mut existing = folder;
    while !existing.exists() && existing.symlink_metadata().is_err() && existing != parent(existing) {
        existing = parent(existing);
    }
    let shown = existing.display();
    let place = open_folder(existing).map_err(|error| {
        Refusal(match error.kind() {
            io::ErrorKind::NotADirectory => format!("{shown} is a file, not a folder. Name another folder."),
            _ => format!("The folder {shown} cannot be used: {error}. Name another one."),
        })
    })?;
    writable(&place, existing)
}

fn writable(folder: &OwnedFd, path: &Path) -> Result<(), Refusal> {
    accessat(folder, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| {
        Refusal(format!("The folder {} cannot be written to: {error}. Name another one.", path.display()))
    })
}

/// What has the name and may be replaced; none when nothing has it.
pub(crate) fn replaceable(place: &Place, kind: Kind) -> Result<Option<Stat>, Refusal> {
    let path = place.path.display();
    let unknown = |error: io::Error| Refusal(format!("{path} cannot be examined: {error}. Name another file."));
    let Some(status) = place.status().map_err(unknown)? else { return Ok(None) };
    if let Some(noun) = foreign(kind_of(&status)) {
        let advice = if noun == "a folder" { "Name a file in it." } else { "Name another file, or remove it first." };
        return Err(Refusal(format!("{path} is {noun}, which is not replaced. {advice}")));
    }
    let folder = fstat(&place.folder).map_err(|error| unknown(error.into()))?;
    let own = rustix::process::geteuid();
    if folder.st_mode & STICKY != 0 && !own.is_root() && ![status.st_uid, folder.st_uid].contains(&own.as_raw()) {
        return Err(Refusal(format!("{path} belongs to another user. Name another file.")));
    }
    if kind != Kind::Any && status.st_size > 0 {
        let start = start(place).map_err(unknown)?;
        if !kind.fits(&start) {
            let noun = kind.noun();
            return Err(Refusal(format!(
                "{path} is not {noun}, so it is not replaced. Name another file, or remove it."
            )));
        }
    }
    Ok(Some(status))
}

/// The first bytes of the file of that name.
fn start(place: &Place) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(&place.folder, &place.name, flags, Mode::empty())?);
    let mut start = Vec::new();
    file.take(64).read_to_end(&mut start)?;
    Ok(start)
}

/// What is at a path, where that is no regular file.
fn foreign(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("a folder"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a named pipe"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    }
}
