"""Quantiles of a quantity, also as functions of conditions. NumPy only.

A distribution is interpolated along its quantiles (as A. Read, NIM A 425 (1999) 357, does between two histograms):
where the peak of one lies between those of its neighbours, a mixture of theirs would have two.
"""

from __future__ import annotations

import numpy as np

from hpcgan.errors import InputError

MAX_POINTS = 200
"""Points of the conditions, each of which needs events enough for quantiles."""


def terms(x: np.ndarray) -> np.ndarray:
    """Monomials up to the second degree: (n, c) -> (n, 1 + c + c (c + 1) / 2), the constant first."""
    columns = list(x.T)
    products = [a * b for i, a in enumerate(columns) for b in columns[i:]]
    return np.stack([np.ones(len(x)), *columns, *products], axis=1)


def fit(values: np.ndarray, conditions: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit each quantile by a polynomial of second degree in the conditions, through the points that there are.

    The least-squares solution of smallest norm about the centre of the points: what the points do not determine (the
    curvature along a condition with two values, any dependence on one with a single value) is zero.

    Parameters
    ----------
    values : (n,) array
    conditions : (n, c) array
    knots : (k,) array
        Levels of the quantiles, 0 to 1.

    Returns
    -------
    table : (terms, k) array
        Quantiles at conditions x are `terms(x - centre) @ table`.
    centre : (c,) array

    Raises
    ------
    InputError
        More than `MAX_POINTS` different points.
    """
    points, which = np.unique(conditions, axis=0, return_inverse=True)
    if len(points) > MAX_POINTS:
        raise InputError(
            f"model.total_pt=drawn needs many events at each of a few points; there are {len(points)} different ones, "
            f"at most {MAX_POINTS} are possible"
        )
    which = which.reshape(-1)
    quantiles = np.stack([np.quantile(values[which == i], knots) for i in range(len(points))])
    centre = points.mean(axis=0)
    design = terms(points - centre)
    means = design[:, 1:].mean(axis=0)
    table, *_ = np.linalg.lstsq(design[:, 1:] - means, quantiles - quantiles.mean(axis=0), rcond=1e-9)
    constant = quantiles.mean(axis=0) - means @ table
    return np.concatenate([constant[None], table]), centre


def of_histogram(counts: np.ndarray, low: np.ndarray, high: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Quantiles of what a histogram has counted, taken for even within each bin.

    Parameters
    ----------
    counts, low, high : (bins,) array
        What is in each bin, and its ascending edges.
    levels : (k,) array
        0 to 1.

    Returns
    -------
    (k,) array
        Zeros of an empty histogram.
    """
    full = np.flatnonzero(counts)
    if not len(full):
        return np.zeros(len(levels))
    below = np.concatenate([[0], np.cumsum(counts[full], dtype=np.int64)])
    reached = np.stack([below[:-1], below[1:]], axis=1).ravel()
    return np.interp(np.asarray(levels) * below[-1], reached, np.stack([low[full], high[full]], axis=1).ravel())
