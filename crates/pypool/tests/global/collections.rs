//! What programs do: strings, vectors, maps and trees that one thread builds and another drops.
//!
//! **Invariant:** each result is compared with one that a single thread computes.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::thread;

use crate::{Random, join_all, shortened};

const THREADS: usize = 8;

/// A document as a parser would make it.
#[derive(Debug, PartialEq)]
enum Node {
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    Boxed(Box<Node>),
}

fn tree(random: &mut Random, depth: usize) -> Node {
    let children = 1 + random.below(5);
    match random.below(if depth == 0 { 1 } else { 4 }) {
        0 => Node::Text("x".repeat(random.below(700))),
        1 => Node::List((0..children).map(|_| tree(random, depth - 1)).collect()),
        2 => Node::Table((0..children).map(|key| (format!("key {key}"), tree(random, depth - 1))).collect()),
        _ => Node::Boxed(Box::new(tree(random, depth - 1))),
    }
}

/// Each thread builds trees, gives them to its neighbour, and drops those that it gets.
pub(crate) fn hand_over() {
    let trees = shortened(400);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::sync_channel(16)).unzip();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, receiver) in receivers.into_iter().enumerate() {
            let sender = senders[(number + 1) % THREADS].clone();
            threads.push(scope.spawn(move || {
                (0..trees).for_each(|seed| sender.send((seed, tree(&mut Random::new(seed), 5))).unwrap());
            }));
            threads.push(scope.spawn(move || {
                for _ in 0..trees {
                    let (seed, received) = receiver.recv().unwrap();
                    assert_eq!(received, tree(&mut Random::new(seed), 5));
                }
            }));
        }
        join_all(threads);
    });
}

fn count<'a>(lines: impl Iterator<Item = &'a str>) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in lines.flat_map(str::split_whitespace) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

pub(crate) fn count_words() {
    let mut random = Random::new(7);
    let line = |random: &mut Random| -> String {
        (0..random.below(30)).map(|_| format!("Word{} ", random.below(3_000))).collect()
    };
    let lines: Vec<String> = (0..shortened(4_000)).map(|_| line(&mut random)).collect();
    let counts = thread::scope(|scope| {
        let lines = &lines;
        let own = move |number| lines.iter().skip(number).step_by(THREADS).map(String::as_str);
        join_all((0..THREADS).map(|number| scope.spawn(move || count(own(number)))).collect())
    });
    let mut sum: HashMap<String, usize> = HashMap::new();
    for (word, times) in counts.into_iter().flatten() {
        *sum.entry(word).or_default() += times;
    }
    assert_eq!(sum, count(lines.iter().map(String::as_str)));
}
