//! How well replays predicted the real program: ranges, errors, order, the choice that the replay would have made.
//!
//! A figure is inside when the median of its replays lies in the range of the real runs widened by a share of their
//! median, at least [`WIDEN_BYTES`]. Where the real runs have two modes, each needs a mode of the replays in its range.
//!
//! Invariant: judged from readings alone, by bars that stand here as constants; every miss is listed with what the
//! readings say about its reason, and nothing is said that they do not say.

pub mod cpu;
mod reasons;

use super::modes::{self, modes};
use super::stats;
use super::trust::Check;
use crate::run::{Fidelity, FidelityConfig, RealRun, ReplayedRun};
use serde::Serialize;
use trace::Phase;

/// How far a figure may lie outside the real range where one thread allocates, as a share of the real median.
pub const WIDEN_SHARE: f64 = 0.03;
/// The same where several threads do: reality itself varies more.
pub const WIDEN_SHARE_THREADS: f64 = 0.05;
/// Real runs that make a mode: one apart from the others may be an accident.
const REAL_RUNS_OF_A_MODE: usize = 2;
/// Replays that do: what one begins with decides where it comes out, and a process may begin with the same.
pub const REPLAYS_OF_A_MODE: usize = 1;
/// The least widening, bytes.
pub const WIDEN_BYTES: f64 = 512.0 * 1024.0;
/// Two configurations really differ when their ranges do not overlap and their medians are further apart than this
/// share of the lower one and [`ORDER_BYTES`].
pub const ORDER_SHARE: f64 = 0.05;
/// See [`ORDER_SHARE`].
pub const ORDER_BYTES: f64 = 2.0 * 1024.0 * 1024.0;
/// Share of the pairs that must be in the right order.
pub const ORDER_RIGHT_MIN: f64 = 0.95;
/// What the replay would pick may be this much above the real best.
pub const PICK_SHARE: f64 = 0.05;
/// What libraries mapped for themselves matters to a figure above this share of it and [`WIDEN_BYTES`].
const MAPPED_SHARE: f64 = 0.05;
/// Names of the configurations that are what a recording runs under.
const AS_RECORDED: [&str; 2] = ["today", "pool"];

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Most heap bytes.
    Peak,
    /// At interpreter exit.
    End,
    /// After so many idle milliseconds.
    Rest(u64),
}

/// One figure of one configuration. Bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Index into [`Fidelity::configs`].
    pub config: usize,
    /// What.
    pub what: What,
    /// Median of the real runs.
    pub real: f64,
    /// Their range.
    pub range: (f64, f64),
    /// The range with its allowance.
    pub widened: (f64, f64),
    /// The modes of the real runs, one or two.
    pub real_modes: Vec<modes::Mode>,
    /// Median of the replays.
    pub predicted: Option<f64>,
    /// The modes of the replays; none where nothing is predicted.
    pub predicted_modes: Vec<modes::Mode>,
    /// Predicted less real, as a share of real.
    pub error: Option<f64>,
    /// Whether it is inside.
    pub inside: Option<bool>,
}

/// Two configurations that really differ, and whether the replay puts them in the right order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// What.
    pub what: What,
    /// The one that takes less, index into [`Fidelity::configs`].
    pub less: usize,
    /// The one that takes more.
    pub more: usize,
    /// Whether the replay says so too.
    pub right: bool,
}

/// What the replay would choose.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pick {
    /// By which figure.
    pub what: What,
    /// Its choice, index into [`Fidelity::configs`].
    pub chosen: usize,
    /// The really best one.
    pub best: usize,
    /// How much more the choice really takes, as a share of the best.
    pub above: f64,
    /// Whether the real ranges of the two overlap, so that other runs might rank them otherwise.
    pub overlap: bool,
    /// Whether it is within [`PICK_SHARE`].
    pub good: bool,
}

/// Two configurations that are the same to this trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Same {
    /// Index into [`Fidelity::configs`].
    pub one: usize,
    /// The other.
    pub other: usize,
    /// How far their real medians are apart, as a share of the first, figure by figure.
    pub apart: Vec<(What, f64)>,
}

/// A figure outside its bar.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Miss {
    /// Index into [`Judgement::rows`].
    pub row: usize,
    /// What the readings say about the reason, a cause each; never empty.
    pub reasons: Vec<String>,
}

