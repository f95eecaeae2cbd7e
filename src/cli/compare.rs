//! `compare`: two results, or a saved baseline and a result, and an exit code for whoever waits for one.
//!
//! Invariant: unlike environments are refused, or said loudly; what is inconclusive never passes in silence.

use super::out::{Stop, complain, print};
use super::replay::default_base;
use crate::analysis::between::{Asked, Between, Measured, between};
use crate::analysis::{Verdict, likeness};
use crate::metric::{self, Metric};
use crate::report::between as report;
use crate::run::{self, BASELINES_FOLDER, Stored};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 nothing is worse; 1 something is, or failed in NEW alone; 2 usage, input, or \
                        environments that cannot be compared; 3 inconclusive, under --strict.")]
pub(super) struct CompareArgs {
    /// The older result: its folder, or the name of a saved baseline
    old: String,
    /// The newer result
    #[arg(required_unless_present = "save", conflicts_with = "save")]
    new: Option<String>,
    /// Save the first result as the baseline NAME, in the place of an older one, and compare nothing
    #[arg(long, value_name = "NAME", conflicts_with_all = ["strict", "metric", "floor", "markdown", "json", "force"])]
    save: Option<String>,
    /// Let what is inconclusive fail, with exit code 3
    #[arg(long)]
    strict: bool,
    /// Compare this metric alone, and let it decide; repeatable [default: page faults and memory decide, time is told]
    #[arg(long, value_name = "METRIC", value_parser = known_metric)]
    metric: Vec<&'static str>,
    /// Smallest difference that counts: a share of every metric (5%), or bytes of memory (4MiB), or both
    #[arg(long, value_name = "FLOOR", value_parser = floor)]
    floor: Vec<Floor>,
    /// Print Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON (schema 1)
    #[arg(long)]
    json: bool,
    /// Compare unlike environments all the same, and say so
    #[arg(long)]
    force: bool,
    /// Folder of saved baselines [default: baselines, beside the results]
    #[arg(long, value_name = "DIR")]
    baselines: Option<PathBuf>,
}

/// A value of `--floor`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Floor {
    Share(f64),
    Bytes(f64),
}

/// Compares, or saves.
pub(super) fn run(args: &CompareArgs) -> Result<(), Stop> {
    let base = args.baselines.clone().unwrap_or_else(|| default_base().join(BASELINES_FOLDER));
    let Some(new) = &args.new else { return save(&args.old, args.save.as_deref().unwrap_or_default(), &base) };
    let (old, new) = (read(&args.old, &base)?, read(new, &base)?);
    let likeness = likeness::likeness((&old.environment, old.runs.as_slice()), (&new.environment, new.runs.as_slice()));
    if !likeness.unlike.is_empty() && !args.force {
        return Err(Stop::Unusable(format!(
            "The two results come from unlike environments: {}. Measure both on one machine and from the same traces, \
             or compare all the same with --force.",
            report::differences(&likeness.unlike)
        )));
    }
    let [old, new] = [&old, &new].map(|of| Measured { environment: &of.environment, runs: &of.runs });
    let found = between(old, new, likeness, &asked(args));
    if found.cells.is_empty() && found.broken().count() == 0 {
        return Err(Stop::Unusable(
            "The two results have nothing in common that could be compared. Measure the same workloads under \
             configurations of the same names."
                .to_owned(),
        ));
    }
    print(&printed(args, &found)?)?;
    judge(&found, args.strict)
}

fn save(result: &str, name: &str, base: &Path) -> Result<(), Stop> {
    let result = run::find_result(result, base).map_err(Stop::unusable)?;
    let stored = run::keep_baseline(&result, base, name).map_err(Stop::unusable)?;
    stored.notes.iter().for_each(|note| complain(note));
    print(&format!("baseline {name}: {} runs of {}\n", stored.runs.len(), result.display()))
}

