//! An invented result with plausible numbers, for the tests of everything that reads results. Never a measurement.
//!
//! Invariant: the same [`Invention`] gives the same environment and the same runs, bit for bit.

use super::Random;
use crate::run::*;
use std::collections::BTreeMap;
use trace::{LivePoint, MarkReading, Metadata, Phase, Python, Shape, Totals, image::ImageSummary};

/// What to invent.
#[derive(Clone, Copy, Debug)]
pub struct Invention {
    /// Throughput blocks.
    pub blocks: u32,
    /// Latency runs per cell.
    pub latency_runs: u32,
    /// Footprint runs per cell.
    pub footprint_runs: u32,
    /// Whether the traces have a `steady` mark.
    pub steady: bool,
    /// Whether the first workload's `mimalloc` fails in one block and `jemalloc` has no latency pass.
    pub failures: bool,
}

impl Default for Invention {
    fn default() -> Self {
        Self { blocks: 12, latency_runs: 2, footprint_runs: 3, steady: true, failures: false }
    }
}

const MIB: u64 = 1 << 20;
const OPS: u64 = 1_000_000;
const TICKS_PER_SECOND: u64 = 2_600_000_000;

/// What is invented of an allocator: name, version, cost of a call, resident memory by live memory, share of its peak
/// that it still holds at rest, largest size class served without a system call.
struct Character {
    name: &'static str,
    version: &'static str,
    call_ns: f64,
    overhead: f64,
    held_at_rest: f64,
}

const CHARACTERS: [Character; 4] = [
    Character { name: "pool", version: "0.1.0", call_ns: 6.8, overhead: 1.06, held_at_rest: 0.45 },
    Character { name: "system", version: "glibc 2.36", call_ns: 12.4, overhead: 1.12, held_at_rest: 0.80 },
    Character { name: "mimalloc", version: "3.3.2", call_ns: 4.9, overhead: 1.35, held_at_rest: 0.98 },
    Character { name: "jemalloc", version: "5.3.1", call_ns: 5.6, overhead: 1.22, held_at_rest: 0.60 },
];

/// What is invented of a workload: name, title, live bytes at peak and at rest, calls of `steady`.
struct Story {
    name: &'static str,
    title: &'static str,
    live_peak: u64,
    live_rest: u64,
    calls: u64,
    factor: f64,
}

const STORIES: [Story; 2] = [
    Story {
        name: "small-objects",
        title: "Pure Python, short-lived objects",
        live_peak: 14 * MIB,
        live_rest: 6 * MIB,
        calls: 3_100_000,
        factor: 1.0,
    },
    Story {
        name: "large-arrays",
        title: "NumPy arrays that come and go",
        live_peak: 180 * MIB,
        live_rest: 22 * MIB,
        calls: 420_000,
        factor: 9.0,
    },
];

/// The environment of an invented result.
#[must_use]
pub fn environment(what: &Invention) -> Environment {
    Environment {
        schema: SCHEMA,
        harness: HarnessFacts {
            version: "0.1.0".into(),
            revision: Some("0123456789ab".into()),
            profile: "release".into(),
            rustc: Some("rustc 1.95.0".into()),
        },
        host: HostFacts {
            cpu_model: Some("Invented CPU <2 & a half> GHz".into()),
            cpus: 2,
            kernel: Some("6.18.0".into()),
            libc: Some("glibc 2.36".into()),
            page_bytes: 4096,
            memory_bytes: Some(8192 * MIB),
            thp: Some("madvise".into()),
            overcommit: Some("0".into()),
            aslr: Some("2".into()),
            governor: None,
            clock_source: Some("tsc".into()),
            load_hundredths: Some(12),
            cgroup_limit_bytes: None,
        },
        plan: PlanFacts {
            seed: 42,
            blocks: what.blocks,
            latency_runs: what.latency_runs,
            footprint_runs: what.footprint_runs,
            idle_ms: vec![100, 1000, 10_000],
            quick: false,
            started_unix_ms: 1_790_000_000_000,
            budget: None,
        },
        configs: CHARACTERS.iter().map(config).chain([floor("null"), floor("loop")]).collect(),
        workloads: STORIES.iter().map(|story| workload(story, what)).collect(),
    }
}