/// What may be said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Judgement {
    /// Every figure that was really read.
    pub rows: Vec<Row>,
    /// Figures inside their bars.
    pub inside: usize,
    /// Figures that have a prediction.
    pub judged: usize,
    /// Share by which ranges were widened.
    pub widen_share: f64,
    /// Pairs that really differ.
    pub pairs: Vec<Pair>,
    /// By peak and by the longest rest.
    pub picks: Vec<Pick>,
    /// The natural A/A.
    pub same: Vec<Same>,
    /// Figures outside.
    pub misses: Vec<Miss>,
    /// CPU times.
    pub cpu: cpu::Cpu,
    /// Fewest real runs that succeeded under a configuration.
    pub runs_min: usize,
}

impl Judgement {
    /// Whether every bar is kept.
    #[must_use]
    pub fn holds(&self) -> bool {
        let right = self.pairs.iter().filter(|pair| pair.right).count();
        let in_order = right as f64 >= ORDER_RIGHT_MIN * self.pairs.len() as f64;
        self.judged > 0 && self.misses.is_empty() && in_order && self.picks.iter().all(|pick| pick.good)
    }
}

/// Judges what `live` read.
#[must_use]
pub fn judge(found: &Fidelity) -> Judgement {
    let whats: Vec<What> =
        [What::Peak, What::End].into_iter().chain(found.idle_ms.iter().map(|delay| What::Rest(*delay))).collect();
    let rows: Vec<Row> = (0..found.configs.len())
        .flat_map(|config| whats.iter().filter_map(move |what| row(found, config, *what)))
        .collect();
    let judged = rows.iter().filter(|row| row.inside.is_some()).count();
    let inside = rows.iter().filter(|row| row.inside == Some(true)).count();
    let misses = rows.iter().enumerate().filter(|(_, row)| row.inside == Some(false));
    let misses = misses.map(|(index, row)| Miss { row: index, reasons: reasons::reasons(found, row) }).collect();
    let runs = found.configs.iter().map(|config| config.real.len()).filter(|runs| *runs > 0);
    let picked = [Some(What::Peak), found.idle_ms.last().map(|delay| What::Rest(*delay))];
    Judgement {
        pairs: whats.iter().flat_map(|what| pairs(&rows, *what)).collect(),
        picks: picked.into_iter().flatten().filter_map(|what| pick(&rows, what)).collect(),
        same: same(found, &rows),
        runs_min: runs.min().unwrap_or(0),
        inside,
        judged,
        widen_share: widen_share(found.threads),
        misses,
        cpu: cpu::judge(found),
        rows,
    }
}

/// Median of bytes; `None` without any.
#[must_use]
pub fn median(values: impl IntoIterator<Item = u64>) -> Option<f64> {
    stats::median(values.into_iter().map(|value| value as f64))
}

/// Median of [`predictions`].
#[must_use]
pub fn predicted(found: &Fidelity, config: &FidelityConfig, what: What, steady: bool) -> Option<f64> {
    stats::median(predictions(found, config, what, steady))
}

/// The modes of [`predictions`].
#[must_use]
pub fn predicted_modes(found: &Fidelity, config: &FidelityConfig, what: What, steady: bool) -> Vec<modes::Mode> {
    let values = predictions(found, config, what, steady);
    let Some(middle) = stats::median(values.iter().copied()) else { return Vec::new() };
    modes(values, allowance(found.threads, middle), REPLAYS_OF_A_MODE)
}

/// How far a figure of this many bytes may be off where so many threads allocate.
#[must_use]
pub fn allowance(threads: u32, bytes: f64) -> f64 {
    (widen_share(threads) * bytes).max(WIDEN_BYTES)
}

/// How far, as a share.
#[must_use]
pub const fn widen_share(threads: u32) -> f64 {
    if threads > 1 { WIDEN_SHARE_THREADS } else { WIDEN_SHARE }
}

