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
    blocks : int or None
        Blocks these events are in, each of which went to one side as a whole; None for independent events.
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
    blocks: int | None
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

    Where events come in blocks (`Observable.blocks`), only the blocks are exchangeable: half of them goes to one side,
    half to the other, and `n` of the events of each half are compared. A band that splits events instead is too narrow,
    because what the events of a block have in common is then on both sides (Winkler et al., Multi-level block
    permutation, NeuroImage 123 (2015) 253).

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
        Fewer than two events or blocks, or observables of unequal numbers of events.
    """
    sizes = {o.n_events for o in observables.values()}
    if len(sizes) != 1:
        raise ValueError(f"observables of one set of events differ in length: {sorted(sizes)}")
    pool = sizes.pop()
    if pool < 2 or n < 1 or repetitions < 1:
        raise ValueError(f"no null band from {pool} events ({n} asked for, {repetitions} repetitions)")
    halves = Halves(next(iter(observables.values())), n)
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(repetitions):
        first, second = ({k: o.take(half) for k, o in observables.items()} for half in halves.draw(rng))
        scores.append(score(first, second))
    return _band(scores, halves.n, n, pool, halves.blocks, seed)


def paired_null_band(
    first: Mapping[str, Observable],
    second: Mapping[str, Observable],
    score: ScoreFunction,
    repetitions: int = 1000,
    seed: int = 0,
) -> NullBand:
    """Score two real samples against each other after exchanging whole blocks of events between them at random.

    For samples whose event i has something in common (a signal event on which two pileups are overlaid): each side
    keeps every i once, as in the comparison with a generated sample.

    Parameters
    ----------
    first, second : mapping of str to Observable
        Of as many events, in the same blocks (`Observable.blocks`; without them every event is exchanged by itself).
    score : callable
        `score(real, fake) -> Score`, that of the problem.
    repetitions : int
    seed : int

    Raises
    ------
    ValueError
        Samples of different sizes or blocks.
    """
    one, other = (next(iter(side.values())) for side in (first, second))
    n = one.n_events
    blocks = [np.arange(n) if side.blocks is None else side.blocks for side in (one, other)]
    if len(blocks[0]) != len(blocks[1]) or np.any(blocks[0] != blocks[1]):
        raise ValueError("paired samples must have the same events in the same blocks")
    numbers, inverse = np.unique(blocks[0], return_inverse=True)
    joined = {name: Observable.concatenate([first[name], second[name]]) for name in first}
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(repetitions):
        exchanged = rng.integers(0, 2, len(numbers))[inverse.reshape(-1)]
        sides = (np.arange(n) + n * exchanged, np.arange(n) + n * (1 - exchanged))
        a, b = ({name: observable.take(side) for name, observable in joined.items()} for side in sides)
        scores.append(score(a, b))
    return _band(scores, n, n, 2 * n, None if one.blocks is None else len(numbers), seed)


def _band(scores: list[Score], n: int, requested: int, pool: int, blocks: int | None, seed: int) -> NullBand:
    totals = np.array([s.total for s in scores])
    return NullBand(
        n=n,
        requested=requested,
        pool=pool,
        blocks=blocks,
        seed=seed,
        mean=float(totals.mean()),
        **_quantiles(totals),
        p95_error=_quantile_error(totals, 0.95),
        parts={part: _quantiles(np.array([s.parts[part] for s in scores])) for part in scores[0].parts},
        samples=totals.tolist(),
    )


class Halves:
    """Random splits of events into two disjoint samples; of dependent events, by whole blocks.

    Parameters
    ----------
    observable : Observable
        One quantity of the events.
    n : int
        Events on each side; fewer where there are not twice as many.

    Attributes
    ----------
    n : int
    blocks : int or None
        Number of blocks; None for independent events.

    Raises
    ------
    ValueError
        A single block.
    """

    def __init__(self, observable: Observable, n: int) -> None:
        self._events = observable.n_events
        self._members: list[np.ndarray] | None = None
        if observable.blocks is None:
            self.n = min(n, self._events // 2)
            return
        _, inverse = np.unique(observable.blocks, return_inverse=True)
        self._members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse.reshape(-1)))[:-1])
        if len(self._members) < 2:
            raise ValueError("no null band from a single block of events that depend on one another")
        half = len(self._members) // 2
        self.n = min(n, sum(sorted(len(members) for members in self._members)[:half]))

    @property
    def blocks(self) -> int | None:
        return None if self._members is None else len(self._members)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Indices of `n` events for each side."""
        if self._members is None:
            drawn = rng.permutation(self._events)[: 2 * self.n]
            return drawn[: self.n], drawn[self.n :]
        order, half = rng.permutation(len(self._members)), len(self._members) // 2
        first, second = (
            rng.permutation(np.concatenate([self._members[block] for block in side]))[: self.n]
            for side in (order[:half], order[half : 2 * half])
        )
        return first, second


def _quantiles(values: np.ndarray) -> dict[str, float]:
    median, p95, p99 = np.quantile(values, [0.5, 0.95, 0.99])
    return {"median": float(median), "p95": float(p95), "p99": float(p99)}


def _quantile_error(values: np.ndarray, level: float) -> float:
    """Half the distance between the quantiles one binomial standard deviation to either side of a level."""
    step = np.sqrt(level * (1 - level) / len(values))
    low, high = np.quantile(values, np.clip([level - step, level + step], 0.0, 1.0))
    return float(high - low) / 2
