"""Symmetries of the data, as permutations of the cells of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hpcgan.data.schema import Sample


class Symmetries:
    """What a problem says of the symmetries of its data; by default that there are none."""

    name: ClassVar[str]
    #: Names of the symmetries that `permutations` knows.
    symmetries: ClassVar[Sequence[str]] = ()
    #: Those of them that are done or not, as a reflection is: below a draw of one half they are done.
    mirrors: ClassVar[Sequence[str]] = ()

    def permutations(self, symmetries: Sequence[str], draws: np.ndarray) -> dict[str, np.ndarray]:
        """Random symmetry operations of the data, as permutations of the cells of each tensor.

        Parameters
        ----------
        symmetries : sequence of str
            Those switched on, out of `self.symmetries`.
        draws : (n, len(self.symmetries)) float64
            Uniform numbers in [0, 1), one column for each of `self.symmetries`.

        Returns
        -------
        dict of str to (n, cells) int32
            For each tensor that changes: cell `j` of the flattened new sample is cell `[i, j]` of the old.
        """
        if symmetries:
            raise NotImplementedError(f"problem '{self.name}' has no symmetries")
        return {}

    def augment(self, sample: Sample, symmetries: Sequence[str], draws: np.ndarray) -> Sample:
        """Apply `permutations` to a batch."""
        changed = dict(sample)
        for name, order in self.permutations(symmetries, draws).items():
            flat = sample[name].reshape(len(order), -1)
            changed[name] = np.take_along_axis(flat, order, axis=1).reshape(sample[name].shape)
        return changed


def axis(cells: int, draws: np.ndarray, reflected: bool) -> np.ndarray:
    """Numbers of the cells along an axis, (n, cells) int32; if it may be reflected, it is where `draws` (n,) say so."""
    order = np.broadcast_to(np.arange(cells, dtype=np.int32), (len(draws), cells))
    return np.where(draws[:, None] < 0.5, cells - 1 - order, order) if reflected else order


def flattened(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Cells of images from those along either axis: (n, rows), (n, columns) -> (n, rows * columns)."""
    return (columns.shape[1] * rows[:, :, None] + columns[:, None, :]).reshape(len(rows), -1)
