//! A Python installation or virtual environment: its interpreter, the allocators that its packages contain, and what
//! each variable reaches among them.
//!
//! Libraries are read, not run, to find allocators. Then each library that holds a mimalloc or a jemalloc is loaded in
//! a child process of the interpreter, as importing it would, and asked for its version and options.
//!
//! Invariant: nothing of the installation is changed. An allocator counts as reached by a variable only if it read one
//! in such a child, or its own build names it, or the variable is the interpreter's, the loader's or the C library's.

mod asked;
mod copy;
mod effect;
mod interpreter;
mod reach;
mod scan;

pub use copy::{Copy, Family};
pub use effect::{Effect, effects};
pub use interpreter::Python;
pub use reach::{Reach, reaches};
#[cfg(any(test, fuzzing))]
pub(crate) use scan::copies;

use super::config::Wheel;
use serde::Serialize;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What an installation contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installation {
    /// Its interpreter.
    pub python: Python,
    /// Its private allocators, those of the interpreter first.
    pub copies: Vec<Copy>,
    /// Its pyarrow, if it has one with a library of its own.
    pub arrow: Option<Arrow>,
    /// Libraries that were looked at.
    pub libraries: u32,
    /// Libraries that could not be read, and copies that could not be asked, each with the reason.
    pub remarks: Vec<String>,
    /// Where each copy's library is; `None`: in the interpreter.
    #[serde(skip)]
    places: Vec<Option<PathBuf>>,
}

/// A pyarrow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrow {
    /// Its version.
    pub version: String,
    /// The pool that it takes unless told otherwise.
    pub default_pool: String,
    /// The pools that its library contains.
    pub pools: Vec<String>,
}

impl Installation {
    /// Looks at the installation of an interpreter, or at a virtual environment by its folder.
    ///
    /// # Errors
    /// A sentence: there is no CPython there.
    pub fn find(place: &str) -> Result<Self, String> {
        let python = Python::find(place)?;
        let mut found = Self { python, copies: vec![], arrow: None, libraries: 0, remarks: vec![], places: vec![] };
        let code = found.python.code.clone();
        found.look_at(&code, None);
        for (folder, library) in libraries(&found.python.folders) {
            found.libraries += 1;
            found.look_at(&library, Some(&folder));
        }
        found.ask_all();
        found.arrow = found.find_arrow();
        Ok(found)
    }

    /// Adds the copies of one library, below a folder of packages or the interpreter's own.
    fn look_at(&mut self, library: &Path, folder: Option<&Path>) {
        let inside = folder.and_then(|folder| library.strip_prefix(folder).ok());
        let file = inside.or(library.file_name().map(Path::new)).unwrap_or(library).display().to_string();
        match scan::copies(library) {
            Ok(copies) => {
                self.places.extend(copies.iter().map(|_| folder.map(|_| library.to_owned())));
                self.copies.extend(copies.into_iter().map(|copy| Copy { file: file.clone(), ..copy }));
            }
            Err(error) => self.remarks.push(format!("{file} cannot be read: {error}.")),
        }
    }

    fn ask_all(&mut self) {
        for (copy, place) in self.copies.iter_mut().zip(&self.places) {
            match asked::ask(&self.python, place.as_deref(), copy, None) {
                Ok(answer) => {
                    copy.answers = true;
                    copy.version = copy.version.take().or(answer.version);
                    copy.options = answer.options;
                }
                Err(reason) => self.remarks.push(format!("The {} does not answer: {reason}.", copy.describe())),
            }
        }
    }

    fn find_arrow(&self) -> Option<Arrow> {
        let wheel = self.python.folders.iter().find_map(|folder| Wheel::in_folder(folder))?;
        let file = wheel.file.canonicalize().ok()?;
        let is_its = |place: &Option<PathBuf>| place.as_ref().is_some_and(|place| *place == file);
        let own = self.copies.iter().zip(&self.places).filter(|(_, place)| is_its(place));
        let mut pools = vec!["system".to_owned()];
        pools.extend(own.map(|(copy, _)| copy.family.name().to_owned()));
        let default_pool = wheel.default_pool().to_owned();
        Some(Arrow { version: wheel.version, default_pool, pools })
    }

    /// The copies of a family.
    fn of(&self, family: Family) -> impl Iterator<Item = &Copy> {
        self.copies.iter().filter(move |copy| copy.family == family)
    }

    /// What a copy says with the variable that it reads set to a value.
    fn ask(&self, copy: &Copy, name: &str, value: &str) -> Result<asked::Answer, String> {
        let place = self.copies.iter().position(|other| other == copy).and_then(|at| self.places[at].as_deref());
        asked::ask(&self.python, place, copy, Some((name, value)))
    }
}

/// The shared libraries in folders and below, in the order of their paths, each once, with the folder.
fn libraries(folders: &[PathBuf]) -> Vec<(PathBuf, PathBuf)> {
    let is_inside = |folder: &&PathBuf| folders.iter().any(|other| other != *folder && folder.starts_with(other));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for folder in folders.iter().filter(|folder| !is_inside(folder)) {
        let mut left = vec![folder.clone()];
        while let Some(next) = left.pop() {
            for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
                let path = entry.path();
                // Of a link to a folder the kind is that of the link: it is not gone into.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(path);
                } else if is_library(&path)
                    && let Ok(facts) = std::fs::metadata(&path)
                    && facts.is_file()
                    && seen.insert((facts.dev(), facts.ino()))
                {
                    found.push((folder.clone(), path));
                }
            }
        }
    }
    found.sort();
    found
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".so") || name.contains(".so.")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn libraries_are_found_once_and_links_to_folders_are_not_gone_into() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["a/one.so", "a/b/two.so.26", "a/so.py", "a/three.sock"] {
            std::fs::write(root.join(name), b"").unwrap();
        }
        std::fs::hard_link(root.join("a/one.so"), root.join("a/same.so")).unwrap();
        std::os::unix::fs::symlink(root, root.join("a/loop")).unwrap();
        let found = libraries(&[root.to_owned(), root.join("a")]);
        let names: Vec<_> = found.iter().map(|(_, path)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&"two.so.26"), "{names:?}");
    }
}
