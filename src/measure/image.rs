//! The parent's side of replay images: has each trace checked and compiled by a process of its own, keeps small
//! images whole in shared memory, and has large ones streamed through two windows, once per child.
//!
//! Invariant: the parent never decodes a trace; what it hands to a worker was checked against checksum, totals and
//! every event first.

use super::compile::{CompileJob, Compiled, Target};
use super::cycles::CyclesAsked;
use super::environment::memory_available_bytes;
use super::spawn::{ChildSpec, Ending, Finished, Running, ended_by, remedy};
use super::threads::StreamFacts;
use crate::run::{Fidelity, Mode, Pass};
use crate::worker::{ImageSource, MomentsSource};
use crate::workload::Workload;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The hidden verb of the process that compiles.
pub const COMPILE_VERB: &str = "compile";
/// How much shared memory images may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Largest image that is kept whole, bytes.
    pub whole_bytes_max: u64,
    /// Most bytes that all images of a run take together; those after that are streamed.
    pub all_bytes_max: u64,
    /// Ops in one of the two windows of a streamed image, at least [`trace::image::GROUP_OPS_MAX`].
    pub window_ops: u64,
    /// An image in recorded time or of several threads cannot be streamed. It may take the available memory divided by
    /// this, if that is more than others may take; with 0 it may not.
    pub unstreamed_share: u64,
}

impl ImageLimits {
    /// 256 MiB for one image, 640 MiB for all, windows of 32 MiB. While an image is taken apart, the compiling process
    /// holds its ops and their streams, and the files hold both: six times its size.
    pub const DEFAULT: Self =
        Self { whole_bytes_max: 256 << 20, all_bytes_max: 640 << 20, window_ops: 4 << 20, unstreamed_share: 6 };

    fn unstreamed_bytes_max(&self, bytes_max: u64) -> u64 {
        let available = memory_available_bytes().unwrap_or(0);
        available.checked_div(self.unstreamed_share).map_or(bytes_max, |share| share.max(bytes_max))
    }
}

/// What is made of a recording beyond its merged ops.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// How threads are; `None`: as threads where there are several.
    pub mode: Option<Mode>,
    /// Whether the moments of its ops are wanted.
    pub has_moments: bool,
    /// What is repeated, if anything is; only an image that is kept whole can be.
    pub cycles: Option<CyclesAsked>,
}

/// A trace may take this long to compile; 1e9 events take well under a minute.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A workload that is ready to be replayed.
#[derive(Debug)]
pub struct Image {
    /// What it is.
    pub workload: Workload,
    /// What the compiling process found.
    pub compiled: Compiled,
    /// How well replays of this trace predicted the real program, if `live` compared them.
    pub fidelity: Option<Box<Fidelity>>,
    /// Why what `live` found is not used, if it is there and cannot be.
    pub note: Option<String>,
    /// The whole image, if it is small enough.
    memory: Option<OwnedFd>,
    /// Its streams in the order of the mode and in the total order, if it has any.
    streams: Option<[OwnedFd; 2]>,
    /// The moments of its ops, if they are known.
    moments: Option<OwnedFd>,
    window_ops: u64,
}

/// An image on its way to one worker.
#[derive(Debug)]
pub struct Feed<'a> {
    /// What the worker's job says.
    pub source: ImageSource,
    /// Where the moments are, for the pass that needs them.
    pub moments: Option<MomentsSource>,
    whole: Option<&'a OwnedFd>,
    moments_file: Option<&'a OwnedFd>,
    windows: Option<Windows>,
}

#[derive(Debug)]
struct Windows {
    memory: OwnedFd,
    ready: PipeReader,
    done: PipeWriter,
    compiler: Running,
}

impl Image {
    /// Has a workload compiled, its work repeated if `cycles` says so; the image is kept whole if the limits allow it
    /// beside `held_bytes` of other images.
    ///
    /// # Errors
    /// A sentence when the trace cannot be read, is not what its definition promises, or is damaged.
    pub fn prepare(
        exe: &Path,
        workload: Workload,
        held_bytes: u64,
        limits: &ImageLimits,
        how: &How,
    ) -> Result<Self, String> {
        let left = limits.all_bytes_max.saturating_sub(held_bytes);
        let (memory, streams) = (shared_memory(0)?, [shared_memory(0)?, shared_memory(0)?]);
        let moments = if how.has_moments { Some(shared_memory(0)?) } else { None };
        // Cycles cannot be streamed: such an image may take all that there is for images.
        let bytes_max = if how.cycles.is_some() { left } else { limits.whole_bytes_max.min(left) };
        let target = Target::Whole {
            fd: memory.as_raw_fd(),
            stream_fds: streams.each_ref().map(AsRawFd::as_raw_fd),
            bytes_max,
            unstreamed_bytes_max: limits.unstreamed_bytes_max(bytes_max),
        };
        let inherit: Vec<_> =
            [&memory, &streams[0], &streams[1]].into_iter().chain(&moments).map(AsFd::as_fd).collect();
        let moments_fd = moments.as_ref().map(AsRawFd::as_raw_fd);
        let running = start_compiler(exe, &workload, target, &inherit, moments_fd, how)?;
        let finished = running.wait(COMPILE_TIMEOUT).map_err(|e| unspawned(&e))?;
        let compiled = answer(&workload, &finished)?;
        let (fidelity, note) = Fidelity::find(&workload.fidelity_files(), &compiled.sha256);
        // What is replayed as threads needs no merged image beside its streams.
        let memory = (compiled.whole && compiled.streams.is_none()).then_some(memory);
        let streams = compiled.streams.is_some().then_some(streams);
        let moments = moments.filter(|_| compiled.moments > 0);
        let (fidelity, window_ops) = (fidelity.map(Box::new), limits.window_ops);
        Ok(Self { memory, streams, moments, fidelity, note, workload, compiled, window_ops })
    }

