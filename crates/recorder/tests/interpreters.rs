//! Every CPython found on this machine: nothing unknown, nothing lost, every hook still in place at the end.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use trace::{EventKind, Phase};

/// Small and large blocks, threads, a deep import, cyclic garbage.
const PROGRAM: &str = "\
import gc, json, threading, decimal
class Node:
    pass
def cycles(count):
    for _ in range(count):
        a, b = Node(), Node()
        a.other, b.other = b, a
work = lambda: [json.loads(json.dumps({'key': [i, str(i)]})) for i in range(500)]
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
cycles(2000)
blob = bytearray(1 << 20)
blob.extend(b'x' * (1 << 20))
gc.collect()
print(sum(len(work()) for _ in range(20)))
";

#[test]
fn every_interpreter_is_recorded_in_full() {
    let _one = support::one_at_a_time();
    let interpreters = support::interpreters();
    if interpreters.is_empty() {
        return support::not_run("no CPython 3.9 or later was found");
    }
    for interpreter in interpreters {
        let folder = tempfile::tempdir().unwrap();
        let report = support::record(&support::options(folder.path(), &interpreter.path, &["-c", PROGRAM]));
        let label = interpreter.label();
        assert_eq!(report.exit_code, 0, "{label}");
        let (metadata, events) = support::read(&folder.path().join("test.trace"));

        assert_eq!(metadata.unknown_frees, 0, "{label}");
        assert_eq!(metadata.lost_events, 0, "{label}");
        assert!(metadata.complete, "{label}");
        assert_eq!(metadata.hook_mask & 0b1111, 0b1111, "{label}: libc, raw, mem and obj stay wrapped");
        let python = metadata.python.as_ref().unwrap();
        assert_eq!(python.version, interpreter.version, "{label}");
        assert_eq!(python.build, if interpreter.is_static { "static" } else { "shared" }, "{label}");
        assert_eq!(python.hash_seed.as_deref(), Some("0"), "{label}");
        for domain in ["libc", "raw", "mem", "obj"] {
            assert!(metadata.totals.calls_by_domain.contains_key(domain), "{label}: {domain}");
        }
        let is_known = (10..=13).contains(&interpreter.minor);
        assert!(metadata.totals.collections > 0 || !is_known, "{label}: collections are marked");
        let is_noted = metadata.notes.iter().any(|note| note.starts_with("collections are not recorded"));
        assert!(metadata.totals.collections > 0 || is_noted, "{label}: {:?}", metadata.notes);
        assert!(metadata.sites.iter().any(|site| site.module.contains("python")), "{label}: call sites are named");
        let untested = metadata.notes.iter().any(|note| note.starts_with("untested"));
        assert_eq!(untested, !(10..=13).contains(&interpreter.minor), "{label}: {:?}", metadata.notes);

        let marks =
            |phase: Phase| events.iter().filter(|event| event.kind == EventKind::Mark { mark: phase as u32 }).count();
        assert_eq!((marks(Phase::Steady), marks(Phase::Finalising)), (1, 1), "{label}");
        let count = |is: fn(&EventKind) -> bool| events.iter().filter(|event| is(&event.kind)).count();
        assert!(count(|kind| matches!(kind, EventKind::ThreadStart { .. })) >= 3, "{label}");
        assert!(count(|kind| matches!(kind, EventKind::ThreadEnd { .. })) >= 3, "{label}");
        let touched = |kind: &EventKind| match kind {
            EventKind::Alloc { touched, .. } | EventKind::Realloc { touched, .. } => {
                touched.is_some_and(|bytes| bytes > 0)
            }
            _ => false,
        };
        assert!(count(touched) > 0, "{label}: large blocks say how much of them was touched");
    }
}

/// Objects of every kind that the collector counts; the figures go to the file that is named.
const COUNTED: &str = "\
import gc, json, sys, threading
class Node:
    def __init__(self, parent):
        self.parent, self.children, self.note = parent, [], {'n': 1}
def tree(depth, parent=None):
    node = Node(parent)
    if depth:
        node.children = [tree(depth - 1, node) for _ in range(4)]
    return node
