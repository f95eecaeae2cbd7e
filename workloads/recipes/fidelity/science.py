"""A scientific job in NumPy and SciPy: linear algebra, sparse solves, filters and a small Markov chain.

Least squares and eigenvalues of dense matrices go through BLAS and LAPACK, whose work buffers come from `mmap` and not
from an allocator; sparse factorisations call `malloc` from C; the chain allocates many small arrays and keeps a few.
"""

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would add stacks and buffers, and no work

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.ndimage
import scipy.sparse
import scipy.sparse.linalg

from pyalloc_mark import mark


def regression(rng, rows, columns):
    """Least squares with residuals and leverage."""
    design = rng.standard_normal((rows, columns))
    truth = rng.standard_normal(columns)
    observed = design @ truth + 0.1 * rng.standard_normal(rows)
    orthogonal, triangle = scipy.linalg.qr(design, mode="economic")
    fitted = scipy.linalg.solve_triangular(triangle, orthogonal.T @ observed)
    leverage = np.einsum("ij,ij->i", orthogonal, orthogonal)
    return float(np.abs(observed - design @ fitted).max() + leverage.max())


def modes(rng, size):
    """Eigenvalues of a covariance."""
    sample = rng.standard_normal((size * 2, size))
    return float(scipy.linalg.eigvalsh(np.cov(sample, rowvar=False))[-1])


def diffusion(side, steps):
    """An implicit scheme on a grid: one sparse factorisation, many solves."""
    line = scipy.sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    eye = scipy.sparse.eye_array(side)
    operator = scipy.sparse.kron(line, eye) + scipy.sparse.kron(eye, line)
    solver = scipy.sparse.linalg.splu((scipy.sparse.eye_array(side * side) + 0.2 * operator).tocsc())
    state = np.zeros(side * side)
    state[side * side // 2] = 1.0
    for _ in range(steps):
        state = solver.solve(state)
    return float(state.max())


def volume(rng, side):
    """A noisy volume, smoothed, transformed, cut by a threshold and labelled."""
    field = rng.standard_normal((side, side, side))
    smooth = scipy.ndimage.gaussian_filter(field, 2.0)
    spectrum = scipy.fft.rfftn(smooth)
    spectrum[side // 4 :] *= 0.5
    labels, count = scipy.ndimage.label(scipy.fft.irfftn(spectrum, smooth.shape) > 0.02)
    return np.bincount(labels.ravel())[:200].copy(), count


def chain(rng, steps, keep):
    """A Metropolis walk; every accepted step is a new array, every `keep`-th of them stays."""
    point, kept, accepted = np.zeros(24), [], 0
    energy = float(point @ point)
    for step in range(steps):
        proposed = point + 0.2 * rng.standard_normal(24)
        new = float(proposed @ proposed)
        if new < energy or rng.random() < np.exp(energy - new):
            point, energy, accepted = proposed, new, accepted + 1
        if step % keep == 0:
            kept.append(point.copy())
    return kept, accepted


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="amount of work, 1.0 as recorded")
    scale = parser.parse_args().scale
    rng = np.random.default_rng(20260204)
    mark("steady")

    total, samples, shapes = 0.0, [], []
    for step in range(max(1, int(6 * scale))):
        total += regression(rng, 6000 + 1500 * (step % 3), 150) + modes(rng, 260)
        total += diffusion(90 + 15 * (step % 2), 12)
        sizes, count = volume(rng, 72 + 8 * (step % 4))
        shapes.append(sizes)
        kept, accepted = chain(rng, 15_000, 5)
        samples.extend(kept)
        total += count + accepted
    archive = np.array(samples)
    total += float(np.abs(np.cov(archive, rowvar=False)).sum())
    del samples, kept, sizes, archive
    mark("drained")
    print(f"science {len(shapes)} volumes, checksum {total:.4f}")


if __name__ == "__main__":
    main()
