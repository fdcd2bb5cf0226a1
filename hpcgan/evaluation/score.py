"""Physics score of a generator during training, computed by all ranks together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Source
from hpcgan.metrics.observable import Observable, Score, weighted
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.events import weights_of_first

#: Batch number `index` of generated samples for an epoch: (epoch, index, their conditions) -> samples; physical units.
Generate = Callable[[int, int, Sample], Sample]


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

    Raises
    ------
    InputError
        The weights of the real events do not sum to more than zero.
    """

    def __init__(
        self, problem: Problem, source: Source, comm: Comm, events: int, batch_size: int, samples: int = 1
    ) -> None:
        self._problem, self._comm, self._batch, self._samples = problem, comm, batch_size, samples
        self.events = min(events, len(source))
        self._conditions = source.conditions() if problem.conditions else {}
        self._weights = weights_of_first(source, self.events)
        share = np.array_split(np.arange(self.events), comm.size)[comm.rank]
        pieces = [problem.observables(source.read(share[i : i + 512])) for i in range(0, len(share), 512)]
        if not pieces:
            pieces = [problem.observables(source.read(share))]
        real = gather_observables(_join(pieces), comm)
        self._real = None if real is None else weighted(real, self._weights)

    def __call__(self, generate: Generate, epoch: int) -> Score:
        """The score, on every rank; the mean over `samples` disjoint generated samples."""
        batches = -(-self.events // self._batch)
        plain = None
        scores = [self._score(generate, epoch, i * batches, batches) for i in range(self._samples)]
        if self._comm.is_root:
            plain = _mean([score for score in scores if score is not None])
        return Score(**self._comm.broadcast_json(plain))

    def _score(self, generate: Generate, epoch: int, first: int, batches: int) -> Score | None:
        """The score of one sample, batches first ... first + batches - 1, on rank 0."""
        share = np.array_split(np.arange(batches), self._comm.size)[self._comm.rank]
        pieces = []
        for index in share.tolist():
            sample = generate(
                epoch, first + index, conditions_of_batch(self._conditions, index, self._batch, self.events)
            )
            rest = self.events - index * self._batch
            pieces.append(self._problem.observables(take(sample, slice(0, rest))))
        fake = gather_observables(_join(pieces) if pieces else self._empty(), self._comm)
        if self._real is None or fake is None:
            return None
        return self._problem.score(self._real, weighted(fake, self._weights) if self._conditions else fake)

    def _empty(self) -> Observables:
        shapes = {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in self._problem.schema.items()}
        return self._problem.observables(shapes)


def conditions_of_batch(conditions: Sample, index: int, batch_size: int, events: int) -> Sample:
    """Conditions of the whole batch number `index` out of those of `events`; what is beyond the last starts over."""
    return take(conditions, (index * batch_size + np.arange(batch_size)) % events)


def _join(pieces: list[Observables]) -> Observables:
    return {name: Observable.concatenate([p[name] for p in pieces]) for name in pieces[0]}


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
