//! Holds `pypool` against the real pool: the same calls on both, every answer compared.
//!
//! The calls are played once by `pypool`, in this process, and once by each original, in its own; so one pass compares
//! all versions. What the test of the bundled workloads shares with this one is in this folder.
//!
//! **Invariant:** a comparison that returns no error has compared the answer to every call with that of every original.

mod command;
mod golden;
mod log;
mod ours;
mod table;

pub(crate) use command::{Mode, main, start_for};
#[allow(unused_imports, reason = "the test of the workloads compares later versions alone")]
pub(crate) use command::{originals_before_310, start};
pub(crate) use golden::Golden;
#[allow(unused_imports, reason = "the test of the workloads has no readable logs")]
pub(crate) use log::{Hashes, Log};
pub(crate) use table::Table;

use std::marker::PhantomData;
use std::ops::AddAssign;

use libpython::oracle::{Action, Block, Call, Original, Place, Replies};
use ours::Ours;
use pypool::Geometry;

/// Calls that are sent at once.
const FRAME_CALLS: usize = 16 * 4096;

/// Both alignments of arenas, as bytes behind a multiple of a pool, and their names.
pub(crate) const SHIFTS: [(usize, &str); 2] = [(0, "aligned"), (4096, "misaligned")];

/// What a sequence contained, as the reference answered it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) reallocs: u64,
    /// A bit per size class that a request was served from.
    classes: u32,
    pub(crate) created: u64,
    pub(crate) released: u64,
    reports: u64,
}

impl Counts {
    pub(crate) fn classes(&self) -> u32 {
        self.classes.count_ones()
    }

    fn add(&mut self, call: Call, place: Place) {
        self.calls += 1;
        self.reallocs += u64::from(matches!(call.action(), Action::Realloc(_)));
        self.created += u64::from(place.created().is_some());
        self.released += u64::from(place.released().is_some());
        self.reports += u64::from(call == Call::report());
        if let (Action::Malloc(bytes), Block::Pool(..)) = (call.action(), place.block()) {
            self.classes |= 1 << ((bytes - 1) / 16);
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.reallocs += other.reallocs;
        self.classes |= other.classes;
        self.created += other.created;
        self.released += other.released;
        self.reports += other.reports;
    }
}

/// The pools that are compared, all with arenas and pools of the same sizes.
pub(crate) struct Comparison<G: Geometry> {
    originals: Vec<Original>,
    replies: Vec<Replies>,
    /// Whether `pypool` is one of them, and the reference; else the first original is.
    with_ours: bool,
    geometry: PhantomData<G>,
}

/// Takes the reference's answers: calls, their places, and the reports among them.
pub(crate) type Observer<'a> = dyn FnMut(&[Call], &Replies) + 'a;

impl<G: Geometry> Comparison<G> {
    pub(crate) fn new(originals: Vec<Original>, with_ours: bool) -> Self {
        let replies = vec![Replies::default(); originals.len()];
        Self { originals, replies, with_ours, geometry: PhantomData }
    }

    pub(crate) fn originals(&self) -> &[Original] {
        &self.originals
    }

    /// Plays one case everywhere. The error is a sentence about the first difference.
    pub(crate) fn hold(
        &mut self,
        case: &str,
        shift_bytes: usize,
        calls: impl Iterator<Item = Call>,
        observe: &mut Observer<'_>,
    ) -> Result<Counts, String> {
        let mut reference =
            if self.with_ours { Reference::Ours(Ours::<G>::new(shift_bytes)?) } else { Reference::FirstOriginal };
        let mut state = State { case, shift_bytes, counts: Counts::default(), arena_highest: None };
        let mut calls = calls;
        let (mut frame, mut next) = (Vec::new(), Vec::new());
        self.each(|original| original.begin(shift_bytes))?;
        self.send(&mut calls, &mut frame)?;
        while !frame.is_empty() {
            for (original, replies) in self.originals.iter_mut().zip(&mut self.replies) {
                original.receive(&frame, replies).map_err(|error| lost(original, &error))?;
            }
            // The originals go on while ours follows. Ours is compared call by call: it may not survive a difference.
            self.send(&mut calls, &mut next)?;
            let answers = state.compare(&frame, &mut reference, &self.originals, &self.replies)?;
            observe(&frame, &answers);
            std::mem::swap(&mut frame, &mut next);
        }
        self.each(Original::end)?;
        Ok(state.counts)
    }

    /// Has the next calls played, if there are any left.
    fn send(&mut self, calls: &mut impl Iterator<Item = Call>, frame: &mut Vec<Call>) -> Result<(), String> {
        frame.clear();
        frame.extend(calls.take(FRAME_CALLS));
        self.each(|original| original.send(frame))
    }

    fn each(&mut self, mut act: impl FnMut(&mut Original) -> std::io::Result<()>) -> Result<(), String> {
        self.originals.iter_mut().try_for_each(|original| act(original).map_err(|error| lost(original, &error)))
    }
}

fn lost(original: &Original, error: &std::io::Error) -> String {
    format!("the driver of {} has ended ({error}); what it said stands above.", original.interpreter.describe())
}

/// Whose answers all others have to be.
enum Reference<G: Geometry> {
    Ours(Ours<G>),
    FirstOriginal,
}

/// One case between two frames.
struct State<'a> {
    case: &'a str,
    shift_bytes: usize,
    counts: Counts,
    arena_highest: Option<usize>,
}

