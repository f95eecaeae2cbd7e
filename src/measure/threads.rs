//! The compiling process's last step: recorded moments put into a kept image, and the image taken apart into threads.
//!
//! Invariant: an image of one thread that is not paced stays as it was compiled.

use super::compile::{CompileJob, Compiled, WholeSink, unwritable, write_streams};
use crate::run::Mode;
use crate::workload::{OpenTrace, trace_sentence};
use serde::{Deserialize, Serialize};
use trace::image::{Order, apart, paced};
use trace::{Metadata, TraceReader};

/// What is to be known of streams in shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFacts {
    /// Ops of each stream; they follow each other.
    pub ops: Vec<u64>,
    /// Size of the slot table.
    pub slots: u32,
    /// Most threads that are there at once.
    pub lanes: u32,
}

/// Does what the job asks for beyond a merged image.
///
/// # Errors
/// A sentence when that cannot be done and was asked for by name.
pub(super) fn transform(
    job: &CompileJob,
    trace: &mut OpenTrace,
    sink: &mut WholeSink,
    stream_fds: [i32; 2],
    compiled: &mut Compiled,
) -> Result<(), String> {
    if job.paced {
        pace(trace, sink, compiled)?;
    }
    let mode = mode(job, &compiled.metadata);
    let own = match mode {
        Mode::Merged => return Ok(()),
        Mode::Gil => Order::Gil,
        Mode::Free => Order::Free,
    };
    match take_apart(sink, own, stream_fds, compiled) {
        Ok(streams) => (compiled.mode, compiled.streams) = (mode, Some(streams)),
        Err(reason) if job.mode.is_some() => return Err(reason),
        Err(reason) => {
            let before = compiled.remark.take().map(|remark| remark + "; ").unwrap_or_default();
            compiled.remark = Some(format!("{before}threads are replayed merged: {reason}"));
        }
    }
    Ok(())
}

/// How a trace's threads are to be replayed.
pub(super) fn mode(job: &CompileJob, metadata: &Metadata) -> Mode {
    let threads = metadata.totals.calls_by_thread.values().filter(|calls| **calls > 0).count();
    job.mode.unwrap_or(if threads > 1 { Mode::Gil } else { Mode::Merged })
}

const TOO_LARGE: &str =
    "its image takes more than a sixth of the available memory. Free memory, or cut it with `trace cut`";

fn pace(trace: &mut OpenTrace, sink: &mut WholeSink, compiled: &mut Compiled) -> Result<(), String> {
    let Some(ticks_per_second) = compiled.metadata.ticks_per_second else {
        return Err("it was recorded without times, so that it cannot be replayed --paced. Record it anew.".to_owned());
    };
    if !compiled.whole {
        compiled.remark = Some(format!("memory is replayed without the recorded gaps: {TOO_LARGE}."));
        return Ok(());
    }
    let ops = sink.read_back().map_err(|e| unwritable(&e))?;
    let events = TraceReader::new(trace.rewound()?).map_err(|e| trace_sentence(&e))?;
    let paced = paced(&ops, &compiled.summary, events, ticks_per_second).map_err(|e| trace_sentence(&e))?;
    let (ops, summary, last_ns) = paced;
    sink.replace(&ops).map_err(|e| unwritable(&e))?;
    compiled.paced_ns = last_ns;
    compiled.summary = summary;
    Ok(())
}

fn take_apart(
    sink: &WholeSink,
    own: Order,
    stream_fds: [i32; 2],
    compiled: &Compiled,
) -> Result<[StreamFacts; 2], String> {
    if !compiled.whole {
        return Err(format!("{TOO_LARGE}."));
    }
    let mut bytes_left = sink.bytes_max();
    let mut facts = [StreamFacts::default(), StreamFacts::default()];
    for ((facts, order), fd) in facts.iter_mut().zip([own, Order::Total]).zip(stream_fds) {
        // Read again for each order, so that no second copy is held meanwhile.
        let ops = sink.read_back().map_err(|e| unwritable(&e))?;
        let image = apart(ops, compiled.summary.slots, order)?;
        let lengths: Vec<u64> = image.streams.iter().map(|stream| stream.len() as u64).collect();
        let bytes = lengths.iter().sum::<u64>() * 8;
        bytes_left = bytes_left.checked_sub(bytes).ok_or_else(|| format!("{TOO_LARGE}."))?;
        write_streams(fd, &image.streams).map_err(|e| unwritable(&e))?;
        *facts = StreamFacts { ops: lengths, slots: image.slots, lanes: image.lanes };
    }
    Ok(facts)
}
