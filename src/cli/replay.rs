//! `replay`, and what runs without a verb: measure, then show what the result says.
//!
//! Invariant: what is shown is read back from the result's files, never taken from memory.

use super::out::{Stop, columns, print};
use crate::analysis::repetitions::{self, Pilot, Repetitions};
use crate::measure::{
    self, Budget, Chosen, Config, CyclesAsked, IDLE_MS, IDLE_MS_QUICK, ImageLimits, Named, PACE_LIMIT, PilotRuns,
    Preset, Progress, Request, Sizes, Summary, Wheel,
};
use crate::run::{self, LATEST_LINK, Mode};
use crate::workload::{Bundle, Workload, clone_around_current_folder};
use crate::{analysis, report};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Options of a run.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RunOptions {
    /// Configuration, as one would type it before python: variables ('MALLOC_ARENA_MAX=2'), presets (today,
    /// arrow-system; --list has all), an allocator for all (pool, system, mimalloc, jemalloc,
    /// cpython[:PROGRAM]) or for a domain ('numpy=jemalloc', 'arrow=/path/lib.so'); repeatable, the first is
    /// the baseline
    #[arg(short, long = "config", value_name = "CONFIG")]
    configs: Vec<String>,
    /// The service's Python, its virtual environment, or a folder with its pyarrow: the pools of that Arrow library
    /// then serve Arrow wherever variables choose its pool (for one configuration: -c arrow=wheel:mimalloc[:PYTHON]),
    /// and the mimalloc of that CPython is the one of PYTHONMALLOC=mimalloc [default there: python3]
    #[arg(long, value_name = "PYTHON")]
    python: Option<String>,
    /// File of configurations of your own: [config.NAME] with words = "...", for -c NAME
    #[arg(long = "configs", value_name = "FILE")]
    configs_file: Option<PathBuf>,
    /// Measure under settings that no allocator can confirm; every result then says so
    #[arg(long)]
    allow_unverified: bool,
    /// A first look: small cuts, few blocks
    #[arg(long)]
    quick: bool,
    /// Measuring time (90s, 5m, 1h): a pilot chooses as many blocks and runs as verdicts need and the time allows
    #[arg(long, value_name = "TIME", value_parser = super::quantity::duration,
          conflicts_with_all = ["blocks", "latency_runs", "footprint_runs"])]
    budget: Option<Duration>,
    /// Throughput blocks [default: 12; 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    blocks: Option<u32>,
    /// Latency runs per allocator and workload [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    latency_runs: Option<u32>,
    /// Footprint runs per allocator and workload [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    footprint_runs: Option<u32>,
    /// Idle delays in milliseconds at which rest is read [default: 0,100,1000,3000,10000]
    #[arg(long, value_name = "MS", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    idle: Vec<u64>,
    /// Repeat the work of each recording N times, and tell plateau from slope
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    cycles: Option<u32>,
    /// The marks around the work that --cycles repeats [default: steady,drained; steady,finalising without drained]
    #[arg(long, value_name = "FROM,TO", requires = "cycles", value_parser = two_marks)]
    between: Option<(String, String)>,
    /// How recorded threads are replayed [default: gil where there are several, else merged]
    #[arg(long, value_name = "MODE")]
    threads: Option<Threads>,
    /// Have the footprint passes wait for recorded gaps, FACTOR times shorter than they were; 0: back to back
    /// [default: no wait; allocators read the recorded time, if the trace has times]
    #[arg(long, value_name = "FACTOR", num_args = 0..=1, conflicts_with = "cycles", require_equals = true,
          default_missing_value = "1", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    paced: Option<u32>,
    /// Most time that one paced replay may wait for recorded gaps (90s, 30m, 4h) [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = super::quantity::duration)]
    pace_limit: Option<Duration>,
    /// Seed of the order of runs [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Folder in which the result's own folder is made
    #[arg(short, long = "output", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Say nothing while measuring
    #[arg(short, long)]
    quiet: bool,
    /// Stream every image through windows of so many ops
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u64).range(16..=1 << 26))]
    window_ops: Option<u64>,
    /// Let a debug build measure; its figures mean nothing
    #[arg(long, hide = true)]
    allow_debug_build: bool,
}

