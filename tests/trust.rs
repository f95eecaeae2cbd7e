//! A replay checks itself: traces of real programs agree with what the recorder read of the process, and the same
//! traces with a planted fault are doubted, each with the likely kind.
//!
//! Invariant: a fault is planted in a trace whose unchanged replay was found to agree.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use binary::{bench, output};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use trace::{Domain, Event, EventKind, Metadata, Totals, TraceWriter, WriteOptions};

const HEAD: &str = "import ctypes\n\
                    libc = ctypes.CDLL(None)\n\
                    mark = getattr(libc, 'pyalloc_mark', lambda name: None)\n\
                    libc.malloc.restype = libc.calloc.restype = ctypes.c_void_p\n\
                    libc.calloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]\n\
                    libc.free.argtypes = [ctypes.c_void_p]\n\
                    libc.malloc_trim.argtypes = [ctypes.c_size_t]\n\
                    written = lambda size: b'x' * size\n";

struct Recorded {
    folder: tempfile::TempDir,
    trace: PathBuf,
}

fn record(python: &Path, code: &str) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let (program, trace) = (folder.path().join("program.py"), folder.path().join("app.trace"));
    fs::write(&program, format!("{HEAD}{code}")).unwrap();
    let mut command = bench();
    command.args(["record", "-o"]).arg(&trace).arg("--").arg(python).arg(&program).env("PYTHONHASHSEED", "0");
    let (status, _, said) = output(&mut command);
    assert_eq!(status, 0, "{said}");
    Recorded { folder, trace }
}

/// The warning, if there is one; the line of trust has to be there in any case.
fn doubt(trace: &Path) -> Option<String> {
    let mut command = bench();
    command.arg("live").arg(trace).args(["-c", "today", "--predictions", "1", "--timings", "0", "--idle", "0"]);
    let (status, said, errors) = output(command.args(["-q", "--allow-debug-build"]));
    assert_eq!(status, 0, "{said}{errors}");
    assert!(said.contains("as recorded: ") && said.contains(" MiB replayed, "), "{said}");
    said.lines().find_map(|line| line.strip_prefix("WARNING: as recorded, ").map(str::to_owned))
}

/// Writes the trace again with every event changed or left out. Slots are given anew, and readings keep their places.
fn plant(recorded: &Recorded, mut change: impl FnMut(EventKind) -> Option<EventKind>) -> PathBuf {
    rewrite(recorded, |event| change(event.kind).map(|kind| Event { kind, ..event }))
}

/// As if all had happened at one moment.
fn still(recorded: &Recorded) -> PathBuf {
    const MOMENT_TICKS: u64 = 1 << 40;
    rewrite(recorded, |event| Some(Event { time: MOMENT_TICKS, ..event }))
}

fn rewrite(recorded: &Recorded, change: impl FnMut(Event) -> Option<Event>) -> PathBuf {
    let (mut metadata, events) = support::read(&recorded.trace);
    let kept: Vec<Option<Event>> = events.into_iter().map(change).collect();
    for reading in &mut metadata.mark_readings {
        reading.event = kept.iter().take(reading.event as usize).flatten().count() as u64;
    }
    let planted = recorded.folder.path().join("planted.trace");
    // The first time for its totals alone.
    for _ in 0..2 {
        metadata.totals = write(&planted, &metadata, kept.iter().flatten());
    }
    planted
}

/// The trace of this program agrees, and once a fault is planted the warning says so.
fn is_noticed(python: &Path, code: &str, fault: impl FnOnce(&Recorded) -> PathBuf, words: &str) {
    let recorded = record(python, code);
    assert_eq!(doubt(&recorded.trace), None, "{code}");
    let said = doubt(&fault(&recorded)).unwrap_or_else(|| panic!("not noticed: {code}"));
    assert!(said.contains(words), "{code}: {said}");
}

fn write<'a>(path: &Path, metadata: &Metadata, events: impl Iterator<Item = &'a Event>) -> Totals {
    let to = BufWriter::new(File::create(path).unwrap());
    let mut writer = TraceWriter::new(to, metadata, WriteOptions::default()).unwrap();
    let mut slots = HashMap::new();
    for event in events {
        let mut event = *event;
        match &mut event.kind {
            EventKind::Alloc { slot, .. } => {
                slots.insert(*slot, writer.next_slot());
                *slot = slots[slot];
            }
            EventKind::Free { slot } | EventKind::Realloc { slot, .. } | EventKind::Advise { slot } => {
                *slot = slots[slot];
            }
            _ => {}
        }
        writer.push(event).unwrap();
    }
    writer.finish().unwrap().1
}

/// Blocks for which this holds are unknown to the trace.
fn unknown(is_unknown: fn(Domain, u64) -> bool) -> impl FnMut(EventKind) -> Option<EventKind> {
    let mut slots = HashSet::new();
    move |kind| {
        if let EventKind::Alloc { slot, domain, size, .. } = kind {
            slots.remove(&slot);
            slots.extend(is_unknown(domain, size).then_some(slot));
        }
        match kind {
            EventKind::Alloc { slot, .. }
            | EventKind::Free { slot }
            | EventKind::Realloc { slot, .. }
            | EventKind::Advise { slot } => (!slots.contains(&slot)).then_some(kind),
            _ => Some(kind),
        }
    }
}

