//! The child's side of replay images: reads one trace, holds it against its promise, writes the image into inherited
//! shared memory and says what is in it.
//!
//! Invariant: nothing is reported about a trace unless every event of it was checked.

use super::cycles::{self, CyclesAsked};
use super::threads::StreamFacts;
use crate::run::Mode;
use crate::workload::{OpenTrace, Promise, TraceSource, trace_sentence};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use trace::image::{ImageSink, ImageSummary, RecordedClock, moments};
use trace::{Metadata, Shape, TraceReader};

/// Ops that are written at once where the whole image is kept.
const CHUNK_OPS: usize = 64 << 10;
/// Most moments of one image: 64 MiB.
const MOMENTS_MAX: usize = 4 << 20;

/// What the parent asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CompileJob {
    /// The trace.
    pub source: TraceSource,
    /// What it must hold.
    pub promise: Option<Promise>,
    /// What is repeated, if anything is; only an image that is kept whole can be.
    pub cycles: Option<CyclesAsked>,
    /// Where the ops go.
    pub target: Target,
    /// How threads are to be replayed; `None`: as threads if there are several.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Takes the moments of the ops, if they are wanted.
    #[serde(default)]
    pub moments_fd: Option<i32>,
}

/// Where the ops go. Descriptors are inherited.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Target {
    /// Into one file, if they fit.
    Whole {
        /// The shared-memory file.
        fd: i32,
        /// Takes the streams in the order of the mode, and those in the total order.
        stream_fds: [i32; 2],
        /// Most bytes that it may take, or its streams together; a longer image is counted, not kept.
        bytes_max: u64,
        /// The same of an image in recorded time or of several threads, which cannot be streamed.
        unstreamed_bytes_max: u64,
    },
    /// Through two windows, to a worker that is running; see [`crate::worker::ImageSource::Windows`].
    Windows {
        /// The shared-memory file.
        fd: i32,
        /// Ops in one window.
        window_ops: u64,
        /// Takes the number of ops of each filled window.
        ready_fd: i32,
        /// Gives one byte for each used window.
        done_fd: i32,
    },
}

/// What a trace turned out to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// The image.
    pub summary: ImageSummary,
    /// Whether the whole image was kept.
    pub whole: bool,
    /// How its threads are replayed.
    pub mode: Mode,
    /// Its streams in the order of the mode, and in the total order, unless it is merged.
    #[serde(default)]
    pub streams: Option<[StreamFacts; 2]>,
    /// Moments of the ops; 0 unless they were wanted and the trace has times.
    #[serde(default)]
    pub moments: u64,
    /// The last moment of the recording, nanoseconds since its first, the recorder's own cost taken off.
    #[serde(default)]
    pub recorded_ns: u64,
    /// Why threads are replayed merged although there are several and nobody wished so.
    #[serde(default)]
    pub remark: Option<String>,
    /// Metadata of the trace without its site table.
    pub metadata: Metadata,
    /// What the events say.
    pub shape: Shape,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Size of the file, bytes.
    pub trace_bytes: u64,
}

/// The hidden verb: a `CompileJob` on the standard input, a `Compiled` on the standard output.
///
/// # Errors
/// A sentence, to be printed on the error output.
pub fn main() -> Result<(), String> {
    let job: CompileJob = serde_json::from_reader(io::stdin().lock())
        .map_err(|e| format!("the job is not understood: {e}. This verb is for the harness itself."))?;
    match job.target {
        Target::Whole { fd, bytes_max, unstreamed_bytes_max, stream_fds } => {
            let sink = WholeSink::new(fd, bytes_max).map_err(|e| unwritable(&e))?;
            let compiled = compile_whole(&job, sink, unstreamed_bytes_max, stream_fds)?;
            let answer = serde_json::to_vec(&compiled).map_err(|e| e.to_string())?;
            io::stdout().lock().write_all(&answer).and_then(|()| io::stdout().flush()).map_err(|e| unwritable(&e))
        }
        Target::Windows { fd, window_ops, ready_fd, done_fd } => {
            let mut sink = WindowSink::new(fd, window_ops, ready_fd, done_fd).map_err(|e| unwritable(&e))?;
            let mut trace = OpenTrace::open(&job.source)?;
            trace::image::compile(trace.rewound()?, &mut sink).map_err(|e| trace_sentence(&e))?;
            sink.end().map_err(|e| unwritable(&e))
        }
    }
}

