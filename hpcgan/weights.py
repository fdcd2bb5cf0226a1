"""Weights of events: what a sum over weighted events is worth, and how events are drawn by weight. NumPy only, a leaf.

The rule (docs/scoring.md): what is a sum over events (distributions, means, histograms) takes each event with its
weight, sign included. What needs single events (training batches, neighbours, classifiers) gets events drawn by the
absolute weight, for a set of events cannot be subtracted from another.
"""

from __future__ import annotations

import numpy as np

from hpcgan import rng
from hpcgan.errors import InputError


def counting(weights: np.ndarray | None) -> np.ndarray | None:
    """The weights as float64; None where all events count alike: equal weights above zero, or none."""
    if weights is None or not len(weights):
        return None
    exact = np.asarray(weights, np.float64)
    return None if exact[0] > 0 and bool(np.all(exact == exact[0])) else exact


def effective(weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2: how many events of equal weight determine a sum as well; 0 where the weights sum to none."""
    total = float(np.sum(weights))
    return total**2 / float(np.sum(np.square(weights))) if total > 0 else 0.0


def negative_shares(weights: np.ndarray) -> tuple[float, float]:
    """Share of the events whose weight is negative, and of the sum of absolute weights that is theirs."""
    below = weights < 0
    size = float(np.abs(weights).sum())
    return float(below.mean()), float(-weights[below].sum()) / size if size else 0.0


def check(weights: np.ndarray, where: str, remedy: str) -> None:
    """Refuse weights of which no distribution can be made.

    Parameters
    ----------
    weights : (n,) array
    where : str
        File and data set, for the message.
    remedy : str
        How to go on.

    Raises
    ------
    InputError
        A weight that is not finite, weights that are all zero, or whose sum is not above zero.
    """
    finite = np.isfinite(weights)
    if not finite.all():
        event = int(np.flatnonzero(~finite)[0])
        raise InputError(f"{where}: the weight of event {event} is {weights[event]}; {remedy}")
    if not len(weights) or not weights.any():
        raise InputError(f"{where}: the weights of all {len(weights)} events are zero; {remedy}")
    total = float(np.sum(weights, dtype=np.float64))
    if total <= 1e-9 * float(np.abs(weights).sum(dtype=np.float64)):
        share, _ = negative_shares(weights)
        raise InputError(
            f"{where}: the weights of {len(weights)} events sum to {total:g} ({share:.1%} of them are negative), but a "
            f"distribution needs a sum above zero; {remedy}"
        )


def resample(weights: np.ndarray, n: int, seed: int, stream: str, step: int = 0) -> np.ndarray:
    """`n` events drawn by |w|: systematic resampling of the events in random order.

    Event i is drawn floor or ceil of n |w_i| / sum |w| times, on average that many times; an event of weight zero never
    (Kitagawa, J. Comput. Graph. Stat. 5 (1996) 1). In the order of a file, in which kinds of events may take turns,
    equal steps would meet some kinds more often than others.

    Parameters
    ----------
    weights : (m,) array
        Not all zero.
    n : int
    seed, stream, step
        What the draw is a function of (`hpcgan.rng`).

    Returns
    -------
    (n,) int64 array of indices, ascending
    """
    order = rng.permutation(seed, f"{stream}/order", step, len(weights))
    offset = float(rng.uniform(seed, stream, step, 0, 1, 1)[0, 0])
    size = np.abs(np.asarray(weights, np.float64))[order]
    upto = np.cumsum(size)
    places = (np.arange(n) + offset) * (upto[-1] / n)
    last = int(np.flatnonzero(size)[-1])  # a place may be rounded up to the very end
    indices = np.minimum(np.searchsorted(upto, places, side="right"), last)
    return np.sort(order[indices])


def single_events(weights: np.ndarray | None, n: int, seed: int, stream: str = "unweighted") -> np.ndarray:
    """Which of `n` events stand for all of them where each is to count once: drawn by |w|, none of them twice.

    So many are drawn that the event of the largest weight is drawn once: sum |w| / max |w|.

    Returns
    -------
    (k,) int64 array of indices, ascending; all of them where there are no weights.
    """
    if counting(weights) is None or weights is None:
        return np.arange(n)
    size = np.abs(np.asarray(weights, np.float64))
    room = max(1, int(np.floor(size.sum() / size.max() * (1.0 + 1e-9))))
    return np.unique(resample(size, room, seed, stream))  # unique: what rounding may have drawn twice


def mean(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Mean over the first axis, of any shape, with weights of either sign."""
    if weights is None:
        average: np.ndarray = values.mean(axis=0, dtype=np.float64)
        return average
    return np.asarray(np.tensordot(weights, values.astype(np.float64, copy=False), axes=1) / np.sum(weights))


def deviation(values: np.ndarray, weights: np.ndarray | None) -> float:
    """Standard deviation of weighted numbers (n,); 0 where negative weights leave no variance."""
    if weights is None:
        return float(values.std())
    centre = mean(values, weights)
    return float(np.sqrt(max(float(mean((values - centre) ** 2, weights)), 0.0)))


def mean_error(values: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Standard error of `mean`; nan where it cannot be told.

    With weights sqrt(sum w^2 (x - mean)^2) / sum w, to first order in the fluctuations of both sums.
    """
    n = len(values)
    if weights is None:
        if n < 2:
            return np.full(values.shape[1:], np.nan)
        error: np.ndarray = values.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(n)
        return error
    squares = (values.astype(np.float64, copy=False) - mean(values, weights)) ** 2
    spread: np.ndarray = np.sqrt(np.tensordot(np.square(weights), squares, axes=1)) / abs(float(np.sum(weights)))
    return spread * np.sqrt(n / max(n - 1, 1))


def quantiles(values: np.ndarray, levels: list[float], weights: np.ndarray | None) -> np.ndarray:
    """(levels, ...) quantiles over the first axis; of weighted values where the cumulative weight reaches the level."""
    if weights is None:
        return np.asarray(np.quantile(values, levels, axis=0))
    order = np.argsort(values, axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    upto = np.cumsum(np.asarray(weights)[order], axis=0) / np.sum(weights)
    # Where signed weights make the sum go back and forth, the level is reached where it first is.
    first = [np.argmax(upto >= level * (1.0 - 1e-12), axis=0)[None] for level in levels]
    return np.concatenate([np.take_along_axis(ascending, index, axis=0) for index in first])


def described(weights: np.ndarray) -> str:
    """What a file's weights are like, as text: range, sum, effective number, negative share."""
    text = f"{weights.min():g} to {weights.max():g}, sum {np.sum(weights, dtype=np.float64):g}"
    if counting(weights) is None:
        return f"{text}, all equal: events count alike"
    share, of_sum = negative_shares(np.asarray(weights, np.float64))
    text += f", effective events {effective(np.asarray(weights, np.float64)):.1f} of {len(weights)}"
    return text + (f", negative in {share:.1%} of events ({of_sum:.1%} of the sum of |weight|)" if share else "")
