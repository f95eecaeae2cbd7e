//! The work of a recording, several times over: what was asked for, and the image of it.
//!
//! Invariant: an image with cycles is kept whole or not at all; what cannot be repeated is a sentence.

use super::compile::WholeSink;
use crate::units::plain_line;
use crate::workload::trace_sentence;
use serde::{Deserialize, Serialize};
use std::io::Read;
use trace::Phase;
use trace::image::{self, Cycles, ImageSink, ImageSummary, Repeated};

/// Ops that the compiler writes at once.
const WINDOW_OPS: usize = 1 << 20;

/// Names of marks that an error lists.
const MARKS_SHOWN: usize = 20;

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
    let too_large = |bytes: u64| {
        format!(
            "its image takes {} MiB with {} cycles, and images that large are not kept. Ask for fewer cycles, or take \
             the beginning with `trace cut`.",
            bytes >> 20,
            asked.times
        )
    };
    // An image that is too large by itself is counted to its end, not kept.
    let mut once = Once { ops: Vec::new(), window: vec![0; WINDOW_OPS], bytes: 0, bytes_max: sink.bytes_max() };
    let summary = image::compile(trace, &mut once).map_err(|e| trace_sentence(&e))?;
    if once.bytes > once.bytes_max {
        return Err(too_large(once.bytes));
    }
    let (from, to) = ends(asked, &summary);
    let index = |name: &str| marks.iter().position(|mark| mark == name).map(|index| index as u32);
    let unknown = |name: &str| {
        let shown: Vec<_> = marks.iter().take(MARKS_SHOWN).map(|mark| plain_line(mark)).collect();
        let more = if marks.len() > shown.len() { ", ..." } else { "" };
        format!("it has no mark '{name}'. Its marks are {}{more}; name two of them with --between.", shown.join(", "))
    };
    let cycles = Cycles {
        times: asked.times,
        from: index(from).ok_or_else(|| unknown(from))?,
        to: index(to).ok_or_else(|| unknown(to))?,
    };
    let bytes = image::repeated_ops(&once.ops, cycles).saturating_mul(size_of::<u64>() as u64);
    if bytes > once.bytes_max {
        return Err(too_large(bytes));
    }
    let (ops, summary) = image::repeat(&once.ops, &summary, cycles).map_err(|fault| {
        format!(
            "the work between '{from}' and '{to}' cannot be repeated: {fault}. Name two other marks with --between, or \
             leave --cycles out."
        )
    })?;
    pass_on(&ops, sink).map_err(|e| format!("the image cannot be written: {e}. Free some memory."))?;
    if !sink.whole {
        return Err(too_large(size_of_val(ops.as_slice()) as u64));
    }
    let repeated = Repeated { times: asked.times, from: from.to_owned(), to: to.to_owned() };
    Ok(ImageSummary { cycles: Some(repeated), ..summary })
}

/// Keeps an image that is not too large.
struct Once {
    ops: Vec<u64>,
    window: Vec<u64>,
    bytes: u64,
    bytes_max: u64,
}

impl ImageSink for Once {
    fn window(&mut self) -> std::io::Result<&mut [u64]> {
        Ok(&mut self.window)
    }

    fn commit(&mut self, ops: usize) -> std::io::Result<()> {
        self.bytes += ops as u64 * 8;
        if self.bytes <= self.bytes_max {
            self.ops.extend_from_slice(&self.window[..ops]);
        } else {
            self.ops = Vec::new();
        }
        Ok(())
    }
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
