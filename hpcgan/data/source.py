"""Random access to the samples of one split, from disk with bounded memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hpcgan import rng, weights
from hpcgan.data.schema import Sample, Schema, conditions_of, take
from hpcgan.data.storage import DataFile

WEIGHT = "weight"
"""Data set with the weights of events, in every layout."""


class Source(ABC):
    """What the engine needs of a data set; by default samples have neither conditions nor weights nor labels."""

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

    def unused_weights(self) -> bool:
        """Whether the file has weights that its samples cannot have."""
        return False

    def labels(self) -> list[str]:
        """Names of the numbers that samples have besides, by which some may be selected."""
        return []

    def label(self, name: str) -> np.ndarray:
        """(N,) one of these numbers, of all samples; KeyError if there is none."""
        raise KeyError(name)

    @abstractmethod
    def close(self) -> None:
        """Release files and memory; nothing can be read afterwards."""


@runtime_checkable
class Dependent(Protocol):
    """What a source has besides, if its samples are not independent of one another."""

    def blocks(self, indices: np.ndarray) -> np.ndarray:
        """(n,) a number for each sample; those with different numbers are independent."""
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
        return conditions_of(self.read(np.arange(self._n)), self._schema)

    def close(self) -> None:
        self._samples = {}


class FileSource(Source):
    """Samples of one open file, whose columns are weights and labels.

    Parameters
    ----------
    file : DataFile
    sample_bytes : int
        Of a sample in memory.
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.
    """

    def __init__(self, file: DataFile, sample_bytes: int, cache_mb: int) -> None:
        self.path, self._file = file.path, file
        self._cacheable = file.n * sample_bytes <= cache_mb << 20
        self._cache: Any = None

    def __len__(self) -> int:
        return self._file.n

    def weights(self) -> np.ndarray | None:
        return weights.counting(self.raw_weights())

    def raw_weights(self) -> np.ndarray | None:
        """The weights as they stand in the file, (N,) float64, even if all are equal; None where there are none."""
        return self._file.per_sample(WEIGHT)

    def labels(self) -> list[str]:
        return [name for name in self._file.columns() if name != WEIGHT]

    def label(self, name: str) -> np.ndarray:
        values = self._file.per_sample(name)
        return super().label(name) if values is None else values

    def close(self) -> None:
        self._cache = None
        self._file.close()


class Subset(Source):
    """Some samples of a source, in their order.

    Parameters
    ----------
    source : Source
    numbers : (k,) int array
        Of the samples, in the source.
    weighted : bool
        Whether they have the weights of the source, or all count alike.
    weightless : int
        How many were left out because their weight is zero.
    """

    def __init__(self, source: Source, numbers: np.ndarray, weighted: bool = True, weightless: int = 0) -> None:
        self.path, self._source, self._numbers, self._weighted = source.path, source, numbers, weighted
        self.weightless = weightless

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        return self._source.read(self._numbers[indices], epoch)

    def conditions(self) -> Sample:
        return take(self._source.conditions(), self._numbers)

    def weights(self) -> np.ndarray | None:
        weights_of_all = self._source.weights() if self._weighted else None
        return None if weights_of_all is None else weights.counting(weights_of_all[self._numbers])

    def labels(self) -> list[str]:
        return self._source.labels()

    def label(self, name: str) -> np.ndarray:
        values: np.ndarray = self._source.label(name)[self._numbers]
        return values

    def close(self) -> None:
        self._source.close()


def matching(conditions: Sample, point: Mapping[str, float]) -> np.ndarray:
    """Which samples (n,) have all the values that a point names; conditions that it does not name may be any."""
    fits = np.ones(len(next(iter(conditions.values()))), bool)
    for name, value in point.items():
        values = conditions[name].reshape(len(fits), -1)
        fits &= (values == values.dtype.type(value)).all(axis=1)
    return fits
