"""What real events score against other real events: the scale on which a score is read. A leaf."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcgan.metrics.observable import Observable, Score

ScoreFunction = Callable[[dict[str, Observable], dict[str, Observable]], Score]


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
    n: int,
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
    n : int
        Events on each side.
    repetitions : int
    seed : int

    Raises
    ------
    ValueError
        Fewer than two events, or observables of unequal numbers of events.
    """
    sizes = {o.n_events for o in observables.values()}
    if len(sizes) != 1:
        raise ValueError(f"observables of one set of events differ in length: {sorted(sizes)}")
    pool = sizes.pop()
    if pool < 2 or n < 1 or repetitions < 1:
        raise ValueError(f"no null band from {pool} events ({n} asked for, {repetitions} repetitions)")
    size = min(n, pool // 2)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(repetitions):
        drawn = rng.permutation(pool)[: 2 * size]
        first, second = ({k: o.take(half) for k, o in observables.items()} for half in (drawn[:size], drawn[size:]))
        scores.append(score(first, second))
    totals = np.array([s.total for s in scores])
    return NullBand(
        n=size,
        requested=n,
        pool=pool,
        seed=seed,
        mean=float(totals.mean()),
        **_quantiles(totals),
        p95_error=_quantile_error(totals, 0.95),
        parts={part: _quantiles(np.array([s.parts[part] for s in scores])) for part in scores[0].parts},
        samples=totals.tolist(),
    )


def _quantiles(values: np.ndarray) -> dict[str, float]:
    median, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
    return {"median": float(median), "p95": float(p95), "p99": float(p99)}


def _quantile_error(values: np.ndarray, level: float) -> float:
    """Half the distance between the quantiles one binomial standard deviation to either side of a level."""
    step = np.sqrt(level * (1 - level) / len(values))
    low, high = np.quantile(values, np.clip([level - step, level + step], 0.0, 1.0))
    return float(high - low) / 2
