"""Figures of one layer of calorimeter showers, real against generated."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights
from hpcgan.physics.calorimeter import HALF_SIDE
from hpcgan.problems.calorimeter.files import ENERGY
from hpcgan.problems.figures import BEYOND, Captioned, Figures, distance
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.calorimeter.layer import CaloLayerProblem

EXTENT = (-HALF_SIDE, HALF_SIDE, -HALF_SIDE, HALF_SIDE)
AXES = (r"$\eta$ (x) [mm]", r"$\phi$ (y) [mm]")
INTERVALS = 3
"""Intervals of the incident energy with as many real showers each."""

_TITLES = {
    "energy": ("Energy in the layer", "Sum over the cells."),
    "response": ("Energy in the layer / incident energy", "Whether a shower has the energy that it was asked for."),
    "occupancy": ("Share of cells with energy", "Cells with energy among all of the layer."),
    "width_eta": (r"Lateral width in $\eta$", "Standard deviation along x, weighted by energy."),
    "width_phi": (r"Lateral width in $\phi$", "Standard deviation along y, weighted by energy."),
    "ratio": (
        r"$(E_1 - E_2) / (E_1 + E_2)$",
        "The two brightest cells of a shower.",
    ),
}


class LayerFigures(Figures):
    """Shower shapes, cells and images (n, phi, eta) of a layer, in MeV."""

    problem: CaloLayerProblem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        layer = self.problem.model.layer
        images = (real[layer], fake[layer])
        sides = self.observables(real, fake, weights)
        panels: list[Captioned] = []
        for name, (label, text) in _TITLES.items():
            a, b = (side[name] for side in sides)
            panels.append((name, f"{text} {distance(a, b)} {BEYOND}", plots.histogram_ratio(a, b, label)))
        if len(np.unique(real[ENERGY])) > INTERVALS:
            panels.append(_by_energy((real, fake), [side["response"] for side in sides]))
        panels.append(_cells(images, weights))
        panels.append(
            (
                "mean_image",
                "Mean energy of each cell; the difference relative to real, and in units of its standard error.",
                plots.mean_images(
                    _eta_first(images[0]), _eta_first(images[1]), EXTENT, "Mean energy [MeV]", AXES, weights=weights
                ),
            )
        )
        for name, axis, cells in (("eta", 1, images[0].shape[2]), ("phi", 2, images[0].shape[1])):
            a, b = (side.sum(axis=axis, dtype=np.float64) for side in images)
            edges = np.linspace(-HALF_SIDE, HALF_SIDE, cells + 1)
            figure = plots.profile_ratio(edges, a, b, AXES[name == "phi"], "Mean energy [MeV]", weights=weights)
            panels.append((f"{name}_profile", f"Mean energy of a shower along {name}.", figure))
        panels.append(("images", *self.singles(real, fake)))
        return panels

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        images = fake[self.problem.model.layer]
        beside = images[:0] if real is None else real[self.problem.model.layer]
        figure = plots.image_grid(_eta_first(beside), _eta_first(images), EXTENT, "Energy [MeV]", AXES)
        return "Showers side by side, unselected; cells without energy are white.", figure


def _eta_first(images: np.ndarray) -> np.ndarray:
    """As figures draw them: the first axis horizontally."""
    return images.transpose(0, 2, 1)


def _by_energy(sides: tuple[Sample, Sample], responses: list[Observable]) -> Captioned:
    energies = [side[ENERGY].reshape(-1) for side in sides]
    edges = np.quantile(energies[0], np.linspace(0.0, 1.0, INTERVALS + 1))
    curves = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = [np.flatnonzero((e >= low) & (e <= high)) for e in energies]
        a, b = (response.take(which) for response, which in zip(responses, inside, strict=True))
        curves.append((i / (INTERVALS - 1), f"{low:.3g} to {high:.3g} GeV", a, b))
    figure = plots.families([("Incident energy", curves)], "Energy in the layer / incident energy")
    return "response_by_energy", "The same in intervals of the incident energy.", figure


def _cells(images: tuple[np.ndarray, np.ndarray], weights: SidesWeights) -> Captioned:
    a, b = (
        Observable(
            image[image > 0].astype(np.float64), np.count_nonzero(image > 0, axis=(1, 2)), "MeV", weights=of_images
        )
        for image, of_images in zip(images, weights, strict=True)
    )
    lit = a.values if len(a.values) else np.ones(1)
    edges = np.geomspace(lit.min(), max(lit.max(), 1.001 * lit.min()), 46)
    figure = plots.histogram_ratio(a, b, "Cell energy", entries="Cells", edges=edges, log_x=True, log_y=True)
    return "cell_spectrum", f"Energies of all cells with energy. {BEYOND}", figure
