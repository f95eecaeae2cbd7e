//! Threads, more than most machines have cores, and blocks that end elsewhere than they began.
//!
//! **Invariant:** every parcel is freed by the end, and its content was looked at whenever it was touched.

use std::cell::RefCell;
use std::sync::Barrier;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use pypool::{GlobalPool, Price};

use crate::parcel::Parcel;
use crate::{POOL, Random, join_all, shortened};

/// More than there are shards, so that some share a home.
const THREADS: usize = GlobalPool::SHARDS + 4;
const ROUNDS: usize = 4;
const STEPS: usize = 8_000;
/// Parcels that a thread keeps at a time.
const KEPT: usize = 300;
const BYTES_MAX: usize = 2000;
const ALIGNMENT_BITS_MAX: usize = 12;

/// Calls of all kinds at random; a third of the parcels goes to another thread.
pub(crate) fn exchange() {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let start = |(seed, incoming)| {
            let (others, barrier) = (senders.clone(), &barrier);
            scope.spawn(move || work(seed, others, incoming, barrier))
        };
        join_all(receivers.into_iter().enumerate().map(start).collect());
    });
}

fn work(seed: usize, others: Vec<Sender<Parcel>>, incoming: Receiver<Parcel>, barrier: &Barrier) {
    let mut random = Random::new(seed);
    let mut kept = Vec::with_capacity(KEPT);
    for _ in 0..ROUNDS {
        for _ in 0..shortened(STEPS) {
            step(&mut random, &mut kept, &others, &incoming);
        }
        // Everybody else waits at the second barrier while one looks.
        if barrier.wait().is_leader() {
            POOL.check(Price::Full).unwrap();
        }
        barrier.wait();
    }
    // Since the last barrier nobody sends.
    kept.into_iter().chain(incoming.try_iter()).for_each(Parcel::free);
}

fn step(random: &mut Random, kept: &mut Vec<Parcel>, others: &[Sender<Parcel>], incoming: &Receiver<Parcel>) {
    match random.below(6) {
        _ if kept.len() >= KEPT => kept.swap_remove(random.below(KEPT)).free(),
        // Small ones more often than not.
        0 | 1 => {
            let bytes = 1 + if random.below(4) == 0 { random.below(BYTES_MAX) } else { random.below(200) };
            let bits = if random.below(4) == 0 { random.below(ALIGNMENT_BITS_MAX + 1) } else { random.below(5) };
            let fill = random.below(256) as u8;
            kept.push(Parcel::new(bytes, 1 << bits, fill, random.below(4) == 0));
        }
        2 if !kept.is_empty() => {
            let parcel = kept.swap_remove(random.below(kept.len()));
            let bytes = 1 + random.below(BYTES_MAX);
            kept.push(parcel.resized(bytes));
        }
        3 if !kept.is_empty() => kept.swap_remove(random.below(kept.len())).free(),
        4 if !kept.is_empty() => {
            let parcel = kept.swap_remove(random.below(kept.len()));
            others[random.below(others.len())].send(parcel).unwrap();
        }
        _ => {
            for parcel in incoming.try_iter().take(4) {
                if random.below(2) == 0 { kept.push(parcel) } else { parcel.free() }
            }
        }
    }
}

thread_local! {
    /// Destroyed when its thread ends, after the thread has given up its home or before; allocates in doing so.
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

struct LastWords {
    said: String,
    to: Sender<Vec<String>>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        let words = self.said.split(' ').map(str::to_owned).collect();
        self.to.send(words).unwrap();
    }
}

/// Short-lived threads; what they made is looked at and freed when they are gone.
pub(crate) fn come_and_go() {
    let (sender, made) = mpsc::channel();
    let (to, last_words) = mpsc::channel();
    for wave in 0..shortened(60) {
        let threads: Vec<_> = (0..6)
            .map(|number| {
                let (sender, to) = (sender.clone(), to.clone());
                thread::spawn(move || {
                    LAST_WORDS.set(Some(LastWords { said: format!("{wave} {number} gone"), to }));
                    let mut random = Random::new(wave * 6 + number);
                    for _ in 0..100 {
                        let bytes = 1 + random.below(700);
                        sender.send(Parcel::new(bytes, 8, wave as u8, false)).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let parcels: Vec<Parcel> = made.try_iter().collect();
        assert_eq!(parcels.len(), 600);
        parcels.into_iter().for_each(Parcel::free);
        let mut words: Vec<Vec<String>> = last_words.try_iter().collect();
        words.sort();
        let expected: Vec<Vec<String>> =
            (0..6).map(|number| vec![wave.to_string(), number.to_string(), "gone".to_owned()]).collect();
        assert_eq!(words, expected);
    }
}
