//! One run of the real program: started with the environment of a configuration and the announcer, watched from
//! outside, held at its marks while they are read.
//!
//! Followed is the process that was started, or the one that marks `steady`; of the trace of a forked child, the first
//! child that makes a mark. Marks of others are counted and answered.
//! At the mark that rest follows the program is held with the interpreter's lock for the longest idle delay: nothing of
//! it runs but what its allocators run by themselves.
//!
//! Once rest was read, any end of the program is fine: a signal, an exit status, `os._exit`.
//!
//! Invariant: whatever becomes of the program is a run or a sentence; it outlives neither its time nor this process.
//! What it started itself may.

use super::channel::{Channel, Mark};
use super::sampler::Sampler;
use crate::measure::config::NUMPY;
use crate::measure::plan::Cell;
use crate::measure::spawn::{Ending, PADDING_VARIABLE, drain_both, ending, remedy, signal_name};
use crate::probe::sys;
use crate::run::RealRun;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of the program's error output that are kept for the sentence about its failure.
const ERRORS_BYTES_MAX: u64 = 64 << 10;
const STEADY: &str = "steady";
const DRAINED: &str = "drained";
const FINALISING: &str = "finalising";

/// What is run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its name as it was called, and its arguments.
    pub command: Vec<OsString>,
    /// The library that announces marks.
    pub announcer: PathBuf,
    /// Idle delays at which rest is read, milliseconds, ascending.
    pub idle_ms: Vec<u64>,
    /// Longest life of one run.
    pub limit: Duration,
    /// Whether the trace is of a forked child.
    pub of_child: bool,
}

impl Program {
    /// Runs it once in this environment, which gets the cell's padding beside: Python keeps a copy of every variable,
    /// so what a deployment sets for other purposes moves the heap too, and the range of real runs has to show that.
    ///
    /// # Errors
    /// A sentence about why there are no figures.
    pub fn run(&self, cell: &Cell, environment: &[(OsString, OsString)]) -> Result<RealRun, String> {
        let channel = Channel::open()?;
        let started = Instant::now();
        let mut command = Command::new(&self.path);
        command.arg0(&self.command[0]).args(&self.command[1..]);
        command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.env(PADDING_VARIABLE, "x".repeat(cell.padding_bytes as usize));
        command.env(super::channel::VARIABLE, channel.address()).env("LD_PRELOAD", self.preload(environment));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::tie_to_this_thread(&mut command);
        let mut child = command.spawn().map_err(|e| format!("The program cannot be started: {e}. Try it by hand."))?;
        let pipes = (child.stdout.take(), child.stderr.take());
        let (output, errors) = drain_both(pipes, [0, ERRORS_BYTES_MAX]).map_err(|e| {
            let _ = child.kill();
            let _ = child.wait();
            format!("The program's output cannot be read: {e}. {}", remedy("Free memory, or raise the limits."))
        })?;
        let handler = environment.iter().find(|(name, _)| name == NUMPY).map(|(_, value)| value.clone());
        let watched = self.watch(&channel, &mut child, started, handler);
        if watched.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().map_err(|e| format!("The program was lost: {e}. Try it by hand."))?;
        let watch = watched?;
        let _ = output.recv_timeout(Duration::from_millis(200)); // a grandchild may hold the pipe open
        let ended = match ending(status) {
            _ if watch.is_late => Some(format!("after more than {} s", self.limit.as_secs())),
            Ending::Exited(0) => None,
            Ending::Exited(code) => Some(format!("with code {code}")),
            Ending::Signalled(signal) => Some(format!("by {}", signal_name(signal))),
            Ending::TimedOut => Some("after too long".to_owned()),
        };
        match ended {
            Some(ended) if !watch.has_rested => Err(failed(&ended, &errors)),
            ended => watch.into_run(cell, ended),
        }
    }

    /// The configuration's own libraries first, so that an allocator among them stands where it would.
    fn preload(&self, environment: &[(OsString, OsString)]) -> OsString {
        let own = environment.iter().find(|(name, value)| name == "LD_PRELOAD" && !value.is_empty());
        let mut list = own.map(|(_, value)| value.clone()).unwrap_or_default();
        if !list.is_empty() {
            list.push(":");
        }
        list.push(&self.announcer);
        list
    }

    fn watch(
        &self,
        channel: &Channel,
        child: &mut Child,
        started: Instant,
        handler: Option<OsString>,
    ) -> Result<Watch, String> {
        let mut watch = Watch { handler, of_child: self.of_child, ..Watch::new(child.id()) };
        loop {
            let wait = watch.sampler.look();
            if let Some(mark) = channel.next(wait)? {
                watch.mark(&mark, &self.idle_ms)?;
                mark.go();
            } else if child.try_wait().map_err(|e| format!("The program was lost: {e}."))?.is_some() {
                return Ok(watch);
            }
            if started.elapsed() > self.limit && watch.has_rested {
                let _ = child.kill();
                return Ok(Watch { is_late: true, ..watch });
            }
            if started.elapsed() > self.limit {
                return Err(format!(
                    "The program ran longer than {} s and was ended. Give a longer --limit, or have it end by itself.",
                    self.limit.as_secs()
                ));
            }
        }
    }
}

/// What the last line of its error output says of a failure.
fn failed(how: &str, errors: &Receiver<Vec<u8>>) -> String {
    let errors = errors.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
    let errors = String::from_utf8_lossy(&errors);
    let word = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it left no word").trim().to_owned();
    format!("The program ended {how} before it was idle: {word}. Run it by hand under the same variables.")
}

