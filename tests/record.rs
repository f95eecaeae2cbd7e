//! `record` where things go wrong: programs that change user, root or limits, that close what is not theirs, that leave
//! children behind; full disks; recordings that are killed. The recorded program always goes on as if alone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use binary::{bench, output, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trace::{EventKind, Metadata};

/// About half a million events before the program does what it does, and as many afterwards.
const BEFORE: &str = "import os, sys, time\nkept = [str(n) for n in range(60000)]\n";
const AFTER: &str = "\nmore = [str(n) for n in range(60000)]\n";
/// Long enough for a loaded machine; only a hang takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, and an interpreter; none after NOT RUN.
struct Bed {
    folder: TempDir,
    python: PathBuf,
}

struct Recorded {
    code: i32,
    said: String,
    metadata: Metadata,
    allocations: u64,
}

impl Bed {
    fn new() -> Option<Self> {
        let python = support::any_interpreter()?.path.clone();
        Some(Self { folder: tempfile::tempdir().unwrap(), python })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `record` of this code, not started yet; it writes `test.trace`.
    fn command(&self, code: &str) -> Command {
        let script = self.path("program.py");
        fs::write(&script, code).unwrap();
        let mut command = bench();
        command.args(["record", "-o"]).arg(self.path("test.trace")).arg("--").arg(&self.python).arg(script);
        command
    }

    fn record(&self, code: &str) -> Recorded {
        let (code, printed, said) = output(&mut self.command(code));
        assert_eq!(printed, "", "{said}");
        assert_eq!(self.raw_folders(), Vec::<PathBuf>::new(), "{said}");
        let (metadata, allocations) = read(&self.path("test.trace"));
        Recorded { code, said, metadata, allocations }
    }

    /// A recording whose program has allocated, and runs until the file is removed.
    fn running(&self) -> (Child, PathBuf) {
        let ready = self.path("ready");
        let code = format!("{BEFORE}open({ready:?}, 'w').close()\nwhile os.path.exists({ready:?}): time.sleep(0.02)");
        let recording = self.command(&code).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the program", PATIENCE, || ready.exists().then_some(()));
        (recording, ready)
    }

    fn raw_folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".pyalloc-raw-")).collect()
    }
}

fn read(trace: &Path) -> (Metadata, u64) {
    let (metadata, _) = support::read(trace);
    let allocations = metadata.totals.allocs;
    (metadata, allocations)
}

/// Whether tests that need root can run; says NOT RUN otherwise.
fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("NOT RUN: {what} needs root");
    }
    is_root
}

/// The program does this in the middle of its work, and loses nothing; nor does a child that it forks afterwards.
fn loses_nothing(change: &str) {
    let Some(bed) = Bed::new() else { return };
    let child =
        "\nif os.fork() == 0:\n    less = [str(n) for n in range(60000)]\n    os._exit(0)\nos.wait()\nos._exit(7)";
    let found = bed.record(&format!("{BEFORE}{change}{AFTER}{child}"));
    assert_eq!((found.code, found.metadata.complete, found.metadata.lost_events), (7, true, 0), "{}", found.said);
    assert!(found.allocations > 120_000, "{}", found.said);
    let child =
        fs::read_dir(bed.folder.path()).unwrap().flatten().map(|entry| entry.path()).find(|path| {
            path.extension().is_some_and(|extension| extension == "trace") && !path.ends_with("test.trace")
        });
    let (metadata, allocations) = read(&child.expect("the child has a trace"));
    assert!(metadata.complete && metadata.lost_events == 0 && allocations > 60_000, "{}", found.said);
}

#[test]
fn a_program_that_becomes_another_user_is_recorded_to_its_end() {
    if is_root("changing the user") {
        loses_nothing("os.setgid(65534); os.setuid(65534)");
    }
}

#[test]
fn a_program_that_changes_its_root_is_recorded_to_its_end() {
    if is_root("chroot") {
        loses_nothing("import tempfile; os.chroot(tempfile.mkdtemp()); os.chdir('/')");
    }
}

