"""How diverse generated samples are beside real ones: what a mode collapse shows in first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, concatenate, take
from hpcgan.data.source import Source
from hpcgan.evaluation.score import Generate, conditions_of_batch
from hpcgan.problems.base import Problem
from hpcgan.weights import single_events

EVENTS = 128  # of each kind: 8128 pairs; a few hundredths of error, for a few batches of generated events


@dataclass(frozen=True)
class Diversity:
    """Distances among generated samples over those among as many real ones; 1 for a perfect generator.

    Attributes
    ----------
    pairs : float
        Ratio of the mean distances of all pairs: 0 when all samples are one.
    nearest : float
        Ratio of the mean distances to the nearest other sample: 0 also when there are several modes, each repeated.
    """

    pairs: float
    nearest: float


class DiversityMeter:
    """Compares the first generated events of an epoch with the first real ones of a split.

    The distance is the Euclidean one of encoded events over all tensors that a generator makes, each in units of the
    real events' root mean square distance in it, so it knows neither the problem nor its scale. Of weighted real events
    it takes some that are drawn by the absolute weight, none twice. Rank 0 makes and compares the events, whatever the
    number of ranks. Each has the conditions of the real event of its number.

    Parameters
    ----------
    problem : Problem
    source : Source
        Real events, in physical units.
    comm : Comm
    batch_size : int
        Samples that `generate` makes at a time.
    """

    def __init__(self, problem: Problem, source: Source, comm: Comm, batch_size: int) -> None:
        self._problem, self._comm = problem, comm
        chosen = single_events(source.weights(), len(source), seed=0, stream="diversity")[:EVENTS]
        self._events = len(chosen)
        conditions = take(source.conditions(), chosen) if problem.conditions else {}
        self._asked = [
            conditions_of_batch(conditions, index, batch_size, self._events)
            for index in range(-(-self._events // batch_size))
        ]
        self._units: dict[str, float] = {}
        self._real: Diversity | None = None
        if comm.is_root:
            flat = self._flat(source.read(chosen))
            self._units = {k: unit for k, x in flat.items() if (unit := float(np.sqrt(np.mean(_squared(x))))) > 0}
            self._real = self._means(flat)

    def __call__(self, generate: Generate, epoch: int) -> Diversity | None:
        """The diversity, on every rank; None where it has no meaning (real events that are all alike, say)."""
        ratios = None
        if self._comm.is_root and self._real is not None:
            sample = concatenate([generate(epoch, index, asks) for index, asks in enumerate(self._asked)])
            fake = self._means(self._flat(take(sample, slice(0, self._events))))
            if fake is not None:
                ratios = [fake.pairs / self._real.pairs, fake.nearest / self._real.nearest]
        ratios = self._comm.broadcast_json(ratios)
        return None if ratios is None else Diversity(*ratios)

    def _flat(self, sample: Sample) -> dict[str, np.ndarray]:
        """(n, cells) float64 of each tensor that a generator makes, encoded."""
        encoded = self._problem.encode(sample)
        return {
            name: encoded[name].reshape(len(encoded[name]), -1).astype(np.float64)
            for name, spec in self._problem.schema.items()
            if spec.role == "data"
        }

    def _means(self, flat: dict[str, np.ndarray]) -> Diversity | None:
        """Mean distances of pairs and to the nearest; None if they are not finite, or zero among real events."""
        if self._events < 2 or not self._units:
            return None
        squared = np.sum([_squared(flat[name]) / unit**2 for name, unit in self._units.items()], axis=0)
        distances = np.sqrt(squared)
        others = ~np.eye(len(distances), dtype=bool)
        pairs = float(distances[others].mean())
        nearest = float(np.where(others, distances, np.inf).min(axis=1).mean())
        if not np.isfinite([pairs, nearest]).all() or (self._real is None and nearest == 0):
            return None
        return Diversity(pairs, nearest)


def _squared(x: np.ndarray) -> np.ndarray:
    """(n, n) squared distances of the rows of (n, cells)."""
    centred = x - x.mean(axis=0)  # less to cancel
    norms = np.sum(centred**2, axis=1)
    return np.maximum(norms[:, None] + norms - 2.0 * centred @ centred.T, 0.0)
