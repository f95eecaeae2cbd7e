//! `arenas-W`: every arena of the pool over the recording, the stronger the more of its pools are in use.
//!
//! Invariant: a cell is one reading of one arena, reaching half way to the readings beside it; an arena that was not
//! mapped has none. Where arenas outnumber pixels a row is several of them, and the chart says so.

use super::Drawing;
use super::axis;
use super::figure::{Axis, Mark, Owned, Panel, Series};
use super::subject::{Subject, Words, shown_runs};
use super::theme::{FULL, Ink};
use crate::analysis::pools::{PoolMoment, PoolsAnalysis};
use crate::analysis::{Analysis, ConfigAnalysis};
use crate::run::ArenaMap;
use crate::units;

/// Most rows of cells.
const ROWS_MAX: usize = 290;
/// Height of the map, and most of it that one row takes.
const HEIGHT: f64 = 290.0;
const ROW_MOST: f64 = 36.0;
/// Rows at least this high are parted by a pixel of paper.
const ROW_PARTED: f64 = 6.0;
/// Space above the map in which collections show, whatever is mapped.
const HEAD: f64 = 12.0;

/// Width of one reading at a mark, as a share of the map's.
const MARK_WEIGHT: f64 = 0.11;

/// What the scale shows.
const SHARE_KEY: &str = "of an arena's pools in use";
const EMPTY_KEY: &str = "mapped, no pool in use";

/// Draws it.
pub(super) fn draw(analysis: &Analysis, workload: usize) -> Option<Drawing> {
    let subject = Subject::new(analysis, workload)?;
    let shown: Vec<(&ConfigAnalysis, &PoolsAnalysis)> = subject
        .with_memory()
        .into_iter()
        .filter_map(|(config, memory)| Some((config, memory.pools.as_ref()?)))
        .filter(|(_, pools)| !pools.map.arenas.is_empty())
        .collect();
    let (config, pools) = *shown.first()?;
    let rows = Rows::new(&pools.map);
    let count = pools.map.arenas.len();

    let mut left = Panel::new(1.0, axis::progress(), axis::ordinals("arena, in address order", count));
    left.series = series(rows.over(&edges(&subject, &pools.map.ops)));
    subject.shade_collections(&mut left);
    left.bands_above = Some(left.y.high);
    left.parted.clone_from(&rows.parted);
    left.rules = subject.phase_rules();
    let head = if left.bands.is_empty() { 0.0 } else { HEAD };
    left.y.high += head / rows.arena;
    let (from, to) = (left.y.low, left.y.high);
    left.owned.push(Owned { from, to, slot: subject.slot(config), name: config.label.clone() });
    let mut right = at_marks(pools, &rows, &left.y);
    right.iter_mut().for_each(|right| right.owned.clone_from(&left.owned));

    let memory = config.memory.as_ref()?;
    let others: Vec<&str> = shown[1..].iter().map(|(config, _)| config.name.as_str()).collect();
    let words = Words {
        title: format!("{}: how full the arenas of the pool are", subject.workload.name),
        subtitle: subtitle(&subject, config, pools, rows.each, &others),
        alt: format!(
            "Arenas of {} on {}, in address order over the recording. {}.",
            config.name,
            subject.workload.name,
            pools.moments.iter().map(moment_in_full).collect::<Vec<_>>().join(". ")
        ),
        plot_height: count as f64 * rows.arena + head,
    };
    let panels = [left].into_iter().chain(right).collect();
    Some(Drawing::new(subject.figure(words, panels, shown_runs(&[(config, memory)]))))
}

