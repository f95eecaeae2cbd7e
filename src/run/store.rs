//! The folder of one result: `environment.json` once, then one line of `runs.jsonl` per child.
//!
//! Invariant: a line that was appended is on its way to the disk in one write before the next child starts, so an
//! interrupted result keeps every run it had; nothing here ever rewrites or removes a line.

use super::{Environment, Run, SCHEMA, bounded};
use crate::units;
use files::{Kind, Mode};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the file with everything that is not one child's reading.
pub const ENVIRONMENT_FILE: &str = "environment.json";
/// Name of the file with one run per line.
pub const RUNS_FILE: &str = "runs.jsonl";
/// Name of the same file compressed, as a result that is only quoted may be kept: read where the other is missing.
pub const RUNS_FILE_COMPRESSED: &str = "runs.jsonl.zst";
/// Name of the link to the newest result, beside the results.
pub const LATEST_LINK: &str = "latest";

/// Why a result could not be written or read: one sentence that ends with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// From a whole sentence that ends with what to do.
    pub(super) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

/// A result that is being written.
#[derive(Debug)]
pub struct ResultDir {
    path: PathBuf,
    runs: File,
    is_latest: bool,
}

impl ResultDir {
    /// Checks that results could be written to `base`, before anything is measured.
    ///
    /// # Errors
    /// A sentence that names the folder and the option that moves it.
    pub fn check(base: &Path) -> Result<(), StoreError> {
        files::check_base(base).map_err(|refusal| StoreError(format!("{refusal} The option is -o DIR.")))
    }

    /// Makes a new folder `<UTC date and time>-<8 hex digits>` below `base`, and makes `base` if need be. The link
    /// `base/latest` leads there from the first run on.
    ///
    /// # Errors
    /// When the folder or its files cannot be made; the sentence names the folder and the option that moves it.
    pub fn create(base: &Path) -> Result<Self, StoreError> {
        let fail = |e: &std::io::Error| cannot_write(base, e);
        files::make_folders(base).map_err(|e| fail(&e))?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = utc_stamp(since_epoch.as_secs());
        let mut salt = since_epoch.subsec_nanos() ^ std::process::id().rotate_left(16);
        let path = loop {
            let path = base.join(format!("{stamp}-{salt:08x}"));
            match files::new_folder(&path) {
                Ok(()) => break path,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => salt = salt.wrapping_add(1),
                Err(e) => return Err(fail(&e)),
            }
        };
        let runs = files::append_new(&path.join(RUNS_FILE)).map_err(|e| cannot_write(&path, &e))?;
        Ok(Self { path, runs, is_latest: false })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `environment.json`; called once, before the first run.
    ///
    /// # Errors
    /// When the file cannot be written; then the folder is gone.
    pub fn write_environment(&self, environment: &Environment) -> Result<(), StoreError> {
        let mut text = serde_json::to_string_pretty(environment)
            .map_err(|e| StoreError(format!("The environment cannot be put into JSON: {e}. Please report this.")))?;
        text.push('\n');
        let file = self.path.join(ENVIRONMENT_FILE);
        files::replace(&file, Kind::Json, Mode::Usual, text.as_bytes()).map_err(|e| {
            let _ = files::remove_folder(&self.path, |name| name == RUNS_FILE);
            cannot_write(&self.path, &e)
        })?;
        Ok(())
    }

    /// Appends one run as one line, in one write.
    ///
    /// # Errors
    /// When the line cannot be written; what was appended before stays.
    pub fn append(&mut self, run: &Run) -> Result<(), StoreError> {
        let mut line = serde_json::to_string(run)
            .map_err(|e| StoreError(format!("A run cannot be put into JSON: {e}. Please report this.")))?;
        line.push('\n');
        self.runs
            .write_all(line.as_bytes())
            .and_then(|()| self.runs.flush())
            .map_err(|e| cannot_write(&self.path, &e))?;
        // Best effort: a file system without links loses the short cut, not the result.
        if let (false, Some(name)) = (self.is_latest, self.path.file_name()) {
            let _ = files::link_latest(&self.path.with_file_name(LATEST_LINK), name);
            self.is_latest = true;
        }
        Ok(())
    }
}

/// Removes the folder of a result that has no run; leaves any other.
pub fn discard(folder: &Path) {
    let runs = folder.join(RUNS_FILE);
    if fs::metadata(&runs).is_ok_and(|runs| runs.len() == 0) {
        let _ = files::remove_folder(folder, |name| [RUNS_FILE, ENVIRONMENT_FILE].contains(&name));
    }
}

/// A result as read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The folder it was read from.
    pub path: PathBuf,
    /// As stored.
    pub environment: Environment,
    /// As stored, in the executed order.
    pub runs: Vec<Run>,
    /// What a reader must be told, such as a last line that the interruption cut off.
    pub notes: Vec<String>,
}

