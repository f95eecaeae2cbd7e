//! NumPy, Arrow and a web service: requests that do not come from the interpreter alone.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use trace::{Domain, EventKind};

/// Requests of sizes that nothing else asks for, each once: five ways, a thousand each.
const PROBE: &str = "\
import ctypes, numpy, pyarrow
def function(library, name):
    found = getattr(library, name)
    found.restype, found.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    return found
api, libc = ctypes.pythonapi, ctypes.CDLL(None)
calls = [function(api, 'PyObject_Malloc'), function(api, 'PyMem_RawMalloc'), function(libc, 'malloc')]
kept = []
for index in range(1000):
    for base, call in zip((1000003, 1200003, 1400003), calls):
        call(base + index * 2)
    kept.append(numpy.empty(1600003 + index * 2, dtype=numpy.uint8))
    kept.append(pyarrow.allocate_buffer(1800000 // 64 * 64 + index * 64, memory_pool=pyarrow.mimalloc_memory_pool()))
";

#[test]
fn each_request_is_there_exactly_once_in_its_domain() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = support::record(&support::options(folder.path(), &python, &["-c", PROBE]));
    assert_eq!(report.exit_code, 0);
    let (metadata, events) = support::read(&folder.path().join("test.trace"));
    assert_eq!((metadata.unknown_frees, metadata.lost_events), (0, 0));
    assert_eq!(metadata.hook_mask, 0b11_1111, "all six domains");
    assert_eq!(metadata.arrow_pool.as_deref(), Some("interposed"));
    for package in ["numpy", "pyarrow"] {
        assert!(metadata.packages.contains_key(package), "{:?}", metadata.packages);
    }

    let mut seen: BTreeMap<u64, Vec<Domain>> = BTreeMap::new();
    for event in &events {
        if let EventKind::Alloc { size, domain, .. } = event.kind {
            seen.entry(size).or_default().push(domain);
        }
    }
    let expected = [
        (1_000_003, 2, Domain::Obj),
        (1_200_003, 2, Domain::Raw),
        (1_400_003, 2, Domain::Libc),
        (1_600_003, 2, Domain::Numpy),
        (1_800_000, 64, Domain::Arrow),
    ];
    for (base, step, domain) in expected {
        for index in 0..1000 {
            let size = base + index * step;
            assert_eq!(seen.get(&size).map(Vec::as_slice), Some(&[domain][..]), "{size} bytes for {domain:?}");
        }
    }
}

#[test]
fn touched_bytes_tell_a_used_array_from_an_unused_one() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let code = "import numpy\n\
                unused = numpy.empty(70000001, dtype=numpy.uint8)\n\
                used = numpy.empty(70000003, dtype=numpy.uint8); used.fill(1)\n\
                freed = numpy.zeros(70000005, dtype=numpy.uint8); freed[:1000000] = 1; del freed\n\
                seen = numpy.zeros(70000007, dtype=numpy.uint8); seen.max()";
    support::record(&support::options(folder.path(), &python, &["-c", code]));
    let (_, events) = support::read(&folder.path().join("test.trace"));
    let touched = |wanted: u64| {
        events.iter().find_map(|event| match event.kind {
            EventKind::Alloc { size, touched, domain: Domain::Numpy, .. } if size == wanted => touched,
            _ => None,
        })
    };
    const HUGE_PAGE: u64 = 2 << 20;
    assert!(touched(70_000_001).unwrap() <= HUGE_PAGE);
    assert_eq!(touched(70_000_003), Some(70_000_003));
    assert!((1_000_000..1_000_000 + 2 * HUGE_PAGE).contains(&touched(70_000_005).unwrap()));
    // What was only read stays the kernel's page of zeros, which it tells apart from 6.7 on.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = release.split('.').map_while(|part| part.parse::<u32>().ok());
    if (parts.next(), parts.next()) >= (Some(6), Some(7)) {
        assert!(touched(70_000_007).unwrap() <= HUGE_PAGE, "{:?}", touched(70_000_007));
    }
    let advised = events.iter().filter(|event| matches!(event.kind, EventKind::Advise { .. })).count();
    assert!(advised >= 3, "NumPy asks for huge pages from 4 MiB on");
}

#[test]
fn pages_that_were_present_before_are_unknown_unless_they_were_zeroed() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    // The blocks at the end keep the heap from giving the first ones back.
    let code = "import ctypes, numpy\n\
                ctypes.CDLL(None).pyalloc_mark(b'steady')\n\
                def new(make, size, count): return [make(size, dtype=numpy.uint8) for _ in range(count)]\n\
                untouched = new(numpy.empty, 40001, 100)\n\
                partly = new(numpy.empty, 40003, 100)\n\
                for x in partly: x[:12003] = 1\n\
                first = new(numpy.empty, 40005, 100)\n\
                for x in first: x.fill(1)\n\
                end = new(numpy.empty, 40005, 20)\n\
                for x in end: x.fill(1)\n\
                del first, x\n\
                again = new(numpy.empty, 39001, 40)\n\
                zeroed = new(numpy.zeros, 40007, 40)\n\
                for x in zeroed: x[:5000] = 1";
    support::record(&support::options(folder.path(), &python, &["-c", code]));
    let (metadata, events) = support::read(&folder.path().join("test.trace"));
    // What the start of the interpreter left free is used first.
    let most = |wanted: u64| {
        let mut found = BTreeMap::<_, usize>::new();
        for event in &events {
            if let EventKind::Alloc { size, touched, domain: Domain::Numpy, .. } = event.kind
                && size == wanted
            {
                *found.entry(touched).or_default() += 1;
            }
        }
        let (touched, count) = found.iter().max_by_key(|found| found.1).unwrap();
        assert!(*count * 10 > found.values().sum::<usize>() * 7, "{wanted}: {found:?}");
        *touched
    };
    assert_eq!(most(40_001), Some(0));
    assert_eq!(most(40_003), Some(12_016), "to 16 bytes");
    assert_eq!(most(40_005), Some(40_005));
    assert_eq!(most(39_001), None, "the pages of blocks before");
    assert_eq!(most(40_007), Some(5008), "the C library has zeroed the rest");
    let unknown = metadata.unknown_touch.unwrap()["steady"];
    assert!((28..150).contains(&unknown.blocks) && unknown.bytes >= 28 * 36_864, "{unknown:?}");
    assert!(!metadata.notes.iter().any(|note| note.contains("8 KiB")), "{:?}", metadata.notes);
}

