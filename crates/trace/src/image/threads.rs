//! A merged image taken apart into one stream of ops per recorded thread.
//!
//! What one thread has to do before another goes on is an edge. An edge becomes [`Control::Signal`] right after its
//! source and [`Control::Wait`] right before its target; an edge that program order or earlier waits imply is left out.
//! A position is the index that an op has in the merged image, plus one.
//!
//! Invariant: every edge goes forward in the recorded order, so threads that wait for each other cannot exist: of the
//! threads that are not done, the one whose next op was recorded first can always go on.

mod weave;

use super::{Op, OpKind, is_prefix};
use crate::{DirectiveCall, SLOTS_MAX};
use weave::Weaver;

/// Most threads that ops may be taken apart for: each knows how far every other one is.
pub const THREADS_REPLAYED_MAX: usize = 1024;

/// What a thread may not overtake, besides a block's own history, the four phases, and its own start and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Everything, in the recorded order: one thread runs at a time.
    Total,
    /// The calls of the Python domains `mem` and `obj`, in the recorded order, as the GIL had them.
    Gil,
    /// Nothing else.
    Free,
}

/// What an op of kind [`OpKind::ThreadSwitch`] means, by its three domain bits. Another thread is a stream's index, in
/// the slot field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Control {
    /// Of a merged image: the calls that follow are another thread's.
    Switch = 0,
    /// Go on when that thread has reached the position in the size field.
    Wait = 1,
    /// This thread has reached the position in the size field.
    Signal = 2,
    /// Start that thread.
    Spawn = 3,
    /// Go on when that thread is gone.
    Join = 4,
    /// The next op has this index in the merged image, in the size field; of [`Order::Total`] alone.
    At = 5,
    /// The program steers its allocator: directive and key in the slot field, the value in the size field.
    Direct = 6,
}

impl Control {
    /// What a control op means. Op must be of kind [`OpKind::ThreadSwitch`].
    #[inline]
    #[must_use]
    pub const fn of(op: Op) -> Self {
        match op.domain_bits() {
            1 => Self::Wait,
            2 => Self::Signal,
            3 => Self::Spawn,
            4 => Self::Join,
            5 => Self::At,
            6 => Self::Direct,
            _ => Self::Switch,
        }
    }

    /// The op of a directive.
    #[must_use]
    pub fn direct(call: DirectiveCall) -> Op {
        Self::Direct.op(call.code(), call.value.cast_unsigned())
    }

    /// What the program asks its allocator in this op, if it is [`Self::Direct`].
    #[must_use]
    pub fn call_of(op: Op) -> Option<DirectiveCall> {
        let is_direct = op.kind() == OpKind::ThreadSwitch && Self::of(op) == Self::Direct;
        is_direct.then(|| DirectiveCall::from_code(op.slot() as u32, op.value().cast_signed())).flatten()
    }

    /// The op. `thread` must be below [`SLOTS_MAX`].
    #[must_use]
    pub const fn op(self, thread: u32, value: u32) -> Op {
        let low = OpKind::ThreadSwitch as u64 | ((self as u64) << 4);
        Op(low | ((thread as u64) << 7) | ((value as u64) << 32))
    }
}

/// The streams of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadedImage {
    /// By thread, in the order of their first ops; the first is the one that the recording began with.
    pub streams: Vec<Vec<u64>>,
    /// Size of the slot table.
    pub slots: u32,
    /// Most threads that are there at once.
    pub lanes: u32,
    /// Waits that edges became.
    pub waits: u64,
}

/// The ops of one thread that may not be parted, and where they stand.
#[derive(Clone, Copy, Debug)]
struct Group {
    /// Index of the first prefix, or of the op.
    from: usize,
    /// Index of the op that the prefixes qualify.
    at: usize,
    /// Thread, as recorded.
    thread: u32,
    op: Op,
}

/// The groups of a merged image in order, thread switches among them.
struct Groups<'a> {
    ops: &'a [u64],
    at: usize,
    thread: u32,
}