/// The readings that rest and end are about, wide enough to be seen; `None` when the map has neither.
fn at_marks(pools: &PoolsAnalysis, rows: &Rows<'_>, y: &Axis) -> Option<Panel> {
    let read = |moment: &PoolMoment| Some((moment.name, pools.map.ops.binary_search(&moment.op).ok()?));
    let marks: Vec<(&str, usize)> = pools.moments.iter().skip(1).filter_map(read).collect();
    let names: Vec<&str> = marks.iter().map(|(name, _)| *name).collect();
    let y = Axis { label: "same arenas".into(), shared: true, ..y.clone() };
    let weight = MARK_WEIGHT * marks.len() as f64;
    let mut panel = Panel::new(weight, axis::places("arenas left", &names), y);
    let mut cells = Cells::default();
    for (i, (_, reading)) in marks.iter().enumerate() {
        cells.extend(rows.at(*reading, (i as f64 + 0.06, i as f64 + 0.94)));
    }
    panel.series = series(cells);
    panel.parted.clone_from(&rows.parted);
    (!marks.is_empty()).then_some(panel)
}

/// Lower left and upper right corner of a cell, and its step on the scale.
type Cells = Vec<([(f64, f64); 2], usize)>;

/// A series for each step of the scale, whether it occurs or not, and one for what is mapped and empty if any is.
fn series(cells: Cells) -> Vec<Series> {
    let series = |step: usize| {
        let key = if step == 0 { EMPTY_KEY } else { SHARE_KEY };
        let own = cells.iter().filter(|(_, of)| *of == step).map(|(corners, _)| corners.to_vec());
        Series { pieces: own.collect(), ..Series::new(key, Ink::Fill(step), Mark::Cells, Vec::new()) }
    };
    let empty = [series(0)].into_iter().filter(|series| !series.pieces.is_empty());
    (1..=FULL).map(series).chain(empty).collect()
}

/// The arenas as rows of cells.
struct Rows<'a> {
    map: &'a ArenaMap,
    /// Arenas to a row.
    each: usize,
    /// Height of one arena in the picture.
    arena: f64,
    /// Where a line parts one row from the next.
    parted: Vec<f64>,
}

impl<'a> Rows<'a> {
    fn new(map: &'a ArenaMap) -> Self {
        let each = map.arenas.len().div_ceil(ROWS_MAX).max(1);
        let rows = map.arenas.len() as f64 / each as f64;
        let row = ((HEIGHT / rows * 2.0).floor() / 2.0).clamp(1.0, ROW_MOST);
        let arena = row / each as f64;
        let parted = if row >= ROW_PARTED { 1..map.arenas.len() } else { 0..0 };
        Self { map, each, arena, parted: parted.map(|below| below as f64 + 0.5).collect() }
    }

    /// Foot and head of each row, and its step at each reading; `None` while none of its arenas is mapped.
    fn steps(&self) -> impl Iterator<Item = (f64, f64, Vec<Option<usize>>)> + '_ {
        self.map.arenas.chunks(self.each).enumerate().map(|(row, arenas)| {
            let mut held = vec![None; self.map.ops.len()];
            for arena in arenas {
                for (held, in_use) in held.iter_mut().zip(arena.at_each_reading()) {
                    if let Some(in_use) = in_use {
                        let (sum, pools) = held.unwrap_or((0, 0));
                        *held = Some((sum + in_use, pools + arena.pools));
                    }
                }
            }
            let foot = (row * self.each) as f64 + 0.5;
            let steps = held.into_iter().map(|held| held.map(step)).collect();
            (foot, foot + arenas.len() as f64, steps)
        })
    }

    /// Every reading between its edges; cells of one step in a row become one.
    fn over(&self, edges: &[f64]) -> Cells {
        let mut cells = Cells::new();
        for (foot, head, steps) in self.steps() {
            let mut from = 0;
            for run in steps.chunk_by(|a, b| a == b) {
                let to = from + run.len();
                cells.extend(run[0].map(|step| ([(edges[from], foot), (edges[to], head)], step)));
                from = to;
            }
        }
        cells
    }

    /// One reading between two edges.
    fn at(&self, reading: usize, (left, right): (f64, f64)) -> Cells {
        let cell = |(foot, head, steps): (f64, f64, Vec<Option<usize>>)| {
            steps[reading].map(|step| ([(left, foot), (right, head)], step))
        };
        self.steps().filter_map(cell).collect()
    }
}

