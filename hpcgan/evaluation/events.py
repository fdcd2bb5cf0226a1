"""Real and generated events that are compared, with their observables. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Dependent, Source, matching
from hpcgan.errors import InputError
from hpcgan.metrics import points
from hpcgan.metrics.observable import Observable, weighted
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.events import Use, doubts, open_events, weights_used

CHUNK = 1024  # samples in memory at a time


@dataclass(frozen=True)
class Loaded:
    """Events of one file: `order` are those read, at random, and `observables` theirs; `total` are there."""

    source: Source
    order: np.ndarray
    observables: Observables
    total: int

    def weights(self, events: slice | np.ndarray) -> np.ndarray | None:
        """Weights (k,) of some of those read, by their place in `order`; None where all count alike."""
        weights = self.source.weights()
        return None if weights is None else weights[self.order[events]]

    def sample(self, events: slice | np.ndarray) -> Sample:
        """Tensors of some of those read, by their place in `order`, in physical units."""
        return self.source.read(self.order[events])

    def more(self, problem: Problem, names: Sequence[str]) -> Observables:
        """Further observables of those read, in the same order (`Problem.more_observables`)."""
        return observables_of(problem, self.source, self.order, names)

    def without(self, left_out: Sequence[Mapping[str, float]]) -> Loaded:
        """The events of other points than these."""
        if not left_out:
            return self
        numbers = np.flatnonzero(~is_left_out(self.observables, left_out))
        return Loaded(self.source, self.order[numbers], points.take(self.observables, numbers), len(numbers))


def read(problem: Problem, path: Path, split: str, limit: int, use: Use) -> Loaded:
    """Read at most `limit` of the events that are used of a file or of a folder's split, at random.

    Raises
    ------
    InputError
        Missing or broken data, or fewer than two events.
    """
    problem.validate(path, split)
    source = open_events(problem, path, split, use)
    problem.check_events(source)
    total = len(source)
    if total < 2:
        raise InputError(f"{source.path}: {total} events are too few to compare")
    order = choose(min(total, limit), total)
    return Loaded(source, order, observables_of(problem, source, order), total)


def is_left_out(observables: Observables, left_out: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Which events (n,) have all values that one of the points names."""
    conditions = {name: o.values.astype(np.float32) for name, o in observables.items() if o.condition}
    return np.logical_or.reduce([matching(conditions, point) for point in left_out])


def notices_of(source: Source, use: Use) -> list[str]:
    """Notices on the weights of events that are compared, and on what is doubtful about the events."""
    weights = weights_used(source)
    notices = [] if weights is None else [f"{weights[0].upper()}{weights[1:]}."]
    return notices + [f"{text}." for text in doubts(source, use, trained=False)]


def n_events(observables: Observables) -> int:
    """Number of events of a set of observables."""
    return next(iter(observables.values())).n_events


def join(parts: Sequence[Observables]) -> Observables:
    """Observables of several sets of events, one after another."""
    return {name: Observable.concatenate([part[name] for part in parts]) for name in parts[0]}


def choose(n: int, out_of: int, seed: int = 0) -> np.ndarray:
    """`n` of the indices below `out_of` in random order; the same for the same arguments."""
    return np.random.default_rng(seed).permutation(out_of)[:n]


def chunks(n: int, size: int = CHUNK) -> Iterator[slice]:
    """The range 0 ... n - 1 in pieces of `size`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def observables_of(
    problem: Problem, source: Source, indices: np.ndarray, more: Sequence[str] | None = None
) -> Observables:
    """Observables of some samples of a source, read piece by piece; with their weights and blocks, if it has such.

    With `more`, instead of the problem's observables those of its more observables that are named.

    Raises
    ------
    InputError
        Values that are not finite; the message names the file.
    """
    try:
        observables = join([_measure(problem, source.read(indices[piece]), more) for piece in chunks(len(indices))])
    except (InputError, ValueError) as error:
        raise InputError(f"{source.path}: {error}") from None
    weights = source.weights()
    if weights is not None:
        observables = weighted(observables, weights[indices])
    if isinstance(source, Dependent):
        blocks = source.blocks(indices)
        observables = {name: dataclasses.replace(one, blocks=blocks) for name, one in observables.items()}
    return observables


def observables_of_sample(problem: Problem, sample: Sample, more: Sequence[str] | None = None) -> Observables:
    """Observables of a sample in physical units, some events at a time; with `more`, as of `observables_of`."""
    n = len(next(iter(sample.values())))
    return join([_measure(problem, take(sample, indices), more) for indices in chunks(n)])


def _measure(problem: Problem, sample: Sample, more: Sequence[str] | None) -> Observables:
    return problem.observables(sample) if more is None else problem.more_observables(sample, more)
