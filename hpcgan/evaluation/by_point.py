"""What a report says of each point of the conditions by itself: all distances, beside those of real against real.

Pooled events hide much: one class that is made well and one that is made badly come to something in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpcgan.evaluation.compare import Comparison, at_band, reference
from hpcgan.evaluation.conditional import Row
from hpcgan.evaluation.distances import NAMES, Options, Samples
from hpcgan.evaluation.distances import measure as sample_distances
from hpcgan.evaluation.more_scores import MoreSamples
from hpcgan.metrics import points
from hpcgan.metrics.distances import distances
from hpcgan.problems.base import Observables

Log = Callable[[str], None]
#: Quantities of a point that a terminal shows, at most; of more only those that are the problem's observables.
MOST_LINES = 8


def measure(
    samples: Samples,
    more: MoreSamples,
    comparison: Comparison,
    scored: Sequence[Row],
    options: Options,
    log: Log,
    seed: int = 0,
) -> list[Row]:
    """All numbers of each point that the model was trained on, as JSON-able types; none without conditions.

    Parameters
    ----------
    samples : Samples
        The events of the report.
    more : MoreSamples
        Their more observables, which are compared as well, those that the problem's `more_quantities` name.
    comparison : Comparison
        Of these events: all is at its band's numbers of events.
    scored : sequence of dict
        What has been scored at each point: `conditions`, `parts` and `band`, as of `conditional.trained_rows`; each
        point as often as there are scores of different quantities.
    options : Options
        Whether there are distances between samples; classifiers are trained elsewhere (`with_classifier`).
    log : callable
    seed : int

    Returns
    -------
    list of dict
        `conditions`, `n` (events on each side), `quantities` (of each its `unit`, its distances as of
        `hpcgan.metrics.distances.Distances`, `reference`, as of `compare.reference`, and `score`, mean and standard
        deviation of -ln p with its `band`, or None), `sample_distances` (as of `hpcgan.evaluation.distances.measure`)
        and `classifier` (None here).
    """
    if not points.condition_names(samples.real):
        return []
    pool = {**samples.pool, **more.pool}
    sides = [{**own, **others} for own, others in zip(samples.fakes, more.fakes, strict=True)]
    real, *fakes = at_band(comparison.band, {**samples.real, **more.real}, sides)
    names = [*points.measured(samples.real), *more.problem.more_quantities]
    own = list(points.measured(samples.real))
    rows = []
    for point, n in points.sizes(real).items():
        of_real, of_pool, *of_fakes = (
            points.take(side, points.events_of(side, point)) for side in (real, pool, *fakes)
        )
        medians = reference(of_pool, names, n, seed)
        scores = _scores_at(points.described(real, point), scored)
        quantities = {
            name: {
                "unit": of_real[name].unit,
                **dataclasses.asdict(distances(of_real[name], of_fakes[0][name], seed=seed)),
                "reference": medians[name],
                "score": scores.get(name),
            }
            for name in names
        }
        whole = Samples(n, *_only(own, of_real, of_fakes, of_pool))
        rows.append(
            {
                "conditions": points.described(real, point),
                "n": n,
                "quantities": quantities,
                "sample_distances": sample_distances(whole, dataclasses.replace(options, classifier=()), log, seed),
                "classifier": None,
            }
        )
    return rows


def _scores_at(point: Mapping[str, float], scored: Sequence[Row]) -> dict[str, Row]:
    """Mean, standard deviation and `band` of -ln p at a point, by the name of the quantity."""
    return {
        name: {**part, "band": row["band"]["parts"][name]}
        for row in scored
        if row["conditions"] == point
        for name, part in row["parts"].items()
    }


def _only(
    names: Sequence[str], real: Observables, fakes: Sequence[Observables], pool: Observables
) -> tuple[Observables, list[Observables], Observables]:
    """Some of the observables of each: conditions, which are all the same at a point, are no features."""
    first, last, *others = ({name: side[name] for name in names} for side in (real, pool, *fakes))
    return first, others, last


def with_classifier(rows: Sequence[Row], of_points: Sequence[Row]) -> list[Row]:
    """The rows of `measure` with what classifiers of all events find at each point (`image_classifier.image_test`)."""
    at_point = {_key(row["conditions"]): row for row in of_points}
    return [{**row, "classifier": at_point.get(_key(row["conditions"]))} for row in rows]


def _key(conditions: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """A point to single precision, which is that of the tensors of a sample."""
    return tuple((name, float(np.float32(value))) for name, value in sorted(conditions.items()))


def summary(data: dict[str, Any]) -> list[str]:
    """Lines for a terminal, of a report's JSON."""
    lines = []
    for row in data["by_point"]:
        lines.append(f"at {points.label(row['conditions'])}, N={row['n']} (in brackets: real against real):")
        few = len(row["quantities"]) <= MOST_LINES
        for name, quantity in row["quantities"].items():
            if not few and name not in data["distances"]:
                continue
            score = quantity["score"]
            parts = [] if score is None else [f"-ln p {score['mean']:.2f} (95% below {score['band']['p95']:.2f})"]
            parts += [
                f"{title} {value:.3g}{unit} ({_text(quantity['reference'][key])})"
                for key, title, value, unit in (
                    ("ks", "KS", None if quantity["ks"] is None else quantity["ks"]["value"], ""),
                    ("wasserstein", "Wasserstein", quantity["wasserstein"], f" {quantity['unit']}".rstrip()),
                )
                if value is not None
            ]
            lines.append(f"  {name.replace('_', ' ')}: {', '.join(parts) or 'no values on at least one side'}")
        measured = row["sample_distances"]
        numbers = {} if measured is None else measured["numbers"]
        whole = [f"{NAMES[name]} {n['mean']:.3g} ({n['null']['mean']:.3g})" for name, n in numbers.items()]
        judged = row["classifier"]
        if judged is not None:
            null = "" if judged["null"] is None else f" ({judged['null']['value']:.3f})"
            whole.append(f"AUC on images {judged['auc']['value']:.3f} +- {judged['auc']['error']:.3f}{null}")
        lines += [f"  {', '.join(whole)}"] if whole else []
    return lines


def _text(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
