//! Folders and files of this user alone, for what is loaded into processes and for raw data.
//!
//! Invariant: what passes here can be changed by this user, by root and by whoever owns the root folder, and by nobody
//! else.

use crate::folder::remove_folder;
use crate::kind::STICKY;
use crate::part::{self, TRIES, random};
use crate::place::{Place, kind_of, open_folder, open_folder_at};
use rustix::fs::{
    FileType, FlockOperation, MemfdFlags, Mode, OFlags, SealFlags, Stat, fcntl_add_seals, flock, fstat, memfd_create,
    mkdirat, open, stat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Bits that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// Makes a folder `PREFIX` and random digits in `base` that this user alone can enter; its path, without links.
///
/// # Errors
/// When it cannot be made.
pub fn private_folder(base: &Path, prefix: &str) -> io::Result<PathBuf> {
    let base = base.canonicalize()?;
    let around = open_folder(&base)?;
    for _ in 0..TRIES {
        let name = format!("{prefix}{}", random()?);
        match mkdirat(&around, name.as_str(), Mode::RWXU) {
            Ok(()) => return Ok(base.join(name)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A folder with random digits in its name that this user alone can enter. It is removed, with files of known names,
/// when this is dropped; one that a killed process left is removed by the next that is made.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    known: fn(&str) -> bool,
    /// Locked: others see that it is in use.
    _folder: OwnedFd,
}

impl PrivateFolder {
    /// Makes a folder `PREFIX` and random digits in `base`, which others may write to only if they cannot rename what
    /// is not theirs.
    ///
    /// # Errors
    /// When it cannot be made, or another user could replace it.
    pub fn make(base: &Path, prefix: &str, known: fn(&str) -> bool) -> io::Result<Self> {
        let base = base.canonicalize()?;
        let place = Place { folder: open_folder(&base)?, name: prefix.into(), path: base.join(prefix) };
        check_above(&place.path)?;
        let is_left = |name: &OsStr| name.as_bytes().strip_prefix(prefix.as_bytes()).is_some_and(part::is_random);
        part::sweep_those(&place, &is_left, &known);
        for _ in 0..TRIES {
            let path = private_folder(&base, prefix)?;
            let name = path.file_name().unwrap_or_default();
            let Ok(folder) = open_folder_at(&place.folder, name) else { continue };
            if part::claim(&folder, &place, name)? {
                return Ok(Self { path, known, _folder: folder });
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Its path, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = remove_folder(&self.path, self.known);
    }
}

/// Makes a folder that only this user can write to, and those above it, or checks that it is such a folder: a folder of
/// this user, which others cannot write to, below folders of this user or root that others cannot rename it in. Its
/// path, without links.
///
/// # Errors
/// When it cannot be made, or another user could change it.
pub fn own_folder(path: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)?;
    let path = path.canonicalize()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = fstat(open(&path, flags, Mode::empty())?)?;
    if folder.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refused(&path, "belongs to another user"));
    }
    if folder.st_mode & OTHERS_WRITE != 0 {
        return Err(refused(&path, "can be written to by others"));
    }
    check_above(&path)?;
    Ok(path)
}

/// Checks every folder above a path without links.
fn check_above(path: &Path) -> io::Result<()> {
    let trusted = [rustix::process::geteuid().as_raw(), 0, stat("/")?.st_uid];
    for folder in path.ancestors().skip(1) {
        let status = stat(folder)?;
        if !trusted.contains(&status.st_uid) {
            return Err(refused(folder, "belongs to another user"));
        }
        if status.st_mode & OTHERS_WRITE != 0 && status.st_mode & STICKY == 0 {
            return Err(refused(folder, "can be written to by others"));
        }
    }
    Ok(())
}

/// Locks a folder as long as the result lives, so that others see that it is in use.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when another process holds the lock, [`io::ErrorKind::NotFound`] when the folder was
/// removed meanwhile; any other where it is no folder or its file system has no locks.
pub fn lock_folder(path: &Path) -> io::Result<OwnedFd> {
    let place = Place::of(path)?;
    let folder = open_folder_at(&place.folder, &place.name)?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    let own = fstat(&folder)?;
    let there = place.status()?.filter(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino));
    there.map(|_| folder).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", path.display()))
}

/// A file without a name, in memory, whose contents nobody can change any more.
///
/// # Errors
/// Where the kernel has no such files.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// Opens a regular file of this user that others cannot write to, for reading. A link is not followed.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_own(path: &Path) -> io::Result<File> {
    open_own_with(path, OFlags::RDONLY)
}

pub(crate) fn open_own_with(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let status: Stat = fstat(&file)?;
    if kind_of(&status) != FileType::RegularFile {
        return Err(refused(path, "is not a regular file"));
    }
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refused(path, "belongs to another user"));
    }
    if status.st_mode & OTHERS_WRITE != 0 {
        return Err(refused(path, "can be written to by others"));
    }
    Ok(File::from(file))
}