fn config(character: &Character) -> ConfigFacts {
    let domains = trace::Domain::ALL.iter().map(|d| (d.name().to_owned(), character.name.to_owned())).collect();
    let label = if character.name == "pool" { "pool (our pymalloc)" } else { character.name };
    let options = BTreeMap::from([("page_bytes".to_owned(), "4096".to_owned())]);
    let facts = AllocatorFacts {
        key: character.name.into(),
        version: character.version.into(),
        options,
        ..AllocatorFacts::default()
    };
    ConfigFacts {
        name: character.name.into(),
        label: label.into(),
        domains,
        allocators: vec![facts],
        ..ConfigFacts::default()
    }
}

fn floor(name: &str) -> ConfigFacts {
    ConfigFacts { name: name.into(), label: name.into(), floor: true, ..ConfigFacts::default() }
}

/// Index of the first op of each phase.
fn phase_ops(what: &Invention) -> [Option<u64>; 4] {
    [Some(0), what.steady.then_some(OPS / 10), Some(OPS * 9 / 10), Some(OPS * 19 / 20)]
}

fn workload(story: &Story, what: &Invention) -> WorkloadFacts {
    let mut calls_by_phase = [300_000, story.calls, 40_000, 160_000];
    if !what.steady {
        calls_by_phase = [300_000 + story.calls, 0, 40_000, 160_000];
    }
    let phase_ops = phase_ops(what);
    let image = ImageSummary {
        cycles: None,
        ops: OPS,
        events: OPS,
        slots: 200_000,
        calls_by_phase,
        phase_ops,
        live_bytes_peak_steady: story.live_peak,
    };
    WorkloadFacts {
        name: story.name.into(),
        title: story.title.into(),
        story: format!("{}: invented for tests.", story.title),
        fidelity: None,
        sha256: "0".repeat(64),
        trace_bytes: 2_400_000,
        image,
        metadata: metadata(story, phase_ops),
        shape: shape(story, calls_by_phase, phase_ops),
    }
}

fn metadata(story: &Story, phase_ops: [Option<u64>; 4]) -> Metadata {
    let reading = |phase: Phase, cpu_ms: u64| {
        phase_ops[phase as usize].map(|event| MarkReading {
            mark: phase as u32,
            event,
            cpu_ns: Some(cpu_ms * 1_000_000),
            wall_ns: Some(cpu_ms * 1_100_000),
            ..MarkReading::default()
        })
    };
    let steady_ms = (story.calls as f64 * 100.0 / 1e6) as u64 + 400;
    Metadata {
        source: "recorder".into(),
        source_version: "0.1.0".into(),
        python: Some(Python {
            version: "3.11.7".into(),
            implementation: "CPython".into(),
            build: "shared".into(),
            ..Python::default()
        }),
        packages: BTreeMap::from([("numpy".to_owned(), "2.3.0".to_owned())]),
        hook_mask: 15,
        cpu_count: Some(2),
        recorder_ps_per_event: Some(25_000),
        marks: Phase::ALL.iter().map(|p| p.name().to_owned()).collect(),
        mark_readings: [(Phase::Steady, 300), (Phase::Drained, 300 + steady_ms), (Phase::Finalising, 320 + steady_ms)]
            .into_iter()
            .filter_map(|(phase, ms)| reading(phase, ms))
            .collect(),
        complete: true,
        totals: Totals { events: OPS, collections: 40, live_bytes_peak: story.live_peak, ..Totals::default() },
        ..Metadata::default()
    }
}

fn shape(story: &Story, calls_by_phase: [u64; 4], phase_events: [Option<u64>; 4]) -> Shape {
    let live = (0..trace::SHAPE_POINTS)
        .map(|i| {
            let event = i * OPS / trace::SHAPE_POINTS;
            let bytes = live_bytes(story, event);
            LivePoint { event, bytes, blocks: bytes / 120 }
        })
        .collect();
    let collections = (1..41).map(|i| (i * OPS / 50, i * OPS / 50 + 400, (i % 10 == 0) as u8 * 2)).collect();
    Shape {
        live,
        collections,
        deaths_by_reference: story.calls / 2,
        deaths_by_collector: story.calls / 50,
        bytes_by_collector: story.calls * 2,
        sizes: (0..24).map(|i| 400_000u64 >> (i as u64 / 2)).collect(),
        sizes_bytes: (0..24).map(|i| (400_000u64 >> (i as u64 / 2)) << i).collect(),
        lifetimes: (0..20).map(|i| 300_000u64 >> i).collect(),
        calls_by_phase,
        phase_events,
        live_bytes_end: story.live_rest,
        live_bytes_drained: Some(story.live_rest),
        live_bytes_peak_steady: story.live_peak,
        steady_calls_by_domain: BTreeMap::from([("obj".to_owned(), story.calls)]),
        small_allocs: story.calls / 3,
        threads: 1,
        ..Shape::default()
    }
}