/// Reads a result folder.
///
/// # Errors
/// When there is no such folder, a file is missing or malformed, or the schema is another one.
pub fn open(path: &Path) -> Result<Stored, StoreError> {
    let environment = read_environment(path)?;
    let runs_path = runs_file(path);
    let is_compressed = runs_path.ends_with(RUNS_FILE_COMPRESSED);
    let mut lines = bounded::Lines::open(&runs_path, is_compressed).map_err(|e| cannot_read(&runs_path, &e))?;
    let mut runs = Vec::new();
    let mut notes = Vec::new();
    for index in 0.. {
        let wrong = |e: &std::io::Error| cannot_read_line(&runs_path, index + 1, e);
        let Some(line) = lines.line().map_err(|e| wrong(&e))? else { break };
        if index == bounded::RUNS_MAX {
            return Err(StoreError(format!(
                "{} holds more than the {} runs that are read. Split the result's lines into several folders, each \
                 with its environment.json.",
                runs_path.display(),
                bounded::RUNS_MAX
            )));
        }
        let complete = line.ends_with(b"\n");
        match parse_line::<Run>(line) {
            Ok(run) => runs.push(run),
            // Only an interrupted write leaves a line without its end; anything else is damage.
            Err(_) if !complete => notes.push(format!(
                "NOTE: the last line of {} is cut off; the run that it held is lost, all {} before it are kept.",
                runs_path.display(),
                runs.len()
            )),
            Err(e) => {
                return Err(StoreError(format!(
                    "Line {} of {} is not a run of this version: {e}. Restore the file, or measure again.",
                    index + 1,
                    runs_path.display()
                )));
            }
        }
    }
    Ok(Stored { path: path.to_path_buf(), environment, runs, notes })
}

/// The file of a folder's runs: the plain one, unless there is only the compressed one.
pub(super) fn runs_file(folder: &Path) -> PathBuf {
    let (plain, compressed) = (folder.join(RUNS_FILE), folder.join(RUNS_FILE_COMPRESSED));
    if !plain.exists() && compressed.exists() { compressed } else { plain }
}

/// Reads a result folder for those who need no notes.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<(Environment, Vec<Run>), StoreError> {
    open(path).map(|stored| (stored.environment, stored.runs))
}

fn read_environment(path: &Path) -> Result<Environment, StoreError> {
    let file = path.join(ENVIRONMENT_FILE);
    let text = bounded::read(&file, bounded::JSON_BYTES_MAX).map_err(|e| cannot_read(&file, &e))?;
    check_schema(&text)
        .and_then(|()| bounded::json(&text).map_err(|e| e.to_string()))
        .map_err(|e| StoreError(format!("{} cannot be used: {e}. Measure again with this version.", file.display())))
}

fn parse_line<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    check_schema(line)?;
    bounded::json(line).map_err(|e| e.to_string())
}

/// Looks at the schema alone, before a field that another version lacks makes the parser say something obscure.
fn check_schema(json: &[u8]) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: u32,
    }
    match serde_json::from_slice::<Head>(json) {
        Ok(head) if head.schema == SCHEMA => Ok(()),
        Ok(head) => Err(format!("its schema is {}, this version reads schema {SCHEMA}", head.schema)),
        Err(e) => Err(e.to_string()),
    }
}

fn cannot_write(path: &Path, e: &std::io::Error) -> StoreError {
    let why = match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "this user may not write there".to_owned(),
        ErrorKind::StorageFull => "the disk is full; what was measured before is kept".to_owned(),
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => "a file is in the way".to_owned(),
        _ => e.to_string(),
    };
    StoreError(format!("Results cannot be written to {}: {why}. Choose another folder with -o DIR.", path.display()))
}

fn cannot_read(file: &Path, e: &std::io::Error) -> StoreError {
    let why = match e.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => e.to_string(),
    };
    StoreError(format!("{} cannot be read: {why}. Name the folder of a result that is complete.", file.display()))
}

fn cannot_read_line(file: &Path, line: usize, e: &std::io::Error) -> StoreError {
    StoreError(format!("Line {line} of {} cannot be read: {e}. Restore the file, or measure again.", file.display()))
}

