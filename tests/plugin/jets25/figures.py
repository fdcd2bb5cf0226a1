"""Figures of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.base import Observables

EXTENT = (-12.5, 12.5, -12.5, 12.5)
AXES = (r"$\eta$ [pixels]", r"$\phi$ [pixels]")
LABELS = {"jet_pt": r"Jet $p_T$", "lit_pixels": "Lit pixels", "width": "Width"}


def figures(real: Observables, fake: Observables) -> list[tuple[str, str, Figure]]:
    """A histogram of each observable: identifier, caption, figure."""
    return [
        (name, f"{label}, real and generated.", plots.histogram_ratio(real[name], fake[name], label))
        for name, label in LABELS.items()
    ]


def images(real: np.ndarray, fake: np.ndarray) -> tuple[str, Figure]:
    """Caption and figure of single jets (n, 25, 25) in GeV."""
    return "Jets side by side.", plots.image_grid(real, fake, EXTENT, "$p_T$ [GeV]", AXES)
