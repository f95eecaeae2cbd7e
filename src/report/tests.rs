//! What every report must hold, on invented results: whole, damaged and odd ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::analysis::fixture::{self, Invention};
use crate::run::{Environment, Pass, Run};

fn invention() -> (Environment, Vec<Run>) {
    let what = Invention { failures: true, footprint_runs: 6, ..Invention::default() };
    (fixture::environment(&what), fixture::runs(&what))
}

#[test]
fn show() {
    let (environment, runs) = invention();
    let analysis = analysis::analyse(environment, &runs);
    println!("{}", terminal(&analysis));
    println!("{}", markdown(&analysis));
    std::fs::write("/tmp/report.html", html::page(&analysis, &[])).unwrap();
    let few = fixture::analysis(&Invention { steady: false, blocks: 3, ..Invention::default() });
    println!("{}", terminal(&few));
    println!("{}", markdown(&few));
}
