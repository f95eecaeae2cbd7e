//! Memory of one configuration on one workload, and fragmentation by formula.
//!
//! Invariant: figures and single readings are medians of all runs; curves, owners and pools come from one and the same
//! run, which is named.

use super::modes::{self, Mode};
use super::stats::median;
use super::{Figure, MemoryAnalysis, ShownRun, fidelity, owners, pools, shape};
use crate::metric::{self, Metric};
use crate::run::{ConfigFacts, Footprint, MemoryPoint, RestPoint, RestState, Run};
use trace::{Domain, Phase, image::ImageSummary};

/// Live requested bytes below which a ratio of resident to live says nothing: allocators' fixed costs dominate.
pub const RATIO_LIVE_BYTES_MIN: u64 = 4 << 20;

/// Memory of one configuration, whose figures are given by the key of their metric; `None` without a footprint pass.
#[must_use]
pub fn memory(
    runs: &[&Run],
    figures: &[(&str, Figure)],
    image: &ImageSummary,
    config: &ConfigFacts,
) -> Option<MemoryAnalysis> {
    let (shown, run) = shown_run(runs)?;
    let all: Vec<&Footprint> = runs.iter().filter_map(|run| metric::footprint(run)).collect();
    let rest_readings = rest_readings(&all);
    let at_rest = median_point(&all.iter().map(|run| metric::at_rest(run).memory).collect::<Vec<_>>());
    let at_peak = median_point(&all.iter().map(|run| run.peak).collect::<Vec<_>>());
    let of = |metric: &Metric| figures.iter().find(|(key, _)| *key == metric.key).map(|(_, figure)| *figure);
    let (internal, external) = fragmentation(&at_peak);
    Some(MemoryAnalysis {
        peak: of(metric::RSS_BYTES_PEAK)?,
        end: of(metric::RSS_BYTES_END)?,
        rest: of(metric::RSS_BYTES_REST)?,
        released: of(metric::RSS_BYTES_RELEASED).map(|figure| figure.value),
        rest_after_ms: metric::at_rest(run).after_ms,
        rest_from: run.rest_from.clone(),
        time: run.time,
        rest_live_bytes: at_rest.requested_bytes as f64,
        peak_live_bytes: image.live_bytes_peak_steady as f64,
        shown,
        curve: run.curve.clone(),
        rest_curve: run.rest.clone(),
        at_peak,
        at_rest,
        internal,
        external,
        johnstone_wilson: johnstone_wilson(run, image),
        pools: pools::pools(run),
        rest_shape: shape::rest(&rest_readings),
        rest_readings,
        cycles: run.cycles.clone(),
        cycles_shape: shape::cycles(&run.cycles),
        owners: owners::owners(run, config.domains.get(Domain::Libc.name()).map_or("", String::as_str)),
    })
}

/// The modes of each headline figure that has two, by the key of its metric. Bars are those of `live`, by the number of
/// threads that allocate.
#[must_use]
pub fn bimodal(runs: &[&Run], threads: u32) -> Vec<(&'static str, Vec<Mode>)> {
    let of = |metric: &Metric| {
        let values = || runs.iter().filter_map(|run| (metric.of)(run));
        let bar = fidelity::allowance(threads, median(values())?);
        Some((metric.key, modes::modes(values(), bar, fidelity::REPLAYS_OF_A_MODE)))
            .filter(|(_, modes)| modes.len() > 1)
    };
    [metric::RSS_BYTES_PEAK, metric::RSS_BYTES_END, metric::RSS_BYTES_REST].into_iter().filter_map(of).collect()
}

