//! Footprint: requested, usable, mapped and resident memory over the trace and at rest. No timing.
//!
//! Order of what is read: the curve while the trace runs; idle readings in place at `drained` when the program has
//! that mark, else at `finalising`, else after the last op; then, once `end` has been read, a trickle of small
//! requests and the explicit release, which would disturb it. The ops after `finalising` are not replayed: they free
//! what the kernel is about to take back.
//!
//! Invariant: a reading allocates nothing, and the list that holds it was made before the seal.

use super::arenas::ArenaLog;
use super::{Account, Heap, OwnerLog, Pass, RecordedTime, Statistics};
use crate::backend::{PoolReader, Release};
use crate::probe::{memory, usage::Usage};
use crate::run::{MemoryPoint, Moment, Owners, Pools, RestPoint, RestState};
use std::io;
use trace::image::{CYCLE_MARK, ImageSummary, Op};
use trace::{Domain, Phase};

/// Most readings at new peaks of requested bytes.
const PEAK_READINGS_MAX: usize = 2_048;
/// Most marks at which memory is read.
const MARK_READINGS_MAX: usize = 1_024;
/// A new peak is one that exceeds the last by a hundredth and this, bytes.
const PEAK_STEP_BYTES: u64 = 16 * 1024;
/// A trickle: so many beats, a millisecond apart, of 20 requests in each of [`TRICKLE_DOMAINS`].
const TRICKLE_BEATS: u64 = 200;
const TRICKLE_DOMAINS: [Domain; 5] = [Domain::Obj, Domain::Mem, Domain::Obj, Domain::Raw, Domain::Libc];
const TRICKLE_SIZES: [usize; 20] =
    [32, 48, 56, 64, 24, 72, 80, 33, 96, 112, 128, 50, 160, 200, 56, 256, 320, 40, 416, 512];

/// The readings so far.
pub(crate) struct FootprintPass {
    reader: memory::Reader,
    /// `None` where the kernel does not let it be reset.
    high_water: Option<memory::HighWater>,
    before: memory::Memory,
    faults_before: u64,
    /// The time that the allocators meet.
    pub(crate) time: RecordedTime,
    idle_ms: Vec<u64>,
    release: Vec<Release>,
    /// Ops between two evenly spaced readings, and the op of the next.
    every: u64,
    next: u64,
    /// Requested bytes above which a new peak is read.
    peak_above: u64,
    peak_readings: usize,
    now: MemoryPoint,
    in_steady: bool,
    has_steady: bool,
    work_ended_ns: Option<u64>,
    ended: bool,
    pools: Option<ArenaLog>,
    owners: OwnerLog,
    failed: Option<io::Error>,
    /// What it has read, to be put into an observation.
    pub(crate) read: Readings,
}

/// What the pass has read; see [`crate::run::Footprint`].
#[derive(Default)]
pub(crate) struct Readings {
    pub(crate) curve: Vec<MemoryPoint>,
    pub(crate) at_phase: Vec<(Phase, MemoryPoint)>,
    pub(crate) peak: MemoryPoint,
    pub(crate) end: MemoryPoint,
    pub(crate) rest_from: &'static str,
    pub(crate) rest: Vec<RestPoint>,
    pub(crate) cycles: Vec<MemoryPoint>,
    pub(crate) at_marks: Vec<[u64; 2]>,
    pub(crate) faults_minor: u64,
    pub(crate) high_water_bytes: Vec<(Phase, u64)>,
}

