"""Programs for `scripts/check collector`: `collector_programs.py NAME` runs one. Each makes objects of one kind.

No program uses the clock or the network, so that two runs of one differ in nothing but what watches them.
"""

import sys


class Node:
    def __init__(self, parent):
        self.parent, self.children, self.note = parent, [], {"n": 1}


def tree(depth, parent=None):
    node = Node(parent)
    if depth:
        node.children = [tree(depth - 1, node) for _ in range(4)]
    return node


def cycles():
    """Trees with links to parents, a quarter of which stays."""
    kept = [root for number in range(120) for root in [tree(4)] if number % 4 == 0]
    return len(kept)


def generators():
    def pairs(count):
        for number in range(count):
            yield number, (yield_one(number))

    def yield_one(number):
        return (each for each in [number, [number]])

    return sum(len(list(inner)) for _ in range(40) for _, inner in pairs(500))


def closures():
    def adder(number):
        held = [number]

        def add(more):
            held.append(add)
            return number + more

        return add

    return sum(adder(number)(1) for number in range(20000))


def exceptions():
    def fail(depth):
        if depth == 0:
            raise ValueError([depth])
        try:
            fail(depth - 1)
        except ValueError as error:
            raise KeyError(depth) from error

    count = 0
    for _ in range(2000):
        try:
            fail(5)
        except KeyError as error:
            count += error.__cause__ is not None
    return count


def dataclass():
    import dataclasses

    @dataclasses.dataclass
    class Row:
        name: str
        values: list = dataclasses.field(default_factory=list)

    rows = [Row(str(number), [number]) for number in range(20000)]
    return len([dataclasses.asdict(row) for row in rows[::4]])


def large_dicts():
    tables = [{(table, number): [number] for number in range(5000)} for table in range(12)]
    for table in tables[::2]:
        table.clear()
    return sum(map(len, tables))


def documents():
    import json

    text = json.dumps([{"id": number, "tags": [str(number)] * 3, "more": {"n": None}} for number in range(2000)])
    return sum(len(json.loads(text)) for _ in range(12))


def patterns():
    import re

    text = " ".join(f"key{number}=value{number};" for number in range(3000))
    found = [re.findall(rf"(key\d*{digit})=(\w+);", text) for digit in range(10)]
    return sum(len(match) for match in found)


def tasks():
    import asyncio

    async def work(depth):
        await asyncio.sleep(0)
        return 1 + (await work(depth - 1) if depth else 0)

    async def main():
        return sum(sum(await asyncio.gather(*[work(5) for _ in range(100)])) for _ in range(20))

    return asyncio.run(main())


def threads():
    """One thread after the other, since the interpreter switches between threads by time."""
    import threading

    done = []
    for _ in range(20):
        thread = threading.Thread(target=lambda: done.append(len(json_like(1500))))
        thread.start()
        thread.join()
    return sum(done)


def json_like(count):
    return [{"key": [number, [number]]} for number in range(count)]


def children():
    import subprocess

    code = "print([[n] for n in range(1000)][-1])"
    run = lambda: subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    return sum(len(run().stdout) + len(json_like(3000)) for _ in range(3))


def workers():
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        return sum(len(pool.apply(json_like, (2000,))) for _ in range(4))


def weak():
    import weakref

    nodes = [Node(None) for _ in range(5000)]
    ended = []
    for node in nodes:
        node.own = node
        weakref.finalize(node, ended.append, 1)
    del nodes, node
    return len(json_like(20000)) + len(ended)


def classes():
    made = [type(f"Kind{number}", (Node,), {"number": number}) for number in range(1500)]
    return sum(kind(None).number for kind in made)


PROGRAMS = [
    cycles, generators, closures, exceptions, dataclass, large_dicts, documents, patterns, tasks, threads, children,
    workers, weak, classes,
]

if __name__ == "__main__":
    print(next(program for program in PROGRAMS if program.__name__ == sys.argv[1])())
