"""Events by what they were asked for: the points of their conditions, and a score over them. A leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from hpcgan.metrics.observable import Observable, Score

#: Values of the conditions, in the order of their names; () where there are none.
Point = tuple[float, ...]
ScoreFunction = Callable[[dict[str, Observable], dict[str, Observable]], Score]


def condition_names(observables: Mapping[str, Observable]) -> list[str]:
    """Names of the observables that are conditions, sorted."""
    return sorted(name for name, observable in observables.items() if observable.condition)


def measured(observables: Mapping[str, Observable]) -> dict[str, Observable]:
    """The observables that are compared: all but the conditions."""
    return {name: observable for name, observable in observables.items() if not observable.condition}


def find(observables: Mapping[str, Observable]) -> tuple[list[Point], np.ndarray]:
    """The points of a set of events.

    Returns
    -------
    points : list of Point
        In ascending order; a single () for events without conditions.
    which : (n,) int array
        Index of each event's point.
    """
    names = condition_names(observables)
    if not names:
        n = next(iter(observables.values())).n_events
        return [()], np.zeros(n, np.int64)
    rows = np.stack([np.asarray(observables[name].values, np.float64) for name in names], axis=1)
    unique, which = np.unique(rows, axis=0, return_inverse=True)
    return [tuple(row) for row in unique.tolist()], which.reshape(-1)


def sizes(observables: Mapping[str, Observable]) -> dict[Point, int]:
    """Number of events of each point."""
    points, which = find(observables)
    return dict(zip(points, np.bincount(which, minlength=len(points)).tolist(), strict=True))


def events_of(observables: Mapping[str, Observable], point: Point) -> np.ndarray:
    """Indices of the events of a point, ascending."""
    points, which = find(observables)
    return np.flatnonzero(which == points.index(point)) if point in points else np.zeros(0, np.int64)


def first_events(observables: Mapping[str, Observable], numbers: Mapping[Point, int], skip: int = 0) -> np.ndarray:
    """Indices of the first `numbers` of events of each point, point by point, after `skip` times as many.

    Raises
    ------
    ValueError
        A point has fewer.
    """
    points, which = find(observables)
    chosen = []
    for point, n in numbers.items():
        at_point = np.flatnonzero(which == points.index(point)) if point in points else np.zeros(0, np.int64)
        if len(at_point) < (skip + 1) * n:
            raise ValueError(f"{len(at_point)} events at {point}, {(skip + 1) * n} are needed")
        chosen.append(at_point[skip * n : (skip + 1) * n])
    return np.concatenate(chosen)


def take(observables: Mapping[str, Observable], events: np.ndarray) -> dict[str, Observable]:
    """The observables of some of the events, in the order given."""
    return {name: observable.take(events) for name, observable in observables.items()}


def described(observables: Mapping[str, Observable], point: Point) -> dict[str, float]:
    """A point with the names of its conditions."""
    return dict(zip(condition_names(observables), point, strict=True))


def label(conditions: Mapping[str, float]) -> str:
    """A point as text, `mGlu=1400, mNeu=850`."""
    return ", ".join(f"{name}={value:g}" for name, value in conditions.items())


def asked_for(observables: Mapping[str, Observable], point: Mapping[str, float]) -> dict[str, Observable]:
    """Events as if they had been asked for at another point: what they are held against then."""
    changed = dict(observables)
    for name, value in point.items():
        values = np.full_like(observables[name].values, value)
        changed[name] = dataclasses.replace(observables[name], values=values)
    return changed


def score_by_point(real: Mapping[str, Observable], fake: Mapping[str, Observable], score: ScoreFunction) -> Score:
    """Mean over the points of the score between the real and the generated events of a point.

    Pooled events do not show whether a model heeds its conditions: one that ignores them makes the right mixture at
    every point. All points count alike, whatever their numbers of events.

    Parameters
    ----------
    real, fake : mapping of str to Observable
        With conditions among them; as many generated as real events at every point.
    score : callable
        Score of the events of one point.

    Returns
    -------
    Score
        Total and parts are means over the points, `n` is the number of all events. `details["points"]` has, in
        ascending order, `conditions`, `n`, `total`, `parts` and `details` of each.

    Raises
    ------
    ValueError
        No events, or unequal numbers at a point.
    """
    counts, others = sizes(real), sizes(fake)
    if counts != others or not counts:
        differing = sorted(set(counts.items()) ^ set(others.items()))
        raise ValueError(f"a score compares equal numbers of events at every point; these differ: {differing[:4]}")
    scored: list[tuple[Point, Score]] = []
    for point in counts:
        sides = [take(side, events_of(side, point)) for side in (real, fake)]
        scored.append((point, score(*sides)))
    scores = [s for _, s in scored]
    parts = {part: float(np.mean([s.parts[part] for s in scores])) for part in scores[0].parts}
    points = [
        {
            "conditions": described(real, point),
            "n": s.n,
            "total": s.total,
            "parts": s.parts,
            "details": s.details,
        }
        for point, s in scored
    ]
    return Score(float(np.mean([s.total for s in scores])), parts, sum(counts.values()), {"points": points})