fn compile_whole(
    job: &CompileJob,
    mut sink: WholeSink,
    unstreamed_bytes_max: u64,
    stream_fds: [i32; 2],
) -> Result<Compiled, String> {
    let mut trace = OpenTrace::open(&job.source)?;
    let (sha256, trace_bytes) = trace.digest()?;
    if let Some(promise) = &job.promise
        && promise.sha256 != sha256
    {
        return Err(format!(
            "its SHA-256 is {sha256}, its definition promises {}. Restore the file from git, or correct the \
             definition after recording again.",
            promise.sha256
        ));
    }
    let mut metadata = trace.metadata()?;
    if let Some(mismatch) = job.promise.as_ref().and_then(|promise| promise.totals.mismatch(&metadata.totals)) {
        return Err(format!("{mismatch}. Correct the definition, or restore the file."));
    }
    let shape = trace.shape()?;
    if super::threads::mode(job, &metadata) != Mode::Merged {
        sink.bytes_max = unstreamed_bytes_max;
    }
    let summary = match &job.cycles {
        None => trace::image::compile(trace.rewound()?, &mut sink).map_err(|e| trace_sentence(&e))?,
        Some(asked) => cycles::compile(trace.rewound()?, asked, &metadata.marks, &mut sink)?,
    };
    metadata.sites = Vec::new();
    let mut compiled = Compiled {
        summary,
        whole: sink.whole,
        mode: Mode::Merged,
        streams: None,
        moments: 0,
        recorded_ns: 0,
        remark: None,
        metadata,
        shape,
        sha256,
        trace_bytes,
    };
    if let (Some(fd), None) = (job.moments_fd, &job.cycles) {
        write_moments(fd, &mut trace, &mut compiled)?;
    }
    super::threads::transform(job, &sink, stream_fds, &mut compiled)?;
    Ok(compiled)
}

/// Writes the table of moments, if the trace has times.
fn write_moments(fd: i32, trace: &mut OpenTrace, compiled: &mut Compiled) -> Result<(), String> {
    let Some(clock) = RecordedClock::of(&compiled.metadata) else { return Ok(()) };
    let events = TraceReader::new(trace.rewound()?).map_err(|e| trace_sentence(&e))?;
    let found = moments(events, clock, MOMENTS_MAX).map_err(|e| trace_sentence(&e))?;
    if found.ops != compiled.summary.ops {
        let (named, made) = (found.ops, compiled.summary.ops);
        return Err(format!("its moments are of {named} ops and its image has {made}. Please report this."));
    }
    let (file, mut bytes) = (inherited(fd, true).map_err(|e| unwritable(&e))?, Vec::new());
    write_ops(&file, found.pairs.as_flattened(), 0, &mut bytes).map_err(|e| unwritable(&e))?;
    (compiled.moments, compiled.recorded_ns) = (found.pairs.len() as u64, found.last_ns);
    Ok(())
}

pub(super) fn unwritable(e: &io::Error) -> String {
    format!("the image cannot be written: {e}. Free some memory.")
}

/// An inherited descriptor, opened anew: the kernel's own table of them needs no promise about who owns which.
fn inherited(fd: i32, write: bool) -> io::Result<File> {
    OpenOptions::new().read(!write).write(write).open(format!("/proc/self/fd/{fd}"))
}

