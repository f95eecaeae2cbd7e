//! Names of what is not finished: `.NAME.RANDOM.part` beside the target. A lock tells what is being written from what a
//! killed process left, and the next writer of the same target removes the latter.

use crate::folder::remove_at;
use crate::place::{Place, kind_of, names, open_folder_at, status};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Tries at a name that nobody has.
pub(crate) const TRIES: u32 = 64;
/// Bytes of the target's name in that of its part: a name has 255 at most.
const NAME_BYTES_MAX: usize = 200;
const ENDING: &[u8] = b".part";
const RANDOM_DIGITS: usize = 16;

/// Sixteen hexadecimal digits that nobody can foresee.
///
/// # Errors
/// When the system has no random bytes.
pub fn random() -> io::Result<String> {
    let mut bytes = [0_u8; RANDOM_DIGITS / 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What the names of all parts of a target begin with.
fn beginning(target: &OsStr) -> Vec<u8> {
    let name = target.as_bytes();
    [b".", &name[..name.len().min(NAME_BYTES_MAX)], b"."].concat()
}

/// A fresh name for a part of the target.
pub(crate) fn name(target: &OsStr) -> io::Result<OsString> {
    let name = [beginning(target).as_slice(), random()?.as_bytes(), ENDING].concat();
    Ok(OsString::from_vec(name))
}

fn is_part_of(name: &OsStr, target: &OsStr) -> bool {
    let middle = name.as_bytes().strip_prefix(beginning(target).as_slice()).and_then(|rest| rest.strip_suffix(ENDING));
    middle.is_some_and(is_random)
}

/// Whether these could be digits of [`random`].
pub(crate) fn is_random(digits: &[u8]) -> bool {
    digits.len() == RANDOM_DIGITS && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Locks a part that was just made. False when a sweeper was faster, which then removes it.
pub(crate) fn claim(fd: &impl AsFd, place: &Place, name: &OsStr) -> io::Result<bool> {
    match flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        // Where nothing can be locked nothing is swept.
        Err(_) => return Ok(true),
        Ok(()) => {}
    }
    let own = rustix::fs::fstat(fd)?;
    Ok(status(&place.folder, name)?.is_some_and(|there| (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)))
}

/// Removes what killed processes of this user left of earlier parts of the target. A part that is a folder goes only
/// with files whose names are `known`.
pub(crate) fn sweep(place: &Place, known: &dyn Fn(&str) -> bool) {
    sweep_those(place, &|name| is_part_of(name, &place.name), known);
}

/// As [`sweep`], of names that are parts.
pub(crate) fn sweep_those(place: &Place, is_part: &dyn Fn(&OsStr) -> bool, known: &dyn Fn(&str) -> bool) {
    let Ok(listed) = open_folder_at(&place.folder, OsStr::new(".")).and_then(|folder| names(&folder)) else { return };
    for name in listed.iter().filter(|name| is_part(name)) {
        let _ = sweep_one(place, name, known);
    }
}

fn sweep_one(place: &Place, name: &OsStr, known: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let Some(there) = status(&place.folder, name)? else { return Ok(()) };
    if there.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    match kind_of(&there) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&place.folder, name, flags, Mode::empty())?;
            if is_left(&file) {
                unlinkat(&place.folder, name, AtFlags::empty())?;
            }
        }
        FileType::Directory => {
            let folder = open_folder_at(&place.folder, name)?;
            if is_left(&folder) {
                remove_at(place, name, known)?;
            }
        }
        // A link has no lock; whoever made it makes another one when it is gone.
        FileType::Symlink => unlinkat(&place.folder, name, AtFlags::empty())?,
        _ => {}
    }
    Ok(())
}

/// Whether no process holds the lock; this one does from now on.
fn is_left(part: &OwnedFd) -> bool {
    flock(part, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_belongs_to_its_target_alone() {
        let target = OsStr::new("app.trace");
        let one = name(target).unwrap();
        assert!(is_part_of(&one, target) && one != name(target).unwrap());
        for other in ["app", "app.trace.x", "pp.trace"] {
            assert!(!is_part_of(&one, OsStr::new(other)), "{other}");
        }
        for foreign in [".app.trace.part", ".app.trace.0123456789abcdeg.part", "app.trace.0123456789abcdef.part"] {
            assert!(!is_part_of(OsStr::new(foreign), target), "{foreign}");
        }
        assert!(name(OsStr::new(&"x".repeat(255))).unwrap().len() <= 255);
    }
}
