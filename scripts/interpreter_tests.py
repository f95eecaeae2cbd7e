#!/usr/bin/env python3
"""CPython's own tests of 3.10 to 3.13, run without and under `record`: every test has to end in the same way.

Each module runs in two processes, one of them recorded, and the outcome of each test is compared. Where one differs,
the module's differing tests run three more times in either way, one process after the other. A difference counts when
no outcome is common to both ways, or when the test failed at least twice under `record` and never without it; any
other difference is listed as unsteady. What the hooks must hide is in HIDDEN, each with its reason.

Interpreters are those of --python, or one per version found on PATH, in pyenv's folder and below `target/`. An
interpreter needs its `test` package, which distributions package apart (Debian: libpython3.N-testsuite). Modules of
ALWAYS that its installation left out are those of the next older version that has them, or of the next newer one.

Exit code 1 when a difference counts that is not in HIDDEN, 2 when a version was not run.
"""

import argparse
import fnmatch
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

import shared

MINORS = (10, 11, 12, 13)
# Patterns for names of test modules; a version has those that it has.
MODULES = [
    "test_gc", "test_weakref", "test_json", "test_re", "test_sys", "test_capi", "test_ctypes", "test_mmap", "test_os",
    "test_tempfile", "test_signal", "test_faulthandler", "test_threading", "test_sqlite", "test_sqlite3",
    "test_subprocess", "test_asyncio", "test_concurrent_futures", "test_multiprocessing_*",
]
ALWAYS = [
    "test_concurrent_futures", "test_multiprocessing_fork", "test_multiprocessing_forkserver",
    "test_multiprocessing_spawn",
]
REPETITIONS = 3
FAILED_TIMES_MIN = 2
# Seconds that one test may take, and one module; tests that may end a module early, by a hang or a crash.
TEST_LIMIT_S = 180
MODULE_LIMIT_S = 1200
ENDLESS_MAX = 5
FOLDER = shared.TARGET / "check" / "interpreter-tests"
# Pattern for a test's name, and why its outcome under the recorder's hooks is another one.
HIDDEN = [
    (
        "test.test_sys.SysModuleTest.test_debugmallocstats",
        "`sys._debugmallocstats` prints pymalloc's statistics only where no hook wraps its allocators",
    ),
]

# Tests that are not run in either way, and why.
LEFT_OUT = [
    (
        "*.WithThreadsTestPool.test_terminate",
        "it waits five minutes for each thread that took a task before `terminate` was called",
    ),
]

# What makes a folder of test modules a package for the test runner.
PACKAGE = """import os
from test.support import load_package_tests

def load_tests(*arguments):
    return load_package_tests(os.path.dirname(__file__), *arguments)
"""

PASSED, FAILED, SKIPPED, ABSENT, ENDLESS = "passed", "FAILED", "skipped", "absent", "did not end"
# How a test announces itself before it runs: its name, and its class, to which newer versions add the name.
ANNOUNCED = re.compile(r"^(test\w*) \(([\w.]+)\)", re.MULTILINE)


