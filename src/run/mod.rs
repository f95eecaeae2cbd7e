//! The waist: what the measuring half writes and the reading half reads. `runs.jsonl` holds one [`Run`] per line,
//! `environment.json` one [`Environment`]; both are append-only facts, never edited, never statistics.
//!
//! Invariant: integers in base units; unknown is `null`; a reader refuses a schema it does not know with a sentence.

mod baseline;
pub mod bounded;
mod environment;
mod fidelity;
mod histogram;
mod owners;
mod pools;
mod recorded;
mod store;
mod unreplayed;

pub use baseline::*;
pub use environment::*;
pub use fidelity::*;
pub use histogram::*;
pub use owners::*;
pub use pools::*;
pub use recorded::*;
pub use store::*;
pub use unreplayed::unreplayed_notes;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use trace::Phase;

/// Version of `runs.jsonl` and `environment.json`. A reader refuses any other.
pub const SCHEMA: u32 = 1;

/// What one child measured. Never mixed: each has a child process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pass {
    /// Clock reads at phase marks only.
    Throughput,
    /// Every call timed.
    Latency,
    /// Memory curve; no timing.
    Footprint,
}

/// How recorded threads were replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All recorded threads' calls on one thread, in the recorded order, back to back.
    Merged,
    /// Each recorded thread's calls on a thread of its own, those of the Python domains in the recorded order, as the
    /// GIL had them.
    Gil,
    /// Each recorded thread's calls on a thread of its own, which wait only for blocks that others allocated.
    Free,
}

/// What the threads of a replay did, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUse {
    /// Threads that were replayed, at once or one after another.
    pub threads: u32,
    /// Points at which one had to be no further than another.
    pub waits: u64,
    /// Of these, at which it slept until it was woken.
    pub hand_overs: u64,
    /// Time spent waiting, nanoseconds.
    pub waiting_ns: u64,
    /// Time between start and end of each thread, nanoseconds.
    pub alive_ns: u64,
    /// CPU time but for what was spent on looking whether a wait is over, nanoseconds.
    pub busy_ns: u64,
    /// Time from the first op to the last, nanoseconds.
    pub wall_ns: u64,
}

/// One line of `runs.jsonl`: an observation and its context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Position in the executed order, from 0.
    pub seq: u32,
    /// Repetition block: within one block every configuration of a workload ran once, in shuffled order.
    pub block: u32,
    /// Workload name (or the trace's file stem).
    pub workload: String,
    /// Configuration name as given: `pool`, `system`, `mimalloc`, `jemalloc`; `null` and `loop` are the floor.
    pub config: String,
    /// What was measured.
    pub pass: Pass,
    /// How threads were replayed.
    pub mode: Mode,
    /// Random environment padding of the child, bytes (layout luck is noise, not signal).
    pub padding_bytes: u32,
    /// Milliseconds since the epoch when the child was started.
    pub started_unix_ms: u64,
    /// Whole life of the child as the parent saw it, nanoseconds.
    pub child_wall_ns: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It measured.
    Ok(Observation),
    /// It did not; the run goes on and readers skip this line loudly.
    Failed {
        /// `spawn`, `memory`, `image`, `seal`, `replay`, `report`, `timeout`.
        stage: String,
        /// A sentence: signal name, exit code, what the child printed.
        reason: String,
    },
}

/// Raw values of one child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observation {
    /// Of a throughput pass.
    Throughput(Throughput),
    /// Of a latency pass.
    Latency(Latency),
    /// Of a footprint pass.
    Footprint(Box<Footprint>),
}

/// What the child checked about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealReport {
    /// Allocations by Rust code of the harness while sealed. Anything but 0 fails the run.
    pub harness_allocations: u64,
    /// Bytes the C library's heap had handed out before the seal. More than the next field fails the run.
    pub libc_bytes_before: u64,
    /// Bytes of these that an allocator's own preparation took; 0 but for `cpython` of an interpreter from 3.12 on.
    #[serde(default)]
    pub libc_bytes_prepared: u64,
    /// Anonymous resident memory at the seal: allocators' constructors and relocations; subtracted from readings.
    pub rss_anon_bytes_before: u64,
}

/// Work and cost of one phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseCost {
    /// Which phase.
    pub phase: Phase,
    /// Allocation, free and reallocation calls made in it.
    pub calls: u64,
    /// Wall time, nanoseconds.
    pub wall_ns: u64,
    /// CPU time in user mode, nanoseconds (kernel resolution).
    pub user_ns: u64,
    /// CPU time in kernel mode, nanoseconds.
    pub system_ns: u64,
    /// Minor page faults.
    pub faults_minor: u64,
    /// Major page faults.
    pub faults_major: u64,
}

/// A throughput pass: calls with header write and one byte per touched OS page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throughput {
    /// Costs per phase in order; a phase without a mark is absent.
    pub phases: Vec<PhaseCost>,
    /// Failed allocations (the program went on without the block).
    pub failed_allocations: u64,
    /// What the threads did; null where one thread replayed everything.
    #[serde(default)]
    pub threads: Option<ThreadUse>,
    /// Self-checks.
    pub seal: SealReport,
}

/// Which entry point a call went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum CallKind {
    /// `malloc`.
    Malloc = 0,
    /// `calloc`.
    Calloc = 1,
    /// Aligned allocation.
    Aligned = 2,
    /// `realloc`.
    Realloc = 3,
    /// `free`.
    Free = 4,
}

