//! One worker: its job, its start, and what its end means.
//!
//! Invariant: whatever becomes of a worker is one [`Outcome`]; an observation is accepted only if the worker's own
//! checks say that nothing of the harness was in the measured heap.

use super::config::Config;
use super::image::Image;
use super::plan::Cell;
use super::spawn::{ChildSpec, Ending, Finished, Running, ended_by, remedy};
use crate::run::{Observation, Outcome, Pass, Run, SCHEMA, SealReport, Time};
use crate::worker::{Job, MEMORY_STAGE};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The hidden verb of the process that measures.
pub const WORKER_VERB: &str = "worker";
/// Memory readings over a trace, besides those at new peaks.
const POINTS: u32 = 256;
/// What a worker may take besides its calls and its idle time.
const TIMEOUT_BASE: Duration = Duration::from_secs(60);
/// Blocks are aligned to so many bytes.
const SHIFT_STEP_BYTES: u32 = 16;
/// How long a compiler may take to be gone after its worker failed.
const COMPILER_GRACE: Duration = Duration::from_secs(1);
/// What a call may take at most on average; a hundred times what is usual.
const TIMEOUT_NS_PER_CALL: u64 = 2_000;

/// Settings that all workers of a run share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Idle delays at which rest is read, milliseconds, ascending.
    pub idle_ms: Vec<u64>,
    /// Which time the allocators of footprint passes meet, where the moments of the trace are known.
    pub time: Time,
    /// How many times faster than recorded [`Time::Real`] passes.
    pub pace: u32,
    /// Most time that one replay may wait for recorded gaps.
    pub pace_limit: Duration,
    /// Whether a debug build may run.
    pub allow_debug: bool,
}

impl Settings {
    /// Which time the allocators meet in replays of an image for its footprint.
    #[must_use]
    pub fn time_of(&self, image: &Image) -> Time {
        if image.has_moments() { self.time } else { Time::None }
    }

    /// How long such a replay waits for recorded gaps.
    #[must_use]
    pub fn wait_for(&self, image: &Image) -> Duration {
        match self.time_of(image) {
            Time::Real => Duration::from_nanos(image.compiled.recorded_ns / u64::from(self.pace.max(1))),
            Time::Virtual | Time::None => Duration::ZERO,
        }
    }
}

/// A worker that was started.
#[derive(Debug)]
pub struct Worker {
    running: Running,
    /// Fills the windows of a large image.
    compiler: Option<Running>,
    pass: Pass,
    timeout: Duration,
    started_unix_ms: u64,
}

/// What a worker left.
#[derive(Debug)]
pub struct Measured {
    /// What came of it.
    pub outcome: Outcome,
    /// Milliseconds since the epoch when it was started.
    pub started_unix_ms: u64,
    /// Its whole life, nanoseconds.
    pub wall_ns: u64,
}

impl Measured {
    /// The line of `runs.jsonl`.
    #[must_use]
    pub fn into_run(self, seq: u32, cell: &Cell, image: &Image, config: &Config) -> Run {
        Run {
            schema: SCHEMA,
            seq,
            block: cell.block,
            workload: image.workload.name.clone(),
            config: config.name.clone(),
            pass: cell.pass,
            mode: image.compiled.mode,
            padding_bytes: cell.padding_bytes,
            started_unix_ms: self.started_unix_ms,
            child_wall_ns: self.wall_ns,
            outcome: self.outcome,
        }
    }

    /// Of a child that was not started.
    pub(super) fn failed(stage: &str, reason: String) -> Self {
        Self::failed_at(stage, reason, unix_ms(), 0)
    }

    fn failed_at(stage: &str, reason: String, started_unix_ms: u64, wall_ns: u64) -> Self {
        Self { outcome: Outcome::Failed { stage: stage.to_owned(), reason }, started_unix_ms, wall_ns }
    }
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// The failed measurement when there is no process to wait for.
    pub fn start(
        exe: &Path,
        image: &Image,
        config: &Config,
        cell: &Cell,
        settings: &Settings,
    ) -> Result<Self, Box<Measured>> {
        let Cell { pass, padding_bytes, .. } = *cell;
        let started_unix_ms = unix_ms();
        let fail = |stage: &str, reason: String| Box::new(Measured::failed_at(stage, reason, started_unix_ms, 0));
        let feed = image.feed(exe, pass).map_err(|reason| fail("image", reason))?;
        let job = Job {
            pass,
            mode: image.compiled.mode,
            backends: config.backends_on(&image.compiled.metadata),
            image: image.compiled.summary.clone(),
            source: feed.source.clone(),
            idle_ms: settings.idle_ms.clone(),
            points: POINTS,
            time: settings.time_of(image),
            pace: settings.pace,
            shift_bytes: shift_bytes(cell),
            moments: feed.moments,
            allow_debug: settings.allow_debug,
        };
        let input = serde_json::to_vec(&job).map_err(|e| fail("spawn", format!("The job is no JSON: {e}.")))?;
        let inherit = feed.inherit();
        let spec = ChildSpec {
            exe,
            arguments: &[WORKER_VERB],
            input: &input,
            padding_bytes,
            variables: &config.variables,
            inherit: &inherit,
        };
        let started = Running::start(&spec);
        let compiler = feed.hand_over();
        match started {
            Ok(running) => {
                let timeout = timeout(image, pass, settings);
                Ok(Self { running, compiler, pass, timeout, started_unix_ms })
            }
            Err(e) => {
                let _ = compiler.and_then(Running::kill);
                Err(fail("spawn", format!("The worker cannot be started: {e}. Free memory or raise the limits.")))
            }
        }
    }

