"""What a classifier's outputs say: area under the ROC curve, calibration, divergence. NumPy and SciPy only, a leaf."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import isotonic_regression

from hpcgan.metrics.observable import Estimate


def auc(positive: np.ndarray, negative: np.ndarray) -> Estimate:
    """Area under the ROC curve: the chance that a positive event has the larger output, ties counted half.

    The error is DeLong's (DeLong, DeLong and Clarke-Pearson 1988): the variances of the mean placements of either
    class, added. Where it vanishes, all positive outputs lie above all negative ones, or below.

    Parameters
    ----------
    positive, negative : (n,), (m,) arrays
        Outputs for events of each class; at least two each.
    """
    n, m = len(positive), len(negative)
    if min(n, m) < 2:
        raise ValueError(f"no ROC curve of {n} and {m} events")
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    among_negative = (ranks[:n] - stats.rankdata(positive)) / m
    among_positive = 1.0 - (ranks[n:] - stats.rankdata(negative)) / n
    variance = np.var(among_negative, ddof=1) / n + np.var(among_positive, ddof=1) / m
    return Estimate(float(among_negative.mean()), float(math.sqrt(variance)))


def auc_null_error(n: int, m: int) -> float:
    """Standard deviation of the AUC, around 1/2, of outputs that know nothing of the class.

    sqrt((n + m + 1) / (12 n m)) (Mann and Whitney 1947), for n and m events.
    """
    return math.sqrt((n + m + 1) / (12.0 * n * m))


@dataclass(frozen=True)
class Calibration:
    """A rising function from outputs to probabilities, linear between its knots, constant beyond.

    Attributes
    ----------
    outputs, probabilities : (k,) arrays
        Both rising.
    """

    outputs: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def fit(cls, outputs: np.ndarray, labels: np.ndarray) -> Calibration:
        """Isotonic regression of labels (0 or 1) on outputs (Zadrozny and Elkan 2002), steps by the rule of succession.

        The regression is constant in steps of n events, k of them with label 1. Its own value there is k / n, which is
        0 or 1 at the ends: a single event that is otherwise would make the cross-entropy infinite. Here it is
        (k + 1) / (n + 2) (Laplace), which is the same for many events; steps that fall by that are joined.
        """
        knots, ones, counts = _by_output(outputs, labels)
        fitted = isotonic_regression(ones / counts, weights=counts)
        starts = fitted.blocks[:-1]
        n, k = np.add.reduceat(counts, starts), np.add.reduceat(ones, starts)
        steps = isotonic_regression((k + 1.0) / (n + 2.0), weights=n).x
        return cls(knots.astype(np.float64), np.repeat(steps, np.diff(fitted.blocks)))

    @classmethod
    def clipped(cls, outputs: np.ndarray, labels: np.ndarray, least: float = 1e-6) -> Calibration:
        """Isotonic regression whose steps k / n stay `least` away from 0 and 1: for one, the CaloChallenge's.

        As `IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")` of scikit-learn.
        """
        knots, ones, counts = _by_output(outputs, labels)
        steps = isotonic_regression(ones / counts, weights=counts).x
        return cls(knots.astype(np.float64), np.clip(steps, least, 1.0 - least))

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Probabilities of label 1."""
        probabilities: np.ndarray = np.interp(outputs, self.outputs, self.probabilities)
        return probabilities


def _by_output(outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The different outputs, rising, how many labels of 1 each has, and how many labels."""
    knots, where, counts = np.unique(outputs, return_inverse=True, return_counts=True)
    return knots, np.bincount(where, labels, minlength=len(knots)), counts


def jensen_shannon(positive: np.ndarray, negative: np.ndarray) -> Estimate:
    """Jensen-Shannon divergence, in bits, that a classifier's probabilities vouch for: (ln 2 - BCE) / ln 2.

    A lower bound of the divergence but for statistics, as BCE is at least the conditional entropy: 0 for equal
    distributions, 1 for disjoint ones; below zero for probabilities that are worse than a constant 1/2
    (CaloChallenge, Krause et al. 2024, arXiv:2410.21611).

    Parameters
    ----------
    positive, negative : (n,), (m,) arrays
        Probabilities of being positive, strictly between 0 and 1, for events of each class; classes weigh the same.
    """
    parts = -np.log(positive), -np.log1p(-negative)
    cross_entropy = 0.5 * sum(float(part.mean()) for part in parts)
    variance = 0.25 * sum(float(np.var(part, ddof=1)) / len(part) for part in parts)
    return Estimate(1.0 - cross_entropy / math.log(2), math.sqrt(variance) / math.log(2))
