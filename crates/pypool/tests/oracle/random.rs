//! Random sequences with shrinking. A step may stand for thousands of calls, so that short sequences reach the rules
//! about arenas, and shrink to few steps.
//!
//! **Invariant:** any list of steps is a sequence that loses no block.

use std::cell::RefCell;
use std::collections::VecDeque;

use libpython::oracle::Call;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

use pypool::Geometry;

use crate::comparison::{Comparison, Counts, SHIFTS, reported};

const CASES: u32 = 96;

/// What a sequence is made of. Indices count live blocks, modulo their number.
#[derive(Debug, Clone, Copy)]
enum Step {
    Malloc(usize),
    Calloc(usize, usize),
    Realloc(usize, usize),
    ReallocNull(usize),
    Free(usize),
    /// Blocks of one size, as many as fill pools.
    Fill {
        bytes: usize,
        pools: usize,
    },
    FreeOldest(usize),
    FreeNewest(usize),
    /// Every n-th live block, beginning with the oldest.
    FreeEach(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop_oneof![6 => 1_usize..=512, 2 => 0_usize..=64, 1 => 500_usize..3_000];
    let step = prop_oneof![
        4 => bytes().prop_map(Step::Malloc),
        1 => (0_usize..20, 0_usize..40).prop_map(|(count, bytes)| Step::Calloc(count, bytes)),
        4 => (any::<usize>(), bytes()).prop_map(|(index, bytes)| Step::Realloc(index, bytes)),
        1 => bytes().prop_map(Step::ReallocNull),
        3 => any::<usize>().prop_map(Step::Free),
        3 => (1_usize..=512, 1_usize..150).prop_map(|(bytes, pools)| Step::Fill { bytes, pools }),
        1 => (1_usize..5_000).prop_map(Step::FreeOldest),
        1 => (1_usize..5_000).prop_map(Step::FreeNewest),
        1 => (1_usize..5).prop_map(Step::FreeEach),
    ];
    prop::collection::vec(step, 1..40)
}

/// The calls of a list of steps.
fn calls(steps: &[Step]) -> Vec<Call> {
    let mut live: VecDeque<usize> = VecDeque::new();
    let mut calls = Vec::new();
    let mut slots = 0..;
    for &step in steps {
        let mut next = || slots.next().unwrap_or_default();
        let at = |index: usize, live: &VecDeque<usize>| live.get(index % live.len().max(1)).copied();
        match step {
            Step::Malloc(bytes) => calls.push(Call::malloc(next(), bytes)),
            Step::Calloc(count, bytes) => calls.push(Call::calloc(next(), count, bytes)),
            Step::ReallocNull(bytes) => calls.push(Call::realloc(next(), bytes)),
            Step::Realloc(index, bytes) => calls.extend(at(index, &live).map(|slot| Call::realloc(slot, bytes))),
            Step::Free(index) => {
                let slot = if live.is_empty() { None } else { live.remove(index % live.len()) };
                calls.extend(slot.map(Call::free));
            }
            Step::Fill { bytes, pools } => {
                let blocks = pools * (16384 - 48) / bytes.next_multiple_of(16);
                for slot in (0..blocks).map(|_| next()).collect::<Vec<_>>() {
                    calls.push(Call::malloc(slot, bytes));
                    live.push_back(slot);
                }
            }
            Step::FreeOldest(count) => calls.extend(live.drain(..count.min(live.len())).map(Call::free)),
            Step::FreeNewest(count) => {
                let kept = live.len().saturating_sub(count);
                calls.extend(live.drain(kept..).rev().map(Call::free));
            }
            Step::FreeEach(distance) => {
                let (mut index, mut kept) = (0, VecDeque::new());
                for slot in live.drain(..) {
                    if index % distance == 0 {
                        calls.push(Call::free(slot))
                    } else {
                        kept.push_back(slot)
                    }
                    index += 1;
                }
                live = kept;
            }
        }
        if let Step::Malloc(_) | Step::Calloc(..) | Step::ReallocNull(_) = step {
            live.extend(calls.last().map(|call| call.slot()));
        }
    }
    calls
}

/// Compares random sequences; the error names the smallest one that still differs.
pub(crate) fn hold<G: Geometry>(
    comparison: &mut Comparison<G>,
    originals_anew: &dyn Fn() -> Result<Comparison<G>, String>,
) -> Result<Counts, String> {
    let comparison = RefCell::new(comparison);
    let counts = RefCell::new(Counts::default());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let strategy = (steps(), prop::sample::select(SHIFTS.map(|(bytes, _)| bytes).to_vec()));
    let outcome = TestRunner::new(config).run(&strategy, |(steps, shift_bytes)| {
        let calls = calls(&steps);
        let mut comparison = comparison.borrow_mut();
        let held = comparison.hold("random", shift_bytes, reported(calls.iter().copied()), &mut |_, _| ());
        match held {
            Ok(found) => *counts.borrow_mut() += found,
            Err(difference) => {
                // A case that was given up leaves its drivers in the middle of it.
                **comparison = originals_anew().map_err(TestCaseError::fail)?;
                return Err(TestCaseError::fail(difference));
            }
        }
        Ok(())
    });
    match outcome {
        Ok(()) => Ok(counts.into_inner()),
        Err(TestError::Fail(why, (steps, _))) => Err(format!(
            "{why}\nThe smallest list of steps that differs: {steps:?}\nKeep it as a rule in tests/oracle/rules.rs."
        )),
        Err(TestError::Abort(why)) => Err(format!("no random sequences: {why}")),
    }
}
