"""What is measured of a generator after an epoch of training, by all ranks together: physics score and diversity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, concatenate, no_samples, take
from hpcgan.data.source import Source
from hpcgan.evaluation.events import join
from hpcgan.metrics.ks import ks_score_by_point
from hpcgan.metrics.observable import Score, weighted
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.events import weights_of_first
from hpcgan.weights import single_events

#: Events of each kind whose diversity is compared: 8128 pairs, a few hundredths of error, for a few batches of events.
DIVERSITY_EVENTS = 128

#: Batch number `index` of generated samples for an epoch: (epoch, index, their conditions) -> samples; physical units.
Generate = Callable[[int, int, Sample], Sample]


@dataclass(frozen=True)
class EpochScores:
    """What the generator of an epoch scores.

    Attributes
    ----------
    score : Score
        The problem's.
    selection : Score or None
        The same sum over `scoring.quantities`, where these are set.
    """

    score: Score
    selection: Score | None = None


class Scorer:
    """Scores generated samples against the first `events` real ones of a split.

    Every rank makes and reconstructs its share; rank 0 compares. Generated events are a function of
    (seed, epoch, index), so the number of ranks does not change which events are compared. Each is asked for with the
    conditions of the real event of its number. Real events have their weights; a generated event has that of the real
    one whose conditions it was asked for, where there are conditions, and otherwise the weight 1.

    Parameters
    ----------
    problem : Problem
    source : Source
        Real events, in physical units.
    comm : Comm
    events : int
        Real and generated events each; a split with fewer is used as a whole.
    batch_size : int
        Samples that `generate` makes at a time.
    samples : int
        Generated samples whose scores are averaged: a single one may be lucky.
    quantities : sequence of str, optional
        What selects epochs instead of the score: names of observables, or of more observables.

    Raises
    ------
    InputError
        The weights of the real events do not sum to more than zero.
    """

    def __init__(
        self,
        problem: Problem,
        source: Source,
        comm: Comm,
        events: int,
        batch_size: int,
        samples: int = 1,
        quantities: Sequence[str] | None = None,
    ) -> None:
        self._problem, self._comm, self._batch, self._samples = problem, comm, batch_size, samples
        self._quantities = quantities
        self._more = [name for name in quantities or [] if name in problem.more_quantities]
        self.events = min(events, len(source))
        self._conditions = source.conditions() if problem.conditions else {}
        self._weights = weights_of_first(source, self.events)
        share = np.array_split(np.arange(self.events), comm.size)[comm.rank]
        starts = range(0, max(1, len(share)), 512)
        real = gather_observables(join([self._measure(source.read(share[i : i + 512])) for i in starts]), comm)
        self._real = None if real is None else weighted(real, self._weights)

    def __call__(self, generate: Generate, epoch: int) -> EpochScores:
        """The scores, on every rank; means over `samples` disjoint generated samples."""
        batches = -(-self.events // self._batch)
        scores = [self._score(generate, epoch, i * batches, batches) for i in range(self._samples)]
        means = _means(scores) if self._comm.is_root else None
        score, selection = self._comm.broadcast_json(means)
        return EpochScores(Score(**score), None if selection is None else Score(**selection))

    def _measure(self, sample: Sample) -> Observables:
        """The observables of a sample, and those of its more observables that are wanted."""
        observables = self._problem.observables(sample)
        return observables | self._problem.more_observables(sample, self._more) if self._more else observables

    def _score(self, generate: Generate, epoch: int, first: int, batches: int) -> EpochScores | None:
        """The scores of one sample, batches first ... first + batches - 1, on rank 0."""
        share = np.array_split(np.arange(batches), self._comm.size)[self._comm.rank]
        pieces = []
        for index in share.tolist():
            sample = generate(
                epoch, first + index, conditions_of_batch(self._conditions, index, self._batch, self.events)
            )
            rest = self.events - index * self._batch
            pieces.append(self._measure(take(sample, slice(0, rest))))
        if not pieces:
            pieces = [self._measure(no_samples(self._problem.schema))]
        fake = gather_observables(join(pieces), self._comm)
        if self._real is None or fake is None:
            return None
        fake = weighted(fake, self._weights) if self._conditions else fake
        own_real, own_fake = ({k: o for k, o in side.items() if k not in self._more} for side in (self._real, fake))
        selection = None if self._quantities is None else ks_score_by_point(self._real, fake, self._quantities)
        return EpochScores(self._problem.score(own_real, own_fake), selection)


def conditions_of_batch(conditions: Sample, index: int, batch_size: int, events: int) -> Sample:
    """Conditions of the whole batch number `index` out of those of `events`; what is beyond the last starts over."""
    return take(conditions, (index * batch_size + np.arange(batch_size)) % events)


def _means(scores: Sequence[EpochScores | None]) -> list[dict[str, Any] | None]:
    """Averages over samples of the score and of the selection."""
    of_samples = [score for score in scores if score is not None]
    selections = [score.selection for score in of_samples if score.selection is not None]
    return [_mean([score.score for score in of_samples]), _mean(selections) if selections else None]


def _mean(scores: list[Score]) -> dict[str, Any]:
    """Averages over samples as plain values; `details` are those of the first sample."""
    parts = {name: float(np.mean([s.parts[name] for s in scores])) for name in scores[0].parts}
    details = {**scores[0].details, "samples": [s.total for s in scores]}
    return {"total": float(np.mean(details["samples"])), "parts": parts, "n": scores[0].n, "details": details}


def gather_observables(observables: Observables, comm: Comm) -> Observables | None:
    """Observables of all ranks in rank order, on rank 0; None elsewhere."""
    whole: Observables = {}
    for name in sorted(observables):
        values = comm.gather_array(np.asarray(observables[name].values, np.float64))
        counts = observables[name].counts
        all_counts = None if counts is None else comm.gather_array(np.asarray(counts, np.int64))
        if values is not None:
            joined = None if all_counts is None else np.concatenate(all_counts)
            whole[name] = dataclasses.replace(observables[name], values=np.concatenate(values), counts=joined)
    return whole if comm.is_root else None


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
    """Compares the diversity of the first generated events of an epoch with that of real ones: a mode collapse shows.

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
        chosen = single_events(source.weights(), len(source), seed=0, stream="diversity")[:DIVERSITY_EVENTS]
        self._events = len(chosen)
        conditions = take(source.conditions(), chosen) if problem.conditions else {}
        batches = range(-(-self._events // batch_size))
        self._asked = [conditions_of_batch(conditions, index, batch_size, self._events) for index in batches]
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
