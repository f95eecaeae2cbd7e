//! `pool` against the pools of a real CPython on every bundled recording, measured and analysed by the harness itself.
//!
//! Invariant: both serve the same requests in fresh processes, interleaved, and share everything but the policy's code:
//! arenas, what lies below, what is written to a block. The ratio is the product's own, never computed here.

use crate::{filtered, instructions};
use libpython::Interpreter;
use pyalloc_bench::analysis::{Analysis, WorkloadAnalysis};
use pyalloc_bench::measure::{self, Config, How, Image, ImageLimits, PACE_LIMIT, Progress, Request, Sizes, seconds};
use pyalloc_bench::run::Mode;
use pyalloc_bench::workload::{Bundle, Workload};
use pyalloc_bench::{report, units};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a filter is held against.
pub(crate) const NAME: &str = "pool/cpython";
/// The version whose pools `pool` models first of all.
const PREFERRED_MINOR: u32 = 11;
/// Names another interpreter.
const PYTHON_VARIABLE: &str = "PYALLOC_BENCH_PYTHON";
/// Blocks of fresh processes, unless [`BLOCKS_VARIABLE`] says otherwise: enough for an interval of few per cent.
const BLOCKS: u32 = 31;
const BLOCKS_VARIABLE: &str = "PYALLOC_BENCH_BLOCKS";

