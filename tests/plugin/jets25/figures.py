"""Figures of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcgan.data.schema import Sample
from hpcgan.metrics.observable import UNWEIGHTED, SidesWeights
from hpcgan.problems.figures import Captioned, Figures, distance
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTENT = (-12.5, 12.5, -12.5, 12.5)
AXES = (r"$\eta$ [pixels]", r"$\phi$ [pixels]")
LABELS = {"jet_pt": r"Jet $p_T$", "lit_pixels": "Lit pixels", "width": "Width"}


class Jets25Figures(Figures):
    """A histogram of each observable, and single jets."""

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        a, b = self.observables(real, fake, weights)
        return [
            (name, f"{label}. {distance(a[name], b[name])}", plots.histogram_ratio(a[name], b[name], label))
            for name, label in LABELS.items()
        ]

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        jets = fake["jet"]
        beside = jets[:0] if real is None else real["jet"]
        return "Jets side by side.", plots.image_grid(beside, jets, EXTENT, "$p_T$ [GeV]", AXES)
