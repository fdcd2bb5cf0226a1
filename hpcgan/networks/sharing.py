"""How a cell shares what it has with its two halves: the density of that, and drawing it.

Either half has all, or both have some. The share of a half is bounded: each that has any has as much as its threshold.
Between the bounds a coordinate of the share has a density that is constant in intervals, so that edges, as thresholds
make them, stay sharp. A network says how probable the ways and the intervals are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.networks import outcomes

NUMBERS = 2
"""Random numbers for a cell to be split: which halves have any, and the share of the first."""
FIRST, SECOND, BOTH = range(3)
"""Which halves have any."""
WAYS = BOTH + 1
"""How many ways there are."""
OF_ALL_PLACES = 0.5
"""Cells of all places that count besides those of a place, where answers of a place are counted."""
UNSEEN = 0.5
"""Cells that have, in equal parts, what no cell has."""
_IMPOSSIBLE = -1e9  # logit of a way that thresholds do not allow


class Logit:
    """The coordinate in which the density of a share is constant in intervals: its logit."""

    def of(self, logit: tf.Tensor) -> tf.Tensor:
        """Coordinates of logits."""
        return logit

    def log_slope(self, logit: tf.Tensor) -> tf.Tensor:
        """Log of the derivative of the coordinate by the logit."""
        return tf.zeros_like(logit)

    def shares(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What the first half and what the second have of a cell, at coordinates x."""
        share = tf.sigmoid(x)
        return share, 1.0 - share


class StretchedLogit(Logit):
    """asinh of the logit: intervals are fine where halves have about as much, and coarse where one has next to nothing.

    For pixels over many decades. The second half's share is not one minus the first's, which has no digits for it.
    """

    def of(self, logit: tf.Tensor) -> tf.Tensor:
        return tf.math.asinh(logit)

    def log_slope(self, logit: tf.Tensor) -> tf.Tensor:
        return -0.5 * tf.math.log1p(tf.square(logit))

    def shares(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logit = tf.sinh(x)
        return tf.sigmoid(logit), tf.sigmoid(-logit)


class Bounds(NamedTuple):
    """What thresholds allow for cells: which ways, (cells, 3), and the coordinate of the first half's share, from `low`
    to `high`, (cells,).
    """

    is_allowed: tf.Tensor
    low: tf.Tensor
    high: tf.Tensor


class Answers(NamedTuple):
    """What a network says of cells within bounds, of which a softmax makes probabilities: of each way, (cells, 3), and
    of each interval of the coordinate, (cells, bins).
    """

    bounds: Bounds
    ways: tf.Tensor
    intervals: tf.Tensor


def bounds_of(
    coordinate: Logit,
    cells: tf.Tensor,
    least: tuple[tf.Tensor, tf.Tensor],
    is_first_alone: tf.Tensor | None = None,
) -> Bounds:
    """What is allowed for cells (cells,) whose halves have at least `least`, if any.

    Parameters
    ----------
    coordinate : Logit
    cells : (cells,) tensor
        What each has; more than nothing.
    least : two tensors that broadcast to (cells,)
        Of the first and of the second half.
    is_first_alone : (cells,) bool tensor, optional
        Where there is no second half.
    """
    least_first, least_second = least
    is_first, is_both = cells >= 0.999 * least_first, cells > 1.001 * (least_first + least_second)
    if is_first_alone is not None:
        is_first |= is_first_alone
    is_second = (cells >= 0.999 * least_second) | ~is_first
    # Any number for which there are logarithms, where both is not allowed.
    cells = tf.where(is_both, cells, 2.0 * (least_first + least_second))
    low = tf.math.log(least_first) - tf.math.log(cells - least_first)
    high = tf.math.log(cells - least_second) - tf.math.log(least_second)
    return Bounds(tf.stack([is_first, is_second, is_both], axis=1), coordinate.of(low), coordinate.of(high))


def answers_of(bounds: Bounds, ways: tf.Tensor, intervals: tf.Tensor) -> Answers:
    """Answers of a network (cells, 3) and (cells, bins), where only what is allowed has any probability."""
    return Answers(bounds, tf.where(bounds.is_allowed, ways, _IMPOSSIBLE), intervals)


def seen(
    coordinate: Logit, bounds: Bounds, first: tf.Tensor, second: tf.Tensor, bins: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which halves of cells have any, and in which interval the share of the first is if both have: (cells,) each, of
    halves (cells,).
    """
    allowed = tf.unstack(bounds.is_allowed, axis=1)
    is_both = (first > 0) & (second > 0) & allowed[BOTH]
    is_first = (first >= second) & allowed[FIRST] | ~allowed[SECOND]
    way = tf.where(is_both, BOTH, tf.where(is_first, FIRST, SECOND))
    a, b = tf.where(is_both, first, 1.0), tf.where(is_both, second, 1.0)
    width = tf.where(is_both, bounds.high - bounds.low, 1.0)
    place = (coordinate.of(tf.math.log(a) - tf.math.log(b)) - bounds.low) / width
    return way, tf.clip_by_value(tf.cast(tf.floor(place * bins), tf.int32), 0, bins - 1)


def log_prob(coordinate: Logit, answers: Answers, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Log of the density of halves (cells,), given their sum: (cells,), in nats, for the unit that they are in."""
    bins = answers.intervals.shape[1]
    way, interval = seen(coordinate, answers.bounds, first, second, bins)
    is_both = way == BOTH
    a, b = tf.where(is_both, first, 1.0), tf.where(is_both, second, 1.0)
    width = tf.where(is_both, answers.bounds.high - answers.bounds.low, 1.0)
    log_density = outcomes.log_prob(answers.intervals, interval) + tf.math.log(bins / width)
    log_density += coordinate.log_slope(tf.math.log(a) - tf.math.log(b))
    log_density += tf.math.log((a + b) / (a * b))  # of the logit by the first half
    return outcomes.log_prob(answers.ways, way) + tf.where(is_both, log_density, 0.0)


def draw(
    coordinate: Logit, answers: Answers, cells: tf.Tensor, of_way: tf.Tensor, of_share: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Halves of cells (cells,) that two uniform numbers each, (cells,), stand for."""
    bins = answers.intervals.shape[1]
    way = outcomes.draw(answers.ways, of_way)[0]
    interval, within = outcomes.draw(answers.intervals, of_share)
    place = (tf.cast(interval, within.dtype) + within) / bins
    low, high = answers.bounds.low, answers.bounds.high
    first, second = (
        cells * tf.where(way == BOTH, share, tf.cast(way == alone, share.dtype))
        for share, alone in zip(coordinate.shares(low + place * (high - low)), (FIRST, SECOND), strict=True)
    )
    return first, second


def log_shares(places: int, bins: int, place: np.ndarray, way: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Logarithms of how frequent ways and intervals are at each of some places, (places, 3 + bins), of cells (cells,).

    A place with few cells has those of all places besides, and what no cell has gets a little.
    """
    is_both = way == BOTH
    log_p = []
    for answers, of_place, answer in ((WAYS, place, way), (bins, place[is_both], interval[is_both])):
        counts = np.zeros((places, answers))
        np.add.at(counts, (of_place, answer), 1.0)
        of_all = counts.sum(axis=0) + UNSEEN / answers
        counts += OF_ALL_PLACES * of_all / of_all.sum()
        log_p.append(np.log(counts / counts.sum(axis=1, keepdims=True)))
    return np.concatenate(log_p, axis=1)