impl FootprintPass {
    /// Makes the lists. `release` holds each backend's release once; `pools` reads those of the one that has any.
    ///
    /// # Errors
    /// Memory readings cannot be had.
    pub(crate) fn new(
        image: &ImageSummary,
        points: u32,
        idle_ms: Vec<u64>,
        release: Vec<Release>,
        pools: Option<PoolReader>,
        owners: OwnerLog,
        time: RecordedTime,
    ) -> io::Result<Self> {
        let reader = memory::Reader::open()?;
        let before = reader.read()?;
        // Filled once, so that no page of the list is missing when a reading is put into it.
        let mut curve = vec![MemoryPoint::default(); points as usize + PEAK_READINGS_MAX + MARK_READINGS_MAX + 16];
        curve.clear();
        let rest = Vec::with_capacity(idle_ms.len() + 2);
        let cycles = Vec::with_capacity(image.cycles.as_ref().map_or(0, |cycles| cycles.times as usize));
        let (at_phase, high_water_bytes) = (Vec::with_capacity(8), Vec::with_capacity(8));
        let mut at_marks = vec![[0; 2]; if image.cycles.is_some() { 0 } else { MARK_READINGS_MAX }];
        at_marks.clear();
        let read = Readings { curve, at_phase, rest, cycles, at_marks, high_water_bytes, ..Readings::default() };
        let has_steady = image.phase_ops[Phase::Steady as usize].is_some();
        let every = (image.ops / u64::from(points.max(1))).max(1);
        Ok(Self {
            reader,
            high_water: memory::HighWater::open().ok(),
            before,
            faults_before: 0,
            time,
            idle_ms,
            release,
            every,
            next: 0,
            peak_above: PEAK_STEP_BYTES,
            peak_readings: 0,
            now: MemoryPoint::default(),
            in_steady: !has_steady,
            has_steady,
            work_ended_ns: None,
            ended: false,
            pools: pools.map(|reader| ArenaLog::new(reader, every)),
            owners,
            failed: None,
            read,
        })
    }

    /// Takes the reading that all others are relative to, and that of the first phase.
    pub(crate) fn start(&mut self) -> memory::Memory {
        self.time.start();
        match self.reader.read() {
            Ok(before) => self.before = before,
            Err(error) => self.failed = Some(error),
        }
        self.faults_before = Usage::now().faults_minor;
        let point = self.point(0);
        self.read.at_phase.push((Phase::Startup, point));
        if self.high_water.as_ref().is_some_and(|high| high.reset().is_err()) {
            self.high_water = None;
        }
        self.before
    }

    /// The first reading that failed, if any did.
    pub(crate) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// What the pools held, if there are any; once, after the replay.
    pub(crate) fn pools(&mut self) -> Option<Pools> {
        self.pools.take().map(ArenaLog::into_pools)
    }

    /// The allocators' statistics, which one thread reads.
    pub(crate) fn statistics(&self) -> &'static Statistics {
        self.owners.statistics()
    }

    /// Who owned what.
    pub(crate) fn owners(&self) -> Vec<Owners> {
        self.owners.owners()
    }

    fn point(&mut self, op: u64) -> MemoryPoint {
        match self.reader.read() {
            Ok(now) => MemoryPoint {
                op,
                mapped_bytes: now.mapped_bytes.saturating_sub(self.before.mapped_bytes),
                resident_bytes: now.anonymous_bytes.saturating_sub(self.before.anonymous_bytes),
                lazy_free_bytes: now.lazy_free_bytes.saturating_sub(self.before.lazy_free_bytes),
                huge_bytes: now.huge_bytes.saturating_sub(self.before.huge_bytes),
                ..self.now
            },
            Err(error) => {
                self.failed.get_or_insert(error);
                self.now
            }
        }
    }

    fn add_to_curve(&mut self, op: u64) -> MemoryPoint {
        let point = self.point(op);
        if self.read.curve.len() < self.read.curve.capacity() {
            self.read.curve.push(point);
        }
        if self.in_steady && point.resident_bytes > self.read.peak.resident_bytes {
            self.read.peak = point;
            self.owners.read(Moment::Peak, point);
            if let Some(pools) = &mut self.pools {
                pools.peak();
            }
        }
        point
    }

    /// Keeps the kernel's high-water mark of the phase that ends, and has it begin anew.
    fn note_high_water(&mut self) {
        let (Some(high), Some((phase, _))) = (&self.high_water, self.read.at_phase.last()) else { return };
        let own = high.anonymous_bytes().and_then(|bytes| high.reset().map(|()| bytes));
        if let Ok(bytes) = own {
            self.read.high_water_bytes.push((*phase, bytes.saturating_sub(self.before.anonymous_bytes)));
        }
    }

    /// The work is over: reads at each idle delay, counted from now. Nothing allocates meanwhile.
    fn idle(&mut self, op: u64, from: &'static str) {
        if self.work_ended_ns.is_some() {
            return;
        }
        self.read.faults_minor = Usage::now().faults_minor - self.faults_before;
        let ended = self.time.now_ns();
        self.work_ended_ns = Some(ended);
        self.read.rest_from = from;
        for at in 0..self.idle_ms.len() {
            self.time.pass_until(ended + self.idle_ms[at] * 1_000_000);
            let point = self.rest(RestState::Idle, op);
            self.owners.read(Moment::Rest, point);
        }
        self.time.added(ended);
    }

    fn rest(&mut self, state: RestState, op: u64) -> MemoryPoint {
        let memory = self.point(op);
        let after_ms = (self.time.now_ns() - self.work_ended_ns.unwrap_or_default()) / 1_000_000;
        if self.read.rest.len() < self.read.rest.capacity() {
            self.read.rest.push(RestPoint { state, after_ms, memory });
        }
        memory
    }

    /// The live set at the end: `end`, then what would have disturbed it.
    fn end(&mut self, op: u64, point: MemoryPoint, from: &'static str, heap: &mut Heap) {
        self.note_high_water();
        self.read.end = point;
        self.owners.read(Moment::End, point);
        if let Some(pools) = &mut self.pools {
            pools.mark(op);
            pools.end();
        }
        self.read.at_phase.push((Phase::Finalising, point));
        self.idle(op, from);
        let start = self.time.now_ns();
        for beat in 1..=TRICKLE_BEATS {
            TRICKLE_DOMAINS.iter().for_each(|domain| heap.churn(*domain, &TRICKLE_SIZES));
            self.time.pass_until(start + beat * 1_000_000);
        }
        self.rest(RestState::Trickle, op);
        self.release.iter().for_each(|release| release());
        self.rest(RestState::Release, op);
        self.ended = true;
    }
}

