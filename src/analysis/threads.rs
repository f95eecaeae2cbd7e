//! What the threads of a replay did: how many ran at a time, and how much of their time they waited.
//!
//! Invariant: of replays on one thread nothing is said.

use super::stats::median;
use crate::run::{Observation, Outcome, Run, ThreadUse};
use serde::Serialize;

/// Above this share of a latency pass in which no thread ran, hand-overs and not allocators made the times.
pub const STANDSTILL_MAX: f64 = 0.5;

/// Threads of one configuration on one workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThreadsAnalysis {
    /// Threads that were replayed, at once or one after another.
    pub threads: u32,
    /// Threads that ran at a time on average: CPU time over wall time, the median of the throughput runs.
    pub concurrency: f64,
    /// Share of the threads' lives spent waiting, 0 to 1, the median of the throughput runs.
    pub waiting: f64,
    /// Waits that put a thread to sleep, the median of the throughput runs.
    pub hand_overs: f64,
    /// Share of the latency runs in which no thread ran, 0 to 1; `None` without such runs.
    pub standstill: Option<f64>,
}

impl ThreadsAnalysis {
    /// Whether waiting dominates the latency runs, so that nothing is said of single calls.
    #[must_use]
    pub fn withholds_latency(&self) -> bool {
        self.standstill.is_some_and(|share| share > STANDSTILL_MAX)
    }
}

fn of_pass<'a>(runs: &'a [&'a Run], latency: bool) -> impl Iterator<Item = ThreadUse> {
    runs.iter().filter_map(move |run| match &run.outcome {
        Outcome::Ok(Observation::Throughput(seen)) if !latency => seen.threads,
        Outcome::Ok(Observation::Latency(seen)) if latency => seen.threads,
        _ => None,
    })
}

fn concurrency(threads: &ThreadUse) -> f64 {
    threads.busy_ns as f64 / threads.wall_ns.max(1) as f64
}

/// Threads of these runs; `None` when one thread replayed everything, or nothing was timed.
#[must_use]
pub fn threads(runs: &[&Run]) -> Option<ThreadsAnalysis> {
    let middle = |latency, of: fn(&ThreadUse) -> f64| median(of_pass(runs, latency).map(|threads| of(&threads)));
    let first = of_pass(runs, false).next()?;
    Some(ThreadsAnalysis {
        threads: first.threads,
        concurrency: middle(false, concurrency)?,
        waiting: middle(false, |threads| threads.waiting_ns as f64 / threads.alive_ns.max(1) as f64)?,
        hand_overs: middle(false, |threads| threads.hand_overs as f64)?,
        standstill: middle(true, concurrency).map(|running| (1.0 - running).max(0.0)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::run::{Latency, Mode, Pass, SealReport, Throughput};

    fn run(outcome: Observation) -> Run {
        Run {
            schema: 1,
            seq: 0,
            block: 0,
            workload: "w".into(),
            config: "c".into(),
            pass: Pass::Throughput,
            mode: Mode::Gil,
            padding_bytes: 0,
            started_unix_ms: 0,
            child_wall_ns: 0,
            outcome: Outcome::Ok(outcome),
        }
    }

    fn threads_of(busy_ns: u64, waiting_ns: u64) -> Option<ThreadUse> {
        Some(ThreadUse { threads: 4, busy_ns, waiting_ns, alive_ns: 400, wall_ns: 100, ..ThreadUse::default() })
    }

    #[test]
    fn waiting_that_dominates_withholds_latency_and_merged_runs_say_nothing() {
        let seal = SealReport::default();
        let speed =
            |threads| run(Observation::Throughput(Throughput { phases: vec![], failed_allocations: 0, threads, seal }));
        let calls = |threads| {
            let clock = crate::run::Histogram::default();
            run(Observation::Latency(Latency { ticks_per_second: 1, clock, cells: vec![], threads, seal }))
        };
        let of = |runs: &[Run]| threads(&runs.iter().collect::<Vec<_>>());
        assert_eq!(of(&[speed(None), calls(None)]), None);
        let good = of(&[
            speed(threads_of(150, 100)),
            speed(threads_of(130, 300)),
            speed(threads_of(140, 200)),
            calls(threads_of(120, 0)),
        ]);
        let good = good.unwrap();
        assert_eq!((good.threads, good.concurrency, good.waiting, good.standstill), (4, 1.4, 0.5, Some(0.0)));
        assert!(!good.withholds_latency());
        assert!(of(&[speed(threads_of(150, 100)), calls(threads_of(49, 0))]).unwrap().withholds_latency());
    }
}
