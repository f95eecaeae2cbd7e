//! One fresh child process: one job on its standard input, one observation on its standard output.
//!
//! The worker maps the image and its tables, seals itself, replays, unseals and reports. It decodes no trace.
//!
//! Invariant: until the replay is over nothing touches the C library's heap, neither the harness nor Rust's runtime;
//! both are checked, and a run that broke the seal is a failure and never an observation.

mod job;
mod seal;
mod threaded;

pub use job::*;
pub use seal::{HarnessAllocator, use_arena, use_system};

use crate::backend::{self, Backend, Directors, Need, Ready, Role};
use crate::heap::Entry;
use crate::probe::{clock, memory, sys, virtual_time};
use crate::replay::{
    Floor, FootprintPass, Heap, Holder, LatencyPass, OwnerLog, RecordedTime, Source, Streams, ThroughputPass,
};
use crate::run::{Footprint, Latency, Observation, Pass, SealReport, Throughput, Time};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use trace::{Directive, Domain};

/// What the C library's heap held before the first line of the worker: taken by the libraries' own constructors, such
/// as that of a jemalloc whose options ask for a thread of its own.
static BYTES_AT_START: AtomicU64 = AtomicU64::new(0);

/// How long a library's own thread is given to come up.
const LATE_THREADS_NS: u64 = 5_000_000;

/// What a worker prints when it has no observation.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// As in [`crate::run::Outcome::Failed`].
    pub stage: String,
    /// A sentence.
    pub reason: String,
}

/// The stage of a failure for want of memory or address space, about which the user can do something.
pub const MEMORY_STAGE: &str = "memory";

/// The stage of a failure for which a replay in real time is the remedy.
pub const TIME_STAGE: &str = "time";

/// The line that a failed worker prints.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Failed(Failure),
}

fn failure(stage: &str, reason: impl Display) -> Failure {
    Failure { stage: stage.to_owned(), reason: reason.to_string() }
}

/// Ends a worker that has no memory to begin with.
pub fn refuse(error: &std::io::Error) -> ! {
    // Nothing is measured in this process, so its answer may come from the C library's heap.
    use_system();
    let reason = format!("the worker cannot map the 1 GiB of address space that it uses itself: {error}");
    print(Err(failure(MEMORY_STAGE, reason)))
}

/// The `worker` verb: no argument for a job, `--facts KEY...` for what allocators say of themselves as a JSON array,
/// `--self-test KEY...` for the heap contract. Never returns to a caller that would run destructors.
pub fn main(arguments: &[&str]) -> ! {
    BYTES_AT_START.store(sys::libc_heap_bytes().unwrap_or(0), Relaxed);
    let printed = match arguments {
        [] => read_job().and_then(|job| run(&job)).and_then(|observation| json(&observation)),
        ["--facts", keys @ ..] => facts(keys),
        ["--self-test", keys @ ..] => self_test(keys),
        _ => {
            Err(failure("spawn", "the worker takes a job on its standard input, --facts KEY... or --self-test KEY..."))
        }
    };
    print(printed)
}

/// Prints the answer and ends the process.
fn print(printed: Result<String, Failure>) -> ! {
    let (line, code) = match printed {
        Ok(line) => (line, 0),
        Err(failed) => (json(&Line::Failed(failed)).unwrap_or_else(|failed| failed.reason), 1),
    };
    let written = sys::Descriptor(1).write_all(format!("{line}\n").as_bytes());
    sys::exit_now(if written.is_ok() { code } else { 1 })
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| failure("report", error))
}

fn read_job() -> Result<Job, Failure> {
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        match sys::Descriptor(0).read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(error) => return Err(failure("spawn", format!("the job cannot be read: {error}"))),
        }
    }
    serde_json::from_slice(&text).map_err(|error| failure("spawn", format!("the job is not understood: {error}")))
}

fn find(key: &str) -> Result<(&'static Backend, &str), Failure> {
    let known = || backend::ALL.iter().map(|b| b.key).collect::<Vec<_>>().join(", ");
    backend::find(key)
        .ok_or_else(|| failure("spawn", format!("no allocator is called '{key}'; use one of: {}", known())))
}

