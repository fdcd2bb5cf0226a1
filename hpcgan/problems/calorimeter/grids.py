"""Cells on other grids: amid grids with sides that are powers of two, or shared by overlap. No TensorFlow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def padded(cells: int) -> int:
    """The next power of two."""
    return 1 << (cells - 1).bit_length()


def margins(cells: int) -> tuple[int, int]:
    """Places before the first of so many cells and after the last."""
    before = (padded(cells) - cells) // 2
    return before, padded(cells) - cells - before


def overlap(old: ArrayLike, new: ArrayLike) -> NDArray[np.float64]:
    """Which part of each interval between edges is in each of those between other edges: (new, old)."""
    before, after = np.asarray(old, np.float64), np.asarray(new, np.float64)
    low = np.maximum(after[:-1, None], before[None, :-1])
    high = np.minimum(after[1:, None], before[None, 1:])
    return np.asarray(np.maximum(high - low, 0.0) / np.diff(before))


def equal_cells(n: int) -> NDArray[np.float64]:
    """Edges of so many equal intervals from 0 to 1."""
    return np.arange(n + 1) / n
