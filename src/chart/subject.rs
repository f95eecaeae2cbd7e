//! The workload that a chart is about: what every chart says the same way about it.
//!
//! Invariant: caption, names and progress are computed here only, so that charts of a result agree.

use super::figure::{Band, Figure, LegendEntry, Mark, Panel, Rule, Series, legend};
use super::labels::shorten;
use super::theme::{self, Ink};
use crate::analysis::{Analysis, ConfigAnalysis, Estimate, MemoryAnalysis, WorkloadAnalysis};
use crate::run::{MemoryPoint, WorkloadFacts};
use crate::units;
use trace::Phase;

/// Above this many, only collections of the oldest generation are shaded.
const COLLECTIONS_MOST: usize = 120;
/// Shades nearer to each other than this, in per cent of the recording, become one.
const COLLECTIONS_NEAR: f64 = 0.2;
/// Strength of a shade that stands for hardly any time in collections.
const STRENGTH_LEAST: f64 = 0.3;

/// A workload with its surroundings.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    analysis: &'a Analysis,
    /// Its numbers.
    pub(super) workload: &'a WorkloadAnalysis,
    /// What its trace says.
    pub(super) facts: &'a WorkloadFacts,
}

impl<'a> Subject<'a> {
    /// The workload at an index of the analysis.
    #[must_use]
    pub(super) fn new(analysis: &'a Analysis, workload: usize) -> Option<Self> {
        let workload = analysis.workloads.get(workload)?;
        let facts = analysis.environment.workloads.get(workload.facts)?;
        Some(Self { analysis, workload, facts })
    }

    /// The look of a configuration.
    #[must_use]
    pub(super) fn slot(&self, config: &ConfigAnalysis) -> usize {
        theme::slots(&self.analysis.environment.configs).get(config.config).copied().unwrap_or(0)
    }

    /// The colour of a configuration.
    #[must_use]
    pub(super) fn ink(&self, config: &ConfigAnalysis) -> Ink {
        Ink::Series(self.slot(config))
    }

    /// Configurations whose memory was measured.
    #[must_use]
    pub(super) fn with_memory(&self) -> Vec<(&'a ConfigAnalysis, &'a MemoryAnalysis)> {
        self.workload.configs.iter().filter_map(|config| Some((config, config.memory.as_ref()?))).collect()
    }

    /// What is live, and where least and most is still resident: sentences for those who cannot see a chart of memory.
    #[must_use]
    pub(super) fn extremes(&self) -> String {
        let mut configs = self.with_memory();
        configs.sort_by(|a, b| a.1.rest.value.median.total_cmp(&b.1.rest.value.median));
        let (Some((least, low)), Some((most, high))) = (configs.first(), configs.last()) else { return String::new() };
        let (peak, rest) = (units::mib(low.peak_live_bytes), units::mib(low.rest_live_bytes));
        let mut text = format!(" The program itself holds {peak} MiB live at its peak and {rest} MiB at rest.");
        if configs.len() > 1 && low.rest.value.median < high.rest.value.median {
            let [low, high] = [low, high].map(|memory| units::mib(memory.rest.value.median));
            text.push_str(&format!(
                " Least is still resident at rest with {}, {low} MiB, most with {}, {high} MiB.",
                least.name, most.name
            ));
        }
        text
    }

    /// Index of the baseline's configuration: the first contestant that was run here, whether it measured or not.
    #[must_use]
    pub(super) fn baseline(&self) -> Option<usize> {
        self.workload.baseline
    }

    /// The baseline's label, cut to what fits among other words.
    #[must_use]
    pub(super) fn baseline_label(&self) -> String {
        let label = self.baseline().map_or("the baseline", |i| self.analysis.environment.configs[i].label.as_str());
        shorten(label, 13.0, 180.0)
    }

    /// Progress of an op, per cent.
    #[must_use]
    pub(super) fn op_progress(&self, op: u64) -> f64 {
        share(op, self.last_op())
    }

    fn last_op(&self) -> u64 {
        let points = self.with_memory().into_iter().flat_map(|(_, memory)| memory.curve.last().map(|point| point.op));
        points.max().unwrap_or(0).max(self.facts.image.ops)
    }