/// How recorded threads are replayed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Threads {
    /// All on one thread, in the recorded order
    Merged,
    /// As threads; Python's own calls in the recorded order, as the GIL had them
    Gil,
    /// As threads, which wait only for blocks that others allocated
    Free,
}

/// Arguments of `replay`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReplayArgs {
    /// Bundled workloads by name, or trace files; all bundled workloads when none is given
    #[arg(value_name = "WORKLOAD|TRACE")]
    what: Vec<String>,
    #[command(flatten)]
    options: RunOptions,
    /// List the workloads and configurations, and measure nothing
    #[arg(long)]
    list: bool,
}

impl ReplayArgs {
    /// All bundled workloads.
    pub(super) fn bundled(options: RunOptions) -> Self {
        Self { what: Vec::new(), options, list: false }
    }
}

/// Said where the full recordings are not at hand.
const CUTS_ONLY: &str =
    "No clone of the repository with its full recordings is near: small cuts of the workloads are used";

/// Measures and shows.
pub(super) fn run(args: &ReplayArgs) -> Result<(), Stop> {
    let bundle = Bundle::find();
    if args.list {
        return print(&list(&bundle, &named(&args.options)?).map_err(Stop::Unusable)?);
    }
    let request = request(args, &bundle)?;
    measure::end_on_signals().map_err(Stop::Unusable)?;
    let mut progress = Progress::new(args.options.quiet);
    if bundle.is_cuts_only() && request.quick && !args.options.quick {
        progress.say(&format!("{CUTS_ONLY}."));
    }
    let budget = args.options.budget.map(budget);
    let summary = measure::run_within(&request, budget.as_ref(), &mut progress).map_err(Stop::Unusable)?;
    show(&summary)
}

/// Prints the table, writes charts and report, and says where they are.
fn show(summary: &Summary) -> Result<(), Stop> {
    let stored = run::open(&summary.path).map_err(Stop::unusable)?;
    let analysis = analysis::analyse(stored.environment, &stored.runs);
    print(&report::terminal(&analysis))?;
    let written = report::write_all(&summary.path).map_err(|e| Stop::Unusable(format!("{e:#}")))?;
    let charts = written.iter().filter(|path| path.extension().is_some_and(|ending| ending == "svg")).count();
    let report = short(&summary.path).join(report::PAGE_FILE);
    let took = measure::seconds(summary.elapsed);
    print(&format!(
        "{} runs ok, {} failed, {took} · {charts} charts · report: {}\n",
        summary.ok,
        summary.failed,
        report.display()
    ))?;
    match summary.failed {
        0 => Ok(()),
        n => Err(Stop::Failed(format!(
            "{n} runs failed; their reasons are above and in {}.",
            short(&summary.path).display()
        ))),
    }
}

/// The path through the `latest` link, below the current folder where it lies there.
fn short(result: &Path) -> PathBuf {
    let linked = result.parent().map(|base| base.join(LATEST_LINK));
    let same = |link: &PathBuf| link.canonicalize().is_ok_and(|to| result.canonicalize().is_ok_and(|from| from == to));
    let path = linked.filter(same).unwrap_or_else(|| result.to_path_buf());
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).map_or(path.clone(), Path::to_path_buf)
}

/// Where results go unless told otherwise: into the clone around the current folder, else below the current folder.
pub(super) fn default_base() -> PathBuf {
    clone_around_current_folder().map_or_else(|| PathBuf::from("pyalloc-bench-results"), |clone| clone.join("results"))
}