/// Writes ops in the byte order of this machine, which is the worker's too.
fn write_ops(file: &File, ops: &[u64], mut at: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    for chunk in ops.chunks(CHUNK_OPS) {
        bytes.resize(size_of_val(chunk), 0);
        for (place, op) in bytes.chunks_exact_mut(size_of::<u64>()).zip(chunk) {
            place.copy_from_slice(&op.to_ne_bytes()); // the loop becomes one copy
        }
        file.write_all_at(bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// Keeps the whole image, or only counts it once it is too long.
pub(super) struct WholeSink {
    file: File,
    window: Vec<u64>,
    bytes: Vec<u8>,
    at: u64,
    bytes_max: u64,
    pub(super) whole: bool,
}

impl WholeSink {
    fn new(fd: i32, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(format!("/proc/self/fd/{fd}"))?;
        Ok(Self { file, window: vec![0; CHUNK_OPS], bytes: Vec::new(), at: 0, bytes_max, whole: true })
    }
}

impl WholeSink {
    /// The whole image again.
    pub(super) fn read_back(&self) -> io::Result<Vec<u64>> {
        let mut ops = Vec::with_capacity((self.at / 8) as usize);
        let mut bytes = vec![0; CHUNK_OPS * size_of::<u64>()];
        let mut at = 0;
        while at < self.at {
            let chunk = &mut bytes[..(self.at - at).min((CHUNK_OPS * size_of::<u64>()) as u64) as usize];
            self.file.read_exact_at(chunk, at)?;
            ops.extend(chunk.chunks_exact(8).map(|op| u64::from_ne_bytes(op.try_into().unwrap_or_default())));
            at += chunk.len() as u64;
        }
        Ok(ops)
    }

    /// Most bytes that the image may take, and as many its streams, which then stand in its place.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

/// Writes streams one after another.
pub(super) fn write_streams(fd: i32, streams: &[Vec<u64>]) -> io::Result<()> {
    let (file, mut at, mut bytes) = (inherited(fd, true)?, 0, Vec::new());
    for stream in streams {
        write_ops(&file, stream, at, &mut bytes)?;
        at += size_of_val(stream.as_slice()) as u64;
    }
    Ok(())
}

impl ImageSink for WholeSink {
    fn window(&mut self) -> io::Result<&mut [u64]> {
        Ok(&mut self.window)
    }

    fn commit(&mut self, ops: usize) -> io::Result<()> {
        let bytes = ops as u64 * 8;
        if self.whole && self.at + bytes > self.bytes_max {
            self.whole = false;
            self.file.set_len(0)?; // what was written so far is memory that nobody will read
        }
        if self.whole {
            write_ops(&self.file, &self.window[..ops], self.at, &mut self.bytes)?;
        }
        self.at += bytes;
        Ok(())
    }
}

/// Fills two windows in turn, each only after the worker has handed it back.
struct WindowSink {
    file: File,
    ready: File,
    done: File,
    window: Vec<u64>,
    bytes: Vec<u8>,
    filled: u64,
}

impl WindowSink {
    fn new(fd: i32, window_ops: u64, ready_fd: i32, done_fd: i32) -> io::Result<Self> {
        Ok(Self {
            file: inherited(fd, true)?,
            ready: inherited(ready_fd, true)?,
            done: inherited(done_fd, false)?,
            window: vec![0; window_ops as usize],
            bytes: Vec::new(),
            filled: 0,
        })
    }

    fn end(mut self) -> io::Result<()> {
        self.ready.write_all(&0u64.to_le_bytes())?;
        // The worker still hands its last windows back; nobody at the other end would be its death.
        io::copy(&mut self.done, &mut io::sink()).map(|_| ())
    }
}

impl ImageSink for WindowSink {
    fn window(&mut self) -> io::Result<&mut [u64]> {
        Ok(&mut self.window)
    }

    fn commit(&mut self, ops: usize) -> io::Result<()> {
        if ops == 0 {
            return Ok(()); // 0 would end the image
        }
        if self.filled >= 2 {
            self.done.read_exact(&mut [0])?;
        }
        write_ops(&self.file, &self.window[..ops], (self.filled % 2) * self.window.len() as u64 * 8, &mut self.bytes)?;
        self.filled += 1;
        self.ready.write_all(&(ops as u64).to_le_bytes())
    }
}
