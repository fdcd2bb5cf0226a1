"""Distances to nearest neighbours in blocks of bounded memory. NumPy and SciPy only, a leaf."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.distance import cdist

from hpcgan.metrics.observable import check_rows

BLOCK_BYTES = 64 << 20
#: Columns up to which differences are taken before squaring. Beyond, a matrix product is much faster, and exact enough.
EXACT_COLUMNS = 128


def distance_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Euclidean distances of some rows of `x` at a time to all rows of `y`.

    With more than `EXACT_COLUMNS` columns they come from |x|^2 + |y|^2 - 2 x.y: good to 1e-7 of the size of the
    vectors, so that the distance of a copy is not exactly 0.

    Parameters
    ----------
    x, y : (n, d), (m, d) arrays

    Yields
    ------
    rows, distances : slice, (rows, m) float64 array

    Raises
    ------
    ValueError
        Numbers of columns differ.
    """
    check_rows(x, y)
    size = max(1, BLOCK_BYTES // (8 * max(len(y), x.shape[1], 1)))
    exact = x.shape[1] <= EXACT_COLUMNS
    if not exact:
        square_y = np.concatenate(
            [np.sum(np.square(y[i : i + size], dtype=np.float64), axis=1) for i in range(0, len(y), size)]
        )
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        if exact:
            yield rows, cdist(x[rows], y)
            continue
        block = x[rows].astype(np.float64)
        squares = np.sum(block**2, axis=1)[:, None] + square_y - 2.0 * (block @ y.T)
        yield rows, np.sqrt(np.maximum(squares, 0.0))


def neighbour_radius(x: np.ndarray, k: int) -> np.ndarray:
    """Distance of each row to its k-th nearest neighbour among the other rows.

    Parameters
    ----------
    x : (n, d) array
        n > k.
    k : int

    Returns
    -------
    (n,) float64 array
    """
    if len(x) <= k:
        raise ValueError(f"{len(x)} events have no {k} neighbours each")
    radius = np.empty(len(x))
    for rows, distances in distance_blocks(x, x):
        distances[np.arange(len(distances)), np.arange(rows.start, rows.stop)] = np.inf
        radius[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radius


def nearest_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance of each row of `x` to the nearest row of `y`, (n,) float64."""
    if not len(y):
        raise ValueError("no events to be near to")
    nearest = np.empty(len(x))
    for rows, distances in distance_blocks(x, y):
        nearest[rows] = distances.min(axis=1)
    return nearest
