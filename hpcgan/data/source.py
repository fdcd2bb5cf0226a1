"""Random access to the samples of one split, from disk with bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from hpcgan import rng, weights
from hpcgan.data.schema import Sample, Schema, conditions_of, take
from hpcgan.data.storage import DataFile

WEIGHT = "weight"
"""Data set with the weights of events, in every layout."""


class Source(ABC):
    """What the engine needs of a data set; by default without conditions, weights and other numbers."""

    path: Path

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Samples in physical units, in the order of `indices`; `epoch` matters to sources that draw."""

    def conditions(self) -> Sample:
        """Conditions of all samples, in physical units, without the data; empty where there are none."""
        return {}

    def weights(self) -> np.ndarray | None:
        """(N,) float64: how much each sample counts, with its sign; None where all count alike."""
        return None

    def labels(self) -> list[str]:
        """Names of the numbers that samples have besides, by which some may be selected."""
        return []

    def label(self, name: str) -> np.ndarray:
        """(N,) one of these numbers, of all samples; KeyError if there is none."""
        raise KeyError(name)

    @abstractmethod
    def close(self) -> None:
        """Release files; nothing can be read afterwards."""


class FileSource(Source):
    """Samples of one file.

    Parameters
    ----------
    file : DataFile
        Open; is closed with the source.
    sample_bytes : int
        Of a sample in memory.
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.
    """

    def __init__(self, file: DataFile, sample_bytes: int, cache_mb: int) -> None:
        self.path, self._data_file = file.path, file
        self._cacheable = file.n * sample_bytes <= cache_mb << 20
        self._cache: Sample | None = None

    def __len__(self) -> int:
        return self._data_file.n

    @abstractmethod
    def _from_file(self, which: slice | np.ndarray) -> Sample:
        """Some samples, as they stand in the file."""

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        if self._cacheable and self._cache is None:
            self._cache = self._from_file(slice(None))
        return self._from_file(indices) if self._cache is None else take(self._cache, indices)

    def weights(self) -> np.ndarray | None:
        return weights.counting(self._data_file.per_sample(WEIGHT))

    def labels(self) -> list[str]:
        return [name for name in self._data_file.columns() if name != WEIGHT]

    def label(self, name: str) -> np.ndarray:
        values = self._data_file.per_sample(name)
        return super().label(name) if values is None else values

    def close(self) -> None:
        self._cache = None
        self._data_file.close()


@runtime_checkable
class Dependent(Protocol):
    """What a source has besides, if its samples are not independent of one another."""

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        """(n,) a number for each sample; those with different numbers are independent."""
        ...


@runtime_checkable
class Unweighted(Protocol):
    """What a source has besides, if its file has weights that its samples cannot have."""

    def unused_weights(self) -> bool:
        """Whether there are such."""
        ...


class SyntheticSource(Source):
    """Random samples of a schema, for measuring speed without data: made once, kept in memory.

    Every entry is drawn from an exponential distribution of mean 1 (in the tensor's unit), so that it suits
    quantities that cannot be negative; conditions repeat after `POINTS` samples. The values mean nothing.

    Parameters
    ----------
    schema : Schema
    n : int
        Samples in an epoch. Only `DISTINCT` of them differ.
    seed : int
    """

    DISTINCT = 256
    POINTS = 4
    path = Path("synthetic data")

    def __init__(self, schema: Schema, n: int, seed: int) -> None:
        self._n, self._schema = n, schema
        count = min(n, self.DISTINCT)
        self._samples: Sample = {}
        for name, spec in schema.items():
            uniforms = rng.uniform(seed, f"synthetic/{name}", 0, 0, count, int(np.prod(spec.shape)))
            if spec.role == "condition":
                uniforms = uniforms[np.arange(count) % self.POINTS]
            self._samples[name] = (-np.log1p(-uniforms)).astype(spec.dtype).reshape(count, *spec.shape)

    def __len__(self) -> int:
        return self._n

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Samples by index modulo `DISTINCT`."""
        return {name: values[indices % len(values)] for name, values in self._samples.items()}

    def conditions(self) -> Sample:
        """Of all samples."""
        return conditions_of(self.read(np.arange(self._n)), self._schema)

    def close(self) -> None:
        """Drop the samples."""
        self._samples = {}


class Subset(Source):
    """Some samples of a source, in their order.

    Parameters
    ----------
    source : Source
    kept : (k,) int array
    weighted : bool
        Whether they have the weights of the source, or all count alike.
    weightless : int
        How many were left out because their weight is zero.
    """

    def __init__(self, source: Source, kept: np.ndarray, weighted: bool = True, weightless: int = 0) -> None:
        self.path, self._source, self._kept, self._weighted = source.path, source, kept, weighted
        self.weightless = weightless

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """Samples by their place among those that are kept."""
        return self._source.read(self._kept[indices], epoch)

    def conditions(self) -> Sample:
        """Of the samples that are kept."""
        return {name: values[self._kept] for name, values in self._source.conditions().items()}

    def weights(self) -> np.ndarray | None:
        """Of the samples that are kept."""
        weights_of_all = self._source.weights() if self._weighted else None
        return None if weights_of_all is None else weights.counting(weights_of_all[self._kept])

    def labels(self) -> list[str]:
        """Those of the source."""
        return self._source.labels()

    def label(self, name: str) -> np.ndarray:
        """Of the samples that are kept."""
        values: np.ndarray = self._source.label(name)[self._kept]
        return values

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def matching(conditions: Sample, point: Mapping[str, float]) -> np.ndarray:
    """Which samples (n,) have all the values that a point names; conditions that it does not name may be any."""
    fits = np.ones(len(next(iter(conditions.values()))), bool)
    for name, value in point.items():
        values = conditions[name].reshape(len(fits), -1)
        fits &= (values == values.dtype.type(value)).all(axis=1)
    return fits
