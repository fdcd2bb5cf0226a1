"""Real events of one file, with their observables; observables of generated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcgan.config import DataConfig
from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Source, matching
from hpcgan.errors import InputError
from hpcgan.evaluation import compare
from hpcgan.metrics import points
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.events import Use, doubts, open_events, weights_used


@dataclass(frozen=True)
class Loaded:
    """Events of one file: `order` are those read, at random, and `observables` theirs; `total` are there."""

    source: Source
    order: np.ndarray
    observables: Observables
    total: int

    def weights(self, events: np.ndarray) -> np.ndarray | None:
        """Weights (k,) of some of those read, by their place in `order`; None where all count alike."""
        weights = self.source.weights()
        return None if weights is None else weights[self.order[events]]

    def without(self, left_out: Sequence[Mapping[str, float]]) -> Loaded:
        """The events of other points than these."""
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
    order = compare.choose(min(total, limit), total)
    return Loaded(source, order, compare.observables_of(problem, source, order), total)


def is_left_out(observables: Observables, left_out: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Which events (n,) have all values that one of the points names."""
    conditions = {name: o.values.astype(np.float32) for name, o in observables.items() if o.condition}
    return np.logical_or.reduce([matching(conditions, point) for point in left_out])


def notices_of(source: Source, use: Use) -> list[str]:
    """Notices on the weights of events that are compared, and on what is doubtful about the events."""
    weights = weights_used(source)
    notices = [] if weights is None else [f"{weights[0].upper()}{weights[1:]}."]
    return notices + [f"{text}." for text in doubts(source, use, trained=False)]


def training_events(
    problem: Problem,
    data: DataConfig,
    loaded: Loaded | None,
    limit: int,
    use: Use,
    left_out: list[dict[str, float]],
    notices: list[str],
) -> Observables | None:
    """Observables of the training events; where they are not at hand, a notice says so."""
    if loaded is not None:
        return loaded.observables
    try:
        data.require("train")
        loaded = read(problem, data.path, "train", limit, use)
    except InputError as error:
        notices.append(f"Not checked for memorised training events: {error}")
        return None
    loaded.source.close()
    return (loaded.without(left_out) if left_out else loaded).observables


def observables_of_sample(problem: Problem, sample: Sample) -> Observables:
    """Observables of a sample in physical units, some events at a time."""
    n = len(next(iter(sample.values())))
    return compare.join([problem.observables(take(sample, indices)) for indices in compare.chunks(n)])