/// The run that is nearest to the medians of peak and rest, by the larger of its two distances; of equal ones the first
/// measured.
fn shown_run<'a>(runs: &[&'a Run]) -> Option<(ShownRun, &'a Footprint)> {
    let mut passes: Vec<(u32, &Footprint)> =
        runs.iter().filter_map(|run| metric::footprint(run).map(|footprint| (run.block, footprint))).collect();
    passes.sort_by_key(|(block, _)| *block);
    let of: [fn(&Footprint) -> u64; 2] =
        [|run| run.peak.resident_bytes, |run| metric::at_rest(run).memory.resident_bytes];
    let medians = of.map(|of| median_of(passes.iter().map(|(_, run)| of(run))));
    let distance = |run: &Footprint| {
        let apart =
            |(of, median): (&fn(&Footprint) -> u64, u64)| of(run).abs_diff(median) as f64 / median.max(1) as f64;
        of.iter().zip(medians).map(apart).fold(0.0, f64::max)
    };
    let nearest = passes.iter().enumerate().min_by(|a, b| distance(a.1.1).total_cmp(&distance(b.1.1)));
    nearest.map(|(at, (_, run))| (ShownRun { number: at as u32 + 1, of: passes.len() as u32 }, *run))
}

/// The median of whole numbers; 0 without any.
fn median_of(values: impl Iterator<Item = u64>) -> u64 {
    median(values.map(|value| value as f64)).unwrap_or(0.0) as u64
}

/// The median of each field.
fn median_point(points: &[MemoryPoint]) -> MemoryPoint {
    let of = |field: fn(&MemoryPoint) -> u64| median_of(points.iter().map(field));
    MemoryPoint {
        op: of(|p| p.op),
        requested_bytes: of(|p| p.requested_bytes),
        blocks: of(|p| p.blocks),
        usable_bytes: of(|p| p.usable_bytes),
        mapped_bytes: of(|p| p.mapped_bytes),
        resident_bytes: of(|p| p.resident_bytes),
        lazy_free_bytes: of(|p| p.lazy_free_bytes),
        huge_bytes: of(|p| p.huge_bytes),
    }
}

/// The median of every reading at rest, over the runs that made the same readings as the first.
fn rest_readings(runs: &[&Footprint]) -> Vec<RestPoint> {
    let states = |run: &Footprint| run.rest.iter().map(|point| point.state).collect::<Vec<RestState>>();
    let Some(first) = runs.first() else { return Vec::new() };
    let alike: Vec<&&Footprint> = runs.iter().filter(|run| states(run) == states(first)).collect();
    let reading = |at: usize| RestPoint {
        state: first.rest[at].state,
        after_ms: median_of(alike.iter().map(|run| run.rest[at].after_ms)),
        memory: median_point(&alike.iter().map(|run| run.rest[at].memory).collect::<Vec<_>>()),
    };
    (0..first.rest.len()).map(reading).collect()
}

/// Internal (usable / requested) and external (resident / usable) fragmentation at one moment; NaN where a denominator
/// is 0.
#[must_use]
pub fn fragmentation(at: &MemoryPoint) -> (f64, f64) {
    let ratio = |a: u64, b: u64| if b == 0 { f64::NAN } else { a as f64 / b as f64 };
    (ratio(at.usable_bytes, at.requested_bytes), ratio(at.resident_bytes, at.usable_bytes))
}

/// Johnstone and Wilson's four ratios of resident to live requested bytes within the headline: (1) mean over its
/// readings; (2) at the reading with most live bytes; (3) most resident over live at that reading; (4) most resident
/// over most live. Readings with less than [`RATIO_LIVE_BYTES_MIN`] live count in (2) to (4) only; NaN where nothing
/// qualifies.
#[must_use]
pub fn johnstone_wilson(run: &Footprint, image: &ImageSummary) -> [f64; 4] {
    let within = headline_ops(image);
    let points: Vec<&MemoryPoint> =
        run.curve.iter().chain([&run.peak]).filter(|p| within.contains(&p.op) && p.requested_bytes > 0).collect();
    let ratio = |a: &MemoryPoint, b: &MemoryPoint| a.resident_bytes as f64 / b.requested_bytes as f64;
    let large = points.iter().filter(|p| p.requested_bytes >= RATIO_LIVE_BYTES_MIN);
    let (sum, n) = large.fold((0.0, 0u32), |(sum, n), p| (sum + ratio(p, p), n + 1));
    let mean = if n == 0 { f64::NAN } else { sum / f64::from(n) };
    let most_live = points.iter().max_by_key(|p| p.requested_bytes);
    let most_resident = points.iter().max_by_key(|p| p.resident_bytes);
    let (Some(live), Some(resident)) = (most_live, most_resident) else { return [f64::NAN; 4] };
    [mean, ratio(live, live), ratio(resident, resident), ratio(resident, live)]
}

