//! Whether a recording can be trusted: the replay of the configuration that it was recorded under, held against what
//! the recorded process held at the same marks.
//!
//! Invariant: judged from readings alone; a doubt names what the readings show, and no reading is no doubt.

use super::fidelity::{allowance, widen_share};
use super::stats;
use crate::run::{READING, RecordedMark};
use serde::Serialize;
use trace::Phase;

/// One mark, bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Its name.
    pub mark: String,
    /// What the replay held (median), and what libraries had mapped for themselves.
    pub replayed: f64,
    /// What the recorded process held.
    pub measured: f64,
    /// Of the replay: what the program had requested and not given back.
    pub requested: f64,
}

/// What a disagreement looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Doubt {
    /// The process held more: memory that no recorded call asked for.
    Unknown,
    /// More was live than resident: blocks that the program did not write to.
    Untouched,
    /// The maximum agrees, and later the process held less: the program or its allocator gave memory back.
    GivenBack,
    /// The maximum agrees, and later the process held more: an allocator kept what it gives back in the replay.
    Kept,
}

/// The replay beside the recorded process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trust {
    /// Where the process held most, of the headline's part of the recording.
    pub peak: Held,
    /// The mark with the largest disagreement, and what that looks like; `None` where all are within the bar.
    pub doubt: Option<(Held, Doubt)>,
    /// Marks that were compared.
    pub marks: usize,
    /// Share by which they may differ, at least [`super::fidelity::WIDEN_BYTES`].
    pub bar_share: f64,
}

/// What became of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The replay stands beside the recorded process.
    Compared(Trust),
    /// The configuration that the program was recorded under was not replayed.
    NotReplayed,
    /// The recording has no readings of the process.
    NotMeasured,
}

impl Check {
    /// The comparison, if there was one.
    #[must_use]
    pub const fn trust(&self) -> Option<&Trust> {
        match self {
            Self::Compared(trust) => Some(trust),
            Self::NotReplayed | Self::NotMeasured => None,
        }
    }
}

/// Holds replays of the configuration that the program was recorded under against the recording. `replays` has resident
/// and requested bytes at each mark; `threads` allocate.
#[must_use]
pub fn check(marks: &[RecordedMark], replays: &[&[[u64; 2]]], threads: u32) -> Check {
    match trust(marks, replays, threads) {
        Some(trust) => Check::Compared(trust),
        None if marks.is_empty() => Check::NotMeasured,
        None => Check::NotReplayed,
    }
}

fn trust(marks: &[RecordedMark], replays: &[&[[u64; 2]]], threads: u32) -> Option<Trust> {
    let held = |(at, mark): (usize, &RecordedMark)| {
        let of = |which: usize| median(replays.iter().filter_map(|run| run.get(at)).map(|reading| reading[which]));
        Some(Held {
            mark: mark.name.clone(),
            replayed: of(0)? + mark.mapped_bytes as f64,
            measured: mark.heap_bytes? as f64,
            requested: of(1)?,
        })
    };
    let steady = marks.iter().position(|mark| mark.begins(Phase::Steady)).unwrap_or(0);
    let drained = marks.iter().position(|mark| mark.begins(Phase::Drained)).unwrap_or(marks.len());
    let all: Vec<(usize, Held)> = marks.iter().enumerate().filter_map(|entry| Some((entry.0, held(entry)?))).collect();
    let most = |of: &dyn Fn(usize) -> bool| {
        let within = all.iter().filter(|(at, _)| of(*at));
        within.max_by(|a, b| a.1.measured.total_cmp(&b.1.measured)).map(|(at, held)| (*at, held.clone()))
    };
    let (peak_at, peak) = most(&|at| (steady..=drained).contains(&at)).or_else(|| most(&|_| true))?;
    let bar = |held: &Held| allowance(threads, held.measured);
    let excess = |held: &Held| (held.replayed - held.measured).abs() - bar(held);
    // A replay writes to a block when it is allocated; the program may write to it later, and reach as much then.
    let is_early = |at: usize, held: &Held| {
        let later = all.iter().filter(|(later, _)| *later > at).map(|(_, held)| held.measured + bar(held));
        marks[at].name == READING && later.fold(0.0, f64::max) >= held.replayed
    };
    let outside = all.iter().filter(|(at, held)| excess(held) > 0.0 && !is_early(*at, held));
    let worst = outside.max_by(|a, b| excess(&a.1).total_cmp(&excess(&b.1)));
    let doubt = worst.map(|(at, held)| {
        let is_after = *at > peak_at && excess(&peak) <= 0.0;
        let doubt = match held.replayed > held.measured {
            true if held.requested > held.measured => Doubt::Untouched,
            true if is_after => Doubt::GivenBack,
            true => Doubt::Untouched,
            false if is_after => Doubt::Kept,
            false => Doubt::Unknown,
        };
        (held.clone(), doubt)
    });
    Some(Trust { peak, doubt, marks: all.len(), bar_share: widen_share(threads) })
}

