//! How programs end, fork, replace themselves and get in the recorder's way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use recorder::{Options, RecordError};
use std::path::Path;
use std::time::Duration;
use trace::{EventKind, Phase};

const ALLOCATE: &str = "kept = [str(number) for number in range(50000)]\n";

/// Records `python -c ALLOCATE + rest` and gives exit code, metadata and events.
fn record_code(rest: &str, change: impl FnOnce(&mut Options)) -> Option<(u8, trace::Metadata, Vec<trace::Event>)> {
    let _one = support::one_at_a_time();
    let python = support::any_interpreter()?;
    let folder = tempfile::tempdir().unwrap();
    let code = format!("{ALLOCATE}{rest}");
    let mut options = support::options(folder.path(), &python.path, &["-c", &code]);
    change(&mut options);
    let report = support::record(&options);
    let (metadata, events) = support::read(&options.output);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("raw")), "raw data was left behind: {left:?}");
    Some((report.exit_code, metadata, events))
}

#[test]
fn the_exit_code_is_the_programs() {
    let Some((code, metadata, _)) = record_code("raise SystemExit(42)", |_| ()) else { return };
    assert_eq!((code, metadata.complete), (42, true));
}

#[test]
fn leaving_through_os_exit_keeps_everything_but_the_last_phase() {
    let Some((code, metadata, events)) = record_code("import os; os._exit(7)", |_| ()) else { return };
    assert_eq!((code, metadata.complete, metadata.lost_events), (7, true, 0));
    assert!(metadata.totals.allocs > 50_000);
    assert!(metadata.process.unwrap().end.is_some(), "memory was read on the way out");
    assert!(!events.iter().any(|event| event.kind == EventKind::Mark { mark: Phase::Finalising as u32 }));
}

#[test]
fn a_killed_program_leaves_a_trace_that_says_so() {
    let Some((code, metadata, _)) = record_code("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", |_| ())
    else {
        return;
    };
    assert_eq!((code, metadata.complete), (128 + 9, false));
    assert!(metadata.totals.allocs > 50_000, "nothing that happened before the kill is lost");
    assert!(metadata.notes.iter().any(|note| note.contains("killed")), "{:?}", metadata.notes);
}

#[test]
fn a_signal_to_the_recorder_reaches_the_program() {
    let rest = "import os, signal, time\n\
                os.kill(os.getppid(), signal.SIGTERM)\n\
                time.sleep(60)";
    let Some((code, metadata, _)) = record_code(rest, |_| ()) else { return };
    assert_eq!((code, metadata.complete), (128 + 15, false));
}

#[test]
fn the_programs_own_marks_stand_above_those_found() {
    let rest = "import ctypes\n\
                mark = ctypes.CDLL(None).pyalloc_mark\n\
                mark(b'steady'); more = [str(n) for n in range(1000)]; mark(b'half'); del kept, more; mark(b'drained')";
    let Some((_, metadata, events)) = record_code(rest, |_| ()) else { return };
    let marks = events.iter().filter_map(|event| match event.kind {
        EventKind::Mark { mark } => Some(metadata.marks[mark as usize].as_str()),
        _ => None,
    });
    let marks: Vec<&str> = marks.filter(|name| *name != "reading").collect();
    assert_eq!(marks, ["steady", "half", "drained", "finalising"]);
    for reading in &metadata.mark_readings {
        assert!(matches!(events[reading.event as usize].kind, EventKind::Mark { mark } if mark == reading.mark));
        assert!(reading.memory.unwrap().rss_anon_bytes > 0 && reading.cpu_ns.unwrap() > 0);
    }
}

