"""Whether generated events are copies of training events. NumPy and SciPy only, a leaf."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from hpcgan.metrics.neighbours import nearest_distance

#: Share of held-out events that count as close to a training event.
LEVEL = 0.01


@dataclass(frozen=True)
class Nearest:
    """Distances of `n` events to the nearest training event, and their median."""

    n: int
    median: float

    @classmethod
    def of(cls, distances: np.ndarray) -> Nearest:
        """Of the distances themselves."""
        return cls(len(distances), float(np.median(distances)))


@dataclass(frozen=True)
class Close:
    """Events that are close to a training event.

    Attributes
    ----------
    threshold : float
        Distance below which an event is close: that of the held-out event of rank `LEVEL`.
    share, expected : float
        Share of generated events closer than that, and its expectation.
    p : float
        Chance of such a share, or a higher one. Sees a few copies among many good events, where z does not.
    """

    threshold: float
    share: float
    expected: float
    p: float


@dataclass(frozen=True)
class Memorisation:
    """Are generated events closer to training events than held-out real events are?

    Attributes
    ----------
    n_training : int
    generated, held_out : Nearest
    z : float
        Data-copying statistic C_T of Meehan, Chaudhuri and Dasgupta 2020 (arXiv:2004.05675) with one cell: the
        Mann-Whitney U of the two sets of distances, in standard deviations. Standard normal if generated events
        follow the distribution of real ones independently of the training sample; far below zero for copies; above
        zero for events off the real distribution.
    p : float
        Chance of such a z, or a lower one.
    close : Close
    """

    n_training: int
    generated: Nearest
    held_out: Nearest
    z: float
    p: float
    close: Close


def memorisation(
    generated: np.ndarray, held_out: np.ndarray, training: np.ndarray, level: float = LEVEL
) -> Memorisation:
    """Compare distances to the nearest training event, of generated and of held-out real events.

    For an honest generator, the distances of both are, given the training sample, draws of one distribution. So z is
    asymptotically standard normal, and the number of generated events among the first events in order of
    distance, until the held-out one of rank r = ceil(level (m + 1)), is beta-binomial: n draws, r and m + 1 - r.

    Parameters
    ----------
    generated, held_out, training : (n, d), (m, d), (t, d) arrays
        Features or cells. Held-out events are real, and in no relation to the training events. `training` should hold
        all training events: copies of others are not seen.
    level : float

    Raises
    ------
    ValueError
        An empty sample, or numbers of columns that differ.
    """
    n, m = len(generated), len(held_out)
    if not n or not m:
        raise ValueError("no events to compare")
    near, far = nearest_distance(generated, training), nearest_distance(held_out, training)
    z = rank_sum_z(near, far)
    rank = min(m, math.ceil(level * (m + 1)))
    threshold = float(np.partition(far, rank - 1)[rank - 1])
    close = int(np.sum(near < threshold))
    p = min(1.0, float(stats.betabinom.pmf(np.arange(close, n + 1), n, rank, m + 1 - rank).sum()))
    return Memorisation(
        n_training=len(training),
        generated=Nearest.of(near),
        held_out=Nearest.of(far),
        z=z,
        p=float(stats.norm.cdf(z)),
        close=Close(threshold, close / n, rank / (m + 1), p),
    )


def rank_sum_z(x: np.ndarray, y: np.ndarray) -> float:
    """Mann-Whitney U of x over y in standard deviations of the null, ties counted half; above zero if x is larger.

    U is the number of pairs with x_i > y_j; its null mean n m / 2 and variance n m / 12 (N + 1 - sum (t^3 - t) / (N (N
    - 1))) for N = n + m values with ties of t (Lehmann 1975). Zero if all values are equal.
    """
    n, m = len(x), len(y)
    total = n + m
    ranks = stats.rankdata(np.concatenate([x, y]))
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = np.unique(ranks, return_counts=True)[1].astype(np.float64)
    variance = n * m / 12 * (total + 1 - np.sum(ties**3 - ties) / (total * (total - 1)))
    return float((u - n * m / 2) / math.sqrt(variance)) if variance > 0 else 0.0
