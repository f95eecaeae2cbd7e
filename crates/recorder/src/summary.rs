//! What a recording caught and what it lost, in a few lines.
//!
//! Invariant: a loss is never left out; a line that would say "nothing lost" is one word.

use crate::session::{Image, Report};
use std::fmt;
use trace::Domain;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Image { trace: Some((path, converted)), .. }) = self.images.get(self.main) {
            let totals = &converted.totals;
            writeln!(f, "{}: {} events", path.display(), totals.events)?;
            let calls = Domain::ALL.iter().filter_map(|domain| {
                let calls = totals.calls_by_domain.get(domain.name())?;
                Some(format!("{} {calls}", domain.name()))
            });
            writeln!(f, "  calls: {}", calls.collect::<Vec<_>>().join(", "))?;
            writeln!(
                f,
                "  live at peak: {} bytes in {} blocks; phases: {}; domains hooked: {}",
                totals.live_bytes_peak,
                totals.live_blocks_peak,
                if converted.phases.is_empty() { "none found".to_owned() } else { converted.phases.join(", ") },
                hooked(converted.hook_mask)
            )?;
            writeln!(
                f,
                "  lost: {} events, {} unknown frees, {} missed frees",
                converted.lost_events, converted.unknown_frees, converted.missed_frees
            )?;
            for note in &converted.notes {
                writeln!(f, "  note: {note}")?;
            }
        }
        for problem in &self.problems {
            writeln!(f, "record: {problem}")?;
        }
        self.write_images(f)
    }
}

impl Report {
    /// The table of images, when there is more than one. Programs without Python are only counted: a shim in front
    /// of an interpreter is easily fifty of them.
    fn write_images(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.images.len() < 2 {
            return Ok(());
        }
        writeln!(f, "  {:>8}  {:<16} {:<8} {:>12}  ended    trace", "process", "program", "python", "records <=")?;
        for image in self.images.iter().filter(|image| image.python.is_some() || image.trace.is_some()) {
            writeln!(
                f,
                "  {:>8}  {:<16} {:<8} {:>12}  {:<7}  {}",
                image.pid,
                image.program,
                image.python.as_deref().unwrap_or("-"),
                image.records_max,
                if image.has_exited { "exit" } else { "cut off" },
                image.trace.as_ref().map_or("-".into(), |trace| trace.0.display().to_string())
            )?;
        }
        let others = self.images.iter().filter(|image| image.python.is_none() && image.trace.is_none()).count();
        if others > 0 { writeln!(f, "  and {others} images without Python") } else { Ok(()) }
    }
}

fn hooked(mask: u32) -> String {
    let names = Domain::ALL.iter().filter(|domain| mask & 1 << **domain as u32 != 0).map(|domain| domain.name());
    names.collect::<Vec<_>>().join(" ")
}