#[test]
fn memory_is_read_at_its_maxima_however_short_they_are() {
    const MIB: u64 = 1 << 20;
    let rest = "import ctypes\n\
                mark = ctypes.CDLL(None).pyalloc_mark\n\
                mark(b'steady')\n\
                for _ in range(3): block = bytearray(64 << 20); del block\n\
                mark(b'drained')";
    let Some((_, metadata, _)) = record_code(rest, |_| ()) else { return };
    let heap = |reading: &trace::MarkReading| {
        let memory = reading.memory.expect("every mark has a reading");
        (
            metadata.marks[reading.mark as usize].clone(),
            memory.rss_anon_bytes - memory.relocated_bytes - memory.stack_bytes,
        )
    };
    let read: Vec<(String, u64)> = metadata.mark_readings.iter().map(heap).collect();
    let at = |name: &str| read.iter().find(|(own, _)| own == name).expect(name).1;
    let most = read.iter().filter(|(name, _)| name == "reading").map(|(_, bytes)| *bytes).max().expect("a maximum");
    let above = most - at("steady");
    assert!((64 * MIB..66 * MIB).contains(&above), "{read:?}");
    assert!(at("drained") < at("steady") + MIB, "{read:?}");
    let readings = read.iter().filter(|(name, _)| name == "reading").count();
    assert!(readings < 30, "the second and third block are no new maxima: {read:?}");
    assert!(metadata.process.unwrap().peak.unwrap().rss_anon_bytes >= most);
}

/// What a mark records fills windows, and a new window is where the recorder looks for a new maximum.
#[test]
fn a_mark_at_a_new_maximum_makes_no_mark_within() {
    let rest = "import ctypes, time\n\
                c = ctypes.CDLL(None)\n\
                c.mmap.restype = ctypes.c_void_p\n\
                c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n\
                c.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n\
                mapped = [c.mmap(None, 1 << 16, 3, 0x22, -1, 0) for _ in range(300)]\n\
                for at in mapped[::2]: ctypes.memset(at, 1, 4096)\n\
                for at in mapped[1::2]: c.munmap(at, 1 << 16)\n\
                held = []\n\
                for number in range(230):\n\
                \x20   time.sleep(0.002)\n\
                \x20   held.append(b'x' * (4 << 20) if number < 60 else [object() for _ in range(number)])\n\
                \x20   c.pyalloc_mark(b'mark %d' % number)";
    let Some((_, metadata, _)) = record_code(rest, |_| ()) else { return };
    let made = metadata.marks.iter().filter(|name| name.starts_with("mark ")).count();
    assert_eq!(made, 230);
}

#[test]
fn what_a_library_maps_for_itself_is_read_at_every_mark() {
    const MIB: u64 = 1 << 20;
    let rest = "import ctypes\n\
                c = ctypes.CDLL(None)\n\
                c.mmap.restype = ctypes.c_void_p\n\
                c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]\n\
                c.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n\
                at = c.mmap(None, 32 << 20, 3, 0x22, -1, 0)\n\
                ctypes.memset(at, 1, 8 << 20)\n\
                c.pyalloc_mark(b'steady')\n\
                c.munmap(at + (2 << 20), 1 << 20); c.munmap(at, 1 << 20)\n\
                c.pyalloc_mark(b'drained')\n\
                c.munmap(at, 32 << 20)";
    let Some((_, metadata, _)) = record_code(rest, |_| ()) else { return };
    let mapped = |phase: Phase| {
        let reading = metadata.mark_readings.iter().find(|reading| reading.mark == phase as u32).unwrap();
        reading.mapped_bytes.as_ref().expect("a mark of the program's has a reading").values().sum::<u64>()
    };
    // Huge pages may make up to 2 MiB more of it resident; Python's own arenas are not in it.
    assert!((8 * MIB..=10 * MIB).contains(&mapped(Phase::Steady)), "{:?}", metadata.mark_readings);
    assert!((6 * MIB..=8 * MIB).contains(&mapped(Phase::Drained)), "{:?}", metadata.mark_readings);
    assert!(mapped(Phase::Finalising) <= MIB, "{:?}", metadata.mark_readings);
    assert!(metadata.notes.iter().any(|note| note.contains("maps memory for itself")), "{:?}", metadata.notes);
}

