"""Twelve Python threads that each parse CSV with PyArrow, group, join and serialise what they read.

Seeded and fixed in amount: the work of each thread is the same on every run, its interleaving is the scheduler's.
`python threads_app.py [ROUNDS]`; marks its phases where the recorder listens.
"""

import io
import os
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "workloads", "recipes"))

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pyalloc_mark import mark

THREADS = 12
ROWS = 1500


def text(seed):
    """A CSV file of orders, made without a clock or a random device."""
    lines = ["order,shop,amount,note"]
    value = seed + 1
    for row in range(ROWS):
        value = value * 6364136223846793005 % (1 << 64)
        lines.append(f"{row},{value >> 50},{(value >> 40) % 10000 / 100},note-{value >> 54}")
    return "\n".join(lines).encode()


def work(seed, rounds, sums):
    data = text(seed)
    shops = pa.table({"shop": list(range(0, 1 << 14, 3)), "town": [f"town-{n % 37}" for n in range(0, 1 << 14, 3)]})
    total = 0.0
    for _ in range(rounds):
        table = csv.read_csv(io.BytesIO(data), read_options=csv.ReadOptions(block_size=16 << 10, use_threads=False))
        joined = table.join(shops, keys="shop", use_threads=False)
        groups = joined.group_by("town", use_threads=False).aggregate([("amount", "sum"), ("order", "count")])
        rows = groups.to_pylist()
        total += sum(row["amount_sum"] for row in rows)
        notes = pc.utf8_upper(table["note"]).to_pylist()
        total += sum(len(note) for note in notes)
    sums[seed] = round(total, 2)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sums = [0.0] * THREADS
    mark("steady")
    begun = time.perf_counter()
    threads = [threading.Thread(target=work, args=(seed, rounds, sums)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    mark("drained")
    print(f"{seconds:.6f} {sum(sums):.2f}")


if __name__ == "__main__":
    main()
