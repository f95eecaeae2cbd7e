//! The passes over an image whose threads are replayed as threads.
//!
//! Invariant: as in the merged replay, each pass has a process of its own, and the seal is around all of its threads.

use super::{Failure, failure, reader, seal_worker, unseal_worker};
use crate::probe::clock;
use crate::replay::{Baton, Crew, Floor, FootprintPass, Heap, LatencyPass, Pass, Streams, ThroughputPass};
use crate::run::{Latency, Mode, Observation, Throughput};
use crate::worker::Job;
use std::io;
use std::sync::Mutex;
use trace::Domain;

/// Domains that are served by an allocator which two threads may not be in at once, where the mode's order does not
/// already keep them apart. `is_alone` tells by domain.
pub(super) fn guarded(job: &Job, is_alone: [bool; 6]) -> impl Iterator<Item = Domain> {
    let is_python = |domain: Domain| matches!(domain, Domain::Mem | Domain::Obj);
    // One domain outside of the order is enough for all of them to need the token.
    let ordered = Domain::ALL.into_iter().all(|domain| !is_alone[domain as usize] || is_python(domain));
    let needed = job.mode == Mode::Free || !ordered;
    Domain::ALL.into_iter().filter(move |domain| needed && is_alone[*domain as usize])
}

fn unmade(error: io::Error) -> Failure {
    failure("image", format!("no memory for threads: {error}; free some, or use --threads merged"))
}

fn unstarted(error: io::Error) -> Failure {
    failure(
        "replay",
        format!("a thread cannot be started: {error}; raise the limit on threads, or use --threads merged"),
    )
}

/// Threads that share a pass.
fn sharing<P: Pass + Send>(
    streams: Streams,
    heap: &Heap,
    pass: &'static Mutex<P>,
) -> Result<&'static Crew<Baton<P>>, Failure> {
    Crew::new(streams, heap, || Ok(Baton(pass))).map_err(unmade)
}

fn leak<P>(pass: P) -> &'static Mutex<P> {
    Box::leak(Box::new(Mutex::new(pass)))
}

/// Throughput, of the floor at which nothing is called too.
pub(super) fn throughput(
    job: &Job,
    streams: Streams,
    heap: &Heap,
    libc_bytes: u64,
    calls_nothing: bool,
) -> Result<Observation, Failure> {
    if calls_nothing {
        let floor = leak(Floor(ThroughputPass::start()));
        let restart = |floor: &mut Floor| floor.0 = ThroughputPass::start();
        timed(job, sharing(streams, heap, floor)?, libc_bytes, restart, |floor| floor.0.costs(&job.image))
    } else {
        let pass = leak(ThroughputPass::start());
        let restart = |pass: &mut ThroughputPass| *pass = ThroughputPass::start();
        timed(job, sharing(streams, heap, pass)?, libc_bytes, restart, |pass| pass.costs(&job.image))
    }
}

fn timed<P: Pass + Send>(
    job: &Job,
    crew: &'static Crew<Baton<P>>,
    libc_bytes: u64,
    restart: impl FnOnce(&mut P),
    costs: impl FnOnce(&P) -> Vec<crate::run::PhaseCost>,
) -> Result<Observation, Failure> {
    let sealed = seal_worker(&reader()?, libc_bytes)?;
    let begun = clock::now_ns();
    crew.with_first(|baton, _| restart(&mut baton.take()));
    let ran = crew.run();
    crew.with_first(|baton, heap| baton.take().finish(job.image.ops, heap));
    let wall_ns = clock::now_ns() - begun;
    let seal = unseal_worker(sealed)?;
    ran.map_err(unstarted)?;
    let phases = crew.with_first(|baton, _| costs(&baton.take()));
    let (failed_allocations, threads) = (crew.failed(), Some(crew.usage(wall_ns)));
    Ok(Observation::Throughput(Throughput { phases, failed_allocations, threads, seal }))
}

/// Latency: every thread notes its own calls.
pub(super) fn latency(job: &Job, streams: Streams, heap: &Heap, libc_bytes: u64) -> Result<Observation, Failure> {
    let crew = Crew::new(streams, heap, || LatencyPass::new(&job.image)).map_err(unmade)?;
    let mut all = LatencyPass::new(&job.image).map_err(unmade)?;
    let sealed = seal_worker(&reader()?, libc_bytes)?;
    let rate = clock::Rate::start();
    all.time_the_clock();
    let begun = clock::now_ns();
    let ran = crew.run();
    let wall_ns = clock::now_ns() - begun;
    let ticks_per_second = rate.ticks_per_second();
    let seal = unseal_worker(sealed)?;
    ran.map_err(unstarted)?;
    crew.each_pass(|pass| all.add(pass));
    let threads = Some(crew.usage(wall_ns));
    Ok(Observation::Latency(Latency { ticks_per_second, clock: all.clock(), cells: all.cells(), threads, seal }))
}

/// Footprint, of streams in the total order: one thread runs at a time, so that the pass needs to know of none.
pub(super) fn footprint(
    job: &Job,
    streams: Streams,
    heap: &Heap,
    libc_bytes: u64,
    pass: FootprintPass,
) -> Result<Observation, Failure> {
    let statistics = pass.statistics();
    let crew = sharing(streams, heap, leak(pass))?;
    crew.serve(statistics);
    let mut sealed = seal_worker(&reader()?, libc_bytes)?;
    sealed.rss_anon_bytes_before = crew.with_first(|baton, heap| {
        let before = baton.take().start().anonymous_bytes;
        heap.shift(Domain::Libc, job.shift_bytes as usize);
        before
    });
    let ran = crew.run();
    crew.with_first(|baton, heap| baton.take().finish(job.image.ops, heap));
    let seal = unseal_worker(sealed)?;
    ran.map_err(unstarted)?;
    let mut pass: std::sync::MutexGuard<'_, FootprintPass> = crew.with_first(|baton, _| baton.take());
    super::footprint_of(&mut pass, crew.failed(), crew.unreplayed(), seal)
}
