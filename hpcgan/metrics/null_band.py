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
class Band:
    """Scores of real events against others.

    Attributes
    ----------
    n : int
        Events on each side.
    samples : list of float
        The total scores, in the order drawn.
    parts : dict of str to dict
        `median`, `p95`, `p99` of each part.
    """

    n: int
    samples: list[float]
    parts: dict[str, dict[str, float]]

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return float(np.mean(self.samples))

    @property
    def median(self) -> float:
        """Median of the scores."""
        return float(np.median(self.samples))

    @property
    def p95(self) -> float:
        """What 5% of real-against-real comparisons exceed."""
        return float(np.quantile(self.samples, 0.95))

    @property
    def levels(self) -> dict[str, float]:
        """`median`, `p95` and `p99` of the scores."""
        return levels(self.samples)

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


@dataclass(frozen=True)
class PointBand(Band):
    """Scores of one point of the conditions, in the same splits."""

    conditions: dict[str, float]


@dataclass(frozen=True)
class Splits:
    """How real events were split at random.

    Attributes
    ----------
    requested : int
        Events on each side that were asked for; the band's `n` is less where there are fewer than twice as many.
    pool : int
        Real events the splits were drawn from.
    blocks : int or None
        Blocks these events are in, each of which went to one side as a whole; None for independent events.
    seed : int
    """

    requested: int
    pool: int
    blocks: int | None
    seed: int


@dataclass(frozen=True)
class NullBand(Band):
    """Scores between random disjoint halves of real events. Only scores at the same `n` may be held against them.

    Attributes
    ----------
    splits : Splits
    sizes : list of int
        Events on each side, of each point of the conditions in the order asked for; [n] without conditions.
    points : list of PointBand
        Of each point of the conditions, where there are any.
    """

    splits: Splits
    sizes: list[int]
    points: list[PointBand]

    @classmethod
    def of(cls, scores: Sequence[Score], sizes: Sequence[int], splits: Splits) -> NullBand:
        """From the scores of all splits, those of single points as `points.score_by_point` has recorded them."""
        of_points = []
        for i, point in enumerate(scores[0].details.get("points", [])):
            at_point = [s.details["points"][i] for s in scores]
            parts = _levels_of_parts([row["parts"] for row in at_point])
            of_points.append(PointBand(point["n"], [row["total"] for row in at_point], parts, point["conditions"]))
        parts = _levels_of_parts([s.parts for s in scores])
        return cls(sum(sizes), [s.total for s in scores], parts, splits, list(sizes), of_points)

    @property
    def p95_error(self) -> float:
        """Statistical error of `p95` from the finite number of splits.

        Half the distance between the quantiles one binomial standard deviation to either side of the level.
        """
        step = np.sqrt(0.95 * 0.05 / len(self.samples))
        low, high = np.quantile(self.samples, np.clip([0.95 - step, 0.95 + step], 0.0, 1.0))
        return float(high - low) / 2

    @property
    def complete(self) -> bool:
        """Whether the band is at the `n` that was asked for."""
        return self.n == self.splits.requested

    def to_json(self) -> dict[str, Any]:
        """All numbers as JSON-able types."""
        numbers = dataclasses.asdict(self)
        return {
            **numbers.pop("splits"),
            **numbers,
            **self.levels,
            "mean": self.mean,
            "p95_error": self.p95_error,
            "points": [{**dataclasses.asdict(point), **point.levels} for point in self.points],
        }


def levels(values: Sequence[float]) -> dict[str, float]:
    """Median, 95% and 99% quantile of scores."""
    return dict(zip(("median", "p95", "p99"), np.quantile(values, [0.5, 0.95, 0.99]).tolist(), strict=True))


def _levels_of_parts(scores: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {part: levels([parts[part] for parts in scores]) for part in scores[0]}


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
    n : int or mapping of Point to int
        Events on each side, of all or of each point of the conditions. With too few at one point, all are reduced in
        proportion.
    repetitions : int
    seed : int

    Raises
    ------
    ValueError
        Fewer than two events (at a point), a single block, or observables of unequal numbers of events.
    """
    splitter = Splitter(observables, n)
    if repetitions < 1:
        raise ValueError(f"no null band of {repetitions} repetitions")
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(repetitions):
        first, second = (points.take(observables, half) for half in splitter.split(rng))
        scores.append(score(first, second))
    return NullBand.of(scores, splitter.sizes, Splits(splitter.requested, splitter.pool, splitter.blocks, seed))


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
    return NullBand.of(scores, [n], Splits(n, 2 * n, None if one.blocks is None else len(numbers), seed))


class Splitter:
    """Draws two disjoint sets of events from a pool, with the numbers of events of each point that a score has.

    Events that depend on one another go to the same set, whole blocks at a time.

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
    blocks : int or None
        Number of blocks; None for independent events.

    Raises
    ------
    ValueError
        Fewer than two events (at a point), a single block, or observables of unequal numbers of events.
    """

    def __init__(self, observables: Mapping[str, Observable], n: int | Mapping[Point, int]) -> None:
        lengths = {o.n_events for o in observables.values()}
        if len(lengths) != 1:
            raise ValueError(f"observables of one set of events differ in length: {sorted(lengths)}")
        everything = np.arange(lengths.pop())
        if isinstance(n, Mapping):
            requested = list(n.values())
            self._members = [points.events_of(observables, point) for point in n]
        else:
            requested, self._members = [n], [everything]
        blocks = next((o.blocks for o in observables.values() if o.blocks is not None), None)
        self._block_of, self.blocks = None, None
        if blocks is not None:
            numbers, inverse = np.unique(blocks, return_inverse=True)
            self._block_of, self.blocks = inverse.reshape(-1), len(numbers)
            if self.blocks < 2:
                raise ValueError("no null band from a single block of events that depend on one another")
        halves = [self._half(members) for members in self._members]
        self.pool, self.requested = sum(len(members) for members in self._members), sum(requested)
        if min(halves) < 1 or min(requested) < 1:
            raise ValueError(f"no null band from {self.pool} events ({self.requested} asked for)")
        # The scarcest point sets the scale for all, so that their proportions stay.
        half, most = min(zip(halves, requested, strict=True), key=lambda pair: min(1.0, pair[0] / pair[1]))
        scale = (1, 1) if half >= most else (half, most)
        self.sizes = [max(1, size * scale[0] // scale[1]) for size in requested]
        self.n = sum(self.sizes)

    def _half(self, members: np.ndarray) -> int:
        """Events that each side is sure to have, whichever blocks it is given."""
        if self._block_of is None or self.blocks is None:
            return len(members) // 2
        counts = np.sort(np.bincount(self._block_of[members], minlength=self.blocks))
        return int(counts[: self.blocks // 2].sum())

    def split(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the events of both sets."""
        first, second = [], []
        side = self._sides(rng)
        for members, size in zip(self._members, self.sizes, strict=True):
            if side is None:
                both = rng.permutation(members)[: 2 * size]
                one, other = both[:size], both[size:]
            else:
                one, other = (rng.permutation(members[side[members] == i])[:size] for i in (0, 1))
            first.append(one)
            second.append(other)
        return np.concatenate(first), np.concatenate(second)

    def _sides(self, rng: np.random.Generator) -> np.ndarray | None:
        """0 or 1 for each event, half of the blocks each (2 for one that is left over); None without blocks."""
        if self._block_of is None or self.blocks is None:
            return None
        side = np.full(self.blocks, 2)
        order, half = rng.permutation(self.blocks), self.blocks // 2
        side[order[:half]], side[order[half : 2 * half]] = 0, 1
        return side[self._block_of]