/// `20260314T150926Z` for seconds since the epoch.
fn utc_stamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = units::civil_from_days(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::run::{Mode, Outcome, Pass, PlanFacts};

    fn run(seq: u32) -> Run {
        Run {
            schema: SCHEMA,
            seq,
            block: 0,
            workload: "w".into(),
            config: "pool".into(),
            pass: Pass::Throughput,
            mode: Mode::Merged,
            padding_bytes: 7,
            started_unix_ms: 1,
            child_wall_ns: 2,
            outcome: Outcome::Failed { stage: "replay".into(), reason: "It was killed by SIGSEGV.".into() },
        }
    }

    fn environment() -> Environment {
        Environment {
            schema: SCHEMA,
            harness: Default::default(),
            host: Default::default(),
            plan: PlanFacts { seed: u64::MAX, ..Default::default() },
            configs: vec![],
            workloads: vec![],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = ResultDir::create(&base.path().join("deep/results")).unwrap();
        dir.write_environment(&environment()).unwrap();
        dir.append(&run(0)).unwrap();
        dir.append(&run(1)).unwrap();
        let (e, runs) = read(dir.path()).unwrap();
        assert_eq!((e, runs), (environment(), vec![run(0), run(1)]));
    }

    #[test]
    fn compressed_runs_are_read_where_there_are_no_others() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = ResultDir::create(base.path()).unwrap();
        dir.write_environment(&environment()).unwrap();
        dir.append(&run(0)).unwrap();
        let (plain, compressed) = (dir.path().join(RUNS_FILE), dir.path().join(RUNS_FILE_COMPRESSED));
        let packed = zstd::encode_all(fs::read(&plain).unwrap().as_slice(), 0).unwrap();
        fs::write(&compressed, &packed[..packed.len() / 2]).unwrap();
        assert_eq!(read(dir.path()).unwrap().1, vec![run(0)], "the plain file comes first");
        fs::remove_file(&plain).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(RUNS_FILE_COMPRESSED) && error.contains("cannot be read"), "{error}");
        fs::write(&compressed, packed).unwrap();
        assert_eq!(read(dir.path()).unwrap().1, vec![run(0)]);
    }

    #[test]
    fn latest_follows_the_newest_result() {
        let base = tempfile::tempdir().unwrap();
        let latest = || fs::canonicalize(base.path().join(LATEST_LINK)).ok();
        for _ in 0..3 {
            let mut dir = ResultDir::create(base.path()).unwrap();
            let before = latest();
            dir.write_environment(&environment()).unwrap();
            assert_eq!(latest(), before, "a folder without runs is not the latest result");
            dir.append(&run(0)).unwrap();
            assert_eq!(latest(), Some(fs::canonicalize(dir.path()).unwrap()));
        }
    }

    #[test]
    fn only_a_result_without_runs_is_discarded() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = ResultDir::create(base.path()).unwrap();
        dir.write_environment(&environment()).unwrap();
        discard(ResultDir::create(base.path()).unwrap().path());
        dir.append(&run(0)).unwrap();
        discard(dir.path());
        let left = fs::read_dir(base.path()).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir());
        assert_eq!(left.map(|entry| entry.path()).collect::<Vec<_>>(), [dir.path()]);
        assert_eq!(read(dir.path()).unwrap().1, vec![run(0)]);
    }

    #[test]
    fn a_result_without_its_environment_goes() {
        let base = tempfile::tempdir().unwrap();
        let dir = ResultDir::create(base.path()).unwrap();
        fs::create_dir(dir.path().join(ENVIRONMENT_FILE)).unwrap();
        dir.write_environment(&environment()).unwrap_err();
        assert!(dir.path().exists(), "what is not ours is kept");
        fs::remove_dir_all(dir.path()).unwrap();
        let dir = ResultDir::create(base.path()).unwrap();
        std::os::unix::fs::symlink("elsewhere", dir.path().join(ENVIRONMENT_FILE)).unwrap();
        dir.write_environment(&environment()).unwrap_err();
        assert!(!base.path().join("elsewhere").exists());
    }

    #[test]
    fn a_cut_off_last_line_is_noted_and_the_rest_kept() {
        let base = tempfile::tempdir().unwrap();
        let mut dir = ResultDir::create(base.path()).unwrap();
        dir.write_environment(&environment()).unwrap();
        dir.append(&run(0)).unwrap();
        let file = dir.path().join(RUNS_FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(br#"{"schema":1,"seq":1,"blo"#);
        fs::write(&file, bytes).unwrap();
        let stored = open(dir.path()).unwrap();
        assert_eq!(stored.runs, vec![run(0)]);
        assert!(stored.notes[0].contains("cut off"), "{:?}", stored.notes);
    }

    #[test]
    fn damage_inside_the_file_and_another_schema_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let dir = ResultDir::create(base.path()).unwrap();
        dir.write_environment(&environment()).unwrap();
        let file = dir.path().join(RUNS_FILE);
        fs::write(&file, "{\"schema\":1}\n").unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("Line 1"));
        fs::write(&file, "{\"schema\":99}\n").unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("schema is 99"));
    }

    #[test]
    fn a_folder_that_is_a_file_is_a_sentence() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("taken");
        fs::write(&file, "x").unwrap();
        let error = ResultDir::create(&file).unwrap_err().to_string();
        assert!(error.contains("-o DIR"), "{error}");
        assert!(open(&file.join("none")).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc_stamp(0), "19700101T000000Z");
        assert_eq!(utc_stamp(951_782_400 + 3_661), "20000229T010101Z");
        assert_eq!(utc_stamp(4_107_542_399), "21000228T235959Z");
        assert_eq!(utc_stamp(4_107_542_400), "21000301T000000Z");
    }
}