/// Nothing is known of what the program left untouched.
fn all_touched(mut kind: EventKind) -> Option<EventKind> {
    if let EventKind::Alloc { touched, .. } | EventKind::Realloc { touched, .. } = &mut kind {
        *touched = None;
    }
    Some(kind)
}

/// The program never steered its allocator.
fn unsteered(kind: EventKind) -> Option<EventKind> {
    (!matches!(kind, EventKind::Direct(_))).then_some(kind)
}

/// Half a kilobyte and more is the C library's. The last block keeps the heap's top where it is.
const TRIMMED: &str = "mark(b'steady')\n\
                       blocks = [written(3000) for _ in range(8000)]\n\
                       pinned = written(3000)\n\
                       del blocks\n";

#[test]
fn blocks_that_a_trace_does_not_know_are_noticed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let code = "mark(b'steady')\n\
                small = [(i, str(i)) for i in range(80_000)]\n\
                large = [written(200_000) for _ in range(40)]\n\
                blocks = [libc.malloc(4000) for _ in range(2000)]\n\
                for block in blocks: ctypes.memset(block, 1, 4000)\n\
                mark(b'drained')\n";
    let recorded = record(&python.path, code);
    assert_eq!(doubt(&recorded.trace), None);
    let faults: [fn(Domain, u64) -> bool; 3] = [
        |domain, bytes| domain == Domain::Obj && bytes <= 64,
        |_, bytes| bytes > 100_000,
        |domain, bytes| domain == Domain::Libc && bytes == 4000,
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let said = doubt(&plant(&recorded, unknown(fault))).unwrap_or_else(|| panic!("fault {at} is not noticed"));
        assert!(said.contains("memory that no recorded call asked for"), "fault {at}: {said}");
    }
}

#[test]
fn blocks_that_were_never_touched_are_noticed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let calloc = "mark(b'steady')\nblocks = [libc.calloc(1, 200_000) for _ in range(100)]\nmark(b'drained')\n";
    let malloc = "mark(b'steady')\nblocks = [libc.malloc(40_000) for _ in range(500)]\nmark(b'drained')\n";
    let contexts = "import zlib\nmark(b'steady')\nidle = [zlib.compressobj() for _ in range(80)]\nmark(b'drained')\n";
    for code in [calloc, malloc, contexts] {
        let words = "the program did not write to all that it requested";
        is_noticed(&python.path, code, |recorded| plant(recorded, all_touched), words);
    }
}

#[test]
fn memory_that_a_program_gives_back_is_noticed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let trimmed = format!("{TRIMMED}libc.malloc_trim(0)\nmark(b'drained')\n");
    let by_handle = format!("{TRIMMED}ctypes.CDLL('libc.so.6').malloc_trim(ctypes.c_size_t(0))\nmark(b'drained')\n");
    // M_MMAP_THRESHOLD: such blocks are mapped each for itself, and gone when they are freed.
    let mapped = "mark(b'steady')\nlibc.mallopt(-3, 65536)\n\
                  blocks = [written(100_000) for _ in range(200)]\npinned = [written(3000) for _ in range(100)]\n\
                  del blocks\nmark(b'drained')\n";
    for code in [&trimmed, &by_handle, mapped] {
        let words = "the process gave memory back that the replay kept";
        is_noticed(&python.path, code, |recorded| plant(recorded, unsteered), words);
    }
}

#[test]
fn another_clock_is_noticed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    for bytes in [800_000, 1 << 20, 1_200_000] {
        // mimalloc purges what is free for a while, when it is called again; by chance a buffer more or less is left,
        // which the ballast brings within the bar.
        let code = format!(
            "import pyarrow as pa, time\n\
             pool = pa.default_memory_pool()\n\
             def fill(size):\n\
             \x20   buffer = pa.allocate_buffer(size, pool)\n\
             \x20   ctypes.memset(buffer.address, 1, size)\n\
             ballast = written(100_000_000)\n\
             mark(b'steady')\n\
             held = [pa.allocate_buffer({bytes}, pool) for _ in range(60_000_000 // {bytes})]\n\
             for buffer in held: ctypes.memset(buffer.address, 1, {bytes})\n\
             del held, buffer\n\
             for size in [{bytes}, {bytes}, 100, 100, 100]:\n\
             \x20   time.sleep(1.1)\n\
             \x20   for _ in range(50): fill(size)\n\
             mark(b'drained')\n"
        );
        is_noticed(&python, &code, still, "its allocator purges by time");
    }
}

#[test]
fn what_a_forked_child_inherits_is_noticed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let code = "import os\n\
                inherited = [written(3000) for _ in range(10_000)]\n\
                child = os.fork()\n\
                if child: os.waitpid(child, 0)\n\
                mark(b'steady')\n\
                own = [str(number) for number in range(200_000)]\n\
                mark(b'drained')\n";
    let recorded = record(&python.path, code);
    assert_eq!(doubt(&recorded.trace), None);
    let of_child = fs::read_dir(recorded.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let of_child = of_child.filter(|path| path.extension().is_some_and(|ending| ending == "trace"));
    let of_child: Vec<PathBuf> = of_child.filter(|path| *path != recorded.trace).collect();
    assert_eq!(of_child.len(), 1, "{of_child:?}");
    let said = doubt(&of_child[0]).expect("the child holds what it inherited");
    assert!(said.contains("blocks from before the recording began"), "{said}");
}
