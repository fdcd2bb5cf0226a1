"""Distances between two samples of one quantity, and the binning they share with the plots. A leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from hpcgan.metrics.ks import cumulative, ks_test
from hpcgan.metrics.observable import Observable
from hpcgan.weights import deviation


def bin_edges(values: np.ndarray, max_bins: int = 50) -> np.ndarray:
    """Bins for a histogram, chosen from real values alone.

    Integer-valued quantities of moderate range get unit bins centred on the integers. Otherwise the
    central 99.8% of the values (from zero, where they start close to it) are covered by equal bins of
    the Freedman-Diaconis width, about 12 to `max_bins` of them, rounded up to 1, 2, 2.5 or 5
    times a power of ten.

    Parameters
    ----------
    values : (n,) array
        Finite; not empty.

    Returns
    -------
    (bins + 1,) float64 array
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        raise ValueError("no values to choose bins from")
    if x.max() - x.min() <= 1.5 * max_bins and np.all(x == np.round(x)):
        return np.arange(x.min(), x.max() + 2) - 0.5
    low, q1, q3, high = np.quantile(x, [0.001, 0.25, 0.75, 0.999])
    if 0 <= low < 0.05 * high:
        low = 0.0
    if high == low:
        half = 0.5 * abs(low) or 0.5
        low, high = low - half, high + half
    span = high - low
    width = float(np.clip(2.0 * (q3 - q1) / len(x) ** (1 / 3), span / max_bins, span / 25))
    power = 10.0 ** np.floor(np.log10(width))
    width = power * next(step for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= 0.999 * width)
    first, last = np.floor(low / width + 1e-9), np.ceil(high / width - 1e-9)
    edges: np.ndarray = width * np.arange(first, last + 1)
    return edges


