"""A query service on PyArrow: several threads read Parquet, filter, join, aggregate, sort, and answer in Arrow IPC.

A month of orders is written as Parquet to a temporary folder; worker threads then take requests from a queue in
bursts. Replies of the busiest queries are cached. Which thread serves which request is the scheduler's choice, as in
life; the answers, and so the checksum, are the same on every run.
"""

import argparse
import collections
import os
import queue
import random
import tempfile
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pyalloc_mark import mark

DAYS = 12
SHOPS = 400
THREADS = 4
CACHE_ENTRIES = 24


def label(word, numbers):
    """Strings such as `word-17`."""
    return pc.binary_join_element_wise(word, pc.cast(pa.array(numbers), pa.string()), "-")


def write_data(folder, rows):
    """One Parquet file a day, and the table of shops that they refer to."""
    rng = np.random.default_rng(20260105)
    names = label("customer", np.arange(5000))
    for day in range(DAYS):
        table = pa.table(
            {
                "order": pa.array(np.arange(rows, dtype=np.int64) + day * rows),
                "shop": pa.array(rng.integers(0, SHOPS, rows, dtype=np.int32)),
                "customer": names.take(pa.array(rng.integers(0, 5000, rows))),
                "amount": pa.array(rng.gamma(2.0, 30.0, rows).round(2)),
                "note": pc.if_else(pa.array(rng.random(rows) < 0.3), label("note", rng.integers(0, 977, rows)), None),
            }
        )
        pq.write_table(table, os.path.join(folder, f"day-{day:02}.parquet"), row_group_size=rows // 4)
    shops = pa.table({"shop": pa.array(np.arange(SHOPS, dtype=np.int32)), "town": label("town", np.arange(SHOPS) % 37)})
    pq.write_table(shops, os.path.join(folder, "shops.parquet"))


class Service:
    """Answers requests; safe to call from several threads."""

    def __init__(self, folder):
        self.folder = folder
        self.shops = pq.read_table(os.path.join(folder, "shops.parquet"))
        self.cache = collections.OrderedDict()
        self.lock = threading.Lock()

    def day(self, day, columns):
        return pq.read_table(os.path.join(self.folder, f"day-{day:02}.parquet"), columns=columns)

    def answer(self, request):
        kind, day, threshold = request
        with self.lock:
            if request in self.cache:
                self.cache.move_to_end(request)
                return self.cache[request]
        reply = self.encode(getattr(self, kind)(day, threshold))
        with self.lock:
            self.cache[request] = reply
            if len(self.cache) > CACHE_ENTRIES:
                self.cache.popitem(last=False)
        return reply

    def encode(self, table):
        """An IPC stream, as it would go to a client."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4096)
        return sink.getvalue()

    def large_orders(self, day, threshold):
        table = self.day(day, ["order", "customer", "amount", "note"])
        return table.filter(pc.greater(table["amount"], threshold)).sort_by(
            [("amount", "descending"), ("order", "ascending")]
        )

    def by_shop(self, day, threshold):
        table = self.day(day, ["shop", "amount"])
        kept = table.filter(pc.greater(table["amount"], threshold / 4))
        return kept.group_by("shop").aggregate([("amount", "max"), ("amount", "count")]).sort_by("shop")

    def by_town(self, day, threshold):
        table = self.day(day, ["shop", "order", "amount"]).join(self.shops, "shop")
        return table.group_by("town").aggregate([("order", "min"), ("amount", "max")]).sort_by("town")

    def customers(self, day, threshold):
        pair = [self.day(day, ["customer", "amount"]), self.day((day + 1) % DAYS, ["customer", "amount"])]
        table = pa.concat_tables(pair).combine_chunks()
        best = (
            table.group_by("customer")
            .aggregate([("amount", "max")])
            .sort_by([("amount_max", "descending"), ("customer", "ascending")])
        )
        return best.slice(0, 500).append_column(
            "label", pc.binary_join_element_wise(best.slice(0, 500)["customer"], "best", "/")
        )

    def notes(self, day, threshold):
        """Some rows as Python objects, as JSON clients want them."""
        table = self.day(day, ["order", "note"]).slice(int(threshold) * 3, 250)
        lines = [f"{row['order']}: {row['note'].upper()}" for row in table.to_pylist() if row["note"]]
        return pa.table({"line": lines})


def requests(count):
    rng = random.Random(20260106)
    kinds = ("large_orders", "by_shop", "by_town", "customers", "notes")
    return [
        (rng.choice(kinds), int(rng.triangular(0, DAYS - 1, 2)), rng.choice((60, 90, 120, 200))) for _ in range(count)
    ]


def serve(service, jobs, results):
    """A worker thread: a `None` ends it. Replies are handed over and freed by the main thread."""
    while (job := jobs.get()) is not None:
        results.put(service.answer(job).size)


def burst(service, work):
    """A burst of requests by fresh threads; the sum of the sizes of the replies."""
    jobs, results = queue.Queue(), queue.Queue()
    threads = [threading.Thread(target=serve, args=(service, jobs, results)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for job in [*work, *[None] * THREADS]:
        jobs.put(job)
    for thread in threads:
        thread.join()
    return sum(results.get() for _ in work)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    pa.set_cpu_count(2)
    pa.set_io_thread_count(2)
    with tempfile.TemporaryDirectory() as folder:
        write_data(folder, 40_000)
        service = Service(folder)
        mark("steady")

        total, work = 0, requests(int(300 * scale))
        size = max(1, len(work) // 6)
        for start in range(0, len(work), size):
            total += burst(service, work[start : start + size])
        pool = pa.default_memory_pool().backend_name
        service.cache.clear()
        del service
        mark("drained")
    print(f"arrow_service pool {pool}, checksum {total}")


if __name__ == "__main__":
    main()
