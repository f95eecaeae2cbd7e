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