#[test]
fn a_program_that_limits_itself_is_recorded_to_its_end() {
    let limits =
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (3, 3)); r.setrlimit(r.RLIMIT_FSIZE, (1000, 1000))";
    loses_nothing(limits);
}

/// Whoever closes all descriptors gets their numbers for files of its own: nothing of ours may be written there.
#[test]
fn no_descriptor_of_the_program_ever_gets_our_bytes() {
    let change = "os.closerange(0, 256)\n\
                  names = [os.path.join(os.path.dirname(__file__), 'own%d' % n) for n in range(24)]\n\
                  files = [os.open(name, os.O_RDWR | os.O_CREAT) for name in names]\n\
                  for file in files: os.write(file, b'own')";
    loses_nothing(change);
    let Some(bed) = Bed::new() else { return };
    bed.record(&format!("{BEFORE}{change}{AFTER}"));
    for number in 0..24 {
        assert_eq!(fs::read(bed.path(&format!("own{number}"))).unwrap(), b"own");
    }
}

#[test]
fn a_child_that_goes_on_allocating_is_cut_and_costs_nothing_else() {
    let Some(bed) = Bed::new() else { return };
    let daemon = "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.closerange(0, 3)\n\
                  \x20       end = time.time() + 20\n\
                  \x20       while time.time() < end and os.path.exists(__file__):\n\
                  \x20           busy = [str(n) for n in range(10000)]\n\
                  \x20       os._exit(0)\n    os._exit(0)\nos.wait(); time.sleep(0.3); os._exit(4)";
    let begin = Instant::now();
    let found = bed.record(&format!("{BEFORE}{daemon}"));
    assert_eq!((found.code, found.metadata.complete, found.metadata.lost_events), (4, true, 0), "{}", found.said);
    assert!(begin.elapsed() < Duration::from_secs(18), "record does not wait for the child");
    let traces = fs::read_dir(bed.folder.path()).unwrap().flatten().map(|entry| entry.path());
    let other =
        traces.filter(|path| path.extension().is_some_and(|kind| kind == "trace") && !path.ends_with("test.trace"));
    let (metadata, allocations) = read(&other.last().expect("the child has a trace"));
    assert!(!metadata.complete && allocations > 60_000);
    assert!(metadata.notes.iter().any(|note| note.contains("still ran")), "{:?}", metadata.notes);
}

/// `record` is killed in a process-id name space of its own, twice with the same ids: the second one is not disturbed,
/// and names what the first one left, which becomes a trace.
#[test]
fn a_killed_recording_is_named_and_can_be_finished() {
    let Some(bed) = Bed::new() else { return };
    let (mut recording, _) = bed.running();
    recording.kill().unwrap();
    recording.wait().unwrap();
    let [left] = &bed.raw_folders()[..] else { panic!("one folder of raw data is left") };
    assert!(!bed.path("test.trace").exists());
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(left).unwrap());
    assert_eq!(mode & 0o777, 0o700);

    let mut next = bench();
    next.args(["record", "-o"]).arg(bed.path("next.trace")).args(["--", "/bin/true"]);
    let (code, _, said) = output(next.env("TMPDIR", bed.folder.path()));
    assert_eq!(code, 0, "{said}");
    assert!(said.matches("--recover").count() == 1 && said.contains(left.to_str().unwrap()), "{said}");

    let (code, _, said) = output(bench().args(["record", "--recover"]).arg(left));
    assert_eq!(code, 0, "{said}");
    let (metadata, allocations) = read(&bed.path("test.trace"));
    assert!(!metadata.complete && allocations > 60_000 && metadata.kernel.is_some(), "{metadata:?}");
    assert!(metadata.notes.iter().any(|note| note.contains("still ran") || note.contains("killed")));
    assert!(bed.raw_folders().is_empty());
    let (code, _, said) = output(bench().args(["record", "--recover"]).arg(left));
    assert!(code == 2 && said.contains("no raw data"), "{code} {said}");
}

