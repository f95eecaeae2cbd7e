//! Holds `pypool` against the pool of the real CPython, address by address; see `comparison`.
//!
//! What is compared: sequences by hand that hit one rule each, a long one from a generator, and random ones with
//! shrinking. Golden logs hold the first two where there is no libpython.
#![allow(clippy::unwrap_used, reason = "tests")]

mod comparison;
mod generator;
mod random;
mod rules;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libpython::Interpreter;
use pypool::{Before310, Current, Geometry};

use comparison::{
    Comparison, Counts, Golden, Hashes, Log, Mode, SHIFTS, Table, originals_before_310, reported, start, start_for,
};
use generator::Generator;

/// Calls of the long sequence, per alignment.
const GENERATED_CALLS: u64 = 8_000_000;
/// The same for the arenas that were usual before 3.10, a quarter as large.
const GENERATED_CALLS_BEFORE_310: u64 = 1_000_000;
const SEED: u64 = 310_313;

fn main() -> ExitCode {
    comparison::main("oracle", hold)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hold(mode: Mode, interpreters: &[Interpreter]) -> Result<(), String> {
    let with_ours = mode != Mode::WriteGolden;
    let mut comparison = Comparison::<Current>::new(start_for(interpreters, mode)?, with_ours);
    let agreed: Vec<String> = comparison.originals().iter().map(|original| original.interpreter.describe()).collect();

    let mut golden = Golden::open(folder().join("rules.log"), mode)?;
    let by_rule = hold_rules(&mut comparison, &mut golden)?;
    golden.close("Sequences that hit one rule each; tests/oracle/rules.rs makes them.", &agreed)?;

    let mut golden = Golden::open(folder().join("generator.log"), mode)?;
    let generated = hold_generated(&mut comparison, GENERATED_CALLS, &mut golden)?;
    golden.close("A long sequence, a hash every 4,096 calls; tests/oracle/generator.rs makes it.", &agreed)?;

    let random = match mode {
        Mode::WriteGolden => Counts::default(),
        _ if comparison.originals().is_empty() => Counts::default(),
        _ => random::hold(&mut comparison, &|| Ok(Comparison::new(start_for(interpreters, mode)?, with_ours)))?,
    };
    let mut table = Table::default();
    say(&comparison, mode, &mut table, [("rules", by_rule), ("generator", generated), ("random", random)]);
    hold_before_310(mode, &mut table)?;
    print!("{table}");
    if mode == Mode::WriteGolden {
        println!("golden logs written");
    }
    is_enough(generated)
}

/// The preset [`Before310`] against CPython 3.9: the same sequences, which fill its smaller arenas sooner.
fn hold_before_310(mode: Mode, table: &mut Table) -> Result<(), String> {
    let interpreters = originals_before_310(mode);
    // Later versions have been compared by now, so it is no failure if this one cannot be driven.
    let originals = start(&interpreters)?;
    if originals.is_empty() && !mode.checks_golden() {
        return Ok(());
    }
    let mut comparison = Comparison::<Before310>::new(originals, mode != Mode::WriteGolden);
    let agreed: Vec<String> = comparison.originals().iter().map(|original| original.interpreter.describe()).collect();
    let mut golden = Golden::open(folder().join("before-310.log"), mode)?;
    let mut by_rule = Counts::default();
    for (shift_bytes, alignment) in SHIFTS {
        let mut hashes = Hashes::new();
        for (name, calls) in rules::rules(64) {
            let calls = reported(calls.into_iter());
            by_rule += comparison.hold(name, shift_bytes, calls, &mut |calls, replies| hashes.add(calls, replies))?;
        }
        golden.settle(&format!("rules, {alignment} arenas"), hashes.text())?;
    }
    let generated = hold_generated(&mut comparison, GENERATED_CALLS_BEFORE_310, &mut golden)?;
    golden.close("Arenas of 256 KiB: rules.rs and generator.rs, a hash every 4,096 calls.", &agreed)?;
    let parts = [("rules 3.9", by_rule), ("generator 3.9", generated), ("random 3.9", Counts::default())];
    say(&comparison, mode, table, parts);
    Ok(())
}

fn hold_rules(comparison: &mut Comparison<Current>, golden: &mut Golden) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (shift_bytes, alignment) in SHIFTS {
        let pools_per_arena = if shift_bytes == 0 { 64 } else { 63 };
        for (name, calls) in rules::rules(pools_per_arena) {
            let mut log = Log::default();
            let calls = reported(calls.into_iter());
            counts += comparison.hold(name, shift_bytes, calls, &mut |calls, replies| log.add(calls, replies))?;
            golden.settle(&format!("{name}; {alignment} arenas"), log.text())?;
        }
    }
    Ok(counts)
}

fn hold_generated<G: Geometry>(
    comparison: &mut Comparison<G>,
    calls: u64,
    golden: &mut Golden,
) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (shift_bytes, alignment) in SHIFTS {
        let mut hashes = Hashes::new();
        let calls = reported(Generator::new(SEED + shift_bytes as u64, calls));
        counts += comparison.hold("generator", shift_bytes, calls, &mut |calls, replies| hashes.add(calls, replies))?;
        golden.settle(&format!("{alignment} arenas"), hashes.text())?;
    }
    Ok(counts)
}

fn say<G: Geometry>(comparison: &Comparison<G>, mode: Mode, table: &mut Table, parts: [(&'static str, Counts); 3]) {
    for (part, counts) in parts.iter().filter(|(_, counts)| counts.calls > 0) {
        for original in comparison.originals() {
            table.row(part, &original.interpreter.describe(), *counts);
        }
    }
    if mode.checks_golden() {
        parts[..2].iter().for_each(|(part, counts)| table.row(part, "golden log", *counts));
    }
}

/// The long sequence alone has to reach each class and enough of what is rare.
fn is_enough(counts: Counts) -> Result<(), String> {
    let Counts { calls, reallocs, released, .. } = counts;
    if calls >= 10_000_000 && reallocs >= 1_000_000 && released >= 1_000 && counts.classes() == 32 {
        return Ok(());
    }
    Err(format!("the generated sequence has become too weak: {counts:?}"))
}