#[test]
fn forked_children_are_images_of_their_own() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "import os\n\
                pid = os.fork()\n\
                kept = [str(n) for n in range(60000)]\n\
                os._exit(3) if pid == 0 else print(os.waitpid(pid, 0))";
    let options = support::options(folder.path(), &python.path, &["-c", code]);
    let report = support::record(&options);
    assert_eq!((report.exit_code, report.images.len()), (0, 2));
    let main = &report.images[report.main];
    assert!(!main.is_forked && main.trace.as_ref().unwrap().0 == options.output);
    let child = report.images.iter().find(|image| image.is_forked).unwrap();
    let (path, converted) = child.trace.as_ref().expect("a child of this size gets a trace");
    assert!(converted.totals.allocs > 60_000 && child.python.is_some());
    let (_, events) = support::read(&options.output);
    assert_eq!(events.iter().filter(|event| event.kind == EventKind::Fork).count(), 1);
    support::read(path);
}

#[test]
fn a_shim_in_front_of_the_interpreter_is_not_the_main_image() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let shim = folder.path().join("python-shim");
    std::fs::write(&shim, format!("#!/bin/sh\nexec {} \"$@\"\n", python.path.display())).unwrap();
    std::fs::set_permissions(&shim, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = support::record(&support::options(folder.path(), &shim, &["-c", "print(len(str(7)))"]));
    assert_eq!(report.exit_code, 0);
    assert_eq!(report.images[report.main].python.as_deref(), Some(python.version.as_str()));
    assert!(report.images.len() >= 2, "the shell was an image too");
}

#[test]
fn the_size_limit_ends_the_recording_and_not_the_program() {
    let limit = |options: &mut Options| options.max_bytes = Some(1 << 20);
    let Some((code, metadata, _)) = record_code("raise SystemExit(5)", limit) else { return };
    assert_eq!((code, metadata.complete), (5, false));
    assert!(metadata.lost_events > 0 && metadata.totals.allocs > 1000);
    assert!(metadata.notes.iter().any(|note| note.contains("size limit")), "{:?}", metadata.notes);
}

#[test]
fn the_time_limit_ends_the_recording_and_not_the_program() {
    let rest =
        "import time\nfor _ in range(40): time.sleep(0.02); more = [str(n) for n in range(500)]\nraise SystemExit(9)";
    let limit = |options: &mut Options| options.run_for = Some(Duration::from_millis(300));
    let Some((code, metadata, _)) = record_code(rest, limit) else { return };
    assert_eq!((code, metadata.complete, metadata.lost_events), (9, false, 0));
    assert!(metadata.notes.iter().any(|note| note.contains("time limit")), "{:?}", metadata.notes);
    assert_eq!(metadata.options.get("for").map(String::as_str), Some("0.3s"));
}

#[test]
fn what_would_hide_the_allocations_is_repaired_or_refused() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let folder = tempfile::tempdir().unwrap();
    let refused =
        recorder::record(&support::options(folder.path(), &python.path, &["-X", "dev", "-c", "pass"]), &mut |_| ());
    let error = refused.expect_err("dev mode replaces the allocators");
    assert!(matches!(error, RecordError::DevMode), "{error}");
    assert_eq!(error.exit_code(), 125);

    // A program that sets it for its child: the hooks of the child are gone, and that is said.
    let code = "import os, sys\nos.environ['PYTHONMALLOC'] = 'malloc'\n\
                os.execv(sys.executable, [sys.executable, '-c', 'pass'])";
    let mut options = support::options(folder.path(), &python.path, &["-c", code]);
    options.all = true;
    let report = support::record(&options);
    let hooks = report.images.iter().filter_map(|image| Some(image.trace.as_ref()?.1.hook_mask & 0b1110));
    assert!(hooks.clone().any(|mask| mask == 0), "{:?}", hooks.collect::<Vec<_>>());
    let notes = report.images.iter().filter_map(|image| image.trace.as_ref()).flat_map(|trace| &trace.1.notes);
    assert!(notes.clone().any(|note| note.starts_with("hooks:")), "{:?}", notes.collect::<Vec<_>>());
}

