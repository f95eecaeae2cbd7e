"""One benchmark of pyperformance as a program: its set-up, then its function so many times, in this process.

pyperf starts a process per value and decides itself how often to call; both are left out, since the question is what
memory the program holds. A benchmark with parts (`logging`, `pickle`) is told one of them last.
"""

import argparse
import os
import runpy
import sys
import time

import pyperf
import pyperformance

from pyalloc_mark import mark

FOLDER = os.path.join(os.path.dirname(pyperformance.__file__), "data-files", "benchmarks")


class Runner:
    """What benchmarks use of `pyperf.Runner`."""

    loops = 1
    has_begun = False

    def __init__(self, **_options):
        self.argparser = argparse.ArgumentParser()
        self.metadata = {}
        self.args = None

    def parse_args(self):
        self.args = self.argparser.parse_args()
        return self.args

    def begin(self):
        """Marks the first of a benchmark's functions."""
        if not self.has_begun:
            self.has_begun = True
            mark("steady")

    def bench_time_func(self, _name, function, *arguments, **_options):
        self.begin()
        function(self.loops, *arguments)

    def bench_func(self, _name, function, *arguments, **_options):
        self.begin()
        for _ in range(self.loops):
            function(*arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("benchmark")
    parser.add_argument("loops", type=int)
    parser.add_argument("parts", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    Runner.loops = options.loops
    pyperf.Runner = Runner
    program = os.path.join(FOLDER, f"bm_{options.benchmark}", "run_benchmark.py")
    sys.path.insert(0, os.path.dirname(program))
    sys.argv = [program, *options.parts]
    before = time.perf_counter()
    runpy.run_path(program, run_name="__main__")
    mark("drained")
    return time.perf_counter() - before


if __name__ == "__main__":
    print(f"{main():.1f} s")
