"""Frechet physics distance (Kansal et al. 2023, arXiv:2211.10295). NumPy and SciPy only, a leaf."""

from __future__ import annotations

import numpy as np
from scipy import optimize

from hpcgan.metrics.observable import Estimate, check_rows

SIZES = 10
BATCHES = 20
#: Smallest sample of the extrapolation in units of the whole one: 20,000 of 50,000 in the paper.
SMALLEST = 0.4
GROUPS = 10
#: Smallest and largest subsample of the package `jetnet`, and what its random numbers start from.
RESAMPLED, RESAMPLED_SEED = (20_000, 50_000), 42


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Wasserstein-2 distance of two Gaussians (Frechet distance), in squared units of the features.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982). The trace of the root is taken of the
    symmetric C1^(1/2) C2 C1^(1/2), which has the same eigenvalues: real, and not negative but for rounding, for
    covariances of any rank.

    Parameters
    ----------
    mean1, mean2 : (d,) arrays
    cov1, cov2 : (d, d) arrays
        Symmetric, positive semi-definite.
    """
    values, vectors = np.linalg.eigh(cov1)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov2 @ root), 0.0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2.0 * overlap)


def sample_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Frechet distance of the Gaussians with the mean and the (unbiased) covariance of two samples.

    Between samples of n events of one distribution in d dimensions it is about (2 d + d (d + 1) / 2) / n, not zero.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
    """
    mean1, mean2 = real.mean(axis=0), fake.mean(axis=0)
    return frechet_distance(mean1, _covariance(real, mean1), mean2, _covariance(fake, mean2))


def extrapolate(sizes: np.ndarray, distances: np.ndarray, *, bounded: bool = False) -> Estimate:
    """Value at 1/N = 0 of a straight line in 1/N through distances at sizes N, with the error of that fit.

    With `bounded` the line neither falls in 1/N nor is below zero at 0; the error is still that of any line.
    """
    x = 1.0 / np.asarray(sizes, dtype=np.float64)
    design = np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.pinv(design)
    intercept, slope = optimize.nnls(design, distances)[0] if bounded else inverse @ distances
    freedom = len(x) - 2
    variance = np.sum((distances - intercept - slope * x) ** 2) / freedom if freedom > 0 else 0.0
    return Estimate(float(intercept), float(np.sqrt(variance * np.sum(inverse[0] ** 2))))


def fpd(real: np.ndarray, fake: np.ndarray, *, batches: int = BATCHES, groups: int = GROUPS, seed: int = 0) -> Estimate:
    """Frechet physics distance: the Frechet distance of the features, extrapolated to infinitely many events.

    At each of `SIZES` sample sizes, at equal steps in 1/N from 1/(0.4 n) to 1/n, the distance is averaged over random
    subsamples; a straight line in 1/N through the averages gives the value at 1/N = 0. Samples of one distribution
    scatter around zero, to both sides.

    Two things differ from the authors' package `jetnet`. Subsamples are drawn without replacement: with
    replacement, the extrapolation ends at the distance of the two samples at hand, bias of their size included, which
    matters for samples below their 50,000. And the error is a jackknife over events, that of the sample, while the
    fit's is only that of the average over subsamples of one sample (3 to 4 times less, by simulation).

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        Features; the larger sample is cut to the size of the smaller one.
    batches : int
        Subsamples of each size.
    groups : int
        Groups of events that the jackknife leaves out in turn.
    seed : int

    Raises
    ------
    ValueError
        Less than four events a group, or features that differ in number.
    """
    n = _common_size(real, fake)
    if n < 4 * groups:
        raise ValueError(f"{n} events are too few for a Frechet physics distance with an error")
    real, fake = real[:n], fake[:n]
    orders = _orders(n, batches, seed)
    every = np.ones(n, dtype=bool)
    group = np.arange(n) % groups
    values = np.array([_extrapolated(real, fake, orders, group != left_out) for left_out in range(groups)])
    error = np.sqrt((groups - 1) * np.mean((values - values.mean()) ** 2))
    return Estimate(_extrapolated(real, fake, orders, every), float(error))


def fpd_value(real: np.ndarray, fake: np.ndarray, *, batches: int = BATCHES, seed: int = 0) -> float:
    """`fpd` without its error, ten times as fast.

    Raises
    ------
    ValueError
        Less than five events, or features that differ in number.
    """
    n = _common_size(real, fake)
    if n < 5:
        raise ValueError(f"{n} events are too few for a Frechet physics distance")
    return _extrapolated(real[:n], fake[:n], _orders(n, batches, seed), np.ones(n, dtype=bool))


def resampled_fpd(
    real: np.ndarray,
    fake: np.ndarray,
    *,
    sizes: tuple[int, int] = RESAMPLED,
    batches: int = BATCHES,
    seed: int = RESAMPLED_SEED,
) -> Estimate:
    """Frechet physics distance as the authors' package `jetnet` computes it.

    Subsamples of the two sizes and eight between them, at equal steps in 1/N, are drawn with replacement, whatever the
    number of events, and the line through their averages is not below zero. Samples of one distribution have a distance
    above zero, about that of all events at hand (`sample_distance`), and the error is only that of the fit: see `fpd`.
    jetnet takes each feature over its largest magnitude among the real events before that.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        Features, all of which are used. jetnet asks for 50,000 events or more.
    sizes : (int, int)
        The smallest and the largest subsample.
    batches, seed : int

    Raises
    ------
    ValueError
        Less than two events, or features that differ in number.
    """
    if _common_size(real, fake) < 2:
        raise ValueError(f"{_common_size(real, fake)} events are too few for a Frechet physics distance")
    rng = np.random.default_rng(seed)
    counts = (1.0 / np.linspace(1.0 / sizes[0], 1.0 / sizes[1], SIZES)).astype(int)
    averages = []
    for count in counts:
        pairs = ((rng.choice(len(real), count), rng.choice(len(fake), count)) for _ in range(batches))
        averages.append(np.mean([sample_distance(real[first], fake[second]) for first, second in pairs]))
    return extrapolate(counts, np.array(averages), bounded=True)


Orders = list[list[tuple[np.ndarray, np.ndarray]]]


def _orders(n: int, batches: int, seed: int) -> Orders:
    """Random orders of the real and the generated events, whose beginnings are the subsamples."""
    rng = np.random.default_rng(seed)
    return [[(rng.permutation(n), rng.permutation(n)) for _ in range(batches)] for _ in range(SIZES)]


def _extrapolated(real: np.ndarray, fake: np.ndarray, orders: Orders, mask: np.ndarray) -> float:
    """The value at 1/N = 0 from some of the events.

    The jackknife keeps the orders, so that values differ by the events left out and not by other subsamples.
    """
    n = int(mask.sum())
    counts = np.rint(1.0 / np.linspace(1.0 / (SMALLEST * n), 1.0 / n, len(orders))).astype(int)
    averages = []
    for count, pairs in zip(counts, orders, strict=True):
        used = pairs if count < n else pairs[:1]  # all events are one subsample
        averages.append(np.mean([sample_distance(real[a[mask[a]][:count]], fake[b[mask[b]][:count]]) for a, b in used]))
    return extrapolate(counts, np.array(averages)).value


def _common_size(real: np.ndarray, fake: np.ndarray) -> int:
    check_rows(real, fake)
    return min(len(real), len(fake))


def _covariance(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    centred = x - mean
    covariance: np.ndarray = centred.T @ centred / (len(x) - 1)
    return covariance