fn request(args: &ReplayArgs, bundle: &Bundle) -> Result<Request, Stop> {
    let options = &args.options;
    let workloads: Vec<Workload> = if args.what.is_empty() {
        bundle.all(options.quick).map_err(Stop::Unusable)?
    } else {
        args.what
            .iter()
            .map(|word| bundle.resolve(word, options.quick))
            .collect::<Result<_, _>>()
            .map_err(Stop::Unusable)?
    };
    if workloads.is_empty() {
        return Err(Stop::Unusable("No workload is bundled with this program. Give a trace file.".to_owned()));
    }
    let is_any_bundled = workloads.iter().any(|workload| workload.promise.is_some());
    let defaults = if options.quick { Sizes::QUICK } else { Sizes::DEFAULT };
    let default_idle: &[u64] = if options.quick { &IDLE_MS_QUICK } else { &IDLE_MS };
    let mut idle_ms = if options.idle.is_empty() { default_idle.to_vec() } else { options.idle.clone() };
    idle_ms.sort_unstable();
    idle_ms.dedup();
    let exe = std::env::current_exe().map_err(|e| {
        Stop::Unusable(format!("This program cannot find its own file: {e}. Call it by its full path."))
    })?;
    Ok(Request {
        exe,
        workloads,
        configs: configs(options)?,
        sizes: Sizes {
            blocks: options.blocks.unwrap_or(defaults.blocks),
            latency_runs: options.latency_runs.unwrap_or(defaults.latency_runs),
            footprint_runs: options.footprint_runs.unwrap_or(defaults.footprint_runs),
        },
        idle_ms,
        cycles: options.cycles.map(|times| CyclesAsked { times, between: options.between.clone() }),
        mode: options.threads.map(|threads| match threads {
            Threads::Merged => Mode::Merged,
            Threads::Gil => Mode::Gil,
            Threads::Free => Mode::Free,
        }),
        pace: options.paced,
        pace_limit: options.pace_limit.unwrap_or(PACE_LIMIT),
        seed: options.seed.unwrap_or_else(seed_of_clock),
        quick: options.quick || (bundle.is_cuts_only() && is_any_bundled),
        limits: limits(options.window_ops),
        allow_debug: options.allow_debug_build,
        base: options.output.clone().unwrap_or_else(default_base),
    })
}

/// A budget whose pilot is judged by the reading half.
fn budget(time: Duration) -> Budget {
    let pilot =
        Sizes { blocks: repetitions::PILOT_BLOCKS, latency_runs: 0, footprint_runs: repetitions::PILOT_FOOTPRINT_RUNS };
    let choose = |pilot: &PilotRuns<'_>| {
        let times = [pilot.block, pilot.footprints, pilot.idle];
        let chosen = Pilot::read(pilot.environment, pilot.runs, times).choose(pilot.left);
        let Repetitions { blocks, latency_runs, footprint_runs, reasons } = chosen;
        Chosen { sizes: Sizes { blocks, latency_runs, footprint_runs }, reasons }
    };
    Budget { time, pilot, choose }
}

/// `FROM,TO`.
fn two_marks(text: &str) -> Result<(String, String), String> {
    match text.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [from, to] if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("two names of marks with a comma between them are needed, such as steady,drained".to_owned()),
    }
}

fn limits(window_ops: Option<u64>) -> ImageLimits {
    let default = ImageLimits::DEFAULT;
    window_ops.map_or(default, |window_ops| ImageLimits {
        whole_bytes_max: 0,
        unstreamed_share: 0,
        window_ops,
        ..default
    })
}