/// What each replay says, and what libraries mapped for themselves, which is in no replay. None where that is much and
/// the program has idled since it was read: a private allocator gives back as time passes, and nothing that was
/// recorded says how much.
fn predictions(found: &Fidelity, config: &FidelityConfig, what: What, steady: bool) -> Vec<f64> {
    let of = |run: &ReplayedRun| match what {
        What::Peak if steady => Some(run.peak_bytes),
        What::Peak => Some(run.peak_bytes_all),
        What::End => Some(run.end_bytes),
        What::Rest(delay) => run.rest.iter().find(|(at, _)| *at == delay).map(|(_, bytes)| *bytes),
    };
    let rest_from = config.replayed.first().map_or("", |run| &run.rest_from);
    let mapped = mapped_bytes(found, what, rest_from);
    let values: Vec<f64> = config.replayed.iter().filter_map(of).map(|bytes| bytes as f64 + mapped).collect();
    let idle_ms = match what {
        What::Peak => 0,
        What::End if rest_from == Phase::Drained.name() => found.idle_ms.iter().copied().max().unwrap_or(0),
        What::End => 0,
        What::Rest(delay) => delay,
    };
    let is_much = |bytes| is_much_mapped(found, what, rest_from, bytes);
    let is_lost = idle_ms > 0 && stats::median(values.iter().copied()).is_some_and(is_much);
    if is_lost { Vec::new() } else { values }
}

/// Whether what libraries mapped for themselves makes up much of a figure of this many bytes.
fn is_much_mapped(found: &Fidelity, what: What, rest_from: &str, bytes: f64) -> bool {
    mapped_bytes(found, what, rest_from) > WIDEN_BYTES.max(MAPPED_SHARE * bytes)
}

/// Bytes that libraries had mapped for themselves when rest began, if a figure is not predicted for their sake.
#[must_use]
pub fn mapped_bytes_not_followed(found: &Fidelity) -> Option<f64> {
    let longest = What::Rest(found.idle_ms.iter().copied().max()?);
    let is_without =
        |config: &&FidelityConfig| !config.replayed.is_empty() && predicted(found, config, longest, true).is_none();
    let config = found.configs.iter().find(is_without)?;
    let bytes = mapped_bytes(found, longest, &config.replayed.first()?.rest_from);
    (bytes > 0.0).then_some(bytes)
}

/// What libraries had mapped for themselves then, as far as it is known. It is read at marks alone, so for the peak
/// the largest of these readings stands in, which may be too little.
fn mapped_bytes(found: &Fidelity, what: What, rest_from: &str) -> f64 {
    let Some(at_marks) = &found.mapped_bytes else { return 0.0 };
    let bytes = match what {
        What::Peak => at_marks.values().max(),
        What::End => at_marks.get(Phase::Finalising.name()),
        What::Rest(_) => at_marks.get(rest_from).or_else(|| at_marks.get(Phase::Finalising.name())),
    };
    bytes.map_or(0.0, |bytes| *bytes as f64)
}

fn read(run: &RealRun, what: What) -> Option<u64> {
    match what {
        What::Peak => Some(run.peak_bytes),
        What::End => run.end_bytes,
        What::Rest(delay) => run.rest.iter().find(|(at, _)| *at == delay).map(|(_, bytes)| *bytes),
    }
}

fn row(found: &Fidelity, config: usize, what: What) -> Option<Row> {
    let own = &found.configs[config];
    let values = || own.real.iter().filter_map(|run| read(run, what));
    let real = median(values())?;
    let range = (values().min()? as f64, values().max()? as f64);
    let steady = own.real.iter().all(|run| run.has_steady);
    let widen = allowance(found.threads, real);
    let real_modes = modes(values().map(|bytes| bytes as f64), widen, REAL_RUNS_OF_A_MODE);
    let predicted = predicted(found, own, what, steady);
    let predicted_modes = predicted_modes(found, own, what, steady);
    let is_predicted = |real: &modes::Mode| {
        let widened = real.range.0 - widen..=real.range.1 + widen;
        predicted_modes.iter().any(|mode| widened.contains(&mode.median))
    };
    Some(Row {
        config,
        what,
        real,
        range,
        widened: (range.0 - widen, range.1 + widen),
        error: predicted.map(|predicted| predicted / real - 1.0).filter(|error| error.is_finite()),
        inside: predicted.map(|_| real_modes.iter().all(is_predicted)),
        real_modes,
        predicted,
        predicted_modes,
    })
}