def histogram(values: np.ndarray, edges: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Counts, or sums of weights, in each bin; what lies outside is counted in the first and last bin.

    Parameters
    ----------
    values : (n,) array
    edges : (bins + 1,) array
    weights : (n,) array, optional

    Returns
    -------
    (bins,) float64 array
    """
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges, weights=weights)
    entries: np.ndarray = counts.astype(np.float64)
    return entries


def separation_power(h1: np.ndarray, h2: np.ndarray) -> float:
    """1/2 sum (h1 - h2)^2 / (h1 + h2) of two histograms normalised to unit sum: 0 equal, 1 disjoint.

    Triangular discrimination, the "separation power" of the Fast Calorimeter Simulation Challenge. Two
    finite samples of one distribution have about (bins - 1)/4 (1/n1 + 1/n2), not zero. A bin whose weights sum to less
    than zero counts as empty.
    """
    h1, h2 = np.maximum(h1, 0.0), np.maximum(h2, 0.0)
    a, b = h1 / h1.sum(), h2 / h2.sum()
    both = a + b
    filled = both > 0
    return float(0.5 * np.sum((a - b)[filled] ** 2 / both[filled]))


@dataclass(frozen=True)
class Statistic:
    """A statistic and the chance of such a value, or a higher one, where both samples are of one distribution."""

    value: float
    p: float
    ndf: int | None = None


def chi2_test(
    h1: np.ndarray, h2: np.ndarray, squares1: np.ndarray | None = None, squares2: np.ndarray | None = None
) -> Statistic:
    """Chi-squared test of homogeneity of two histograms, of counts or of weights, of unequal totals.

    Of counts it is sum (sqrt(N2/N1) n1 - sqrt(N1/N2) n2)^2 / (n1 + n2) over the bins with an entry.

    A bin with sum of weights h and of squares s fluctuates as h / c events of weight c = s / h would (of bins that are
    not above zero, c is that of the histogram). From both sides together comes the expected share p of the bin, and its
    variance p (c1 / W1 + c2 / W2): the bin's own squares, as in the test of Gagunashvili (NIM A 614 (2010) 287), would
    be zero where the side of few large weights happens to have no event.

    Parameters
    ----------
    h1, h2 : (bins,) arrays
        Counts, or sums of weights.
    squares1, squares2 : (bins,) arrays, optional
        Sums of squared weights; those of counts are the counts.
    """
    squares1, squares2 = h1 if squares1 is None else squares1, h2 if squares2 is None else squares2
    filled = squares1 + squares2 > 0
    h1, h2, squares1, squares2 = (x[filled] for x in (h1, h2, squares1, squares2))
    w1, w2 = h1.sum(), h2.sum()
    c1 = np.divide(squares1, h1, out=np.full_like(h1, squares1.sum() / w1), where=h1 > 0)
    c2 = np.divide(squares2, h2, out=np.full_like(h2, squares2.sum() / w2), where=h2 > 0)
    share = (np.maximum(h1, 0.0) / c1 + np.maximum(h2, 0.0) / c2) / (w1 / c1 + w2 / c2)
    usable = share > 0
    variance = (share * (c1 / w1 + c2 / w2))[usable]
    chi2 = float(np.sum((h1 / w1 - h2 / w2)[usable] ** 2 / variance))
    ndf = int(np.count_nonzero(usable)) - 1
    return Statistic(chi2, float(stats.chi2.sf(chi2, ndf)) if ndf > 0 else 1.0, ndf)


def wasserstein(
    real: np.ndarray,
    fake: np.ndarray,
    real_weights: np.ndarray | None = None,
    fake_weights: np.ndarray | None = None,
) -> float:
    """Wasserstein-1 distance: mean distance by which values must move; in the unit of the quantity.

    With weights, which may be negative, it is the area between the weighted cumulative distributions.
    """
    if real_weights is None and fake_weights is None:
        return float(stats.wasserstein_distance(real, fake))
    places = np.unique(np.concatenate([real, fake]))
    apart = np.abs(cumulative(real, real_weights, places) - cumulative(fake, fake_weights, places))
    return float(np.sum(apart[:-1] * np.diff(places)))


def wasserstein_error(real: Observable, fake: Observable, repetitions: int = 100, seed: int = 0) -> float | None:
    """Bootstrap standard error of the Wasserstein-1 distance; None where it cannot be told.

    Events are resampled on both sides, not values: several values of one event are correlated. Of events that depend on
    one another whole blocks are; a single block says nothing.
    """
    if any(o.blocks is not None and len(np.unique(o.blocks)) < 2 for o in (real, fake)):
        return None
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(repetitions):
        a, b = (o.take(_resample(o, rng)) for o in (real, fake))
        if a.has_distribution and b.has_distribution:
            distances.append(wasserstein(a.values, b.values, a.value_weights, b.value_weights))
    return float(np.std(distances, ddof=1)) if len(distances) > 1 else None


def mean_error(observable: Observable) -> tuple[float, float | None]:
    """Mean of a quantity with one value an event, and its standard error; None where it cannot be told.

    Of events that depend on one another within blocks it comes from the spread of the blocks' means, which should have
    about as many events each.
    """
    values = np.asarray(observable.values, dtype=np.float64)
    weights = observable.value_weights
    if weights is not None:
        return _weighted_mean_error(values, weights, observable.blocks)
    independent = values
    if observable.blocks is not None:
        _, inverse = np.unique(observable.blocks, return_inverse=True)
        independent = np.bincount(inverse.reshape(-1), values) / np.bincount(inverse.reshape(-1))
    n = len(independent)
    return float(values.mean()), float(independent.std(ddof=1) / np.sqrt(n)) if n > 1 else None


def _weighted_mean_error(
    values: np.ndarray, weights: np.ndarray, blocks: np.ndarray | None
) -> tuple[float, float | None]:
    """As `mean_error`: what each block adds to the weighted sum of differences from the mean is independent."""
    mean = float(weights @ values / weights.sum())
    parts = weights * (values - mean)
    if blocks is not None:
        numbers = np.unique(blocks, return_inverse=True)[1].reshape(-1)
        parts = np.asarray(np.bincount(numbers, parts), np.float64)
    n = len(parts)
    return mean, float(np.sqrt(np.sum(parts**2) * n / (n - 1)) / abs(weights.sum())) if n > 1 else None


def _resample(observable: Observable, rng: np.random.Generator) -> np.ndarray:
    """Indices of events drawn with replacement, as many as there are, or of whole blocks."""
    if observable.blocks is None:
        return rng.integers(0, observable.n_events, observable.n_events)
    members = [np.flatnonzero(observable.blocks == block) for block in np.unique(observable.blocks)]
    return np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])


@dataclass(frozen=True)
class Side:
    """Values of one side, with the weights of their events; `mean` and `std` in the unit of the quantity."""

    n: int
    mean: float | None
    std: float | None

    @classmethod
    def of(cls, observable: Observable) -> Side:
        """Of a set of events; mean and deviation are None where there is no distribution."""
        values = np.asarray(observable.values, dtype=np.float64)
        std = deviation(values, observable.value_weights) if observable.has_distribution else None
        return cls(len(values), observable.mean, std)


@dataclass(frozen=True)
class Distances:
    """Distances between real and generated values of one quantity; None where a side has no distribution.

    Values have the weights of their events, with their signs (docs/scoring.md).

    Attributes
    ----------
    real, fake : Side
    ks : Statistic or None
        Kolmogorov-Smirnov distance and its asymptotic p-value.
    wasserstein, wasserstein_error : float or None
        Wasserstein-1 distance and its bootstrap error, in the unit of the quantity.
    separation : float or None
        Separation power in the bins of `bin_edges(real)`.
    chi2 : Statistic or None
        In the same bins.
    """

    real: Side
    fake: Side
    ks: Statistic | None = None
    wasserstein: float | None = None
    wasserstein_error: float | None = None
    separation: float | None = None
    chi2: Statistic | None = None


def distances(real: Observable, fake: Observable, bootstrap: int = 100, seed: int = 0) -> Distances:
    """All distances between two sets of events; no error of the Wasserstein distance for `bootstrap` 0."""
    sides = Side.of(real), Side.of(fake)
    if not real.has_distribution or not fake.has_distribution:
        return Distances(*sides)
    a, b = (np.asarray(o.values, dtype=np.float64) for o in (real, fake))
    edges = bin_edges(a)
    w, v = real.value_weights, fake.value_weights
    h1, h2 = histogram(a, edges, w), histogram(b, edges, v)
    squares = (None if s is None else histogram(x, edges, s**2) for x, s in ((a, w), (b, v)))
    return Distances(
        *sides,
        ks=Statistic(*ks_test(a, b, w, v)),
        wasserstein=wasserstein(a, b, w, v),
        wasserstein_error=wasserstein_error(real, fake, bootstrap, seed) if bootstrap else None,
        separation=separation_power(h1, h2),
        chi2=chi2_test(h1, h2, *squares),
    )
