//! A file that is written beside its target and renamed there, and the few other ways in which a file comes to be.

use crate::kind::{Kind, replaceable};
use crate::part::{self, TRIES};
use crate::place::{self, Place};
use rustix::fs::{AtFlags, FileType, OFlags, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that the umask leaves, or those of the older file of this user that is replaced.
    Usual,
    /// These bits.
    Exact(u32),
}

/// An unfinished file beside its target. It is removed unless it is [put](Fresh::put) in place.
#[derive(Debug)]
pub struct Fresh {
    file: File,
    place: Place,
    name: OsString,
    kind: Kind,
    mode: Mode,
    is_put: bool,
}

impl Fresh {
    /// Makes an empty file beside the target, after checking that the target is absent or of the kind.
    ///
    /// # Errors
    /// When the target is refused, or the folder cannot be written to.
    pub fn beside(target: &Path, kind: Kind, mode: Mode) -> io::Result<Self> {
        let place = Place::of(target)?;
        replaceable(&place, kind)?;
        part::sweep(&place, &|_| false);
        let bits = match mode {
            Mode::Usual => 0o666,
            Mode::Exact(bits) => bits & 0o700,
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..TRIES {
            let name = part::name(&place.name)?;
            let file = match openat(&place.folder, &name, flags, bits.into()) {
                Ok(file) => File::from(file),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            let fresh = Self { file, name, kind, mode, is_put: false, place };
            if part::claim(&fresh.file, &fresh.place, &fresh.name)? {
                return Ok(fresh);
            }
            return Self::beside(target, kind, mode);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Puts the file at its target, in the place of an older one of its kind; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written to the disk, or the target has become something else; then the target is as it was.
    pub fn put(mut self) -> io::Result<()> {
        self.file.flush()?;
        let old = replaceable(&self.place, self.kind)?;
        let own = rustix::process::geteuid().as_raw();
        let bits = match self.mode {
            Mode::Exact(bits) => Some(bits),
            Mode::Usual => old.filter(|old| old.st_uid == own).map(|old| old.st_mode & 0o777),
        };
        if let Some(bits) = bits {
            rustix::fs::fchmod(&self.file, bits.into())?;
        }
        self.file.sync_all()?;
        renameat(&self.place.folder, &self.name, &self.place.folder, &self.place.name)?;
        self.is_put = true;
        place::sync(&self.place.folder);
        Ok(())
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.is_put {
            let _ = unlinkat(&self.place.folder, &self.name, AtFlags::empty());
        }
    }
}

impl Write for Fresh {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Fresh {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl AsFd for Fresh {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Puts a file with these contents at the target, as [`Fresh`] does.
///
/// # Errors
/// As [`Fresh::beside`] and [`Fresh::put`].
pub fn replace(target: &Path, kind: Kind, mode: Mode, bytes: &[u8]) -> io::Result<()> {
    let mut fresh = Fresh::beside(target, kind, mode)?;
    fresh.write_all(bytes)?;
    fresh.put()
}

/// Makes a file that did not exist, for appending.
///
/// # Errors
/// When something has the name, or the folder cannot be written to.
pub fn append_new(path: &Path) -> io::Result<File> {
    let place = Place::of(path)?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(&place.folder, &place.name, flags, 0o666.into())?))
}

/// Replaces a document of the user's. A symbolic link stays one: the file that it names is replaced.
///
/// # Errors
/// When the document is no regular file, or its folder cannot be written to.
pub fn edit_document(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(&path.canonicalize()?, Kind::Any, Mode::Usual, bytes)
}

/// Makes `link` a symbolic link to `to`. Only a link is replaced, and a reader finds the old one or the new one.
///
/// # Errors
/// When something else has the name, or the file system has no links.
pub fn link_latest(link: &Path, to: &OsStr) -> io::Result<()> {
    let place = Place::of(link)?;
    part::sweep(&place, &|_| false);
    for _ in 0..TRIES {
        if place.status()?.is_some_and(|old| place::kind_of(&old) != FileType::Symlink) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let name = part::name(&place.name)?;
        symlinkat(to, &place.folder, &name)?;
        match renameat(&place.folder, &name, &place.folder, &place.name) {
            Ok(()) => return Ok(()),
            // Another process swept it.
            Err(Errno::NOENT) => {}
            Err(error) => {
                let _ = unlinkat(&place.folder, &name, AtFlags::empty());
                return Err(error.into());
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
