//! The preloaded libraries: embedded in this binary, written to a private folder before they are used. NumPy's handler,
//! which a program loads by itself, goes where the user wants it.
//!
//! Invariant: the file that is preloaded has exactly the embedded bytes, is read back after it was opened, and lies
//! where no other user can replace it.

use crate::error::RecordError;
use files::{Kind, Mode, PrivateFolder};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A library to preload.
pub(crate) struct Library {
    name: &'static str,
    bytes: &'static [u8],
}

/// What records.
pub(crate) const RECORDER: Library =
    Library { name: "recorder", bytes: include_bytes!(concat!(env!("OUT_DIR"), "/libpyalloc_recorder.so")) };
/// What only says when a mark falls.
pub(crate) const ANNOUNCER: Library =
    Library { name: "announcer", bytes: include_bytes!(concat!(env!("OUT_DIR"), "/libpyalloc_announcer.so")) };

/// NumPy's handler, and the module that installs it: names and contents.
const NUMPY_HANDLER: [(&str, &[u8]); 2] = [
    (HANDLER_FILE, include_bytes!(concat!(env!("OUT_DIR"), "/libpyalloc_numpy.so"))),
    ("pyalloc_numpy.py", include_bytes!("../handler/pyalloc_numpy.py")),
];
/// By this name a recording knows the handler's requests.
pub(crate) const HANDLER_FILE: &str = "libpyalloc_numpy.so";

/// Begins the names of folders in a temporary folder.
const FOLDER_PREFIX: &str = "pyalloc-library-";
/// Begins the names of libraries in memory, as the mappings of a process show them behind `/memfd:`.
const MEMORY_PREFIX: &str = "pyalloc-";
/// How mappings of [`RECORDER`] in memory begin.
pub(crate) const RECORDER_IN_MEMORY: &str = "/memfd:pyalloc-recorder";

/// A library on the disk, for as long as this lives.
#[derive(Debug)]
pub struct PlacedLibrary {
    path: PathBuf,
    _holder: Holder,
}

/// What keeps a library where it is, until it is dropped.
#[derive(Debug)]
enum Holder {
    /// The user's cache folder, or one of the caller's.
    Own,
    /// A folder in a temporary one.
    Private { _folder: PrivateFolder },
    /// Memory, which the program opens by this process's descriptor.
    Memory { _file: File },
}

impl PlacedLibrary {
    /// Its file, for `LD_PRELOAD`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Deref for PlacedLibrary {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Folders that a library may be put into, in the order in which they are tried.
#[derive(Debug, Default)]
struct Places {
    /// The user's own.
    cache: Option<PathBuf>,
    /// Shared: each gets a private folder, which is removed at the end.
    temporary: Vec<PathBuf>,
    /// Made by the caller.
    last: Option<PathBuf>,
}

/// Writes NumPy's handler and its module to a folder, which is made if it is not there; the files.
pub(crate) fn write_numpy_handler(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |error| RecordError::Output { path, error }
    };
    if NUMPY_HANDLER.iter().any(|(_, bytes)| bytes.is_empty()) {
        return Err(RecordError::Unsupported);
    }
    files::check_base(folder)?;
    files::make_folders(folder).map_err(failed(folder))?;
    // Both or none, as far as that can be known before.
    for (name, _) in NUMPY_HANDLER {
        files::check_target(&folder.join(name), Kind::Any)?;
    }
    let write = |(name, bytes): &(&'static str, &'static [u8])| {
        let path = folder.join(name);
        // Unlike what is preloaded from the user's own cache, these are installed for whoever runs the program.
        files::replace(&path, Kind::Any, Mode::Exact(0o644), bytes).map_err(failed(&path))?;
        Ok(path)
    };
    NUMPY_HANDLER.iter().map(write).collect()
}

/// Writes a library to the user's cache folder, or else to a private folder in the temporary one, or else to `last`, or
/// else to memory, as in a container whose only writable folder is open to everybody.
pub(crate) fn extract(library: &Library, last: &Path) -> Result<PlacedLibrary, RecordError> {
    extract_to(library, Places { last: Some(last.to_owned()), ..Places::of_this_process() })
}

/// As [`extract`], of the announcer, without a last folder.
pub(crate) fn announcer() -> Result<PlacedLibrary, RecordError> {
    extract_to(&ANNOUNCER, Places::of_this_process())
}

