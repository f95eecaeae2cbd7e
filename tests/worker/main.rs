//! Workers as the measuring half starts them: fresh children of the built binary, with a job on their standard input
//! and an image in an inherited descriptor.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../hooked/mod.rs"]
mod hooked;
mod threads;

use pyalloc_bench::backend::{self, Role};
use pyalloc_bench::run::{
    ArenaMap, CallKind, Footprint, Latency, Mode, Moment, Observation, Pass, PoolStatistics, RestState, Throughput,
    Time,
};
use pyalloc_bench::worker::{ImageSource, Job};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Stdio};
use trace::image::{ImageSummary, Op, OpKind};
use trace::{Domain, Phase};

/// Ops by hand, and what their compiler would say of them.
#[derive(Default)]
struct Image {
    ops: Vec<u64>,
    summary: ImageSummary,
    phase: usize,
}

impl Image {
    fn push(&mut self, kind: OpKind, domain: Domain, slot: u32, value: u32) -> &mut Self {
        if matches!(kind, OpKind::Alloc | OpKind::AllocZeroed | OpKind::AllocAligned | OpKind::Realloc | OpKind::Free) {
            self.summary.calls_by_phase[self.phase] += 1;
        }
        self.summary.slots = self.summary.slots.max(slot + 1);
        self.ops.push(Op::new(kind, domain, slot, value).0);
        self.summary.ops = self.ops.len() as u64;
        self.summary.events = self.summary.ops;
        self
    }

    fn phase(&mut self, phase: Phase) -> &mut Self {
        self.phase = phase as usize;
        self.summary.phase_ops[self.phase] = Some(self.summary.ops);
        self.push(OpKind::Mark, Domain::Libc, 0, phase as u32)
    }

    fn file(&self) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&self.ops.iter().flat_map(|op| op.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        file
    }
}

/// Every kind of op in every domain, 10 MB live in `steady`, everything of `steady` freed before `drained`.
fn every_op() -> Image {
    use OpKind::{
        Advise, Align, Alloc, AllocAligned, AllocZeroed, Free, GcStart, GcStop, OldTouched, Realloc, Touched,
    };
    let mut image = Image::default();
    for slot in 0..100 {
        image.push(Alloc, Domain::Obj, slot, 1 + slot * 7);
    }
    image.phase(Phase::Steady);
    for round in 0..50 {
        for slot in 100..500 {
            image.push(Alloc, Domain::ALL[slot as usize % 6], slot, slot % 600);
        }
        image.push(GcStart, Domain::Libc, 0, 2).push(GcStop, Domain::Libc, 0, 2);
        for slot in 100..500 {
            let domain = Domain::ALL[slot as usize % 6];
            if slot % 5 == 0 {
                image.push(Realloc, domain, slot, slot + round);
            }
            image.push(Free, domain, slot, slot % 600);
        }
    }
    image.push(Alloc, Domain::Numpy, 500, 6 << 20).push(Advise, Domain::Numpy, 500, 0);
    image.push(Touched, Domain::Numpy, 501, 0).push(Alloc, Domain::Numpy, 501, 4 << 20);
    image.push(Touched, Domain::Numpy, 502, 768).push(AllocZeroed, Domain::Numpy, 502, 1 << 20);
    image.push(Align, Domain::Arrow, 503, 6).push(AllocAligned, Domain::Arrow, 503, 100_000);
    image.push(Alloc, Domain::Raw, 504, 5000);
    image.push(OldTouched, Domain::Raw, 504, 313).push(Realloc, Domain::Raw, 504, 50_000);
    for (slot, domain) in [(500, Domain::Numpy), (501, Domain::Numpy), (502, Domain::Numpy), (503, Domain::Arrow)] {
        image.push(Free, domain, slot, 0);
    }
    image.push(Free, Domain::Raw, 504, 50_000);
    image.phase(Phase::Drained);
    image.push(Alloc, Domain::Obj, 100, 33).push(Free, Domain::Obj, 100, 33);
    image.phase(Phase::Finalising);
    for slot in 0..100 {
        image.push(Free, Domain::Obj, slot, 1 + slot * 7);
    }
    image
}

