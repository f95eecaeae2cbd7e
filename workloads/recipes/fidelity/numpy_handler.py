"""Particles and frames in NumPy, with the allocator of its array data to choose.

`PYALLOC_NUMPY` says what serves the arrays (see `pyalloc_numpy`); without it NumPy's own handler does, with its cache
of small blocks. A tracker predicts and corrects some hundred particles with arrays of a few numbers each, as code
does that was written for one object at a time: nearly all of its requests are below 1,024 bytes, where that cache
works. Beside it frames are filtered with temporaries of some hundred KiB, a volume of more than 4 MiB is rebuilt
every few steps, and tracks of uneven length pile up. Then the frames are dropped; thumbnails and every track's summary stay.

The module lies where `pyalloc-bench numpy-handler` has put it, on PYTHONPATH; `scripts/numpy-handler` does all of
that.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would add stacks and buffers, and no work

import numpy as np
import pyalloc_numpy

from pyalloc_mark import mark

STATE = 6


class Particle:
    """A small Kalman filter: position and velocity in space."""

    def __init__(self, rng):
        self.state = rng.standard_normal(STATE)
        self.spread = np.eye(STATE)
        self.track = []

    def step(self, motion, noise, seen):
        self.state = motion @ self.state
        self.spread = motion @ self.spread @ motion.T + noise
        gain = self.spread[:, :3] / (np.diag(self.spread)[:3] + 0.5)
        self.state = self.state + gain @ (seen - self.state[:3])
        self.spread = self.spread - gain @ self.spread[:3]
        self.track.append(self.state[:3].copy())

    def summary(self):
        track = np.array(self.track)
        lengths = np.sqrt((np.diff(track, axis=0) ** 2).sum(axis=1))
        return np.concatenate([track.mean(axis=0), track.std(axis=0), np.percentile(lengths, [5, 50, 95])])


def frame(rng, side):
    """A noisy frame and its smoothed gradient: temporaries as the obvious expressions make them."""
    image = rng.random((side, side), dtype=np.float32)
    soft = (image[1:-1, 1:-1] + image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]) / 5
    steep = np.hypot(np.diff(soft, axis=0)[:, :-1], np.diff(soft, axis=1)[:-1, :])
    return np.where(steep > steep.mean(), soft[:-1, :-1], 0).astype(np.float16)


def volume(rng, depth):
    """A stack that begins as zeros, is added to layer by layer and reduced: large enough for huge pages."""
    stack = np.zeros((depth, 512, 512), dtype=np.float32)
    tile = rng.random((512, 512), dtype=np.float32)
    for layer in range(depth):
        stack[layer] += tile * np.float32(layer + 1)
    return stack.max(axis=0)[::8, ::8]


def grown(rng, steps):
    """An array that is resized in place as data come in, then trimmed."""
    values, used = np.empty(64), 0
    for _ in range(steps):
        batch = rng.standard_normal(int(rng.integers(5, 60)))
        if used + batch.size > values.size:
            values.resize(values.size * 3 // 2 + batch.size, refcheck=False)
        values[used : used + batch.size] = batch
        used += batch.size
    values.resize(used, refcheck=False)
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    served = pyalloc_numpy.install() or "NumPy's own handler"
    rng = np.random.default_rng(20260607)
    steps = int(160 * scale)
    motion, noise = np.eye(STATE) + 0.1 * np.eye(STATE, k=3), 0.01 * np.eye(STATE)
    thumbnails = np.empty((steps // 8 + 1, 64, 64), dtype=np.float32)
    mark("steady")

    particles = [Particle(rng) for _ in range(120)]
    frames, samples = [], []
    for step in range(steps):
        for particle in particles:
            particle.step(motion, noise, rng.standard_normal(3))
        frames.append(frame(rng, int(rng.integers(120, 640))))
        samples.append(grown(rng, int(rng.integers(10, 60))))
        if step % 8 == 0:
            thumbnails[step // 8] = volume(rng, int(rng.integers(5, 24)))
        if step % 5 == 4:
            del frames[rng.integers(0, len(frames)) :: 3]
    summaries = [particle.summary() for particle in particles]
    total = sum(float(kept.mean()) for kept in frames) + sum(float(sample.std()) for sample in samples)
    del frames, samples, particles, particle
    mark("drained")
    total += float(thumbnails[: (steps + 7) // 8].sum()) + sum(float(row.sum()) for row in summaries)
    print(f"numpy_handler {len(summaries)} tracks, checksum {total:.4f}, arrays by {served}")


if __name__ == "__main__":
    main()
