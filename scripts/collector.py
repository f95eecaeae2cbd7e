#!/usr/bin/env python3
"""The recorder leaves CPython's collector alone: `gc.get_stats()`, `gc.get_count()[0]` and the number of its objects when
a program ends, what the program printed and its exit code, without and under `record`.

The programs are those of `collector_programs.py`, the bundled recipes that need no package, and the interpreter's own
tests of --modules. Each runs five times without the recorder and --recorded times under it. A figure that is one number
in the five runs must be that number under `record`; another must lie in their range. What was printed, and the exit
code, must be those of one of the five runs; of what the tests printed only their counts are compared.

Then a plain run with a callback of the collector's, which keeps one object for each collection, stands for the
recording of the first program: this planted change must be found.

Exit code 1 when a figure differs or the planted change is not found, 2 when something was not run.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import shared
from collector_programs import PROGRAMS

PLAIN_RUNS = 5
PROGRAMS_FILE = pathlib.Path(__file__).resolve().parent / "collector_programs.py"
RECIPES = ["gc_cycles", "small_objects"]
MODULES = [
    "test_gc", "test_json", "test_re", "test_threading", "test_subprocess", "test_asyncio", "test_multiprocessing_fork",
]
# Tests of these use the clock and several threads or processes: their figures have a range.
LIMIT_S = 900
EQUAL, IN_RANGE, DIFFERS, NOT_RUN = "equal", "in range", "DIFFERS", "NOT RUN"
# Runs a program and writes the collector's figures to the file that is named first. It imports nothing that a run
# without it would not import before the program, and is the same in every run.
WRAPPER = """
import gc, os, runpy, sys
figures, is_planted, sys.argv = sys.argv[1], sys.argv[2] == "planted", sys.argv[3:]
marks = type(sys)("pyalloc_mark")
marks.mark = lambda name: None
sys.modules["pyalloc_mark"] = marks
kept = []
if is_planted:
    gc.callbacks.append(lambda phase, facts: kept.append([]) if phase == "stop" else None)
def run():
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    import unittest
    suite = unittest.defaultTestLoader.loadTestsFromName(sys.argv[0])
    with open(os.devnull, "w") as nowhere:
        result = unittest.TextTestRunner(stream=nowhere).run(suite)
    sys.__stderr__.write("COUNTS %d %d %d\\n" % (result.testsRun, len(result.failures), len(result.errors)))
try:
    run()
finally:
    stats, objects = gc.get_stats(), len(gc.get_objects())
    text = repr([[s["collections"] for s in stats], [s["collected"] for s in stats], gc.get_count()[0], objects])
    with open(figures, "w") as file:
        file.write(text.replace("(", "[").replace(")", "]"))