    /// Progress of an event, per cent: between phase marks, which are known as events and as ops.
    #[must_use]
    pub(super) fn event_progress(&self, event: u64) -> f64 {
        let (shape, image) = (&self.facts.shape, &self.facts.image);
        let known = shape.phase_events.iter().zip(&image.phase_ops).filter_map(|(event, op)| Some(((*event)?, (*op)?)));
        let mut anchors: Vec<(u64, u64)> = known.collect();
        anchors.extend([(0, 0), (image.events.max(self.facts.metadata.totals.events), image.ops)]);
        anchors.sort_unstable();
        let after = anchors.partition_point(|(at, _)| *at <= event).clamp(1, anchors.len() - 1);
        let ((e0, o0), (e1, o1)) = (anchors[after - 1], anchors[after]);
        let within = if e1 > e0 { (event.saturating_sub(e0) as f64 / (e1 - e0) as f64).min(1.0) } else { 0.0 };
        let op = o0 as f64 + within * o1.saturating_sub(o0) as f64;
        (op * 100.0 / self.last_op().max(1) as f64).min(100.0)
    }

    /// A line at each phase mark after start-up.
    #[must_use]
    pub(super) fn phase_rules(&self) -> Vec<Rule> {
        let marks = Phase::ALL.into_iter().zip(self.facts.image.phase_ops).skip(1);
        let rule = |(phase, op): (Phase, Option<u64>)| {
            op.map(|op| Rule { at: self.op_progress(op), label: phase.name().into(), dashed: true })
        };
        marks.filter_map(rule).collect()
    }

    /// Shades the collections in a panel over the progress of the recording, with an entry in the legend.
    pub(super) fn shade_collections(&self, panel: &mut Panel) {
        let all = &self.facts.shape.collections;
        let oldest = all.iter().map(|(_, _, generation)| *generation).max().unwrap_or(0);
        let only_oldest = all.len() > COLLECTIONS_MOST;
        let shown = all.iter().filter(|(_, _, generation)| !only_oldest || *generation == oldest);
        let (mut count, mut covered) = (0, 0.0);
        for (from, to, _) in shown {
            count += 1;
            let (from, to) = (self.event_progress(*from), self.event_progress(*to));
            match panel.bands.last_mut() {
                Some(last) if from - last.to < COLLECTIONS_NEAR => {
                    covered += to - from;
                    last.to = last.to.max(to);
                    last.strength = (covered / (last.to - last.from).max(f64::MIN_POSITIVE)).clamp(STRENGTH_LEAST, 1.0);
                }
                _ => {
                    covered = to - from;
                    panel.bands.push(Band { from, to, strength: 1.0 });
                }
            }
        }
        if count == 0 {
            return;
        }
        let noun = if count == 1 { "collection" } else { "collections" };
        let key = if only_oldest && count < all.len() {
            format!("{count} {noun} of generation {oldest} (of {} in all)", all.len())
        } else {
            format!("{count} {noun}")
        };
        panel.series.push(Series { pieces: Vec::new(), ..Series::new(&key, Ink::Band, Mark::Shade, Vec::new()) });
    }

    /// The caption's first piece for charts of single calls.
    #[must_use]
    pub(super) fn latency_processes(&self) -> Option<String> {
        let runs = self.analysis.environment.plan.latency_runs;
        let noun = if runs == 1 { "process" } else { "processes" };
        (runs > 0).then(|| format!("every call of {runs} {noun} per allocator"))
    }

    /// Title, legend and caption around panels; the caption begins with how many processes stand behind it.
    #[must_use]
    pub(super) fn figure(&self, text: Words, panels: Vec<Panel>, processes: Option<String>) -> Figure {
        let entries: Vec<LegendEntry> = legend(&panels);
        Figure {
            title: text.title,
            subtitle: text.subtitle,
            panels,
            legend: entries,
            provenance: self.provenance(processes),
            alt: text.alt,
            plot_height: text.plot_height,
        }
    }

