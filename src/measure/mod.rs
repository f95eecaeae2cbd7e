//! Runs a plan: compiles the traces, starts one fresh child per cell, appends what each says to the result.
//!
//! Invariant: computes no statistic. Children whose time is measured run one at a time; only footprint children, which
//! measure none, run side by side, and only after the last timed one has ended.

mod ask;
mod budget;
mod child;
mod compile;
mod config;
mod cycles;
mod environment;
mod estimate;
pub mod fitness;
mod footprint;
mod image;
pub mod installation;
mod interrupt;
pub mod live;
mod plan;
mod progress;
mod spawn;
mod threads;

pub use ask::{HostReport, report, self_test};
pub use budget::{Budget, Chosen, PilotRuns};
pub use child::{Measured, Settings, WORKER_VERB, Worker};
pub use compile::main as compile_main;
pub use config::{
    Config, Named, Preset, Wheel, contestants, controls, floor, parse as parse_config, parse_all as parse_configs,
    presets,
};
#[cfg(any(test, fuzzing))]
pub(crate) use config::{check_library, needs_static_tls, parse_without_interpreters, verify};
pub use cycles::CyclesAsked;
#[cfg(any(test, fuzzing))]
pub(crate) use footprint::sleeping;
pub use image::{COMPILE_VERB, How, Image, ImageLimits};
pub use interrupt::end_on_signals;
pub use plan::{Cell, Sizes, plan};
pub use progress::{Progress, seconds};

use crate::run::{
    AllocatorFacts, Environment, Mode, Outcome, Pass, PlanFacts, ResultDir, Run, SCHEMA, Time, WorkloadFacts,
};
use crate::units;
use crate::workload::Workload;
use estimate::Estimate;
use fitness::HostState;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trace::Domain;

/// What decides whether this host is fit to measure on; results would go into `results`.
#[must_use]
pub fn host_state(results: &Path) -> HostState {
    environment::state(environment::host(Some(crate::backend::libc_version())), results)
}

/// Idle delays of the default run, milliseconds.
pub const IDLE_MS: [u64; 5] = [0, 100, 1_000, 3_000, 10_000];
/// Most time that a paced replay waits for recorded gaps unless more is asked for: the bundled programs take seconds.
pub const PACE_LIMIT: Duration = Duration::from_secs(600);
/// Idle delays of `--quick`, milliseconds.
pub const IDLE_MS_QUICK: [u64; 3] = [0, 100, 1_000];

/// Footprint runs from which a control has them as well: below it they could give no verdict.
const CONTROL_FOOTPRINTS_MIN: u32 = 6;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Request {
    /// The binary whose hidden verbs compile and measure.
    pub exe: PathBuf,
    /// Workloads, in the order of the report.
    pub workloads: Vec<Workload>,
    /// Configurations, the baseline first, the floor among them.
    pub configs: Vec<Config>,
    /// How often each pass repeats.
    pub sizes: Sizes,
    /// Idle delays at which rest is read, milliseconds, ascending.
    pub idle_ms: Vec<u64>,
    /// What of each workload is repeated, if anything is.
    pub cycles: Option<CyclesAsked>,
    /// How threads are replayed; `None`: as threads where there are several.
    pub mode: Option<Mode>,
    /// How many times faster than recorded the footprint passes wait for recorded moments, 0: back to back. `None`:
    /// they do not wait, and serve the recorded time where the trace has times.
    pub pace: Option<u32>,
    /// Most time that one paced replay may wait for recorded gaps.
    pub pace_limit: Duration,
    /// Seed of order and padding.
    pub seed: u64,
    /// Whether small cuts are used.
    pub quick: bool,
    /// How much shared memory images may take.
    pub limits: ImageLimits,
    /// Whether a debug build may measure.
    pub allow_debug: bool,
    /// The folder that the result's folder is made in.
    pub base: PathBuf,
}

/// What a run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The result's folder.
    pub path: PathBuf,
    /// Children that measured.
    pub ok: u32,
    /// Children that did not.
    pub failed: u32,
    /// From the first child to the last.
    pub elapsed: Duration,
}

/// Everything that is ready before the first child.
#[derive(Debug)]
pub struct Prepared {
    exe: PathBuf,
    /// One per workload, in the order given.
    pub images: Vec<Image>,
    /// The configurations.
    pub configs: Vec<Config>,
    /// What all workers share.
    pub settings: Settings,
}

