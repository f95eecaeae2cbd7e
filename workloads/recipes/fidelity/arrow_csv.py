"""Imports of CSV into Arrow by several Python threads at once, in rounds with fresh threads, as a loader service does.

Each thread parses files, casts and filters, and hands its tables over; the main thread joins them to one, sorts it,
keeps a column of it and drops the rest. Which thread takes which file is the scheduler's choice, as in life.
"""

import argparse
import os
import queue
import random
import tempfile
import threading

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from pyalloc_mark import mark

THREADS = 4
FILES = 12


def write_data(folder, rows):
    """CSV files of uneven length: the same lines with other accounts."""
    rng = random.Random(20260202)
    lines = []
    for row in range(rows):
        memo = f"invoice {rng.randrange(90_000)} of account" if row % 3 else ""
        lines.append(f"{row},A{rng.randrange(100):02},{rng.random() * 900:.2f},{('EUR', 'USD', 'JPY')[row % 3]},{memo}\n")
    paths = []
    for number in range(FILES):
        text = "".join(lines[rng.randrange(rows // 2) :]).replace("A", str(number))
        paths.append(os.path.join(folder, f"part-{number:02}.csv"))
        with open(paths[-1], "w", encoding="ascii") as file:
            file.write("id,account,amount,currency,memo\n" + text * (1 + number % 2))
    return paths


def load(path):
    """One file as a table: parsed in blocks, cleaned, its strings encoded as a dictionary."""
    table = csv.read_csv(path, read_options=csv.ReadOptions(use_threads=False, block_size=256 << 10))
    kept = table.filter(pc.greater(table["amount"], 45.0))
    memo = pc.utf8_upper(kept["memo"])
    kept = kept.set_column(kept.schema.get_field_index("memo"), "memo", memo)
    currency = pc.dictionary_encode(kept["currency"])
    return kept.set_column(kept.schema.get_field_index("currency"), "currency", currency)


def work(jobs, results):
    """A thread: a `None` ends it."""
    while (path := jobs.get()) is not None:
        results.put((path, load(path)))


def import_round(paths):
    """All files by fresh threads; their tables in the order of the files."""
    jobs, results = queue.Queue(), queue.Queue()
    threads = [threading.Thread(target=work, args=(jobs, results)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for job in [*paths, *[None] * THREADS]:
        jobs.put(job)
    for thread in threads:
        thread.join()
    found = dict(results.get() for _ in paths)
    return [found[path] for path in paths]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_data(folder, 16_000)
        mark("steady")

        total, history = 0, []
        for number in range(max(1, int(8 * scale))):
            tables = import_round(paths[number % 3 :])
            table = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries().combine_chunks()
            table = table.sort_by([("account", "ascending"), ("id", "ascending")])
            total += table.num_rows + pc.sum(table["account"]).as_py()
            history.append(table["amount"].combine_chunks().slice(0, 4096).to_numpy().copy())
            del tables, table
        mark("drained")
    total += int(sum(float(kept.sum()) for kept in history))
    print(f"arrow_csv pool {pa.default_memory_pool().backend_name}, checksum {total}")


if __name__ == "__main__":
    main()