    /// The worker's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(self) -> Measured {
        let finished = self.running.wait(self.timeout);
        let came = finished.map(|finished| (outcome(self.pass, &finished, self.timeout), finished.wall_ns));
        // With the worker gone nobody reads the windows that it fills, unless its own end was the reason.
        let grace = if matches!(came, Ok((Outcome::Failed { .. }, _))) { COMPILER_GRACE } else { Duration::ZERO };
        let compiler = self.compiler.and_then(|compiler| compiler.kill_after(grace));
        match came {
            Ok((outcome, wall_ns)) => {
                Measured { outcome: without_image(outcome, compiler), started_unix_ms: self.started_unix_ms, wall_ns }
            }
            Err(e) => Measured::failed_at("spawn", format!("The worker was lost: {e}."), self.started_unix_ms, 0),
        }
    }
}

fn timeout(image: &Image, pass: Pass, settings: &Settings) -> Duration {
    let calls: u64 = image.compiled.summary.calls_by_phase.iter().sum();
    let is_footprint = pass == Pass::Footprint;
    let idle = if is_footprint { settings.idle_ms.last().copied().unwrap_or(0) } else { 0 };
    let waited = if is_footprint { settings.wait_for(image) } else { Duration::ZERO };
    TIMEOUT_BASE
        .saturating_add(Duration::from_nanos(calls.saturating_mul(TIMEOUT_NS_PER_CALL)))
        .saturating_add(Duration::from_millis(idle))
        .saturating_add(waited)
}

/// How far the heap of a footprint child begins into its first two OS pages: 0, 4096, 2048, 6144, 1024, and so on by
/// the bits of its repetition in reverse order. The same for every configuration, so that comparisons stay paired.
fn shift_bytes(cell: &Cell) -> u32 {
    const STEPS_LOG2: u32 = 9;
    match cell.pass {
        Pass::Footprint => (cell.block.reverse_bits() >> (u32::BITS - STEPS_LOG2)) * SHIFT_STEP_BYTES,
        Pass::Throughput | Pass::Latency => 0,
    }
}

/// Milliseconds since the epoch.
#[must_use]
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// What a worker's end means. A worker that fails prints [`Outcome::Failed`] and ends with a code above 0.
fn outcome(pass: Pass, finished: &Finished, timeout: Duration) -> Outcome {
    let failed = |stage: &str, reason: String| Outcome::Failed { stage: stage.to_owned(), reason };
    match finished.ending {
        Ending::Exited(0) => match serde_json::from_slice::<Observation>(&finished.output) {
            Ok(observation) => accept(pass, observation).unwrap_or_else(|(stage, reason)| failed(stage, reason)),
            Err(e) => failed("report", format!("The worker's answer is no observation: {e}. Please report this.")),
        },
        Ending::Exited(code) => match serde_json::from_slice::<Outcome>(&finished.output) {
            Ok(Outcome::Failed { stage, reason }) if stage == MEMORY_STAGE => {
                failed(&stage, format!("{}. {}", capital(&reason), remedy("Free memory, or raise the limits on it.")))
            }
            Ok(said) => said,
            Err(_) => {
                let word = finished.errors.lines().last().unwrap_or("It left no word.").trim();
                failed("replay", format!("The worker ended with code {code}: {word} {}", remedy(REPORT)))
            }
        },
        Ending::Signalled(signal) => failed("replay", format!("The worker {}", ended_by(signal))),
        Ending::TimedOut => failed(
            "timeout",
            format!("The worker gave no answer in {} s and was ended. Is the machine overloaded?", timeout.as_secs()),
        ),
    }
}

/// A worker fails when the process that streams its image was killed; then that is the reason.
fn without_image(outcome: Outcome, compiler: Option<Ending>) -> Outcome {
    match (&outcome, compiler) {
        (Outcome::Failed { .. }, Some(Ending::Signalled(signal))) => Outcome::Failed {
            stage: "image".to_owned(),
            reason: format!("The process that streams the trace {}", ended_by(signal)),
        },
        _ => outcome,
    }
}

const REPORT: &str = "Please report this.";