fn job(pass: Pass, key: &str, image: &Image, source: ImageSource) -> Job {
    Job {
        pass,
        mode: Mode::Merged,
        backends: Domain::ALL.map(|domain| match (key, domain) {
            ("pool" | "cpython" | "pool-debug" | "malloc-debug", Domain::Mem | Domain::Obj) => key.to_owned(),
            ("pool-debug" | "malloc-debug", Domain::Raw) => "malloc-debug".to_owned(),
            ("pool" | "cpython" | "pool-debug" | "malloc-debug", _) => "system".to_owned(),
            _ => key.to_owned(),
        }),
        image: image.summary.clone(),
        source,
        idle_ms: vec![0, 20],
        points: 32,
        time: Time::None,
        pace: 1,
        moments: None,
        shift_bytes: 0,
        allow_debug: true,
    }
}

/// Starts a worker in an empty environment that inherits the given descriptors under their own numbers.
fn start(text: &[u8]) -> std::process::Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pyalloc-bench"))
        .arg("worker")
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    child
}

/// Lets a descriptor live on in children. Tests that run side by side may pass it on too, which harms none of them.
fn inherit(fd: &impl std::os::fd::AsRawFd) -> i32 {
    let fd = fd.as_raw_fd();
    // SAFETY: plain system call on an open descriptor.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
    fd
}

