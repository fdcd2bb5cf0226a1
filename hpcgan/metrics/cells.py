"""Samples as rows of cells, on a scale that a classifier can work with. NumPy only, a leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cells:
    """Makes matrices of all cells of samples: arcsinh(x / size) / spread, tensor by tensor.

    Energies in cells span orders of magnitude. arcsinh is linear for cells far below `size`, logarithmic above,
    keeps signs, and leaves empty cells at zero.

    Attributes
    ----------
    size : dict of str to float
        Median magnitude of the reference's cells that are not zero, by tensor; 1 where all are.
    spread : dict of str to float
        Root mean square of arcsinh(x / size) over all cells of the reference; 1 where all are zero.
    """

    size: dict[str, float]
    spread: dict[str, float]

    @classmethod
    def of(cls, reference: Mapping[str, np.ndarray]) -> Cells:
        """The scale of a reference sample of real events.

        Parameters
        ----------
        reference : mapping of str to (n, ...) array
            Tensors of a sample in physical units.
        """
        size, spread = {}, {}
        for name, values in reference.items():
            filled = np.abs(values[values != 0])
            size[name] = float(np.median(filled)) if filled.size else 1.0
            squares = np.square(np.arcsinh(values / size[name]))
            spread[name] = float(np.sqrt(np.mean(squares, dtype=np.float64))) if filled.size else 1.0
        return cls(size, spread)

    def __call__(self, sample: Mapping[str, np.ndarray]) -> np.ndarray:
        """All cells of all tensors, (n, cells) float32, tensors in the order of the reference.

        Raises
        ------
        ValueError
            Values that are not finite.
        """
        parts = []
        for name, size in self.size.items():
            values = sample[name]
            scaled = np.arcsinh(values / size) / self.spread[name]
            if not np.all(np.isfinite(scaled)):
                raise ValueError(f"{name}: values that are not finite")
            parts.append(scaled.reshape(len(values), -1).astype(np.float32))
        return np.concatenate(parts, axis=1)