/// The contestants asked for, or all of them, the floor, and the controls.
fn configs(options: &RunOptions) -> Result<Vec<Config>, Stop> {
    let words = &options.configs;
    let mut configs =
        measure::parse_configs(words, &named(options)?, options.python.as_deref()).map_err(Stop::Unusable)?;
    if words.is_empty() {
        configs = measure::contestants();
    }
    if let Some(place) = &options.python {
        match Wheel::find(place) {
            Ok(wheel) => configs = configs.into_iter().map(|config| config.on_wheel(&wheel)).collect(),
            // It may be named for its interpreter alone.
            Err(_) if configs.iter().any(Config::has_interpreter) => {}
            Err(reason) => return Err(Stop::Unusable(reason)),
        }
    }
    for config in &mut configs {
        config.allow_unverified = options.allow_unverified;
    }
    if configs.iter().all(|config| config.floor) {
        return Err(Stop::Unusable("The floor alone compares nothing. Add an allocator with -c.".to_owned()));
    }
    for floor in measure::floor() {
        if configs.iter().all(|config| config.name != floor.name) {
            configs.push(floor);
        }
    }
    let controls = measure::controls(&configs);
    configs.extend(controls);
    Ok(configs)
}

/// The user's own configurations.
fn named(options: &RunOptions) -> Result<Named, Stop> {
    options.configs_file.as_deref().map_or(Ok(Named::default()), Named::read).map_err(Stop::Unusable)
}

pub(super) fn seed_of_clock() -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    // Kept below 2^53, so that every JSON reader gives it back exactly.
    (nanos as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11
}

fn list(bundle: &Bundle, named: &Named) -> Result<String, String> {
    let kind = if bundle.is_cuts_only() { format!(" ({CUTS_ONLY})") } else { String::new() };
    let mut text = format!("workloads{kind}\n");
    let rows: Vec<Vec<String>> = bundle.definitions().iter().map(|d| vec![d.name.clone(), d.title.clone()]).collect();
    text.push_str(&columns(&rows, &[]));
    let presets = measure::presets(named)?;
    let rows = |deployable: bool| -> Vec<Vec<String>> {
        let row = |preset: &Preset| {
            let domains = ::trace::Domain::ALL.iter().zip(&preset.backends);
            let serves: Vec<String> = domains.map(|(domain, key)| format!("{}={key}", domain.name())).collect();
            vec![preset.name.clone(), preset.words.clone(), serves.join(" ")]
        };
        presets.iter().filter(|preset| preset.deployable == deployable).map(row).collect()
    };
    text.push_str("configurations to deploy: the variables to set, and the allocator that then serves each domain\n");
    text.push_str(&columns(&rows(true), &[]));
    text.push_str("what if: configurations that no variable stands for\n");
    text.push_str(&columns(&rows(false), &[]));
    text.push_str(
        "cpython is the pools of an interpreter of this machine, whose PROGRAM is a name or a path (python3 if none is \
         given)\nand which must have a shared libpython. It is measured where it is named: -c cpython:python3.11\n\
         cpython-mimalloc is what PYTHONMALLOC=mimalloc puts in its place, in 3.13 and later\n\
         wheel:mimalloc, wheel:jemalloc and wheel:system are the pools of a pyarrow: -c arrow=wheel:mimalloc takes \
         that of python3,\n-c arrow=wheel:mimalloc:venv/bin/python another one; --python has variables \
         choose among them\n\
         Words may be combined: -c 'MALLOC_ARENA_MAX=2 arrow-system', -c 'numpy=/path/libjemalloc.so.2'\n",
    );
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_floor_is_always_measured() {
        let names = |words: &[&str]| -> Vec<String> {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            configs(&RunOptions { configs: words, ..RunOptions::default() })
                .unwrap()
                .into_iter()
                .map(|c| c.name)
                .collect()
        };
        assert_eq!(
            names(&[]),
            ["today", "pool", "system", "mimalloc", "jemalloc", "null", "loop", "today-again", "pool-again"]
        );
        assert_eq!(names(&["jemalloc", "pool"]), ["jemalloc", "pool", "null", "loop", "jemalloc-again"]);
        assert_eq!(names(&["loop", "pool"]), ["loop", "pool", "null", "pool-again"]);
    }

    #[test]
    fn what_compares_nothing_is_refused() {
        for words in [&["null"][..], &["pool", "pool"], &["tcmalloc"]] {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let options = RunOptions { configs: words, ..RunOptions::default() };
            assert!(matches!(configs(&options), Err(Stop::Unusable(_))));
        }
    }
}
