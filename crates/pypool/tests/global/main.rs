//! A program on the pools: this one. Threads under stress, threads that come and go, collections, forks.
//!
//! `cargo test -p pypool --test global -- NAME` runs the scenarios whose names contain NAME, `--list` names them.
//! `PYPOOL_STRESS_PERCENT`, 5 to 100, shortens those that say so, for tools that slow a program down.
//!
//! **Invariant:** scenarios run one after the other in a process that does nothing else, and after each of them as many
//! blocks are in use as before.
#![allow(clippy::unwrap_used, reason = "tests")]

mod collections;
mod fork;
mod parcel;
mod routes;
#[path = "../it/shadow.rs"]
mod shadow;
mod stress;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

use pypool::{GlobalPool, Price};

#[global_allocator]
static POOL: GlobalPool = GlobalPool::new();

const SCENARIOS: &[(&str, fn())] = &[
    ("every_size_and_alignment_goes_where_it_came_from", routes::every_size_and_alignment),
    ("reallocation_keeps_the_content_on_all_routes", routes::reallocation),
    ("a_request_beyond_reason_is_refused_and_harms_nothing", routes::beyond_reason),
    ("threads_exchange_blocks_under_stress", stress::exchange),
    ("threads_come_and_go_and_leave_blocks_behind", stress::come_and_go),
    ("collections_are_built_by_some_threads_and_dropped_by_others", collections::hand_over),
    ("words_counted_in_parallel_are_as_many", collections::count_words),
    ("a_child_forked_among_busy_threads_goes_on", fork::among_busy_threads),
];

const PERCENT_VARIABLE: &str = "PYPOOL_STRESS_PERCENT";
const PERCENT_MIN: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        SCENARIOS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = percent() {
        eprintln!("{reason}");
        return ExitCode::from(2);
    }
    // Options of the usual test runner do not concern this one.
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
    let chosen: Vec<_> = SCENARIOS.iter().filter(|(name, _)| name.contains(wanted)).collect();
    println!("\nrunning {} scenarios", chosen.len());
    end_at_first_panic();
    warm_up();
    for (name, run) in &chosen {
        let before = blocks_in_use();
        run();
        POOL.check(Price::Full).unwrap();
        assert_eq!(blocks_in_use(), before, "{name}: as many blocks are in use afterwards as before");
        println!("test {name} ... ok");
    }
    let (passed, left_out) = (chosen.len(), SCENARIOS.len() - chosen.len());
    // A scenario that fails has ended the process.
    println!("\ntest result: ok. {passed} passed; 0 failed; {left_out} filtered out");
    ExitCode::SUCCESS
}

/// Blocks of pools that are in use, and small ones that are malloc's for lack of an arena.
fn blocks_in_use() -> isize {
    let of = |shard: pypool::Statistics| {
        let in_pools: usize = shard.classes().iter().map(|class| class.blocks_in_use).sum();
        in_pools as isize + shard.raw_blocks
    };
    POOL.statistics().map(of).sum()
}

/// How much of a scenario to run, in percent.
fn percent() -> Result<usize, String> {
    let Ok(text) = std::env::var(PERCENT_VARIABLE) else { return Ok(100) };
    let percent = text.parse().ok().filter(|percent| (PERCENT_MIN..=100).contains(percent));
    percent.ok_or_else(|| format!("{PERCENT_VARIABLE}={text}: it has to be a number from {PERCENT_MIN} to 100."))
}

/// A count, shortened as the variable asks, but never to nothing.
fn shortened(count: usize) -> usize {
    (count * percent().unwrap()).div_ceil(100)
}

/// One thread that fails would leave others waiting for it, and a forked child has no test to return to.
fn end_at_first_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(101) };
    }));
}

/// Waits until threads are gone altogether; the end of a scope waits only until their work is done.
fn join_all<T>(threads: Vec<ScopedJoinHandle<'_, T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Has everything made that is made once and kept.
fn warm_up() {
    let (sender, receiver) = mpsc::channel();
    let (back, answer) = mpsc::channel();
    let echo = thread::spawn(move || receiver.iter().for_each(|number: usize| back.send(number).unwrap()));
    thread::scope(|scope| join_all(vec![scope.spawn(|| sender.send(1).unwrap())]));
    assert_eq!(answer.recv(), Ok(1));
    drop(sender);
    echo.join().unwrap();
    shadow::open(std::ptr::null_mut(), 0);
    shadow::close(std::ptr::null_mut(), 0);
}

/// Numbers of a linear congruential generator.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