impl<'a> Groups<'a> {
    fn new(ops: &'a [u64]) -> Self {
        Self { ops, at: 0, thread: 0 }
    }
}

impl Iterator for Groups<'_> {
    type Item = Group;

    fn next(&mut self) -> Option<Group> {
        let from = self.at;
        let prefixes = self.ops.get(from..)?.iter().take_while(|word| is_prefix(Op(**word))).count();
        let at = from + prefixes;
        let op = Op(*self.ops.get(at)?);
        self.at = at + 1;
        if op.kind() == OpKind::ThreadSwitch && Control::of(op) == Control::Switch {
            self.thread = op.value();
        }
        Some(Group { from, at, thread: self.thread, op })
    }
}

/// Whether an op stands in a stream as it does in the merged image. Threads' lives become controls.
fn is_kept(op: Op) -> bool {
    match op.kind() {
        OpKind::ThreadStart | OpKind::ThreadEnd => false,
        OpKind::ThreadSwitch => Control::of(op) == Control::Direct,
        _ => true,
    }
}

/// Takes a merged image with so many slots apart.
///
/// Slots are renumbered but for [`Order::Total`]: a freed slot returns to the thread that freed it, so that two threads
/// meet over a slot only where there is no other within half as many slots again.
///
/// # Errors
/// A sentence when the image has more threads or ops than streams can have.
pub fn apart(mut ops: Vec<u64>, slots: u32, order: Order) -> Result<ThreadedImage, String> {
    if u32::try_from(ops.len()).is_err() {
        return Err("a recording of more than 4e9 ops is not replayed thread by thread; use --threads merged".into());
    }
    let slots_max = slots.saturating_add(slots / 2).saturating_add(1024).min(SLOTS_MAX);
    let mut weaver = Weaver::new(&ops, slots, slots_max, order)?;
    let mut at = 0;
    while let Some(group) = (Groups { ops: &ops, at, thread: weaver.recorded_thread }).next() {
        at = group.at + 1;
        weaver.recorded_thread = group.thread;
        if let Some(slot) = weaver.take(group) {
            for word in &mut ops[group.from..=group.at] {
                *word = with_slot(*word, slot);
            }
        }
    }
    weaver.finish();
    Ok(assemble(&ops, &weaver, order))
}

fn with_slot(word: u64, slot: u32) -> u64 {
    (word & !(((1 << 25) - 1) << 7)) | (u64::from(slot) << 7)
}

/// Puts each op into its thread's stream, the controls before it and the signals behind it.
fn assemble(ops: &[u64], weaver: &Weaver, order: Order) -> ThreadedImage {
    let mut streams: Vec<Vec<u64>> = weaver.threads.iter().map(|thread| Vec::with_capacity(thread.room())).collect();
    let mut controls: Vec<_> = weaver.threads.iter().map(|thread| thread.controls.iter().peekable()).collect();
    let mut expected = vec![0; streams.len()];
    for group in Groups::new(ops).filter(|group| is_kept(group.op)) {
        let thread = weaver.stream_of(group.thread);
        let stream = &mut streams[thread];
        while let Some((_, op)) = controls[thread].next_if(|(at, _)| *at as usize <= group.at) {
            stream.push(op.0);
        }
        if order == Order::Total && expected[thread] != group.from {
            stream.push(Control::At.op(0, group.from as u32).0);
        }
        stream.extend_from_slice(&ops[group.from..=group.at]);
        expected[thread] = group.at + 1;
        if weaver.is_signalled(group.at) {
            stream.push(Control::Signal.op(0, group.at as u32 + 1).0);
        }
    }
    for (stream, rest) in streams.iter_mut().zip(controls) {
        stream.extend(rest.map(|(_, op)| op.0));
    }
    ThreadedImage { streams, slots: weaver.slots_used(), lanes: weaver.lanes, waits: weaver.waits }
}
