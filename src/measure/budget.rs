//! The pilot of a run whose repetitions are to be chosen: a few children of every cell, which are not kept.
//!
//! Invariant: computes no statistic. What the pilot means is for the function that came with the budget to say; the
//! plan that the result keeps is changed before it is written.

use super::progress::Progress;
use super::{Pass, Prepared, Sizes, footprint, seconds};
use crate::run::{BudgetFacts, Environment, Outcome, Run};
use std::time::{Duration, Instant};

/// Repetitions of each pass that every pilot makes, whatever the budget.
const ROUNDS_MIN: u32 = 2;
/// The share of the budget after which a pass of the pilot is not repeated again.
const SHARE_OF_PASS: f64 = 0.1;

/// Time for a run, and who decides what it is used for.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Measuring time, the pilot's included.
    pub time: Duration,
    /// What the pilot repeats at most.
    pub pilot: Sizes,
    /// Chooses from what the pilot left.
    pub choose: fn(&PilotRuns<'_>) -> Chosen,
}

/// What a pilot left.
#[derive(Clone, Copy, Debug)]
pub struct PilotRuns<'a> {
    /// Of the result to be.
    pub environment: &'a Environment,
    /// The pilot's runs. Its footprint children did not idle.
    pub runs: &'a [Run],
    /// Time that one block of throughput children took.
    pub block: Duration,
    /// Time that one round of footprint children took.
    pub footprints: Duration,
    /// How long footprint children will idle.
    pub idle: Duration,
    /// What is left of the budget.
    pub left: Duration,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// How often each pass repeats.
    pub sizes: Sizes,
    /// Why, in sentences.
    pub reasons: Vec<String>,
}

impl Budget {
    /// Runs the pilot, and writes what was chosen into the plan.
    ///
    /// # Errors
    /// A sentence when no child of the pilot measured anything.
    pub(super) fn spend(
        &self,
        prepared: &mut Prepared,
        environment: &mut Environment,
        progress: &mut Progress,
    ) -> Result<(), String> {
        progress.say("a pilot chooses how often to repeat");
        let begun = Instant::now();
        let idle_ms = std::mem::replace(&mut prepared.settings.idle_ms, vec![0]);
        let mut runs = Vec::new();
        let seed = environment.plan.seed.wrapping_add(1);
        let block = self.repeat(Pass::Throughput, prepared, seed, &mut runs)?;
        let footprints = self.repeat(Pass::Footprint, prepared, seed, &mut runs)?;
        prepared.settings.idle_ms = idle_ms;
        if let Some(reason) = nothing_measured(&runs) {
            return Err(format!("The pilot measured nothing: {reason} Look at it without --budget."));
        }
        let took = begun.elapsed();
        let idle = prepared.idle();
        let left = self.time.saturating_sub(took);
        let pilot = PilotRuns { environment, runs: &runs, block, footprints, idle, left };
        let Chosen { sizes, reasons } = (self.choose)(&pilot);
        progress.say(&format!(
            "budget {}: {} blocks, {} latency runs, {} footprint runs",
            seconds(self.time),
            sizes.blocks,
            sizes.latency_runs,
            sizes.footprint_runs
        ));
        reasons.iter().for_each(|reason| progress.say(&format!("  {reason}")));
        let plan = &mut environment.plan;
        (plan.blocks, plan.latency_runs, plan.footprint_runs) =
            (sizes.blocks, sizes.latency_runs, sizes.footprint_runs);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        plan.budget = Some(BudgetFacts { budget_ms: ms(self.time), pilot_ms: ms(took), reasons });
        Ok(())
    }

    /// Repeats one pass of the pilot, and says how long one repetition took.
    fn repeat(&self, pass: Pass, prepared: &Prepared, seed: u64, runs: &mut Vec<Run>) -> Result<Duration, String> {
        let begun = Instant::now();
        let cells = prepared.cells(seed, self.pilot);
        let mut rounds = 0;
        while rounds < self.pilot.of(pass) {
            let round: Vec<_> = cells.iter().filter(|c| c.pass == pass && c.block == rounds).copied().collect();
            let mut keep = |cell: &super::Cell, measured| {
                runs.push(prepared.run_of(runs.len() as u32, cell, measured));
                Ok(())
            };
            if pass == Pass::Footprint {
                footprint::side_by_side(prepared, &round, &mut keep)?;
            } else {
                round.iter().try_for_each(|cell| keep(cell, prepared.measure(cell)))?;
            }
            rounds += 1;
            if rounds >= ROUNDS_MIN && begun.elapsed() > self.time.mul_f64(SHARE_OF_PASS) {
                break;
            }
        }
        Ok(begun.elapsed() / rounds.max(1))
    }
}

/// The first reason, if every child failed.
fn nothing_measured(runs: &[Run]) -> Option<&str> {
    if runs.iter().any(|run| matches!(run.outcome, Outcome::Ok(_))) {
        return None;
    }
    let reasons = runs.iter().filter_map(|run| match &run.outcome {
        Outcome::Ok(_) => None,
        Outcome::Failed { reason, .. } => Some(reason.as_str()),
    });
    reasons.into_iter().next().or(Some("there was nothing to run."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Mode, SCHEMA};

    #[test]
    fn a_pilot_of_failures_says_why() {
        let run = Run {
            schema: SCHEMA,
            seq: 0,
            block: 0,
            workload: "w".into(),
            config: "pool".into(),
            pass: Pass::Throughput,
            mode: Mode::Merged,
            padding_bytes: 0,
            started_unix_ms: 0,
            child_wall_ns: 0,
            outcome: Outcome::Failed { stage: "replay".into(), reason: "It was killed by SIGSEGV.".into() },
        };
        assert_eq!(nothing_measured(&[run.clone(), run]), Some("It was killed by SIGSEGV."));
        assert_eq!(nothing_measured(&[]), Some("there was nothing to run."));
    }
}
