//! The JSON block at the head of a trace: where it came from, and the totals that a reader checks at its foot.
//!
//! Invariant: private by construction. Sizes, order, threads, domains, module base names; never contents, a command
//! line, a path or a stack. Unknown is `null`, never a guess; integers are in base units.

use crate::ledger::{MarkEffect, begins_phase};
use crate::{Phase, SIZE_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything known about a recording except its events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// What wrote the events: `recorder`, `text`, `cut`, later importers.
    pub source: String,
    /// Version of that source.
    pub source_version: String,
    /// Interpreter, if there was one.
    pub python: Option<Python>,
    /// Distribution packages that the interpreter had imported, with versions.
    pub packages: BTreeMap<String, String>,
    /// Which domains were wrapped when the recording ended: bit [`crate::Domain`] for each.
    pub hook_mask: u32,
    /// How Arrow's pool was reached: `interposed`, `system`, `none`, `invisible`.
    pub arrow_pool: Option<String>,
    /// How NumPy's array data was asked for. Not known in traces of older recorders, and `null` without NumPy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numpy_data: Option<NumpyData>,
    /// Things a reader must know: `untested: ...`, `started late`, `events lost: N`.
    pub notes: Vec<String>,
    /// Recorder options that shape the events, such as `for`, `after`, `max_size`.
    pub options: BTreeMap<String, String>,
    /// Kernel release and C library of the recording host.
    pub kernel: Option<String>,
    /// C library name and version, such as `glibc 2.36`.
    pub libc: Option<String>,
    /// CPU model of the recording host.
    pub cpu_model: Option<String>,
    /// CPUs that the recorded process could see: it decides arena limits.
    pub cpu_count: Option<u32>,
    /// Transparent huge page mode of the recording host.
    pub thp: Option<String>,
    /// Ticks of the time column in one second; `None` when there is no time column.
    pub ticks_per_second: Option<u64>,
    /// The recorder's own cost per event in picoseconds, calibrated on the recording host.
    pub recorder_ps_per_event: Option<u64>,
    /// Names of marks; the first four are [`crate::Phase::ALL`].
    pub marks: Vec<String>,
    /// When each mark fell, in order.
    pub mark_readings: Vec<MarkReading>,
    /// Call sites; entry 0 is "unknown".
    pub sites: Vec<Site>,
    /// The process's own memory at start, peak and end.
    pub process: Option<ProcessMemory>,
    /// Frees of blocks that were never seen allocated, dropped when converting.
    pub unknown_frees: u64,
    /// Events that the recorder could not keep.
    pub lost_events: u64,
    /// By phase: what the recorder could not know of blocks of [`crate::TOUCH_THRESHOLD_BYTES`] and more. `None` in
    /// traces of older recorders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_touch: Option<BTreeMap<String, UnknownTouch>>,
    /// Whether the recording ended with the program, or before it (`--for`, `--max-size`, a full disk, SIGKILL).
    pub complete: bool,
    /// Set when this trace is a cut of a longer one: first event index and number of events of the original.
    pub cut: Option<(u64, u64)>,
    /// Totals; written again in the footer, where a reader checks them.
    pub totals: Totals,
}

/// New memory of blocks that was present before the program could write to it, as what the C library uses again is.
/// Nobody knows whether the program wrote there; a replay writes there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownTouch {
    /// Blocks that had such memory, each time that they were allocated or resized.
    pub blocks: u64,
    /// The memory, in whole OS pages.
    pub bytes: u64,
}

impl Metadata {
    /// The same without the table of call sites, for reports: a result is read without its trace's events.
    #[must_use]
    pub fn without_sites(&self) -> Self {
        Self { sites: Vec::new(), ..self.clone() }
    }

