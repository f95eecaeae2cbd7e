//! Files that one process writes at any place while others map them.

use crate::own::open_own_with;
use rustix::fs::OFlags;
use std::fs::File;
use std::io;
use std::path::Path;

/// Makes a file for reading and writing that this user alone can open.
///
/// # Errors
/// When something has the name, or it cannot be made.
pub fn new_data(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits() as i32;
    File::options().read(true).write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Opens such a file again.
///
/// # Errors
/// When it cannot be opened, is no regular file of this user, or others can write to it.
pub fn open_data(path: &Path) -> io::Result<File> {
    open_own_with(path, OFlags::RDWR)
}