fn pairs(rows: &[Row], what: What) -> Vec<Pair> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.what == what).collect();
    let mut found = Vec::new();
    for (index, one) in rows.iter().enumerate() {
        for two in &rows[index + 1..] {
            let (less, more) = if one.real <= two.real { (one, two) } else { (two, one) };
            let apart = more.real - less.real > ORDER_BYTES.max(ORDER_SHARE * less.real);
            if let (true, Some(low), Some(high)) =
                (apart && less.range.1 < more.range.0, less.predicted, more.predicted)
            {
                found.push(Pair { what, less: less.config, more: more.config, right: low < high });
            }
        }
    }
    found
}

fn pick(rows: &[Row], what: What) -> Option<Pick> {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.what == what && row.predicted.is_some()).collect();
    if rows.len() < 2 {
        return None;
    }
    let chosen =
        rows.iter().min_by(|a, b| a.predicted.partial_cmp(&b.predicted).unwrap_or(std::cmp::Ordering::Equal))?;
    let best = rows.iter().min_by(|a, b| a.real.total_cmp(&b.real))?;
    let above = chosen.real / best.real - 1.0;
    let overlap = chosen.range.0 <= best.range.1;
    Some(Pick { what, chosen: chosen.config, best: best.config, above, overlap, good: above <= PICK_SHARE })
}

fn same(found: &Fidelity, rows: &[Row]) -> Vec<Same> {
    let mut pairs = Vec::new();
    for one in 0..found.configs.len() {
        for other in one + 1..found.configs.len() {
            if found.configs[one].expansion != found.configs[other].expansion {
                continue;
            }
            let real = |config, what| rows.iter().find(|r| r.config == config && r.what == what).map(|row| row.real);
            let apart: Vec<(What, f64)> = rows
                .iter()
                .filter(|row| row.config == one)
                .filter_map(|row| Some((row.what, real(other, row.what)? / row.real - 1.0)))
                .collect();
            if !apart.is_empty() {
                pairs.push(Same { one, other, apart });
            }
        }
    }
    pairs
}

fn as_recorded(found: &Fidelity) -> Option<&FidelityConfig> {
    let of = |name: &str| found.configs.iter().find(|config| config.name == name);
    match &found.recorded_as {
        Some(name) => of(name),
        None => AS_RECORDED.iter().find_map(|name| of(name)),
    }
}

/// The replay of what the program was recorded under, held against the recording.
#[must_use]
pub fn check(found: &Fidelity) -> Check {
    let replayed = as_recorded(found).into_iter().flat_map(|config| &config.replayed);
    let replays: Vec<&[[u64; 2]]> = replayed.map(|run| run.at_marks.as_slice()).collect();
    super::trust::check(&found.recorded_marks, &replays, found.threads)
}