/// The step of the scale for `(pools in use, pools)`: 0 for none, else the eighth that the share lies in.
fn step((in_use, pools): (u32, u32)) -> usize {
    (in_use as usize * FULL).div_ceil(pools.max(1) as usize).min(FULL)
}

/// Where the cells of each reading begin, and where the last one's end, per cent of the recording.
fn edges(subject: &Subject<'_>, ops: &[u64]) -> Vec<f64> {
    let at: Vec<f64> = ops.iter().map(|op| subject.op_progress(*op)).collect();
    if let [only] = at[..] {
        return vec![only.min(99.0), only.min(99.0) + 1.0];
    }
    let middles = at.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
    at.first().copied().into_iter().chain(middles).chain(at.last().copied()).collect()
}

fn subtitle(
    subject: &Subject<'_>,
    config: &ConfigAnalysis,
    pools: &PoolsAnalysis,
    each: usize,
    others: &[&str],
) -> String {
    let bytes = pools.moments.first().map_or(0, |moment| moment.statistics.arena_bytes);
    let counts = pools.moments.iter().enumerate().map(|(i, moment)| {
        let count = moment.statistics.arenas_mapped;
        let what = if i == 0 { format!("{} of {}", arenas(count), size(bytes)) } else { count.to_string() };
        format!("{what} {}", moment.name)
    });
    let filled = pools.moments.iter().map(filled);
    let mut text = format!("{}; blocks in use fill {} of them.", list(counts), list(filled));
    let below = pools.moments.iter().skip(1).filter_map(below_half);
    let below = list(below);
    if pools.moments.iter().skip(1).all(|moment| moment.arenas_below_half == Some(0)) {
        text.push_str(" No arena left has less than half of its pools in use.");
    } else if !below.is_empty() {
        text.push_str(&format!(" Less than half of their pools in use: {below}."));
    }
    text.push_str(" One block makes a pool in use; blank is not mapped.");
    if each > 1 {
        text.push_str(&format!(" A row is {each} neighbouring arenas."));
    }
    if let Some(op) = pools.map.stopped_at {
        let at = subject.op_progress(op);
        text.push_str(&format!(" Readings stop at {at:.0} %: more arenas than the list has room for."));
    }
    if !others.is_empty() {
        let have = if others.len() == 1 { "has" } else { "have" };
        let others = list(others.iter().map(|name| (*name).to_owned()));
        text.push_str(&format!(" Shown for {}; {others} {have} pools too.", config.name));
    }
    text
}

fn arenas(count: u64) -> String {
    if count == 1 { "1 arena".into() } else { format!("{count} arenas") }
}

/// `a`, `a and b`, `a, b and c`.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    match &items[..] {
        [first @ .., before, last] if !first.is_empty() => format!("{}, {before} and {last}", first.join(", ")),
        few => few.join(" and "),
    }
}

/// How much of the arenas is blocks in use: `54 %`.
fn filled(moment: &PoolMoment) -> String {
    let mapped = moment.statistics.mapped_bytes().max(1) as f64;
    format!("{:.0} %", moment.statistics.allocated_bytes as f64 * 100.0 / mapped)
}

/// `3 at rest`, `none at end`.
fn below_half(moment: &PoolMoment) -> Option<String> {
    let count = match moment.arenas_below_half? {
        0 => "none".into(),
        count => count.to_string(),
    };
    Some(format!("{count} {}", moment.name))
}

/// A moment for those who cannot see the chart.
fn moment_in_full(moment: &PoolMoment) -> String {
    let statistics = &moment.statistics;
    let (count, live) = (arenas(statistics.arenas_mapped), units::mib(statistics.allocated_bytes as f64));
    let name = moment.name.trim_start_matches("at ");
    let mut text =
        format!("At {name} {count} mapped, {live} MiB in blocks in use, {} of what is mapped", filled(moment));
    if let Some(below) = moment.arenas_below_half {
        text.push_str(&format!(", {below} with less than half of their pools in use"));
    }
    text
}