/// A ramp during start-up, a wave during steady, a fall to rest, a last fall in finalisation.
fn live_bytes(story: &Story, op: u64) -> u64 {
    let x = op as f64 / OPS as f64;
    let wave = 0.55 + 0.25 * (x * 20.0).sin() + 0.2 * x / 0.9;
    let peak = story.live_peak as f64;
    let value = match x {
        x if x < 0.1 => peak * 0.4 * x / 0.1,
        x if x < 0.9 => (peak * wave).min(peak),
        x if x < 0.95 => story.live_rest as f64,
        x => story.live_rest as f64 * (1.0 - (x - 0.95) * 18.0),
    };
    value as u64
}

/// The runs of an invented result, in their invented order.
#[must_use]
pub fn runs(what: &Invention) -> Vec<Run> {
    let mut all = Vec::new();
    for story in &STORIES {
        for character in &CHARACTERS {
            all.extend((0..what.blocks).map(|block| {
                let outcome = throughput(story, character.name, character.call_ns, block, what);
                line(story, character.name, Pass::Throughput, block, outcome)
            }));
            all.extend((0..what.latency_runs).map(|block| {
                let outcome = Observation::Latency(latency(story, character, block));
                line(story, character.name, Pass::Latency, block, outcome)
            }));
            all.extend((0..what.footprint_runs).map(|block| {
                let outcome = Observation::Footprint(Box::new(footprint(story, character, block, what)));
                line(story, character.name, Pass::Footprint, block, outcome)
            }));
        }
        for (name, ns) in [("null", 2.2), ("loop", 1.1)] {
            all.extend(
                (0..what.blocks)
                    .map(|block| line(story, name, Pass::Throughput, block, throughput(story, name, ns, block, what))),
            );
        }
    }
    if what.failures {
        spoil(&mut all);
    }
    all.sort_by_key(|run| (run.block, run.pass));
    for (seq, run) in all.iter_mut().enumerate() {
        run.seq = seq as u32;
    }
    all
}

fn spoil(all: &mut Vec<Run>) {
    all.retain(|run| !(run.config == "jemalloc" && run.workload == STORIES[0].name && run.pass == Pass::Latency));
    for run in all.iter_mut().filter(|run| run.config == "mimalloc" && run.workload == STORIES[0].name) {
        if run.block == 1 && run.pass == Pass::Throughput {
            let reason = "the child was killed by SIGSEGV <invented & escaped>; replay it alone to see more".to_owned();
            run.outcome = Outcome::Failed { stage: "replay".into(), reason };
        }
    }
}

fn line(story: &Story, config: &str, pass: Pass, block: u32, observation: Observation) -> Run {
    Run {
        schema: SCHEMA,
        seq: 0,
        block,
        workload: story.name.into(),
        config: config.into(),
        pass,
        mode: Mode::Merged,
        padding_bytes: block * 16,
        started_unix_ms: 1_790_000_000_000 + u64::from(block) * 1000,
        child_wall_ns: 400_000_000,
        outcome: Outcome::Ok(observation),
    }
}

fn throughput(story: &Story, config: &str, call_ns: f64, block: u32, what: &Invention) -> Observation {
    // Drift belongs to the block and hits every configuration alike; the rest is the child's own.
    let drift = Random::new(1, &[story.name, &block.to_string()]).normal() * 0.03;
    let mut random = Random::new(2, &[story.name, config, &block.to_string()]);
    let calls = workload(story, what).image.calls_by_phase;
    let mut phases = Vec::new();
    for phase in Phase::ALL {
        let calls = calls[phase as usize];
        if calls == 0 {
            continue;
        }
        let factor = if call_ns < 3.0 { 1.0 } else { story.factor };
        let wall = calls as f64 * call_ns * factor * (drift + 0.01 * random.normal()).exp();
        phases.push(PhaseCost {
            phase,
            calls,
            wall_ns: wall as u64,
            user_ns: (wall * 0.9) as u64,
            system_ns: (wall * 0.1) as u64,
            faults_minor: (story.live_peak as f64 / 4096.0 * (1.0 + 0.001 * random.unit())) as u64,
            faults_major: 0,
        });
    }
    Observation::Throughput(Throughput { phases, failed_allocations: 0, threads: None, seal: SealReport::default() })
}

