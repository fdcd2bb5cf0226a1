"""Observables of a set of events, the score between two sets, a number with its error. NumPy only, a leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hpcgan.weights import counting, mean

#: Weights of real and of generated events, None where all count alike.
SidesWeights = tuple[np.ndarray | None, np.ndarray | None]
UNWEIGHTED: SidesWeights = (None, None)


@dataclass(frozen=True)
class Observable:
    """One quantity for a set of events: one value an event, or any number of them.

    Attributes
    ----------
    values : (n,) or (sum(counts),) array
        Values, event after event.
    counts : (n,) int array or None
        Number of values of each event; None means one each.
    unit : str
        Physical unit of the values, "" when dimensionless.
    blocks : (events,) int array or None
        Events with the same number are not independent of one another, those with different ones are; None means that
        all are.
    condition : bool
        What the events were asked for, one value an event: it says which events are compared, and is not compared.
    weights : (events,) float64 array or None
        How much each event counts, with either sign; None means that all count alike.
    """

    values: np.ndarray
    counts: np.ndarray | None = None
    unit: str = ""
    blocks: np.ndarray | None = None
    condition: bool = False
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.blocks is not None and len(self.blocks) != self.n_events:
            raise ValueError(f"{len(self.blocks)} blocks are given for {self.n_events} events")
        if self.weights is not None and len(self.weights) != self.n_events:
            raise ValueError(f"{len(self.weights)} weights are given for {self.n_events} events")
        if self.counts is None:
            return
        if self.condition:
            raise ValueError("a condition has one value an event")
        counts = np.asarray(self.counts, dtype=np.int64)
        if np.any(counts < 0) or np.any(counts != self.counts):
            raise ValueError("counts must be whole numbers, not negative")
        if int(np.sum(counts)) != len(self.values):
            raise ValueError(f"counts sum to {int(np.sum(counts))}, but there are {len(self.values)} values")
        object.__setattr__(self, "counts", counts)

    @property
    def n_events(self) -> int:
        """Number of events, those without a value included."""
        return len(self.values) if self.counts is None else len(self.counts)

    @cached_property
    def value_weights(self) -> np.ndarray | None:
        """Weight of each value, that of its event; None where all values count alike."""
        if self.weights is None or self.counts is None:
            return counting(self.weights)
        return counting(np.repeat(self.weights, self.counts))

    @property
    def has_distribution(self) -> bool:
        """Whether there are values, and their weights sum to more than zero."""
        weights = self.value_weights
        return len(self.values) > 0 and (weights is None or float(np.sum(weights)) > 0.0)

    @property
    def mean(self) -> float | None:
        """Mean of the values by their weights; None where there is no distribution."""
        return float(mean(self.values, self.value_weights)) if self.has_distribution else None

    def take(self, events: np.ndarray) -> Observable:
        """The observable of some of the events (integer indices), in the order given."""
        blocks = None if self.blocks is None else self.blocks[events]
        weights = None if self.weights is None else self.weights[events]
        counts, places = None, events
        if self.counts is not None:
            counts = self.counts[events]
            starts = (np.cumsum(self.counts) - self.counts)[events]
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            places = np.repeat(starts, counts) + within
        return Observable(self.values[places], counts, self.unit, blocks, self.condition, weights)

    @staticmethod
    def concatenate(parts: Sequence[Observable]) -> Observable:
        """Join the events of several sets, which have no blocks in common."""
        values = np.concatenate([p.values for p in parts])
        blocks = _renumbered([p.blocks for p in parts if p.blocks is not None])
        counts = None if parts[0].counts is None else np.concatenate([p.counts for p in parts if p.counts is not None])
        weights = None
        if any(p.weights is not None for p in parts):
            weights = np.concatenate([np.ones(p.n_events) if p.weights is None else p.weights for p in parts])
        return Observable(values, counts, parts[0].unit, blocks, parts[0].condition, weights)


def weighted(observables: Mapping[str, Observable], weights: np.ndarray | None) -> dict[str, Observable]:
    """The observables of events with these weights (n,), or without any."""
    return {name: dataclasses.replace(observable, weights=weights) for name, observable in observables.items()}


def weights_of(observables: Mapping[str, Observable]) -> np.ndarray | None:
    """Weights (n,) of the events; None where all count alike."""
    return counting(next(iter(observables.values())).weights)


def _renumbered(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Blocks of several sets, with numbers that differ from set to set."""
    renumbered: list[np.ndarray] = []
    start = 0
    for blocks in parts:
        numbers, inverse = np.unique(blocks, return_inverse=True)
        renumbered.append(inverse.reshape(-1) + start)
        start += len(numbers)
    return np.concatenate(renumbered) if renumbered else None


def check_rows(real: np.ndarray, fake: np.ndarray) -> None:
    """Refuse with a ValueError two samples, a row of features an event, that differ in the number of features."""
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(f"features of shape {real.shape} and {fake.shape} cannot be compared")


@dataclass(frozen=True)
class Estimate:
    """A measured value and its standard error, or what its function says the error is."""

    value: float
    error: float


@dataclass(frozen=True)
class Score:
    """A score and the parts it is the sum of; lower is better.

    Attributes
    ----------
    total : float
    parts : dict of str to float
    n : int
        Events on each side: a score is only comparable with scores at the same `n`.
    details : dict
        Further numbers worth recording (KS distances ...), JSON-able.
    """

    total: float
    parts: dict[str, float]
    n: int
    details: dict[str, Any] = field(default_factory=dict)
