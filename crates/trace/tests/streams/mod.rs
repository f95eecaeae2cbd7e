//! Streams of events for tests: any valid one, and a way to write them.
//!
//! Invariant: what [`build`] makes is valid whatever its steps are.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use trace::{
    ALIGN_LOG2_MAX, Directive, DirectiveCall, Domain, Event, EventKind, Metadata, Phase, SIZE_MAX, Site, SlotAllocator,
    TraceReader, TraceWriter, WriteOptions,
};

/// Sites and own marks that the metadata of [`metadata`] has.
pub const SITES: u32 = 400;
/// All marks there, the four phases included.
pub const MARKS: u32 = 6;

/// Metadata with the tables that [`build`] points into.
pub fn metadata() -> Metadata {
    let mut marks: Vec<String> = Phase::ALL.iter().map(|phase| phase.name().to_owned()).collect();
    marks.extend((4..MARKS).map(|mark| format!("own {mark}")));
    let site = |offset: u32| Site { module: "libexample.so".into(), offset: u64::from(offset) };
    Metadata { source: "test".into(), marks, sites: (0..SITES).map(site).collect(), ..Metadata::default() }
}

/// One step of a random stream; numbers are reduced to what is possible when it is built.
#[derive(Clone, Debug)]
pub struct Step {
    pub kind: u8,
    pub domain: u8,
    pub size: u64,
    pub pick: u32,
    pub align: u8,
    pub touched: Option<u64>,
    pub site: u32,
    pub time: u64,
}

/// Sizes as programs ask for them, and all the extremes.
fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..600_u64,
        2 => 0..3_000_000_u64,
        1 => Just(SIZE_MAX),
        1 => Just(1 << 32),
        1 => Just((1 << 32) - 1),
        1 => 0..=SIZE_MAX,
    ]
}

/// Any step.
pub fn any_step() -> impl Strategy<Value = Step> {
    let touched = prop_oneof![6 => Just(None), 1 => (0..=SIZE_MAX).prop_map(Some), 1 => (0..9000_u64).prop_map(Some)];
    let time = prop_oneof![8 => 0..5000_u64, 1 => Just(1 << 50)];
    (any::<u8>(), 0..6_u8, any_size(), any::<u32>(), 1..=ALIGN_LOG2_MAX, touched, 0..SITES, time).prop_map(
        |(kind, domain, size, pick, align, touched, site, time)| Step {
            kind,
            domain,
            size,
            pick,
            align,
            touched,
            site,
            time,
        },
    )
}

/// The events of these steps. A step without a block to work on allocates one.
pub fn build(steps: &[Step]) -> Vec<Event> {
    let mut slots = SlotAllocator::new();
    let mut live: Vec<u32> = Vec::new();
    let mut time = 0_u64;
    let mut events = Vec::new();
    for step in steps {
        time = time.saturating_add(step.time);
        let index = if live.is_empty() { None } else { Some(step.pick as usize % live.len()) };
        let (touched, site) = (step.touched, step.site);
        let kind = match (step.kind % 40, index) {
            (0..=13, Some(index)) => {
                let slot = live.swap_remove(index);
                slots.free(slot);
                EventKind::Free { slot }
            }
            // The newest block, as programs mostly do.
            (14..=17, Some(_)) => {
                let slot = live.pop().unwrap();
                slots.free(slot);
                EventKind::Free { slot }
            }
            (18..=21, Some(index)) => EventKind::Realloc { slot: live[index], size: step.size.max(1), touched, site },
            (22, Some(index)) => EventKind::Advise { slot: live[index] },
            (23, _) => EventKind::ThreadSwitch { thread: step.pick % 9 },
            (24, _) => EventKind::ThreadStart { thread: step.pick % (1 << 20) },
            (25, _) => EventKind::ThreadEnd { thread: step.pick % 9 },
            (26, _) => EventKind::Mark { mark: step.pick % MARKS },
            (27, _) => EventKind::GcStart { generation: (step.pick % 3) as u8 },
            (28, _) => EventKind::GcStop { generation: (step.pick % 3) as u8 },
            (29, _) => EventKind::Fork,
            (32, _) => EventKind::Direct(DirectiveCall {
                directive: Directive::ALL[step.pick as usize % Directive::ALL.len()],
                key: step.size as i16,
                value: (step.size >> 16) as i32,
            }),
            (form, _) => {
                let slot = slots.next().unwrap();
                live.push(slot);
                let align_log2 = if form == 30 { step.align } else { 0 };
                let domain = Domain::from_bits(step.domain).unwrap();
                EventKind::Alloc { slot, domain, size: step.size, align_log2, zeroed: form == 31, touched, site }
            }
        };
        events.push(Event { time, kind });
    }
    events
}

/// The bytes of a trace of these events.
pub fn write(events: &[Event], options: WriteOptions) -> Vec<u8> {
    let mut writer = TraceWriter::new(Vec::new(), &metadata(), options).unwrap();
    for event in events {
        writer.push(*event).unwrap();
    }
    writer.finish().unwrap().0
}

/// The events of a trace.
pub fn read(bytes: &[u8]) -> Result<Vec<Event>, trace::TraceError> {
    TraceReader::new(bytes)?.collect()
}

/// What a reader gives for these events: times in whole units, sites only if kept.
pub fn as_kept(events: &[Event], options: WriteOptions) -> Vec<Event> {
    let keep = |event: &Event| {
        let time = if options.time { event.time / trace::TIME_UNIT_TICKS * trace::TIME_UNIT_TICKS } else { 0 };
        let mut kind = event.kind;
        if let (false, EventKind::Alloc { site, .. } | EventKind::Realloc { site, .. }) = (options.sites, &mut kind) {
            *site = 0;
        }
        Event { time, kind }
    };
    events.iter().map(keep).collect()
}

/// A small deterministic generator, for streams too long for proptest's own.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A long stream of steps like a program's.
    pub fn steps(&mut self, count: usize) -> Vec<Step> {
        (0..count).map(|_| self.step()).collect()
    }

    fn step(&mut self) -> Step {
        let bits = self.next();
        let size = if bits.is_multiple_of(97) { self.next() % 2_000_000 } else { 16 + (bits >> 8) % 700 };
        Step {
            kind: (bits >> 20) as u8,
            domain: ((bits >> 28) % 6) as u8,
            size,
            pick: (bits >> 32) as u32,
            align: 6,
            touched: bits.is_multiple_of(31).then_some(size / 2),
            site: ((bits >> 40) % u64::from(SITES)) as u32,
            time: (bits >> 50) % 3000,
        }
    }
}