/// What was seen of a run so far.
#[derive(Debug)]
struct Watch {
    pid: u32,
    sampler: Sampler,
    run: RealRun,
    /// CPU and wall time of the program at `steady`, nanoseconds.
    steady: Option<(u64, u64)>,
    has_rested: bool,
    has_ended: bool,
    /// Whether it ran on for longer than it may after its rest was read.
    is_late: bool,
    /// Whether a child is to be followed and not the process that was started.
    of_child: bool,
    /// What NumPy's handler was told to take array data from, if it was.
    handler: Option<OsString>,
}

impl Watch {
    fn new(pid: u32) -> Self {
        Self {
            pid,
            sampler: Sampler::new(pid),
            run: RealRun::default(),
            steady: None,
            has_rested: false,
            has_ended: false,
            is_late: false,
            of_child: false,
            handler: None,
        }
    }

    /// Reads what a mark asks for, while the program is held.
    fn mark(&mut self, mark: &Mark, idle_ms: &[u64]) -> Result<(), String> {
        let is_fresh = !self.run.has_steady && !self.has_rested && !self.has_ended;
        if mark.pid != self.pid && is_fresh && (mark.name == STEADY || self.of_child) {
            // The program was started through another one, such as a shell, or this is the child that is looked for.
            self.pid = mark.pid;
            self.sampler = Sampler::new(mark.pid);
            self.of_child = false;
        }
        if mark.pid != self.pid || self.of_child {
            self.run.other_marks += 1;
            return Ok(());
        }
        // As in a replay, a phase never begins twice nor after a later one.
        match mark.name.as_str() {
            STEADY if is_fresh => self.steady(mark)?,
            DRAINED if !self.has_rested && !self.has_ended => self.rest(mark, idle_ms)?,
            FINALISING if !self.has_ended => {
                self.has_ended = true;
                self.sampler.settle();
                let memory = self.sampler.read().map_err(|e| unreadable(&e))?;
                self.run.end_bytes = Some(memory.heap());
                if !self.has_rested {
                    self.rest(mark, idle_ms)?;
                }
                self.note_high_water();
            }
            _ => {}
        }
        Ok(())
    }

    fn steady(&mut self, mark: &Mark) -> Result<(), String> {
        self.note_high_water();
        self.run.has_steady = true;
        self.run.steady_bytes = Some(self.sampler.read().map_err(|e| unreadable(&e))?.heap());
        self.steady = Some((mark.cpu_ns, mark.wall_ns));
        self.sampler.forget();
        Ok(())
    }

    /// The work is over: the peak is known, and rest is read at each delay.
    fn rest(&mut self, mark: &Mark, idle_ms: &[u64]) -> Result<(), String> {
        self.has_rested = true;
        self.check_handler()?;
        self.note_high_water();
        self.run.faults_minor = self.sampler.faults_minor();
        let peak = self.sampler.peak_anonymous();
        self.run.rest_from.clone_from(&mark.name);
        self.sampler.settle();
        let began = Instant::now();
        for (index, delay) in idle_ms.iter().enumerate() {
            thread::sleep(Duration::from_millis(*delay).saturating_sub(began.elapsed()));
            let memory = self.sampler.read().map_err(|e| unreadable(&e))?;
            if index == 0 {
                self.run.no_heap_bytes = memory.no_heap;
                self.run.huge_bytes = Some(memory.huge);
                self.run.peak_bytes = peak.max(memory.anonymous).saturating_sub(memory.no_heap);
            }
            self.run.rest.push((*delay, memory.heap()));
        }
        self.run.cpu_ns_all = Some(mark.cpu_ns);
        if let Some((cpu_ns, wall_ns)) = self.steady {
            self.run.cpu_ns = mark.cpu_ns.checked_sub(cpu_ns);
            self.run.wall_ns = mark.wall_ns.checked_sub(wall_ns);
        }
        Ok(())
    }

    /// That a program which was told to has installed NumPy's handler: the variable alone does nothing.
    fn check_handler(&self) -> Result<(), String> {
        let Some(value) = &self.handler else { return Ok(()) };
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid)).map_err(|e| unreadable(&e))?;
        let wanted = Path::new(value).canonicalize().ok().filter(|_| value != "system");
        let is_mapped = |file: &str| maps.lines().any(|line| line.ends_with(file));
        if is_mapped("/libpyalloc_numpy.so") && wanted.is_none_or(|file| is_mapped(&file.to_string_lossy())) {
            return Ok(());
        }
        Err(format!(
            "{NUMPY}={} had no effect: the program did not install NumPy's handler. Have it call \
             pyalloc_numpy.install(), or leave the word out.",
            value.to_string_lossy()
        ))
    }

    fn note_high_water(&mut self) {
        let high = self.sampler.high_water().map_or(0, |high| high.rss);
        self.run.rss_bytes_peak = self.run.rss_bytes_peak.max(high);
    }

    fn into_run(mut self, cell: &Cell, ended: Option<String>) -> Result<RealRun, String> {
        if self.has_rested {
            self.run.ended = ended;
            self.run.block = cell.block;
            self.run.padding_bytes = cell.padding_bytes;
            self.run.polls = self.sampler.polls;
            return Ok(self.run);
        }
        Err(match self.run.other_marks {
            0 => "The program ended without a mark: its interpreter's exit could not be noticed, and it made no mark \
                  of its own. Is it CPython that ends by itself, not by a signal or os._exit? Else have it call \
                  pyalloc_mark, as the README shows."
                .to_owned(),
            n if self.of_child => format!(
                "The trace is of a forked child, and all {n} marks came from the program itself. Have the child mark \
                 `drained`, or compare with the program's own trace."
            ),
            n => format!(
                "All {n} marks came from children of the program. Name the Python program itself, or have it mark \
                 `steady`."
            ),
        })
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("The program's memory cannot be read: {error}. Run it as the same user.")
}
