//! Runs the streams of an image on real threads, which wait for each other where their streams say so.
//!
//! A thread publishes how far it is; who waits for it looks, spins for a moment, and sleeps. Threads start and end
//! where they were recorded, since allocators keep something for each thread and pass it on when the thread ends.
//! Stacks are shared memory and so count as nobody's.
//!
//! Invariant: a stream is replayed once, by one thread, in its order; nothing of the harness is allocated meanwhile.

use super::{Account, Heap, Pass, Statistics};
use crate::probe::clock::now_ns;
use crate::probe::sys::{self, End, Mapping, Start};
use crate::run::{CallKind, ThreadUse};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use trace::image::{Control, Op, OpKind};
use trace::{Directive, Phase};

/// Bytes of a thread's stack, on which its thread-local storage lies too.
const STACK_BYTES: usize = 256 * 1024;
/// Looks before a thread goes to sleep: about as long as waking up takes.
const SPINS: u32 = 100;
/// No phase has begun since the start.
const NO_PHASE: u32 = u32::MAX;

/// The streams of an image, mapped.
#[derive(Default)]
pub(crate) struct Streams {
    /// By thread.
    pub(crate) ops: Vec<&'static [u64]>,
    /// Most threads that are there at once.
    pub(crate) lanes: u32,
}

/// A pass that several threads share. Only who has the right to enters it: in the total order there is one thread at a
/// time, and otherwise it is entered at the marks of phases alone, where all others wait.
pub(crate) struct Baton<P: 'static>(pub(crate) &'static Mutex<P>);

impl<P> Clone for Baton<P> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<P: Pass> Baton<P> {
    /// The shared pass.
    pub(crate) fn take(&self) -> MutexGuard<'static, P> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Pass> Pass for Baton<P> {
    const CALLS: bool = P::CALLS;
    const FULL_TOUCH: bool = P::FULL_TOUCH;
    const ACCOUNTS: bool = P::ACCOUNTS;

    fn gained(&mut self, block: Account) {
        self.take().gained(block);
    }

    fn lost(&mut self, block: Account) {
        self.take().lost(block);
    }

    #[inline(always)]
    fn reach(&mut self, at: u64, op: Op) {
        if P::ACCOUNTS {
            self.take().reach(at, op);
        }
    }

    fn mark(&mut self, mark: u32, at: u64, heap: &mut Heap) -> bool {
        self.take().mark(mark, at, heap)
    }
}

/// How far a thread is, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Reached {
    position: AtomicU32,
    /// Threads that sleep until it is further.
    sleepers: AtomicU32,
}

/// Where a thread sleeps, on a cache line of its own.
#[repr(align(64))]
struct Bed {
    /// 1 while it is about to sleep or asleep.
    word: AtomicU32,
    /// What it sleeps for: a thread and its position; [`NOTHING`] when it is awake.
    target: AtomicU64,
}

const NOTHING: u64 = u64::MAX;

/// What one thread brings along; a later thread takes it over from one that is gone.
struct Hand<P> {
    heap: Heap,
    pass: P,
    tally: Tally,
}

/// What a thread did besides its ops.
#[derive(Clone, Copy, Default)]
struct Tally {
    waits: u64,
    hand_overs: u64,
    waiting_ns: u64,
    spinning_ns: u64,
    alive_ns: u64,
    cpu_ns: u64,
}

/// Where a thread that starts finds out what it is to do.
pub(crate) struct Seat<P: 'static> {
    crew: OnceLock<&'static Crew<P>>,
    lane: usize,
    thread: AtomicU32,
}

/// All threads of a replay. A lane is what a live thread needs: stack, tables, a bed.
pub(crate) struct Crew<P: 'static> {
    streams: Vec<&'static [u64]>,
    reached: Vec<Reached>,
    handles: Vec<AtomicU64>,
    lane_of: Vec<AtomicU32>,
    hands: Vec<Mutex<Hand<P>>>,
    beds: Vec<Bed>,
    stacks: Vec<Mapping>,
    starts: Vec<Start<Seat<P>>>,
    free_lanes: Mutex<Vec<u32>>,
    phase: AtomicU32,
    /// What the first thread reads for the others, if they need that.
    statistics: OnceLock<&'static Statistics>,
    stopped: AtomicBool,
    /// The system's number of the error that stopped it, or 0.
    error: AtomicI32,
}

