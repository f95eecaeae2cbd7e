//! Finds workloads: in a clone, in the binary, or where the user points.
//!
//! Invariant: a definition counts as bundled only together with the files it names; the first place that has any
//! definition is the only one used, so that definitions of different versions never mix. A folder without the full
//! recordings, such as an unpacked source archive, counts as one that has cuts only.

use super::{Definition, ExpectedTotals};
use crate::run::{Fidelity, bounded};
use crate::units::plain_line;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that the binary carries: definitions by `NAME.toml`, cuts by `cuts/FILE`.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The folder of a clone that holds definitions, traces and cuts.
const FOLDER: &str = "workloads";

/// Where in a clone the full recordings of bundled workloads are.
const FULL_TRACES: &str = "workloads/traces";
/// Where in a clone is what `live` found about bundled workloads.
const FIDELITY_FOLDER: &str = "results/fidelity";

/// A workload that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Name; for a user's trace its file stem.
    pub name: String,
    /// One line.
    pub title: String,
    /// What it is and why it is here; empty for a user's trace.
    pub story: String,
    /// Where the events are.
    pub source: TraceSource,
    /// What its file must hold; `None` for a user's trace.
    pub promise: Option<Promise>,
}

/// What a definition promises of a trace file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Promise {
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// Totals of its footer.
    pub totals: ExpectedTotals,
}

/// Where a trace file is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceSource {
    /// On disk.
    File(PathBuf),
    /// In the binary, under this name.
    Embedded(String),
}

impl TraceSource {
    /// How errors name it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => plain_line(&path.display().to_string()).into_owned(),
            Self::Embedded(name) => format!("the built-in {name}"),
        }
    }
}

/// The bytes of an embedded file.
#[must_use]
pub fn embedded(name: &str) -> Option<&'static [u8]> {
    EMBEDDED.iter().find(|(have, _)| *have == name).map(|(_, bytes)| *bytes)
}

/// Every bundled workload that can be found, by name.
#[derive(Clone, Debug, Default)]
pub struct Bundle {
    /// Whether full recordings are there. One that is missing among them is then an error, not a reason to take cuts.
    full: bool,
    definitions: Vec<Definition>,
    /// What is wrong with a definition that is not among them: no hindrance to those who did not ask for it.
    broken: Option<String>,
    /// The `workloads` folder; `None` for the definitions in the binary.
    folder: Option<PathBuf>,
}

impl Bundle {
    /// Looks in the clone around the current folder, then in the clone that this binary was built from, then in the
    /// binary itself.
    ///
    /// A packaged binary was built from no clone that is here.
    #[must_use]
    pub fn find() -> Self {
        let built_from = Some(PathBuf::from(env!("PYALLOC_BENCH_CLONE"))).filter(|root| root.is_absolute());
        clone_around_current_folder()
            .into_iter()
            .chain(built_from)
            .map(|root| Self::in_folder(&root.join(FOLDER)))
            .find(|bundle| !bundle.definitions.is_empty() || bundle.broken.is_some())
            .unwrap_or_else(Self::in_binary)
    }

    /// The definitions of one folder; none when there is no such folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let Ok(entries) = fs::read_dir(folder) else { return Self::default() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
        paths.sort();
        let read = |path: &PathBuf| {
            let shown = path.display().to_string();
            let text = bounded::read_text(path, bounded::TEXT_BYTES_MAX)
                .map_err(|e| format!("{shown} cannot be read: {e}. Make it readable, or remove it."))?;
            Definition::parse(&text, &shown)
        };
        let bundle = Self::of(paths.iter().map(read));
        let full = bundle.definitions.iter().any(|definition| folder.join(&definition.trace.file).exists());
        Self { full, folder: Some(folder.to_path_buf()), ..bundle }
    }

    fn in_binary() -> Self {
        let definitions = EMBEDDED.iter().filter(|(name, _)| name.ends_with(".toml"));
        Self::of(definitions.map(|(name, bytes)| Definition::parse(&String::from_utf8_lossy(bytes), name)))
    }

    fn of(parsed: impl Iterator<Item = Result<Definition, String>>) -> Self {
        let mut bundle = Self::default();
        for definition in parsed {
            match definition {
                Ok(definition) => bundle.definitions.push(definition),
                Err(reason) => bundle.broken = bundle.broken.or(Some(reason)),
            }
        }
        bundle
    }

    /// Whether only the small cuts are at hand.
    #[must_use]
    pub fn is_cuts_only(&self) -> bool {
        !self.full
    }

    /// The definitions, sorted by name.
    #[must_use]
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Every workload, as its full recording or as its cut.
    ///
    /// # Errors
    /// A sentence when a definition is malformed.
    pub fn all(&self, cuts: bool) -> Result<Vec<Workload>, String> {
        match &self.broken {
            Some(reason) => Err(reason.clone()),
            None => Ok(self.definitions.iter().map(|definition| self.workload(definition, cuts)).collect()),
        }
    }

    /// The workload that a word on the command line means: a bundled name, else a trace file.
    ///
    /// # Errors
    /// A sentence that lists the names when the word is neither, or that says which definition is malformed.
    pub fn resolve(&self, word: &str, cuts: bool) -> Result<Workload, String> {
        if let Some(definition) = self.definitions.iter().find(|definition| definition.name == word) {
            return Ok(self.workload(definition, cuts));
        }
        let path = Path::new(word);
        if path.is_file() {
            return Ok(of_file(path));
        }
        let names: Vec<&str> = self.definitions.iter().map(|definition| definition.name.as_str()).collect();
        let what = if path.is_dir() { "is a folder" } else { "is neither a bundled workload nor a file" };
        Err(format!(
            "{} {what}. Give a trace file or one of: {}.",
            plain_line(word),
            if names.is_empty() { "(no workload is bundled)".to_owned() } else { names.join(", ") }
        ) + &self.broken.as_ref().map_or_else(String::new, |reason| format!(" {reason}")))
    }

    fn workload(&self, definition: &Definition, cuts: bool) -> Workload {
        let part = if cuts || self.is_cuts_only() { &definition.cut } else { &definition.trace };
        Workload {
            name: definition.name.clone(),
            title: definition.title.clone(),
            story: definition.story_text(),
            source: match &self.folder {
                Some(folder) => TraceSource::File(folder.join(&part.file)),
                None => TraceSource::Embedded(part.file.clone()),
            },
            promise: Some(Promise { sha256: part.sha256.clone(), totals: part.totals.clone() }),
        }
    }
}

