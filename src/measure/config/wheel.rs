//! Which `libarrow.so` a Python program loads with its pyarrow, and configurations in which its own pools serve Arrow.
//!
//! Invariant: the interpreter is asked where it looks for modules and for nothing else; pyarrow is not imported.

use super::variables::{ARROW, ARROW_JEMALLOC};
use super::words::LINKED_JEMALLOC;
use super::{Config, Domain};
use crate::backend::{LIBARROW_VARIABLE, WHEEL_KEY};
use crate::measure::spawn::answer;
use std::path::{Path, PathBuf};

/// The pyarrow of a Python program, or of a folder of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// Its library, absolute.
    pub file: PathBuf,
    /// Its version, such as `26.0.1`; as much of it as the library's name says where the package does not tell.
    pub version: String,
}

/// What an interpreter is asked: the folders in which it looks for modules, in their order.
const QUESTION: &str = "import os, sys; print(*[os.path.abspath(path) for path in sys.path if path], sep='\\n')";
/// The package, and how its library's name begins.
const PACKAGE: &str = "pyarrow";
const LIBRARY: &str = "libarrow.so.";

impl Wheel {
    /// Finds the library that `import pyarrow` of a program would load, or that of a folder which holds the package.
    ///
    /// # Errors
    /// A sentence: the program does not run, or has no pyarrow with a library of its own.
    pub fn find(place: &str) -> Result<Self, String> {
        let path = Path::new(place);
        if path.is_dir() {
            let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
            // A virtual environment is asked by its interpreter.
            let python = path.join("bin").join("python");
            return match Self::in_folder(&path) {
                Some(wheel) => Ok(wheel),
                None if python.exists() => Self::of_program(python.as_os_str().to_string_lossy().as_ref()),
                None => Err(format!(
                    "The folder {place} holds no {PACKAGE} with a library of its own. Name a Python program or a \
                     folder of packages."
                )),
            };
        }
        Self::of_program(place)
    }

    /// The pool that this version uses unless told otherwise: mimalloc from 18 on, jemalloc before.
    pub(in crate::measure) fn default_pool(&self) -> &'static str {
        let major: Option<u32> = self.version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major| major < 18) { "jemalloc" } else { "mimalloc" }
    }

    fn of_program(program: &str) -> Result<Self, String> {
        let output = answer(program, ["-c", QUESTION]);
        let output = output.map_err(|error| {
            format!("{program} does not run ({error}), so its {PACKAGE} cannot be found. Name a Python program.")
        })?;
        if !output.status.success() {
            return Err(format!("{program} does not run as Python. Name another interpreter."));
        }
        let folders = String::from_utf8_lossy(&output.stdout).into_owned();
        folders.lines().find_map(|folder| Self::in_folder(Path::new(folder))).ok_or_else(|| {
            format!(
                "{program} has no {PACKAGE} with a library of its own. Install it there ({program} -m pip install \
                 {PACKAGE}), or name the Python of the service, as in arrow=wheel:mimalloc:venv/bin/python."
            )
        })
    }

    /// The library of the package in a folder of packages.
    pub(in crate::measure) fn in_folder(folder: &Path) -> Option<Self> {
        let mut libraries: Vec<PathBuf> = names(&folder.join(PACKAGE)).filter(|path| is_library(path)).collect();
        libraries.sort();
        let library = libraries.into_iter().next()?;
        let package = names(folder).find_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some(name.strip_suffix(".dist-info")?.strip_prefix("pyarrow-")?.to_owned())
        });
        let version = package.or_else(|| {
            // `libarrow.so.2600` belongs to 26.0.
            let number: u32 = library.to_str()?.rsplit_once(LIBRARY)?.1.parse().ok()?;
            Some(format!("{}.{}", number / 100, number % 100))
        });
        Some(Self { file: library, version: version.unwrap_or_else(|| "unknown".to_owned()) })
    }
}

impl Config {
    /// Has its children load the library of a wheel; `typed` is the word that named it, whose path gives way to the
    /// version.
    pub(super) fn load_arrow(&mut self, wheel: &Wheel, typed: &str) {
        let shown = format!("{}:{}", self.backends[Domain::Arrow as usize], wheel.version);
        for text in [&mut self.name, &mut self.words, &mut self.label] {
            *text = text.replace(typed, &shown);
        }
        self.load_library(wheel);
    }

    /// The same configuration in a service with this wheel: where variables stand for all of it, its Arrow pool is the
    /// one that they choose in this library, or the one that this version chooses by itself. What if remains what if.
    #[must_use]
    pub fn on_wheel(mut self, wheel: &Wheel) -> Self {
        if self.deploy.is_none() {
            return self;
        }
        let typed = |wanted| self.typed.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let pool = typed(ARROW).unwrap_or_else(|| wheel.default_pool().to_owned());
        self.backends[Domain::Arrow as usize] = format!("{WHEEL_KEY}:{pool}");
        // Options that made our own copy of jemalloc stand for Arrow's.
        self.variables.retain(|(name, _)| name != LINKED_JEMALLOC);
        self.load_library(wheel);
        self
    }