impl<P: Pass + Send> Crew<P> {
    /// Everything that the streams need; `pass` makes what each lane's thread notes down.
    ///
    /// # Errors
    /// The system's, when there is no memory for stacks or tables.
    pub(crate) fn new(streams: Streams, heap: &Heap, pass: impl Fn() -> io::Result<P>) -> io::Result<&'static Self> {
        let (streams, lanes) = (streams.ops, (streams.lanes as usize).max(1));
        let seats: Vec<Seat<P>> =
            (0..lanes).map(|lane| Seat { crew: OnceLock::new(), lane, thread: AtomicU32::new(0) }).collect();
        let seats: &'static [Seat<P>] = Vec::leak(seats); // a worker ends with its one replay
        let stack = || Mapping::shared(STACK_BYTES).inspect(|stack| stack.make_present(STACK_BYTES));
        let hand = || Ok(Mutex::new(Hand { heap: heap.twin(), pass: pass()?, tally: Tally::default() }));
        let bed = || Bed { word: AtomicU32::new(0), target: AtomicU64::new(NOTHING) };
        let threads = streams.len();
        let crew: &'static Self = Box::leak(Box::new(Self {
            reached: (0..threads).map(|_| Reached::default()).collect(),
            handles: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            lane_of: (0..threads).map(|_| AtomicU32::new(0)).collect(),
            hands: (0..lanes).map(|_| hand()).collect::<io::Result<_>>()?,
            beds: (0..lanes).map(|_| bed()).collect(),
            stacks: (0..lanes).map(|_| stack()).collect::<io::Result<_>>()?,
            starts: seats.iter().map(|seat| Start { argument: seat, run: begin::<P> }).collect(),
            free_lanes: Mutex::new((1..lanes as u32).rev().collect()),
            phase: AtomicU32::new(NO_PHASE),
            statistics: OnceLock::new(),
            stopped: AtomicBool::new(false),
            error: AtomicI32::new(0),
            streams,
        }));
        for seat in seats {
            let _ = seat.crew.set(crew);
        }
        Ok(crew)
    }

    /// For a footprint pass, before the replay: the first thread reads the allocators' statistics for the others, while
    /// it waits for them.
    pub(crate) fn serve(&'static self, statistics: &'static Statistics) {
        statistics.wake_by(&self.beds[0].word);
        let _ = self.statistics.set(statistics);
    }

    /// Replays all of it; this thread is the first.
    ///
    /// # Errors
    /// A thread could not be started.
    pub(crate) fn run(&'static self) -> io::Result<()> {
        self.live(0, 0);
        match self.error.load(SeqCst) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// One thread's life.
    fn live(&'static self, thread: usize, lane: usize) {
        let begun = now_ns();
        let cpu = sys::cpu_ns_of_thread();
        let mut hand = lock(&self.hands[lane]);
        let Hand { heap, pass, tally } = &mut *hand;
        let mut member = Member { crew: self, thread, lane, offset: 0, phase: NO_PHASE, pass, tally };
        member.meet_phase();
        if !super::replay(self.streams[thread], 0, heap, &mut member) {
            self.stop();
        }
        tally.alive_ns += now_ns() - begun;
        tally.cpu_ns += sys::cpu_ns_of_thread() - cpu;
    }

    /// Nobody goes on.
    fn stop(&self) {
        self.stopped.store(true, SeqCst);
        for bed in &self.beds {
            bed.word.store(0, SeqCst);
            sys::futex_wake(&bed.word);
        }
    }

    fn fail(&self, error: &io::Error) -> bool {
        self.error.store(error.raw_os_error().unwrap_or(libc::EAGAIN), SeqCst);
        false
    }

    fn signal(&self, thread: usize, position: u32) {
        let reached = &self.reached[thread];
        reached.position.store(position, SeqCst);
        if reached.sleepers.load(SeqCst) == 0 {
            return;
        }
        for bed in &self.beds {
            let target = bed.target.load(SeqCst);
            let is_met = target >> 32 == thread as u64 && target as u32 <= position;
            if is_met && bed.word.swap(0, SeqCst) == 1 {
                sys::futex_wake(&bed.word);
            }
        }
    }

    /// Waits until a thread has reached a position; `false` when nobody is to go on.
    #[inline(always)]
    fn wait(&self, lane: usize, source: usize, position: u32, tally: &mut Tally) -> bool {
        tally.waits += 1;
        self.reached[source].position.load(SeqCst) >= position || self.wait_long(lane, source, position, tally)
    }

    #[inline(never)]
    fn wait_long(&self, lane: usize, source: usize, position: u32, tally: &mut Tally) -> bool {
        let reached = &self.reached[source];
        let begun = now_ns();
        for _ in 0..SPINS {
            std::hint::spin_loop();
            if reached.position.load(SeqCst) >= position {
                let spun = now_ns() - begun;
                tally.waiting_ns += spun;
                tally.spinning_ns += spun;
                return true;
            }
        }
        tally.spinning_ns += now_ns() - begun;
        // Whoever signals looks for sleepers after it has published its position; this one publishes itself first and
        // looks at the position then: one of the two sees the other.
        let bed = &self.beds[lane];
        bed.target.store(((source as u64) << 32) | u64::from(position), SeqCst);
        reached.sleepers.fetch_add(1, SeqCst);
        let goes_on = loop {
            bed.word.store(1, SeqCst);
            if let Some(statistics) = self.statistics.get().filter(|_| lane == 0) {
                statistics.serve();
            }
            if reached.position.load(SeqCst) >= position {
                break true;
            }
            if self.stopped.load(SeqCst) {
                break false;
            }
            sys::futex_wait(&bed.word, 1);
        };
        bed.target.store(NOTHING, SeqCst);
        reached.sleepers.fetch_sub(1, SeqCst);
        tally.hand_overs += 1;
        tally.waiting_ns += now_ns() - begun;
        goes_on
    }

    fn spawn(&'static self, thread: usize) -> bool {
        let Some(lane) = lock(&self.free_lanes).pop() else { return self.fail(&io::ErrorKind::WouldBlock.into()) };
        let start = &self.starts[lane as usize];
        start.argument.thread.store(thread as u32, SeqCst);
        self.lane_of[thread].store(lane, SeqCst);
        match sys::start_thread(self.stacks[lane as usize], start, self.end()) {
            Ok(()) => true,
            Err(error) => self.fail(&error),
        }
    }

    /// A thread that joins another one frees memory for it, and glibc gives a thread that frees an arena. In a
    /// footprint pass nobody joins: that memory would be the replay's own.
    fn end(&self) -> End {
        if self.statistics.get().is_some() { End::Detached } else { End::Joined }
    }

    /// Waits until a thread is gone, which has reached its last op.
    fn join(&self, thread: usize, tally: &mut Tally) -> bool {
        let begun = now_ns();
        let handle = self.handles[thread].load(SeqCst);
        match self.end() {
            End::Joined => sys::join_thread(handle),
            End::Detached => sys::wait_until_gone(handle),
        }
        lock(&self.free_lanes).push(self.lane_of[thread].load(SeqCst));
        tally.waiting_ns += now_ns() - begun;
        true
    }

    /// What the threads did, in `wall_ns`; after the replay.
    pub(crate) fn usage(&self, wall_ns: u64) -> ThreadUse {
        let mut usage = ThreadUse { threads: self.streams.len() as u32, wall_ns, ..ThreadUse::default() };
        for hand in &self.hands {
            let tally = lock(hand).tally;
            usage.waits += tally.waits;
            usage.hand_overs += tally.hand_overs;
            usage.waiting_ns += tally.waiting_ns;
            usage.alive_ns += tally.alive_ns;
            usage.busy_ns += tally.cpu_ns.saturating_sub(tally.spinning_ns);
        }
        usage
    }

    /// Failed allocations of all threads; after the replay.
    pub(crate) fn failed(&self) -> u64 {
        self.hands.iter().map(|hand| lock(hand).heap.failed).sum()
    }

    /// Directives of all threads that no allocator has; after the replay.
    pub(crate) fn unreplayed(&self) -> [u64; Directive::ALL.len()] {
        let mut sums = [0; Directive::ALL.len()];
        for hand in &self.hands {
            let of_hand = lock(hand).heap.unreplayed;
            sums.iter_mut().zip(of_hand).for_each(|(sum, calls)| *sum += calls);
        }
        sums
    }

    /// Hands each lane's pass over; after the replay.
    pub(crate) fn each_pass(&self, mut each: impl FnMut(&mut P)) {
        self.hands.iter().for_each(|hand| each(&mut lock(hand).pass));
    }

    /// Gives the first lane's pass and heap over: before the replay, or at its end.
    pub(crate) fn with_first<R>(&self, with: impl FnOnce(&mut P, &mut Heap) -> R) -> R {
        let mut hand = lock(&self.hands[0]);
        let Hand { heap, pass, .. } = &mut *hand;
        with(pass, heap)
    }
}