impl Workload {
    /// Where what `live` found about it may be: `results/fidelity/NAME.json` of a bundled one's clone, or beside the
    /// trace. A cut is another trace than the recording that was compared.
    #[must_use]
    pub fn fidelity_files(&self) -> Vec<PathBuf> {
        let TraceSource::File(trace) = &self.source else { return Vec::new() };
        let beside = Fidelity::path_beside(trace);
        let root =
            trace.parent().filter(|folder| folder.ends_with(FULL_TRACES)).and_then(|folder| folder.ancestors().nth(2));
        match (&self.promise, root) {
            (Some(_), Some(root)) => vec![root.join(FIDELITY_FOLDER).join(format!("{}.json", self.name)), beside],
            (Some(_), None) => Vec::new(),
            (None, _) => vec![beside],
        }
    }
}

/// A user's own trace.
fn of_file(path: &Path) -> Workload {
    let name = path.file_name().map_or_else(|| "trace".into(), |name| name.to_string_lossy().into_owned());
    let name = plain_line(&name).into_owned();
    let stem = [".zst", ".trace"].iter().fold(name.as_str(), |stem, ending| stem.strip_suffix(ending).unwrap_or(stem));
    Workload {
        name: if stem.is_empty() { name.clone() } else { stem.to_owned() },
        title: format!("the recording {name}"),
        story: String::new(),
        source: TraceSource::File(path.to_path_buf()),
        promise: None,
    }
}

/// The root of the clone of this package that the current folder lies in.
#[must_use]
pub fn clone_around_current_folder() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().find(|root| is_clone(root)).map(Path::to_path_buf)
}

fn is_clone(root: &Path) -> bool {
    let own_name = concat!("name = \"", env!("CARGO_PKG_NAME"), "\"");
    bounded::read_text(&root.join("Cargo.toml"), bounded::TEXT_BYTES_MAX)
        .is_ok_and(|text| text.lines().any(|line| line.trim() == own_name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_come_first_then_files_then_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sample.toml"), super::super::definition::tests::TEXT).unwrap();
        assert!(Bundle::in_folder(folder.path()).is_cuts_only());
        fs::create_dir(folder.path().join("traces")).unwrap();
        fs::write(folder.path().join("traces/sample.zst"), "x").unwrap();
        let bundle = Bundle::in_folder(folder.path());
        assert!(!bundle.is_cuts_only());
        let full = bundle.resolve("sample", false).unwrap();
        assert_eq!(full.source, TraceSource::File(folder.path().join("traces/sample.zst")));
        let cut = bundle.resolve("sample", true).unwrap();
        assert_eq!(cut.source, TraceSource::File(folder.path().join("cuts/sample.zst")));
        let own = folder.path().join("app.trace");
        fs::write(&own, "x").unwrap();
        assert_eq!(bundle.resolve(own.to_str().unwrap(), false).unwrap().name, "app");
        let error = bundle.resolve("nothing-such", false).unwrap_err();
        assert!(error.contains("sample"), "{error}");
    }

    #[test]
    fn a_malformed_definition_is_a_sentence_not_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bad.toml"), "name = 1").unwrap();
        let bundle = Bundle::in_folder(folder.path());
        assert!(bundle.all(false).unwrap_err().contains("bad.toml"));
        assert!(bundle.resolve("anything", false).unwrap_err().contains("bad.toml"));
        assert!(bundle.resolve(folder.path().join("bad.toml").to_str().unwrap(), false).is_ok());
        assert!(Bundle::in_folder(&folder.path().join("absent")).all(false).unwrap().is_empty());
    }

    #[test]
    fn the_tests_run_in_a_clone() {
        assert_eq!(clone_around_current_folder().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")));
    }

    #[test]
    fn everything_embedded_keeps_its_promise() {
        use sha2::{Digest, Sha256};
        for workload in Bundle::in_binary().all(true).unwrap() {
            let TraceSource::Embedded(name) = &workload.source else { panic!("{workload:?} is not embedded") };
            let bytes = embedded(name).unwrap_or_else(|| panic!("{name} is not in the binary"));
            let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, workload.promise.unwrap().sha256, "{name}");
        }
    }
}