fn median(values: impl Iterator<Item = u64>) -> Option<f64> {
    stats::median(values.map(|value| value as f64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: u64 = 1 << 20;

    fn marks(measured: &[(&str, u64)]) -> Vec<RecordedMark> {
        let mark = |(name, mib): &(&str, u64)| RecordedMark {
            name: (*name).to_owned(),
            heap_bytes: Some(mib * MIB),
            mapped_bytes: 0,
        };
        measured.iter().map(mark).collect()
    }

    fn doubt(measured: &[(&str, u64)], replayed: &[(u64, u64)]) -> Option<(String, Doubt)> {
        let replay: Vec<[u64; 2]> = replayed.iter().map(|(held, live)| [held * MIB, live * MIB]).collect();
        let found = trust(&marks(measured), &[&replay], 1).unwrap();
        found.doubt.map(|(held, doubt)| (held.mark, doubt))
    }

    #[test]
    fn a_replay_that_holds_what_the_process_held_is_trusted() {
        let measured = [("steady", 10), ("reading", 100), ("drained", 20), ("finalising", 20)];
        assert_eq!(doubt(&measured, &[(10, 9), (102, 90), (20, 10), (20, 10)]), None);
        let found = trust(&marks(&measured), &[&[[MIB, 0]; 4]], 2).unwrap();
        assert_eq!((found.peak.measured, found.marks), (100.0 * MIB as f64, 4));
    }

    #[test]
    fn each_kind_of_disagreement_has_its_name() {
        let measured = [("steady", 10), ("reading", 100), ("drained", 20)];
        let kind = |replayed: [(u64, u64); 3]| doubt(&measured, &replayed).unwrap();
        assert_eq!(kind([(10, 9), (60, 50), (20, 9)]), ("reading".to_owned(), Doubt::Unknown));
        assert_eq!(kind([(10, 9), (150, 140), (20, 9)]), ("reading".to_owned(), Doubt::Untouched));
        assert_eq!(kind([(10, 9), (100, 90), (90, 9)]), ("drained".to_owned(), Doubt::GivenBack));
        assert_eq!(kind([(10, 9), (100, 90), (12, 9)]), ("drained".to_owned(), Doubt::Kept));
    }

    #[test]
    fn a_block_may_be_written_later_than_it_was_allocated() {
        let measured = [("steady", 10), ("reading", 40), ("reading", 98), ("drained", 20)];
        assert_eq!(doubt(&measured, &[(10, 9), (100, 90), (100, 90), (20, 10)]), None);
        let never = [("steady", 10), ("reading", 40), ("reading", 60), ("drained", 20)];
        let found = doubt(&never, &[(10, 9), (100, 90), (100, 90), (20, 10)]);
        assert_eq!(found, Some(("reading".to_owned(), Doubt::Untouched)));
        let named = [("steady", 40), ("reading", 98), ("drained", 20)];
        assert!(doubt(&named, &[(100, 90), (100, 90), (20, 10)]).is_some(), "a mark of the program is not excused");
    }

    #[test]
    fn what_was_not_read_is_not_compared() {
        assert_eq!(trust(&[], &[], 1), None);
        assert_eq!(trust(&marks(&[("steady", 1)]), &[], 1), None);
        let unread = RecordedMark { heap_bytes: None, ..marks(&[("steady", 1)]).remove(0) };
        assert_eq!(trust(&[unread], &[&[[1, 1]]], 1), None);
    }
}
