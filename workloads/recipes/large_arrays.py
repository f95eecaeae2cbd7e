"""Large arrays: an imaging and sensor pipeline in NumPy.

Frames of mixed sizes pass through float temporaries, local filters, histograms and Fourier transforms; time series
grow by concatenation and are cut into windows, sorted and ranked; tiles of canvases that are reserved whole are
touched in part. Results pile up in a buffer that is then dropped, small statistics follow, and a thumbnail of every
frame stays to the end: small survivors between large blocks that are gone. BLAS is left out on purpose: its buffers
come from `mmap`, not from an allocator.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would add stacks and buffers, and no work

import numpy as np

from pyalloc_mark import mark


def frame(rng, side):
    """An image of random speckle on a gradient."""
    ramp = np.linspace(0.0, 1.0, side, dtype=np.float32)
    speckle = rng.random((side, side), dtype=np.float32)
    return (ramp[:, None] + ramp[None, :] + speckle) * np.float32(85.0)


def blur(image):
    """A five-point mean: one temporary per term, as the obvious expression makes them."""
    core = image[1:-1, 1:-1]
    return (core + image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:]) / np.float32(5.0)


def sharpen(image):
    soft = blur(image)
    core = image[1:-1, 1:-1]
    return np.clip(core + np.float32(0.7) * (core - soft), 0.0, 255.0)


def describe(image):
    """Edges, a histogram and the strongest frequencies of an image."""
    edges = np.hypot(np.diff(image, axis=0)[:, :-1], np.diff(image, axis=1)[:-1, :])
    counts, _ = np.histogram(image, bins=64)
    spectrum = np.abs(np.fft.rfft2(image[:256, :256]))
    strongest = np.argpartition(spectrum.ravel(), -8)[-8:]
    return float(edges.mean()), int(counts.argmax()), int(strongest.max())


def canvas(rng, tiles):
    """A reserved plane of which only some tiles are ever written: most of its pages stay untouched."""
    plane = np.zeros((tiles * 128, 2048), dtype=np.float32)
    scratch = np.empty((tiles * 128, 1024), dtype=np.float32)
    for tile in rng.integers(0, tiles, size=max(1, tiles // 6)):
        plane[tile * 128 : tile * 128 + 96] = float(tile)
        scratch[tile * 128 : tile * 128 + 32] = 1.0
    return float(plane[:: tiles * 8, ::512].sum())


def series(rng, steps):
    """A signal that grows by concatenation, then is smoothed, cut into windows, sorted and ranked."""
    signal = np.empty(0)
    for _ in range(steps):
        signal = np.concatenate([signal, np.cumsum(rng.standard_normal(1500))])
    windows = np.lib.stride_tricks.sliding_window_view(signal, 256)[::128]
    centred = windows - windows.mean(axis=1, keepdims=True)
    order = np.argsort(centred.std(axis=1))
    return np.sort(signal)[:: max(1, signal.size // 64)].copy(), int(order[0])


def statistics(rng, count):
    """Many small arrays: per-sensor readings of some KiB."""
    total = 0.0
    for length in rng.integers(128, 6000, size=count):
        readings = rng.standard_normal(int(length))
        kept = readings[np.abs(readings) < 2.0]
        ranks = np.argsort(kept)
        scaled = (kept - kept.min()) / (kept.max() - kept.min() + 1e-9)
        total += float(scaled[ranks[len(ranks) // 2]])
    return total


def mosaic(archive):
    """One large picture of everything that was kept; every page of it is written."""
    picture = np.full((3400, 3400), 64.0, dtype=np.float32)
    for number, image in enumerate(archive):
        row, column = number // 4 % 4 * 800, number % 4 * 800
        picture[row : row + image.shape[0], column : column + image.shape[1]] = image
    return float(picture.mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = np.random.default_rng(20260103)
    mark("steady")

    total, archive, thumbnails = 0.0, [], []
    sides = (96, 160, 256, 320, 448, 576, 704, 800)
    for step in range(int(72 * scale)):
        image = sharpen(frame(rng, sides[int(rng.integers(0, len(sides)))]))
        mean, bin_index, frequency = describe(image)
        archive.append(image.astype(np.uint8) if step % 6 else image)
        thumbnails.append(image[::4, ::4].copy())
        if step % 2 == 0 and step < 24:
            total += canvas(rng, int(rng.integers(8, 64)))
        if step % 5 == 0:
            quantiles, first = series(rng, int(rng.integers(20, 160)))
            total += float(quantiles.sum()) + first
        total += statistics(rng, 100) + mean + bin_index + frequency
        if step % 24 == 23:
            total += float(np.concatenate([np.ravel(kept)[:32768] for kept in archive]).mean())
            del archive[: len(archive) // 2]
    stack = np.concatenate([np.ravel(kept) for kept in archive])
    total += mosaic(archive)
    stack.sort()
    total += float(stack[:: max(1, stack.size // 100)].sum())
    kept = len(archive)
    del archive, stack, image, quantiles
    total += statistics(rng, int(2000 * scale))
    mark("drained")
    total += sum(float(thumbnail.mean()) for thumbnail in thumbnails)
    print(f"large_arrays {kept} of {len(thumbnails)} kept, checksum {total:.3f}")


if __name__ == "__main__":
    main()
