//! Forks of a process whose other threads allocate all the time.
//!
//! **Invariant:** a child that cannot go on is ended by an alarm, so a lock that nobody gives back fails the scenario
//! instead of stopping it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pypool::Price;

use crate::{POOL, Random, join_all, shortened};

const THREADS: usize = 6;
const FORKS: usize = 60;
/// Far longer than a child takes under any tool.
const CHILD_SECONDS_MAX: u32 = 60;

pub(crate) fn among_busy_threads() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let allocate = |seed| {
            let done = &done;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !done.load(Ordering::Relaxed) {
                    use_pools(&mut random, 50);
                }
            })
        };
        let threads = (0..THREADS).map(allocate).collect();
        (0..shortened(FORKS)).for_each(fork_once);
        done.store(true, Ordering::Relaxed);
        join_all(threads);
    });
}

/// Waits for a child that allocates, frees and checks. It ends itself by a signal, so that its status is not a leak
/// check's, which would look at a process whose other threads are gone with all that only they knew.
fn fork_once(seed: usize) {
    // SAFETY: the child uses no lock but those of the allocators, which are made for it.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "the process cannot be forked");
    if child == 0 {
        // SAFETY: plain system calls.
        unsafe { libc::alarm(CHILD_SECONDS_MAX) };
        use_pools(&mut Random::new(1_000 + seed), 400);
        if POOL.check(Price::Full).is_ok() {
            // SAFETY: ends this process alone.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
        // SAFETY: ends this process, without what the parent has registered for its own end.
        unsafe { libc::_exit(1) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's, and has not been waited for.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child, "the child can be waited for");
    let killed_itself = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
    assert!(killed_itself, "a child could not go on: wait status {status:#x}");
}

fn use_pools(random: &mut Random, blocks: usize) {
    let strings: Vec<String> = (0..blocks).map(|_| "f".repeat(1 + random.below(600))).collect();
    assert!(strings.iter().all(|string| string.bytes().all(|byte| byte == b'f')));
}