fn facts(keys: &[&str]) -> Result<String, Failure> {
    let of = |key: &&str| {
        let (backend, argument) = find(key)?;
        backend.facts(argument).map_err(|reason| failure("spawn", reason))
    };
    json(&keys.iter().map(of).collect::<Result<Vec<_>, _>>()?)
}

/// Checks the heap contract of backends; the first broken promise fails.
fn self_test(keys: &[&str]) -> Result<String, Failure> {
    let mut lines = Vec::new();
    for key in keys {
        let (backend, argument) = find(key)?;
        backend.check(argument).map_err(|broken| failure("replay", format!("{key}: {broken}")))?;
        lines.push(format!("{key} keeps the heap contract"));
    }
    Ok(lines.join("\n"))
}

/// Does one job, in this process and on this thread.
///
/// # Errors
/// The stage that failed, and why.
pub fn run(job: &Job) -> Result<Observation, Failure> {
    if cfg!(debug_assertions) && !job.allow_debug {
        return Err(failure("spawn", "a debug build measures nothing; build with --release"));
    }
    let mut source = map_image(job)?;
    let distinct = distinct(&job.backends)?;
    let calls_nothing = distinct.iter().any(|(backend, _)| backend.key == backend::LOOP_KEY);
    if calls_nothing && (distinct.len() > 1 || job.pass != Pass::Throughput) {
        return Err(failure("spawn", "'loop' serves every domain or none, and only the throughput pass"));
    }
    let is_floor = distinct.iter().any(|(backend, _)| backend.role == Role::Floor);
    let block_bytes_max = if is_floor { source.block_bytes_max() } else { 0 };
    let Prepared { entries, ready, is_alone, directors, libc_bytes } =
        prepare(&distinct, &job.backends, block_bytes_max)?;
    if job.pass == Pass::Footprint && job.time == Time::Virtual {
        check_virtual(&ready)?;
    }
    let slots = if let ImageSource::Streams { slots, .. } = job.source { slots } else { job.image.slots };
    let mut heap = Heap::new(entries, slots)
        .map_err(|e| failure(MEMORY_STAGE, format!("the table of {slots} slots cannot be mapped: {e}")))?;
    heap.steer(Box::leak(Box::new(directors))); // a worker ends with its one replay
    if let Source::Streams(streams) = &mut source {
        if job.pass != Pass::Footprint {
            heap.guard(threaded::guarded(job, is_alone));
        }
        let streams = std::mem::take(streams);
        return match job.pass {
            Pass::Throughput => threaded::throughput(job, streams, &heap, libc_bytes, calls_nothing),
            Pass::Latency => threaded::latency(job, streams, &heap, libc_bytes),
            Pass::Footprint => {
                threaded::footprint(job, streams, &heap, libc_bytes, footprint_pass(job, ready, &distinct)?)
            }
        };
    }
    match job.pass {
        Pass::Throughput => throughput(job, &source, heap, libc_bytes, calls_nothing),
        Pass::Latency => latency(job, &source, heap, libc_bytes),
        Pass::Footprint => {
            let pass = &mut footprint_pass(job, ready, &distinct)?;
            footprint(&source, heap, libc_bytes, job.shift_bytes, pass)
        }
    }
}

/// Whether virtual time reaches all that the allocators do: known before the first call.
fn check_virtual(ready: &[Ready]) -> Result<(), Failure> {
    if !virtual_time::is_exported() {
        return Err(failure(TIME_STAGE, "this build does not export clock_gettime; please report this"));
    }
    if let Some(reason) = ready.iter().find_map(|ready| ready.real_time) {
        return Err(failure(TIME_STAGE, reason));
    }
    match sys::threads() {
        Some(threads) if threads > 1 => {
            Err(failure(TIME_STAGE, format!("the allocators have started {} threads of their own", threads - 1)))
        }
        _ => Ok(()),
    }
}

