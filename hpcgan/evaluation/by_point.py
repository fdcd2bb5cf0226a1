"""Scores at each point of the conditions, and at points that a model was not trained on. NumPy only.

At a point left out of the training the generated events stand beside what one would use without a model: real events
of the nearest trained point, and what the model makes of that point. Nearest is meant in the conditions as the networks
see them; of equally near points the one with the smallest values is taken (of the first condition, then of the next).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcgan.data.source import matching
from hpcgan.evaluation.compare import Comparison, spread
from hpcgan.evaluation.conditions import in_turn
from hpcgan.metrics import points
from hpcgan.metrics.null_band import null_band
from hpcgan.metrics.observable import Score
from hpcgan.problems.base import Observables, Problem

Conditions = Mapping[str, float]


def trained_rows(found: Comparison) -> list[dict[str, Any]]:
    """One entry for each point of a comparison, at the band's numbers of events; none without conditions.

    Returns
    -------
    list of dict
        `conditions`, `trained`, `n` (events on each side), `score` and each of `parts` (mean and standard deviation
        over the generated samples), `band` (`median`, `p95`, `p99` of real against real), `share_above` (of real
        against real that score as high as a generated sample) and `nearest` (None here, see `left_out_row`).
    """
    rows = []
    for i, band in enumerate(found.band.points):
        scores = [score.details["points"][i] for score in found.band_scores]
        totals = [score["total"] for score in scores]
        rows.append(
            {
                "conditions": band.conditions,
                "trained": True,
                "n": band.n,
                "score": spread(totals),
                "parts": {part: spread([score["parts"][part] for score in scores]) for part in scores[0]["parts"]},
                "band": {"median": band.median, "p95": band.p95, "p99": band.p99},
                "share_above": spread([band.share_above(total) for total in totals])["mean"],
                "nearest": None,
            }
        )
    return rows


def left_out_row(
    problem: Problem,
    real: Observables,
    fakes: Sequence[Observables],
    pool: Observables,
    nearest: tuple[Conditions, Sequence[Observables], Sequence[Observables]],
    repetitions: int,
    seed: int = 0,
) -> dict[str, Any]:
    """The entry of a point that was left out of the training.

    Parameters
    ----------
    problem : Problem
    real : Observables
        Real events of the point.
    fakes : sequence of Observables
        Samples that the model made of the point, of as many events.
    pool : Observables
        All real events of the point that the null band may be drawn from.
    nearest : (conditions, real, generated)
        The nearest trained point, real samples of it and samples that the model made of it, of as many events.
    repetitions, seed : int
        As of `null_band`.

    Returns
    -------
    dict
        As of `trained_rows`; `nearest` has its `conditions`, and the scores against the real events of *this* point of
        `real` and `generated` events of the nearest.
    """
    sizes = points.sizes(real)
    where = points.described(real, next(iter(sizes)))
    band = null_band(pool, problem.score, sizes, repetitions, seed)
    held = points.take(real, np.arange(band.n))

    def scored(samples: Sequence[Observables]) -> list[Score]:
        asked = (points.asked_for(points.take(sample, np.arange(band.n)), where) for sample in samples)
        return [problem.score(held, sample) for sample in asked]

    scores = scored(fakes)
    conditions, of_real, generated = nearest
    return {
        "conditions": where,
        "trained": False,
        "n": band.n,
        "score": spread([s.total for s in scores]),
        "parts": {part: spread([s.parts[part] for s in scores]) for part in scores[0].parts},
        "band": {"median": band.median, "p95": band.p95, "p99": band.p99},
        "share_above": spread([band.share_above(s) for s in scores])["mean"],
        "nearest": {
            "conditions": dict(conditions),
            "real": {**spread([s.total for s in scored(of_real)]), "samples": len(of_real)},
            "generated": {**spread([s.total for s in scored(generated)]), "samples": len(generated)},
        },
    }


def nearest_point(problem: Problem, point: Conditions, candidates: Sequence[Conditions]) -> Conditions:
    """The candidate nearest to a point in the conditions as the networks see them."""
    ordered = sorted(candidates, key=lambda candidate: tuple(candidate[name] for name in problem.conditions))
    encoded = [_encoded(problem, [p]) for p in ordered]
    distances = np.sqrt(np.sum((np.concatenate(encoded) - _encoded(problem, [point])) ** 2, axis=1))
    # Masses that are equally far off in GeV need not be to the last bit of what the networks see.
    return ordered[int(np.flatnonzero(distances <= distances.min() * (1 + 1e-5))[0])]


def _encoded(problem: Problem, points: Sequence[Conditions]) -> np.ndarray:
    """(k, c) float64."""
    encoded = problem.encode_conditions(in_turn(points, problem.schema)(0, len(points)))
    return np.concatenate([encoded[name].reshape(len(points), -1) for name in problem.conditions], axis=1, dtype=float)


def is_left_out(observables: Observables, points: Sequence[Conditions]) -> np.ndarray:
    """Which events (n,) have all values that one of the points names."""
    conditions = {k: o.values.astype(np.float32) for k, o in observables.items() if o.condition}
    fits = [matching(conditions, point) for point in points]
    return np.logical_or.reduce(fits)


def match(real: Observables, fake: Observables, n: int, samples: int) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Events of two files for a comparison: the same numbers at every point on both sides.

    Parameters
    ----------
    real, fake : Observables
        Of all events at hand, in random order.
    n : int
        Events on each side, at most.
    samples : int
        Disjoint generated samples, at most.

    Returns
    -------
    real : (k,) int array
    fakes : list of (k,) int arrays
    notices : list of str
        What was left out.

    Raises
    ------
    ValueError
        No point that both have.
    """
    there, made = points.sizes(real), points.sizes(fake)
    common = [point for point in there if point in made]
    if not common:
        raise ValueError("real and generated events have no point of the conditions in common")
    notices = []
    for side, sizes in (("Real", there), ("Generated", made)):
        alone = [points.label(points.described(real, point)) for point in sizes if point not in common]
        if alone:
            notices.append(f"{side} events at {'; '.join(alone)} are left out: the other side has none.")
    # In the proportions of the real events, to a sum of n.
    upto = np.cumsum([0, *(there[point] for point in common)])
    bounds = upto * min(n, int(upto[-1])) // upto[-1]
    share = {point: max(1, min(int(size), made[point])) for point, size in zip(common, np.diff(bounds), strict=True)}
    count = min(samples, *(made[point] // size for point, size in share.items()))
    return points.first_events(real, share), [points.first_events(fake, share, skip=i) for i in range(count)], notices