impl CallKind {
    /// Every kind in discriminant order.
    pub const ALL: [Self; 5] = [Self::Malloc, Self::Calloc, Self::Aligned, Self::Realloc, Self::Free];
    /// The word used on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malloc => "malloc",
            Self::Calloc => "calloc",
            Self::Aligned => "aligned",
            Self::Realloc => "realloc",
            Self::Free => "free",
        }
    }
}

/// Upper bounds in bytes, inclusive, of the size classes that latency is kept by; the last is open.
pub const SIZE_CLASS_BOUNDS: [u64; 8] = [64, 512, 4096, 32 * 1024, 128 * 1024, 1024 * 1024, 8 * 1024 * 1024, u64::MAX];

/// One histogram of a latency pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyCell {
    /// Entry point.
    pub kind: CallKind,
    /// Index into [`SIZE_CLASS_BOUNDS`].
    pub class: u8,
    /// Whether a page fault fell into the call.
    pub fault: bool,
    /// Durations in ticks of [`Latency::ticks_per_second`].
    pub histogram: Histogram,
}

/// A latency pass: every call of `steady` timed by the counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Ticks of the counter in one second.
    pub ticks_per_second: u64,
    /// The empty timer pair, timed as a call is.
    pub clock: Histogram,
    /// Non-empty histograms.
    pub cells: Vec<LatencyCell>,
    /// What the threads did; null where one thread replayed everything.
    #[serde(default)]
    pub threads: Option<ThreadUse>,
    /// Self-checks.
    pub seal: SealReport,
}

/// Memory at one moment, less what was there at the seal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPoint {
    /// Index of the op just replayed.
    pub op: u64,
    /// Requested bytes live.
    pub requested_bytes: u64,
    /// Blocks live.
    pub blocks: u64,
    /// Usable bytes of live blocks, as the allocator reports them.
    pub usable_bytes: u64,
    /// Address space, less that at the seal.
    pub mapped_bytes: u64,
    /// Anonymous resident memory, exact, less that at the seal.
    pub resident_bytes: u64,
    /// Of which the kernel may take back at will (`MADV_FREE`).
    pub lazy_free_bytes: u64,
    /// Of which transparent huge pages.
    pub huge_bytes: u64,
}

/// What was done before a reading at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestState {
    /// Nothing allocates.
    Idle,
    /// A trickle of small requests.
    Trickle,
    /// The explicit release: `malloc_trim`, purge, collect.
    Release,
}

/// One reading at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestPoint {
    /// What was done before.
    pub state: RestState,
    /// Milliseconds since the work ended.
    pub after_ms: u64,
    /// The reading.
    pub memory: MemoryPoint,
}

/// Which time the allocators of a footprint pass met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Time {
    /// The recorded time, served by the worker without waiting.
    Virtual,
    /// The machine's: the replay waited for recorded moments.
    Real,
    /// The machine's, and the calls came back to back.
    None,
}

/// A footprint pass: full touch, no timing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Readings over the whole trace, in op order, evenly spaced plus new peaks.
    pub curve: Vec<MemoryPoint>,
    /// The reading at each phase's first op, by phase; the last one of the trace when finalisation has no mark.
    pub at_phase: Vec<(Phase, MemoryPoint)>,
    /// Largest resident reading within `steady` (everything when there is no `steady` mark).
    pub peak: MemoryPoint,
    /// The kernel's high-water mark of resident anonymous memory in each phase, less what was there at the seal, bytes:
    /// it sees what lasts shorter than the time between two readings, and its counters may lag by some pages. Empty
    /// where it cannot be reset, and in results from before this was read.
    #[serde(default)]
    pub high_water_bytes: Vec<(Phase, u64)>,
    /// Reading at interpreter exit (`finalising`, or the last op without that mark), live set still live.
    pub end: MemoryPoint,
    /// Which moment the readings at rest follow: `drained` if marked, else `finalising`, else the last op.
    pub rest_from: String,
    /// Readings at rest, in order: idle at growing delays, trickle, release.
    pub rest: Vec<RestPoint>,
    /// Minor page faults up to the mark that rest follows.
    pub faults_minor: u64,
    /// What the pools held; null of allocators that cannot tell, and in results from before this was read.
    #[serde(default)]
    pub pools: Option<Box<Pools>>,
    /// The reading at the end of each cycle, where the work was repeated.
    #[serde(default)]
    pub cycles: Vec<MemoryPoint>,
    /// Resident and requested bytes at every mark of the recording up to the end, in order, less what was there at the
    /// seal; empty in results from before they were read, and where the work was repeated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_marks: Vec<[u64; 2]>,
    /// Who owned the bytes at peak, at `drained`, at the end and at rest; empty in results from before this was read.
    #[serde(default)]
    pub owners: Vec<Owners>,
    /// Which time the allocators met; null in results from before there was a choice.
    #[serde(default)]
    pub time: Option<Time>,
    /// Failed allocations.
    pub failed_allocations: u64,
    /// Calls by which the program steered its allocator ([`trace::Directive::name`]) and that no allocator of the
    /// configuration has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unreplayed: BTreeMap<String, u64>,
    /// Self-checks.
    pub seal: SealReport,
}