    fn provenance(&self, processes: Option<String>) -> Vec<String> {
        let environment = &self.analysis.environment;
        let mut pieces: Vec<String> = processes.into_iter().collect();
        // A figure may show some of a result's configurations.
        let shown = |index: &usize| self.workload.configs.iter().any(|config| config.config == *index);
        let configs = environment.configs.iter().enumerate().filter(|(index, _)| shown(index));
        for allocator in configs.flat_map(|(_, config)| &config.allocators) {
            let key = if allocator.key == "pool" { "pool (our pymalloc)" } else { &allocator.key };
            let piece = format!("{key} {}", allocator.release());
            if !pieces.contains(&piece) {
                pieces.push(piece); // one allocator in two versions is two
            }
        }
        let host = &environment.host;
        let cpus = if host.cpus == 1 { "1 CPU".into() } else { format!("{} CPUs", host.cpus) };
        pieces.push(host.cpu_model.as_ref().map_or(cpus.clone(), |model| format!("{model}, {cpus}")));
        pieces.extend(host.kernel.as_ref().map(|kernel| format!("Linux {}", kernel.trim_start_matches("Linux "))));
        pieces.extend(host.thp.as_ref().map(|thp| format!("THP {thp}")));
        pieces.push(format!("pyalloc-bench {}", environment.harness.version));
        if environment.harness.profile == "debug" {
            pieces.push("DEBUG BUILD: not a measurement".into());
        }
        pieces.push(date(environment.plan.started_unix_ms));
        pieces
    }
}

/// The words of a figure.
pub(super) struct Words {
    /// First line.
    pub(super) title: String,
    /// Second line.
    pub(super) subtitle: String,
    /// For who cannot see it.
    pub(super) alt: String,
    /// Height of the plotting areas.
    pub(super) plot_height: f64,
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 100.0 / whole as f64).min(100.0) }
}

/// How many processes estimates stand on: `12`, `11 to 12`.
fn count(shown: &[Estimate]) -> Option<String> {
    let (least, most) = (shown.iter().map(|e| e.n).min()?, shown.iter().map(|e| e.n).max()?);
    let noun = if most == 1 { "process" } else { "processes" };
    Some(if least == most { format!("{least} {noun}") } else { format!("{least} to {most} {noun}") })
}

/// The caption's first piece: how many processes, and what the spread of their median is. `interval` says what kind of
/// interval six and more of them have.
#[must_use]
pub(super) fn processes(shown: &[Estimate], interval: &str) -> Option<String> {
    let spread = match (shown.iter().all(|e| e.interval), shown.iter().any(|e| e.interval)) {
        (true, _) => format!("median and {interval}"),
        (false, true) => format!("median; {interval} where 6 and more, else range"),
        (false, false) if shown.iter().any(|e| e.n > 1) => "median and range".into(),
        (false, false) => "no spread known".into(),
    };
    Some(format!("{} per allocator, {spread}", count(shown)?))
}

/// The same for charts of one run out of several, each of which is named.
#[must_use]
pub(super) fn shown_runs(shown: &[(&ConfigAnalysis, &MemoryAnalysis)]) -> Option<String> {
    let most = shown.iter().map(|(_, memory)| memory.shown.of).max()?;
    if most < 2 {
        return Some("1 process per allocator".to_owned());
    }
    let runs = shown.iter().map(|(config, memory)| format!("{} run {}", config.name, memory.shown.number));
    Some(format!(
        "of {most} processes per allocator the run nearest to the medians: {}",
        runs.collect::<Vec<_>>().join(", ")
    ))
}

/// Milliseconds since the epoch as a date in UTC.
#[must_use]
pub(super) fn date(unix_ms: u64) -> String {
    let (year, month, day) = units::civil_from_days(unix_ms / 86_400_000);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A median with its spread, in a unit: `6.40 [6.35, 6.52]`, or just the median where nothing is known of it.
#[must_use]
pub(super) fn with_spread(estimate: &Estimate, unit: f64) -> String {
    let value = units::significant(estimate.median / unit);
    if estimate.n < 2 {
        return value;
    }
    format!("{value} [{}, {}]", units::significant(estimate.low / unit), units::significant(estimate.high / unit))
}

/// Points of a memory curve over the progress of the recording.
#[must_use]
pub(super) fn curve(
    subject: &Subject<'_>,
    points: &[MemoryPoint],
    value: impl Fn(&MemoryPoint) -> f64,
) -> Vec<(f64, f64)> {
    points.iter().map(|point| (subject.op_progress(point.op), value(point))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400_000), "2000-02-29");
        assert_eq!(date(1_767_225_599_999), "2025-12-31");
        assert_eq!(date(1_767_225_600_000), "2026-01-01");
    }
}
