"""Conditional generators: scores at each point, at points that were left out of the training, and probes beyond it.

At a point left out of the training the generated events stand beside what one would use without a model: real events
of the nearest trained point, and what the model makes of that point. Nearest is meant in the conditions as the networks
see them; of equally near points the one with the smallest values is taken (of the first condition, then of the next).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.evaluation.compare import EvaluationOptions, summary
from hpcgan.evaluation.conditions import Point, each, of_points
from hpcgan.evaluation.distances import spread
from hpcgan.evaluation.events import Loaded, is_left_out, join, observables_of_sample
from hpcgan.metrics import points
from hpcgan.metrics.null_band import Band, NullBand, null_band
from hpcgan.metrics.observable import Score
from hpcgan.problems.base import Observables, Problem
from hpcgan.problems.figures import figures_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.evaluation.sampling import RunSampler

Row = dict[str, Any]
#: Events at each of the points at which a problem has the generator probed.
PROBE_EVENTS = 256


# --- rows of the table of points ---------------------------------------------------------------------


def trained_rows(band: NullBand, scored: Sequence[Score]) -> list[Row]:
    """One entry for each point of the conditions, at a band's numbers of events; none without conditions.

    Parameters
    ----------
    band : NullBand
    scored : sequence of Score
        Of each generated sample, at the band's numbers of events.

    Returns
    -------
    list of dict
        `conditions`, `trained`, `n` (events on each side), `score` and each of `parts` (mean and standard deviation
        over the generated samples), `band` (`median`, `p95`, `p99` of real against real, in `parts` of each part),
        `share_above` (of real against real that score as high as a generated sample) and `nearest` (None here, see
        `left_out_row`).
    """
    rows = []
    for i, at_band in enumerate(band.points):
        at_point = [score.details["points"][i] for score in scored]
        scores = [Score(point["total"], point["parts"], point["n"]) for point in at_point]
        rows.append(_row(at_band.conditions, at_band, scores))
    return rows


def left_out_row(
    problem: Problem,
    real: Observables,
    fakes: Sequence[Observables],
    pool: Observables,
    nearest: tuple[Point, Sequence[Observables], Sequence[Observables]],
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
    point = points.described(real, next(iter(sizes)))
    band = null_band(pool, problem.score, sizes, repetitions, seed)
    compared = points.take(real, np.arange(band.n))

    def scores(samples: Sequence[Observables]) -> list[Score]:
        as_asked = (points.asked_for(points.take(sample, np.arange(band.n)), point) for sample in samples)
        return [problem.score(compared, sample) for sample in as_asked]

    conditions, *sides = nearest
    of_nearest = {
        name: {**spread([score.total for score in scores(samples)]), "samples": len(samples)}
        for name, samples in zip(("real", "generated"), sides, strict=True)
    }
    return _row(point, band, scores(fakes), {"conditions": dict(conditions), **of_nearest})


def _row(conditions: Point, band: Band, scores: Sequence[Score], nearest: dict[str, Any] | None = None) -> Row:
    """The entry of a point, from the score of each generated sample."""
    return {
        "conditions": conditions,
        "trained": nearest is None,
        "n": band.n,
        **summary(scores),
        "band": {**band.levels, "parts": band.parts},
        "share_above": float(np.mean([band.share_above(score) for score in scores])),
        "nearest": nearest,
    }


# --- points that were left out of the training --------------------------------------------------------


@dataclass
class Beyond:
    """What a generator makes of points that it was not trained on.

    Attributes
    ----------
    rows : list of dict
        Of the table of points, where real events are held against.
    real, fake : list of Observables
        The events that are compared there, of the first generated sample.
    probes : list of dict
        Numbers at the points that the problem asks for besides.
    figures : list of (str, str, Figure)
        Of these.
    notices : list of str
    """

    rows: list[Row] = field(default_factory=list)
    real: list[Observables] = field(default_factory=list)
    fake: list[Observables] = field(default_factory=list)
    probes: list[Row] = field(default_factory=list)
    figures: list[tuple[str, str, Figure]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def score_left_out(
    sampler: RunSampler,
    splits: dict[str, Loaded],
    split: str,
    left_out: list[dict[str, float]],
    trained: Observables,
    trained_pool: Observables,
    options: EvaluationOptions,
) -> Beyond:
    """Score at each point that was left out, with about as many events as the trained points have each.

    Parameters
    ----------
    sampler : RunSampler
    splits : dict of str to Loaded
        All events of the split that is compared, and of the two of the null band.
    split : str
        The one that is compared.
    left_out : list of dict
        `data.leave_out` of the run.
    trained, trained_pool : Observables
        Real events of the trained points that are compared, and all of the null band.
    options : EvaluationOptions
    """
    problem = sampler.problem
    held_out = {
        name: points.take(loaded.observables, np.flatnonzero(is_left_out(loaded.observables, left_out)))
        for name, loaded in splits.items()
    }
    pool = join([held_out["val"], held_out["test"]])
    sizes, pool_sizes, trained_pool_sizes = (points.sizes(events) for events in (trained, pool, trained_pool))
    candidates = [points.described(trained, point) for point in sizes if point in trained_pool_sizes]

    def generated(at: Mapping[str, float], n: int) -> list[Observables]:
        conditions = each(of_points(problem, [at]))
        samples = (sampler.sample(n, options.seed + i, conditions=conditions) for i in range(options.samples))
        return [observables_of_sample(problem, sample) for sample in samples]

    result = Beyond()
    for point, available in points.sizes(held_out[split]).items():
        conditions = points.described(held_out[split], point)
        if pool_sizes.get(point, 0) < 2:
            result.notices.append(f"Not scored at {points.label(conditions)}: too few real events for a null band.")
            continue
        nearest = nearest_point(problem, conditions, candidates)
        nearest_key = tuple(nearest[name] for name in sorted(nearest))
        n_nearest = trained_pool_sizes[nearest_key]
        n = min(available, n_nearest, round(sum(sizes.values()) / len(sizes)))
        real = points.take(held_out[split], points.first_events(held_out[split], {point: n}))
        real_nearest = [
            points.take(trained_pool, points.first_events(trained_pool, {nearest_key: n}, skip=i))
            for i in range(min(options.samples, n_nearest // n))
        ]
        fakes = generated(conditions, n)
        pool_there = points.take(pool, points.events_of(pool, point))
        beside = (nearest, real_nearest, generated(nearest, n))
        result.rows.append(left_out_row(problem, real, fakes, pool_there, beside, options.repetitions))
        result.real.append(real)
        result.fake.append(fakes[0])
    return result


def nearest_point(problem: Problem, point: Point, candidates: Sequence[Point]) -> Point:
    """The candidate nearest to a point in the conditions as the networks see them."""
    ordered = sorted(candidates, key=lambda candidate: tuple(candidate[name] for name in problem.conditions))
    distances = np.sqrt(np.sum((_encoded(problem, ordered) - _encoded(problem, [point])) ** 2, axis=1))
    # Masses that are equally far off in GeV need not be to the last bit of what the networks see.
    return ordered[int(np.flatnonzero(distances <= distances.min() * (1 + 1e-5))[0])]


def _encoded(problem: Problem, at: Sequence[Point]) -> np.ndarray:
    """(k, c) float64."""
    encoded = problem.encode_conditions(of_points(problem, at))
    return np.concatenate([encoded[name].reshape(len(at), -1) for name in problem.conditions], axis=1, dtype=float)


# --- probes ------------------------------------------------------------------------------------------


def probe(sampler: RunSampler, beyond: Beyond, real: Sample, seed: int, weights: np.ndarray | None = None) -> None:
    """Make `PROBE_EVENTS` events at each of the problem's probes, within the training range and beyond.

    Parameters
    ----------
    sampler : RunSampler
    beyond : Beyond
        Gets the numbers and figures; where the training data are not found, it is told.
    real : Sample
        Real events, for the figures.
    seed : int
    weights : (n,) array, optional
        Of the real events.
    """
    problem = sampler.problem
    if not problem.conditions:
        return
    try:
        trained = sampler.training_conditions
    except InputError as error:
        beyond.notices.append(f"Not probed beyond the training events' conditions: {error}")
        return
    at_points = []
    for i, point in enumerate(figures_of(problem).probes(trained)):
        sample = sampler.sample(PROBE_EVENTS, seed + i, conditions=each(of_points(problem, [point])))
        observables = observables_of_sample(problem, sample)
        spreads = {
            name: {"mean": float(o.values.mean()), "std": float(o.values.std())} if len(o.values) else None
            for name, o in points.measured(observables).items()
        }
        beyond.probes.append({"conditions": dict(point), "n": PROBE_EVENTS, "observables": spreads})
        at_points.append((point, observables))
    if at_points:
        beyond.figures = figures_of(problem).probed(trained, real, at_points, weights)


# --- files -------------------------------------------------------------------------------------------


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
    of_real, of_fake = points.sizes(real), points.sizes(fake)
    common = [point for point in of_real if point in of_fake]
    if not common:
        raise ValueError("real and generated events have no point of the conditions in common")
    notices = []
    for side, sizes in (("Real", of_real), ("Generated", of_fake)):
        alone = [points.label(points.described(real, point)) for point in sizes if point not in common]
        if alone:
            notices.append(f"{side} events at {'; '.join(alone)} are left out: the other side has none.")
    # In the proportions of the real events, to a sum of n.
    upto = np.cumsum([0, *(of_real[point] for point in common)])
    bounds = upto * min(n, int(upto[-1])) // upto[-1]
    share = {point: max(1, min(int(size), of_fake[point])) for point, size in zip(common, np.diff(bounds), strict=True)}
    count = min(samples, *(of_fake[point] // size for point, size in share.items()))
    return points.first_events(real, share), [points.first_events(fake, share, skip=i) for i in range(count)], notices
