//! The bundled workloads on every allocator, under criterion: one group per workload, one benchmark per allocator and
//! for the floor.
//!
//! Each iteration is a fresh child process, measured as the main job measures, and its time is that of the `steady`
//! phase as the child itself took it; so criterion and the main job speak about the same thing. A run without a
//! filter ends with the latency and fragmentation charts.
//!
//! Invariant: a child that fails ends the bench; no time of it is ever reported.

#[path = "arguments/mod.rs"]
mod arguments;

use arguments::Wanted;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use pyalloc_bench::measure::{self, Cell, ImageLimits, PACE_LIMIT, Prepared, Progress, Request, Sizes};
use pyalloc_bench::run::{Mode, Observation, Outcome, Pass};
use pyalloc_bench::workload::Bundle;
use pyalloc_bench::{report, units};
use std::path::{Path, PathBuf};
use std::time::Duration;
use trace::Phase;

/// Children per benchmark, besides warm-up: criterion's least.
const SAMPLES: usize = 10;
/// One child warms up; it counts as soon as it has reported any time.
const WARM_UP: Duration = Duration::from_millis(1);
/// Idle delays of the charts' footprint pass, milliseconds.
const IDLE_MS: [u64; 3] = [0, 100, 1_000];
fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let request = request();
    if let Err(reason) = groups(&mut criterion, &request).and_then(|()| {
        criterion.final_summary();
        if Wanted::now() == Wanted::Everything { charts(&request) } else { Ok(()) }
    }) {
        eprintln!("{reason}");
        std::process::exit(1);
    }
}

/// Everything bundled, on every allocator, with the passes that the charts need.
fn request() -> Request {
    let workloads = Bundle::find().all(false).unwrap_or_else(|reason| {
        eprintln!("{reason}");
        std::process::exit(2)
    });
    Request {
        exe: PathBuf::from(env!("CARGO_BIN_EXE_pyalloc-bench")),
        workloads,
        configs: measure::contestants().into_iter().chain(measure::floor()).collect(),
        sizes: Sizes { blocks: 0, latency_runs: 1, footprint_runs: 1 },
        idle_ms: IDLE_MS.to_vec(),
        cycles: None,
        mode: Some(Mode::Merged),
        pace: Some(0),
        pace_limit: PACE_LIMIT,
        seed: 1,
        quick: false,
        limits: ImageLimits::DEFAULT,
        // Only reached by `cargo test --benches`, which reports no time.
        allow_debug: cfg!(debug_assertions),
        base: Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench"),
    }
}

fn groups(criterion: &mut Criterion, request: &Request) -> Result<(), String> {
    let prepared = Prepared::new(request, &mut Progress::new(true))?;
    for (workload, image) in prepared.images.iter().enumerate() {
        let mut group = criterion.benchmark_group(&image.workload.name);
        group.sample_size(SAMPLES).nresamples(10_000).sampling_mode(SamplingMode::Flat).warm_up_time(WARM_UP);
        group.throughput(Throughput::Elements(image.compiled.summary.calls_by_phase[Phase::Steady as usize]));
        for (config, words) in prepared.configs.iter().enumerate() {
            if !prepared.is_for(workload, config) {
                continue;
            }
            let cell = Cell { workload, config, pass: Pass::Throughput, block: 0, padding_bytes: 0 };
            let mut children = 0u32;
            // Criterion derives the number of children from this: one and a half per sample round up to two.
            group.measurement_time(pilot(&prepared, &cell)? * SAMPLES as u32 * 3 / 2);
            group.bench_function(BenchmarkId::from_parameter(&words.name), |bencher| {
                bencher.iter_custom(|iterations| {
                    (0..iterations)
                        .map(|_| {
                            children += 1;
                            steady(&prepared, &Cell { padding_bytes: padding(children), ..cell })
                                .unwrap_or_else(|reason| panic!("{reason}"))
                        })
                        .sum()
                });
            });
        }
        group.finish();
    }
    Ok(())
}

/// A different padding for every child: layout luck must not stick to one of them.
fn padding(child: u32) -> u32 {
    child.wrapping_mul(2_654_435_761) >> 20
}

/// As [`steady`], never nothing.
fn pilot(prepared: &Prepared, cell: &Cell) -> Result<Duration, String> {
    steady(prepared, cell).map(|took| took.max(Duration::from_micros(1)))
}

/// What one fresh child took for the steady phase.
fn steady(prepared: &Prepared, cell: &Cell) -> Result<Duration, String> {
    match prepared.measure(cell).outcome {
        Outcome::Ok(Observation::Throughput(seen)) => {
            let phases = seen.phases.iter().filter(|cost| cost.phase == Phase::Steady);
            Ok(Duration::from_nanos(phases.map(|cost| cost.wall_ns).sum()))
        }
        Outcome::Ok(_) => Err("A throughput child reported something else. Please report this.".to_owned()),
        Outcome::Failed { stage, reason } => Err(format!("A child failed, {stage}: {reason}")),
    }
}

/// The latency and footprint passes through the harness itself, then where their charts are.
fn charts(request: &Request) -> Result<(), String> {
    let summary = measure::run(request, &mut Progress::new(false))?;
    let written = report::write_all(&summary.path).map_err(|e| format!("{e:#}"))?;
    let analysis = report::analyse(&summary.path).map_err(|e| format!("{e:#}"))?;
    println!("\nresident memory, MiB: at peak, and at rest after {} ms", IDLE_MS[IDLE_MS.len() - 1]);
    for workload in &analysis.workloads {
        println!("{}", workload.name);
        for config in &workload.configs {
            let Some(memory) = &config.memory else { continue };
            let (peak, rest) = (memory.peak.value.median, memory.rest.value.median);
            println!("  {:<16} peak {:>8}   rest {:>8}", config.name, units::mib(peak), units::mib(rest));
        }
    }
    let wanted = |path: &&PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        name.ends_with(".svg") && (name.starts_with("latency-") || name.starts_with("fragmentation-"))
    };
    println!("\nlatency and fragmentation charts");
    for path in written.iter().filter(wanted) {
        println!("  {}", path.display());
    }
    if summary.failed > 0 {
        return Err(format!("{} children failed; their reasons are above.", summary.failed));
    }
    Ok(())
}