fn run_whole(pass: Pass, key: &str, image: &Image) -> (bool, String) {
    let file = image.file();
    let job = job(pass, key, image, ImageSource::Whole { fd: inherit(&file) });
    let output = start(&serde_json::to_vec(&job).unwrap()).wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

fn observe(pass: Pass, key: &str, image: &Image) -> Observation {
    let (success, text) = run_whole(pass, key, image);
    assert!(success, "{key} {pass:?}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn throughput(key: &str, image: &Image) -> Throughput {
    let Observation::Throughput(seen) = observe(Pass::Throughput, key, image) else { panic!("another pass") };
    seen
}

fn latency(key: &str, image: &Image) -> Latency {
    let Observation::Latency(seen) = observe(Pass::Latency, key, image) else { panic!("another pass") };
    seen
}

fn footprint(key: &str, image: &Image) -> Footprint {
    let Observation::Footprint(seen) = observe(Pass::Footprint, key, image) else { panic!("another pass") };
    *seen
}

fn contestants() -> impl Iterator<Item = &'static str> {
    backend::ALL
        .iter()
        .filter(|b| matches!(b.role, Role::Contestant | Role::Instrument | Role::ByVariable))
        .map(|b| b.key)
}

#[test]
fn throughput_covers_every_phase_on_every_backend() {
    let image = every_op();
    for key in backend::ALL.iter().filter(|b| !matches!(b.role, Role::OptIn | Role::ByArgument)).map(|b| b.key) {
        let seen = throughput(key, &image);
        assert_eq!(seen.phases.iter().map(|p| p.phase).collect::<Vec<_>>(), Phase::ALL, "{key}");
        let calls: Vec<u64> = seen.phases.iter().map(|p| p.calls).collect();
        assert_eq!(calls, image.summary.calls_by_phase, "{key}");
        assert_eq!(seen.failed_allocations, 0, "{key}");
        assert_eq!((seen.seal.harness_allocations, seen.seal.libc_bytes_before), (0, 0), "{key}");
        assert!(seen.phases[1].wall_ns > 0, "{key}");
    }
}

#[test]
fn latency_times_each_call_of_steady_once_on_every_contestant() {
    let image = every_op();
    for key in contestants() {
        let seen = latency(key, &image);
        let total: u64 = seen.cells.iter().map(|cell| cell.histogram.total()).sum();
        assert_eq!(total, image.summary.calls_by_phase[1], "{key}");
        let of = |kind| seen.cells.iter().filter(|c| c.kind == kind).map(|c| c.histogram.total()).sum::<u64>();
        assert_eq!((of(CallKind::Calloc), of(CallKind::Aligned)), (1, 1), "{key}");
        assert_eq!(of(CallKind::Realloc), 50 * 80 + 1, "{key}");
        assert!(seen.clock.total() >= 100_000, "{key}");
        assert_eq!(seen.seal.libc_bytes_before, 0, "{key}");
    }
}

#[test]
fn footprint_counts_requested_bytes_exactly_and_reads_rest_in_order() {
    let image = every_op();
    let start: u64 = (0..100).map(|slot| 1 + slot * 7).sum();
    for key in contestants() {
        let seen = footprint(key, &image);
        let at = |phase| seen.at_phase.iter().find(|(p, _)| *p == phase).unwrap().1;
        assert_eq!((at(Phase::Steady).requested_bytes, at(Phase::Steady).blocks), (start, 100), "{key}");
        assert_eq!((seen.end.requested_bytes, seen.end.blocks), (start, 100), "{key}");
        assert!(seen.end.usable_bytes >= start, "{key}");
        assert_eq!(seen.rest_from, "drained", "{key}");
        let states: Vec<_> = seen.rest.iter().map(|rest| rest.state).collect();
        assert_eq!(states, [RestState::Idle, RestState::Idle, RestState::Trickle, RestState::Release], "{key}");
        assert!(seen.rest[1].after_ms >= 20, "{key}");
        assert!(seen.curve.is_sorted_by_key(|point| point.op), "{key}");
        let requested = seen.curve.iter().map(|point| point.requested_bytes).max().unwrap();
        assert!(requested > 11 << 20, "{key}: {requested}");
        // 6 MiB written, 4 MiB never touched, 12 KiB of the megabyte; more where an allocator asks for huge pages
        // by itself, or holds 64 MiB.
        let most = [("mimalloc", 32 << 20), ("planted-64mib", 74 << 20)].iter().find(|(name, _)| *name == key);
        assert!(
            (6 << 20..most.map_or(10 << 20, |(_, bytes)| *bytes)).contains(&seen.peak.resident_bytes),
            "{key}: {:?}",
            seen.peak
        );
        assert_eq!(seen.failed_allocations, 0, "{key}");
    }
}

/// Pools in use of each arena mapped at a reading.
fn arenas_at(map: &ArenaMap, reading: usize) -> Vec<u32> {
    map.arenas.iter().filter_map(|arena| arena.at_each_reading().nth(reading).unwrap()).collect()
}

#[test]
fn the_pool_tells_what_its_arenas_hold() {
    let mut image = Image::default();
    image.phase(Phase::Steady);
    for slot in 0..40_000 {
        image.push(OpKind::Alloc, Domain::Obj, slot, 100);
    }
    for slot in (0..40_000).filter(|slot| slot % 1_000 > 0) {
        image.push(OpKind::Free, Domain::Obj, slot, 100);
    }
    image.phase(Phase::Drained);
    image.phase(Phase::Finalising);
    for slot in (0..40_000).step_by(1_000) {
        image.push(OpKind::Free, Domain::Obj, slot, 100);
    }
    assert!(["system", "mimalloc", "jemalloc"].iter().all(|key| footprint(key, &image).pools.is_none()));
    let seen = footprint("pool", &image);
    let pools = seen.pools.as_ref().unwrap();
    let map = &pools.map;
    // As many evenly spaced readings as of the curve up to the end, and those at the marks.
    assert!((32..=36).contains(&map.ops.len()), "{:?}", map.ops);
    assert!(map.ops.is_sorted() && map.ops.last() == Some(&seen.end.op) && map.stopped_at.is_none());
    assert!(map.arenas.iter().all(|arena| arena.at_each_reading().count() == map.ops.len()));
    let drained = pools.at_drained.as_ref().unwrap();
    let at_drained = map.ops.iter().position(|op| Some(*op) == image.summary.phase_ops[2]).unwrap();
    for (reading, at) in [(at_drained, drained), (map.ops.len() - 1, &pools.at_end)] {
        let arenas = arenas_at(map, reading);
        assert_eq!(arenas.len() as u64, at.arenas_mapped);
        let in_use: u64 = arenas.iter().map(|pools| u64::from(*pools)).sum();
        assert_eq!(in_use, at.classes.iter().map(|class| class.pools).sum::<u64>());
        let pools: u32 = map
            .arenas
            .iter()
            .filter(|arena| arena.at_each_reading().nth(reading).unwrap().is_some())
            .map(|arena| arena.pools)
            .sum();
        assert_eq!(u64::from(pools), in_use + at.unused_pools);
    }
    for at in [&pools.at_peak, drained, &pools.at_end] {
        assert_eq!(at.budget().iter().map(|(_, bytes)| bytes).sum::<u64>(), at.arenas_mapped << 20);
        assert_eq!(at.allocated_bytes, at.classes.iter().map(|c| c.blocks_in_use * c.block_bytes).sum::<u64>());
    }
    // 40,000 blocks of 112 bytes, 145 to a pool, 63 or 64 pools to an arena; then one in a thousand is left.
    let class = |at: &PoolStatistics| at.classes.iter().find(|class| class.block_bytes == 112).copied().unwrap();
    let live = seen.peak.blocks;
    assert!(live > 39_000, "{live}");
    assert_eq!((class(&pools.at_peak).blocks_in_use, class(&pools.at_peak).pools), (live, live.div_ceil(145)));
    assert_eq!((class(drained).blocks_in_use, class(drained).pools), (40, 40));
    assert_eq!((pools.at_peak.arenas_mapped, pools.at_end.arenas_mapped_peak), (5, 5));
    assert!(seen.peak.resident_bytes < (5 << 20) + (64 << 10), "the log is in anonymous memory: {:?}", seen.peak);
}

#[test]
fn what_was_planted_shows() {
    let image = every_op();
    let system = footprint("system", &image);
    let held = footprint("planted-64mib", &image);
    let grown = held.rest[0].memory.resident_bytes as i64 - system.rest[0].memory.resident_bytes as i64;
    assert!((63 << 20..66 << 20).contains(&grown), "{grown}");
    let larger = footprint("planted-10pct", &image);
    assert!(larger.end.usable_bytes > system.end.usable_bytes);
    assert_eq!(larger.end.requested_bytes, system.end.requested_bytes);
}

#[test]
fn without_marks_everything_is_headline_and_rest_follows_the_last_op() {
    let mut image = Image::default();
    for slot in 0..1000 {
        image.push(OpKind::Alloc, Domain::Obj, slot, 200);
    }
    assert_eq!(throughput("system", &image).phases.len(), 1);
    let calls: u64 = latency("system", &image).cells.iter().map(|cell| cell.histogram.total()).sum();
    assert_eq!(calls, 1000);
    let seen = footprint("system", &image);
    assert_eq!((seen.rest_from.as_str(), seen.end.requested_bytes), ("last op", 200_000));
    assert_eq!(seen.at_phase.last().unwrap().0, Phase::Finalising);
}

#[test]
fn a_failed_allocation_is_counted_and_its_block_is_skipped() {
    let mut image = Image::default();
    // All of the address space, and not a byte of it touched should an allocator hand it out after all.
    image.push(OpKind::SizeHigh, Domain::Numpy, 0, 0x7FFF).push(OpKind::Touched, Domain::Numpy, 0, 0);
    image.push(OpKind::Alloc, Domain::Numpy, 0, 0xFFFF_0000);
    image.push(OpKind::Touched, Domain::Numpy, 0, 0).push(OpKind::Realloc, Domain::Numpy, 0, 8192);
    image.push(OpKind::Advise, Domain::Numpy, 0, 0);
    image.push(OpKind::Free, Domain::Numpy, 0, u32::MAX);
    for key in ["pool", "system", "mimalloc", "jemalloc"] {
        assert_eq!(throughput(key, &image).failed_allocations, 1, "{key}");
        assert_eq!(footprint(key, &image).end.blocks, 0, "{key}");
    }
}

#[test]
fn windows_replay_as_the_whole_image_does() {
    let image = every_op();
    let window_ops = 333; // prefixes and their ops end up in different windows
    let memory = tempfile::tempfile().unwrap();
    memory.set_len(window_ops * 16).unwrap();
    let pipe = || {
        let mut ends = [0; 2];
        // SAFETY: two descriptors fit; each becomes owned once.
        unsafe {
            assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
            ends.map(|fd| File::from(<OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd)))
        }
    };
    let ([ready_read, mut ready_write], [mut done_read, done_write]) = (pipe(), pipe());
    let source = ImageSource::Windows {
        fd: inherit(&memory),
        window_ops,
        ready_fd: ready_read.as_raw_fd(),
        done_fd: done_write.as_raw_fd(),
    };
    let mut job = job(Pass::Footprint, "mimalloc", &image, source);
    job.points = 1;
    let child = start(&serde_json::to_vec(&job).unwrap());
    for (i, window) in image.ops.chunks(window_ops as usize).enumerate() {
        if i >= 2 && done_read.read_exact(&mut [0]).is_err() {
            break;
        }
        let bytes: Vec<u8> = window.iter().flat_map(|op| op.to_le_bytes()).collect();
        memory.write_all_at(&bytes, (i as u64 % 2) * window_ops * 8).unwrap();
        ready_write.write_all(&(window.len() as u64).to_le_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let Ok(Observation::Footprint(seen)) = serde_json::from_slice(&output.stdout) else { panic!("{output:?}") };
    let whole = footprint("mimalloc", &image);
    assert_eq!((seen.end.requested_bytes, seen.end.op), (whole.end.requested_bytes, whole.end.op));
    assert_eq!(seen.failed_allocations, 0);
}

#[test]
fn what_cannot_be_done_is_a_sentence_and_exit_code_1() {
    let image = every_op();
    let refused = |text: &[u8]| {
        let output = start(text).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(refused(b"{").contains("not understood"));
    let file = image.file();
    let unknown = job(Pass::Throughput, "tcmalloc", &image, ImageSource::Whole { fd: inherit(&file) });
    let said = refused(&serde_json::to_vec(&unknown).unwrap());
    assert!(said.starts_with("{\"failed\":{\"stage\":\"spawn\"") && said.contains("mimalloc"), "{said}");
    let mut short = Image::default();
    short.push(OpKind::Alloc, Domain::Obj, 0, 1);
    short.summary.ops = 1 << 20;
    let (success, said) = run_whole(Pass::Throughput, "system", &short);
    assert!(!success && said.contains("\"stage\":\"image\""), "{said}");
    let (success, said) = run_whole(Pass::Latency, "loop", &image);
    assert!(!success && said.contains("throughput"), "{said}");
}

#[test]
fn facts_and_self_test_come_from_the_libraries() {
    let ask = |arguments: &[&str]| {
        let binary = env!("CARGO_BIN_EXE_pyalloc-bench");
        let output = Command::new(binary).arg("worker").args(arguments).env_clear().output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (success, text) = ask(&["--facts", "pool", "system", "mimalloc", "jemalloc"]);
    assert!(success, "{text}");
    let facts: Vec<pyalloc_bench::run::AllocatorFacts> = serde_json::from_str(&text).unwrap();
    assert_eq!(facts.len(), 4);
    assert!(facts.iter().all(|f| !f.version.is_empty() && !f.options.is_empty()), "{text}");
    assert!(facts[2].options.contains_key("purge_delay") && facts[3].options.contains_key("opt.dirty_decay_ms"));
    let keys: Vec<&str> = ["--self-test"].into_iter().chain(contestants()).collect();
    let (success, text) = ask(&keys);
    assert!(success && text.lines().count() == contestants().count(), "{text}");
    assert!(!ask(&["--facts", "dlmalloc"]).0);
    let (success, text) = ask(&["--self-test", "cpython"]);
    assert!(!success && text.contains("name one with -c cpython"), "{text}");
}

#[test]
fn owners_of_bytes_add_up_and_cycles_end_alike() {
    let once = every_op();
    let cycles = trace::image::Cycles { times: 4, from: Phase::Steady as u32, to: Phase::Drained as u32 };
    let (ops, mut summary) = trace::image::repeat(&once.ops, &once.summary, cycles).unwrap();
    summary.cycles = Some(trace::image::Repeated { times: 4, from: "steady".into(), to: "drained".into() });
    let image = Image { ops, summary, phase: 0 };
    for key in ["pool", "system", "mimalloc", "jemalloc"] {
        let read = footprint(key, &image);
        assert_eq!((read.cycles.len(), read.failed_allocations), (4, 0), "{key}");
        let ends: Vec<(u64, u64)> = read.cycles.iter().map(|at| (at.requested_bytes, at.blocks)).collect();
        assert_eq!(ends, [ends[0]; 4], "every cycle leaves the same");
        let moments: Vec<Moment> = read.owners.iter().map(|owners| owners.moment).collect();
        assert_eq!(moments, [Moment::Peak, Moment::Drained, Moment::End, Moment::Rest]);
        for owners in &read.owners {
            let sum = |of: fn(&pyalloc_bench::run::Owned) -> u64| owners.owned.iter().map(of).sum::<u64>();
            let at = &owners.memory;
            assert_eq!(sum(|owned| owned.blocks), at.blocks, "{key} {:?}", owners.moment);
            assert_eq!(sum(|owned| owned.requested_bytes), at.requested_bytes);
            assert_eq!(sum(|owned| owned.usable_bytes), at.usable_bytes);
            let touched = sum(|owned| owned.touched_bytes);
            assert!(touched <= at.requested_bytes && touched <= at.resident_bytes, "{touched} of {at:?}");
            // Whoever tells what can be resident of his may not tell too little: together they hold what is live.
            for (holder, held) in &owners.held {
                let live = owners.owned.iter().filter(|owned| owned.allocator == *holder);
                let live: u64 = live.map(|owned| owned.touched_bytes).sum();
                assert!(held.resident_bytes_max.unwrap() >= live, "{holder} holds {held:?}, touched {live}");
            }
        }
        let large = |owned: &&pyalloc_bench::run::Owned| owned.domain == "obj" && !owned.small;
        let of_pool = read.owners[2].owned.iter().find(large).unwrap();
        let expected = if key == "pool" { "system" } else { key };
        assert_eq!(of_pool.allocator, expected, "over 512 B the pool asks the C library");
    }
}