fn latency(story: &Story, character: &Character, block: u32) -> Latency {
    let mut random = Random::new(3, &[story.name, character.name, &block.to_string()]);
    let clock = durations(&mut random, 20.0, 0.1, 50_000);
    let mut cells = Vec::new();
    for (kind, weight) in
        [(CallKind::Malloc, 1.0), (CallKind::Calloc, 0.05), (CallKind::Realloc, 0.1), (CallKind::Free, 0.9)]
    {
        for class in 0..6u8 {
            for fault in [false, true] {
                let share = weight * 0.3f64.powi(i32::from(class)) * if fault { 0.002 } else { 1.0 };
                let calls = (60_000.0 * share) as u64;
                if calls == 0 {
                    continue;
                }
                let middle = 20.0 + character.call_ns * (1.0 + f64::from(class)) + if fault { 700.0 } else { 0.0 };
                cells.push(LatencyCell { kind, class, fault, histogram: durations(&mut random, middle, 0.5, calls) });
            }
        }
    }
    Latency { ticks_per_second: TICKS_PER_SECOND, clock, cells, threads: None, seal: SealReport::default() }
}

/// Log-normal durations around a middle in nanoseconds, with one in a thousand ten times as long.
fn durations(random: &mut Random, middle_ns: f64, spread: f64, calls: u64) -> Histogram {
    let mut dense = vec![0u64; BUCKETS];
    let mut max = 0;
    for i in 0..calls {
        let tail = if i % 1000 == 999 { 10.0 } else { 1.0 };
        let ns = middle_ns * tail * (spread * random.normal()).exp();
        let ticks = (ns * TICKS_PER_SECOND as f64 / 1e9) as u64;
        dense[bucket(ticks)] += 1;
        max = max.max(ticks);
    }
    Histogram::from_dense(&dense, max)
}

fn footprint(story: &Story, character: &Character, block: u32, what: &Invention) -> Footprint {
    let noise = Random::new(4, &[story.name, character.name, &block.to_string()]).below(64) as u64 * 4096;
    let mut most = 0u64;
    let mut curve = Vec::new();
    for i in 0..=400u64 {
        let op = i * (OPS - 1) / 400;
        let requested = live_bytes(story, op);
        let usable = (requested as f64 * 1.04) as u64;
        most = most.max((usable as f64 * character.overhead) as u64);
        let held = (most as f64 * character.held_at_rest) as u64;
        curve.push(MemoryPoint {
            op,
            requested_bytes: requested,
            blocks: requested / 120,
            usable_bytes: usable,
            mapped_bytes: most * 2,
            resident_bytes: held.max((usable as f64 * character.overhead) as u64) + noise,
            lazy_free_bytes: if character.name == "jemalloc" { held / 10 } else { 0 },
            huge_bytes: 0,
        });
    }
    let at = |op: u64| curve.iter().copied().rfind(|p| p.op <= op).unwrap_or_default();
    let ops = phase_ops(what);
    let at_phase: Vec<_> = Phase::ALL.iter().filter_map(|p| ops[*p as usize].map(|op| (*p, at(op)))).collect();
    let in_steady = |p: &&MemoryPoint| !what.steady || (OPS / 10..OPS * 9 / 10).contains(&p.op);
    let peak = curve.iter().filter(in_steady).max_by_key(|p| p.resident_bytes).copied().unwrap_or_default();
    let (drained, end) = (at(OPS * 9 / 10), at(OPS * 19 / 20));
    let rest = [100, 1000, 10_000]
        .into_iter()
        .zip([1.0, 0.97, 0.94])
        .map(|(after_ms, kept)| (RestState::Idle, after_ms, kept))
        .chain([(RestState::Trickle, 10_500, 0.9), (RestState::Release, 10_600, 0.5)])
        .map(|(state, after_ms, kept)| {
            let resident = (drained.resident_bytes as f64 * kept).max(drained.usable_bytes as f64) as u64;
            RestPoint { state, after_ms, memory: MemoryPoint { resident_bytes: resident, ..drained } }
        })
        .collect();
    Footprint {
        at_marks: Vec::new(),
        cycles: (0..8).map(|i| MemoryPoint { resident_bytes: peak.resident_bytes + i * MIB, ..drained }).collect(),
        owners: [(Moment::Peak, peak), (Moment::Rest, drained)].map(|(moment, at)| owners(moment, at)).into(),
        end,
        curve,
        at_phase,
        peak,
        rest_from: "drained".into(),
        rest,
        faults_minor: peak.resident_bytes / 4096,
        high_water_bytes: Vec::new(),
        pools: (character.name == "pool").then(|| Box::new(pools(story, peak.op, drained.op, end.op))),
        time: None,
        failed_allocations: 0,
        unreplayed: BTreeMap::new(),
        seal: SealReport::default(),
    }
}

