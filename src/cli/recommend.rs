//! `recommend`: which configuration to deploy, from a result that is there.
//!
//! Invariant: measures nothing and writes no file; the same result and the same wishes give the same bytes.

use super::out::{Stop, complain, print};
use super::quantity;
use super::replay::default_base;
use crate::analysis::recommend::{self, Decision, Objective, RECOMMEND_SCHEMA, Recommendation, Wish};
use crate::analysis::{self, Analysis, WorkloadAnalysis};
use crate::report::document::{self, Section};
use crate::report::recommend::{Subject, rollout_of, sections, verdict};
use crate::report::rollout::Rollout;
use crate::report::{terminal, words};
use crate::run::{self, LATEST_LINK, Run};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Arguments of `recommend`.
#[derive(Clone, Debug, Args)]
pub(super) struct RecommendArgs {
    /// Folder of a result [default: the latest]
    result: Option<PathBuf>,
    /// The workload to say everything about [default: the verdict alone, on each]
    #[arg(short, long, value_name = "NAME")]
    workload: Option<String>,
    /// Most memory that the process may have: 1GiB (1024 MiB) or 1GB (1000 MB)
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes)]
    limit_mem: Option<u64>,
    /// Most that the worst p99.9 of any allocator call may take
    #[arg(long, value_name = "TIME", value_parser = quantity::nanoseconds)]
    max_p999: Option<f64>,
    /// What is to be low: memory at its peak, memory at rest, time per call, or slow calls
    #[arg(long = "for", value_name = "WHAT", value_enum, default_value_t = What::Rest)]
    what: What,
    /// Another result of the same workload, to see whether it says the same; repeatable
    #[arg(long, value_name = "RESULT")]
    against: Vec<PathBuf>,
    /// Print everything as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print everything as Markdown
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Peak,
    Rest,
    Speed,
    Latency,
}

/// A result, read and analysed with what runs today as the baseline.
struct Read {
    analysis: Analysis,
    runs: Vec<Run>,
}

impl Read {
    fn open(path: &Path) -> Result<Self, Stop> {
        let stored = run::open(path).map_err(Stop::unusable)?;
        stored.notes.iter().for_each(|note| complain(note));
        let mut environment = stored.environment;
        recommend::today_first(&mut environment);
        Ok(Self { analysis: analysis::analyse(environment, &stored.runs), runs: stored.runs })
    }

    fn recommend(&self, workload: &WorkloadAnalysis, wish: &Wish) -> Recommendation {
        recommend::recommend(&self.analysis, &self.runs, workload, wish)
    }
}

/// Decides, and prints what it decided and why.
pub(super) fn run(args: &RecommendArgs) -> Result<(), Stop> {
    let path = args.result.clone().unwrap_or_else(|| default_base().join(LATEST_LINK));
    let read = Read::open(&path)?;
    let wish = Wish {
        objective: match args.what {
            What::Peak => Objective::Peak,
            What::Rest => Objective::Rest,
            What::Speed => Objective::Speed,
            What::Latency => Objective::Latency,
        },
        limit_bytes: args.limit_mem,
        p999_ns_max: args.max_p999,
    };
    let workloads = wanted(&read.analysis, args.workload.as_deref())?;
    let others: Vec<Read> = args.against.iter().map(|path| Read::open(path)).collect::<Result<_, _>>()?;
    let found: Vec<(Recommendation, Vec<String>)> = workloads
        .iter()
        .map(|workload| {
            let found = read.recommend(workload, &wish);
            let lines = others.iter().enumerate().map(|(i, other)| beside(i + 1, other, &found, &wish));
            let lines = lines.collect();
            (found, lines)
        })
        .collect();
    let subjects: Vec<Subject<'_>> = workloads
        .iter()
        .zip(&found)
        .map(|(workload, (found, against))| Subject { analysis: &read.analysis, workload, found, against })
        .collect();
    print(&shown(args, &subjects)?)?;
    ending(&subjects)
}

/// The workload asked for, or all.
fn wanted<'a>(analysis: &'a Analysis, name: Option<&str>) -> Result<Vec<&'a WorkloadAnalysis>, Stop> {
    let found: Vec<&WorkloadAnalysis> =
        analysis.workloads.iter().filter(|workload| name.is_none_or(|name| workload.name == name)).collect();
    if found.is_empty() {
        let names: Vec<&str> = analysis.workloads.iter().map(|workload| workload.name.as_str()).collect();
        return Err(Stop::Unusable(match name {
            Some(name) => format!("This result has no workload {name:?}. Give one of: {}.", names.join(", ")),
            None => "This result has no workload. Measure again.".to_owned(),
        }));
    }
    if found.iter().all(|workload| workload.configs.is_empty()) {
        return Err(Stop::Unusable("Nothing was measured here. Measure again; `report` lists what failed.".to_owned()));
    }
    Ok(found)
}