kept = [root for number in range(60) for root in [tree(4)] if number % 4 == 0]
thread = threading.Thread(target=lambda: [json.loads(json.dumps({'key': [i, [i]]})) for i in range(3000)])
thread.start()
thread.join()
figures = [gc.get_stats(), gc.get_count(), len(gc.get_objects())]
open(sys.argv[1], 'w').write(repr(figures))
";

/// One object more in the youngest generation moves every collection after it.
#[test]
fn the_collector_runs_as_without_the_recorder() {
    let _one = support::one_at_a_time();
    for interpreter in support::interpreters() {
        let (folder, label) = (tempfile::tempdir().unwrap(), interpreter.label());
        let figures = folder.path().join("figures");
        let arguments = ["-c", COUNTED, figures.to_str().unwrap()];
        let mut plain = std::process::Command::new(&interpreter.path);
        assert!(plain.args(arguments).env("PYTHONHASHSEED", "0").status().unwrap().success(), "{label}");
        let without = std::fs::read_to_string(&figures).unwrap();
        let report = support::record(&support::options(folder.path(), &interpreter.path, &arguments));
        assert_eq!(report.exit_code, 0, "{label}");
        assert_eq!(std::fs::read_to_string(&figures).unwrap(), without, "{label}");
    }
}

#[test]
fn exit_is_marked_after_the_exit_functions_and_before_the_first_free() {
    const HELD: u64 = 5_000_011;
    const LATE: u64 = 3_000_017;
    let code = format!(
        "import atexit, threading, time\n\
         held = [bytearray({HELD})]\n\
         held[0] = held, held[0]\n\
         atexit.register(lambda: held.append(bytearray({LATE})))\n\
         threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    );
    let _one = support::one_at_a_time();
    for interpreter in support::interpreters() {
        let (folder, label) = (tempfile::tempdir().unwrap(), interpreter.label());
        support::record(&support::options(folder.path(), &interpreter.path, &["-c", &code]));
        let (metadata, events) = support::read(&folder.path().join("test.trace"));
        let is_mark = |event: &trace::Event| event.kind == EventKind::Mark { mark: Phase::Finalising as u32 };
        let mark = events.iter().position(is_mark).unwrap_or_else(|| panic!("{label}: no mark: {:?}", metadata.marks));
        // A byte array takes one byte more than it holds.
        for bytes in [HELD + 1, LATE + 1] {
            let allocated = events.iter().enumerate().find_map(|(index, event)| match event.kind {
                EventKind::Alloc { slot, size, .. } if size == bytes => Some((index, slot)),
                _ => None,
            });
            let (allocated, block) = allocated.unwrap();
            let is_free = |event: &trace::Event| event.kind == EventKind::Free { slot: block };
            let freed = events.iter().skip(allocated).position(is_free).map(|index| index + allocated);
            assert!(
                allocated < mark && freed.is_some_and(|freed| freed > mark),
                "{label}: {allocated} {mark} {freed:?}"
            );
        }
        assert!(metadata.python.unwrap().version == interpreter.version, "{label}");
    }
}

/// `tracemalloc` frees its entries for large blocks within Python's own frees and resizes.
#[test]
fn tracemalloc_costs_no_free() {
    const CODE: &str = "\
import tracemalloc
kept, grown = [], []
for _ in range(20):
    tracemalloc.start()
    kept += [['%d' % n, '%d' % n * 400] for n in range(1000)]
    grown += range(3000)
    tracemalloc.stop()
    kept += [['%d' % n, '%d' % n * 400] for n in range(1000)]
    del kept[::2]
";
    let _one = support::one_at_a_time();
    for interpreter in support::interpreters() {
        let (folder, label) = (tempfile::tempdir().unwrap(), interpreter.label());
        let report = support::record(&support::options(folder.path(), &interpreter.path, &["-c", CODE]));
        let (_, converted) = report.images[report.main].trace.as_ref().unwrap();
        let found = (converted.unknown_frees, converted.missed_frees, converted.hook_mask & 0b1110);
        assert_eq!((report.exit_code, found), (0, (0, 0, 0b1110)), "{label}");
    }
}