impl Prepared {
    /// Compiles every trace.
    ///
    /// # Errors
    /// A sentence about the first trace that cannot be used.
    pub fn new(request: &Request, progress: &mut Progress) -> Result<Self, String> {
        if cfg!(debug_assertions) && !request.allow_debug {
            return Err("This is a debug build, and its timings would mean nothing. Use `cargo run --release`.".into());
        }
        let settings = Settings {
            idle_ms: request.idle_ms.clone(),
            time: match request.pace {
                None => Time::Virtual,
                Some(0) => Time::None,
                Some(_) => Time::Real,
            },
            pace: request.pace.unwrap_or(1),
            pace_limit: request.pace_limit,
            allow_debug: request.allow_debug,
        };
        let mut images: Vec<Image> = Vec::new();
        for workload in &request.workloads {
            progress.say(&format!("checking {}", workload.name));
            let held: u64 = images.iter().map(Image::held_bytes).sum();
            let (has_moments, cycles) = (request.pace != Some(0) && request.cycles.is_none(), request.cycles.clone());
            let how = How { mode: request.mode, has_moments, cycles };
            let image = Image::prepare(&request.exe, distinct(workload, &images), held, &request.limits, &how)?;
            check_wait(&image, &settings)?;
            image.note.iter().for_each(|note| progress.say(note));
            if let Some(remark) = &image.compiled.remark {
                progress.say(&format!("{}: {remark}", workload.name));
            }
            let notes = request.configs.iter().filter_map(|config| config.numpy_note(&image.compiled.metadata));
            notes.take(1).for_each(|note| progress.say(&format!("{}: {note}", workload.name)));
            images.push(image);
        }
        Ok(Self { exe: request.exe.clone(), images, configs: request.configs.clone(), settings })
    }

    /// Runs one child to its end.
    #[must_use]
    pub fn measure(&self, cell: &Cell) -> Measured {
        self.start(cell).map_or_else(|failed| *failed, Worker::wait)
    }

    /// Starts one child.
    ///
    /// # Errors
    /// The failed measurement when there is no process to wait for.
    pub fn start(&self, cell: &Cell) -> Result<Worker, Box<Measured>> {
        self.start_as(cell, &self.settings)
    }

    /// Starts one child under settings that may be others than those of the run.
    fn start_as(&self, cell: &Cell, settings: &Settings) -> Result<Worker, Box<Measured>> {
        let (image, config) = (&self.images[cell.workload], &self.configs[cell.config]);
        Worker::start(&self.exe, image, config, cell, settings)
    }

    /// How long footprint children idle; those in virtual time do not wait for it.
    fn idle(&self) -> Duration {
        let waits = self.images.iter().any(|image| self.settings.time_of(image) != Time::Virtual);
        let idle_ms = self.settings.idle_ms.last().copied().filter(|_| waits);
        Duration::from_millis(idle_ms.unwrap_or(0))
    }

    /// `small-objects, mimalloc, throughput`.
    fn named(&self, cell: &Cell) -> String {
        let (workload, config) = (&self.images[cell.workload].workload.name, &self.configs[cell.config].name);
        format!("{workload}, {config}, {}", format!("{:?}", cell.pass).to_lowercase())
    }

    fn run_of(&self, seq: u32, cell: &Cell, measured: Measured) -> Run {
        measured.into_run(seq, cell, &self.images[cell.workload], &self.configs[cell.config])
    }

    /// Whether a configuration means something on a workload: its program calls what the configuration is about.
    #[must_use]
    pub fn is_for(&self, workload: usize, config: usize) -> bool {
        let means = |config: &Config| config.only.is_none_or(|domain| self.calls(workload, domain));
        let config = &self.configs[config];
        let Some(original) = &config.control_of else { return means(config) };
        let baseline = self.configs.iter().filter(|config| !config.floor).find(|config| means(config));
        baseline.is_some_and(|baseline| baseline.name == *original)
    }

    fn calls(&self, workload: usize, domain: Domain) -> bool {
        let totals = &self.images[workload].compiled.metadata.totals;
        totals.calls_by_domain.get(domain.name()).is_some_and(|calls| *calls > 0)
    }

