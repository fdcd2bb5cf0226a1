"""The loss that held-out events have, of a method that can tell: how well the weights describe events not trained on.

Unlike a score it compares no samples, so it goes on telling weights apart where all scores are those of real events.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from hpcgan import weights
from hpcgan.comm.base import Comm
from hpcgan.data.schema import Sample, take
from hpcgan.data.source import Source
from hpcgan.problems.base import Problem
from hpcgan.problems.events import weights_of_first
from hpcgan.runs.records import HeldOut

#: (n,) the loss of each encoded sample.
Losses = Callable[[Sample], np.ndarray]


def measure(name: str, losses: Losses, problem: Problem, source: Source, comm: Comm, events: int, size: int) -> HeldOut:
    """Mean loss of the first events of a split, on every rank; weighted ones count with their weights.

    Ranks share batches that are the same however many they are.

    Parameters
    ----------
    name : str
        Of the loss.
    losses : callable
    problem : Problem
    source : Source
        In physical units.
    comm : Comm
    events : int
        A split with fewer is used as a whole.
    size : int
        Events at a time.
    """
    events = min(events, len(source))
    batches = np.array_split(np.arange(-(-events // size)), comm.size)[comm.rank]
    shares = [np.arange(batch * size, min((batch + 1) * size, events)) for batch in batches]
    pieces = [of_sample(losses, problem, source.read(share), size) for share in shares]
    gathered = comm.gather_array(np.concatenate([np.empty(0), *pieces]))
    whole = None
    if gathered is not None:
        whole = asdict(summary(name, np.concatenate(gathered), weights_of_first(source, events)))
    return HeldOut(**comm.broadcast_json(whole))


def of_sample(losses: Losses, problem: Problem, sample: Sample, size: int) -> np.ndarray:
    """(n,) float64, the loss of each event of a sample in physical units, `size` of them at a time."""
    encoded = problem.encode(sample)
    n = len(next(iter(encoded.values())))
    pieces = []
    for start in range(0, n, size):
        # The last batch begins anew at the first event: all have one shape.
        batch = losses(take(encoded, np.arange(start, start + size) % n))
        pieces.append(batch[: n - start].astype(np.float64))
    return np.concatenate(pieces)


def summary(name: str, values: np.ndarray, of_events: np.ndarray | None) -> HeldOut:
    """Mean and error of losses, of events with these weights; nan if one of them is no number."""
    if not np.isfinite(values).all():
        return HeldOut(name, math.nan, math.nan, len(values))
    error = weights.mean_error(values, of_events)
    return HeldOut(name, float(weights.mean(values, of_events)), float(error), len(values))
