//! The parent's side of replay images: has each trace checked and compiled by a process of its own, keeps small
//! images whole in shared memory, and has large ones streamed through two windows, once per child.
//!
//! Invariant: the parent never decodes a trace; what it hands to a worker was checked against checksum, totals and
//! every event first.

use super::compile::{CompileJob, Compiled, Target};
use super::cycles::CyclesAsked;
use super::spawn::{ChildSpec, Ending, Finished, Running, signal_name};
use crate::run::Fidelity;
use crate::worker::ImageSource;
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
}

impl ImageLimits {
    /// 256 MiB for one image, 640 MiB for all, windows of 32 MiB.
    pub const DEFAULT: Self = Self { whole_bytes_max: 256 << 20, all_bytes_max: 640 << 20, window_ops: 4 << 20 };
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
    window_ops: u64,
}

/// An image on its way to one worker.
#[derive(Debug)]
pub struct Feed<'a> {
    /// What the worker's job says.
    pub source: ImageSource,
    whole: Option<&'a OwnedFd>,
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
        cycles: Option<&CyclesAsked>,
    ) -> Result<Self, String> {
        let left = limits.all_bytes_max.saturating_sub(held_bytes);
        let memory = shared_memory(0)?;
        // Cycles cannot be streamed: such an image may take all that there is for images.
        let bytes_max = if cycles.is_some() { left } else { limits.whole_bytes_max.min(left) };
        let target = Target::Whole { fd: memory.as_raw_fd(), bytes_max };
        let running = start_compiler(exe, &workload, cycles, target, &[memory.as_fd()])?;
        let finished = running.wait(COMPILE_TIMEOUT).map_err(|e| unspawned(&e))?;
        let compiled = answer(&workload, &finished)?;
        let (fidelity, note) = Fidelity::find(&workload.fidelity_files(), &compiled.sha256);
        Ok(Self {
            memory: compiled.whole.then_some(memory),
            fidelity: fidelity.map(Box::new),
            note,
            workload,
            compiled,
            window_ops: limits.window_ops,
        })
    }

    /// Bytes of shared memory that it holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, |_| self.compiled.summary.ops.saturating_mul(8))
    }

    /// Makes the image available to one more worker.
    ///
    /// # Errors
    /// A sentence when the process that fills the windows cannot be started.
    pub fn feed(&self, exe: &Path) -> Result<Feed<'_>, String> {
        if let Some(memory) = &self.memory {
            let source = ImageSource::Whole { fd: memory.as_raw_fd() };
            return Ok(Feed { source, whole: Some(memory), windows: None });
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
        let compiler = start_compiler(exe, &self.workload, None, target, &inherit)?;
        let source = ImageSource::Windows {
            fd: memory.as_raw_fd(),
            window_ops: self.window_ops,
            ready_fd: ready.as_raw_fd(),
            done_fd: done.as_raw_fd(),
        };
        Ok(Feed { source, whole: None, windows: Some(Windows { memory, ready, done, compiler }) })
    }
}

impl Feed<'_> {
    /// The descriptors that the worker inherits.
    #[must_use]
    pub fn inherit(&self) -> Vec<BorrowedFd<'_>> {
        let whole = self.whole.map(AsFd::as_fd).into_iter();
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
    cycles: Option<&CyclesAsked>,
    target: Target,
    inherit: &[BorrowedFd<'_>],
) -> Result<Running, String> {
    let cycles = cycles.cloned();
    let job = CompileJob { source: workload.source.clone(), promise: workload.promise.clone(), cycles, target };
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
        Ending::Exited(code) => format!("the compiling process ended with code {code}. Please report this."),
        Ending::Signalled(signal) => format!(
            "the compiling process was ended by {}. If memory is short, free some; else please report this.",
            signal_name(signal)
        ),
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