/// High-water mark of all resident memory of the process: the replay's largest reading and what the recorded process
/// held beside its heap. Bytes.
#[must_use]
pub fn predicted_rss_bytes_peak(found: &Fidelity, config: &FidelityConfig) -> Option<f64> {
    let heap = predicted(found, config, What::Peak, false)?;
    Some(heap + found.recorded_no_heap_bytes? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Mode;

    const MIB: u64 = 1 << 20;

    fn config(name: &str, expansion: &str, real: &[u64], predicted: u64) -> FidelityConfig {
        let run = |mib: &u64| RealRun {
            peak_bytes: mib * MIB,
            end_bytes: Some(mib * MIB),
            rest: vec![(0, mib * MIB / 2)],
            rest_from: "drained".into(),
            has_steady: true,
            steady_bytes: Some(5 * MIB),
            ..RealRun::default()
        };
        let replayed = ReplayedRun {
            steady_bytes: Some(5 * MIB),
            peak_bytes: predicted * MIB,
            peak_bytes_all: predicted * MIB + MIB,
            end_bytes: predicted * MIB,
            rest: vec![(0, predicted * MIB / 2)],
            rest_from: "drained".into(),
            ..ReplayedRun::default()
        };
        FidelityConfig {
            name: name.into(),
            expansion: vec![expansion.into()],
            real: real.iter().map(run).collect(),
            replayed: vec![replayed],
            ..FidelityConfig::default()
        }
    }

    fn found(configs: Vec<FidelityConfig>) -> Fidelity {
        Fidelity { idle_ms: vec![0], threads: 1, mode: Some(Mode::Merged), configs, ..Fidelity::default() }
    }

    #[test]
    fn a_figure_is_inside_the_widened_range_or_a_miss() {
        let judged = judge(&found(vec![config("today", "a", &[100, 102, 104], 107)]));
        assert_eq!((judged.judged, judged.inside, judged.runs_min), (3, 3, 3));
        assert!(judged.holds());
        let judged = judge(&found(vec![config("today", "a", &[100, 102, 104], 108)]));
        assert_eq!((judged.judged, judged.inside, judged.misses.len()), (3, 0, 3));
        assert!(!judged.holds());
        // Half a MiB is allowed of the smallest figure, and threads have a twentieth.
        assert!(judge(&found(vec![config("today", "a", &[2], 2)])).holds());
        let threaded = |predicted| {
            judge(&Fidelity { threads: 2, ..found(vec![config("today", "a", &[100, 102, 104], predicted)]) })
        };
        assert!(threaded(109).holds() && !threaded(110).holds());
        assert!(threaded(150).misses[0].reasons[0].contains("merged"), "{:?}", threaded(150).misses);
    }

    #[test]
    fn a_miss_names_what_was_measured() {
        let mut one = config("today", "a", &[100, 101, 102], 60);
        let of = |one: &FidelityConfig| judge(&found(vec![one.clone()])).misses[0].reasons.clone();
        one.real[0].faults_minor = Some(700);
        one.replayed[0].faults_minor = Some(600);
        one.real[0].wall_ns = Some(1_500_000_000);
        assert_eq!(
            of(&one),
            ["no cause shows in what was measured for today: 700 page faults in the process, 600 in the replay, \
              `steady` took 1.50 s and is replayed back to back, the real runs have one mode"]
        );
        one.real.iter_mut().for_each(|run| run.huge_bytes = Some(42 * MIB));
        one.replayed[0].huge_bytes = Some(2 * MIB);
        assert_eq!(of(&one), ["huge pages: 42.0 MiB in the program, 2.00 in the replay"]);
        one.replayed[0].huge_bytes = Some(42 * MIB);
        one.replayed[0].untouched_bytes = Some(30 * MIB);
        assert_eq!(of(&one), ["30.0 MiB that were live at the replay's peak count as never touched"]);
        let two = config("today", "a", &[16, 115, 17, 115], 200);
        assert_eq!(of(&two), ["the program itself has two modes, around 16.5 and 115 MiB, and the replays have 200"]);
        let wide = config("today", "a", &[60, 70, 80, 90], 120);
        assert_eq!(of(&wide), ["the program itself varies by more than 10 % from run to run"]);
    }

    #[test]
    fn modes_of_the_program_are_among_those_of_the_replays() {
        let bimodal = |replays: &[u64]| {
            let mut one = config("today", "a", &[39, 44, 39, 44], 0);
            let alike = one.replayed[0].clone();
            one.replayed = replays
                .iter()
                .map(|mib| ReplayedRun { peak_bytes: mib * MIB, end_bytes: mib * MIB, ..alike.clone() })
                .collect();
            let judged = judge(&found(vec![one]));
            judged.rows.into_iter().find(|row| row.what == What::Peak).and_then(|row| row.inside)
        };
        assert_eq!(bimodal(&[39, 39, 44]), Some(true));
        assert_eq!(bimodal(&[44, 44, 44]), Some(false), "one of two modes");
        assert_eq!(bimodal(&[41, 42, 41]), Some(false), "between the modes");
        // Nor is a program half way between two modes of the replays predicted.
        let mut one = config("today", "a", &[41, 42, 41], 39);
        one.replayed.resize(4, one.replayed[0].clone());
        one.replayed[2..].iter_mut().for_each(|run| run.peak_bytes = 44 * MIB);
        assert_eq!(judge(&found(vec![one])).rows[0].inside, Some(false));
    }

    #[test]
    fn what_a_private_allocator_does_while_idle_is_not_predicted() {
        let mut own = config("today", "a", &[100], 40);
        own.replayed[0].rest = vec![(0, 20 * MIB), (1000, 20 * MIB)];
        let mapped = |mib| Some([("drained", mib), ("finalising", mib)].map(|(at, n)| (at.to_owned(), n * MIB)).into());
        let of = |mib| Fidelity { idle_ms: vec![0, 1000], mapped_bytes: mapped(mib), ..found(vec![own.clone()]) };
        let says = |found: &Fidelity, what| predicted(found, &own, what, true).map(|bytes| bytes / MIB as f64);
        let much = of(50);
        assert_eq!((says(&much, What::Peak), says(&much, What::Rest(0))), (Some(90.0), Some(70.0)));
        assert_eq!((says(&much, What::Rest(1000)), says(&much, What::End)), (None, None));
        assert_eq!(mapped_bytes_not_followed(&much), Some(50.0 * MIB as f64));
        let little = of(1);
        assert_eq!((says(&little, What::Rest(1000)), says(&little, What::End)), (Some(21.0), Some(41.0)));
        assert_eq!(mapped_bytes_not_followed(&little), None);
    }

    #[test]
    fn nothing_judged_is_nothing_held() {
        assert!(!judge(&found(vec![])).holds());
        let without = FidelityConfig { real: vec![], ..config("today", "a", &[], 5) };
        assert!(!judge(&found(vec![without])).holds());
    }

    #[test]
    fn order_counts_pairs_that_really_differ() {
        let configs = vec![
            config("today", "a", &[100, 101], 100),
            config("b", "b", &[150, 151], 99),
            config("c", "c", &[101, 102], 60),
        ];
        let judged = judge(&found(configs));
        let peak: Vec<_> = judged.pairs.iter().filter(|pair| pair.what == What::Peak).collect();
        assert_eq!(peak.len(), 2, "100 and 101 MiB do not differ: {peak:?}");
        assert_eq!(peak.iter().filter(|pair| pair.right).count(), 1);
        assert!(!judged.holds());
        // The replay would pick `c`, which is really within a twentieth of the best.
        let pick = &judged.picks[0];
        assert_eq!((pick.chosen, pick.best, pick.good), (2, 0, true));
    }

    #[test]
    fn a_bad_pick_is_said() {
        let configs = vec![config("today", "a", &[100], 100), config("b", "b", &[120], 90)];
        let pick = &judge(&found(configs)).picks[0];
        assert_eq!((pick.chosen, pick.best, pick.good), (1, 0, false));
        assert!((pick.above - 0.2).abs() < 1e-9);
    }

    #[test]
    fn a_pick_that_may_be_chance_is_said_to_overlap_and_stays_bad() {
        let configs = vec![config("today", "a", &[90, 100, 101], 80), config("b", "b", &[89, 90, 91], 90)];
        let pick = &judge(&found(configs)).picks[0];
        assert_eq!((pick.chosen, pick.best, pick.overlap, pick.good), (0, 1, true, false));
    }

    #[test]
    fn configurations_that_expand_alike_are_the_natural_comparison() {
        let configs =
            vec![config("today", "a", &[100], 100), config("b", "b", &[120], 120), config("c", "a", &[103], 100)];
        let judged = judge(&found(configs));
        assert_eq!(judged.same.len(), 1);
        assert_eq!((judged.same[0].one, judged.same[0].other), (0, 2));
        assert!((judged.same[0].apart[0].1 - 0.03).abs() < 1e-9);
    }

    #[test]
    fn memory_that_no_call_explains_is_a_reason() {
        let one = config("today", "a", &[100], 60);
        let judged = judge(&Fidelity { recorded_heap_bytes: Some(100 * MIB), ..found(vec![one]) });
        assert!(judged.misses[0].reasons[0].contains("39.0 MiB more"), "{:?}", judged.misses[0]);
    }

    #[test]
    fn another_interpreter_is_a_reason() {
        let mut one = config("today", "a", &[100], 60);
        one.real[0].steady_bytes = Some(7 * MIB);
        let judged = judge(&found(vec![one]));
        assert!(judged.misses[0].reasons[0].contains("2.00 MiB more than the recording"), "{:?}", judged.misses[0]);
    }

    #[test]
    fn process_memory_is_a_sum_of_what_is_known() {
        let one = config("b", "b", &[100], 100);
        let all = Fidelity { recorded_no_heap_bytes: Some(5 * MIB), ..found(vec![one]) };
        assert_eq!(predicted_rss_bytes_peak(&all, &all.configs[0]), Some((106 * MIB) as f64));
    }
}
