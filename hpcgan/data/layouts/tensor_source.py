"""Samples of a file with one data set a tensor, as training and scoring read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema, sample_bytes, take
from hpcgan.data.source import WEIGHT, FileSource


class TensorSource(FileSource):
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

    _file: tensors.TensorFile

    def __init__(self, path: Path, schema: Schema, cache_mb: int = 1024, group: str = tensors.GROUP) -> None:
        self._schema = schema
        super().__init__(tensors.open_tensors(path, schema, group), sample_bytes(schema), cache_mb)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """All tensors, (n, *shape) float32 in physical units."""
        if self._cacheable and self._cache is None:
            self._cache = self._file.read()
        return self._file.read(indices) if self._cache is None else take(self._cache, indices)

    def conditions(self) -> Sample:
        return {name: self._file.column(name) for name, spec in self._schema.items() if spec.role == "condition"}

    def raw_weights(self) -> np.ndarray | None:
        return None if WEIGHT in self._schema else super().raw_weights()