#[test]
fn programs_that_cannot_be_recorded_get_a_sentence_and_a_code() {
    let _one = support::one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let attempt = |program: &Path| {
        let error = recorder::record(&support::options(folder.path(), program, &[]), &mut |_| ()).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    assert_eq!(attempt(Path::new("no-such-program-anywhere")).0, 127);
    assert_eq!(attempt(&folder.path().join("missing")).0, 127);
    let text = folder.path().join("text");
    std::fs::write(&text, "not a program").unwrap();
    assert_eq!(attempt(&text).0, 126);

    // A 64-bit ELF header without program headers: statically linked, as far as the loader is concerned.
    let mut elf = vec![0_u8; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[18] = 62;
    for (name, machine, part) in [("static", 62, "statically linked"), ("other", 183, "x86-64")] {
        elf[18] = machine;
        let path = folder.path().join(name);
        std::fs::write(&path, &elf).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (code, sentence) = attempt(&path);
        assert!(code == 125 && sentence.contains(part), "{code} {sentence}");
    }

    let mut options = support::options(folder.path(), Path::new("/bin/true"), &[]);
    options.output = folder.path().join("no/such/folder/test.trace");
    assert_eq!(recorder::record(&options, &mut |_| ()).unwrap_err().exit_code(), 125);
}

/// Four threads that are joined at once and take 30 ms to end, since a destructor of theirs sleeps; then `drained`.
const SLOW_ENDS: &str = "\
import ctypes, threading
libc = ctypes.CDLL(None)
key = ctypes.c_uint()
libc.pthread_key_create(ctypes.byref(key), libc.usleep)
def work():
    libc.pthread_setspecific(key, ctypes.c_void_p(30000))
    rows = [str(number) for number in range(2000)]
for thread in [threading.Thread(target=work) for _ in range(4)]:
    thread.start()
    thread.join()
libc.pyalloc_mark(b'drained')
";

/// A pool of three threads that sleep at `drained` and end after it.
const IDLE_POOL: &str = "\
import ctypes
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(3)
list(pool.map(lambda number: [str(n) for n in range(number)], [3000] * 30))
ctypes.CDLL(None).pyalloc_mark(b'drained')
pool.shutdown()
";

/// By thread but the first: whether its end was recorded before the mark `drained`.
fn ends_before_drained(python: &Path, code: &str) -> Vec<bool> {
    let folder = tempfile::tempdir().unwrap();
    let options = support::options(folder.path(), python, &["-c", code]);
    support::record(&options);
    let (_, events) = support::read(&options.output);
    let drained = events.iter().position(|event| event.kind == EventKind::Mark { mark: Phase::Drained as u32 });
    let starts = |event: &trace::Event| match event.kind {
        EventKind::ThreadStart { thread } => Some(thread),
        _ => None,
    };
    let before = &events[..drained.unwrap()];
    let has_ended = |thread| before.iter().any(|event| event.kind == EventKind::ThreadEnd { thread });
    before.iter().filter_map(starts).map(has_ended).collect()
}

#[test]
fn a_joined_thread_ends_before_the_mark_that_follows_and_an_idle_one_does_not() {
    let _one = support::one_at_a_time();
    for interpreter in support::interpreters() {
        let ended = ends_before_drained(&interpreter.path, SLOW_ENDS);
        assert_eq!(ended, [true; 4], "{}", interpreter.label());
        let ended = ends_before_drained(&interpreter.path, IDLE_POOL);
        assert!(!ended.is_empty() && !ended.contains(&true), "{}: {ended:?}", interpreter.label());
    }
}
