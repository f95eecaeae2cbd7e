"""What the scripts of this folder have in common: where things are, and how the binary is called."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKLOADS = ROOT / "workloads"
RECIPES = WORKLOADS / "recipes"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RECORDED_PYTHON = "3.11"


def say(text):
    """Progress goes to standard error, so that tables and JSON can be piped."""
    print(text, file=sys.stderr, flush=True)


def binary():
    """The release binary, built when it is not up to date."""
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    return TARGET / "release" / "pyalloc-bench"


def interpreter(requirements=RECIPES / "requirements.txt", name="recipes-venv", programs=RECIPES):
    """A Python with these pinned requirements, in a virtual environment below `target/`; made once per list of pins."""
    folder = TARGET / name
    stamp = folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_text() == wanted):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        if version != RECORDED_PYTHON:
            say(f"note: this is Python {version}; the bundled traces were recorded with {RECORDED_PYTHON}")
        # The running interpreter's own executable: `python3` on PATH may be a shim that starts a shell first.
        subprocess.run([os.path.realpath(sys.executable), "-m", "venv", "--clear", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True
        )
        stamp.write_text(wanted)
    # A first import would compile this module, and a recording would hold the compiler's work.
    subprocess.run([python, "-c", "import pyalloc_mark"], cwd=programs, check=True)
    return python


def recipe(workload):
    """The program behind a bundled workload."""
    return RECIPES / f"{workload.replace('-', '_')}.py"


def recording_environment(**more):
    """The environment of a recording, and of a run that is compared with one: the needful, and a fixed hash seed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", **more}


def replay(program, folder, *arguments, timeout_s=900):
    """Runs `replay` into `folder`; returns the runs, one dictionary per line of `runs.jsonl`."""
    command = [program, "replay", *arguments, "-o", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    stored = sorted(pathlib.Path(folder).rglob("runs.jsonl"))
    if done.returncode != 0 or not stored:
        said = done.stderr.strip() or done.stdout.strip()
        raise SystemExit(f"`{' '.join(map(str, command))}` ended with {done.returncode}: {said}")
    with open(stored[-1], encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def mib(size_bytes):
    return size_bytes / (1 << 20)