/// The ops that the headline covers: `steady` up to the next mark, or everything without that mark.
fn headline_ops(image: &ImageSummary) -> std::ops::RangeInclusive<u64> {
    let Some(first) = image.phase_ops[Phase::Steady as usize] else { return 0..=u64::MAX };
    let next = [Phase::Drained, Phase::Finalising].iter().filter_map(|p| image.phase_ops[*p as usize]).min();
    first..=next.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::SealReport;

    const MIB: u64 = 1 << 20;

    fn point(op: u64, requested: u64, resident: u64) -> MemoryPoint {
        let requested_bytes = requested * MIB;
        MemoryPoint {
            op,
            requested_bytes,
            usable_bytes: requested_bytes * 5 / 4,
            resident_bytes: resident * MIB,
            ..MemoryPoint::default()
        }
    }

    fn footprint(curve: Vec<MemoryPoint>) -> Footprint {
        let peak = curve.iter().copied().max_by_key(|p| p.resident_bytes).unwrap_or_default();
        Footprint {
            end: peak,
            curve,
            at_phase: vec![],
            peak,
            rest_from: "last op".into(),
            rest: vec![],
            faults_minor: 0,
            high_water_bytes: Vec::new(),
            pools: None,
            cycles: Vec::new(),
            at_marks: Vec::new(),
            owners: Vec::new(),
            time: None,
            failed_allocations: 0,
            unreplayed: Default::default(),
            seal: SealReport::default(),
        }
    }

    #[test]
    fn the_four_ratios_by_hand() {
        // Live 10, 20, 8; resident 20, 24, 32; then a point below 4 MiB, and one after steady that must not count.
        let run =
            footprint(vec![point(10, 10, 20), point(20, 20, 24), point(30, 8, 32), point(40, 1, 8), point(99, 50, 90)]);
        let image = ImageSummary { phase_ops: [Some(0), Some(5), Some(50), None], ..ImageSummary::default() };
        let run = Footprint { peak: point(30, 8, 32), ..run };
        let [mean, at_live, at_resident, apart] = johnstone_wilson(&run, &image);
        assert!((mean - (2.0 + 1.2 + 4.0 + 4.0) / 4.0).abs() < 1e-12, "{mean}");
        assert_eq!((at_live, at_resident, apart), (1.2, 4.0, 1.6));
    }

    #[test]
    fn every_table_and_figure_has_the_same_rest() {
        let of = |peak: u64, rest: u64| {
            let memory = point(9, 1, rest);
            let rest = vec![RestPoint { state: RestState::Idle, after_ms: 0, memory }];
            Footprint { rest, ..footprint(vec![point(5, 10, peak)]) }
        };
        // The run whose peak is the median rests at 133, the median rest is 320.
        let runs = [of(400, 320), of(401, 133), of(402, 321)];
        let all: Vec<&Footprint> = runs.iter().collect();
        assert_eq!(rest_readings(&all)[0].memory.resident_bytes, 320 * MIB);
        let as_run = |(block, run): (usize, &Footprint)| Run {
            block: block as u32,
            outcome: crate::run::Outcome::Ok(crate::run::Observation::Footprint(Box::new(run.clone()))),
            ..crate::analysis::fixture::runs(&crate::analysis::fixture::Invention::default()).swap_remove(0)
        };
        let runs: Vec<Run> = runs.iter().enumerate().map(as_run).collect();
        let (shown, run) = shown_run(&runs.iter().collect::<Vec<_>>()).expect("runs");
        assert_eq!((shown, run.peak.resident_bytes), (ShownRun { number: 1, of: 3 }, 400 * MIB));
    }

    #[test]
    fn nothing_live_gives_no_ratio() {
        let run = footprint(vec![point(0, 0, 1)]);
        assert!(johnstone_wilson(&run, &ImageSummary::default()).iter().all(|r| r.is_nan()));
        let (internal, external) = fragmentation(&point(0, 0, 1));
        assert!(internal.is_nan() && external.is_nan());
        assert_eq!(fragmentation(&point(0, 4, 10)), (1.25, 2.0));
    }
}