"""


class Run:
    """One run of a program: its figures by name, what it printed, its exit code."""

    def __init__(self, python, program, binary=None, is_planted=False):
        with tempfile.TemporaryDirectory(prefix="pyc-") as folder:
            figures, place = pathlib.Path(folder, "figures"), pathlib.Path(folder, "place")
            place.mkdir()
            word = "planted" if is_planted else "alone"
            command = [python, "-c", WRAPPER, figures, word, *program]
            if binary:
                command = [binary, "record", "-o", pathlib.Path(folder, "test.trace"), "--", *command]
            is_test = not program[0].endswith(".py")
            done = subprocess.run(
                command, cwd=place, env=shared.recording_environment(TMPDIR=str(place)), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=LIMIT_S, check=False,
            )
            counts = [line for line in done.stderr.splitlines() if line.startswith(b"COUNTS")]
            self.printed, self.code = counts if is_test else done.stdout, done.returncode
            self.said = done.stderr.decode(errors="replace")
            if not figures.exists():
                raise RuntimeError(f"{' '.join(program)} ended with {self.code}: {self.said.strip()[-300:]}")
            collections, collected, young, objects = json.loads(figures.read_text(encoding="utf-8"))
        self.figures = {
            **{f"collections {index}": number for index, number in enumerate(collections)},
            **{f"collected {index}": number for index, number in enumerate(collected)},
            "young": young, "objects": objects,
        }

    def __str__(self):
        row = list(self.figures.values())
        return f"collections {row[:3]} collected {row[3:6]} young {row[6]} objects {row[7]}"


def judged(plain, recorded):
    """How a recorded run stands to the plain ones, and what differs."""
    differences, is_in_range = [], False
    for name, number in recorded.figures.items():
        seen = [run.figures[name] for run in plain]
        is_in_range |= min(seen) != max(seen)
        if not min(seen) <= number <= max(seen):
            differences.append(f"{name} {number} for {range_of(seen)}")
    if recorded.printed not in [run.printed for run in plain]:
        differences.append("what it printed")
    if recorded.code not in [run.code for run in plain]:
        differences.append(f"exit code {recorded.code} for {plain[0].code}")
    return DIFFERS if differences else IN_RANGE if is_in_range else EQUAL, differences


def range_of(numbers):
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def programs(python, modules):
    """Name and command of each program of this interpreter; names of test modules that it has not."""
    found = [(program.__name__, [str(PROGRAMS_FILE), program.__name__]) for program in PROGRAMS]
    found += [(name, [str(shared.RECIPES / f"{name}.py")]) for name in RECIPES]
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec('test.' + n) is None])"
    done = subprocess.run([python, "-c", code, *modules], capture_output=True, text=True, check=True)
    absent = [name for name in modules if f"'{name}'" in done.stdout]
    found += [(name, [f"test.{name}"]) for name in modules if name not in absent]
    return found, absent


def check(python, binary, options):
    """All programs of one interpreter; the number that differ, and sentences about what was not run."""
    differ, missing = 0, []
    chosen, absent = programs(python, options.modules)
    missing += [f"{python} has no test.{name}. Name an interpreter that has it." for name in absent]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, program in chosen:
            try:
                plain = list(pool.map(lambda _: Run(python, program), range(PLAIN_RUNS)))
                recorded = list(pool.map(lambda _: Run(python, program, binary), range(options.recorded)))
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"  {name:<26} {NOT_RUN}", flush=True)
                missing.append(f"{name} under {python}: {error}. Run it by hand.")
                continue
            verdicts = [judged(plain, run) for run in recorded]
            worst = max((verdict for verdict, _ in verdicts), key=[EQUAL, IN_RANGE, DIFFERS].index)
            differ += worst == DIFFERS
            print(f"  {name:<26} {worst:<9} {recorded[0]}", flush=True)
            for difference in sorted({text for _, texts in verdicts for text in texts}):
                print(f"  {'':<26} {difference}", flush=True)
            if program is chosen[0][1]:
                verdict, differences = judged(plain, Run(python, program, is_planted=True))
                is_found = verdict == DIFFERS
                differ += not is_found
                print(f"  {name + ', planted':<26} {'found: ' + '; '.join(differences) if is_found else 'NOT FOUND'}")
    return differ, missing


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], epilog="The head of this file has the rules.")
    parser.add_argument("--python", action="append", metavar="PY", help="an interpreter [default: this one]")
    parser.add_argument("--modules", nargs="*", default=MODULES, metavar="NAME", help="test modules [default: seven]")
    parser.add_argument("--recorded", type=int, default=2, metavar="N", help="runs under `record` [default: 2]")
    parser.add_argument("--binary", metavar="FILE", help="record with this binary instead of building one")
    options = parser.parse_args()
    binary = pathlib.Path(options.binary).resolve() if options.binary else shared.binary()
    differ, missing = 0, []
    for python in options.python or [os.path.realpath(sys.executable)]:
        print(python, flush=True)
        found, sentences = check(python, binary, options)
        differ, missing = differ + found, missing + sentences
    for sentence in missing:
        print(f"NOT RUN: {sentence}")
    print("MISSED" if differ else "met by what ran" if missing else "met")
    return 1 if differ else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
