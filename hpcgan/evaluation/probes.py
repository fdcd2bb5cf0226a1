"""What a generator makes at the points at which its problem has it probed, within the training range and beyond."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.evaluation.conditions import in_turn, training_conditions
from hpcgan.evaluation.loading import observables_of_sample
from hpcgan.evaluation.protocols import Sampler
from hpcgan.metrics import points as grouped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Events at each of the points at which a problem has the generator probed.
PROBE_EVENTS = 256


@dataclass
class Probed:
    """What a generator makes at points that its problem asks for: numbers and figures."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[tuple[str, str, Figure]] = field(default_factory=list)


def probe(sampler: Sampler, real: Sample, seed: int, notices: list[str], weights: np.ndarray | None = None) -> Probed:
    """Make `PROBE_EVENTS` events at each of the problem's probes; `weights` are those of the real ones."""
    problem, probed = sampler.problem, Probed()
    if not problem.conditions:
        return probed
    try:
        trained = training_conditions(problem, sampler.config)
    except InputError as error:
        notices.append(f"Not probed beyond the training events' conditions: {error}")
        return probed
    made = []
    for i, point in enumerate(problem.probes(trained)):
        sample = sampler.sample(PROBE_EVENTS, seed + i, conditions=in_turn([point], problem.schema))
        found = observables_of_sample(problem, sample)
        values = {name: observable.values for name, observable in grouped.measured(found).items()}
        spreads = {
            name: {"mean": float(x.mean()), "std": float(x.std())} if len(x) else None for name, x in values.items()
        }
        probed.rows.append({"conditions": dict(point), "n": PROBE_EVENTS, "observables": spreads})
        made.append((point, found))
    if made:
        probed.figures = problem.probe_figures(trained, real, made, weights)
    return probed
