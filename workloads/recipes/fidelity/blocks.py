"""Blocks of one size, written in full and freed in random order but for a few: the pattern behind reports that memory
does not come back, and that one variable of the C library cured it. The size is an argument: 64K, 160K or 8M.

Ordinary work follows, so that what an allocator gives back within half a second is given back at `drained`.
"""

import argparse
import random

from pyalloc_mark import mark

UNITS = {"K": 1 << 10, "M": 1 << 20}
TOTAL = 320 << 20
ROUNDS = 3
kept, records = [], []  # what survives lives until the interpreter's exit


def size_of(text):
    return int(text[:-1]) * UNITS[text[-1]]


def ordinary_work(rng, steps):
    """Lines of some hundred bytes, above what Python's own pools serve; the last thousand of them are live."""
    lines = [""] * 1000
    for step in range(steps):
        lines[step % 1000] = f"{step:>{600 + rng.randrange(800)}}"
        lines[rng.randrange(1000)].split()


def main():
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n")[:2]))
    parser.add_argument("size", help="bytes of a block, such as 64K")
    size = size_of(parser.parse_args().size)
    rng = random.Random(20260206)
    payload = b"x" * size
    mark("steady")

    count = TOTAL // size
    for _ in range(ROUNDS):
        blocks = []
        for number in range(count):
            blocks.append(bytearray(payload))
            if number % 8 == 0:
                records.append(f"{number:>900}")
        rng.shuffle(blocks)
        kept.extend(blocks[: max(1, count // 200)])
        del kept[: -max(1, count // 80)]
        while blocks:
            blocks.pop()
    ordinary_work(rng, 800_000)
    mark("drained")
    print(f"blocks of {size}: {count} a round, {len(kept)} kept, {len(records)} records")


if __name__ == "__main__":
    main()