    /// Whether its readings can be of a process with so many events; says what cannot.
    pub(crate) fn check_readings(&self, events: u64) -> Result<(), String> {
        if self.ticks_per_second == Some(0) {
            return Err("its clock has no tick in a second".to_owned());
        }
        let process = self.process.unwrap_or_default();
        let of_marks = self.mark_readings.iter().map(|reading| reading.memory);
        for memory in of_marks.chain([process.start, process.peak, process.end]).flatten() {
            let all = [
                memory.rss_bytes,
                memory.rss_anon_bytes,
                memory.file_bytes,
                memory.relocated_bytes,
                memory.stack_bytes,
                memory.recorder_bytes,
            ];
            if let Some(bytes) = all.into_iter().find(|bytes| *bytes > SIZE_MAX) {
                return Err(format!("it says that {bytes} bytes were resident, which no process can have"));
            }
        }
        for reading in &self.mark_readings {
            let (mark, event) = (reading.mark, reading.event);
            if self.marks.len().max(Phase::ALL.len()) <= mark as usize {
                return Err(format!("it has a reading at mark {mark}, which has no name"));
            }
            if event > events {
                return Err(format!("it has a reading at event {event} of {events}"));
            }
            let mapped = reading.mapped_bytes.iter().flat_map(BTreeMap::values);
            if mapped.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)) > SIZE_MAX {
                return Err(format!("its libraries mapped more at mark {mark} than a process can have"));
            }
        }
        Ok(())
    }

    /// The marks that a replay meets, in order: a phase that has begun does not begin again.
    pub fn replayed_marks(&self) -> impl Iterator<Item = &MarkReading> {
        let mut phase = Phase::Startup;
        self.mark_readings.iter().filter(move |reading| match begins_phase(phase, reading.mark) {
            MarkEffect::Begins(begun) => {
                phase = begun;
                true
            }
            effect => effect == MarkEffect::Own,
        })
    }

    /// The marks that every trace's [`Self::marks`] begins with, in this order: the four phases.
    #[must_use]
    pub fn phase_marks() -> Vec<String> {
        Phase::ALL.map(|phase| phase.name().to_owned()).to_vec()
    }
}

/// How a recorded program's NumPy asked for array data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NumpyData {
    /// By its own handler: a cache of small blocks stands before the C library, and what it served is in no trace.
    Cached,
    /// By the handler of `pyalloc_numpy.py` on the process's `malloc`: each request is in the trace, none met a cache.
    Handler,
    /// By that handler on a library's own functions, which the recorder does not see.
    Invisible,
}

/// The recorded interpreter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Python {
    /// Such as `3.11.7`.
    pub version: String,
    /// `CPython` or another implementation.
    pub implementation: String,
    /// `shared`, `static` or `unknown`: where `PyObject_Malloc` lives.
    pub build: String,
    /// Whether the build has no GIL.
    pub free_threaded: bool,
    /// `PYTHONHASHSEED` of the recording, if it was set.
    pub hash_seed: Option<String>,
}

/// A call site: module base name and offset in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Site {
    /// Base name of the shared object, such as `libpython3.11.so.1.0`.
    pub module: String,
    /// Offset of the return address in it.
    pub offset: u64,
}

/// What the clock and the CPU counter said at a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkReading {
    /// Index into [`Metadata::marks`].
    pub mark: u32,
    /// Index of the mark's event in the trace.
    pub event: u64,
    /// CPU time of the whole process so far, all threads, nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Wall time since the recording began, nanoseconds.
    pub wall_ns: Option<u64>,
    /// Exact resident memory of the process at the mark.
    pub memory: Option<MemoryReading>,
    /// Resident bytes of what libraries map for themselves, by module: BLAS buffers, hidden allocators. No event
    /// explains them, and no variable that names an allocator moves them. Pages that were only read count too.
    /// Not known in traces of older recorders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_bytes: Option<BTreeMap<String, u64>>,
}

