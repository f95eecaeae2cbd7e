#!/usr/bin/env python3
"""SIGKILL at random moments, and what must hold afterwards. Six victims: the program that `record` records, `record`
itself, `replay`'s parent, the process that compiles its trace, its worker, and `live`'s parent.

* Every finished line of `runs.jsonl` is a run, and `report` opens the result or names what the folder lacks.
* A recording is a valid trace, or raw data from which `record --recover` makes one, or nothing.
* After the next command nothing is left that it does not name: no temporary file beside an output, nothing in the
  temporary folder, no link `latest` to a folder without runs.
* Two seconds after the kill no process is alive. `record` is the exception: its program runs on to its own end.
* Who survives a killed child says so, and ends by itself.

The seed is printed; --seed plays the same moments again, as far as the machine allows. Exit code 1 on any violation.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import ctypes
import json
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import shared

PR_SET_CHILD_SUBREAPER = 36
# How long processes may live on after a kill, and how long a survivor may take to end by itself.
AFTER_S = 2.0
END_S = 120
PROGRAM = """
import json, time
kept = []
for turn in range(30):
    kept.append([json.loads(json.dumps({"key": list(range(turn))})) for _ in range(60)])
    time.sleep(0.004)
"""
# No time is measured here, so that a debug build will do.
REPLAY = "--quick --blocks 1 --latency-runs 1 --footprint-runs 1 -c system -c pool --seed 1 --allow-debug-build".split()
# Idle milliseconds, and sleep of the program in seconds: the long ones outlast what a killed parent's child may live.
IDLE, IDLE_LONG = "0,60", "0,6000"
SLEEP_LONG = "time.sleep(6)\n"
# How much longer than the undisturbed command such a one may live before it is killed.
LONGER = 1.4
LIVE = "-c today -c nopool --runs 1 --predictions 1 --timings 1 --idle 0 --seed 1 --allow-debug-build".split()
RUN_FIELDS = {"schema", "seq", "block", "workload", "config", "pass", "outcome"}
# What a result's folder is called.
RESULT = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
# What no survivor may say of a killed child.
NO_WORDS = re.compile(r"panicked|Please report|RUST_BACKTRACE")


def children(pid):
    """Living children of a process, those of all its threads."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    return [child for child in found if state(child) not in "ZX"]


