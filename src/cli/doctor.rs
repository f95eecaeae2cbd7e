//! `doctor`: whether this host is fit to measure on, which allocators a Python environment contains, which variable
//! reaches which, and whether given variables take effect.
//!
//! Invariant: changes nothing on the machine.

use super::out::{Stop, columns, print};
use super::replay::default_base;
use crate::backend::CPYTHON_KEY;
use crate::measure;
use crate::measure::fitness::{Finding, HostState, Judgement, judge, worst};
use crate::measure::installation::{Effect, Family, Installation, Reach, effects, reaches};
use crate::run::{AllocatorFacts, HostFacts};
use clap::Args;
use serde::Serialize;
use std::path::Path;

/// Arguments of `doctor`.
#[derive(Clone, Debug, Args)]
pub(super) struct DoctorArgs {
    /// Also look at this Python, a program or the folder of a virtual environment: which allocators it contains, and
    /// which variable reaches which. Its libraries with an allocator are loaded in child processes
    #[arg(long, value_name = "PYTHON")]
    python: Option<String>,
    /// Only say whether this configuration takes effect (in --python, if one is given); repeatable
    #[arg(short = 'c', long = "config", value_name = "CONFIG", conflicts_with = "words")]
    configs: Vec<String>,
    /// Check the heap contract of every allocator, each in a child process
    #[arg(long, conflicts_with_all = ["configs", "words", "json"])]
    self_test: bool,
    /// Print everything as one JSON object
    #[arg(long)]
    json: bool,
    /// Only say whether these variables take effect together, as VAR=VALUE
    #[arg(last = true, value_name = "VAR=VALUE")]
    words: Vec<String>,
}

/// The host, and a Python environment if one was named.
#[derive(Debug, Serialize)]
struct Examination {
    is_fit: bool,
    findings: Vec<Finding>,
    host: HostFacts,
    state: HostState,
    allocators: Vec<AllocatorFacts>,
    environment: Option<Environment>,
}

/// A Python environment, and what reaches what in it.
#[derive(Debug, Serialize)]
struct Environment {
    #[serde(flatten)]
    installation: Installation,
    reaches: Vec<Reach>,
}

/// What came of one configuration.
#[derive(Debug, Serialize)]
struct Tried {
    config: String,
    effects: Vec<Effect>,
}

/// Prints facts and what to do about them, or what becomes of the variables that were given.
pub(super) fn run(args: &DoctorArgs) -> Result<(), Stop> {
    let exe = std::env::current_exe().map_err(Stop::unusable)?;
    let installation = args.python.as_deref().map(Installation::find).transpose().map_err(Stop::Unusable)?;
    let mut configs = args.configs.clone();
    configs.extend((!args.words.is_empty()).then(|| args.words.join(" ")));
    if !configs.is_empty() {
        return try_out(args, &exe, installation.as_ref(), &configs);
    }
    let state = measure::host_state(&default_base());
    let findings = judge(&state);
    let is_fit = worst(&findings) != Judgement::Unfit;
    // Where children cannot live nobody is asked.
    let (allocators, remark) = if is_fit { allocators(&exe)? } else { (Vec::new(), None) };
    let environment = installation.map(|installation| Environment { reaches: reaches(&installation), installation });
    let found = Examination { is_fit, findings, host: state.host.clone(), state, allocators, environment };
    print(&if args.json { json(&found)? } else { text(&found, remark.as_deref()) })?;
    if !found.is_fit {
        let unfit = found.findings.iter().filter(|finding| finding.judgement == Judgement::Unfit);
        let why: Vec<String> = unfit.map(|finding| format!("{}: {}.", finding.fact, finding.advice)).collect();
        return Err(Stop::Unusable(format!("This host is unfit to measure on. {}", why.join(" "))));
    }
    if args.self_test {
        print(&format!("{}\n", measure::self_test(&exe).map_err(Stop::Failed)?))?;
    }
    Ok(())
}

/// What the allocators of this program say of themselves, each once, and why `cpython` is not to be had.
fn allocators(exe: &Path) -> Result<(Vec<AllocatorFacts>, Option<String>), Stop> {
    let facts = measure::report(exe, &measure::contestants()).map_err(Stop::Unusable)?;
    // An interpreter that cannot serve is no reason to say nothing of the rest.
    let cpython = measure::parse_config(CPYTHON_KEY).and_then(|config| measure::report(exe, &[config]));
    let with_cpython = cpython.iter().flat_map(|facts| &facts.allocators);
    let mut found: Vec<AllocatorFacts> = Vec::new();
    for allocator in facts.allocators.iter().chain(with_cpython).flatten() {
        if found.iter().all(|known| (&known.key, &known.version) != (&allocator.key, &allocator.version)) {
            found.push(allocator.clone());
        }
    }
    Ok((found, cpython.err()))
}

fn json(value: &impl Serialize) -> Result<String, Stop> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(Stop::unusable)
}

