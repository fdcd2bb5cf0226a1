"""What a report says of quantities that are not in the score: a score of each, and counts of the largest values.

None of these numbers is added to the score. Values of one event, such as its pixels, are not independent of one
another, and neither are quantities. What real events score against other real ones is the scale on which to read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.evaluation.compare import at_band, sizes_of
from hpcgan.evaluation.conditional import trained_rows
from hpcgan.evaluation.distances import Samples, spread
from hpcgan.evaluation.events import Loaded, observables_of_sample
from hpcgan.evaluation.tails import count_tails
from hpcgan.metrics import points
from hpcgan.metrics.ks import ks_score_by_point
from hpcgan.metrics.null_band import null_band
from hpcgan.metrics.observable import Score, weighted
from hpcgan.problems.base import Observables, Problem

#: Real-against-real comparisons, at most: each is one of many quantities.
SPLITS = 400
#: Quantities that a terminal names.
NAMED = 5


@dataclass
class MoreSamples:
    """More observables of the events of a report, besides those of the score.

    Attributes
    ----------
    problem : Problem
    names : list of str
        Of those that are measured.
    selection : list of str
        What the run has selected its epoch by, where that is not the score.
    real, pool : Observables
        Of the real events that are compared, and of all that a null band may be drawn from.
    fakes : list of Observables
        Of each generated sample.
    training : Observables
        Observables and more observables of the training events, with one value an event, as far as they are known.
    """

    problem: Problem
    names: list[str]
    selection: list[str] = field(default_factory=list)
    real: Observables = field(default_factory=dict)
    pool: Observables = field(default_factory=dict)
    fakes: list[Observables] = field(default_factory=list)
    training: Observables = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, observables: Observables, selection: Sequence[str] | None = None) -> MoreSamples:
        """Nothing as yet, of events that have these observables."""
        names = dict.fromkeys([*problem.more_quantities, *problem.tails])
        return cls(problem, [name for name in names if name not in observables], list(selection or []))

    def of_loaded(self, loaded: Loaded) -> Observables:
        """Of all events that were read of a file."""
        return loaded.more(self.problem, self.names) if self.names else {}

    def add_generated(self, sample: Sample, weights: np.ndarray | None = None) -> None:
        """Measure a generated sample, of events that count with these weights."""
        of_sample = observables_of_sample(self.problem, sample, self.names) if self.names else {}
        self.fakes.append(of_sample if weights is None else weighted(of_sample, weights))

    def add_training(self, loaded: Loaded) -> None:
        """Measure what the largest values of training events are needed of."""
        single = [name for name in self.problem.tails if name in self.real and self.real[name].counts is None]
        more = loaded.more(self.problem, single) if single else {}
        self.training = {**loaded.observables, **more}


def measure(samples: Samples, more: MoreSamples, repetitions: int, seed: int = 0) -> dict[str, Any]:
    """All numbers as JSON-able types.

    Parameters
    ----------
    samples : Samples
        The events of the report with the problem's observables.
    more : MoreSamples
    repetitions : int
        Real-against-real comparisons of the report's null band; here there are at most `SPLITS`.
    seed : int
        Of the splits.

    Returns
    -------
    dict
        `more_scores`, `selection` (both None if there is nothing to say) and `tails`.
    """
    real, pool = {**samples.real, **more.real}, {**samples.pool, **more.pool}
    fakes = [{**own, **others} for own, others in zip(samples.fakes, more.fakes, strict=True)]
    return {
        **_scores(more, real, fakes, pool, min(SPLITS, repetitions), seed),
        # With conditions generated events are asked for at the points of `real`, in its proportions.
        "tails": count_tails(more.problem.tails, real if points.condition_names(real) else pool, fakes, more.training),
    }


def _scores(
    more: MoreSamples, real: Observables, fakes: list[Observables], pool: Observables, splits: int, seed: int
) -> dict[str, Any]:
    quantities = list(more.problem.more_quantities)
    names = list(dict.fromkeys([*quantities, *more.selection]))
    if not names:
        return {"more_scores": None, "selection": None}
    compared = [*points.condition_names(real), *names]
    real, pool, *fakes = ({name: side[name] for name in compared} for side in (real, pool, *fakes))

    def score(a: Observables, b: Observables) -> Score:
        whole = ks_score_by_point(a, b, names)
        return dataclasses.replace(whole, total=sum(whole.parts[name] for name in more.selection))

    band = null_band(pool, score, sizes_of(real), splits, seed)
    real, *fakes = at_band(band, real, fakes)
    scores = [score(real, fake) for fake in fakes]
    of_each = {}
    for name in quantities:
        levels = {level: band.parts[name][level] for level in ("median", "p95")}
        means = {"real": real[name].mean, "generated": fakes[0][name].mean}
        values = [s.parts[name] for s in scores]
        of_each[name] = {"unit": real[name].unit, **spread(values), "samples": values, "band": levels, "means": means}
    numbers: dict[str, Any] = {"selection": None}
    at_points = [
        {
            "conditions": row["conditions"],
            "parts": {name: row["parts"][name] for name in quantities},
            "band": {"parts": {name: row["band"]["parts"][name] for name in quantities}},
        }
        for row in trained_rows(band, scores)
    ]
    of_all = {"n": band.n, "splits": splits, "quantities": of_each, "points": at_points}
    numbers["more_scores"] = of_all if quantities else None
    if more.selection:
        totals = [s.total for s in scores]
        numbers["selection"] = {
            "n": band.n,
            "splits": splits,
            "quantities": more.selection,
            **spread(totals),
            "samples": totals,
            "band": {level: band.levels[level] for level in ("median", "p95")},
            "share_above": float(np.mean([band.share_above(s) for s in scores])),
        }
    return numbers


def summary(data: dict[str, Any]) -> list[str]:
    """Lines for a terminal, of a report's JSON."""
    lines = []
    selection, scores = data["selection"], data["more_scores"]
    if selection is not None:
        lines.append(
            f"selection {_text(selection)} at N={selection['n']}, over {', '.join(selection['quantities'])} "
            f"(real: 95% below {selection['band']['p95']:.2f})"
        )
    if scores is not None:
        quantities = scores["quantities"]
        beyond = {name: row["mean"] - row["band"]["p95"] for name, row in quantities.items()}
        farthest = sorted(quantities, key=lambda name: -beyond[name])[:NAMED]
        shares = [
            f"{name.replace('_', ' ')} {_text(quantities[name])} ({quantities[name]['band']['p95']:.2f})"
            for name in farthest
        ]
        above = sum(value > 0 for value in beyond.values())
        lines += [
            f"beside the score, at N={scores['n']}: {above} of {len(quantities)} quantities above 95% of real",
            f"  farthest, -ln p (real: 95% below): {', '.join(shares)}",
        ]
    if data["tails"]:
        counts = [
            f"{row['name'].replace('_', ' ')} {row['generated']['value']:.0f} +- {row['generated']['error']:.0f} "
            f"(expected {row['expected']['value']:.1f} +- {row['expected']['error']:.1f})"
            for row in data["tails"]
        ]
        lines.append(f"beyond {data['tails'][0]['level']:.1%} of real values: {', '.join(counts)}")
    return lines


def _text(numbers: dict[str, Any]) -> str:
    return f"{numbers['mean']:.2f}" + ("" if numbers["std"] is None else f" +- {numbers['std']:.2f}")