/// `record` was killed before it could start the program, or while it removed the data of a written trace.
#[test]
fn raw_data_without_a_recording_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".pyalloc-raw-0123456789abcdef");
    let states: [&[&str]; 4] =
        [&[], &["session"], &[".session.json.0123456789abcdef.part"], &["reserve", "0000.log", "0001.log"]];
    let make = |names: &[&str]| {
        fs::create_dir(&left).unwrap();
        fs::set_permissions(&left, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        for name in names {
            fs::write(left.join(name), if name.ends_with("log") { vec![1; 1 << 16] } else { Vec::new() }).unwrap();
            if *name == "session" {
                fs::File::options().write(true).open(left.join(name)).unwrap().set_len(64 << 20).unwrap();
            }
        }
    };
    for names in states {
        make(names);
        let (code, _, said) = output(bench().args(["record", "--recover"]).arg(&left));
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("nothing is left to recover") && !left.exists(), "{names:?}: {said}");
        make(names);
        let next = folder.path().join("next.trace");
        let (code, _, said) = output(bench().args(["record", "-o"]).arg(next).args(["--", "/bin/true"]));
        assert!(code == 0 && !left.exists() && !said.contains("--recover"), "{names:?}: {code} {said}");
    }
}

/// Many recordings that begin at once in one folder, each of which looks for what others left.
#[test]
fn recordings_that_begin_together_leave_each_other_alone() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let start = |number: u32| {
            let trace = folder.path().join(format!("{round}-{number}.trace"));
            bench().args(["record", "-o"]).arg(trace).args(["--", "/bin/true"]).stderr(Stdio::piped()).spawn().unwrap()
        };
        for recording in (0..12).map(start).collect::<Vec<_>>() {
            let ended = recording.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(ended.status.success() && said.contains("lost: 0 events") && !said.contains("--recover"), "{said}");
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 48, "traces alone");
}

#[test]
fn a_running_recording_cannot_be_taken_away() {
    let Some(bed) = Bed::new() else { return };
    let (mut recording, ready) = bed.running();
    for verb in ["--recover", "--discard"] {
        let (code, _, said) = output(bench().args(["record", verb]).arg(&bed.raw_folders()[0]));
        assert!(code == 2 && said.contains("still runs"), "{code} {said}");
    }
    fs::remove_file(&ready).unwrap();
    assert_eq!(recording.wait().unwrap().code(), Some(0));
    assert!(read(&bed.path("test.trace")).0.complete);
}

