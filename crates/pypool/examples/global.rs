//! A program with threads whose every small allocation is the pools': words are counted in parallel, an index is built,
//! passed on, and dropped by another thread than built it.
//!
//! Prints what the pools hold at the start, with everything live, and when the threads are gone and all is dropped: the
//! arenas that were needed in between are back with the system, but for the last one of each shard and those that a
//! block is left in. Run it with `cargo run --release -p pypool --example global`.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::thread;

use pypool::{GlobalPool, Price, Statistics};

#[global_allocator]
static POOL: GlobalPool = GlobalPool::new();

const THREADS: usize = 4;
const DOCUMENTS: usize = 400;
const WORDS_PER_DOCUMENT: usize = 1_500;
/// Words that the documents are made of.
const VOCABULARY: usize = 5_000;

/// Where each word of a part of the documents stands: (document, position).
type Index = HashMap<String, Vec<(usize, usize)>>;

fn main() {
    show("at the start");
    let documents = thread::spawn(written).join().expect("the writer does not fail");
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (documents, sender) = (&documents, sender.clone());
            scope.spawn(move || {
                let own = documents.iter().enumerate().skip(number).step_by(THREADS);
                sender.send(indexed(own)).expect("the main thread waits for it");
            });
        }
    });
    drop(sender);
    let parts: Vec<Index> = receiver.into_iter().collect();
    let words: usize = parts.iter().flat_map(HashMap::values).map(Vec::len).sum();
    assert_eq!(words, DOCUMENTS * WORDS_PER_DOCUMENT, "every word is in the index of one thread");

    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (word, places) in parts.iter().flatten() {
        *counts.entry(word).or_default() += places.len();
    }
    let (word, times) = counts.iter().max_by_key(|(_, times)| **times).expect("there are words");
    println!("{words} words, {} different, most often {word}: {times} times\n", counts.len());
    drop(counts);
    show("with everything live");

    // Each part is dropped by a thread that did not build it, all at a time.
    let droppers: Vec<_> = parts.into_iter().map(|part| thread::spawn(move || drop(part))).collect();
    droppers.into_iter().for_each(|dropper| dropper.join().expect("dropping does not fail"));
    drop(documents);
    show("when all is dropped");
    POOL.check(Price::Full).expect("the pools are in order");
}

fn written() -> Vec<String> {
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A product of two even distributions: some words are much more frequent than others.
        let (first, second) = ((state >> 33) as usize % VOCABULARY, (state >> 48) as usize % VOCABULARY);
        format!("word{}", first * second / VOCABULARY)
    };
    (0..DOCUMENTS).map(|_| (0..WORDS_PER_DOCUMENT).map(|_| word()).collect::<Vec<_>>().join(" ")).collect()
}

fn indexed<'a>(documents: impl Iterator<Item = (usize, &'a String)>) -> Index {
    let mut index = Index::new();
    for (document, text) in documents {
        for (position, word) in text.split(' ').enumerate() {
            index.entry(word.to_owned()).or_default().push((document, position));
        }
    }
    index
}

/// A line for each shard that has ever had an arena, and their sum.
fn show(when: &str) {
    println!("==== {when}");
    println!("shard   arenas now   most   ever   pools in use   blocks in use   bytes in use");
    let mut sum = [0; 6];
    for (number, shard) in POOL.statistics().enumerate().filter(|(_, shard)| shard.arenas.mapped_total > 0) {
        let row = row(&shard);
        line(&number.to_string(), row);
        (0..sum.len()).for_each(|column| sum[column] += row[column]);
    }
    line("sum", sum);
    println!();
}

fn row(shard: &Statistics) -> [usize; 6] {
    let (pools, blocks) =
        shard.classes().iter().fold((0, 0), |sum, class| (sum.0 + class.pools, sum.1 + class.blocks_in_use));
    let arenas = shard.arenas;
    [arenas.mapped, arenas.mapped_peak, arenas.mapped_total, pools, blocks, shard.allocated_bytes]
}

fn line(name: &str, [now, most, ever, pools, blocks, bytes]: [usize; 6]) {
    println!("{name:>5} {now:>12} {most:>6} {ever:>6} {pools:>14} {blocks:>15} {bytes:>14}");
}