    /// Whether some workload is measured under it.
    fn is_measured(&self, config: &Config) -> bool {
        let index = self.configs.iter().position(|own| own.name == config.name);
        index.is_some_and(|index| (0..self.images.len()).any(|workload| self.is_for(workload, index)))
    }

    fn is_called(&self, domain: Domain) -> bool {
        (0..self.images.len()).any(|workload| self.calls(workload, domain))
    }

    /// That every variable reaches something that one workload at least calls.
    ///
    /// # Errors
    /// A sentence about the first that does not.
    pub fn check_reach(&self, report: &HostReport) -> Result<(), String> {
        for (config, facts) in self.configs.iter().zip(&report.allocators) {
            if config.needs(Domain::Arrow) && !self.is_called(Domain::Arrow) {
                return Err(format!(
                    "{} reaches nothing: no workload calls Arrow's allocator. Leave it out, or give a trace that does.",
                    config.name
                ));
            }
            for (name, value) in &config.typed {
                let Some(domains) = config::reached(config, facts, name, value) else { continue };
                if !domains.iter().any(|domain| self.is_called(*domain)) {
                    let names: Vec<&str> = domains.iter().map(|domain| domain.name()).collect();
                    return Err(format!(
                        "{name}={value} reaches nothing: what reads it serves {} alone, which no workload calls. Leave \
                         it out, or give a trace that does.",
                        names.join(" and ")
                    ));
                }
            }
        }
        Ok(())
    }

    fn floors(&self) -> Vec<bool> {
        self.configs.iter().map(|config| config.floor && config.control_of.is_none()).collect()
    }

    /// The children of a run in order: what means nothing on a workload is left out, and of a control what could give
    /// no verdict.
    fn cells(&self, seed: u64, sizes: Sizes) -> Vec<Cell> {
        let mut cells = plan(seed, self.images.len(), &self.floors(), sizes);
        let judges = |cell: &Cell| match cell.pass {
            Pass::Throughput => true,
            Pass::Latency => false,
            Pass::Footprint => sizes.footprint_runs >= CONTROL_FOOTPRINTS_MIN,
        };
        cells.retain(|cell| {
            let is_control = self.configs[cell.config].control_of.is_some();
            self.is_for(cell.workload, cell.config) && (!is_control || judges(cell))
        });
        cells
    }

    fn workload_facts(&self) -> Vec<WorkloadFacts> {
        let facts = self.images.iter().map(|image| WorkloadFacts {
            name: image.workload.name.clone(),
            title: image.workload.title.clone(),
            story: image.workload.story.clone(),
            sha256: image.compiled.sha256.clone(),
            trace_bytes: image.compiled.trace_bytes,
            image: image.compiled.summary.clone(),
            metadata: image.compiled.metadata.clone(),
            shape: image.compiled.shape.clone(),
            fidelity: image.fidelity.clone(),
        });
        facts.collect()
    }
}

/// That a replay of an image that waits for recorded gaps can do so, and ends in the time that it may take.
fn check_wait(image: &Image, settings: &Settings) -> Result<(), String> {
    if settings.time == Time::Real && image.compiled.metadata.ticks_per_second.is_none() {
        return Err(format!(
            "{} was recorded without times, so that it cannot be replayed --paced. Record it anew.",
            image.workload.name
        ));
    }
    too_long(image, settings).map_or(Ok(()), |reason| Err(format!("A paced replay of {reason}")))
}

/// Why a replay of an image would wait longer for recorded gaps than it may.
fn too_long(image: &Image, settings: &Settings) -> Option<String> {
    let (wait, limit) = (settings.wait_for(image), settings.pace_limit);
    if wait <= limit {
        return None;
    }
    // The next whole hour or minute.
    let seconds = wait.as_secs() + 1;
    let enough =
        if seconds > 3600 { format!("{}h", seconds.div_ceil(3600)) } else { format!("{}m", seconds.div_ceil(60)) };
    Some(format!(
        "{} would wait {} for its recorded gaps: the limit is {}. Pass --pace-limit {enough} to wait, --paced=FACTOR \
         to wait less, or --paced=0 to replay without gaps.",
        image.workload.name,
        units::span(wait),
        units::span(limit)
    ))
}