fn text(found: &Examination, remark: Option<&str>) -> String {
    let row =
        |finding: &Finding| vec![finding.fact.to_owned(), finding.judgement.name().to_owned(), finding.value.clone()];
    let mut sections = vec![format!("host\n{}", columns(&found.findings.iter().map(row).collect::<Vec<_>>(), &[]))];
    let advice = found.findings.iter().filter(|finding| !finding.advice.is_empty());
    let advice: String = advice.map(|finding| format!("{}: {}.\n", finding.fact, finding.advice)).collect();
    if !advice.is_empty() {
        sections.push(advice);
    }
    let mut rows: Vec<Vec<String>> =
        found.allocators.iter().map(|facts| vec![facts.key.clone(), facts.version.clone()]).collect();
    rows.extend(remark.map(|reason| vec![CPYTHON_KEY.to_owned(), format!("not to be had: {reason}")]));
    if !rows.is_empty() {
        sections.push(format!("allocators of this program\n{}", columns(&rows, &[])));
    }
    sections.extend(found.environment.as_ref().map(environment));
    sections.join("\n")
}

fn environment(found: &Environment) -> String {
    let Environment { installation, reaches } = found;
    let python = &installation.python;
    let unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let threads = if python.is_free_threaded { ", free-threaded" } else { "" };
    let debug = if python.is_debug { ", debug build" } else { "" };
    let mut rows = vec![
        vec!["Python".to_owned(), format!("{}{threads}{debug}", python.version), python.program.display().to_string()],
        vec!["objects".into(), unknown(&python.default_allocator), "the interpreter's default".into()],
        vec!["C library".into(), python.libc.clone().unwrap_or("not glibc".into()), "serves every malloc".into()],
    ];
    for copy in &installation.copies {
        let reads = if copy.answers { "reads" } else { "may read" };
        let version = unknown(&copy.version);
        let mut what = format!("{}, {reads} {}", copy.file, copy.reads());
        // A mimalloc tells all of its options; what a jemalloc tells was chosen by whoever built it.
        if copy.family == Family::Jemalloc && !copy.options.is_empty() {
            let set: Vec<String> = copy.options.iter().map(|(name, value)| format!("{name}:{value}")).collect();
            what.push_str(&format!(" (built with {})", set.join(",")));
        }
        rows.push(vec![copy.family.name().into(), version, what]);
    }
    let mut text = format!(
        "allocators of {} ({} libraries of packages looked at)\n{}",
        python.program.display(),
        installation.libraries,
        columns(&rows, &[])
    );
    for remark in &installation.remarks {
        text.push_str(remark);
        text.push('\n');
    }
    format!("{text}\nwhich variable reaches which\n{}", reaches.iter().map(reach).collect::<String>())
}

/// A variable, and below it a line for each allocator.
fn reach(reach: &Reach) -> String {
    let nothing = reach.reaches.is_empty().then_some("nothing here");
    let reaches = reach.reaches.iter().map(String::as_str).chain(nothing).map(|text| ("reaches", text));
    let misses = reach.misses.iter().map(|text| ("not", text.as_str()));
    let row = |(how, text): (&str, &str)| vec![String::new(), how.to_owned(), text.to_owned()];
    format!("  {}\n{}", reach.variable, columns(&reaches.chain(misses).map(row).collect::<Vec<_>>(), &[]))
}

/// Says of each configuration whether its words take effect; fails when one does not.
fn try_out(args: &DoctorArgs, exe: &Path, found: Option<&Installation>, configs: &[String]) -> Result<(), Stop> {
    let mut tried = Vec::new();
    for config in configs {
        let effects = match found {
            Some(found) => effects(found, exe, config).map_err(Stop::Unusable)?,
            None => without_python(exe, config)?,
        };
        tried.push(Tried { config: config.clone(), effects });
    }
    let all = || tried.iter().flat_map(|tried| &tried.effects);
    let row = |effect: &Effect| {
        let verdict = if effect.takes_effect { "takes effect" } else { "no effect" };
        vec![effect.word.clone(), verdict.to_owned(), effect.evidence.clone()]
    };
    print(&if args.json { json(&tried)? } else { columns(&all().map(row).collect::<Vec<_>>(), &[]) })?;
    let vain: Vec<&str> = all().filter(|effect| !effect.takes_effect).map(|effect| effect.word.as_str()).collect();
    if vain.is_empty() {
        return Ok(());
    }
    Err(Stop::Failed(format!("{} would have no effect. Correct or leave out what does nothing.", vain.join(", "))))
}

/// Without an environment the stand-ins of a replay are asked, all words together.
fn without_python(exe: &Path, config: &str) -> Result<Vec<Effect>, Stop> {
    let parsed = measure::parse_config(config).map_err(Stop::Unusable)?;
    let verdict = measure::report(exe, &[parsed]);
    let takes_effect = verdict.is_ok();
    let said = "read back from a child process as replay starts it".to_owned();
    let evidence = verdict.map_or_else(|why| why, |_| said);
    Ok(vec![Effect { word: config.to_owned(), takes_effect, evidence }])
}