impl Pass for FootprintPass {
    const FULL_TOUCH: bool = true;
    const ACCOUNTS: bool = true;

    fn gained(&mut self, block: Account) {
        self.now.requested_bytes += block.requested as u64;
        self.now.usable_bytes += block.usable as u64;
        self.now.blocks += 1;
        self.owners.gained(&block);
    }

    fn lost(&mut self, block: Account) {
        self.now.requested_bytes -= block.requested as u64;
        self.now.usable_bytes -= block.usable as u64;
        self.now.blocks -= 1;
        self.owners.lost(&block);
    }

    fn reach(&mut self, op: u64, _: Op) {
        self.time.reach(op);
        let is_peak = self.now.requested_bytes > self.peak_above && self.peak_readings < PEAK_READINGS_MAX;
        if is_peak {
            self.peak_readings += 1;
            self.peak_above = self.now.requested_bytes + self.now.requested_bytes / 100 + PEAK_STEP_BYTES;
        }
        if is_peak || op >= self.next {
            self.add_to_curve(op);
            if op >= self.next {
                self.next = op + self.every;
                if let Some(pools) = &mut self.pools {
                    pools.reach(op);
                }
            }
        }
    }

    fn mark(&mut self, mark: u32, op: u64, heap: &mut Heap) -> bool {
        if mark == CYCLE_MARK {
            let point = self.add_to_curve(op);
            if self.read.cycles.len() < self.read.cycles.capacity() {
                self.read.cycles.push(point);
            }
        }
        let phase = Phase::from_mark(mark);
        if phase.is_some_and(|phase| self.read.at_phase.iter().any(|(seen, _)| *seen >= phase)) {
            return true; // a phase never begins twice nor after a later one
        }
        if phase.is_none() && (mark == CYCLE_MARK || self.read.at_marks.len() == self.read.at_marks.capacity()) {
            return true;
        }
        self.time.look_for_strangers();
        let point = self.add_to_curve(op); // still counted as what went before
        if self.read.at_marks.len() < self.read.at_marks.capacity() {
            self.read.at_marks.push([point.resident_bytes, point.requested_bytes]);
        }
        let Some(phase) = phase else { return true };
        if self.has_steady {
            self.in_steady = phase == Phase::Steady;
            self.peak_above = self.now.requested_bytes + PEAK_STEP_BYTES; // peaks of each phase, not of start-up only
        }
        if let Some(pools) = &mut self.pools {
            pools.mark(op);
            if phase == Phase::Drained {
                pools.drained();
            }
        }
        match phase {
            Phase::Startup => {}
            Phase::Steady => {
                self.note_high_water();
                self.read.at_phase.push((phase, point));
            }
            Phase::Drained => {
                self.note_high_water();
                self.read.at_phase.push((phase, point));
                self.owners.read(Moment::Drained, point);
                self.idle(op, "drained");
            }
            Phase::Finalising => self.end(op, point, "finalising", heap),
        }
        phase != Phase::Finalising
    }

    fn finish(&mut self, ops: u64, heap: &mut Heap) {
        if !self.ended {
            let point = self.add_to_curve(ops);
            self.end(ops, point, "last op", heap);
        }
        self.time.end();
    }
}
