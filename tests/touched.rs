//! Memory that a program asks for and never touches: recorded, replayed, and held against the real program.
#![allow(clippy::unwrap_used, reason = "tests")]

mod binary;
#[path = "../crates/recorder/tests/support/mod.rs"]
mod support;

use binary::{bench, output};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The allowance of `live` for one thread, and its least.
const SHARE_MAX: f64 = 0.03;
const BYTES_MAX: f64 = 512.0 * 1024.0;

const MARK: &str = "import ctypes\n\
                    mark = getattr(ctypes.CDLL(None), 'pyalloc_mark', lambda name: None)\n";

/// Records the program and runs it for real. Its predicted peaks have to be those of the real runs, and at most this
/// share of the bytes that it asks for.
fn peaks_are_real(python: &Path, code: &str, of_live: f64) {
    let folder = tempfile::tempdir().unwrap();
    let (program, trace) = (folder.path().join("program.py"), folder.path().join("app.trace"));
    fs::write(&program, format!("{MARK}{code}")).unwrap();
    let (status, _, said) = output(
        bench().args(["record", "-o"]).arg(&trace).arg("--").arg(python).arg(&program).env("PYTHONHASHSEED", "0"),
    );
    assert_eq!(status, 0, "{said}");
    let (metadata, _) = support::read(&trace);
    let asked = metadata.totals.live_bytes_peak as f64;

    let mut live = bench();
    live.arg("live").arg(&trace).args(["-c", "today", "-c", "PYTHONMALLOC=malloc", "--runs", "3", "--timings", "0"]);
    live.args(["--idle", "0", "--json", "-q", "--allow-debug-build", "--"]).arg(python).arg(&program);
    let (_, printed, said) = output(&mut live);
    let all: Value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {said}"));
    let rows = all["judgement"]["rows"].as_array().unwrap();
    let peaks: Vec<_> = rows.iter().filter(|row| row["what"] == "peak").collect();
    assert_eq!(peaks.len(), 2, "{printed}");
    for row in peaks {
        let (real, replayed) = (row["real"].as_f64().unwrap(), row["predicted"].as_f64().unwrap());
        assert!((replayed - real).abs() <= (real * SHARE_MAX).max(BYTES_MAX), "{row}");
        assert!(replayed <= asked * of_live, "{replayed} of {asked} bytes: {row}");
    }
}

#[test]
fn idle_deflate_contexts_touch_a_part_of_their_blocks() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    let code = "import zlib\n\
                mark(b'steady')\n\
                c = [zlib.compressobj(wbits=-15) for _ in range(300)]\n\
                n = sum(len(z.compress(b'hello %d' % i) + z.flush(zlib.Z_SYNC_FLUSH)) for i, z in enumerate(c))\n\
                mark(b'full'); del c\n\
                mark(b'drained')\n";
    peaks_are_real(&python.path, code, 0.5);
}

#[test]
fn arrays_that_are_zeroed_or_empty_are_resident_where_they_were_written() {
    let _one = support::one_at_a_time();
    let Some(python) = support::python_with_packages() else { return };
    let of = |work: &str| {
        format!("import numpy as np\nmark(b'steady')\na = []\n{work}\nmark(b'full')\ndel a\nmark(b'drained')\n")
    };
    let zeroed = of("for _ in range(1000): a.append(np.zeros(8000)); a[-1][0] = 1.0");
    peaks_are_real(&python, &zeroed, 0.9);
    for (written, of_live) in [(0, 0.3), (12_000, 0.6), (40_000, 1.2)] {
        let work = format!("for _ in range(1500): a.append(np.empty(40_000, np.uint8)); a[-1][:{written}] = 1");
        peaks_are_real(&python, &of(&work), of_live);
    }
}

#[test]
fn growing_buffers_are_resident_where_they_were_written() {
    let _one = support::one_at_a_time();
    let Some(python) = support::any_interpreter() else { return };
    // A buffer of the C library grows in place or moves; of its last size, 100 kB, a tenth is written.
    let code = "libc = ctypes.CDLL(None)\n\
                libc.realloc.restype = ctypes.c_void_p\n\
                libc.realloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]\n\
                libc.free.argtypes = [ctypes.c_void_p]\n\
                mark(b'steady')\n\
                kept = []\n\
                for _ in range(400):\n\
                \x20   block = libc.realloc(None, 9000)\n\
                \x20   ctypes.memset(block, 1, 9000)\n\
                \x20   block = libc.realloc(block, 50_000)\n\
                \x20   kept.append(libc.realloc(block, 100_000))\n\
                mark(b'full')\n\
                for block in kept: libc.free(block)\n\
                mark(b'drained')\n";
    peaks_are_real(&python.path, code, 0.5);
}
