//! Footprint children measure no time, so they run side by side; in virtual time they do not even wait.
//!
//! Invariant: no more children replay at once than there are CPUs, and no more live at once than memory allows for;
//! each child's readings are its own process's alone. Where an allocator purges in a thread of its own, its child
//! replays in real time and alone: other children would take the thread's CPU time.

use super::plan::Cell;
use super::{Measured, Prepared, Worker, environment, too_long};
use crate::run::{Outcome, Time};
use crate::worker::TIME_STAGE;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(25);
/// A child that used no CPU in so many looks is idling.
const QUIET_LOOKS: u32 = 4;
/// What a child takes besides its live blocks, bytes: tables, allocator, rounding up.
const CHILD_BYTES: u64 = 64 << 20;

/// Runs the cells side by side; `keep` gets each as it ends, on this thread.
///
/// # Errors
/// The first that `keep` gives; children that were started are then still waited for.
pub(super) fn side_by_side(
    prepared: &Prepared,
    cells: &[Cell],
    keep: &mut dyn FnMut(&Cell, Measured) -> Result<(), String>,
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let replaying = Turnstile::new(thread::available_parallelism().map_or(1, |n| n.get()));
    let needs_real: Vec<AtomicBool> = prepared.configs.iter().map(|_| AtomicBool::new(false)).collect();
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        for _ in 0..lives_at_once(prepared, cells) {
            let (next, replaying, needs_real, sender) = (&next, &replaying, &needs_real, sender.clone());
            scope.spawn(move || {
                while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((*cell, one(prepared, cell, replaying, needs_real))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut first = Ok(());
        for (cell, measured) in &receiver {
            first = keep(&cell, measured);
            if first.is_err() {
                next.store(cells.len(), Ordering::Relaxed);
                break;
            }
        }
        first
    })
}

/// `needs_real` says by configuration whether virtual time has failed it before.
fn one(prepared: &Prepared, cell: &Cell, replaying: &Turnstile, needs_real: &[AtomicBool]) -> Measured {
    let needs_real = &needs_real[cell.config];
    match prepared.settings.time_of(&prepared.images[cell.workload]) {
        Time::Virtual if needs_real.load(Ordering::Relaxed) => in_real_time(prepared, cell, replaying),
        Time::Virtual => {
            let turn = replaying.enter(1);
            let measured = prepared.measure(cell);
            drop(turn);
            if is_refused(&measured) {
                needs_real.store(true, Ordering::Relaxed);
                return in_real_time(prepared, cell, replaying);
            }
            measured
        }
        Time::Real => in_real_time(prepared, cell, replaying),
        Time::None => {
            let turn = replaying.enter(1);
            prepared.start(cell).map_or_else(
                |failed| *failed,
                |worker| {
                    wait_until_idle(worker.id());
                    drop(turn);
                    worker.wait()
                },
            )
        }
    }
}

/// Whether the worker found that virtual time does not reach all that an allocator does.
fn is_refused(measured: &Measured) -> bool {
    matches!(&measured.outcome, Outcome::Failed { stage, .. } if stage == TIME_STAGE)
}

/// Replays a cell in real time, beside no other.
fn in_real_time(prepared: &Prepared, cell: &Cell, replaying: &Turnstile) -> Measured {
    let _turn = replaying.enter(replaying.all);
    let mut settings = prepared.settings.clone();
    settings.time = Time::Real;
    if let Some(reason) = too_long(&prepared.images[cell.workload], &settings) {
        let reason = format!("An allocator of this configuration needs real time. A replay of {reason}");
        return Measured::failed(TIME_STAGE, reason);
    }
    prepared.start_as(cell, &settings).map_or_else(|failed| *failed, Worker::wait)
}

/// How many children may live at once: half of the free memory, divided by what the largest may take.
fn lives_at_once(prepared: &Prepared, cells: &[Cell]) -> usize {
    let live = |cell: &Cell| prepared.images[cell.workload].compiled.metadata.totals.live_bytes_peak;
    let largest = cells.iter().map(live).max().unwrap_or(0).saturating_mul(2) + CHILD_BYTES;
    let free = environment::memory_available_bytes().unwrap_or(0) / 2;
    usize::try_from(free / largest).unwrap_or(usize::MAX).clamp(1, cells.len().max(1))
}

/// Returns when the process sleeps and uses no CPU, or is gone.
fn wait_until_idle(pid: u32) {
    let mut quiet = 0;
    let mut used_before = None;
    while quiet < QUIET_LOOKS {
        thread::sleep(POLL);
        let Some((sleeps, used)) = activity(pid) else { return };
        quiet = if sleeps && used_before == Some(used) { quiet + 1 } else { 0 };
        used_before = Some(used);
    }
}

/// Whether a process sleeps, and the CPU ticks that it has used; `None` when it has ended.
fn activity(pid: u32) -> Option<(bool, u64)> {
    sleeping(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same from the text of `stat`.
pub(crate) fn sleeping(stat: &str) -> Option<(bool, u64)> {
    // The name in parentheses may hold anything; what follows it is fixed.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    match *fields.first()? {
        "Z" | "X" => None,
        state => Some((state == "S", ticks(11)?.saturating_add(ticks(12)?))),
    }
}

/// Lets so many in at once.
struct Turnstile {
    all: usize,
    free: Mutex<usize>,
    freed: Condvar,
}

/// So many places of a turnstile.
struct Turn<'a>(&'a Turnstile, usize);

impl Turnstile {
    fn new(free: usize) -> Self {
        Self { all: free, free: Mutex::new(free), freed: Condvar::new() }
    }

    /// Waits for so many places, at most [`Turnstile::all`].
    fn enter(&self, places: usize) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free < places).unwrap_or_else(PoisonError::into_inner);
        *free -= places;
        Turn(self, places)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += self.1;
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::process::Command;

    #[test]
    fn a_sleeping_process_is_told_from_a_busy_one() {
        let mut sleeper = Command::new("sleep").arg("100").spawn().unwrap();
        wait_until_idle(sleeper.id());
        assert!(activity(sleeper.id()).is_some_and(|(sleeps, _)| sleeps));
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        thread::sleep(POLL);
        assert!(activity(busy.id()).is_some_and(|(sleeps, _)| !sleeps));
        for child in [&mut sleeper, &mut busy] {
            child.kill().unwrap();
            assert!(activity(child.id()).is_none() || child.try_wait().unwrap().is_none());
            child.wait().unwrap();
        }
        assert_eq!(activity(sleeper.id()), None);
    }

    #[test]
    fn the_turnstile_never_lets_more_in() {
        let turnstile = Turnstile::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _turn = turnstile.enter(1);
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(2));
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn who_takes_every_place_is_alone() {
        let turnstile = Turnstile::new(2);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for places in [1, 2, 1, 2, 1, 1] {
                let (turnstile, inside) = (&turnstile, &inside);
                scope.spawn(move || {
                    let _turn = turnstile.enter(places);
                    let before = inside.fetch_add(places, Ordering::SeqCst);
                    assert!(before + places <= turnstile.all);
                    thread::sleep(Duration::from_millis(2));
                    inside.fetch_sub(places, Ordering::SeqCst);
                });
            }
        });
    }
}