def state(pid):
    """The state letter of a process; `X` when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


def words_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def named(pid, verb):
    """The children of a process that run this hidden verb."""
    return [child for child in children(pid) if words_of(child)[1:2] == [verb]]


def kill(pid):
    """Whether there was somebody to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def reap():
    """Collects children that were handed to this process when their parent died."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass


class Scene:
    """A folder of its own, with what is run in it and what was found wrong."""

    def __init__(self, setting, moment):
        self.setting, self.moment = setting, moment
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=setting["base"]))
        self.temporary, self.results = self.folder / "tmp", self.folder / "results"
        self.temporary.mkdir()
        self.wrong = []

    def command(self, *arguments):
        return [self.setting["program"], *map(str, arguments)]

    def environment(self):
        return shared.recording_environment(TMPDIR=str(self.temporary), HOME=self.setting["home"])

    def start(self, *arguments):
        self.said = self.folder / "said"
        with open(self.said, "wb") as file:
            return subprocess.Popen(
                self.command(*arguments), cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=file,
            )

    def run(self, *arguments):
        """Runs a command to its end: its exit code, and all that it said."""
        try:
            done = subprocess.run(
                self.command(*arguments), cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=END_S, check=False,
            )
        except subprocess.TimeoutExpired:
            self.fail(f"`{arguments[0]}` did not end within {END_S} s")
            return -1, ""
        text = done.stdout.decode(errors="replace")
        if done.returncode < 0 or NO_WORDS.search(text):
            self.fail(f"`{arguments[0]}` ended with {done.returncode}: {text[-300:]}")
        return done.returncode, text

    def fail(self, what):
        self.wrong.append(what)

    def survivor(self, process, expected):
        """Waits for a process that outlives the kill; returns its exit code and its words."""
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.fail(f"the survivor did not end within {END_S} s")
            return -1, ""
        text = self.said.read_text(encoding="utf-8", errors="replace")
        if code not in expected or NO_WORDS.search(text):
            self.fail(f"the survivor ended with {code}: {text[-300:]}")
        return code, text

    def runs_on(self, pid):
        """That a program whose `record` was killed comes to its own end."""
        deadline = time.monotonic() + END_S
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                self.fail(f"the recorded program did not end within {END_S} s")
                return
            time.sleep(0.01)
        if ended[1] != 0:
            self.fail(f"the recorded program ended with {os.waitstatus_to_exitcode(ended[1])}")

    def nobody_alive(self):
        """That within two seconds all processes are gone."""
        deadline = time.monotonic() + AFTER_S
        while alive := children(os.getpid()):
            if time.monotonic() > deadline:
                for pid in alive:
                    self.fail(f"alive after {AFTER_S:.0f} s: {' '.join(words_of(pid)[:3])}")
                    kill(pid)
                break
            time.sleep(0.01)
        reap()

    def leftovers(self, said, known):
        """What lies in the folder that is neither known nor named by the last command."""
        inside = [path for path in self.temporary.rglob("*") if not path.is_dir() or not any(path.iterdir())]
        for path in [*self.folder.iterdir(), *inside]:
            if path not in (self.temporary, self.results, self.said) and path.name not in known | {"said", "tmp"}:
                if path.name not in said:
                    self.fail(f"left, and not named: {path.relative_to(self.folder)}")

    def check_results(self):
        """Looks at every result; returns what became of the newest."""
        if not self.results.exists():
            return "no result yet"
        became = "no result yet"
        for path in sorted(self.results.iterdir()):
            if path.is_symlink() or not RESULT.fullmatch(path.name):
                continue
            runs = path / "runs.jsonl"
            lines = runs.read_bytes().split(b"\n")[:-1] if runs.exists() else []
            for number, line in enumerate(lines):
                try:
                    run = json.loads(line)
                    assert RUN_FIELDS <= run.keys() and run["seq"] == number
                except (ValueError, AssertionError):
                    self.fail(f"line {number + 1} of runs.jsonl is no run: {line[:80]}")
            code, text = self.run("report", path)
            is_named = path.name in text
            if lines and code != 0:
                self.fail(f"`report` does not open {len(lines)} runs: {text[-200:]}")
            if not lines and not (is_named and (code != 0 or "0 runs" in text)):
                self.fail(f"`report` does not name the folder without runs: {text[-200:]}")
            became = "runs kept" if lines else "no run yet, named by report"
        latest = self.results / "latest"
        if latest.is_symlink():
            kept = latest / "runs.jsonl"
            if not kept.exists() or not kept.read_bytes():
                self.fail("`latest` leads to a folder without runs")
        for path in self.results.iterdir():
            if path != latest and not RESULT.fullmatch(path.name):
                self.fail(f"left in the folder of results: {path.name}")
        self.leftovers("", set())
        return became

    def runs_ok(self):
        """How many runs of the only result ended well."""
        lines = [line for path in self.results.glob("2*/runs.jsonl") for line in path.read_text().splitlines()]
        return sum("ok" in json.loads(line)["outcome"] for line in lines)

    def check_recording(self):
        """What is left of a recording, after the commands that a user is told of."""
        trace, said = self.folder / "a.trace", ""
        raw = sorted(self.folder.glob(".pyalloc-raw-*")) + sorted(self.temporary.glob(".pyalloc-raw-*"))
        became = "whole trace" if trace.exists() else "nothing left"
        for folder in raw:
            if not self.setting["recovers"]:
                self.fail("raw data is left, and this binary has no `record --recover`")
                shutil.rmtree(folder)
                continue
            code, text = self.run("record", "--recover", folder)
            said += text
            if code != 0:
                self.fail(f"`record --recover` ended with {code}: {text[-300:]}")
            if folder.exists():
                self.fail("`record --recover` leaves the folder of raw data")
            became = "recovered" if trace.exists() else "recovered: nothing in it"
        if trace.exists():
            code, text = self.run("trace", "validate", trace)
            if code != 0:
                self.fail(f"the trace is not valid: {text[-300:]}")
        code, text = self.run("record", "-o", self.folder / "next.trace", "--", "true")
        self.leftovers(said + text, {"a.trace", "next.trace"})
        return became

    def close(self):
        for pid in children(os.getpid()):
            kill(pid)
        reap()
        shutil.rmtree(self.folder, ignore_errors=True)


def recorded(scene):
    return scene.start("record", "-o", scene.folder / "a.trace", "--", sys.executable, "-S", "-c", PROGRAM)


def kill_program(scene):
    record = recorded(scene)
    deadline = time.monotonic() + scene.moment * scene.setting["record_s"]
    while not (found := children(record.pid)) and record.poll() is None:
        pass
    time.sleep(max(0.0, deadline - time.monotonic()))
    was_there = any([kill(pid) for pid in found if state(pid) not in "ZX"])
    code, said = scene.survivor(record, {0, 137})
    # A program that has reached its exit keeps its exit code, whatever is sent to it.
    if was_there and code == 0 and "finalising" not in said:
        scene.fail(f"the program was killed, and `record` ended with 0: {said[-300:]}")
    scene.nobody_alive()
    became = scene.check_recording()
    return f"{became}, exit {code}"


def kill_record(scene):
    record = recorded(scene)
    time.sleep(scene.moment * scene.setting["record_s"])
    program = [pid for pid in children(record.pid) if PROGRAM in words_of(pid)]
    record.kill()
    record.wait()
    # A program that is about to be started is not yet seen under its own words.
    program += [pid for pid in children(os.getpid()) if PROGRAM in words_of(pid)]
    for pid in set(program):
        scene.runs_on(pid)
    scene.nobody_alive()
    return scene.check_recording()


def replayed(scene, *more, idle=IDLE):
    return scene.start("replay", scene.setting["trace"], *REPLAY, "--idle", idle, *more, "-o", scene.results)


def kill_replay(scene):
    replay = replayed(scene, idle=IDLE_LONG)
    time.sleep(scene.moment * scene.setting["replay_s"] * LONGER)
    replay.kill()
    replay.wait()
    scene.nobody_alive()
    return scene.check_results()


def kill_child(scene, verb, replay, earliest):
    """Kills the first child of that kind that lives after this moment; returns what the parent made of it."""
    found = []
    while replay.poll() is None and not found:
        found = named(replay.pid, verb) if time.monotonic() >= earliest else []
    if verb == "compile":
        time.sleep(random.Random(scene.moment).uniform(0, scene.setting["compile_s"]))
    was_there = any([kill(pid) for pid in found if state(pid) not in "ZX"])
    code, text = scene.survivor(replay, {0, 1, 2})
    scene.nobody_alive()
    became = scene.check_results()
    if code != 0:
        if "SIGKILL" not in text or not was_there:
            scene.fail(f"the survivor ended with {code} and does not name the signal: {text[-300:]}")
        return f"noticed; {became}"
    # The signal came while the child was ending: then nothing may be missing.
    if scene.runs_ok() != scene.setting["runs"]:
        scene.fail(f"the survivor ended with 0, but {scene.runs_ok()} of {scene.setting['runs']} runs are well")
    return f"had ended already; {became}"


def kill_compile(scene):
    # Every other time the trace is streamed, so that the compiling process lives beside each worker.
    is_streamed = int(scene.moment * 1e9) % 2 == 1
    replay = replayed(scene, *(("--window-ops", "4096") if is_streamed else ()))
    wait = scene.moment * scene.setting["replay_s"] if is_streamed else 0
    return kill_child(scene, "compile", replay, time.monotonic() + wait)


def kill_worker(scene):
    return kill_child(scene, "worker", replayed(scene), time.monotonic() + scene.moment * scene.setting["replay_s"])


def live(scene, more=""):
    return scene.start("live", scene.setting["trace"], *LIVE, "-o", scene.folder / "a.json", "--",
                       sys.executable, "-S", "-c", PROGRAM + more)


def kill_live(scene):
    process = live(scene, SLEEP_LONG)
    time.sleep(scene.moment * scene.setting["live_s"] * LONGER)
    process.kill()
    process.wait()
    scene.nobody_alive()
    kept = scene.folder / "a.json"
    if not kept.exists():
        became, said = "nothing written", ""
    else:
        code, said = scene.run("live", "--kept", kept)
        became = "comparison kept"
        if code not in (0, 1):
            scene.fail(f"`live --kept` ended with {code}: {said[-300:]}")
    scene.leftovers(said, {"a.json"})
    return became


VICTIMS = {
    "program": kill_program, "record": kill_record, "replay": kill_replay, "compile": kill_compile,
    "worker": kill_worker, "live": kill_live,
}


def become_subreaper():
    """Orphans of killed parents become children of this process, where they can be counted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def one(victim, setting, moment):
    """One kill: what became of it, and what was wrong."""
    scene = Scene(setting, moment)
    try:
        became = VICTIMS[victim](scene)
        return victim, moment, became, scene.wrong
    finally:
        scene.close()


