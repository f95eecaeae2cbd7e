"""A long-lived cache: entries of many sizes come and go by recency and by age for the whole life of a process.

Parsed documents, compressed pages and small records share one least-recently-used order with a budget of bytes. The
load moves through days and nights; after the last night the cache is cut to the entries that were asked for most.
"""

import argparse
import collections
import json
import random
import zlib

from pyalloc_mark import mark

BUDGET = 48 << 20
AGE_MAX = 90_000


class Cache:
    """Least recently used, bounded by bytes and age; the age is counted in requests."""

    def __init__(self):
        self.entries, self.size, self.now, self.hits = collections.OrderedDict(), 0, 0, 0

    def get(self, key, make):
        self.now += 1
        entry = self.entries.get(key)
        if entry is not None and self.now - entry["born"] < AGE_MAX:
            self.hits += 1
            entry["asked"] += 1
            self.entries.move_to_end(key)
            return entry["value"]
        value, size = make(key)
        if entry is not None:
            self.size -= entry["size"]
        self.entries[key] = {"value": value, "size": size, "born": self.now, "asked": 1}
        self.entries.move_to_end(key)
        self.size += size
        self.evict()
        return value

    def evict(self):
        while self.size > BUDGET:
            _, entry = self.entries.popitem(last=False)
            self.size -= entry["size"]

    def cut(self, asked):
        """Keeps what was asked for at least so often."""
        kept = [(key, entry) for key, entry in self.entries.items() if entry["asked"] >= asked]
        self.entries = collections.OrderedDict(kept)
        self.size = sum(entry["size"] for _, entry in kept)


def record(key):
    fields = {f"field{number}": f"{key}-{number * 7}" for number in range(6 + key % 9)}
    return fields, 1200 + 90 * (key % 9)


def page(key):
    text = f"page {key} ".encode() * (600 + key % 5000)
    return zlib.compress(text, 1) + bytes(key % 24_000), 12_000 + len(text) // 200


def document(key):
    rows = [{"id": row, "tags": [f"t{row % 11}", f"k{key % 101}"], "text": f"line {row}"} for row in range(20 + key % 90)]
    return json.loads(json.dumps(rows)), 520 * len(rows)


cache = Cache()  # lives until the interpreter's exit, as a service's does
MAKERS = (record, record, record, record, page, page, page, document)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = random.Random(20260205)
    mark("steady")

    for day in range(max(1, int(4 * scale))):
        for _ in range(8_000):
            key = int(40_000 * rng.random() ** 4) + day * 400
            cache.get(key, MAKERS[key % len(MAKERS)])
        for _ in range(2_000):  # a night: a few keys, again and again
            key = rng.randrange(300)
            cache.get(key, MAKERS[key % len(MAKERS)])
    peak = len(cache.entries)
    cache.cut(6)
    mark("drained")
    print(f"long_cache {peak} entries, {len(cache.entries)} kept, {cache.hits} hits of {cache.now}")


if __name__ == "__main__":
    main()
