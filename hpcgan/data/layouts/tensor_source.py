"""Samples of a file with one data set a tensor, as training and scoring read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcgan import weights
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema, sample_bytes
from hpcgan.data.source import WEIGHT, FileSource


class TensorSource(FileSource):
    """Samples of a file with one data set a tensor.

    Parameters
    ----------
    path : Path
    schema : Schema
        What it must hold.
    cache_mb : int
        As of `FileSource`.
    group : str
        Group of the data sets, `samples` unless a published layout has another.

    Raises
    ------
    InputError
        Missing or broken file, other tensors than the schema's.
    """

    def __init__(self, path: Path, schema: Schema, cache_mb: int = 1024, group: str = tensors.GROUP) -> None:
        self._schema, self._file = schema, tensors.open_tensors(path, schema, group)
        super().__init__(self._file, sample_bytes(schema), cache_mb)

    def _from_file(self, which: slice | np.ndarray) -> Sample:
        return self._file.read(which)

    def conditions(self) -> Sample:
        """Tensors with the role of a condition, of all samples."""
        return {name: self._file.column(name) for name, spec in self._schema.items() if spec.role == "condition"}

    def weights(self) -> np.ndarray | None:
        """The data set `weight` beside the tensors."""
        return weights.counting(self.raw_weights())

    def raw_weights(self) -> np.ndarray | None:
        """The same as it stands in the file, (N,) float64, even if all are equal; None where there is none."""
        return None if WEIGHT in self._schema else self._file.per_sample(WEIGHT)