    /// Whether a replay can give allocators the recorded time.
    #[must_use]
    pub fn has_moments(&self) -> bool {
        self.moments.is_some()
    }

    /// Bytes of shared memory that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let merged = self.memory.as_ref().map_or(0, |_| self.compiled.summary.ops);
        let streams: u64 = self.compiled.streams.iter().flatten().flat_map(|facts| &facts.ops).sum();
        let moments = 2 * self.compiled.moments;
        merged.saturating_add(streams).saturating_add(moments).saturating_mul(8)
    }

    /// Makes the image available to one more worker.
    ///
    /// # Errors
    /// A sentence when the process that fills the windows cannot be started.
    pub fn feed(&self, exe: &Path, pass: Pass) -> Result<Feed<'_>, String> {
        let moments_file = self.moments.as_ref().filter(|_| pass == Pass::Footprint);
        let pairs = self.compiled.moments;
        let moments = moments_file.map(|file| MomentsSource { fd: file.as_raw_fd(), pairs });
        if let (Some(memory), Some(facts)) = (&self.streams, &self.compiled.streams) {
            let which = usize::from(pass == Pass::Footprint);
            let StreamFacts { ops, slots, lanes } = facts[which].clone();
            let source = ImageSource::Streams { fd: memory[which].as_raw_fd(), ops, slots, lanes };
            return Ok(Feed { source, moments, whole: Some(&memory[which]), moments_file, windows: None });
        }
        if let Some(memory) = &self.memory {
            let source = ImageSource::Whole { fd: memory.as_raw_fd() };
            return Ok(Feed { source, moments, whole: Some(memory), moments_file, windows: None });
        }
        let memory = shared_memory(self.window_ops.saturating_mul(2 * 8))?;
        let (ready, ready_writer) = std::io::pipe().map_err(|e| unspawned(&e))?;
        let (done_reader, done) = std::io::pipe().map_err(|e| unspawned(&e))?;
        let target = Target::Windows {
            fd: memory.as_raw_fd(),
            window_ops: self.window_ops,
            ready_fd: ready_writer.as_raw_fd(),
            done_fd: done_reader.as_raw_fd(),
        };
        let inherit = [memory.as_fd(), ready_writer.as_fd(), done_reader.as_fd()];
        let compiler = start_compiler(exe, &self.workload, target, &inherit, None, &How::default())?;
        let source = ImageSource::Windows {
            fd: memory.as_raw_fd(),
            window_ops: self.window_ops,
            ready_fd: ready.as_raw_fd(),
            done_fd: done.as_raw_fd(),
        };
        let windows = Some(Windows { memory, ready, done, compiler });
        Ok(Feed { source, moments, whole: None, moments_file, windows })
    }
}

impl Feed<'_> {
    /// The descriptors that the worker inherits.
    #[must_use]
    pub fn inherit(&self) -> Vec<BorrowedFd<'_>> {
        let whole = self.whole.into_iter().chain(self.moments_file).map(AsFd::as_fd);
        let windows = self.windows.iter().flat_map(|w| [w.memory.as_fd(), w.ready.as_fd(), w.done.as_fd()]);
        whole.chain(windows).collect()
    }

    /// Called once the worker has started: closes the parent's ends, so that each side notices the other's death.
    #[must_use]
    pub fn hand_over(self) -> Option<Running> {
        self.windows.map(|windows| windows.compiler)
    }
}

fn start_compiler(
    exe: &Path,
    workload: &Workload,
    target: Target,
    inherit: &[BorrowedFd<'_>],
    moments_fd: Option<i32>,
    how: &How,
) -> Result<Running, String> {
    let How { mode, has_moments: _, cycles } = how.clone();
    let (source, promise) = (workload.source.clone(), workload.promise.clone());
    let job = CompileJob { source, promise, cycles, target, mode, moments_fd };
    let input = serde_json::to_vec(&job).map_err(|e| format!("The job cannot be put into JSON: {e}."))?;
    let arguments = &[COMPILE_VERB];
    let spec = ChildSpec { exe, arguments, input: &input, padding_bytes: 0, variables: &[], inherit };
    Running::start(&spec).map_err(|e| unspawned(&e))
}

fn answer(workload: &Workload, finished: &Finished) -> Result<Compiled, String> {
    let what = workload.source.describe();
    let reason = match finished.ending {
        Ending::Exited(0) => match serde_json::from_slice(&finished.output) {
            Ok(compiled) => return Ok(compiled),
            Err(e) => format!("the compiling process answered nonsense ({e}). Please report this."),
        },
        Ending::Exited(_) if !finished.errors.is_empty() => finished.errors.clone(),
        Ending::Exited(code) => {
            format!("the compiling process ended with code {code}. {}", remedy("Please report this."))
        }
        Ending::Signalled(signal) => format!("the compiling process {}", ended_by(signal)),
        Ending::TimedOut => "compiling took more than an hour. Cut the trace with `trace cut`.".to_owned(),
    };
    Err(format!("{what}: {reason}"))
}

fn shared_memory(bytes: u64) -> Result<OwnedFd, String> {
    memfd_create("pyalloc-bench-image", MemfdFlags::CLOEXEC)
        .and_then(|memory| ftruncate(&memory, bytes).map(|()| memory))
        .map_err(|e| format!("Shared memory cannot be had: {e}. Free some memory."))
}

fn unspawned(e: &std::io::Error) -> String {
    format!("A child process cannot be started: {e}. Raise the limits on processes or descriptors, or free memory.")
}
