//! `live`: the real program under each configuration beside what the replay predicts; without a program the
//! predictions alone.
//!
//! Invariant: a bar that is missed is exit code 1, and everything that it was judged from is written down first.

use super::out::{Stop, complain, print};
use super::replay::seed_of_clock;
use crate::analysis::{fidelity, program_cpu_ns, program_cpu_ns_all};
use crate::measure::live::{self, Program, Repetitions};
use crate::measure::{self, Config, ImageLimits, Named, PACE_LIMIT, Prepared, Progress, Request, Sizes, Wheel};
use crate::report;
use crate::run::Fidelity;
use crate::workload::{Bundle, OpenTrace, Workload};
use ::trace::{Domain, Metadata};
use clap::Args;
use recorder::PlacedLibrary;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The configurations unless others are asked for.
const CONFIGS: [&str; 5] = ["today", "nopool", "arenas-2", "trim-64k", "mmap-128k"];
/// These too where Arrow allocates.
const CONFIGS_ARROW: [&str; 2] = ["arrow-system", "arrow-jemalloc"];
/// Idle delays unless others are asked for, milliseconds: at once, and when purging threads have had a second.
const IDLE_MS: [u64; 2] = [0, 1_000];
/// Replays of each configuration unless told otherwise: whether one arena is kept more or less is chance, also here.
const REPLAYS: u32 = 3;

