"""Kernel physics distance (Kansal et al. 2023, arXiv:2211.10295). NumPy only, a leaf."""

from __future__ import annotations

import numpy as np

from hpcgan.metrics.observable import Estimate, check_rows

BATCHES = 10
BATCH = 5000  # events, at most
BLOCK = 1024  # rows of a kernel matrix in memory at a time


def mmd2(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy for the kernel (x.y / d + 1)^4.

    sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1)) - 2 mean_{i, j} k(x_i, y_j)
    (Gretton et al. 2012, eq. 3; kernel: arXiv:2211.10295). Its mean is zero for samples of one distribution, so it can
    be negative.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        At least two events each.

    Raises
    ------
    ValueError
        Fewer events, or features that differ in number.
    """
    n, m = len(real), len(fake)
    check_rows(real, fake)
    if min(n, m) < 2:
        raise ValueError(f"{min(n, m)} events are too few for a kernel distance")
    within_real = (_kernel_sum(real, real) - _diagonal_sum(real)) / (n * (n - 1))
    within_fake = (_kernel_sum(fake, fake) - _diagonal_sum(fake)) / (m * (m - 1))
    return within_real + within_fake - 2.0 * _kernel_sum(real, fake) / (n * m)


def kpd(real: np.ndarray, fake: np.ndarray, *, batches: int = BATCHES, seed: int = 0) -> Estimate:
    """Kernel physics distance: median of the squared MMD over random batches of events.

    The paper takes 10 batches of 5000 out of 50,000 events. Smaller samples are halved: batches of n / 2 events, where
    5000 are more. The events of a batch are drawn without replacement: twice in a batch, they would bias the estimate.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        Features; the larger sample is cut to the size of the smaller one.
    batches : int
    seed : int

    Returns
    -------
    Estimate
        The error is the paper's: half the distance from the 16% to the 84% quantile of the batches. For halved samples
        that is about the error of the whole sample (as in a delete-half jackknife; 0.7 to 1.3 times the scatter over
        independent samples in simulations). Estimates are skewed, so the median of equal distributions is below zero.

    Raises
    ------
    ValueError
        Less than four events, or features that differ in number.
    """
    n = min(len(real), len(fake))
    size = min(BATCH, n // 2)
    if size < 2:
        raise ValueError(f"{n} events are too few for a kernel physics distance")
    rng = np.random.default_rng(seed)
    values = [mmd2(real[rng.permutation(n)[:size]], fake[rng.permutation(n)[:size]]) for _ in range(batches)]
    return _summary(values)


def resampled_kpd(
    real: np.ndarray, fake: np.ndarray, *, batch: int = BATCH, batches: int = BATCHES, seed: int = 42
) -> Estimate:
    """Kernel physics distance as the authors' package `jetnet` computes it.

    Batches are drawn with replacement and have the same number of events whatever there are: with few events, one that
    is in a batch twice counts as its own neighbour, which adds to the value. jetnet takes each feature over its largest
    magnitude among the real events before that.

    Parameters
    ----------
    real, fake : (n, d), (m, d) arrays
        Features, all of which are used.
    batch, batches, seed : int

    Raises
    ------
    ValueError
        No events, or features that differ in number.
    """
    check_rows(real, fake)
    if not min(len(real), len(fake)):
        raise ValueError("no events for a kernel physics distance")
    values = []
    for number in range(batches):
        rng = np.random.default_rng(seed + 1000 * number)
        first, second = rng.choice(len(real), batch), rng.choice(len(fake), batch)
        values.append(mmd2(real[first], fake[second]))
    return _summary(values)


def _summary(values: list[float]) -> Estimate:
    """Median of the batches, and half the distance from their 16% to their 84% quantile."""
    low, high = np.quantile(values, [0.16275, 0.83725])
    return Estimate(float(np.median(values)), float(high - low) / 2)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for start in range(0, len(x), BLOCK):
        values = x[start : start + BLOCK] @ y.T / x.shape[1] + 1.0
        np.square(values, out=values)
        np.square(values, out=values)
        total += float(values.sum())
    return total


def _diagonal_sum(x: np.ndarray) -> float:
    return float(np.sum((np.einsum("ij,ij->i", x, x) / x.shape[1] + 1.0) ** 4))
