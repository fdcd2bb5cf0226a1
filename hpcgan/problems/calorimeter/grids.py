"""Grids with sides that are powers of two, in the middle of which the cells of a layer lie. No TensorFlow."""

from __future__ import annotations


def padded(cells: int) -> int:
    """The next power of two."""
    return 1 << (cells - 1).bit_length()


def margins(cells: int) -> tuple[int, int]:
    """Places before the first of so many cells and after the last."""
    before = (padded(cells) - cells) // 2
    return before, padded(cells) - cells - before