/// Arguments of `live`.
#[derive(Clone, Debug, Args)]
pub(super) struct LiveArgs {
    /// A trace file of the program, or a bundled workload by name
    #[arg(value_name = "TRACE", required_unless_present = "kept")]
    trace: Option<String>,
    /// Judge and print a comparison that was written before; nothing runs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "command"])]
    kept: Option<PathBuf>,
    /// Configuration, in the words that one would type in front of the program, or a preset; repeatable
    #[arg(short, long = "config", value_name = "CONFIG")]
    configs: Vec<String>,
    /// File of configurations of your own: [config.NAME] with words = "...", for -c NAME
    #[arg(long = "configs", value_name = "FILE")]
    configs_file: Option<PathBuf>,
    /// Have Arrow served by the pools of this interpreter's pyarrow [default: CMD's, if CMD begins with a Python]
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// Run under settings that no allocator can confirm; what is found then says so
    #[arg(long)]
    allow_unverified: bool,
    /// Real runs of each configuration
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Replays of each configuration for its memory [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    predictions: Option<u32>,
    /// Wait for the recorded gaps (200 us and more), FACTOR times shorter than they were; 0 replays back to back
    /// [default: no wait; allocators read the recorded time, if the trace has times]
    #[arg(
        long, value_name = "FACTOR", num_args = 0..=1, require_equals = true, default_missing_value = "1",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    paced: Option<u32>,
    /// Most time that one paced replay may wait for recorded gaps (90s, 30m, 4h) [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = super::quantity::duration)]
    pace_limit: Option<Duration>,
    /// Replays of each configuration for its time; 0 leaves seconds out
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=100))]
    timings: u32,
    /// Idle delays in milliseconds at which rest is read [default: 0,1000]
    #[arg(long, value_name = "MS", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    idle: Vec<u64>,
    /// Real runs at a time; more than one spoils the seconds
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Longest life of one real run, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Seed of the order of runs [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
    /// Where to write what was found [default: TRACE.fidelity.json; results/fidelity/NAME.json of a bundled workload]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Say nothing while measuring
    #[arg(short, long)]
    quiet: bool,
    /// Let a debug build replay; its seconds mean nothing
    #[arg(long, hide = true)]
    allow_debug_build: bool,
    /// The program that was recorded, and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Compares, or predicts.
pub(super) fn run(args: &LiveArgs) -> Result<(), Stop> {
    if let Some(file) = &args.kept {
        let found = Fidelity::read(file).map_err(Stop::Unusable)?;
        show(args, &found, &report::fidelity::compared(&found))?;
        return judge(&found, None);
    }
    let trace = args.trace.as_deref().unwrap_or_default();
    let workload = Bundle::find().resolve(trace, false).map_err(Stop::Unusable)?;
    let metadata = OpenTrace::open(&workload.source).and_then(|mut trace| trace.metadata()).map_err(Stop::Unusable)?;
    let (configs, wheel) = configs(args, &metadata)?;
    let output = args.output.clone().or_else(|| workload.fidelity_files().into_iter().next());
    if let Some(file) = output.as_ref().filter(|_| !args.command.is_empty()) {
        Fidelity::check(file).map_err(Stop::Unusable)?;
    }
    // Everything that can be wrong with the program or the output is said before anything is measured.
    let program = if args.command.is_empty() { None } else { Some(program(args, &metadata)?) };
    let environments = environments(args, &configs)?;
    measure::end_on_signals().map_err(Stop::Unusable)?;
    let mut progress = Progress::new(args.quiet);
    let request = request(args, workload, configs)?;
    let facts = measure::report(&request.exe, &request.configs).map_err(Stop::Unusable)?;
    let prepared = Prepared::new(&request, &mut progress).map_err(Stop::Unusable)?;
    let sizes = sizes(args);
    let mut found = live::predict(&prepared, &facts, sizes, request.seed, &mut progress).map_err(Stop::Unusable)?;
    found.pace = request.pace.unwrap_or(0);
    found.notes.extend(prepared.images[0].compiled.remark.clone());
    let recorded = &prepared.images[0].compiled.metadata;
    found.recorded_cpu_ns = program_cpu_ns(recorded).map(|ns| ns as u64);
    found.recorded_cpu_ns_all = program_cpu_ns_all(recorded).map(|ns| ns as u64);
    let Some((program, _library)) = program else { return show(args, &found, &report::fidelity::predictions(&found)) };
    notes(&mut found, &prepared, args);
    found.notes.extend(wheel);
    let how = Repetitions { real: args.runs, jobs: args.jobs, seed: request.seed };
    found.jobs = args.jobs;
    let results = live::real_runs(&program, &environments, how, &mut progress);
    for (config, runs) in found.configs.iter_mut().zip(results) {
        for run in runs {
            match run {
                Ok(run) => config.real.push(run),
                Err(reason) => config.failures.push(reason),
            }
        }
    }
    if found.configs.iter().all(|config| config.real.is_empty()) {
        let reason = found.configs.iter().flat_map(|config| &config.failures).next();
        return Err(Stop::Unusable(reason.cloned().unwrap_or_else(|| "No real run was made. Give --runs.".to_owned())));
    }
    if let Some(file) = &output {
        found.write(file).map_err(Stop::Unusable)?;
    }
    show(args, &found, &report::fidelity::compared(&found))?;
    judge(&found, output.as_deref())
}

/// Exit code 1 when a bar is missed or a run failed.
fn judge(found: &Fidelity, output: Option<&Path>) -> Result<(), Stop> {
    if let Some(file) = output {
        complain(&format!("written: {}; reports of this trace quote it", file.display()));
    }
    let failures: usize = found.configs.iter().map(|config| config.failures.len()).sum();
    match (fidelity::judge(found).holds(), failures) {
        (true, 0) => Ok(()),
        (true, n) => Err(Stop::Failed(format!("{n} runs failed; their reasons are above."))),
        (false, _) => Err(Stop::Failed("The prediction missed a bar; see MISS, WRONG and TOO FAR above.".to_owned())),
    }
}

fn show(args: &LiveArgs, found: &Fidelity, text: &str) -> Result<(), Stop> {
    if !args.json {
        return print(text);
    }
    let all = serde_json::json!({ "found": found, "judgement": fidelity::judge(found) });
    let text =
        serde_json::to_string_pretty(&all).map_err(|e| Stop::Unusable(format!("No JSON: {e}. Please report this.")))?;
    print(&(text + "\n"))
}

/// The configurations asked for, or those that many people could deploy; and whose Arrow pools serve where Arrow
/// allocates.
fn configs(args: &LiveArgs, metadata: &Metadata) -> Result<(Vec<Config>, Option<String>), Stop> {
    let named = args.configs_file.as_deref().map_or(Ok(Named::default()), Named::read).map_err(Stop::Unusable)?;
    let has_arrow = metadata.totals.calls_by_domain.get(Domain::Arrow.name()).is_some_and(|calls| *calls > 0);
    let mut words = args.configs.clone();
    if words.is_empty() {
        let more: &[&str] = if has_arrow { &CONFIGS_ARROW } else { &[] };
        words = CONFIGS.iter().chain(more).map(|word| (*word).to_owned()).collect();
    }
    let mut configs = measure::parse_configs(&words, &named, interpreter(args).as_deref()).map_err(Stop::Unusable)?;
    configs.iter_mut().for_each(|config| config.allow_unverified = args.allow_unverified);
    if !has_arrow {
        return Ok((configs, None));
    }
    Ok(match wheel(args).map_err(Stop::Unusable)? {
        Ok(wheel) => {
            let said = format!("Arrow is replayed on the pools of the program's own pyarrow {}", wheel.version);
            (configs.into_iter().map(|config| config.on_wheel(&wheel)).collect(), Some(said))
        }
        Err(reason) => (configs, Some(format!("Arrow is replayed on stand-ins for its pools: {reason}"))),
    })
}

/// The interpreter that was named, or the program's own, if it begins with one.
fn interpreter(args: &LiveArgs) -> Option<String> {
    let first = args.command.first().map(|word| word.to_string_lossy().into_owned());
    let is_python =
        |word: &String| Path::new(word).file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    args.python.clone().or_else(|| first.filter(is_python))
}

/// The pyarrow of the interpreter that was named, or of the program's own; the inner error says why there is none.
fn wheel(args: &LiveArgs) -> Result<Result<Wheel, String>, String> {
    if let Some(place) = &args.python {
        return Wheel::find(place).map(Ok);
    }
    Ok(match interpreter(args) {
        Some(word) => Wheel::find(&word),
        None => Err("no interpreter was named. Give --python.".to_owned()),
    })
}

/// The environment of each configuration, or why one has none. Without a program nothing needs one.
fn environments(args: &LiveArgs, configs: &[Config]) -> Result<Vec<Vec<(OsString, OsString)>>, Stop> {
    if args.command.is_empty() {
        return Ok(Vec::new());
    }
    let of = |config: &Config| {
        live::environment_of(config).ok_or_else(|| {
            Stop::Unusable(format!(
                "{}: no environment brings this about in a real program. Give variables, such as \
                 PYTHONMALLOC=malloc, or leave `-- CMD` out for the prediction alone.",
                config.name
            ))
        })
    };
    configs.iter().map(of).collect()
}

/// The program, and the library that is loaded into it, which stays on the disk for as long as the value lives.
fn program(args: &LiveArgs, metadata: &Metadata) -> Result<(Program, PlacedLibrary), Stop> {
    let path = recorder::check(&args.command).map_err(|e| Stop::Unusable(format!("live: {e}")))?;
    let library = recorder::announcer().map_err(|e| Stop::Unusable(format!("live: {e}")))?;
    let (announcer, idle_ms, limit) = (library.path().to_owned(), idle(args), Duration::from_secs(args.limit));
    let (command, of_child) = (args.command.clone(), live::is_of_child(metadata));
    Ok((Program { path, command, announcer, idle_ms, limit, of_child }, library))
}

fn idle(args: &LiveArgs) -> Vec<u64> {
    let mut idle = if args.idle.is_empty() { IDLE_MS.to_vec() } else { args.idle.clone() };
    idle.sort_unstable();
    idle.dedup();
    idle
}

fn request(args: &LiveArgs, workload: Workload, configs: Vec<Config>) -> Result<Request, Stop> {
    let exe = std::env::current_exe().map_err(|e| {
        Stop::Unusable(format!("This program cannot find its own file: {e}. Call it by its full path."))
    })?;
    Ok(Request {
        exe,
        workloads: vec![workload],
        configs,
        sizes: Sizes::QUICK,
        idle_ms: idle(args),
        seed: args.seed.unwrap_or_else(seed_of_clock),
        quick: false,
        cycles: None,
        mode: None,
        pace: args.paced,
        pace_limit: args.pace_limit.unwrap_or(PACE_LIMIT),
        limits: ImageLimits::DEFAULT,
        allow_debug: args.allow_debug_build,
        base: PathBuf::new(),
    })
}

fn sizes(args: &LiveArgs) -> Sizes {
    let replays = args.predictions.unwrap_or(REPLAYS);
    Sizes { blocks: args.timings, latency_runs: 0, footprint_runs: replays }
}

/// What a reader must know, and what was held against the recording.
fn notes(found: &mut Fidelity, prepared: &Prepared, args: &LiveArgs) {
    let metadata = &prepared.images[0].compiled.metadata;
    let left_out = live::left_out();
    if !left_out.is_empty() {
        found.notes.push(format!(
            "left out of the program's environment, since configurations say what allocates: {}",
            left_out.join(", ")
        ));
    }
    if live::is_of_child(metadata) {
        found.notes.push(
            "the trace is of a forked child without the blocks that it inherited; the real process is the first child \
             that makes a mark"
                .to_owned(),
        );
    }
    if !metadata.complete {
        found.notes.push("the recording ended before its program did; the real program runs on".to_owned());
    }
    if metadata.cut.is_some() {
        found.notes.push("the trace is a cut of a longer recording; the real program does more".to_owned());
    }
    found.notes.extend(prepared.configs.iter().find_map(|config| config.numpy_note(metadata)));
    match live::differences(&args.command, metadata) {
        Some(differences) => found.notes.extend(differences),
        None => found.notes.push("whether this is the recorded program's Python is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LiveArgs,
    }

    #[test]
    fn the_program_follows_two_dashes() {
        let line =
            Line::parse_from(["live", "a.trace", "-c", "pool", "--idle", "500,0", "--", "python3", "-c", "pass"]);
        assert_eq!(line.args.command, ["python3", "-c", "pass"]);
        assert_eq!((line.args.configs.len(), idle(&line.args)), (1, vec![0, 500]));
    }
}