/// Resident memory of a process by what backs it, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryReading {
    /// All resident pages.
    pub rss_bytes: u64,
    /// Anonymous pages: heap, relocated file pages, stacks, anonymous maps.
    pub rss_anon_bytes: u64,
    /// Clean and shared file pages.
    pub file_bytes: u64,
    /// Anonymous pages of file mappings: relocations and written data sections.
    pub relocated_bytes: u64,
    /// Stacks.
    pub stack_bytes: u64,
    /// The recorder's own pages, if they were counted in the above.
    pub recorder_bytes: u64,
}

/// The process's own memory at three moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessMemory {
    /// When recording began (or at the end of start-up).
    pub start: Option<MemoryReading>,
    /// The largest reading seen.
    pub peak: Option<MemoryReading>,
    /// When interpreter exit began, or the last reading before the process was gone.
    pub end: Option<MemoryReading>,
}

/// Sums over all events. A reader recomputes them and refuses a trace whose footer disagrees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// All events.
    pub events: u64,
    /// Allocations of any kind.
    pub allocs: u64,
    /// Of these, zeroed ones.
    pub allocs_zeroed: u64,
    /// Of these, aligned ones.
    pub allocs_aligned: u64,
    /// Frees.
    pub frees: u64,
    /// Reallocations.
    pub reallocs: u64,
    /// Cyclic collections (starts).
    pub collections: u64,
    /// Bytes requested by allocations (reallocations not counted).
    pub requested_bytes: u64,
    /// Most blocks live at once.
    pub live_blocks_peak: u64,
    /// Most requested bytes live at once.
    pub live_bytes_peak: u64,
    /// Blocks live after the last event.
    pub live_blocks_end: u64,
    /// Requested bytes live after the last event.
    pub live_bytes_end: u64,
    /// Highest slot used, plus one.
    pub slots: u32,
    /// Ops of the replay image that these events compile to, 8 bytes each.
    pub image_ops: u64,
    /// Allocations, frees and reallocations by domain name.
    pub calls_by_domain: BTreeMap<String, u64>,
    /// Bytes requested by allocations, by domain name.
    pub bytes_by_domain: BTreeMap<String, u64>,
    /// Allocations, frees and reallocations by dense thread id.
    pub calls_by_thread: BTreeMap<u32, u64>,
    /// Calls by which the program steered its allocator, by [`crate::Directive::name`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub directives: BTreeMap<String, u64>,
}

impl Totals {
    /// Threads that made a call.
    #[must_use]
    pub fn threads(&self) -> u32 {
        u32::try_from(self.calls_by_thread.values().filter(|calls| **calls > 0).count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn readings_that_no_process_can_have_are_refused() {
        let memory = MemoryReading { rss_bytes: 1 << 30, ..MemoryReading::default() };
        let reading = MarkReading { mark: 1, event: 5, memory: Some(memory), ..MarkReading::default() };
        let mapped = |bytes: u64| Some([("a.so".to_owned(), bytes), ("b.so".to_owned(), bytes)].into());
        let with = |reading: MarkReading| Metadata { mark_readings: vec![reading], ..Metadata::default() };
        let good = with(MarkReading { mapped_bytes: mapped(1 << 30), ..reading.clone() });
        assert_eq!(good.check_readings(5), Ok(()));
        let huge = MemoryReading { stack_bytes: u64::MAX, ..memory };
        for (metadata, expected) in [
            (Metadata { ticks_per_second: Some(0), ..good.clone() }, "no tick"),
            (Metadata { process: Some(ProcessMemory { end: Some(huge), ..Default::default() }), ..good }, "resident"),
            (with(MarkReading { memory: Some(huge), ..reading.clone() }), "resident"),
            (with(MarkReading { mark: 4, ..reading.clone() }), "mark 4"),
            (with(MarkReading { event: 6, ..reading.clone() }), "event 6 of 5"),
            (with(MarkReading { mapped_bytes: mapped(u64::MAX), ..reading }), "libraries mapped"),
        ] {
            let reason = metadata.check_readings(5).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
