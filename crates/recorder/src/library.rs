//! The preloaded libraries: embedded in this binary, written to a private folder before they are used. NumPy's handler,
//! which a program loads by itself, goes where the user wants it.
//!
//! Invariant: the file that is preloaded has exactly the embedded bytes, and nobody else could have written it.

use crate::error::RecordError;
use std::fs::{self, DirBuilder, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
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

/// Writes NumPy's handler and its module to a folder, which is made if it is not there; the files.
pub(crate) fn write_numpy_handler(folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |error| RecordError::Output { path, error }
    };
    if NUMPY_HANDLER.iter().any(|(_, bytes)| bytes.is_empty()) {
        return Err(RecordError::Unsupported);
    }
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let write = |(name, bytes): &(&'static str, &'static [u8])| {
        let path = folder.join(name);
        place(&Library { name, bytes }, &path).map_err(failed(&path))?;
        // Unlike what is preloaded from the user's own cache, these are installed for whoever runs the program.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(failed(&path))?;
        Ok(path)
    };
    NUMPY_HANDLER.iter().map(write).collect()
}

/// Writes a library to the user's cache folder, or else to `fallback`; its path.
pub(crate) fn extract(library: &Library, fallback: &Path) -> Result<PathBuf, RecordError> {
    if library.bytes.is_empty() {
        return Err(RecordError::Unsupported);
    }
    let mut hasher = DefaultHasher::new();
    library.bytes.hash(&mut hasher);
    let name = format!("{}-{:016x}.so", library.name, hasher.finish());
    let cache = cache_folder().filter(|folder| is_preloadable(folder) && make_private(folder));
    if let Some(path) = cache.map(|folder| folder.join(&name))
        && place(library, &path).is_ok()
    {
        return Ok(path);
    }
    let path = fallback.join(&name);
    if !is_preloadable(&path) {
        let why = std::io::Error::other("LD_PRELOAD cannot name a path with spaces or colons");
        return Err(RecordError::Output { path, error: why });
    }
    place(library, &path).map_err(|error| RecordError::Output { path: path.clone(), error })?;
    Ok(path)
}

fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("pyalloc-bench"))
}

/// The loader splits `LD_PRELOAD` at spaces and colons.
fn is_preloadable(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains([' ', ':', '\t', '\n']))
}

/// Makes the folder, or checks that it is ours alone.
fn make_private(folder: &Path) -> bool {
    if DirBuilder::new().mode(0o700).recursive(true).create(folder).is_err() {
        return false;
    }
    // SAFETY: no preconditions.
    let own = unsafe { libc::geteuid() };
    fs::symlink_metadata(folder).is_ok_and(|facts| facts.is_dir() && facts.uid() == own && facts.mode() & 0o022 == 0)
}

/// Puts the library there, whole or not at all; a good one is left alone, since programs may have it mapped.
fn place(library: &Library, path: &Path) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|bytes| bytes == library.bytes) {
        return Ok(());
    }
    let partial = path.with_extension(format!("part.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o700).open(&partial)?;
    file.write_all(library.bytes)?;
    drop(file);
    fs::rename(&partial, path)
}
