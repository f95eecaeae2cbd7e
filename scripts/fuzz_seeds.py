"""Inputs that the fuzz targets begin with, made from files of this repository: none of them is kept in it."""

import json
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

import shared

# Longest seed: longer ones only slow the fuzzer down.
SEED_BYTES_MAX = 60_000
WORDS = [
    "today", "pool", "numpy=jemalloc arrow=system", "PYTHONMALLOC=malloc MALLOC_ARENA_MAX=2", "cpython:3.11",
    "GLIBC_TUNABLES=glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0", "pool-tuned", "python=pool libc=mimalloc",
    "MALLOC_CONF=background_thread:true,narenas:2 LD_PRELOAD=libjemalloc.so.2", "arrow=wheel:mimalloc",
    "PYALLOC_NUMPY=system",
    "MIMALLOC_PURGE_DELAY=0 ARROW_DEFAULT_MEMORY_POOL=mimalloc", "JE_ARROW_MALLOC_CONF=dirty_decay_ms:0",
]


def mutants():
    """Small traces that the example `mutate` of `crates/trace` makes of one by hand, a third of them valid."""
    build = ["cargo", "run", "--quiet", "-p", "trace", "--example", "mutate", "--", "1", "120"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*build, folder, "1"], cwd=shared.ROOT, check=True, stdout=subprocess.DEVNULL)
        return [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]


def texts():
    by_hand = (shared.ROOT / "crates/trace/examples/mutate/originals.rs").read_text(encoding="utf-8")
    documented = (shared.ROOT / "docs/TRACE_FORMAT.md").read_text(encoding="utf-8")
    found = re.findall(r'BY_HAND: &str = "\\\n(.*?)";', by_hand, re.DOTALL)
    return [text.encode() for text in found + re.findall(r"```trace\n(.*?)```", documented, re.DOTALL)]


def columns():
    """The columns of the example in docs/TRACE_FORMAT.md, and of a few calls with times and sites."""
    documented = [b"\x30\x09\x04\x01", b"\x02", b"\x00\x01", b"\x60\x41\x3f", b"", b"\x06", b"", b"\x02"]
    ages = [b"\x00\x03\x82\x08\x01\x01\x0a\x0d\x0e\x0f", b"\x02\x02\x02\x04", b"\x00\x01\xff", b"\x60\x41\x3f",
            b"\x01\x02", b"", b"\x04", b"\x02\x02\x02", b"\x02" * 10, b"\x00\x01\x00", b"\x00\x02"]
    packed = []
    for flags, made in ((0, documented), (7, ages)):
        packed.append(bytes([flags]) + b"".join(len(column).to_bytes(2, "little") + column for column in made))
    return packed


def metadata():
    made = []
    for cut in sorted((shared.WORKLOADS / "cuts").glob("*.trace")):
        file = cut.read_bytes()
        value = json.loads(file[16 : 16 + int.from_bytes(file[12:16], "little")])
        value["sites"] = value["sites"][:3]
        value["packages"] = dict(list(value["packages"].items())[:3])
        made.append(value)
    memory = {"rss_bytes": 9, "rss_anon_bytes": 5, "file_bytes": 1, "relocated_bytes": 1, "stack_bytes": 1}
    reading = {"mark": 1, "event": 0, "cpu_ns": 5, "wall_ns": 6, "memory": memory, "mapped_bytes": {"a.so": 4096}}
    made.append({**made[0], "mark_readings": [reading], "process": {"start": memory, "peak": memory, "end": None}})
    return [json.dumps(value).encode() for value in made]


def definitions():
    return [path.read_bytes() for path in sorted(shared.WORKLOADS.glob("*.toml"))]


def configs():
    entries = [f'[config.c{index}]\nwords = "{words}"\n' for index, words in enumerate(WORDS)]
    return ["".join(entries).encode(), *(entry.encode() for entry in entries)]


