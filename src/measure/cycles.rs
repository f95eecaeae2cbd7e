//! The work of a recording, several times over: what was asked for, and the image of it.
//!
//! Invariant: an image with cycles is kept whole or not at all; what cannot be repeated is a sentence.

use super::compile::WholeSink;
use crate::workload::trace_sentence;
use serde::{Deserialize, Serialize};
use std::io::Read;
use trace::Phase;
use trace::image::{self, Cycles, ImageSink, ImageSummary, Repeated, VecSink};

/// Ops that the compiler writes at once.
const WINDOW_OPS: usize = 1 << 20;

/// What to repeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CyclesAsked {
    /// How often it comes in all.
    pub times: u32,
    /// Names of the marks around it; `steady` to `drained`, else to `finalising`, when none are given.
    pub between: Option<(String, String)>,
}

/// Compiles a trace with the given names of marks, repeats its section, and passes all on.
pub(super) fn compile(
    trace: &mut dyn Read,
    asked: &CyclesAsked,
    marks: &[String],
    sink: &mut WholeSink,
) -> Result<ImageSummary, String> {
    let mut once = VecSink::new(WINDOW_OPS);
    let summary = image::compile(trace, &mut once).map_err(|e| trace_sentence(&e))?;
    let (from, to) = ends(asked, &summary);
    let index = |name: &str| marks.iter().position(|mark| mark == name).map(|index| index as u32);
    let unknown = |name: &str| {
        format!("it has no mark '{name}'. Its marks are {}; name two of them with --between.", marks.join(", "))
    };
    let cycles = Cycles {
        times: asked.times,
        from: index(from).ok_or_else(|| unknown(from))?,
        to: index(to).ok_or_else(|| unknown(to))?,
    };
    let (ops, summary) = image::repeat(once.ops(), &summary, cycles).map_err(|fault| {
        format!(
            "the work between '{from}' and '{to}' cannot be repeated: {fault}. Name two other marks with --between, or \
             leave --cycles out."
        )
    })?;
    pass_on(&ops, sink).map_err(|e| format!("the image cannot be written: {e}. Free some memory."))?;
    if !sink.whole {
        return Err(format!(
            "its image takes {} MiB with {} cycles, and images that large are not kept. Ask for fewer cycles.",
            size_of_val(ops.as_slice()) >> 20,
            asked.times
        ));
    }
    let repeated = Repeated { times: asked.times, from: from.to_owned(), to: to.to_owned() };
    Ok(ImageSummary { cycles: Some(repeated), ..summary })
}

/// Names of the marks around the section.
fn ends<'a>(asked: &'a CyclesAsked, summary: &ImageSummary) -> (&'a str, &'a str) {
    match &asked.between {
        Some((from, to)) => (from, to),
        None if summary.phase_ops[Phase::Drained as usize].is_some() => (Phase::Steady.name(), Phase::Drained.name()),
        None => (Phase::Steady.name(), Phase::Finalising.name()),
    }
}

fn pass_on(mut ops: &[u64], sink: &mut dyn ImageSink) -> std::io::Result<()> {
    while !ops.is_empty() {
        let window = sink.window()?;
        let (now, later) = ops.split_at(window.len().min(ops.len()));
        window[..now.len()].copy_from_slice(now);
        sink.commit(now.len())?;
        ops = later;
    }
    Ok(())
}