/// No holder of these locks panics; one that did would have ended the worker.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first step of a started thread.
fn begin<P: Pass + Send>(seat: &'static Seat<P>) {
    let Some(crew) = seat.crew.get() else { return };
    let thread = seat.thread.load(SeqCst) as usize;
    let handle = match crew.end() {
        End::Joined => sys::this_thread(),
        End::Detached => sys::this_kernel_thread(),
    };
    crew.handles[thread].store(handle, SeqCst);
    crew.live(thread, seat.lane);
}

/// One thread within the crew: its pass, and what its stream says about others.
struct Member<'a, P: 'static> {
    crew: &'static Crew<P>,
    thread: usize,
    lane: usize,
    /// What an index in the stream lacks to that in the merged image.
    offset: i64,
    /// Mark of the phase that it knows of.
    phase: u32,
    pass: &'a mut P,
    tally: &'a mut Tally,
}

impl<P: Pass + Send> Member<'_, P> {
    fn merged(&self, at: u64) -> u64 {
        at.wrapping_add_signed(self.offset)
    }

    /// A phase may have begun while it waited, or before it started.
    #[inline(always)]
    fn meet_phase(&mut self) {
        let phase = self.crew.phase.load(SeqCst);
        if phase != self.phase {
            self.phase = phase;
            self.pass.phase_began(phase);
        }
    }
}