def results():
    """A quick result of a small trace, whole, and with each of its runs alone."""
    program = shared.binary()
    with tempfile.TemporaryDirectory() as folder:
        trace = pathlib.Path(folder) / "small.trace"
        cut = [program, "trace", "cut", "gc-cycles", "--events", "100", "-o", trace]
        subprocess.run(cut, cwd=shared.ROOT, check=True, capture_output=True)
        options = ["--quick", "--blocks", "2", "--idle", "0", "-c", "today", "-c", "mimalloc"]
        runs = [json.dumps(run) for run in shared.replay(program, folder, trace, *options)]
        environment = json.loads(next(pathlib.Path(folder).glob("*/environment.json")).read_text(encoding="utf-8"))
    lines = [json.dumps(environment), *runs]
    return [text.encode() for text in ("\n".join(lines), *(f"{lines[0]}\n{run}" for run in runs[:12]))]


def fidelity():
    made = []
    for path in sorted((shared.ROOT / "results" / "fidelity").glob("*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        for config in value["configs"]:
            config["real"], config["replayed"] = config["real"][:2], config["replayed"][:2]
        made.append(json.dumps({**value, "configs": value["configs"][:2]}).encode())
    return made


def documents():
    kinds = ["terminal", "table 'a b' --workload x", "versus -c today -c pool", "chart memory --width 700"]
    mark = "<!-- pyalloc-bench:begin {} -->\nold\n<!-- pyalloc-bench:end -->\n\n"
    return [("~~~\ncode\n~~~\n" + mark.format(kind) + "text\r\n").encode() for kind in kinds]


def libraries():
    """A small library with a symbol table, thread-local data and texts that are looked for."""
    if shutil.which("cc") is None:
        return [b"\x7fELF\x02\x01\x01"]
    source = (
        'const char a[] = "\\0mimalloc: error: \\0/etc/je_x_malloc.conf\\0<jemalloc>: ", v[] = "5.3.0-0-g54eaed1d8b56";\n'
        "__thread char room[600]; static int mi_version(void) { return 215; }\n"
        "void *je_x_mallctl(void) { return room; }\n"
        "int mi_malloc(void) { return mi_version() + a[0] + v[0]; }\n"
    )
    made = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "library.so"
        for options in (["-ftls-model=initial-exec"], ["-s"]):
            command = ["cc", "-shared", "-fPIC", "-nostdlib", "-Wl,-z,max-page-size=4096", *options]
            subprocess.run([*command, "-xc", "-", "-o", file], input=source, text=True, check=True, capture_output=True)
            made.append(file.read_bytes())
    return made


def kernel():
    names = ("smaps", "smaps_rollup", "status", "stat", "statm")
    read = [pathlib.Path("/proc/self", name).read_bytes() for name in names]
    # A line with a name would have the file opened.
    nameless = b"\n".join(line for line in read[0].split(b"\n") if b"/" not in line)
    return [nameless, *read[1:], b"1234 5678 91011 steady\n"]


def variables():
    pairs = [word.split("=", 1) for words in WORDS for word in words.split() if word.partition("=")[0].isupper()]
    return ["\n".join(pair).encode() for pair in pairs]


def logs():
    """A log of the recorder: a header that says little, and one chunk of one thread (crates/recorder/src/raw.rs)."""
    header = bytearray(4096)
    header[:8], header[40:48] = b"PYALREC2", struct.pack("<Q", 1)
    for records in ([(1, 1, 4096, 300000), (4, 2, 4096, 0)], [(2, 1, 64, 8), (5, 2, 64, 0), (6, 3, 96, 9), (13, 4, 0, 0)]):
        body = b"".join(
            struct.pack("<4Q", address | kind << 48, size | seq << 48, 0, seq * 7) for kind, seq, address, size in records
        )
        chunk = b"PYALCHNK" + struct.pack("<7Q", 1, 64 + len(body), 1, 0, 0, 0, 0)
        yield bytes(header) + chunk + body


SEEDS = {
    "reader": mutants, "image": mutants, "text": texts, "columns": columns, "metadata": metadata,
    "words": lambda: [words.encode() for words in WORDS], "configs": configs, "definition": definitions,
    "result": results, "fidelity": fidelity, "regions": documents, "elf": libraries, "kernel": kernel, "log": logs,
    "verify": variables,
}
