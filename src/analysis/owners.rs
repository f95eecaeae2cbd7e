//! Who owns the bytes, and how much of them each knob can reach at most.
//!
//! A knob is something that an operator can set: it changes which allocator serves some blocks, or how that one goes
//! about it. What it can change is at most what is resident, less what the blocks that it does not reach have touched;
//! and at most what the allocators that it reaches say they hold, less what other blocks have touched in there.
//!
//! Invariant: bounds are upper bounds: live blocks do not overlap and what was touched is resident, so no setting of
//! the knob alone can free those bytes. Where nothing was read nothing is said.

use crate::run::{Footprint, Held, Moment, Owned, Owners};
use serde::Serialize;

/// Something an operator can set.
pub struct Knob {
    /// As it is typed, or called.
    pub name: &'static str,
    /// Whether it reaches blocks such as these; the second is the allocator that serves the domain `libc`.
    reaches: fn(&Owned, &str) -> bool,
}

/// Every knob that the report is about.
pub const KNOBS: &[Knob] = &[
    // It moves what the pools hold; larger requests are the C library's with and without it.
    Knob { name: "PYTHONMALLOC=malloc", reaches: |owned, _| is_python(owned) && owned.small },
    // From CPython 3.13 on.
    Knob { name: "PYTHONMALLOC=mimalloc", reaches: |owned, _| is_python(owned) },
    // Everything that C's `malloc` serves, Python's requests of more than 512 bytes among it.
    Knob { name: "LD_PRELOAD, MALLOC_*", reaches: |owned, libc| owned.allocator == libc },
    Knob { name: "NumPy's handler", reaches: |owned, _| owned.domain == "numpy" },
    Knob { name: "ARROW_DEFAULT_MEMORY_POOL", reaches: |owned, _| owned.domain == "arrow" },
];

fn is_python(owned: &Owned) -> bool {
    matches!(owned.domain.as_str(), "mem" | "obj")
}

/// Who owned the bytes of one configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnersAnalysis {
    /// At peak, and at rest (at the end where rest was not read).
    pub moments: Vec<Owners>,
    /// By knob, as in [`KNOBS`]: the most bytes that it reaches at each of the moments; none where it reaches no block
    /// of the trace.
    pub reach: Vec<(&'static str, Option<Vec<u64>>)>,
}

/// The owners of a run; `None` in results that did not read them.
#[must_use]
pub fn owners(run: &Footprint, libc: &str) -> Option<OwnersAnalysis> {
    let of = |moment| run.owners.iter().find(|owners| owners.moment == moment);
    let rest = of(Moment::Rest).or_else(|| of(Moment::End));
    let moments: Vec<Owners> = [of(Moment::Peak), rest].into_iter().flatten().cloned().collect();
    if moments.is_empty() {
        return None;
    }
    let reach = KNOBS.iter().map(|knob| {
        let is_used = moments.iter().flat_map(|owners| &owners.owned).any(|owned| (knob.reaches)(owned, libc));
        (knob.name, is_used.then(|| moments.iter().map(|owners| reach(owners, knob, libc)).collect()))
    });
    Some(OwnersAnalysis { reach: reach.collect(), moments })
}

/// Most bytes that a knob reaches at one moment.
fn reach(owners: &Owners, knob: &Knob, libc: &str) -> u64 {
    let reached = |owned: &&Owned| (knob.reaches)(owned, libc);
    let others = || owners.owned.iter().filter(|owned| !reached(owned));
    let touched = |owned: &Owned| owned.touched_bytes;
    let resident = owners.memory.resident_bytes;
    let by_blocks = resident.saturating_sub(others().map(touched).sum());
    let mut allocators: Vec<&str> = owners.owned.iter().filter(reached).map(|owned| owned.allocator.as_str()).collect();
    allocators.sort_unstable();
    allocators.dedup();
    let most = |key: &&str| owners.held.get(*key).and_then(|held: &Held| held.resident_bytes_max);
    let held: Option<u64> = allocators.iter().map(most).sum();
    let in_there = others().filter(|owned| allocators.contains(&owned.allocator.as_str())).map(touched).sum();
    let by_allocators = held.map_or(u64::MAX, |held| held.saturating_sub(in_there));
    by_blocks.min(by_allocators)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::MemoryPoint;

    fn owned(domain: &str, small: bool, allocator: &str, touched_bytes: u64) -> Owned {
        let (domain, allocator) = (domain.to_owned(), allocator.to_owned());
        Owned { domain, small, allocator, touched_bytes, ..Owned::default() }
    }

    fn at(resident_bytes: u64, held: &[(&str, Option<u64>)]) -> Owners {
        let held =
            held.iter().map(|(key, most)| ((*key).to_owned(), Held { resident_bytes_max: *most, ..Held::default() }));
        Owners {
            moment: Moment::Rest,
            memory: MemoryPoint { resident_bytes, ..MemoryPoint::default() },
            owned: vec![
                owned("obj", true, "pool", 30),
                owned("obj", false, "system", 10),
                owned("libc", true, "system", 5),
                owned("arrow", false, "mimalloc", 0),
            ],
            held: held.collect(),
        }
    }

    fn reaches(owners: &Owners) -> Vec<u64> {
        KNOBS.iter().map(|knob| reach(owners, knob, "system")).collect()
    }

    #[test]
    fn a_knob_reaches_what_no_other_block_touches() {
        // Nobody says what it holds: all of 100 but what others have touched.
        let unknown = at(100, &[("pool", None), ("system", None), ("mimalloc", None)]);
        assert_eq!(reaches(&unknown), [85, 95, 70, 0, 55]);
        // Pools of 40 hold small objects alone; 25 of the C library hold large ones, and 5 of others.
        let known = at(100, &[("pool", Some(40)), ("system", Some(25)), ("mimalloc", Some(28))]);
        assert_eq!(reaches(&known), [40, 60, 25, 0, 28]);
        // An allocator that counts more than is resident says nothing new.
        let vague = at(100, &[("pool", Some(40)), ("system", Some(900)), ("mimalloc", Some(28))]);
        assert_eq!(reaches(&vague)[1..3], [95, 70]);
    }

    #[test]
    fn a_knob_without_blocks_has_no_reach() {
        let run = |owners| Footprint {
            curve: vec![],
            at_phase: vec![],
            peak: MemoryPoint::default(),
            end: MemoryPoint::default(),
            rest_from: String::new(),
            rest: vec![],
            faults_minor: 0,
            high_water_bytes: Vec::new(),
            pools: None,
            cycles: vec![],
            at_marks: vec![],
            owners,
            time: None,
            failed_allocations: 0,
            unreplayed: Default::default(),
            seal: crate::run::SealReport::default(),
        };
        assert_eq!(owners(&run(vec![]), "system"), None);
        let found = owners(&run(vec![at(100, &[])]), "system").expect("read");
        assert_eq!(found.reach[3], ("NumPy's handler", None));
        assert_eq!(found.reach[4], ("ARROW_DEFAULT_MEMORY_POOL", Some(vec![55])));
    }
}
