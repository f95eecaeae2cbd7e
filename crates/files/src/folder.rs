//! Folders: made where nothing is, replaced whole, and removed only with files of known names.

use crate::kind::Refusal;
use crate::part::{self, TRIES};
use crate::place::{self, Place, kind_of, names, open_folder_at, status};
use rustix::fs::{AtFlags, FileType, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Makes a folder and those above it, where they do not exist.
///
/// # Errors
/// When one cannot be made.
pub fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() { Ok(()) } else { std::fs::create_dir_all(path) }
}

/// Makes a folder that did not exist.
///
/// # Errors
/// When something has the name, or it cannot be made.
pub fn new_folder(path: &Path) -> io::Result<()> {
    let place = Place::of(path)?;
    mkdirat(&place.folder, &place.name, 0o777.into())?;
    Ok(())
}

/// Removes files whose names are `known`, and then the folder. Nothing else is removed, also not from folders below.
///
/// # Errors
/// When the folder is a link or no folder, or when something else is in it.
pub fn remove_folder(path: &Path, known: impl Fn(&str) -> bool) -> io::Result<()> {
    let place = Place::of(path)?;
    let name = place.name.clone();
    remove_at(&place, &name, &known)
}

pub(crate) fn remove_at(place: &Place, name: &OsStr, known: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let folder = open_folder_at(&place.folder, name)?;
    let mut kept = None;
    for name in names(&folder)? {
        if name.to_str().is_some_and(known) {
            unlinkat(&folder, &name, AtFlags::empty())?;
        } else {
            kept = Some(name);
        }
    }
    if let Some(kept) = kept {
        let shown = place.path.with_file_name(name).join(kept);
        return Err(io::Error::other(format!("{} is not a file of this program", shown.display())));
    }
    unlinkat(&place.folder, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Checks that a folder could be put at `path`: nothing is there, or a folder that holds only regular files whose names
/// are `known`. It leaves nothing behind.
///
/// # Errors
/// A sentence that ends with what to do.
pub fn check_folder(path: &Path, known: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    match Place::of(path) {
        Ok(place) => replaceable(&place, &known).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Refusal::new(format!("{} cannot be used: {error}. Choose another name.", path.display()))),
    }
}

/// Whether there is a folder to replace.
fn replaceable(place: &Place, known: &dyn Fn(&str) -> bool) -> Result<bool, Refusal> {
    let path = place.path.display();
    let unknown = |error: io::Error| Refusal::new(format!("{path} cannot be examined: {error}. Choose another name."));
    let Some(there) = place.status().map_err(unknown)? else { return Ok(false) };
    if kind_of(&there) != FileType::Directory {
        return Err(Refusal::new(format!(
            "{path} is not a folder of this program. Choose another name, or remove it."
        )));
    }
    let folder = open_folder_at(&place.folder, &place.name).map_err(unknown)?;
    for name in names(&folder).map_err(unknown)? {
        let is_file = status(&folder, &name).map_err(unknown)?;
        let is_file = is_file.is_some_and(|status| kind_of(&status) == FileType::RegularFile);
        if !(is_file && name.to_str().is_some_and(known)) {
            let name = name.to_string_lossy();
            return Err(Refusal::new(format!(
                "{path} holds {name}, which this program did not put there, so the folder is not replaced. Choose \
                 another name, or move the folder."
            )));
        }
    }
    Ok(true)
}

/// An unfinished folder beside its target. It is removed unless it is [put](FreshFolder::put) in place.
#[derive(Debug)]
pub struct FreshFolder {
    folder: OwnedFd,
    place: Place,
    name: OsString,
    known: fn(&str) -> bool,
    is_put: bool,
}

impl FreshFolder {
    /// Makes an empty folder beside the target, after checking that the target is absent or holds only files whose
    /// names are `known`.
    ///
    /// # Errors
    /// When the target is refused, or the folder around it cannot be written to.
    pub fn beside(target: &Path, known: fn(&str) -> bool) -> io::Result<Self> {
        let place = Place::of(target)?;
        replaceable(&place, &known)?;
        part::sweep(&place, &known);
        for _ in 0..TRIES {
            let name = part::name(&place.name)?;
            match mkdirat(&place.folder, &name, 0o777.into()) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            }
            match open_folder_at(&place.folder, &name) {
                Ok(folder) if part::claim(&folder, &place, &name)? => {
                    return Ok(Self { folder, place, name, known, is_put: false });
                }
                // A sweeper was faster.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Makes a file in it.
    ///
    /// # Errors
    /// When it cannot be written to the disk.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.file(name)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Copies a file into it.
    ///
    /// # Errors
    /// When it cannot be read, or written to the disk.
    pub fn copy(&self, from: &Path, name: &str) -> io::Result<()> {
        let mut file = self.file(name)?;
        io::copy(&mut File::open(from)?, &mut file)?;
        file.sync_all()
    }

    fn file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.folder, name, flags, 0o666.into())?))
    }

    /// Puts the folder at its target, in the place of an older one, which is removed after that.
    ///
    /// # Errors
    /// When the target has become something else, or cannot be renamed; then it is as it was.
    pub fn put(mut self) -> io::Result<()> {
        place::sync(&self.folder);
        let (around, fresh, target) = (&self.place.folder, &self.name, &self.place.name);
        if !replaceable(&self.place, &self.known)? {
            match renameat_with(around, fresh, around, target, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS) => renameat(around, fresh, around, target)?,
                other => other?,
            }
            self.is_put = true;
            place::sync(around);
            return Ok(());
        }
        let mut old = fresh.clone();
        match renameat_with(around, fresh, around, target, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS) => {
                old = part::name(target)?;
                renameat(around, target, around, &old)?;
                if let Err(error) = renameat(around, fresh, around, target) {
                    let _ = renameat(around, &old, around, target);
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.is_put = true;
        place::sync(around);
        remove_at(&self.place, &old, &self.known)
    }
}

impl Drop for FreshFolder {
    fn drop(&mut self) {
        if !self.is_put {
            let _ = remove_at(&self.place, &self.name, &self.known);
        }
    }
}