    fn load_library(&mut self, wheel: &Wheel) {
        let options = self.typed.iter().find(|(name, _)| name == ARROW_JEMALLOC);
        self.variables.extend(options.map(|(name, value)| (name.clone(), value.into())));
        self.variables.push((LIBARROW_VARIABLE.to_owned(), wheel.file.clone().into()));
    }
}

/// What lies in a folder; nothing where there is none.
fn names(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_library(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LIBRARY))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn packages(library: &str, information: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(PACKAGE)).unwrap();
        std::fs::create_dir_all(folder.path().join(information)).unwrap();
        std::fs::write(folder.path().join(PACKAGE).join(library), b"").unwrap();
        std::fs::write(folder.path().join(PACKAGE).join("libarrow_python.so.2600"), b"").unwrap();
        folder
    }

    #[test]
    fn a_folder_of_packages_tells_library_and_version() {
        let folder = packages("libarrow.so.2600", "pyarrow-26.0.1.dist-info");
        let wheel = Wheel::find(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(
            (wheel.version.as_str(), wheel.file.file_name().unwrap().to_str().unwrap()),
            ("26.0.1", "libarrow.so.2600")
        );
        assert!(wheel.file.is_absolute());
        let untold = packages("libarrow.so.1701", "numpy-2.4.6.dist-info");
        assert_eq!(Wheel::find(untold.path().to_str().unwrap()).unwrap().version, "17.1");
    }

    #[test]
    fn a_word_names_a_pool_and_results_its_version() {
        let folder = packages("libarrow.so.1700", "pyarrow-17.0.0.dist-info");
        let place = folder.path().to_str().unwrap();
        let config = super::super::parse(&format!("numpy=jemalloc arrow=wheel:mimalloc:{place}")).unwrap();
        assert_eq!(config.backends[Domain::Arrow as usize], "wheel:mimalloc");
        assert_eq!((config.name.as_str(), &config.deploy), ("numpy=jemalloc arrow=wheel:mimalloc:17.0.0", &None));
        let (name, library) = config.variables.last().unwrap();
        assert_eq!(name, LIBARROW_VARIABLE);
        assert!(library.to_str().unwrap().ends_with("pyarrow/libarrow.so.1700"), "{library:?}");
        assert_eq!(config.words, config.name);
        for (text, expected) in [
            ("arrow=wheel:tcmalloc", "wheel:jemalloc, wheel:system"),
            ("arrow=wheel", "wheel:jemalloc, wheel:system"),
            ("wheel:mimalloc", "arrow=wheel:mimalloc"),
            ("numpy=wheel:mimalloc", "arrow=wheel:mimalloc"),
            ("arrow=wheel:mimalloc:/nonexistent/python", "does not run"),
        ] {
            let error = super::super::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn variables_choose_among_the_pools_of_a_wheel() {
        let wheel = |version: &str| Wheel { file: "/lib/libarrow.so".into(), version: version.to_owned() };
        let served = |text: &str, version: &str| {
            let config = super::super::parse(text).unwrap().on_wheel(&wheel(version));
            let names: Vec<String> = config.variables.iter().map(|(name, _)| name.clone()).collect();
            (config.backends[Domain::Arrow as usize].clone(), names.join(" "))
        };
        let library = LIBARROW_VARIABLE.to_owned();
        assert_eq!(served("today", "17.0.0"), ("wheel:jemalloc".to_owned(), library.clone()));
        assert_eq!(served("today", "26.0.1"), ("wheel:mimalloc".to_owned(), library.clone()));
        assert_eq!(served("arrow-system", "26.0.1"), ("wheel:system".to_owned(), library.clone()));
        let options = format!("{ARROW_JEMALLOC} {library}");
        let text = "arrow-jemalloc JE_ARROW_MALLOC_CONF=dirty_decay_ms:0";
        assert_eq!(served(text, "26.0.1"), ("wheel:jemalloc".to_owned(), options));
        assert_eq!(served("pool", "26.0.1"), ("system".to_owned(), String::new()));
    }

    #[test]
    fn a_place_without_it_is_an_error() {
        let empty = tempfile::tempdir().unwrap();
        for (place, expected) in [
            (empty.path().to_str().unwrap(), "holds no pyarrow"),
            ("/nonexistent/python", "does not run"),
            ("false", "as Python"),
        ] {
            let error = Wheel::find(place).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