/// Threads whose first use of Arrow's pool is an allocation, a resize or a free, and which end.
const THREADS: &str = "\
import threading, pyarrow
pool = pyarrow.mimalloc_memory_pool()
def allocate(_buffer):
    pyarrow.allocate_buffer(7000064, memory_pool=pool)
def resize(buffer):
    buffer.resize(7000128)
def free(buffer):
    kept.clear()
for work in (allocate, resize, free) * 4:
    kept = [pyarrow.allocate_buffer(7000000, memory_pool=pool, resizable=True)]
    thread = threading.Thread(target=work, args=(kept[0] if work is resize else None,))
    thread.start(); thread.join()
";

/// A thread's first use of the pool's thread-local variables makes the loader call `malloc` inside the pool; the
/// C library frees that block when the thread is over.
#[test]
fn threads_that_use_arrow_leave_no_unknown_free() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = support::record(&support::options(folder.path(), &python, &["-c", THREADS]));
    assert_eq!(report.exit_code, 0);
    let (_, converted) = report.images[0].trace.as_ref().unwrap();
    assert_eq!((converted.unknown_frees, converted.missed_frees, converted.lost_events), (0, 0, 0));

    let (_, events) = support::read(&folder.path().join("test.trace"));
    let (mut current, mut arrow, mut by_thread) = (0, BTreeMap::new(), [0; 3]);
    for event in &events {
        match event.kind {
            EventKind::ThreadSwitch { thread } => current = thread,
            EventKind::Alloc { slot, domain: Domain::Arrow, size, .. } => {
                arrow.insert(slot, current);
                by_thread[0] += usize::from(current != 0 && size == 7_000_064);
            }
            EventKind::Realloc { slot, size, .. } if arrow.contains_key(&slot) => {
                by_thread[1] += usize::from(current != 0 && size == 7_000_128);
            }
            EventKind::Free { slot } => {
                let is_foreign = arrow.remove(&slot).is_some_and(|owner| owner == 0 && current != 0);
                by_thread[2] += usize::from(is_foreign);
            }
            _ => {}
        }
    }
    assert_eq!(by_thread, [4, 4, 4], "requests by threads other than the main one");
}

#[test]
fn a_service_with_two_workers_is_recorded_under_load() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let folder = tempfile::tempdir().unwrap();
    let application = "import json\n\
                       def app(environ, start_response):\n    \
                       body = json.dumps([{'id': i, 'name': str(i)} for i in range(300)]).encode()\n    \
                       start_response('200 OK', [('Content-Length', str(len(body)))])\n    \
                       return [body]\n";
    std::fs::write(folder.path().join("service.py"), application).unwrap();
    let socket = folder.path().join("socket");
    let bind = format!("unix:{}", socket.display());
    let at = folder.path().to_str().unwrap();
    let arguments =
        ["-m", "gunicorn", "--workers", "2", "--bind", &bind, "--chdir", at, "--log-level", "error", "service:app"];
    let load = std::thread::spawn({
        let socket = socket.clone();
        move || {
            let answers = ask_service(&socket, 300);
            // SAFETY: signals this process, where the session passes it on to the program.
            unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
            answers
        }
    });
    let mut options = support::options(folder.path(), &python, &arguments);
    options.all = true;
    let report = support::record(&options);
    assert_eq!(load.join().unwrap(), 300, "every request was answered");
    assert_eq!(report.exit_code, 0, "gunicorn leaves with 0 after SIGTERM");
    let workers: Vec<_> = report.images.iter().filter(|image| image.is_forked && image.python.is_some()).collect();
    assert_eq!(workers.len(), 2, "{report}");
    for worker in workers {
        let (path, converted) = worker.trace.as_ref().unwrap();
        let (metadata, _) = support::read(path);
        assert!(metadata.totals.allocs > 0 && converted.lost_events == 0);
    }
}

/// Sends requests one after another; the number of good answers. Waits for the service at first.
fn ask_service(socket: &std::path::Path, requests: usize) -> usize {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let begin = std::time::Instant::now();
    let mut good = 0;
    while good < requests && begin.elapsed().as_secs() < 60 {
        let Ok(mut stream) = UnixStream::connect(socket) else {
            std::thread::sleep(std::time::Duration::from_millis(50));
            continue;
        };
        let mut answer = Vec::new();
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if asked.and_then(|()| stream.read_to_end(&mut answer)).is_ok() && answer.starts_with(b"HTTP/1.1 200") {
            good += 1;
        }
    }
    good
}
