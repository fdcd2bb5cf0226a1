"""What a report shows of a problem: its figures and numbers of its own.

Kept apart from the problem, which is read where there is no matplotlib: `Problem.figures` names the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.ks import ks_test
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.plugins import load_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.base import Observables, Problem

Captioned = tuple[str, str, "Figure"]
"""Identifier, caption and matplotlib figure."""

BEYOND = "Values beyond the axis are counted in the outermost bins."


@dataclass(frozen=True)
class Canvas:
    """How images of a problem are drawn.

    Attributes
    ----------
    extent : tuple
        (first low, first high, second low, second high), the ranges of the axes; the first is drawn horizontally.
    value : str
        Label of the colour scale.
    axes : (str, str)
    linear : bool
        A linear colour scale, for dense images of either sign, not a logarithmic one with white zeros.
    """

    extent: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    value: str = ""
    axes: tuple[str, str] = ("first axis", "second axis")
    linear: bool = False


class Figures:
    """Nothing but what every report has; a subclass adds what there is to see of its problem's samples.

    Samples are in physical units; `weights` are those of the real and of the generated events, (n,) or None where all
    count alike.

    Parameters
    ----------
    problem : Problem
    """

    #: Of the images that `Problem.images` names.
    canvas: ClassVar[Canvas] = Canvas()

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        """Plots of real against generated samples; their numbers may differ."""
        return []

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure] | None:
        """Caption and figure of single samples, beside real ones if there are any; None if they are no images."""
        return None

    def points(self, real: Observables, fake: Observables, left_out: Sequence[Mapping[str, float]]) -> list[Captioned]:
        """Plots of how events change with their conditions.

        Parameters
        ----------
        real, fake : Observables
            Of events at all points, conditions among them.
        left_out : sequence of mapping
            The points that the model was not trained on.
        """
        return []

    def measurements(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> dict[str, Any]:
        """Numbers for the report's JSON, as plain values."""
        return {}

    def probes(self, trained: Sample) -> list[Mapping[str, float]]:
        """Points at which a report has the generator make events besides; `trained`: conditions of the training."""
        return []

    def probed(
        self,
        trained: Sample,
        real: Sample,
        probes: Sequence[tuple[Mapping[str, float], Observables]],
        weights: np.ndarray | None = None,
    ) -> list[Captioned]:
        """Plots of what the generator made of the `probes`.

        Parameters
        ----------
        trained : Sample
            Conditions of the training events.
        real : Sample
        probes : sequence of (point, observables)
        weights : (n,) array or None
            Of the real events.
        """
        return []

    def observables(self, real: Sample, fake: Sample, weights: SidesWeights) -> list[Observables]:
        """The problem's observables of both, with their weights."""
        return [weighted(self.problem.observables(s), w) for s, w in zip((real, fake), weights, strict=True)]


def figures_of(problem: Problem) -> Figures:
    """What a report shows of a problem.

    Raises
    ------
    InputError
        `Problem.figures` cannot be imported, or is something else.
    """
    if not problem.figures:
        return Figures(problem)
    cls: type[Figures] = load_class(problem.figures, f"figures of problem '{problem.name}'", Figures, ())
    return cls(problem)


def distance(real: Observable, fake: Observable) -> str:
    """A sentence for a caption: how far two distributions are apart."""
    if not len(real.values) or not len(fake.values):
        return "No values on at least one side."
    return f"KS distance {ks_test(real.values, fake.values, real.value_weights, fake.value_weights)[0]:.3f}."