/// Measures, counts and prints.
///
/// # Errors
/// A sentence when a recording cannot be used, or a child failed.
pub(crate) fn run() -> Result<(), String> {
    let interpreter = match interpreter() {
        Ok(interpreter) => interpreter,
        Err(reason) if std::env::var_os(PYTHON_VARIABLE).is_some() => return Err(format!("{NAME}: {reason}")),
        Err(reason) => {
            println!("\n{NAME} was not measured: {reason}");
            return Ok(());
        }
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench").join("pool");
    let request = request(&folder, &interpreter)?;
    println!("\n{NAME}: {} blocks of fresh processes", request.sizes.blocks);
    let summary = measure::run(&request, &mut Progress::new(false))?;
    let analysis = report::analyse(&summary.path).map_err(|e| format!("{e:#}"))?;
    print!("{}", head(&analysis, &interpreter));
    let counted = count(&request, &folder);
    print!("{}", table(&analysis, counted.as_ref().ok()));
    println!(
        "[low high]: bootstrap over {} blocks, 95 % for all {} verdicts together; (low high): the range; calls and \
         times are\nthose of steady",
        request.sizes.blocks, analysis.verdicts
    );
    match &counted {
        Ok(_) => {
            println!("instructions: in user mode, the whole recording, inside the allocator (valgrind's callgrind)")
        }
        Err(reason) => println!("instructions were not counted: {reason}"),
    }
    match summary.failed {
        0 => Ok(()),
        n => Err(format!("{n} children failed; their reasons are above.")),
    }
}

/// The interpreter that a variable names; else the first CPython 3.11 that can serve; else any that can.
fn interpreter() -> Result<Interpreter, String> {
    if let Some(program) = std::env::var_os(PYTHON_VARIABLE) {
        return Interpreter::find(program.as_ref()).map_err(|error| error.to_string());
    }
    let preferred = PathBuf::from(format!("python3.{PREFERRED_MINOR}"));
    let mut other = None;
    for program in [preferred].into_iter().chain(libpython::candidates()) {
        match Interpreter::find(&program) {
            Ok(found) if found.minor == PREFERRED_MINOR => return Ok(found),
            Ok(found) => other = other.or(Some(found)),
            Err(_) => {}
        }
    }
    other.ok_or_else(|| {
        format!(
            "no CPython 3.10 or later with the GIL and a shared libpython was found. Install one (Debian: apt-get \
             install libpython3.11), or name a program by {PYTHON_VARIABLE}."
        )
    })
}

/// The filtered recordings, the two configurations, throughput alone.
fn request(folder: &Path, interpreter: &Interpreter) -> Result<Request, String> {
    let traces = folder.join("traces");
    fs::create_dir_all(&traces).map_err(|e| format!("{} cannot be made: {e}. Make room.", traces.display()))?;
    let bundle = Bundle::find();
    let mut workloads: Vec<Workload> = Vec::new();
    for whole in bundle.all(false)? {
        let path = traces.join(format!("{}.trace", whole.name));
        filtered::write(&whole, &path)?;
        // By its path: the name alone would mean the whole recording.
        workloads.push(bundle.resolve(&path.to_string_lossy(), false)?);
    }
    let cpython = measure::parse_config(&format!("cpython:{}", interpreter.program.display()))?;
    let blocks = match std::env::var(BLOCKS_VARIABLE) {
        Ok(text) => text.parse().ok().filter(|blocks| *blocks > 0).ok_or_else(|| {
            format!("{BLOCKS_VARIABLE}={text}: that is no number of blocks. Give one such as {BLOCKS}.")
        })?,
        Err(_) => BLOCKS,
    };
    Ok(Request {
        exe: PathBuf::from(env!("CARGO_BIN_EXE_pyalloc-bench")),
        workloads,
        configs: vec![cpython, measure::parse_config("pool")?],
        sizes: Sizes { blocks, latency_runs: 0, footprint_runs: 0 },
        idle_ms: vec![0],
        cycles: None,
        mode: Some(Mode::Merged),
        pace: Some(0),
        pace_limit: PACE_LIMIT,
        seed: 1,
        quick: false,
        limits: ImageLimits::DEFAULT,
        allow_debug: false,
        base: folder.to_path_buf(),
    })
}

/// Instructions per call: for each workload, those of each configuration.
fn count(request: &Request, folder: &Path) -> Result<Vec<Vec<f64>>, String> {
    let valgrind = instructions::valgrind().ok_or("valgrind is not on PATH (Debian: apt-get install valgrind).")?;
    let started = Instant::now();
    let mut counts = Vec::new();
    for workload in &request.workloads {
        let image = Image::prepare(&request.exe, workload.clone(), 0, &request.limits, &How::default())?;
        let of = |config: &Config| instructions::per_call(&valgrind, &request.exe, folder, &image, config);
        counts.push(request.configs.iter().map(of).collect::<Result<_, _>>()?);
    }
    eprintln!("counted instructions in {}", seconds(started.elapsed()));
    Ok(counts)
}

/// What is compared, and what both have in common.
fn head(analysis: &Analysis, interpreter: &Interpreter) -> String {
    let facts = |key: &str| {
        let configs = analysis.environment.configs.iter().flat_map(|config| &config.allocators);
        configs.into_iter().find(|facts| facts.key == key)
    };
    let version = |key: &str| facts(key).map_or_else(|| "unknown".to_owned(), |facts| facts.version.clone());
    let build = facts("cpython").and_then(|facts| facts.options.get("build")).map_or("unknown", String::as_str);
    let configured = match interpreter.optimisations.as_str() {
        "" => "neither PGO nor LTO",
        with => with,
    };
    let mut text = format!(
        "\npool, {}\nagainst {}\n  built {build}, its configure arguments name {configured}\n",
        version("pool"),
        version("cpython")
    );
    if interpreter.minor != PREFERRED_MINOR {
        text.push_str(&format!("NOTE: no CPython 3.{PREFERRED_MINOR} was found, or another was asked for.\n"));
    }
    text.push_str(
        "for both: requests of the mem and obj domains alone; arenas are anonymous private mappings of 1 MiB; requests \
         above\n512 bytes go to the C library's malloc; a block gets a header, and a byte on each OS page that the \
         program touched\n\n",
    );
    text
}

/// A line per workload.
fn table(analysis: &Analysis, counts: Option<&Vec<Vec<f64>>>) -> String {
    let mut text = format!(
        "{:<15} {:>8} {:>16} {:>8}  {:<22} {:>22} {:>6}\n",
        "", "calls", "CPython ns/call", "pool", "ratio [95 %]", "CPython instr./call", "pool"
    );
    for (place, workload) in analysis.workloads.iter().enumerate() {
        let counts = counts.and_then(|counts| counts.get(place));
        text.push_str(&row(workload, counts.map_or(&[], Vec::as_slice)));
    }
    text
}

fn row(workload: &WorkloadAnalysis, counts: &[f64]) -> String {
    let unknown = || "-".to_owned();
    let figure = |config: usize| workload.configs.get(config).and_then(|config| config.ns_per_call);
    let ns = |config: usize| figure(config).map_or_else(unknown, |figure| units::significant(figure.value.median));
    let versus = figure(1).and_then(|figure| figure.versus).map_or_else(unknown, |versus| {
        let (ratio, ends) = (versus.ratio, if versus.ratio.interval { ["[", "]"] } else { ["(", ")"] });
        format!("{:.3} {}{:.3} {:.3}{}", ratio.median, ends[0], ratio.low, ratio.high, ends[1])
    });
    let count = |config: usize| counts.get(config).map_or_else(unknown, |count| format!("{count:.1}"));
    format!(
        "{:<15} {:>8} {:>16} {:>8}  {:<22} {:>22} {:>6}\n",
        workload.name,
        units::count(workload.calls as f64),
        ns(0),
        ns(1),
        versus,
        count(0),
        count(1)
    )
}