/// The backends behind these keys, each once with each of its arguments.
fn distinct(keys: &[String]) -> Result<Vec<(&'static Backend, &str)>, Failure> {
    let mut distinct: Vec<(&'static Backend, &str)> = Vec::with_capacity(keys.len());
    for key in keys {
        let found = find(key)?;
        if !distinct.iter().any(|(backend, argument)| (backend.key, *argument) == (found.0.key, found.1)) {
            distinct.push(found);
        }
    }
    Ok(distinct)
}

/// What preparing the backends gave.
struct Prepared {
    /// By domain.
    entries: [Entry; 6],
    /// Each once.
    ready: Vec<Ready>,
    /// By domain: whether its allocator serves one thread at a time.
    is_alone: [bool; 6],
    /// Who carries out the program's directives.
    directors: Directors,
    /// What they brought into the C library's heap, from before `main` on, bytes.
    libc_bytes: u64,
}

/// Prepares each backend once. What it brings into the C library's heap is measured around that and nothing else.
fn prepare(
    distinct: &[(&'static Backend, &str)],
    keys: &[String; 6],
    block_bytes_max: u64,
) -> Result<Prepared, Failure> {
    let mut libc_bytes = BYTES_AT_START.load(Relaxed);
    let mut ready: Vec<Ready> = Vec::with_capacity(distinct.len());
    for (backend, argument) in distinct {
        let need = Need { block_bytes_max, argument: (*argument).to_owned() };
        let before = libc_heap_bytes()?;
        ready.push((backend.prepare)(&need).map_err(|reason| failure("spawn", reason))?);
        libc_bytes += libc_heap_bytes()?.saturating_sub(before);
    }
    if libc_bytes > BYTES_AT_START.load(Relaxed) {
        libc_bytes += bytes_of_late_threads()?;
    }
    let serving = keys.each_ref().map(|key| {
        let is_it = |(backend, argument): &(&Backend, &str)| {
            backend::find(key).is_some_and(|found| (found.0.key, found.1) == (backend.key, *argument))
        };
        &ready[distinct.iter().position(is_it).unwrap_or(0)]
    });
    let entries = Domain::ALL.map(|domain| serving[domain as usize].entry_for(domain));
    let is_alone = serving.map(|ready| ready.one_thread_at_a_time);
    let directors = Directors::of(&ready, serving[Domain::Arrow as usize]);
    Ok(Prepared { entries, ready, is_alone, directors, libc_bytes })
}

/// What a library's own thread takes from the C library while it comes up, such as jemalloc's in a wheel of Arrow's:
/// it was started while the library was prepared, and may get to run only now.
fn bytes_of_late_threads() -> Result<u64, Failure> {
    let before = libc_heap_bytes()?;
    sys::sleep_until_ns(clock::now_ns() + LATE_THREADS_NS);
    Ok(libc_heap_bytes()?.saturating_sub(before))
}

fn libc_heap_bytes() -> Result<u64, Failure> {
    sys::libc_heap_bytes()
        .ok_or_else(|| failure("seal", "this C library cannot say what its heap holds; measure on glibc"))
}

fn map_image(job: &Job) -> Result<Source, Failure> {
    let map = |fd: i32, ops: u64| {
        sys::Mapping::file(sys::Descriptor(fd), ops as usize * 8).map_err(|error| {
            let is_short = error.kind() == std::io::ErrorKind::UnexpectedEof;
            let stage = if is_short { "image" } else { MEMORY_STAGE };
            failure(stage, format!("the image of {ops} ops cannot be mapped: {error}"))
        })
    };
    Ok(match job.source {
        ImageSource::Streams { fd, ref ops, lanes, .. } => {
            let memory = map(fd, ops.iter().sum())?;
            let mut from = 0;
            let streams = ops.iter().map(|ops| {
                from += *ops as usize;
                memory.words(from - *ops as usize, *ops as usize)
            });
            Source::Streams(Streams { ops: streams.collect(), lanes })
        }
        ImageSource::Whole { fd } => {
            let ops = job.image.ops;
            Source::Whole(map(fd, ops)?.words(0, ops as usize))
        }
        ImageSource::Windows { fd, window_ops, ready_fd, done_fd } => Source::Windows {
            memory: map(fd, window_ops * 2)?,
            window_ops,
            ready: sys::Descriptor(ready_fd),
            done: sys::Descriptor(done_fd),
        },
    })
}

/// The last thing before the replay: reads the C library's heap, takes the memory reading that others are relative
/// to, and seals. `libc_bytes_prepared` is what the backends brought into that heap.
fn seal_worker(reader: &memory::Reader, libc_bytes_prepared: u64) -> Result<SealReport, Failure> {
    sys::make_stack_present();
    let libc_bytes_before = libc_heap_bytes()?;
    let before = reader.read().map_err(|e| failure("seal", format!("memory cannot be read exactly: {e}")))?;
    seal::seal();
    let rss_anon_bytes_before = before.anonymous_bytes;
    Ok(SealReport { harness_allocations: 0, libc_bytes_before, libc_bytes_prepared, rss_anon_bytes_before })
}

/// Unseals, and fails the run when it was not sealed after all.
fn unseal_worker(report: SealReport) -> Result<SealReport, Failure> {
    let harness_allocations = seal::unseal();
    if harness_allocations > 0 {
        let text =
            format!("the harness allocated {harness_allocations} times during the replay; this is its own fault");
        return Err(failure("seal", text));
    }
    if report.libc_bytes_before != report.libc_bytes_prepared {
        let SealReport { libc_bytes_before: held, libc_bytes_prepared: prepared, .. } = report;
        let text = format!(
            "the C library's heap held {held} bytes before the replay, of which the allocators account for {prepared}; \
             please report this"
        );
        return Err(failure("seal", text));
    }
    Ok(report)
}

fn reader() -> Result<memory::Reader, Failure> {
    memory::Reader::open().map_err(|e| failure("seal", format!("memory cannot be read exactly: {e}")))
}

fn replay_failed(error: std::io::Error) -> Failure {
    failure("replay", format!("the process that makes the image is gone: {error}"))
}

fn throughput(
    job: &Job,
    source: &Source,
    mut heap: Heap,
    libc_bytes: u64,
    calls_nothing: bool,
) -> Result<Observation, Failure> {
    let sealed = seal_worker(&reader()?, libc_bytes)?;
    let pass = if calls_nothing {
        let mut floor = Floor(ThroughputPass::start());
        source.replay(&mut heap, &mut floor).map_err(replay_failed)?;
        floor.0
    } else {
        let mut pass = ThroughputPass::start();
        source.replay(&mut heap, &mut pass).map_err(replay_failed)?;
        pass
    };
    let seal = unseal_worker(sealed)?;
    let phases = pass.costs(&job.image);
    Ok(Observation::Throughput(Throughput { phases, failed_allocations: heap.failed, threads: None, seal }))
}

fn latency(job: &Job, source: &Source, mut heap: Heap, libc_bytes: u64) -> Result<Observation, Failure> {
    let mut pass = LatencyPass::new(&job.image).map_err(|e| failure("seal", format!("no histogram tables: {e}")))?;
    let sealed = seal_worker(&reader()?, libc_bytes)?;
    let rate = clock::Rate::start();
    pass.time_the_clock();
    source.replay(&mut heap, &mut pass).map_err(replay_failed)?;
    let ticks_per_second = rate.ticks_per_second();
    let seal = unseal_worker(sealed)?;
    Ok(Observation::Latency(Latency {
        ticks_per_second,
        clock: pass.clock(),
        cells: pass.cells(),
        threads: None,
        seal,
    }))
}

/// Who may be asked what they hold: each allocator of the job, and the process's `malloc` in any case.
fn owner_log(job: &Job, mut ready: Vec<Ready>, distinct: &[(&'static Backend, &str)]) -> (Vec<Ready>, OwnerLog) {
    let key = |(backend, argument): &(&Backend, &str)| match *argument {
        "" => backend.key.to_owned(),
        argument => format!("{}:{argument}", backend.key),
    };
    let keys: Vec<String> = distinct.iter().map(key).map(|key| backend::behind(&key).to_owned()).collect();
    let own_bytes_max: Vec<Option<u64>> = ready.iter().map(|ready| ready.own_bytes_max).collect();
    let mut holders: Vec<Holder> = Vec::new();
    for (at, (key, ready)) in keys.iter().zip(&mut ready).enumerate() {
        // Who also stands behind a cache is asked once.
        if !keys[..at].contains(key) {
            holders.push(Holder { key: backend::shown_key(key), holds: ready.holds.take() });
        }
    }
    if !keys.iter().any(|key| key == backend::LIBC_KEY) {
        holders.push(Holder { key: backend::LIBC_KEY.to_owned(), holds: backend::libc_holds() });
    }
    let served_by = |domain: trace::Domain, small: bool| {
        let key = backend::behind(&job.backends[domain as usize]);
        let own = keys.iter().position(|own| own == key).and_then(|at| own_bytes_max[at]);
        if own.is_some_and(|most| most == 0 || !small) { backend::LIBC_KEY.to_owned() } else { backend::shown_key(key) }
    };
    let log = OwnerLog::new(holders, served_by);
    (ready, log)
}

fn footprint(
    source: &Source,
    mut heap: Heap,
    libc_bytes: u64,
    shift_bytes: u32,
    pass: &mut FootprintPass,
) -> Result<Observation, Failure> {
    let mut sealed = seal_worker(&reader()?, libc_bytes)?;
    sealed.rss_anon_bytes_before = pass.start().anonymous_bytes;
    heap.shift(Domain::Libc, shift_bytes as usize);
    source.replay(&mut heap, pass).map_err(replay_failed)?;
    let seal = unseal_worker(sealed)?;
    footprint_of(pass, heap.failed, heap.unreplayed, seal)
}

fn footprint_pass(
    job: &Job,
    ready: Vec<Ready>,
    distinct: &[(&'static Backend, &str)],
) -> Result<FootprintPass, Failure> {
    let (mut ready, owners) = owner_log(job, ready, distinct);
    let pools = ready.iter_mut().find_map(|ready| ready.pools.take());
    let release = ready.into_iter().map(|ready| ready.release).collect();
    FootprintPass::new(&job.image, job.points, job.idle_ms.clone(), release, pools, owners, recorded_time(job)?)
        .map_err(|error| failure("seal", format!("memory cannot be read exactly: {error}")))
}

fn recorded_time(job: &Job) -> Result<RecordedTime, Failure> {
    let moments = match job.moments.filter(|_| job.time != Time::None) {
        None => &[][..],
        Some(MomentsSource { fd, pairs }) => {
            let words = pairs as usize * 2;
            sys::Mapping::file(sys::Descriptor(fd), words * 8)
                .map_err(|error| failure(MEMORY_STAGE, format!("{pairs} moments cannot be mapped: {error}")))?
                .words(0, words)
        }
    };
    let threads = if let ImageSource::Streams { lanes, .. } = job.source { lanes.max(1) } else { 1 };
    Ok(RecordedTime::new(job.time, job.pace, moments, threads))
}

fn footprint_of(
    pass: &mut FootprintPass,
    failed: u64,
    unreplayed: [u64; Directive::ALL.len()],
    seal: SealReport,
) -> Result<Observation, Failure> {
    if let Some(error) = pass.failure() {
        return Err(failure("replay", format!("memory could not be read exactly: {error}")));
    }
    if let Some(threads) = pass.time.strangers() {
        return Err(failure(TIME_STAGE, format!("an allocator has started a thread: {threads} threads ran")));
    }
    let pools = pass.pools().map(Box::new);
    let (owners, read) = (pass.owners(), std::mem::take(&mut pass.read));
    Ok(Observation::Footprint(Box::new(Footprint {
        curve: read.curve,
        at_phase: read.at_phase,
        peak: read.peak,
        end: read.end,
        rest_from: read.rest_from.to_owned(),
        rest: read.rest,
        faults_minor: read.faults_minor,
        high_water_bytes: read.high_water_bytes,
        pools,
        cycles: read.cycles,
        at_marks: read.at_marks,
        owners,
        time: Some(pass.time.kind()),
        failed_allocations: failed,
        unreplayed: Directive::ALL
            .into_iter()
            .zip(unreplayed)
            .filter(|(_, calls)| *calls > 0)
            .map(|(directive, calls)| (directive.name().to_owned(), calls))
            .collect(),
        seal,
    })))
}