/// Two of a user's traces may have the same stem; the second becomes `NAME-2`.
fn distinct(workload: &Workload, images: &[Image]) -> Workload {
    let taken = |name: &str| images.iter().any(|image| image.workload.name == name);
    let mut workload = workload.clone();
    let stem = workload.name.clone();
    let mut number = 2;
    while taken(&workload.name) {
        workload.name = format!("{stem}-{number}");
        number += 1;
    }
    workload
}

/// Measures everything that was asked for. The result keeps what it has when this is interrupted.
///
/// # Errors
/// A sentence when a trace cannot be used or the result cannot be written; a child that fails is no error.
pub fn run(request: &Request, progress: &mut Progress) -> Result<Summary, String> {
    run_within(request, None, progress)
}

/// As [`run`], with as many repetitions as `budget` has chosen for them; `request.sizes` then says nothing.
///
/// # Errors
/// As [`run`], and when the pilot measures nothing.
pub fn run_within(request: &Request, budget: Option<&Budget>, progress: &mut Progress) -> Result<Summary, String> {
    ResultDir::check(&request.base).map_err(|e| e.to_string())?;
    let started_unix_ms = child::unix_ms();
    // Settings take effect, or nothing is measured.
    let report = ask::report(&request.exe, &request.configs)?;
    let mut prepared = Prepared::new(request, progress)?;
    prepared.check_reach(&report)?;
    let mut environment = environment_of(request, &prepared, report, started_unix_ms);
    if let Some(budget) = budget {
        budget.spend(&mut prepared, &mut environment, progress)?;
    }
    let cells = prepared.cells(request.seed, Sizes::planned(&environment.plan));
    let mut result = ResultDir::create(&request.base).map_err(|e| e.to_string())?;
    interrupt::begins(result.path(), cells.len());
    result.write_environment(&environment).map_err(|e| e.to_string())?;

    let mut estimate = Estimate::by_pilot(&prepared, &cells);
    let total = estimate.total();
    progress.say(&format!(
        "workloads: {}, allocators: {}, {} runs, about {}",
        prepared.images.len(),
        prepared.configs.iter().filter(|config| !config.floor).count(),
        cells.len(),
        seconds(total)
    ));
    progress.begin(cells.len() as u32, total);

    let mut summary = Summary { path: result.path().to_path_buf(), ok: 0, failed: 0, elapsed: Duration::ZERO };
    let mut seq = 0;
    let mut keep = |progress: &mut Progress, cell: &Cell, measured: Measured| -> Result<(), String> {
        let run = prepared.run_of(seq, cell, measured);
        seq += 1;
        match run.outcome {
            Outcome::Ok(_) => summary.ok += 1,
            Outcome::Failed { .. } => summary.failed += 1,
        }
        interrupt::keep(|| result.append(&run)).map_err(|e| e.to_string())?;
        estimate.finished(cell, progress.elapsed());
        progress.finished(&run, estimate.left());
        Ok(())
    };
    let (timed, footprints): (Vec<Cell>, Vec<Cell>) = cells.iter().partition(|cell| cell.pass != Pass::Footprint);
    for cell in &timed {
        progress.starts(&prepared.named(cell));
        keep(progress, cell, prepared.measure(cell))?;
    }
    progress.starts("footprints, side by side");
    footprint::side_by_side(&prepared, &footprints, &mut |cell, measured| keep(progress, cell, measured))?;
    progress.end();
    summary.elapsed = progress.elapsed();
    Ok(summary)
}

fn environment_of(request: &Request, prepared: &Prepared, report: HostReport, started_unix_ms: u64) -> Environment {
    let HostReport { host, allocators, unverified } = report;
    let said = allocators.iter().zip(&unverified);
    let facts = |(config, (facts, unverified)): (&Config, (&Vec<AllocatorFacts>, &Vec<String>))| {
        config.facts(facts, unverified)
    };
    Environment {
        schema: SCHEMA,
        harness: environment::harness(),
        host,
        plan: PlanFacts {
            seed: request.seed,
            blocks: request.sizes.blocks,
            latency_runs: request.sizes.latency_runs,
            footprint_runs: request.sizes.footprint_runs,
            idle_ms: request.idle_ms.clone(),
            quick: request.quick,
            started_unix_ms,
            budget: None,
        },
        configs: request
            .configs
            .iter()
            .zip(said)
            .filter(|(config, _)| prepared.is_measured(config))
            .map(facts)
            .collect(),
        workloads: prepared.workload_facts(),
    }
}
