//! Which distribution packages an interpreter had imported, from the folders that its modules came from.
//!
//! Invariant: reads the packages' own `*.dist-info` folders; what cannot be matched is left out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read;
use std::path::Path;

/// Names and versions of the packages that hold these paths, such as `.../site-packages/numpy`.
pub(crate) fn versions(imports: &[String]) -> BTreeMap<String, String> {
    let mut folders: HashMap<&Path, HashMap<String, (String, String)>> = HashMap::new();
    let mut found = BTreeMap::new();
    for import in imports {
        let path = Path::new(import);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            continue;
        };
        let owners = folders.entry(folder).or_insert_with(|| owners(folder));
        // A module that is one file: `six.py`, `_cffi_backend.cpython-312-x86_64-linux-gnu.so`.
        let top = name.split('.').next().unwrap_or(name);
        if let Some((package, version)) = owners.get(top) {
            found.insert(package.clone(), version.clone());
        }
    }
    found
}

/// Most bytes of a package's list of files that are read; the longest lists have a few thousand lines.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// A package's list of files. Whatever else has its name is not waited for.
fn record(path: &Path) -> Option<String> {
    let is_file = fs::metadata(path).ok()?.is_file();
    let mut text = Vec::new();
    is_file.then(|| fs::File::open(path).ok())??.take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// By top-level module name: the package that brought it, and its version.
fn owners(folder: &Path) -> HashMap<String, (String, String)> {
    let mut owners = HashMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((package, version)) = name.strip_suffix(".dist-info").and_then(|stem| stem.rsplit_once('-')) else {
            continue;
        };
        let owner = (package.to_lowercase().replace('_', "-"), version.to_owned());
        let listed = record(&entry.path().join("RECORD")).unwrap_or_default();
        for line in listed.lines() {
            let path = line.split(',').next().unwrap_or_default();
            let top = path.split('/').next().unwrap_or_default().split('.').next().unwrap_or_default();
            if !top.is_empty() && !path.contains(".dist-info/") {
                owners.insert(top.to_owned(), owner.clone());
            }
        }
    }
    owners
}