def prepare(program, base):
    """The trace, and how long undisturbed commands take."""
    home = base / "home"
    home.mkdir()
    trace = base / "given.trace"
    help_of_record = subprocess.run([program, "record", "--help"], capture_output=True, text=True, check=True).stdout
    setting = {
        "program": str(program), "base": str(base), "home": str(home), "trace": str(trace),
        "recovers": "--recover" in help_of_record,
    }
    scene = Scene(setting, 0)

    def timed(begin):
        begun = time.monotonic()
        process = begin()
        if process.wait(END_S) not in (0, 1):
            raise SystemExit(f"an undisturbed command failed: {scene.said.read_text()}")
        return time.monotonic() - begun

    setting["record_s"] = timed(lambda: recorded(scene))
    shutil.copy(scene.folder / "a.trace", trace)
    setting["replay_s"] = timed(lambda: replayed(scene))
    setting["runs"] = scene.runs_ok()
    setting["live_s"] = timed(lambda: live(scene))
    replay = replayed(scene)
    while not (found := named(replay.pid, "compile")) and replay.poll() is None:
        pass
    begun = time.monotonic()
    while found and state(found[0]) not in "ZX":
        pass
    setting["compile_s"] = time.monotonic() - begun
    replay.wait(END_S)
    scene.close()
    return setting


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="The head of this file has the rules.")
    parser.add_argument("--times", type=int, default=100, metavar="N", help="kills of each victim (default 100)")
    parser.add_argument("--only", nargs="+", choices=VICTIMS, metavar="VICTIM", help=f"of {', '.join(VICTIMS)}")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="seed of the moments (default: the clock)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="kills at a time (default 2)")
    parser.add_argument("--binary", metavar="FILE", help="kill this binary instead of building one")
    options = parser.parse_args()
    program = pathlib.Path(options.binary).resolve() if options.binary else shared.binary()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    chance, begun = random.Random(seed), time.monotonic()
    victims = options.only or list(VICTIMS)
    became = {victim: collections.Counter() for victim in victims}
    wrong, sentences = {victim: 0 for victim in victims}, collections.Counter()
    with tempfile.TemporaryDirectory(prefix="kills-") as base:
        setting = prepare(program, pathlib.Path(base))
        times = ", ".join(f"{name[:-2]} {setting[name]:.2f} s" for name in sorted(setting) if name.endswith("_s"))
        print(f"seed {seed}; undisturbed: {times}", flush=True)
        with concurrent.futures.ProcessPoolExecutor(
            options.jobs, multiprocessing.get_context("spawn"), become_subreaper
        ) as lanes:
            tasks = [lanes.submit(one, victim, setting, chance.uniform(0, 1.05))
                     for victim in victims for _ in range(options.times)]
            for number, task in enumerate(concurrent.futures.as_completed(tasks)):
                victim, moment, what, found = task.result()
                became[victim][what] += 1
                wrong[victim] += bool(found)
                for sentence in found:
                    # One of a kind is enough to read; all are counted.
                    kind = (victim, re.sub(r"\d+", "N", sentence))
                    sentences[kind] += 1
                    if sentences[kind] == 1:
                        print(f"VIOLATION {victim} at {moment:.9f}: {sentence}", flush=True)
                if number % 50 == 49:
                    shared.say(f"{number + 1} of {len(tasks)} kills")
        left = [path.name for path in pathlib.Path(setting["home"]).rglob("*") if re.search(r"\.(tmp|part)|~$", path.name)]
    print(f"{'victim':9}{'kills':>6}{'violations':>12}  what became of it")
    for victim in victims:
        what = "; ".join(f"{count} {kind}" for kind, count in became[victim].most_common())
        print(f"{victim:9}{sum(became[victim].values()):>6}{wrong[victim]:>12}  {what}")
    for (victim, kind), times in sentences.items():
        print(f"VIOLATION {victim}, {times} times: {kind.splitlines()[0]}")
    for name in left:
        print(f"VIOLATION left in the cache folder: {name}")
    print(f"{sum(map(sum, [b.values() for b in became.values()]))} kills, {time.monotonic() - begun:.0f} s")
    met = not any(wrong.values()) and not left
    print("met" if met else "MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
