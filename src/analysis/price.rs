//! The price at program scale: what share of the recorded program's own CPU time an allocator takes.
//!
//! Invariant: unknown is `None`; a recording without CPU readings on both sides of `steady`, or a cut of a longer
//! one, has no price.

use super::ConfigAnalysis;
use trace::{MarkReading, Metadata, Phase};

/// CPU nanoseconds of the recorded program in `steady`, less what the recorder spent on its events.
#[must_use]
pub fn program_cpu_ns(metadata: &Metadata) -> Option<f64> {
    let begin = reading(metadata, Phase::Steady)?;
    cpu_ns_from(metadata, begin.event, begin.cpu_ns?)
}

/// The same from the start of the process to the mark that rest follows.
#[must_use]
pub fn program_cpu_ns_all(metadata: &Metadata) -> Option<f64> {
    cpu_ns_from(metadata, 0, 0)
}

fn reading(metadata: &Metadata, phase: Phase) -> Option<&MarkReading> {
    metadata.mark_readings.iter().find(|reading| reading.mark == phase as u32)
}

/// From an event on, before which the process had taken so much.
fn cpu_ns_from(metadata: &Metadata, event: u64, before_ns: u64) -> Option<f64> {
    if metadata.cut.is_some() {
        return None;
    }
    let end = [Phase::Drained, Phase::Finalising]
        .into_iter()
        .filter_map(|phase| reading(metadata, phase))
        .find(|end| end.event >= event && end.cpu_ns.is_some())?;
    let cpu = end.cpu_ns?.checked_sub(before_ns)? as f64;
    let recorder = (end.event - event) as f64 * metadata.recorder_ps_per_event? as f64 / 1000.0;
    Some(cpu - recorder).filter(|ns| *ns > 0.0)
}

/// Fills in every configuration's share of the program and what a switch to the fastest could save.
pub(super) fn fill(configs: &mut [ConfigAnalysis], null_ns: Option<f64>, calls: u64, program_cpu_ns: Option<f64>) {
    let Some(cpu) = program_cpu_ns else { return };
    let calls = calls as f64;
    let ns = |config: &ConfigAnalysis| config.ns_per_call.map(|figure| figure.value.median);
    let fastest = configs.iter().filter_map(ns).min_by(f64::total_cmp);
    for config in configs {
        let Some(own) = ns(config) else { continue };
        config.program_share = null_ns.map(|null| (own - null).max(0.0) * calls / cpu);
        config.saves_at_most = fastest.map(|fastest| (own - fastest) * calls / cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(phase: Phase, event: u64, cpu_ns: u64) -> MarkReading {
        MarkReading { mark: phase as u32, event, cpu_ns: Some(cpu_ns), ..MarkReading::default() }
    }

    #[test]
    fn cpu_between_the_marks_less_the_recorder() {
        let known = Metadata {
            recorder_ps_per_event: Some(50_000),
            mark_readings: vec![
                reading(Phase::Steady, 1_000, 5_000_000),
                reading(Phase::Finalising, 11_000, 9_000_000),
            ],
            ..Metadata::default()
        };
        assert_eq!(program_cpu_ns(&known), Some(3_500_000.0));
        assert_eq!(program_cpu_ns_all(&known), Some(9_000_000.0 - 550_000.0));
        assert_eq!(program_cpu_ns(&Metadata { cut: Some((0, 10)), ..known.clone() }), None);
        assert_eq!(program_cpu_ns(&Metadata { recorder_ps_per_event: None, ..known.clone() }), None);
        assert_eq!(program_cpu_ns(&Metadata { mark_readings: known.mark_readings[..1].to_vec(), ..known }), None);
    }
}
