"""A nightly job in pandas: CSV files of sensor readings are cleaned, joined, summarised and written as Parquet.

Days are read one after the other; a week of them is kept and reshaped together, as a rolling report wants it. Strings
live in Arrow buffers, as pandas keeps them by default; numbers and dates live in NumPy arrays.
"""

import argparse
import os
import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa

from pyalloc_mark import mark

STATIONS = 250
WEEK = 5


def write_data(folder, days, rows):
    """One CSV file a day, the same readings from another one on; and the table of stations."""
    rng = np.random.default_rng(20260201)
    kinds = ("temperature", "humidity", "pressure", "wind speed", "rainfall")
    stations, choice = rng.integers(0, STATIONS, rows), rng.integers(0, len(kinds), rows)
    seconds, values = np.sort(rng.integers(0, 86_400, rows)), rng.normal(20.0, 7.0, rows)
    missing, lines = rng.random(rows) < 0.04, []
    for at in range(rows):
        moment = f"{seconds[at] // 3600:02}:{seconds[at] // 60 % 60:02}:{seconds[at] % 60:02}"
        value = "" if missing[at] else f"{values[at]:.3f}"
        comment = f"checked by crew {stations[at] % 17}" if at % 9 == 0 else ""
        lines.append(f"2026-03-01 {moment},st-{stations[at]:04},{kinds[choice[at]]},{value},{comment}\n")
    for day in range(days):
        text = "".join(lines[day * 700 :]).replace("2026-03-01", f"2026-03-{day + 1:02}")
        with open(os.path.join(folder, f"day-{day:02}.csv"), "w", encoding="ascii") as file:
            file.write("time,station,kind,value,comment\n" + text)
    names = [f"st-{number:04}" for number in range(STATIONS)]
    return pd.DataFrame({"station": names, "region": [f"region {n % 23}" for n in range(STATIONS)]})


def clean(frame):
    """Drops doubles, fills gaps by the station's own mean, adds what reports group by."""
    frame = frame.drop_duplicates(["time", "station", "kind"])
    filled = frame["value"].fillna(frame.groupby("station")["value"].transform("mean"))
    frame = frame.assign(value=filled, hour=frame["time"].dt.hour, comment=frame["comment"].fillna("none"))
    frame["label"] = frame["station"].str.upper().str.cat(frame["kind"], sep=" / ")
    return frame[frame["value"].between(-10.0, 50.0)]


def summary(frame, stations):
    """Per region and kind: a day's figures."""
    joined = frame.merge(stations, on="station", how="left")
    return joined.groupby(["region", "kind"])["value"].agg(["mean", "min", "max", "count"]).reset_index()


def rolling(week):
    """The last days side by side: hourly means by station, smoothed, and what stands out."""
    table = pd.concat(week, ignore_index=True)
    wide = table.pivot_table(index="station", columns=["kind", "hour"], values="value", aggfunc="mean")
    smooth = wide.T.rolling(3, min_periods=1).mean().T
    ranked = table.sort_values(["label", "time"], kind="stable")
    steps = ranked.groupby("label")["value"].diff().abs()
    return float(smooth.to_numpy(na_value=0.0).sum()) + float(steps.nlargest(200).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    pa.set_cpu_count(1)
    days = max(1, int(7 * scale))
    with tempfile.TemporaryDirectory() as folder:
        stations = write_data(folder, days, 30_000)
        mark("steady")

        total, week, reports = 0.0, [], []
        for day in range(days):
            frame = pd.read_csv(os.path.join(folder, f"day-{day:02}.csv"), parse_dates=["time"])
            frame = clean(frame)
            reports.append(summary(frame, stations))
            frame.to_parquet(os.path.join(folder, f"day-{day:02}.parquet"), index=False)
            week = [*week[-(WEEK - 1) :], frame]
            if day % 2 == 0:
                total += rolling(week)
        report = pd.concat(reports, keys=range(days))
        total += float(report["count"].sum())
        del week, frame, reports
        mark("drained")
    print(f"pandas_etl {len(report)} rows of report, checksum {total:.3f}")


if __name__ == "__main__":
    main()