#[test]
fn processes_of_the_same_id_do_not_disturb_each_other() {
    if !is_root("a process-id name space") {
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let script = bed.path("program.py");
    fs::write(&script, BEFORE).unwrap();
    let record = format!(
        "exec '{}' record -o '{}' -- '{}' '{}'",
        env!("CARGO_BIN_EXE_pyalloc-bench"),
        bed.path("test.trace").display(),
        bed.python.display(),
        script.display()
    );
    for _ in 0..2 {
        let mut alone = Command::new("unshare");
        let (code, _, said) = output(alone.args(["--pid", "--fork", "--mount-proc", "/bin/sh", "-c", &record]));
        if said.contains("unshare:") {
            return println!("NOT RUN: {said}");
        }
        assert_eq!(code, 0, "{said}");
        assert!(read(&bed.path("test.trace")).0.complete);
    }
}

/// An ext4 file system of 40 MiB, mounted as long as the value lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(bed: &Bed) -> Result<Self, String> {
        let (image, at) = (bed.path("disk.img"), bed.path("disk"));
        fs::File::create(&image).unwrap().set_len(40 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        for command in [
            Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image),
            Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at),
        ] {
            let found = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
            if !found.status.success() {
                return Err(String::from_utf8_lossy(&found.stderr).into_owned());
            }
        }
        Ok(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_yields_the_trace_so_far_and_is_empty_again() {
    if !is_root("mounting a file system") {
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let disk = match SmallDisk::mount(&bed) {
        Ok(disk) => disk,
        Err(why) => return println!("NOT RUN: {why}"),
    };
    let trace = disk.0.join("test.trace");
    let code = "kept = [str(n) for n in range(800000)]\nprint('done')\nraise SystemExit(3)";
    let mut command = bench();
    command.args(["record", "-o"]).arg(&trace).arg("--").arg(&bed.python).args(["-c", code]);
    let (code, printed, said) = output(&mut command);
    assert_eq!((code, printed.as_str()), (3, "done\n"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    let (metadata, allocations) = read(&trace);
    assert!(allocations > 100_000 && !metadata.complete && metadata.lost_events > 0, "{metadata:?}");
    assert!(metadata.notes.iter().any(|note| note.contains("No space left")), "{:?}", metadata.notes);
    let left: Vec<_> = fs::read_dir(&disk.0).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "the trace and lost+found: {left:?}");

    // Too full for anything: refused before the program runs.
    let fill = fs::File::create(disk.0.join("fill")).unwrap();
    let mut bytes = 64 << 20;
    while bytes > 4096 {
        let grown = fill.metadata().unwrap().len() + bytes;
        if rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, grown).is_err() {
            bytes /= 2;
        }
    }
    let (code, printed, said) = output(&mut command);
    assert_eq!((code, printed.as_str()), (125, ""), "{said}");
    assert!(said.contains("No space left on device") && said.contains("-o"), "{said}");
}

/// What a module keeps alive is finalised at exit, as without the recorder; and nothing is in the collector's list.
#[test]
fn shutdown_and_the_collector_are_as_without_the_recorder() {
    let _one = support::one_at_a_time();
    let code = "import gc, sys, types\n\
                class Says:\n\
                \x20   def __init__(self, word): self.word = word\n\
                \x20   def __del__(self, write=sys.stdout.write): write(self.word + '\\n')\n\
                module = types.ModuleType('kept'); module.cycle = module; module.says = Says('of a module')\n\
                held = Says('of main'); held.itself = held\n\
                print(gc.callbacks, file=sys.stdout); del module";
    for interpreter in support::interpreters().iter().filter(|found| found.minor >= 10) {
        let plain = output(Command::new(&interpreter.path).args(["-c", code]).env("PYTHONHASHSEED", "0"));
        let folder = tempfile::tempdir().unwrap();
        let mut command = bench();
        command.args(["record", "-o"]).arg(folder.path().join("t.trace")).arg("--").arg(&interpreter.path);
        let recorded = output(command.args(["-c", code]));
        let label = interpreter.label();
        assert_eq!((recorded.0, &recorded.1), (plain.0, &plain.1), "{label}: {}", recorded.2);
        assert!(plain.1.contains("of a module") && plain.1.starts_with("[]"), "{label}: {}", plain.1);
    }
}

/// Collections are read from the interpreter's own state: as many of each generation as it counts itself.
#[test]
fn every_collection_is_recorded_without_an_entry_of_ours() {
    let _one = support::one_at_a_time();
    let code = "import ctypes, gc\n\
                class Node: pass\n\
                mark = ctypes.CDLL(None).pyalloc_mark\n\
                mark(b'steady')\n\
                before = [found['collections'] for found in gc.get_stats()]\n\
                kept = []\n\
                for number in range(60000):\n\
                \x20   node = Node(); node.itself = node\n\
                \x20   if number % 3 == 0: kept.append(Node())\n\
                gc.collect(1); gc.collect()\n\
                after = [found['collections'] for found in gc.get_stats()]\n\
                mark(b'drained')\n\
                print(*[now - then for then, now in zip(before, after)])";
    for interpreter in support::interpreters().iter().filter(|found| (10..=13).contains(&found.minor)) {
        let folder = tempfile::tempdir().unwrap();
        let trace = folder.path().join("t.trace");
        let mut command = bench();
        command.args(["record", "-o"]).arg(&trace).arg("--").arg(&interpreter.path).args(["-c", code]);
        let (_, printed, said) = output(&mut command);
        let counted: Vec<u64> = printed.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let (mut starts, mut stops, mut is_between) = ([0; 3], [0; 3], false);
        let (metadata, events) = support::read(&trace);
        let is_reading = |mark: u32| metadata.marks[mark as usize] == "reading";
        for event in events {
            match event.kind {
                EventKind::Mark { mark } if is_reading(mark) => {}
                EventKind::Mark { .. } => is_between = !is_between && stops == [0; 3],
                EventKind::GcStart { generation } if is_between => starts[usize::from(generation)] += 1,
                EventKind::GcStop { generation } if is_between => stops[usize::from(generation)] += 1,
                _ => {}
            }
        }
        let label = interpreter.label();
        assert!(counted.iter().sum::<u64>() > 20, "{label}: {said}");
        assert_eq!((&starts[..], &stops[..]), (&counted[..], &counted[..]), "{label}");
    }
}

#[test]
fn a_program_killed_before_its_first_call_ends_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("k.c"), folder.path().join("k"));
    fs::write(&source, "#include <signal.h>\nint main(void) { raise(SIGKILL); return 0; }\n").unwrap();
    assert!(Command::new("cc").arg(&source).arg("-o").arg(&program).status().unwrap().success());
    let trace = folder.path().join("t.trace");
    let (code, _, said) = output(bench().args(["record", "-o"]).arg(&trace).arg("--").arg(&program));
    assert_eq!(code, 128 + 9, "{said}");
    assert!(said.contains("killed or replaced"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "source, program, trace");
}

/// A program that is started as a user who cannot read the recorder is not asked to load it.
#[test]
fn programs_of_other_users_do_not_hear_of_the_recorder() {
    if !is_root("starting a program as another user") {
        return;
    }
    let Some(bed) = Bed::new() else { return };
    let code = format!(
        "{BEFORE}import subprocess\n\
         show = ['/bin/sh', '-c', 'echo \"[$LD_PRELOAD]\"']\n\
         found = subprocess.run(show, user=65534, capture_output=True, text=True)\n\
         sys.exit(0 if (found.stdout, found.stderr) == ('[]\\n', '') else repr(found))"
    );
    let private = bed.path("cache");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (code, _, said) = output(bed.command(&code).env("XDG_CACHE_HOME", &private));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("started as another user"), "{said}");
}