class Interpreter:
    """A CPython with its tests."""

    def __init__(self, path):
        code = (
            "import sys, os, test.support as s; print(os.path.realpath(sys.executable)); print(sys.version_info[1]); "
            "print('%d.%d.%d' % sys.version_info[:3]); print(os.path.dirname(os.path.dirname(s.__file__)))"
        )
        done = subprocess.run([path, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        self.path, minor, self.version, tests = done.stdout.splitlines()
        self.minor, self.tests = int(minor), pathlib.Path(tests)
        names = {file.name.removesuffix(".py") for file in self.tests.glob("test_*")}
        self.modules = [name for pattern in MODULES for name in sorted(fnmatch.filter(names, pattern))]
        # Modules of another version, and the folder from which they are imported.
        self.borrowed, self.overlay = {}, None

    def borrow(self, others):
        """Takes what is missing from the next older version, or else a newer one; returns what nobody has."""
        missing = [name for name in ALWAYS if name not in self.modules]
        if not missing:
            return []
        self.overlay = FOLDER / self.version / "overlay"
        shutil.rmtree(self.overlay, ignore_errors=True)
        folder = self.overlay / "test"
        folder.mkdir(parents=True)
        for path in self.tests.iterdir():
            (folder / path.name).symlink_to(path)
        nearest = sorted(others, key=lambda other: (other.minor > self.minor, abs(other.minor - self.minor)))
        for name in missing:
            donor = next((other for other in nearest if name in other.modules and name not in other.borrowed), None)
            if donor is None:
                continue
            if (donor.tests / name).is_dir():
                (folder / name).symlink_to(donor.tests / name)
            else:
                # Newer versions take these names for folders.
                (folder / name).mkdir()
                (folder / name / "__init__.py").write_text(PACKAGE, encoding="utf-8")
                shutil.copy(donor.tests / f"{name}.py", folder / name / "test_all.py")
            self.borrowed[name] = donor.version
            self.modules.append(name)
        return [name for name in missing if name not in self.borrowed]


def candidates():
    """Programs that may be one of the interpreters, whether they run or not."""
    home = pathlib.Path.home()
    folders = [pathlib.Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions"
    folders += sorted(pyenv.glob("*/bin")) + sorted(shared.TARGET.glob("*/bin")) + sorted(shared.TARGET.glob("*/usr/bin"))
    return [folder / f"python3.{minor}" for minor in MINORS for folder in folders if "shims" not in folder.parts]


def interpreters(named):
    """The interpreters to run, oldest first, and a sentence for each version or module that does not run."""
    here, chosen, missing = {}, [], []
    for path in [path for path in candidates() if path.exists()]:
        try:
            interpreter = Interpreter(path)
            here.setdefault(interpreter.minor, interpreter)
        except (OSError, subprocess.CalledProcessError, ValueError):
            pass  # a program of that name without the tests
    for path in named or []:
        try:
            chosen.append(Interpreter(path))
        except (OSError, subprocess.CalledProcessError, ValueError):
            missing.append(f"{path} is no CPython with a `test` package. Install that package, or name another one.")
    if not named:
        chosen = list(here.values())
        missing += [f"no CPython 3.{minor} with a `test` package was found. Name one with --python."
                    for minor in MINORS if minor not in here]
    for interpreter in chosen:
        missing += [f"{name} of {interpreter.version}: neither it nor another version has this module."
                    for name in interpreter.borrow(here.values())]
    return sorted(chosen, key=lambda interpreter: interpreter.minor), missing


class Module:
    """One test module under one interpreter, and how its tests end in either way."""

    def __init__(self, program, interpreter, name):
        self.program, self.interpreter, self.name = program, interpreter, name
        self.folder = FOLDER / interpreter.version
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self, recorded, only=(), but=()):
        """Starts the tests, all or those with these names, without those in `but`; returns what `end` needs."""
        label = f"{self.name}-{'with' if recorded else 'without'}"
        report, log = self.folder / f"{label}.xml", self.folder / f"{label}.log"
        report.unlink(missing_ok=True)
        shutil.rmtree(self.folder / label, ignore_errors=True)
        (self.folder / label).mkdir()
        # A short path: sockets of the tests lie in it.
        place = tempfile.mkdtemp(prefix="pyt-")
        command = [self.interpreter.path, "-m", "test", "--junit-xml", report, "--timeout", str(TEST_LIMIT_S), "-v"]
        left_out = [pattern for pattern, _ in LEFT_OUT] + list(but)
        for option, names in (("--matchfile", only), ("--ignorefile", left_out)):
            if names:
                file = self.folder / f"{label}{option}"
                file.write_text("\n".join(names) + "\n", encoding="utf-8")
                command += [option, file]
        command.append(self.name)
        more = {"PYTHONPATH": str(self.interpreter.overlay)} if self.name in self.interpreter.borrowed else {}
        if recorded:
            command = [self.program, "record", "-o", self.folder / label / "tests.trace", "--", *command]
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, cwd=place, env=shared.recording_environment(TMPDIR=place, **more), stdin=subprocess.DEVNULL,
                stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )
        return process, report, label, place

    def end(self, started):
        """Waits; returns the outcome of each test by its name."""
        process, report, label, place = started
        try:
            code = process.wait(MODULE_LIMIT_S)
        except subprocess.TimeoutExpired:
            code = "more than its time"
        try:
            os.killpg(process.pid, signal.SIGKILL)  # the module's own session: what its tests left running
        except ProcessLookupError:
            pass
        process.wait()
        shutil.rmtree(place, ignore_errors=True)
        outcomes = read(report)
        outcomes[f"{self.name}: the process"] = f"ended with {code}"
        if label.endswith("-with"):
            outcomes[f"{self.name}: the recording"] = self.recording(label)
        return outcomes

    def finish(self, started, recorded, only):
        """As `end`. A test that ends the whole process, by a hang or a crash, is left out of another try."""
        outcomes, endless = self.end(started), {}
        while not any(map(is_test, outcomes)) and len(endless) < ENDLESS_MAX:
            log = self.folder / f"{self.name}-{'with' if recorded else 'without'}.log"
            announced = ANNOUNCED.findall(log.read_text(encoding="utf-8", errors="replace"))
            if not announced:
                break
            test, place = announced[-1]
            endless[place if place.endswith(f".{test}") else f"{place}.{test}"] = ENDLESS
            outcomes = self.end(self.start(recorded, only, sorted(endless)))
        return outcomes | endless

    def recording(self, label):
        """Whether there is a valid trace and nothing else; removes it."""
        traces = sorted((self.folder / label).glob("*.trace"))
        left = [path for path in (self.folder / label).iterdir() if path not in traces]
        said = PASSED if traces else "no trace"
        for trace in traces:
            done = subprocess.run([self.program, "trace", "validate", trace], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = f"invalid trace: {done.stderr.strip()}"
        for path in left:
            said = f"left {path.name}"
        shutil.rmtree(self.folder / label)
        return said

    def both(self, only=(), side_by_side=False):
        """Outcomes without and with the recorder."""
        ways = (False, True)
        if side_by_side:
            started = [self.start(recorded) for recorded in ways]
            return [self.finish(each, recorded, ()) for each, recorded in zip(started, ways)]
        return [self.finish(self.start(recorded, only), recorded, only) for recorded in ways]

    def repeat(self, names, without, with_it):
        """Runs the tests that differ again; returns those whose difference counts and those whose does not."""
        seen = {name: ([without.get(name, ABSENT)], [with_it.get(name, ABSENT)]) for name in names}
        # Names that are no test's, such as those of set-ups, select nothing: then the whole module runs.
        only = sorted(names) if all(is_test(name) for name in names) else ()
        for _ in range(REPETITIONS):
            for side, outcomes in enumerate(self.both(only)):
                for name in names:
                    seen[name][side].append(outcomes.get(name, ABSENT))
        counting, unsteady = {}, {}
        for name, (one, other) in seen.items():
            bad = {FAILED, ENDLESS}
            often = sum(outcome in bad for outcome in other) >= FAILED_TIMES_MIN and not bad & set(one)
            (counting if often or not set(one) & set(other) else unsteady)[name] = (one, other)
        return counting, unsteady


def is_test(name):
    return re.fullmatch(r"[\w.]+", name) is not None


def read(report):
    """Outcomes by test of a JUnit file; none when there is no file."""
    try:
        root = xml.etree.ElementTree.parse(report).getroot()
    except (OSError, xml.etree.ElementTree.ParseError):
        return {}
    outcomes = {}
    for case in root.iter("testcase"):
        tags = {child.tag for child in case}
        outcome = FAILED if tags & {"failure", "error"} else SKIPPED if "skipped" in tags else PASSED
        name = case.get("name")
        # One test may be named twice, by a subtest; the worse outcome is its own.
        outcomes[name] = FAILED if FAILED in (outcome, outcomes.get(name)) else outcome
    return outcomes


def differing(without, with_it):
    """Names whose outcomes differ. A process that failed because of its tests is no difference of its own."""
    names = {name for name in without.keys() | with_it.keys() if without.get(name) != with_it.get(name)}
    names = {name for name in names if not (name.endswith(": the recording") and with_it[name] == PASSED)}
    if any(is_test(name) for name in names):
        names = {name for name in names if not name.endswith(": the process")}
    return names


def reason(name):
    return next((why for pattern, why in HIDDEN if fnmatch.fnmatchcase(name, pattern)), None)


def counted(outcomes):
    tests = [outcome for name, outcome in outcomes.items() if ": the " not in name]
    failed = sum(outcome in (FAILED, ENDLESS) for outcome in tests)
    return [len(tests), tests.count(PASSED), failed, tests.count(SKIPPED)]


def run(program, interpreter, names):
    """All modules of one interpreter; the counts of both ways, the differences that count, modules without a test."""
    totals, unexplained, empty = [[0] * 4, [0] * 4], 0, []
    for name in [name for name in interpreter.modules if not names or name in names]:
        begun = time.monotonic()
        module = Module(program, interpreter, name)
        if name in interpreter.borrowed:
            print(f"  {name} is that of {interpreter.borrowed[name]}", flush=True)
        sides = module.both(side_by_side=True)
        for total, outcomes in zip(totals, sides):
            total[:] = [sum(pair) for pair in zip(total, counted(outcomes))]
        different = differing(*sides)
        counting, unsteady = module.repeat(different, *sides) if different else ({}, {})
        for test, (one, other) in sorted(counting.items()):
            why = reason(test)
            unexplained += why is None
            print(f"  {'DIFFERENT' if why is None else 'hidden'}: {test}: {outcomes_of(one)} without, "
                  f"{outcomes_of(other)} under record{'' if why is None else f' ({why})'}", flush=True)
        for test, (one, other) in sorted(unsteady.items()):
            print(f"  unsteady: {test}: {outcomes_of(one)} without, {outcomes_of(other)} under record", flush=True)
        without = counted(sides[0])
        shared.say(f"{interpreter.version} {name}: {without[0]} tests, {len(counting)} differ, "
                   f"{time.monotonic() - begun:.0f} s")
        if without[0] == 0:
            empty.append(f"{name} of {interpreter.version} ran no test. Read its logs in {module.folder}.")
    return totals, unexplained, empty


def outcomes_of(list_of_them):
    """`passed` for one outcome, `passed 3, FAILED 1` for several."""
    kinds = sorted(set(list_of_them))
    return kinds[0] if len(kinds) == 1 else ", ".join(f"{kind} {list_of_them.count(kind)}" for kind in kinds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="The head of this file has the rules.")
    parser.add_argument("--python", action="append", metavar="PY", help="an interpreter; may be given several times")
    parser.add_argument("--modules", nargs="+", metavar="NAME", help="only these test modules")
    parser.add_argument("--binary", metavar="FILE", help="record with this binary instead of building one")
    options = parser.parse_args()
    # A shell starts its background jobs with SIGINT ignored, which tests of SIGINT would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program = pathlib.Path(options.binary).resolve() if options.binary else shared.binary()
    found, missing = interpreters(options.python)
    rows, unexplained = [], 0
    for interpreter in found:
        print(f"CPython {interpreter.version} ({interpreter.path})", flush=True)
        totals, differences, empty = run(program, interpreter, options.modules)
        missing += empty
        rows.append((interpreter.version, *totals[0], *totals[1], differences))
        unexplained += differences
    head = ("version", "tests", "passed", "failed", "skipped", "tests", "passed", "failed", "skipped", "differ")
    print(f"{'':10}{'without':>32}{'under record':>32}")
    for row in [head, *rows]:
        print(f"{row[0]:10}" + "".join(f"{cell:>8}" for cell in row[1:]))
    if not rows or any(row[1] == 0 for row in rows):
        missing.append("an interpreter ran no test. Give --modules that it has.")
    for pattern, why in LEFT_OUT:
        print(f"left out: {pattern}: {why}")
    for sentence in missing:
        print(f"NOT RUN: {sentence}")
    print("MISSED" if unexplained else "met by what ran" if missing else "met")
    return 1 if unexplained else 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
