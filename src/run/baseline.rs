//! Saved baselines: copies of results under a name, to compare later ones with.
//!
//! Invariant: a baseline is a whole result, read once before it is kept, or it is not there: it appears under its name
//! by a rename.

use super::store::runs_file;
use super::{ENVIRONMENT_FILE, RUNS_FILE, RUNS_FILE_COMPRESSED, StoreError, Stored, open};
use files::FreshFolder;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the folder of baselines, beside the results.
pub const BASELINES_FOLDER: &str = "baselines";

/// Keeps a copy of a result as `base/NAME`, in the place of an older one of that name, and returns the result.
///
/// # Errors
/// When the name is none, the result cannot be read, or the copy cannot be written.
pub fn keep_baseline(result: &Path, base: &Path, name: &str) -> Result<Stored, StoreError> {
    if !is_name(name) {
        return Err(StoreError::new(format!(
            "{name:?} cannot be a baseline's name. Use letters, digits, '-', '_' and '.'."
        )));
    }
    let kept = base.join(name);
    check_kept(result, &kept)?;
    let stored = open(result)?;
    let copy = || -> std::io::Result<()> {
        files::make_folders(base)?;
        let fresh = FreshFolder::beside(&kept, is_file_of_baseline)?;
        let runs = runs_file(result);
        let name = if runs.ends_with(RUNS_FILE_COMPRESSED) { RUNS_FILE_COMPRESSED } else { RUNS_FILE };
        fresh.copy(&result.join(ENVIRONMENT_FILE), ENVIRONMENT_FILE)?;
        fresh.copy(&runs, name)?;
        fresh.put()
    };
    copy().map_err(|e| {
        let shown = kept.display();
        StoreError::new(format!(
            "The baseline {shown} cannot be written: {e}. Name another place with --baselines DIR."
        ))
    })?;
    Ok(stored)
}

fn is_file_of_baseline(name: &str) -> bool {
    [ENVIRONMENT_FILE, RUNS_FILE, RUNS_FILE_COMPRESSED].contains(&name)
}

/// Refuses to replace what is no baseline: a folder with anything else in it, or one whose environment no version
/// wrote.
fn check_kept(result: &Path, kept: &Path) -> Result<(), StoreError> {
    let refuse = |sentence: String| Err(StoreError::new(sentence));
    if let Err(refusal) = files::check_folder(kept, is_file_of_baseline) {
        return refuse(format!("The baseline is not saved. {refusal}"));
    }
    let shown = kept.display();
    if kept.canonicalize().is_ok_and(|kept| result.canonicalize().is_ok_and(|result| kept == result)) {
        return refuse(format!("{shown} is the result itself. Choose another name for the baseline."));
    }
    if let Err(refusal) = files::check_target_below(&kept.join(ENVIRONMENT_FILE), files::Kind::Json) {
        return refuse(format!("{shown} is not a baseline, so it is not replaced. {refusal}"));
    }
    Ok(())
}

/// What `word` means: the folder of a result, or else a baseline of that name below `base`.
///
/// # Errors
/// When it is neither; the sentence lists the baselines that there are.
pub fn find_result(word: &str, base: &Path) -> Result<PathBuf, StoreError> {
    let folder = Path::new(word);
    if folder.is_dir() {
        return Ok(folder.to_path_buf());
    }
    let kept = base.join(word);
    if is_name(word) && kept.is_dir() {
        return Ok(kept);
    }
    let names = baselines(base);
    let known = if names.is_empty() { "none was saved".to_owned() } else { format!("saved: {}", names.join(", ")) };
    Err(StoreError::new(format!(
        "{word:?} is no folder of a result and no baseline ({known}). Name a result's folder, or save one with \
         `compare --save NAME RESULT`."
    )))
}

/// Names of the baselines below `base`, sorted.
fn baselines(base: &Path) -> Vec<String> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_dir()).map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| is_name(name)).collect();
    names.sort();
    names
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::run::{Environment, HarnessFacts, HostFacts, PlanFacts, ResultDir, SCHEMA};

    fn result(base: &Path, seed: u64) -> PathBuf {
        let result = ResultDir::create(base).unwrap();
        let environment = Environment {
            schema: SCHEMA,
            harness: HarnessFacts::default(),
            host: HostFacts::default(),
            plan: PlanFacts { seed, ..PlanFacts::default() },
            configs: vec![],
            workloads: vec![],
        };
        result.write_environment(&environment).unwrap();
        result.path().to_path_buf()
    }

    #[test]
    fn what_is_saved_is_found_and_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("kept");
        for seed in [1, 2] {
            keep_baseline(&result(folder.path(), seed), &base, "main").unwrap();
            let found = find_result("main", &base).unwrap();
            assert_eq!(open(&found).unwrap().environment.plan.seed, seed);
        }
        assert_eq!(baselines(&base), ["main"]);
        let missing = find_result("man", &base).unwrap_err().to_string();
        assert!(missing.contains("saved: main"), "{missing}");
    }

    #[test]
    fn a_folder_that_is_no_baseline_stays() {
        let folder = tempfile::tempdir().unwrap();
        let good = result(folder.path(), 1);
        let sources = folder.path().join("src");
        fs::create_dir_all(sources.join("deep")).unwrap();
        fs::write(sources.join("deep/main.c"), "mine").unwrap();
        let foreign = folder.path().join("other");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join(ENVIRONMENT_FILE), "{\"NODE_ENV\": \"test\"}").unwrap();
        std::os::unix::fs::symlink("other", folder.path().join("link")).unwrap();
        fs::write(folder.path().join("file"), "mine").unwrap();
        for name in ["src", "other", "link", "file"] {
            let error = keep_baseline(&good, folder.path(), name).unwrap_err().to_string();
            assert!(error.ends_with('.') && error.contains(name), "{error}");
        }
        let own = good.file_name().unwrap().to_str().unwrap();
        assert!(keep_baseline(&good, folder.path(), own).unwrap_err().to_string().contains("the result itself"));
        assert_eq!(fs::read_to_string(sources.join("deep/main.c")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
        assert!(open(&good).is_ok() && folder.path().join("link").is_symlink());
        let hidden = fs::read_dir(folder.path()).unwrap().flatten();
        assert_eq!(hidden.filter(|entry| entry.file_name().to_string_lossy().starts_with('.')).count(), 0);
    }

    #[test]
    fn what_is_no_result_or_no_name_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("kept");
        assert!(keep_baseline(folder.path(), &base, "main").unwrap_err().to_string().contains("cannot be read"));
        let good = result(folder.path(), 1);
        for name in ["", "a/b", "..", ".hidden", "a b"] {
            assert!(keep_baseline(&good, &base, name).unwrap_err().to_string().contains("name"), "{name}");
        }
        assert!(!base.exists());
    }
}
