//! Memory of one configuration on one workload, and fragmentation by formula.
//!
//! Invariant: curves and points come from one and the same run (the one whose peak is the median), figures from all.

use super::{Figure, MemoryAnalysis, owners, pools, shape};
use crate::metric::{self, Metric};
use crate::run::{ConfigFacts, Footprint, MemoryPoint, Run};
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
    let median = median_run(runs)?;
    let at_rest = metric::at_rest(median);
    let of = |metric: &Metric| figures.iter().find(|(key, _)| *key == metric.key).map(|(_, figure)| *figure);
    let (internal, external) = fragmentation(&median.peak);
    Some(MemoryAnalysis {
        peak: of(metric::RSS_BYTES_PEAK)?,
        end: of(metric::RSS_BYTES_END)?,
        rest: of(metric::RSS_BYTES_REST)?,
        released: of(metric::RSS_BYTES_RELEASED).map(|figure| figure.value),
        rest_after_ms: at_rest.after_ms,
        rest_from: median.rest_from.clone(),
        time: median.time,
        rest_live_bytes: at_rest.memory.requested_bytes as f64,
        peak_live_bytes: image.live_bytes_peak_steady as f64,
        curve: median.curve.clone(),
        rest_curve: median.rest.clone(),
        at_peak: median.peak,
        at_rest: at_rest.memory,
        internal,
        external,
        johnstone_wilson: johnstone_wilson(median, image),
        pools: pools::pools(median),
        rest_shape: shape::rest(median),
        cycles: median.cycles.clone(),
        cycles_shape: shape::cycles(&median.cycles),
        owners: owners::owners(median, config.domains.get(Domain::Libc.name()).map_or("", String::as_str)),
    })
}

/// The run whose peak is the median; of two middle ones the lower, of equal ones the first measured.
fn median_run<'a>(runs: &[&'a Run]) -> Option<&'a Footprint> {
    let mut passes: Vec<(u64, u32, &Footprint)> =
        runs.iter().filter_map(|run| metric::footprint(run).map(|f| (f.peak.resident_bytes, run.block, f))).collect();
    passes.sort_by_key(|(peak, block, _)| (*peak, *block));
    passes.get(passes.len().checked_sub(1)? / 2).map(|(_, _, footprint)| *footprint)
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
            owners: Vec::new(),
            time: None,
            failed_allocations: 0,
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
    fn nothing_live_gives_no_ratio() {
        let run = footprint(vec![point(0, 0, 1)]);
        assert!(johnstone_wilson(&run, &ImageSummary::default()).iter().all(|r| r.is_nan()));
        let (internal, external) = fragmentation(&point(0, 0, 1));
        assert!(internal.is_nan() && external.is_nan());
        assert_eq!(fragmentation(&point(0, 4, 10)), (1.25, 2.0));
    }
}