/// Everything in small objects, in an allocator that says so.
fn owners(moment: Moment, memory: MemoryPoint) -> Owners {
    let held = Held { mapped_bytes: Some(memory.resident_bytes), resident_bytes_max: Some(memory.resident_bytes) };
    let owned = Owned {
        domain: "obj".into(),
        small: true,
        allocator: "system".into(),
        blocks: memory.blocks,
        requested_bytes: memory.requested_bytes,
        usable_bytes: memory.usable_bytes,
        touched_bytes: memory.requested_bytes,
    };
    Owners { moment, memory, owned: vec![owned], held: [("system".to_owned(), held)].into() }
}

/// Arenas of 64 pools that fill with live memory and stay until the work is dropped; then every third goes.
fn pools(story: &Story, peak_op: u64, drained: u64, end: u64) -> Pools {
    let count = story.live_peak / MIB + 1;
    let mut ops: Vec<u64> = (0..=96).map(|i| i * end / 96).chain([drained, peak_op]).collect();
    ops.sort_unstable();
    ops.dedup();
    let in_use = |arena: u64, op: u64| {
        let most = (0..=op / 2_500).map(|i| live_bytes(story, i * 2_500)).max().unwrap_or(0);
        let filled = |bytes: u64| ((bytes as f64 / MIB as f64 - arena as f64) * 64.0).clamp(0.0, 64.0).ceil() as u32;
        match filled(most) {
            0 => None,
            _ if op >= drained => (arena % 3 != 2).then_some(if arena % 3 == 1 { arena as u32 % 12 } else { 50 }),
            _ => Some(filled(live_bytes(story, op)).max(3)),
        }
    };
    let row = |arena: u64| {
        let mut runs: Vec<(u32, Option<u32>)> = Vec::new();
        for now in ops.iter().map(|op| in_use(arena, *op)) {
            match runs.last_mut() {
                Some((readings, last)) if *last == now => *readings += 1,
                _ => runs.push((1, now)),
            }
        }
        ArenaRow { pools: 64, in_use: runs }
    };
    let arenas: Vec<ArenaRow> = (0..count).map(row).collect();
    let statistics = |op: u64| pool_statistics(&(0..count).map(|arena| in_use(arena, op)).collect::<Vec<_>>());
    Pools {
        at_peak: statistics(peak_op),
        at_drained: Some(statistics(drained)),
        at_end: statistics(end),
        map: ArenaMap { ops, arenas, stopped_at: None },
    }
}

/// Half of the pools in use hold blocks of 48 bytes, the others of 112, and a tenth of the blocks are free.
fn pool_statistics(in_use: &[Option<u32>]) -> PoolStatistics {
    const POOL: u64 = 16 * 1024;
    const HEADER: u64 = 48;
    let mapped = in_use.iter().flatten().count() as u64;
    let used: u64 = in_use.iter().flatten().map(|pools| u64::from(*pools)).sum();
    let class = |block_bytes: u64, pools: u64| {
        let blocks = pools * ((POOL - HEADER) / block_bytes);
        let blocks_available = blocks / 10;
        PoolClass { block_bytes, pools, blocks_in_use: blocks - blocks_available, blocks_available }
    };
    let classes = vec![class(48, used / 2), class(112, used - used / 2)];
    PoolStatistics {
        arena_bytes: MIB,
        pool_bytes: POOL,
        arenas_mapped: mapped,
        arenas_mapped_peak: in_use.len() as u64,
        arenas_mapped_total: in_use.len() as u64 + 2,
        allocated_bytes: classes.iter().map(|c| c.blocks_in_use * c.block_bytes).sum(),
        available_bytes: classes.iter().map(|c| c.blocks_available * c.block_bytes).sum(),
        unused_pools: mapped * 64 - used,
        pool_header_bytes: used * HEADER,
        quantization_bytes: classes.iter().map(|c| c.pools * ((POOL - HEADER) % c.block_bytes)).sum(),
        arena_alignment_bytes: 0,
        classes,
    }
}

/// The analysis of an invented result.
#[must_use]
pub fn analysis(what: &Invention) -> super::Analysis {
    super::analyse(environment(what), &runs(what))
}