/// What the caller ignores stays ignored in the program, and costs neither its exit code nor its trace.
#[test]
fn signals_that_are_ignored_are_inherited() {
    let Some(bed) = Bed::new() else { return };
    let script = bed.path("program.py");
    fs::write(&script, "import signal as s, sys\nsys.exit(7 if s.getsignal(s.SIGCHLD) is s.SIG_IGN else 1)").unwrap();
    let start = "import os, signal, sys\n\
                 signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
                 os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new(&bed.python);
    command.args(["-c", start, env!("CARGO_BIN_EXE_pyalloc-bench"), "record", "-o"]).arg(bed.path("test.trace"));
    let (code, _, said) = output(command.arg("--").arg(&bed.python).arg(&script));
    assert_eq!(code, 7, "{said}");
    assert!(read(&bed.path("test.trace")).0.complete);

    let trap = "trap '' PIPE; exec \"$0\" record -o \"$1\" -- grep SigIgn /proc/self/status";
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", trap, env!("CARGO_BIN_EXE_pyalloc-bench")]).arg(bed.path("pipe.trace"));
    let (code, printed, said) = output(&mut shell);
    let mask = printed.split_whitespace().last().and_then(|mask| u64::from_str_radix(mask, 16).ok());
    assert!(code == 0 && mask.is_some_and(|mask| mask & 1 << (13 - 1) != 0), "{code} {printed} {said}");
}

#[test]
fn a_thread_with_a_small_stack_starts_programs() {
    let Some(bed) = Bed::new() else { return };
    let code = "import os, threading\n\
                threading.stack_size(32768)\n\
                start = lambda: os.waitpid(os.posix_spawn('/bin/true', ['true'], os.environ), 0)\n\
                thread = threading.Thread(target=start); thread.start(); thread.join()\n\
                os._exit(5)";
    assert_eq!(bed.record(code).code, 5);
}