/// The text with a capital letter.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// An observation, if it is of the right kind and nothing of the harness was in the measured heap.
fn accept(pass: Pass, observation: Observation) -> Result<Outcome, (&'static str, String)> {
    let (kind, seal) = match &observation {
        Observation::Throughput(o) => (Pass::Throughput, o.seal),
        Observation::Latency(o) => (Pass::Latency, o.seal),
        Observation::Footprint(o) => (Pass::Footprint, o.seal),
    };
    if kind != pass {
        return Err(("report", format!("The worker measured {kind:?} instead of {pass:?}. Please report this.")));
    }
    let SealReport { harness_allocations, libc_bytes_before, libc_bytes_prepared, .. } = seal;
    if harness_allocations != 0 || libc_bytes_before != libc_bytes_prepared {
        return Err((
            "seal",
            format!(
                "The harness was in the measured heap: {harness_allocations} allocations of its own, \
                 {libc_bytes_before} bytes in the C library's heap before the seal, {libc_bytes_prepared} of them an \
                 allocator's. Please report this."
            ),
        ));
    }
    Ok(Outcome::Ok(observation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::run::Throughput;

    fn finished(ending: Ending, output: &str, errors: &str) -> Finished {
        Finished { ending, output: output.into(), errors: errors.into(), wall_ns: 1 }
    }

    fn answer(seal: SealReport) -> String {
        let throughput = Throughput { phases: vec![], failed_allocations: 0, threads: None, seal };
        serde_json::to_string(&Observation::Throughput(throughput)).unwrap()
    }

    fn failure(pass: Pass, finished: &Finished) -> (String, String) {
        match outcome(pass, finished, Duration::from_secs(9)) {
            Outcome::Failed { stage, reason } => (stage, reason),
            Outcome::Ok(o) => panic!("accepted {o:?}"),
        }
    }

    #[test]
    fn a_clean_answer_is_accepted_and_an_unclean_one_is_not() {
        let clean = finished(Ending::Exited(0), &answer(SealReport::default()), "");
        assert!(matches!(outcome(Pass::Throughput, &clean, Duration::ZERO), Outcome::Ok(_)));
        assert_eq!(failure(Pass::Latency, &clean).0, "report");
        let prepared = SealReport { libc_bytes_before: 3000, libc_bytes_prepared: 3000, ..SealReport::default() };
        let prepared = finished(Ending::Exited(0), &answer(prepared), "");
        assert!(matches!(outcome(Pass::Throughput, &prepared, Duration::ZERO), Outcome::Ok(_)));
        for seal in [
            SealReport { harness_allocations: 1, ..SealReport::default() },
            SealReport { libc_bytes_before: 1, ..SealReport::default() },
            SealReport { libc_bytes_before: 3001, libc_bytes_prepared: 3000, ..SealReport::default() },
        ] {
            assert_eq!(failure(Pass::Throughput, &finished(Ending::Exited(0), &answer(seal), "")).0, "seal");
        }
    }

    #[test]
    fn footprints_begin_at_different_places_and_all_configurations_at_the_same() {
        let cell = |pass, block, config| Cell { workload: 0, config, pass, block, padding_bytes: 0 };
        let shifts: Vec<u32> = (0..6).map(|block| shift_bytes(&cell(Pass::Footprint, block, 1))).collect();
        assert_eq!(shifts, [0, 4096, 2048, 6144, 1024, 5120]);
        assert_eq!(shift_bytes(&cell(Pass::Footprint, 511, 0)), 8192 - SHIFT_STEP_BYTES);
        assert_eq!(shift_bytes(&cell(Pass::Throughput, 3, 0)), 0);
        assert_eq!(shift_bytes(&cell(Pass::Footprint, 3, 0)), shift_bytes(&cell(Pass::Footprint, 3, 7)));
    }

    #[test]
    fn a_killed_compiler_is_the_reason_of_its_workers_failure() {
        let failed = || Outcome::Failed { stage: "replay".into(), reason: "SIGPIPE".into() };
        let Outcome::Failed { stage, reason } = without_image(failed(), Some(Ending::Signalled(9))) else { panic!() };
        assert_eq!(stage, "image");
        assert!(reason.contains("SIGKILL") && !reason.contains("SIGPIPE"), "{reason}");
        for ending in [None, Some(Ending::Exited(2))] {
            assert_eq!(without_image(failed(), ending), failed());
        }
    }

    #[test]
    fn every_other_end_is_a_failure_with_its_stage() {
        for (ending, output, errors, stage, word) in [
            (Ending::Exited(0), "nonsense", "", "report", "no observation"),
            (Ending::Exited(1), r#"{"failed":{"stage":"seal","reason":"Touched."}}"#, "", "seal", "Touched."),
            (Ending::Exited(101), "", "thread panicked\nnote: x", "replay", "101: note: x"),
            (Ending::Exited(4), "", "", "replay", "no word"),
            (Ending::Signalled(9), "", "", "replay", "memory"),
            (Ending::Signalled(11), "", "", "replay", "SIGSEGV"),
            (Ending::TimedOut, "", "", "timeout", "9 s"),
        ] {
            let (got, reason) = failure(Pass::Throughput, &finished(ending, output, errors));
            assert_eq!(got, stage, "{reason}");
            assert!(reason.contains(word), "{reason}");
        }
    }
}