impl<P: Pass + Send> Pass for Member<'_, P> {
    const CALLS: bool = P::CALLS;
    const FULL_TOUCH: bool = P::FULL_TOUCH;
    const ACCOUNTS: bool = P::ACCOUNTS;
    const TOKEN: bool = true;

    #[inline(always)]
    fn call<R>(&mut self, kind: CallKind, bytes: usize, call: impl FnOnce() -> R) -> R {
        self.pass.call(kind, bytes, call)
    }

    #[inline(always)]
    fn touched(&mut self) {
        self.pass.touched();
    }

    fn gained(&mut self, block: Account) {
        self.pass.gained(block);
    }

    fn lost(&mut self, block: Account) {
        self.pass.lost(block);
    }

    fn waited(&mut self, ns: u64) {
        self.tally.waiting_ns += ns;
    }

    /// Controls are not of the recording, and a wait must be over before anything is noted.
    #[inline(always)]
    fn reach(&mut self, at: u64, op: Op) {
        if op.kind_bits() != OpKind::ThreadSwitch as u8 {
            self.pass.reach(self.merged(at), op);
        }
    }

    fn mark(&mut self, mark: u32, at: u64, heap: &mut Heap) -> bool {
        let goes_on = self.pass.mark(mark, self.merged(at), heap);
        if Phase::from_mark(mark).is_some() {
            self.phase = mark;
            self.crew.phase.store(mark, SeqCst);
        }
        goes_on
    }

    fn control(&mut self, op: Op, at: u64) -> bool {
        let (other, value) = (op.slot(), op.value());
        self.offset -= 1; // it is none of the merged image's ops
        let goes_on = match Control::of(op) {
            Control::Wait => self.crew.wait(self.lane, other, value, self.tally),
            Control::Signal => {
                self.crew.signal(self.thread, value);
                true
            }
            Control::Spawn => self.crew.spawn(other),
            Control::Join => self.crew.join(other, self.tally),
            Control::At => {
                self.offset = i64::from(value) - (at as i64 + 1);
                true
            }
            Control::Direct => {
                self.offset += 1;
                self.pass.control(op, self.merged(at))
            }
            Control::Switch => true,
        };
        self.meet_phase();
        goes_on
    }
}
