"""Events as rows of numbers, in units of how real events scatter: their observables, or all their cells.

NumPy only, a leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpcgan.metrics.observable import Observable

#: Largest values of an event that become features, of an observable with several values an event.
LEADING = 3


def columns(name: str, observable: Observable) -> dict[str, np.ndarray]:
    """Features of one observable, whose order within an event does not matter.

    One value an event is a feature as it stands. Any number of values (jets, pixels) become their number,
    mean, standard deviation and the `LEADING` largest in descending order: `NAME_count`, `NAME_mean`,
    `NAME_std`, `NAME_1`, `NAME_2` ... What an event lacks is zero.

    Returns
    -------
    dict of str to (n_events,) float64
    """
    values = np.asarray(observable.values, dtype=np.float64)
    if observable.counts is None:
        return {name: values}
    counts = observable.counts
    events = np.repeat(np.arange(len(counts)), counts)
    some = np.maximum(counts, 1)
    mean = np.bincount(events, values, minlength=len(counts)) / some
    spread = np.bincount(events, (values - mean[events]) ** 2, minlength=len(counts)) / some
    features = {f"{name}_count": counts.astype(np.float64), f"{name}_mean": mean, f"{name}_std": np.sqrt(spread)}
    descending = values[np.lexsort((-values, events))]
    first = np.cumsum(counts) - counts
    for rank in range(LEADING):
        has = counts > rank
        column = np.zeros(len(counts))
        column[has] = descending[first[has] + rank]
        features[f"{name}_{rank + 1}"] = column
    return features


@dataclass(frozen=True)
class Features:
    """Makes feature matrices of one layout and scale, those of a reference sample of real events.

    Attributes
    ----------
    names : tuple of str
        One a column.
    mean, scale : (d,) arrays
        Of the reference sample: features are (x - mean) / scale. The scale is the standard deviation; where that
        is zero, the size of the value, or 1.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, reference: Mapping[str, Observable]) -> Features:
        """The layout and scale for a reference sample.

        A varying column that repeats an earlier one in every reference event (a multiplicity that is an observable of
        its own, say) is left out. So are columns of an observable with several values an event that no reference
        event varies in: a number that is the same for all, places for more values than there ever are.

        Raises
        ------
        ValueError
            Fewer than two events, no observables, values that are not finite.
        """
        names: list[str] = []
        features: list[np.ndarray] = []
        for key, observable in reference.items():
            for name, column in columns(key, observable).items():
                varies = len(column) > 0 and bool(np.any(column != column[0]))
                if varies and any(np.array_equal(column, other) for other in features):
                    continue
                if varies or observable.counts is None:
                    names.append(name)
                    features.append(column)
        if not features:
            raise ValueError("no observable of these events makes a feature")
        matrix = _stack(names, features)
        if len(matrix) < 2:
            raise ValueError(f"{len(matrix)} events are too few for features")
        constant = np.all(matrix == matrix[0], axis=0)  # rounded, their standard deviation need not be 0
        mean = np.where(constant, matrix[0], matrix.mean(axis=0))
        size = np.where(mean == 0, 1.0, np.abs(mean))
        return cls(tuple(names), mean, np.where(constant, size, matrix.std(axis=0)))

    def __call__(self, observables: Mapping[str, Observable]) -> np.ndarray:
        """Feature matrix, (n_events, d) float64.

        Raises
        ------
        ValueError
            An observable is missing, or values are not finite; the message names it.
        """
        features: dict[str, np.ndarray] = {}
        for key, observable in observables.items():
            features.update(columns(key, observable))
        missing = [name for name in self.names if name not in features]
        if missing:
            raise ValueError(f"these events have no {', '.join(missing)}")
        return (_stack(self.names, [features[name] for name in self.names]) - self.mean) / self.scale


def _stack(names: list[str] | tuple[str, ...], columns: list[np.ndarray]) -> np.ndarray:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ValueError(f"observables of one set of events differ in length: {sorted(lengths)}")
    for name, column in zip(names, columns, strict=True):
        if not np.all(np.isfinite(column)):
            raise ValueError(f"{name}: values that are not finite")
    return np.stack(columns, axis=1)


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
