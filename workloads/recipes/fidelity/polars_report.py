"""A report in Polars: lazy queries over generated events, joins, groups, sorts, windows; results as Python rows.

Polars takes its memory from a jemalloc of its own, linked into its library: what a recorder or a variable such as
LD_PRELOAD reaches is the Python side alone. That is what this program is here for.
"""

import argparse
import os

os.environ.setdefault("POLARS_MAX_THREADS", "2")

import polars as pl

from pyalloc_mark import mark


def events(rows, seed):
    """A frame of events, from ranges and hashes alone: the same on every run."""
    index = pl.int_range(rows, eager=True)
    return pl.DataFrame({"id": index}).with_columns(
        user=(index.hash(seed) % 20_000).cast(pl.Int64),
        amount=(index.hash(seed + 1) % 100_000) / 100.0,
        kind=pl.format("kind {}", index.hash(seed + 2) % 40),
        note=pl.format("event {} of {}", index.hash(seed + 3) % 9_999, index),
    )


def summarise(frame, users):
    """One day's figures by region and kind."""
    query = (
        frame.lazy()
        .filter(pl.col("amount") > 50.0)
        .join(users.lazy(), on="user", how="left")
        .with_columns(share=pl.col("amount") / pl.col("amount").sum().over("kind"))
        .group_by("region", "kind")
        .agg(pl.len().alias("count"), pl.col("amount").mean(), pl.col("share").max(), pl.col("note").first())
        .sort("region", "kind")
    )
    return query.collect()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    users = pl.DataFrame({"user": pl.int_range(20_000, eager=True)}).with_columns(
        region=pl.format("region {}", pl.col("user") % 61)
    )
    mark("steady")

    total, reports, rows = 0.0, [], []
    for day in range(max(1, int(14 * scale))):
        frame = events(250_000, day)
        report = summarise(frame, users)
        reports.append(report)
        rows.append(report.to_dicts())
        top = frame.sort("amount", "id", descending=True).head(2000)
        total += float(top["amount"].sum()) + float(report["count"].sum())
        if len(rows) > 6:
            del rows[0]
    everything = pl.concat(reports)
    kept = everything.filter(pl.col("region") == "region 7").to_dicts()
    del reports, rows, frame, report, top, everything
    mark("drained")
    print(f"polars_report {len(kept)} rows kept, checksum {total:.2f}")


if __name__ == "__main__":
    main()