impl Places {
    fn of_this_process() -> Self {
        let usual = ["/tmp", "/var/tmp"].map(PathBuf::from);
        let temporary = std::iter::once(std::env::temp_dir()).chain(usual).collect();
        Self { cache: cache_folder(), temporary, last: None }
    }
}

fn extract_to(library: &Library, places: Places) -> Result<PlacedLibrary, RecordError> {
    if library.bytes.is_empty() {
        return Err(RecordError::Unsupported);
    }
    let Places { cache, temporary, last } = places;
    let shared = temporary.into_iter().map(|path| (path, true));
    let places = cache.map(|path| (path, false)).into_iter().chain(shared).chain(last.map(|path| (path, false)));
    let mut reasons = Vec::new();
    for (path, is_shared) in places {
        match place_in(library, &path, is_shared) {
            Ok(placed) => return Ok(placed),
            Err(error) => reasons.push(format!("{}: {error}", path.display())),
        }
    }
    place_in_memory(library).map_err(|error| {
        reasons.push(format!("memory: {error}"));
        RecordError::NoPlace(reasons.join("; "))
    })
}

/// Puts the library into the folder, or into a private one in it where others use it too.
fn place_in(library: &Library, folder: &Path, is_shared: bool) -> io::Result<PlacedLibrary> {
    check_preloadable(folder)?;
    let (path, holder) = if is_shared {
        let private = PrivateFolder::make(folder, FOLDER_PREFIX, is_library)?;
        (private.path().to_owned(), Holder::Private { _folder: private })
    } else {
        (files::own_folder(folder)?, Holder::Own)
    };
    check_preloadable(&path)?;
    Ok(PlacedLibrary { path: place(library, &path)?, _holder: holder })
}

/// Puts the library into memory. Programs of other users, and those with their own process ids, cannot open it there.
fn place_in_memory(library: &Library) -> io::Result<PlacedLibrary> {
    let file = files::sealed(&format!("{MEMORY_PREFIX}{}", library.name), library.bytes)?;
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    // Where /proc shows something else, the loader would find nothing.
    match fs::read(&path)? == library.bytes {
        true => Ok(PlacedLibrary { path, _holder: Holder::Memory { _file: file } }),
        false => Err(io::Error::other("the library in memory is another one when it is read")),
    }
}

fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A home that does not exist is that of a user who has none.
    let home = || absolute("HOME").filter(|home| home.is_dir()).map(|home| home.join(".cache"));
    let base = absolute("XDG_CACHE_HOME").or_else(home)?;
    Some(base.join("pyalloc-bench"))
}

/// The loader splits `LD_PRELOAD` at spaces and colons.
fn check_preloadable(path: &Path) -> io::Result<()> {
    match path.to_str().is_some_and(|text| !text.contains([' ', ':', '\t', '\n'])) {
        true => Ok(()),
        false => Err(io::Error::other("LD_PRELOAD cannot name a path with spaces or colons")),
    }
}

/// Whether a file of this name is a library of ours, or an unfinished one.
fn is_library(name: &str) -> bool {
    let name = name.strip_prefix('.').unwrap_or(name);
    [RECORDER.name, ANNOUNCER.name].iter().any(|library| name.starts_with(&format!("{library}-")))
}

/// Puts the library into a folder of this user, whole or not at all; its file. A good one is left alone, since programs
/// may have it mapped.
fn place(library: &Library, folder: &Path) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    library.bytes.hash(&mut hasher);
    let path = folder.join(format!("{}-{:016x}.so", library.name, hasher.finish()));
    if !is_good(library, &path) {
        files::replace(&path, Kind::Any, Mode::Exact(0o700), library.bytes)?;
    }
    match is_good(library, &path) {
        true => Ok(path),
        false => Err(io::Error::other("the library that was written there is another one when it is read")),
    }
}