/// `1 MiB`, `256 KiB`.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::with_arenas;
    use super::*;
    use crate::analysis::fixture::{self, Invention};
    use crate::chart::scene::Shape;

    fn pools(analysis: &Analysis, workload: usize) -> &PoolsAnalysis {
        analysis.workloads[workload].configs[0].memory.as_ref().unwrap().pools.as_ref().unwrap()
    }

    /// The step that is drawn at a point of a panel.
    fn drawn(panel: &Panel, x: f64, y: f64) -> Option<usize> {
        let covers = |piece: &[(f64, f64)]| {
            let [(left, foot), (right, head)] = piece else { panic!("a cell has two corners") };
            (*left..*right).contains(&x) && (*foot..*head).contains(&y)
        };
        let mut found = panel.series.iter().filter(|s| s.mark == Mark::Cells && s.pieces.iter().any(|p| covers(p)));
        let Ink::Fill(step) = found.next()?.ink else { panic!("cells of another ink") };
        assert!(found.next().is_none(), "two cells at ({x}, {y})");
        Some(step)
    }

    fn expected(in_use: Option<u32>, pools: u32) -> Option<usize> {
        in_use.map(|in_use| (f64::from(in_use) / f64::from(pools) * 8.0).ceil() as usize)
    }

    #[test]
    fn every_cell_is_the_reading_it_stands_for() {
        let mut seen = [0; FULL + 2];
        for (analysis, w) in [(fixture::analysis(&Invention::default()), 0), (with_arenas(40), 0), (with_arenas(40), 1)]
        {
            let figure = draw(&analysis, w).unwrap().figure;
            let map = &pools(&analysis, w).map;
            let ops = analysis.environment.workloads[w].image.ops as f64;
            for (number, arena) in (1..).zip(&map.arenas) {
                for (reading, in_use) in arena.at_each_reading().enumerate() {
                    // The first and the last cell begin and end at their readings.
                    let aside = if reading == 0 { 1.0 } else { -1.0 };
                    let x = (map.ops[reading] as f64 + aside) * 100.0 / ops;
                    let step = expected(in_use, arena.pools);
                    assert_eq!(
                        drawn(&figure.panels[0], x, f64::from(number)),
                        step,
                        "arena {number}, reading {reading}"
                    );
                    seen[step.map_or(FULL + 1, |step| step)] += 1;
                }
            }
            for (place, moment) in pools(&analysis, w).moments.iter().skip(1).enumerate() {
                let reading = map.ops.iter().position(|op| *op == moment.op).unwrap();
                for (number, arena) in (1..).zip(&map.arenas) {
                    let step = expected(arena.at_each_reading().nth(reading).unwrap(), arena.pools);
                    assert_eq!(drawn(&figure.panels[1], place as f64 + 0.5, f64::from(number)), step);
                }
            }
        }
        assert!(seen.iter().all(|count| *count > 0), "a step was never seen: {seen:?}");
    }

    #[test]
    fn a_share_lies_in_its_eighth_and_only_nothing_is_empty() {
        assert_eq!(
            [(0, 64), (1, 64), (8, 64), (9, 64), (63, 64), (64, 64), (63, 63), (1, 63)].map(step),
            [0, 1, 1, 2, 8, 8, 8, 1]
        );
    }

    #[test]
    fn more_arenas_than_pixels_share_rows_and_the_chart_says_so() {
        let each_of = |count| {
            let drawing = draw(&with_arenas(count), 0).unwrap();
            let feet = drawing.figure.panels[0].series.iter().flat_map(|s| &s.pieces).map(|piece| piece[0].1);
            let mut feet: Vec<i64> = feet.map(|foot| (foot * 2.0) as i64).collect();
            feet.sort_unstable();
            feet.dedup();
            assert_eq!(drawing.figure.subtitle.contains("neighbouring"), feet.len() < count as usize, "{count}");
            // No two readings alike: a result holds half as many changes at most.
            assert!(drawing.svg().len() < 512 << 10, "{count}: {} bytes", drawing.svg().len());
            feet.len()
        };
        assert_eq!([1, 2, 290].map(each_of), [1, 2, 290]);
        assert_eq!((each_of(291), each_of(5_000)), (146, 278));
        assert!(draw(&with_arenas(5_000), 0).unwrap().figure.subtitle.contains("A row is 18 neighbouring arenas."));
        // Two of 64 pools and none of 64, and an arena that is not mapped counts for nothing.
        let mut analysis = with_arenas(582);
        let map = &mut analysis.workloads[0].configs[0].memory.as_mut().unwrap().pools.as_mut().unwrap().map;
        let all = map.ops.len() as u32;
        for (arena, in_use) in map.arenas.iter_mut().zip([Some(40), Some(8), None, None, None, Some(64)]) {
            arena.in_use = vec![(all, in_use)];
        }
        let figure = draw(&analysis, 0).unwrap().figure;
        assert_eq!([2.0, 5.0].map(|y| drawn(&figure.panels[0], 50.0, y)), [Some(3), Some(8)]);
    }

    #[test]
    fn what_is_not_there_is_not_drawn_and_what_is_left_out_is_said() {
        assert!(draw(&with_arenas(0), 0).is_none());
        let mut analysis = fixture::analysis(&Invention::default());
        let text = draw(&analysis, 0).unwrap().figure.subtitle;
        assert!(
            text.starts_with("14 arenas of 1 MiB at peak, 10 at rest and 10 at end; blocks in use fill "),
            "{text}"
        );
        assert!(text.contains("Less than half of their pools in use: 5 at rest and 5 at end."), "{text}");
        let memory = analysis.workloads[0].configs[1].memory.as_mut().unwrap();
        assert!(memory.pools.is_none());
        memory.pools = fixture::analysis(&Invention::default()).workloads[0].configs[0].memory.take().unwrap().pools;
        let first = analysis.workloads[0].configs[0].memory.as_mut().unwrap();
        let map = &mut first.pools.as_mut().unwrap().map;
        map.stopped_at = Some(500_000);
        let kept = map.ops.partition_point(|op| *op < 500_000);
        map.ops.truncate(kept);
        let figure = draw(&analysis, 0).unwrap().figure;
        assert!(figure.subtitle.contains("Readings stop at 50 %: more arenas"), "{}", figure.subtitle);
        assert!(figure.subtitle.ends_with("Shown for pool; system has pools too."), "{}", figure.subtitle);
        assert_eq!(figure.panels.len(), 1, "readings at rest and at the end were drawn that were not taken");
        for workload in &mut analysis.workloads {
            workload.configs.iter_mut().for_each(|config| config.memory.as_mut().unwrap().pools = None);
        }
        assert!(draw(&analysis, 0).is_none(), "a result from before pools were read");
    }

    #[test]
    fn cells_lie_on_half_pixels_within_the_plot_and_never_overlap() {
        for count in [1, 7, 33, 181, 300] {
            let scene = draw(&with_arenas(count), 0).unwrap().scene;
            let mut all: Vec<_> = Vec::new();
            for shape in &scene.shapes {
                if let Shape::Cells { cells, .. } = shape {
                    all.extend(cells.iter().copied());
                }
            }
            let halves = |value: f64| (value * 2.0).fract() == 0.0;
            assert!(all.iter().all(|(a, b)| [a.0, a.1, b.0, b.1].into_iter().all(halves)));
            all.sort_by(|(a, _), (b, _)| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)));
            for pair in all.windows(2).filter(|pair| pair[0].0.1 == pair[1].0.1) {
                assert!(pair[0].1.0 <= pair[1].0.0, "{count} arenas: {pair:?}");
            }
        }
    }
}
