//! A name in an open folder: what is done to the name cannot be diverted by a folder that is renamed meanwhile.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A name in a folder that is held open.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) folder: OwnedFd,
    pub(crate) name: OsString,
    /// As the user wrote it, for sentences.
    pub(crate) path: PathBuf,
}

impl Place {
    /// Opens the folder of a path.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "the path ends in no name of a file"));
        };
        Ok(Self { folder: open_folder(parent(path))?, name: name.to_owned(), path: path.to_owned() })
    }

    /// What has the name; none when nothing has it. A link is not followed.
    pub(crate) fn status(&self) -> io::Result<Option<Stat>> {
        status(&self.folder, &self.name)
    }
}

/// The folder that a path is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a folder by a path whose links are followed.
pub(crate) fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags | OFlags::RDONLY, Mode::empty()) {
        // A folder that may be written but not listed.
        Err(Errno::ACCESS) => Ok(rustix::fs::open(folder, flags | OFlags::PATH, Mode::empty())?),
        other => Ok(other?),
    }
}

pub(crate) fn status(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn kind_of(status: &Stat) -> FileType {
    FileType::from_raw_mode(status.st_mode)
}

/// Opens a folder by its name, which is no link.
pub(crate) fn open_folder_at(folder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::empty())?)
}

/// The names in a folder.
pub(crate) fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Has the disk hold the names of a folder. Best effort: some file systems cannot, and have lost nothing yet.
pub(crate) fn sync(folder: &OwnedFd) {
    let _ = rustix::fs::fsync(folder);
}
