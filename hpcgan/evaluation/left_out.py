"""What a model makes of points that were left out of its training, beside what one would use without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcgan.evaluation import by_point, compare
from hpcgan.evaluation.conditions import in_turn
from hpcgan.evaluation.loading import Loaded, observables_of_sample
from hpcgan.evaluation.protocols import Sampler
from hpcgan.metrics import points as grouped
from hpcgan.problems.base import Observables


@dataclass
class LeftOut:
    """Points that a model was not trained on: table rows, the events compared there (first samples), and notices."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    real: list[Observables] = field(default_factory=list)
    fake: list[Observables] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def score_left_out(
    sampler: Sampler,
    splits: dict[str, Loaded],
    split: str,
    left_out: list[dict[str, float]],
    trained: Observables,
    trained_pool: Observables,
    samples: int,
    seed: int,
    repetitions: int,
) -> LeftOut:
    """Score at each point that was left out, with about as many events as the trained points have each."""
    problem = sampler.problem
    there = {}
    for name, loaded in splits.items():
        fits = by_point.is_left_out(loaded.observables, left_out)
        there[name] = grouped.take(loaded.observables, np.flatnonzero(fits))
    pool = compare.join([there["val"], there["test"]])
    sizes = grouped.sizes(trained)
    of_pool, near_pool = grouped.sizes(pool), grouped.sizes(trained_pool)
    candidates = [grouped.described(trained, point) for point in sizes if point in near_pool]
    made = LeftOut()
    for point, available in grouped.sizes(there[split]).items():
        where = grouped.described(there[split], point)
        if of_pool.get(point, 0) < 2:
            made.notices.append(f"Not scored at {grouped.label(where)}: too few real events for a null band.")
            continue
        near = by_point.nearest_point(problem, where, candidates)
        near_point = tuple(near[name] for name in sorted(near))
        near_there = near_pool[near_point]
        n = min(available, near_there, round(sum(sizes.values()) / len(sizes)))
        real = grouped.take(there[split], grouped.first_events(there[split], {point: n}))

        def generated(at: Mapping[str, float], n: int) -> list[Observables]:
            asked = in_turn([at], problem.schema)
            made = (sampler.sample(n, seed + i, conditions=asked) for i in range(samples))
            return [observables_of_sample(problem, sample) for sample in made]

        of_near = [
            grouped.take(trained_pool, grouped.first_events(trained_pool, {near_point: n}, skip=i))
            for i in range(min(samples, near_there // n))
        ]
        fakes = generated(where, n)
        of_point = grouped.take(pool, grouped.events_of(pool, point))
        nearest = (near, of_near, generated(near, n))
        made.rows.append(by_point.left_out_row(problem, real, fakes, of_point, nearest, repetitions))
        made.real.append(real)
        made.fake.append(fakes[0])
    return made