impl State<'_> {
    /// The reference's answers to a frame, if everybody else has given the same.
    fn compare<G: Geometry>(
        &mut self,
        calls: &[Call],
        reference: &mut Reference<G>,
        originals: &[Original],
        replies: &[Replies],
    ) -> Result<Replies, String> {
        let mut answers = Replies::default();
        for (index, call) in calls.iter().enumerate() {
            let place = match reference {
                Reference::Ours(ours) => ours.play(*call, &mut answers.reports),
                Reference::FirstOriginal => {
                    let first = replies.first().ok_or("there is nothing to compare")?;
                    if *call == Call::report() {
                        answers.reports.push(first.reports[answers.reports.len()].clone());
                    }
                    first.places[index]
                }
            };
            answers.places.push(place);
            self.arena_highest = self.arena_highest.max(place.created());
            for (original, theirs) in originals.iter().zip(replies) {
                if place != theirs.places[index] {
                    return Err(self.difference(*call, place, theirs.places[index], original, reference));
                }
                if *call == Call::report() {
                    let report = answers.reports.len() - 1;
                    self.compare_report(&answers.reports[report], &theirs.reports[report], original)?;
                }
            }
            self.counts.add(*call, place);
        }
        Ok(answers)
    }

    fn difference<G: Geometry>(
        &self,
        call: Call,
        place: Place,
        theirs: Place,
        original: &Original,
        of: &Reference<G>,
    ) -> String {
        let whose = match of {
            Reference::Ours(_) => "ours",
            Reference::FirstOriginal => "the newest version",
        };
        let (case, op, version) = (self.name(), self.counts.calls, original.interpreter.describe());
        format!("{case}, op {op}, {call}: {whose}: {place}; {version}: {theirs}")
    }

    fn compare_report(&self, reference: &str, theirs: &str, original: &Original) -> Result<(), String> {
        let expected = match original.interpreter.minor {
            9 => without_the_map(reference),
            10 => with_the_map_of_3_10(reference, self.arena_highest),
            _ => reference.to_owned(),
        };
        let mut lines = expected.lines().zip(theirs.lines());
        let different = lines.find(|(one, other)| one != other);
        let different = different.or_else(|| (expected != theirs).then_some(("(its end)", "(its end)")));
        different.map_or(Ok(()), |(expected, line)| {
            Err(format!(
                "{}, report after op {}: {} prints {line:?}, expected was {expected:?}",
                self.name(),
                self.counts.calls,
                original.interpreter.describe(),
            ))
        })
    }

    fn name(&self) -> String {
        let alignment = SHIFTS.iter().find(|(bytes, _)| *bytes == self.shift_bytes).map_or("shifted", |(_, name)| name);
        format!("case `{}`, {alignment} arenas", self.case)
    }
}

/// The report as CPython 3.9 prints it, which has no address map. Nothing else differs.
fn without_the_map(report: &str) -> String {
    report.split_once("\narena map counts\n").map_or(report, |(head, _)| head).to_owned()
}

/// The report as CPython 3.10 prints it: its address map looks at 48 bits of an address and has smaller nodes (10, 10
/// and 8 bits per level, against 15, 15 and 14), so that a leaf covers 256 MiB. Nothing else differs.
///
/// Slots are 2 MiB apart, start at a multiple of 16 GiB, and fill 2 GiB: they share one node of the middle level.
fn with_the_map_of_3_10(report: &str, arena_highest: Option<usize>) -> String {
    const SLOTS_PER_LEAF: usize = (256 << 20) / libpython::oracle::SLOT_BYTES;
    let (middles, leaves) = arena_highest.map_or((0, 0), |highest| (1, highest / SLOTS_PER_LEAF + 1));
    let (root_bytes, middle_bytes, leaf_bytes) = (8 << 10, middles * (8 << 10), leaves * (2 << 10));
    let line = |label: &str, value: usize| {
        let (thousands, ones) = (value / 1000, value % 1000);
        let number = if thousands > 0 { format!("{thousands},{ones:03}") } else { ones.to_string() };
        format!("{label:<35}={number:>21}\n")
    };
    let head = report.split_once("arena map counts\n").map_or(report, |(head, _)| head);
    [
        head.to_owned(),
        "arena map counts\n".to_owned(),
        line("# arena map mid nodes", middles),
        line("# arena map bot nodes", leaves),
        "\n".to_owned(),
        line("# bytes lost to arena map root", root_bytes),
        line("# bytes lost to arena map mid", middle_bytes),
        line("# bytes lost to arena map bot", leaf_bytes),
        line("Total", root_bytes + middle_bytes + leaf_bytes),
    ]
    .concat()
}

/// The calls with two reports among them: where most blocks are live, and at the end.
pub(crate) fn reported<I: Iterator<Item = Call> + Clone>(calls: I) -> impl Iterator<Item = Call> {
    let peak = peak(calls.clone());
    let with_peak = calls.enumerate().flat_map(move |(index, call)| {
        let report = (Some(index) == peak).then(Call::report);
        std::iter::once(call).chain(report)
    });
    with_peak.chain(std::iter::once(Call::report()))
}

/// Index of the first call after which most blocks are live.
fn peak(calls: impl Iterator<Item = Call>) -> Option<usize> {
    let mut is_live: Vec<bool> = Vec::new();
    let (mut live, mut most, mut peak) = (0_usize, 0, None);
    for (index, call) in calls.enumerate() {
        let slot = call.slot();
        if slot >= is_live.len() {
            is_live.resize(slot + 1, false);
        }
        let before = is_live[slot];
        match call.action() {
            Action::Malloc(usize::MAX) | Action::Realloc(usize::MAX) | Action::Report => {}
            Action::Malloc(_) | Action::Calloc(..) | Action::Realloc(_) => is_live[slot] = true,
            Action::Free => is_live[slot] = false,
        }
        live = live + usize::from(is_live[slot]) - usize::from(before);
        if live > most {
            (most, peak) = (live, Some(index));
        }
    }
    peak
}
