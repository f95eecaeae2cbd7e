//! The compiling process's last step: the image taken apart into threads.
//!
//! Invariant: an image of one thread stays as it was compiled.

use super::compile::{CompileJob, Compiled, WholeSink, unwritable, write_streams};
use crate::run::Mode;
use serde::{Deserialize, Serialize};
use trace::Metadata;
use trace::image::{Order, apart};

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
    sink: &WholeSink,
    stream_fds: [i32; 2],
    compiled: &mut Compiled,
) -> Result<(), String> {
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
    job.mode.unwrap_or(if metadata.totals.threads() > 1 { Mode::Gil } else { Mode::Merged })
}

const TOO_LARGE: &str =
    "its image takes more than a sixth of the available memory. Free memory, or cut it with `trace cut`";

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
