"""Samples of a file with one data set a tensor, as training and scoring read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcgan import weights
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema, sample_bytes
from hpcgan.data.source import WEIGHT, label, labels


class TensorSource:
    """Samples of a file with one data set a tensor.

    Parameters
    ----------
    path : Path
    schema : Schema
        What it must hold.
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.
    group : str
        Group of the data sets, `samples` unless a published layout has another.

    Raises
    ------
    InputError
        Missing or broken file, other tensors than the schema's.
    """

    def __init__(self, path: Path, schema: Schema, cache_mb: int = 1024, group: str = tensors.GROUP) -> None:
        self.path, self._schema = Path(path), schema
        self._file = tensors.open_tensors(self.path, schema, group)
        self._cacheable = self._file.n * sample_bytes(schema) <= cache_mb << 20
        self._cache: Sample | None = None

    def __len__(self) -> int:
        return self._file.n

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """All tensors, (n, *shape) float32 in physical units."""
        if self._cacheable and self._cache is None:
            self._cache = self._file.read()
        if self._cache is not None:
            return {name: values[indices] for name, values in self._cache.items()}
        return self._file.read(indices)

    def conditions(self) -> Sample:
        """Tensors with the role of a condition, of all samples."""
        return {name: self._file.column(name) for name, spec in self._schema.items() if spec.role == "condition"}

    def weights(self) -> np.ndarray | None:
        """The data set `weight` beside the tensors."""
        return weights.counting(self.raw_weights())

    def raw_weights(self) -> np.ndarray | None:
        """The same as it stands in the file, (N,) float64, even if all are equal; None where there is none."""
        return None if WEIGHT in self._schema else self._file.per_sample(WEIGHT)

    def labels(self) -> list[str]:
        """Data sets with one number a sample."""
        return labels(self._file)

    def label(self, name: str) -> np.ndarray:
        """One of them, (N,)."""
        return label(self._file, name)

    def close(self) -> None:
        """Close the file and drop the cache."""
        self._cache = None
        self._file.close()