fn read(word: &str, base: &Path) -> Result<Stored, Stop> {
    let path = run::find_result(word, base).map_err(Stop::unusable)?;
    let stored = run::open(&path).map_err(Stop::unusable)?;
    stored.notes.iter().for_each(|note| complain(note));
    Ok(stored)
}

fn asked(args: &CompareArgs) -> Asked {
    let mut asked = Asked {
        metrics: metric::ALL.iter().filter(|metric| args.metric.contains(&metric.key)).copied().collect(),
        ..Asked::default()
    };
    for floor in &args.floor {
        match *floor {
            Floor::Share(share) => asked.floor_relative = Some(share),
            Floor::Bytes(bytes) => asked.floor_bytes = Some(bytes),
        }
    }
    asked
}

fn printed(args: &CompareArgs, found: &Between) -> Result<String, Stop> {
    if args.json {
        return report::json(found).map_err(|e| Stop::Unusable(format!("This is no JSON: {e}. Please report this.")));
    }
    Ok(if args.markdown { report::markdown(found) } else { report::text(found) })
}

/// The exit code: worse before inconclusive before nothing.
fn judge(found: &Between, strict: bool) -> Result<(), Stop> {
    let count = |verdict| found.deciding(verdict).count();
    let (worse, broken) = (count(Verdict::Worse), found.broken().count());
    let inconclusive = count(Verdict::Inconclusive);
    let deciding = found.cells.iter().filter(|cell| cell.decides).count();
    if worse + broken > 0 {
        let failed = if broken > 0 { format!(", {broken} failed") } else { String::new() };
        return Err(Stop::Failed(format!(
            "Worse: {worse} of the {deciding} that decide{failed}. The rows above say which."
        )));
    }
    let few = format!("Inconclusive: {inconclusive} of the {deciding} that decide");
    match (inconclusive, strict) {
        (0, _) => Ok(()),
        (_, true) => Err(Stop::Inconclusive(format!("{few}. Measure more runs, such as with replay --budget 5m."))),
        (_, false) => {
            complain(&format!("{few}; nothing else is worse. --strict has this fail."));
            Ok(())
        }
    }
}

fn known_metric(text: &str) -> Result<&'static str, String> {
    let judged = || metric::ALL.iter().filter(|metric: &&&Metric| metric.floor.is_some()).map(|metric| metric.key);
    judged().find(|key| *key == text).ok_or_else(|| {
        format!("no metric of that name gets verdicts; give one of: {}", judged().collect::<Vec<_>>().join(", "))
    })
}

/// `5%`, `4MiB`.
fn floor(text: &str) -> Result<Floor, String> {
    let wrong = || format!("{text:?} is no floor; write a share such as 5%, or bytes such as 4MiB");
    let number = |text: &str| {
        let number: f64 = text.trim().parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    if let Some(percent) = text.strip_suffix('%') {
        return number(percent).map(|percent| Floor::Share(percent / 100.0)).ok_or_else(wrong);
    }
    const UNITS: [(&str, f64); 3] = [("KiB", 1024.0), ("MiB", 1024.0 * 1024.0), ("GiB", 1024.0 * 1024.0 * 1024.0)];
    let bytes = UNITS.iter().find_map(|(unit, bytes)| Some(number(text.strip_suffix(unit)?)? * bytes));
    bytes.map(Floor::Bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_shares_or_bytes() {
        assert_eq!(floor("5%"), Ok(Floor::Share(0.05)));
        assert_eq!(floor("0.5 %"), Ok(Floor::Share(0.005)));
        assert_eq!(floor("4MiB"), Ok(Floor::Bytes(4_194_304.0)));
        for wrong in ["", "5", "-1%", "MiB", "NaN%", "4MB", "x%"] {
            assert!(floor(wrong).is_err(), "{wrong}");
        }
        assert!(known_metric("faults_minor").is_ok() && known_metric("rss").is_err());
    }
}
