"""The Kolmogorov-Smirnov score: sum over quantities of -ln p."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcgan.metrics import points
from hpcgan.metrics.observable import Observable, Score
from hpcgan.weights import counting, effective

#: Largest contribution of one quantity: p is floored at exp(-MAX_PART), and an empty quantity scores this.
MAX_PART = 700.0


def ks_test(
    real: np.ndarray,
    fake: np.ndarray,
    real_weights: np.ndarray | None = None,
    fake_weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov distance and its asymptotic p-value.

    To the bit that of `scipy.stats.ks_2samp(method="asymp")`, whose checks take three times as long as the test of some
    hundred values, and a null band has thousands of them; except for one value against one value, where SciPy's
    effective sample size rounds to zero and the p-value is exactly 1.

    With weights the distribution functions are weighted ones, F(x) = sum of the weights of values up to x over the sum
    of all, and the effective number of values (sum w)^2 / sum w^2 takes the place of their number in the p-value
    (Monahan, Numerical Methods of Statistics, 2nd ed., 2011): exact for many values whose weights do not depend on
    them, and else an approximation. Negative weights are subtracted. Equal weights are none.

    Parameters
    ----------
    real, fake : (n,), (m,) arrays
        Not empty.
    real_weights, fake_weights : (n,), (m,) arrays, optional
        Their sums are above zero.

    Returns
    -------
    distance, p : float
    """
    real_weights, fake_weights = counting(real_weights), counting(fake_weights)
    if len(real) == len(fake) == 1 and real_weights is fake_weights is None:
        return float(real[0] != fake[0]), 1.0
    from scipy import stats  # half a second, which whoever only reads a configuration need not wait

    values = np.concatenate([real, fake])
    distance = float(np.max(np.abs(cumulative(real, real_weights, values) - cumulative(fake, fake_weights, values))))
    sides = ((real, real_weights), (fake, fake_weights))
    n, m = (float(len(side)) if weights is None else effective(weights) for side, weights in sides)
    return distance, float(np.clip(stats.kstwo.sf(distance, max(1.0, np.round(n * m / (n + m)))), 0.0, 1.0))


def cumulative(values: np.ndarray, weights: np.ndarray | None, places: np.ndarray) -> np.ndarray:
    """Weighted share of the values that are no larger than each of the places."""
    if weights is None:
        return np.asarray(np.searchsorted(np.sort(values), places, side="right") / len(values))
    order = np.argsort(values, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(sums[np.searchsorted(values[order], places, side="right")] / sums[-1])


def ks_score(real: Mapping[str, Observable], fake: Mapping[str, Observable], names: Sequence[str]) -> Score:
    """Sum over quantities of -ln p of a two-sample KS test between real and generated values.

    p is floored at exp(-700), and a quantity without values on either side scores 700. The score of a
    given difference grows with the number of events: only scores at the same `Score.n` can be compared. Values have the
    weights of their events; a quantity whose weights do not sum to more than zero has no distribution, like one
    without values.

    Parameters
    ----------
    real, fake : mapping of str to Observable
        The same number of events in all of them.
    names : sequence of str
        Quantities that count.

    Returns
    -------
    Score
        `details[name]` holds `ks` (distance), `n_real`, `n_fake` (numbers of values, whatever their
        weights), `mean_real` and `mean_fake`; distance and means are None where there is no value.

    Raises
    ------
    ValueError
        Values that are not finite, a missing quantity, or unequal numbers of events.
    """
    n = _common_events(real, fake, names)
    parts: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name in names:
        a, b = real[name], fake[name]
        for side, values in (("real", a.values), ("generated", b.values)):
            bad = len(values) - int(np.count_nonzero(np.isfinite(values)))
            if bad:
                raise ValueError(f"{bad} of {len(values)} {side} values of '{name}' are not finite")
        distance: float | None = None
        parts[name] = MAX_PART
        if a.has_distribution and b.has_distribution:
            distance, p = ks_test(a.values, b.values, a.value_weights, b.value_weights)
            parts[name] = min(MAX_PART, 0.0 - math.log(max(p, math.exp(-MAX_PART))))
        details[name] = {
            "ks": distance,
            "n_real": len(a.values),
            "n_fake": len(b.values),
            "mean_real": a.mean,
            "mean_fake": b.mean,
        }
    return Score(sum(parts.values()), parts, n, details)


def ks_score_by_point(real: Mapping[str, Observable], fake: Mapping[str, Observable], names: Sequence[str]) -> Score:
    """`ks_score`; where events have conditions, the mean of it over the points of these (`points.score_by_point`)."""
    if points.condition_names(real):
        return points.score_by_point(real, fake, lambda a, b: ks_score(a, b, names))
    return ks_score(real, fake, names)


def _common_events(real: Mapping[str, Observable], fake: Mapping[str, Observable], names: Sequence[str]) -> int:
    for side, observables in (("real", real), ("generated", fake)):
        for name in names:
            if name not in observables:
                raise ValueError(f"{side} observables lack '{name}' (there are: {', '.join(observables)})")
    counts = {observables[name].n_events for observables in (real, fake) for name in names}
    if len(counts) != 1:
        raise ValueError(f"a score compares equal numbers of events, got {sorted(counts)}: take as many of each side")
    return counts.pop()
