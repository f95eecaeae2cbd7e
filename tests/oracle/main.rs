//! Holds `pypool` against the pool of the real CPython on every bundled workload: the requests of the mem and obj
//! domains, in their recorded order, whole recordings. How is in the folder that the test of `pypool` shares.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../crates/pypool/tests/oracle/comparison/mod.rs"]
mod comparison;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use libpython::Interpreter;
use libpython::oracle::Call;
use pyalloc_bench::workload::{Bundle, OpenTrace, Workload, trace_sentence};
use trace::Domain;
use trace::image::{ImageSink, Op, OpKind};

use comparison::{Comparison, Counts, Golden, Hashes, Mode, SHIFTS, Table, reported, start_for};
use pypool::Current;

/// Workloads that are compared at the same time.
const THREADS: usize = 2;

fn main() -> ExitCode {
    comparison::main("oracle", hold)
}

fn hold(mode: Mode, interpreters: &[Interpreter]) -> Result<(), String> {
    let bundle = Bundle::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads"));
    let mut workloads = bundle.all(false)?;
    if workloads.is_empty() || bundle.is_cuts_only() {
        return Err("The recordings are not there. Restore workloads/traces from git.".to_owned());
    }
    // Long ones first, so that the threads end together.
    workloads.sort_by_key(|workload| workload.promise.as_ref().map(|promise| promise.totals.events));
    let left = Mutex::new(workloads);
    let rows = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| work(&left, &rows, mode, interpreters))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|one: &(String, _, _), other| one.0.cmp(&other.0));
    let mut table = Table::default();
    rows.iter().for_each(|(workload, whose, counts)| table.row(workload, whose, *counts));
    print!("{table}");
    if mode == Mode::WriteGolden {
        println!("golden logs written");
    }
    Ok(())
}

type Row = (String, String, Counts);

/// Compares workloads until none is left.
fn work(
    left: &Mutex<Vec<Workload>>,
    rows: &Mutex<Vec<Row>>,
    mode: Mode,
    interpreters: &[Interpreter],
) -> Result<(), String> {
    let mut comparison = Comparison::new(start_for(interpreters, mode)?, mode != Mode::WriteGolden);
    loop {
        let Some(workload) = left.lock().unwrap().pop() else { return Ok(()) };
        let counts = hold_workload(&workload, &mut comparison, mode)?;
        let mut rows = rows.lock().unwrap();
        let whose = comparison.originals().iter().map(|original| original.interpreter.describe());
        for whose in whose.chain(mode.checks_golden().then(|| "golden log".to_owned())) {
            rows.push((workload.name.clone(), whose, counts));
        }
    }
}

fn hold_workload(workload: &Workload, comparison: &mut Comparison<Current>, mode: Mode) -> Result<Counts, String> {
    let name = &workload.name;
    let mut sink = CallSink { window: vec![0; 64 << 10], calls: Vec::new() };
    let mut trace = OpenTrace::open(&workload.source)?;
    trace::image::compile(trace.rewound()?, &mut sink)
        .map_err(|error| format!("{name}: {}", trace_sentence(&error)))?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.log"));
    let mut golden = Golden::open(path, mode)?;
    let mut counts = Counts::default();
    for (shift_bytes, alignment) in SHIFTS {
        let mut hashes = Hashes::new();
        let calls = reported(sink.calls.iter().copied());
        counts += comparison.hold(name, shift_bytes, calls, &mut |calls, replies| hashes.add(calls, replies))?;
        golden.settle(&format!("{alignment} arenas"), hashes.text())?;
    }
    let agreed: Vec<String> = comparison.originals().iter().map(|original| original.interpreter.describe()).collect();
    golden.close(&format!("The workload {name}, a hash every 4,096 calls of the mem and obj domains."), &agreed)?;
    Ok(counts)
}

/// Keeps the calls of an image that pymalloc gets.
struct CallSink {
    window: Vec<u64>,
    calls: Vec<Call>,
}

impl ImageSink for CallSink {
    fn window(&mut self) -> io::Result<&mut [u64]> {
        Ok(&mut self.window)
    }

    fn commit(&mut self, ops: usize) -> io::Result<()> {
        let of_pymalloc = |op: &Op| matches!(op.domain(), Some(Domain::Mem | Domain::Obj));
        let mut high_bytes = 0;
        for op in self.window[..ops].iter().map(|op| Op(*op)).filter(of_pymalloc) {
            let (slot, value) = (op.slot(), op.value() as usize);
            let bytes = high_bytes | value;
            self.calls.push(match op.kind() {
                OpKind::Alloc => Call::malloc(slot, bytes),
                OpKind::AllocZeroed => Call::calloc(slot, 1, bytes),
                OpKind::Realloc => Call::realloc(slot, bytes),
                OpKind::Free => Call::free(slot),
                OpKind::SizeHigh => {
                    // A prefix stands in the same window as what it qualifies.
                    high_bytes = value << 32;
                    continue;
                }
                OpKind::Touched | OpKind::OldTouched => continue,
                kind => return Err(io::Error::other(format!("{kind:?} in a domain of Python objects"))),
            });
            high_bytes = 0;
        }
        Ok(())
    }
}
