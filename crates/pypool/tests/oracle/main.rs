//! Holds `pypool` against the pool of the real CPython, address by address; see `comparison`.
//!
//! What is compared: sequences by hand that hit one rule each, a long one from a generator, and random ones with
//! shrinking. Golden logs hold the first two where there is no libpython.
#![allow(clippy::unwrap_used, reason = "tests")]

mod comparison;
mod generator;
mod random;
mod rules;

use std::path::Path;
use std::process::ExitCode;

use libpython::Interpreter;

use comparison::{Comparison, Counts, Golden, Hashes, Log, Mode, SHIFTS, Table, reported, start};
use generator::Generator;

/// Calls of the long sequence, per alignment.
const GENERATED_CALLS: u64 = 8_000_000;
const SEED: u64 = 310_313;

fn main() -> ExitCode {
    comparison::main("oracle", hold)
}

fn hold(mode: Mode, interpreters: &[Interpreter]) -> Result<(), String> {
    let with_ours = mode != Mode::WriteGolden;
    let mut comparison = Comparison::new(start(interpreters, mode)?, with_ours);
    let agreed: Vec<String> = comparison.originals().iter().map(|original| original.interpreter.describe()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");

    let mut golden = Golden::open(folder.join("rules.log"), mode)?;
    let by_rule = hold_rules(&mut comparison, &mut golden)?;
    golden.close("Sequences that hit one rule each; tests/oracle/rules.rs makes them.", &agreed)?;

    let mut golden = Golden::open(folder.join("generator.log"), mode)?;
    let generated = hold_generated(&mut comparison, &mut golden)?;
    golden.close("A long sequence, a hash every 4,096 calls; tests/oracle/generator.rs makes it.", &agreed)?;

    let random = match mode {
        Mode::WriteGolden => Counts::default(),
        _ if comparison.originals().is_empty() => Counts::default(),
        _ => random::hold(&mut comparison, &|| Ok(Comparison::new(start(interpreters, mode)?, with_ours)))?,
    };
    say(&comparison, mode, [("rules", by_rule), ("generator", generated), ("random", random)]);
    is_enough(generated)
}

fn hold_rules(comparison: &mut Comparison, golden: &mut Golden) -> Result<Counts, String> {
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

fn hold_generated(comparison: &mut Comparison, golden: &mut Golden) -> Result<Counts, String> {
    let mut counts = Counts::default();
    for (shift_bytes, alignment) in SHIFTS {
        let mut hashes = Hashes::new();
        let calls = reported(Generator::new(SEED + shift_bytes as u64, GENERATED_CALLS));
        counts += comparison.hold("generator", shift_bytes, calls, &mut |calls, replies| hashes.add(calls, replies))?;
        golden.settle(&format!("{alignment} arenas"), hashes.text())?;
    }
    Ok(counts)
}

fn say(comparison: &Comparison, mode: Mode, parts: [(&'static str, Counts); 3]) {
    let mut table = Table::default();
    for (part, counts) in parts.iter().filter(|(_, counts)| counts.calls > 0) {
        for original in comparison.originals() {
            table.row(part, &original.interpreter.describe(), *counts);
        }
    }
    if mode.checks_golden() {
        parts[..2].iter().for_each(|(part, counts)| table.row(part, "golden log", *counts));
    }
    print!("{table}");
    if mode == Mode::WriteGolden {
        println!("golden logs written");
    }
}

/// The long sequence alone has to keep the strength that METHODOLOGY.md states.
fn is_enough(counts: Counts) -> Result<(), String> {
    let Counts { calls, reallocs, released, .. } = counts;
    if calls >= 10_000_000 && reallocs >= 1_000_000 && released >= 1_000 && counts.classes() == 32 {
        return Ok(());
    }
    Err(format!("the generated sequence has become too weak: {counts:?}"))
}