fn is_good(library: &Library, path: &Path) -> bool {
    let mut bytes = Vec::new();
    let longest = library.bytes.len() as u64 + 1;
    files::open_own(path).is_ok_and(|file| file.take(longest).read_to_end(&mut bytes).is_ok()) && bytes == library.bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, bits: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    }

    /// A shared temporary folder, and places without a cache.
    fn shared() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("shared");
        fs::create_dir(&shared).unwrap();
        set_mode(&shared, 0o1777);
        (folder, shared)
    }

    fn extract_there(places: Places) -> Result<PlacedLibrary, RecordError> {
        extract_to(&ANNOUNCER, places)
    }

    #[test]
    fn a_library_in_a_shared_folder_lies_in_a_private_one_that_goes() {
        let (_folder, shared) = shared();
        let placed = extract_there(Places { temporary: vec![shared.clone()], ..Places::default() }).unwrap();
        assert_eq!(fs::read(placed.path()).unwrap(), ANNOUNCER.bytes);
        let private = fs::metadata(placed.parent().unwrap()).unwrap();
        assert_eq!((private.mode() & 0o7777, placed.parent().unwrap().parent()), (0o700, Some(shared.as_path())));
        drop(placed);
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_others_can_change_is_passed_over() {
        let (folder, shared) = shared();
        let cache = folder.path().join("cache");
        let places = || Places { cache: Some(cache.clone()), temporary: vec![shared.clone()], last: None };
        let name = extract_there(places()).unwrap().path().to_owned();
        assert_eq!(name.parent().unwrap(), cache.canonicalize().unwrap());
        set_mode(&cache, 0o777);
        assert!(extract_there(places()).unwrap().starts_with(shared.canonicalize().unwrap()));
        set_mode(&shared, 0o777);
        assert!(extract_there(places()).unwrap().starts_with("/proc"));
        let error = place_in(&ANNOUNCER, &shared, true).unwrap_err().to_string();
        assert!(error.contains("can be written to by others"), "{error}");
        let spaced = folder.path().join("a b");
        let error = place_in(&ANNOUNCER, &spaced, false).unwrap_err().to_string();
        assert!(error.contains("spaces") && !spaced.exists(), "{error}");
    }

    #[test]
    fn a_library_in_memory_is_loaded_and_cannot_be_changed() {
        let placed = place_in_memory(&ANNOUNCER).unwrap();
        assert!(
            fs::OpenOptions::new().write(true).open(placed.path()).and_then(|mut file| file.write_all(b"x")).is_err()
        );
        let cat = std::process::Command::new("cat").arg("/proc/self/maps").env("LD_PRELOAD", placed.path()).output();
        let (maps, errors) = (cat.as_ref().unwrap().stdout.clone(), cat.unwrap().stderr);
        let text = String::from_utf8_lossy(&maps);
        assert!(text.contains("/memfd:pyalloc-announcer"), "{text} {}", String::from_utf8_lossy(&errors));
    }

    #[test]
    fn planted_files_are_replaced_and_links_are_not_followed() {
        let (folder, shared) = shared();
        let (cache, victim) = (folder.path().join("cache"), folder.path().join("victim"));
        fs::write(&victim, "mine").unwrap();
        let places = || Places { cache: Some(cache.clone()), temporary: vec![shared.clone()], last: None };
        let path = extract_there(places()).unwrap().path().to_owned();
        fs::write(&path, "evil").unwrap();
        assert_eq!(fs::read(extract_there(places()).unwrap().path()).unwrap(), ANNOUNCER.bytes);
        set_mode(&path, 0o777);
        assert_eq!(fs::metadata(extract_there(places()).unwrap().path()).unwrap().mode() & 0o777, 0o700);
        fs::remove_file(&path).unwrap();
        symlink(&victim, &path).unwrap();
        assert!(extract_there(places()).unwrap().starts_with(shared.canonicalize().unwrap()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "mine");
    }

    #[test]
    fn what_another_user_planted_is_not_used() {
        let (folder, shared) = shared();
        let cache = folder.path().join("cache");
        let places = || Places { cache: Some(cache.clone()), temporary: vec![shared.clone()], last: None };
        let path = extract_there(places()).unwrap().path().to_owned();
        if chown(&path, Some(65_534), None).is_err() {
            println!("NOT RUN: only root can give a file to another user");
            return;
        }
        // The right bytes, which their owner may change at any time.
        assert_eq!(fs::metadata(extract_there(places()).unwrap().path()).unwrap().uid(), 0);
        chown(&cache, Some(65_534), None).unwrap();
        assert!(extract_there(places()).unwrap().starts_with(shared.canonicalize().unwrap()));
    }
}
