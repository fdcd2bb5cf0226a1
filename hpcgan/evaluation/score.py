"""Physics score of a generator during training, computed by all ranks together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Source
from hpcgan.metrics.observable import Observable, Score
from hpcgan.problems.base import Observables, Problem

#: Batch number `index` of generated samples for an epoch: (epoch, index) -> samples in physical units.
Generate = Callable[[int, int], Sample]


class Scorer:
    """Scores generated samples against the first `events` real ones of a split.

    Every rank makes and reconstructs its share; rank 0 compares. Generated events are a function of
    (seed, epoch, index), so the number of ranks does not change which events are compared.

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
    """

    def __init__(self, problem: Problem, source: Source, comm: Comm, events: int, batch_size: int) -> None:
        self._problem, self._comm, self._batch = problem, comm, batch_size
        self.events = min(events, len(source))
        share = np.array_split(np.arange(self.events), comm.size)[comm.rank]
        pieces = [problem.observables(source.read(share[i : i + 512])) for i in range(0, len(share), 512)]
        if not pieces:
            pieces = [problem.observables(source.read(share))]
        self._real = gather_observables(_join(pieces), comm)

    def __call__(self, generate: Generate, epoch: int) -> Score:
        """The score, on every rank."""
        batches = -(-self.events // self._batch)
        mine = np.array_split(np.arange(batches), self._comm.size)[self._comm.rank]
        pieces = []
        for index in mine.tolist():
            sample = generate(epoch, index)
            left = self.events - index * self._batch
            pieces.append(self._problem.observables(take(sample, slice(0, left))))
        fake = gather_observables(_join(pieces) if pieces else self._empty(), self._comm)
        plain = None
        if self._real is not None and fake is not None:
            score = self._problem.score(self._real, fake)
            plain = {"total": score.total, "parts": score.parts, "n": score.n, "details": score.details}
        return Score(**self._comm.broadcast_json(plain))

    def _empty(self) -> Observables:
        shapes = {name: np.zeros((0, *spec.shape), spec.dtype) for name, spec in self._problem.schema.items()}
        return self._problem.observables(shapes)


def _join(pieces: list[Observables]) -> Observables:
    return {name: Observable.concatenate([p[name] for p in pieces]) for name in pieces[0]}


def gather_observables(mine: Observables, comm: Comm) -> Observables | None:
    """Observables of all ranks in rank order, on rank 0; None elsewhere."""
    whole: Observables = {}
    for name in sorted(mine):
        values = comm.gather_array(np.asarray(mine[name].values, np.float64))
        counts = mine[name].counts
        all_counts = None if counts is None else comm.gather_array(np.asarray(counts, np.int64))
        if values is not None:
            whole[name] = Observable(np.concatenate(values), None if all_counts is None else np.concatenate(all_counts))
    return whole if comm.is_root else None
