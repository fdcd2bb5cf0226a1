"""What real events score against other real events: the scale on which a score is read. A leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.metrics import points
from hpcgan.metrics.observable import Observable, Score
from hpcgan.metrics.points import Point, ScoreFunction


@dataclass(frozen=True)
class PointBand:
    """Scores of one point of the conditions, in the same splits.

    Attributes
    ----------
    conditions : dict of str to float
    n : int
        Events on each side.
    median, p95, p99 : float
    samples : list of float
    """

    conditions: dict[str, float]
    n: int
    median: float
    p95: float
    p99: float
    samples: list[float]

    def share_above(self, total: float) -> float:
        """Share of real-against-real comparisons that score as high as this, or higher."""
        return float(np.mean(np.asarray(self.samples) >= total))


@dataclass(frozen=True)
class NullBand:
    """Scores between random disjoint halves of real events.

    Attributes
    ----------
    n : int
        Events on each side. Only scores at this `n` may be held against the band.
    requested : int
        The `n` that was asked for; larger than `n` when there were fewer than twice as many events.
    pool : int
        Real events the splits were drawn from.
    seed : int
        Of the random splits.
    mean, median, p95, p99 : float
        Of the total score; `p95` is exceeded by 5% of real-against-real comparisons.
    p95_error : float
        Statistical error of `p95` from the finite number of splits.
    parts : dict of str to dict
        `median`, `p95`, `p99` of each part.
    samples : list of float
        The total scores, in the order drawn.
    sizes : list of int
        Events on each side, of each point of the conditions in the order asked for; [n] without conditions.
    points : list of PointBand
        Of each point of the conditions, where there are any.
    """

    n: int
    requested: int
    pool: int
    seed: int
    mean: float
    median: float
    p95: float
    p99: float
    p95_error: float
    parts: dict[str, dict[str, float]]
    samples: list[float]
    sizes: list[int]
    points: list[PointBand]

    @property
    def complete(self) -> bool:
        """Whether the band is at the `n` that was asked for."""
        return self.n == self.requested

    def share_above(self, score: Score) -> float:
        """Share of real-against-real comparisons that score as high as this, or higher.

        Raises
        ------
        ValueError
            The score is at another `n` than the band.
        """
        if score.n != self.n:
            raise ValueError(f"a score at N={score.n} cannot be held against a band at N={self.n}")
        return float(np.mean(np.asarray(self.samples) >= score.total))

    def to_json(self) -> dict[str, Any]:
        """All numbers as JSON-able types."""
        return dataclasses.asdict(self)


def null_band(
    observables: Mapping[str, Observable],
    score: ScoreFunction,
    n: int | Mapping[Point, int],
    repetitions: int = 1000,
    seed: int = 0,
) -> NullBand:
    """Score random disjoint samples of `n` real events against each other.

    Every repetition draws 2 n of the events without replacement and splits them in two. With fewer
    than 2 n events the band is made at the largest possible size, and says so in its `n`.

    The repetitions share one pool: they are independent permutations *given these events* (so the band
    is that of a permutation test, with the right size whatever the pool), but not new events. The band
    does not show how it would scatter from one pool to the next.

    Parameters
    ----------
    observables : mapping of str to Observable
        Of all real events available.
    score : callable
        `score(real, fake) -> Score`, that of the problem.
    n : int or mapping of Point to int
        Events on each side, of all or of each point of the conditions. With too few at one point, all are reduced in
        proportion.
    repetitions : int
    seed : int

    Raises
    ------
    ValueError
        Fewer than two events (at a point), or observables of unequal numbers of events.
    """
    splitter = Splitter(observables, n)
    if repetitions < 1:
        raise ValueError(f"no null band of {repetitions} repetitions")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(repetitions):
        first, second = (points.take(observables, half) for half in splitter.split(rng))
        scores.append(score(first, second))
    totals = np.array([s.total for s in scores])
    return NullBand(
        n=splitter.n,
        requested=splitter.requested,
        pool=splitter.pool,
        seed=seed,
        mean=float(totals.mean()),
        **_quantiles(totals),
        p95_error=_quantile_error(totals, 0.95),
        parts={part: _quantiles(np.array([s.parts[part] for s in scores])) for part in scores[0].parts},
        samples=totals.tolist(),
        sizes=list(splitter.sizes),
        points=_of_points(scores),
    )


class Splitter:
    """Draws two disjoint sets of events from a pool, with the numbers of events of each point that a score has.

    Parameters
    ----------
    observables : mapping of str to Observable
        Of the pool.
    n : int or mapping of Point to int
        As of `null_band`.

    Attributes
    ----------
    n, requested, pool : int
        Events on each side, those asked for, and those drawn from.
    sizes : list of int
        Events on each side, of each point.
    """

    def __init__(self, observables: Mapping[str, Observable], n: int | Mapping[Point, int]) -> None:
        lengths = {o.n_events for o in observables.values()}
        if len(lengths) != 1:
            raise ValueError(f"observables of one set of events differ in length: {sorted(lengths)}")
        everything = np.arange(lengths.pop())
        if isinstance(n, Mapping):
            wanted = list(n.values())
            self._members = [points.events_of(observables, point) for point in n]
        else:
            wanted, self._members = [n], [everything]
        halves = [len(members) // 2 for members in self._members]
        self.pool, self.requested = sum(len(members) for members in self._members), sum(wanted)
        if min(halves) < 1 or min(wanted) < 1:
            raise ValueError(f"no null band from {self.pool} events ({self.requested} asked for)")
        # The scarcest point sets the scale for all, so that their proportions stay.
        half, most = min(zip(halves, wanted, strict=True), key=lambda pair: min(1.0, pair[0] / pair[1]))
        scale = (1, 1) if half >= most else (half, most)
        self.sizes = [max(1, size * scale[0] // scale[1]) for size in wanted]
        self.n = sum(self.sizes)

    def split(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the events of both sets."""
        first, second = [], []
        for members, size in zip(self._members, self.sizes, strict=True):
            drawn = rng.permutation(members)[: 2 * size]
            first.append(drawn[:size])
            second.append(drawn[size:])
        return np.concatenate(first), np.concatenate(second)


def _of_points(scores: Sequence[Score]) -> list[PointBand]:
    """Bands of the single points, as `points.score_by_point` has recorded them."""
    made = []
    for i, point in enumerate(scores[0].details.get("points", [])):
        totals = np.array([s.details["points"][i]["total"] for s in scores])
        made.append(PointBand(point["conditions"], point["n"], **_quantiles(totals), samples=totals.tolist()))
    return made


def _quantiles(values: np.ndarray) -> dict[str, float]:
    median, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
    return {"median": float(median), "p95": float(p95), "p99": float(p99)}


def _quantile_error(values: np.ndarray, level: float) -> float:
    """Half the distance between the quantiles one binomial standard deviation to either side of a level."""
    step = np.sqrt(level * (1 - level) / len(values))
    low, high = np.quantile(values, np.clip([level - step, level + step], 0.0, 1.0))
    return float(high - low) / 2