/// What another result says of the same workload.
fn beside(number: usize, other: &Read, found: &Recommendation, wish: &Wish) -> String {
    let environment = &other.analysis.environment;
    let same =
        |w: &&WorkloadAnalysis| w.name == found.workload || environment.workloads[w.facts].sha256 == found.trace_sha256;
    let about = format!(
        "Result {number} of --against ({}, seed {}, {})",
        words::date(environment.plan.started_unix_ms),
        environment.plan.seed,
        words::modes(&other.analysis).unwrap_or_else(|| "nothing measured".to_owned())
    );
    let Some(workload) = other.analysis.workloads.iter().find(same) else {
        return format!("{about} has no workload {:?}: it says nothing.", found.workload);
    };
    let theirs = other.recommend(workload, wish);
    let is_same_trace = theirs.trace_sha256 == found.trace_sha256;
    let set = |r: &Recommendation| {
        r.decision.subject().map(|i| (r.candidates[i].name.clone(), r.candidates[i].deploy.clone()))
    };
    let kind = |r: &Recommendation| match r.decision {
        Decision::Switch { .. } => "better",
        Decision::Keep { .. } => "keep",
        Decision::OnlyFit { .. } => "the best that fits",
        Decision::Inconclusive { .. } => "inconclusive",
        Decision::NothingFits => "nothing fits",
        Decision::NothingDeployable => "nothing deployable",
    };
    let named = set(&theirs).map_or_else(String::new, |(name, _)| format!(" `{name}`"));
    let agrees = set(&theirs).map(|(_, deploy)| deploy) == set(found).map(|(_, deploy)| deploy);
    format!(
        "{about}, {} trace: {}{named}; {}.",
        if is_same_trace { "the same" } else { "ANOTHER" },
        kind(&theirs),
        if agrees { "the answer stays" } else { "THE ANSWER CHANGES" }
    )
}

/// One workload in full; of several the verdicts, unless a whole form was asked for.
fn shown(args: &RecommendArgs, subjects: &[Subject<'_>]) -> Result<String, Stop> {
    if args.json {
        return json(subjects);
    }
    let mut all: Vec<Section> = Vec::new();
    let mut warnings = Section::new("Before you read on");
    if let Some(first) = subjects.first() {
        terminal::warnings(first.analysis).into_iter().for_each(|warning| warnings.line(warning));
    }
    all.push(warnings);
    match subjects {
        [one] => all.extend(sections(one)),
        several => {
            for subject in several {
                let mut section = Section::new(subject.workload.name.clone());
                verdict(subject).into_iter().for_each(|line| section.line(line));
                all.push(section);
            }
            let mut more = Section::new("More");
            more.line(
                "Workloads rank configurations in opposite orders, so there is no verdict over all of them. --workload \
                 NAME says everything about one: what fits, what it costs, what would change it, how to roll it out.",
            );
            all.push(more);
        }
    }
    Ok(if args.markdown { document::markdown(&all, 2) } else { document::text(&all) })
}

/// The JSON of one workload.
#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    found: &'a Recommendation,
    verdict: Vec<String>,
    against: &'a [String],
    rollout: Option<Rollout>,
    fidelity: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    harness_version: &'a str,
    started_unix_ms: u64,
    recommendations: Vec<Entry<'a>>,
}

fn json(subjects: &[Subject<'_>]) -> Result<String, Stop> {
    let Some(first) = subjects.first() else { return Ok(String::new()) };
    let environment = &first.analysis.environment;
    let recommendations = subjects
        .iter()
        .map(|subject| Entry {
            found: subject.found,
            verdict: verdict(subject),
            against: subject.against,
            rollout: rollout_of(subject.found),
            fidelity: words::fidelity(subject.analysis, subject.workload),
        })
        .collect();
    let document = Document {
        schema: RECOMMEND_SCHEMA,
        harness_version: &environment.harness.version,
        started_unix_ms: environment.plan.started_unix_ms,
        recommendations,
    };
    let text = serde_json::to_string_pretty(&document)
        .map_err(|e| Stop::Unusable(format!("The recommendation cannot be put into JSON: {e}. Please report this.")))?;
    Ok(text + "\n")
}

/// A constraint that nothing meets is a check that failed; a result without anything to deploy is the wrong input.
fn ending(subjects: &[Subject<'_>]) -> Result<(), Stop> {
    let names = |decision: &Decision| -> Vec<&str> {
        let of = subjects.iter().filter(|subject| subject.found.decision == *decision);
        of.map(|subject| subject.workload.name.as_str()).collect()
    };
    let (fits, deployable) = (names(&Decision::NothingFits), names(&Decision::NothingDeployable));
    if !deployable.is_empty() && deployable.len() == subjects.len() {
        return Err(Stop::Unusable(format!(
            "Nothing here can be deployed on {}. Measure configurations of variables, such as -c today -c nopool.",
            deployable.join(", ")
        )));
    }
    if !fits.is_empty() {
        return Err(Stop::Failed(format!(
            "Nothing that can be deployed meets the constraints on {}. Relax them, or measure other configurations.",
            fits.join(", ")
        )));
    }
    Ok(())
}
