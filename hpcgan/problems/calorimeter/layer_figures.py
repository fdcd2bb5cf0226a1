"""Figures of one layer of calorimeter showers, real against generated."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.ks import ks_test
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights
from hpcgan.physics.calorimeter import HALF_SIDE
from hpcgan.problems.calorimeter.files import ENERGY
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def figures(
    layer: str,
    samples: tuple[Sample, Sample],
    sides: Sequence[Mapping[str, Observable]],
    weights: SidesWeights = UNWEIGHTED,
) -> list[tuple[str, str, Figure]]:
    """All figures of a report.

    Parameters
    ----------
    layer : str
        Name of the tensor with the image.
    samples : pair of Sample
        Real and generated ones: the image of the layer (n, phi, eta) in MeV and `energy` (n, 1) in GeV; the numbers of
        showers may differ.
    sides : pair of mapping of str to Observable
        Their observables, weighted.
    weights : pair of (n,) array or None
        Of the showers.

    Returns
    -------
    list of (identifier, caption, Figure)
    """
    real, fake = samples
    images = (real[layer], fake[layer])
    panels: list[tuple[str, str, Figure]] = []
    for name, (label, text) in _TITLES.items():
        a, b = (side[name] for side in sides)
        caption = f"{text} {_distance(a, b)} Values beyond the axis are counted in the outermost bins."
        panels.append((name, caption, plots.histogram_ratio(a, b, label)))
    if len(np.unique(real[ENERGY])) > INTERVALS:
        panels.append(_by_energy(samples, [side["response"] for side in sides]))
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
    panels.append(("images", *images_figure(*images)))
    return panels


def images_figure(real: np.ndarray, fake: np.ndarray) -> tuple[str, Figure]:
    """Caption and figure of single images (n, phi, eta) in MeV; there may be none of one kind."""
    figure = plots.image_grid(_eta_first(real), _eta_first(fake), EXTENT, "Energy [MeV]", AXES)
    return "Showers side by side, unselected; cells without energy are white.", figure


def _eta_first(images: np.ndarray) -> np.ndarray:
    """As figures draw them: the first axis horizontally."""
    return images.transpose(0, 2, 1)


def _by_energy(sides: tuple[Sample, Sample], responses: list[Observable]) -> tuple[str, str, Figure]:
    energies = [side[ENERGY].reshape(-1) for side in sides]
    edges = np.quantile(energies[0], np.linspace(0.0, 1.0, INTERVALS + 1))
    curves = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = [np.flatnonzero((e >= low) & (e <= high)) for e in energies]
        a, b = (response.take(which) for response, which in zip(responses, inside, strict=True))
        curves.append((i / (INTERVALS - 1), f"{low:.3g} to {high:.3g} GeV", a, b))
    figure = plots.families([("Incident energy", curves)], "Energy in the layer / incident energy")
    return "response_by_energy", "The same in intervals of the incident energy.", figure


def _cells(images: tuple[np.ndarray, np.ndarray], weights: SidesWeights) -> tuple[str, str, Figure]:
    a, b = (
        Observable(
            image[image > 0].astype(np.float64), np.count_nonzero(image > 0, axis=(1, 2)), "MeV", weights=of_images
        )
        for image, of_images in zip(images, weights, strict=True)
    )
    lit = a.values if len(a.values) else np.ones(1)
    edges = np.geomspace(lit.min(), max(lit.max(), 1.001 * lit.min()), 46)
    figure = plots.histogram_ratio(a, b, "Cell energy", entries="Cells", edges=edges, log_x=True, log_y=True)
    caption = "Energies of all cells with energy. Values beyond the axis are counted in the outermost bins."
    return "cell_spectrum", caption, figure


def _distance(real: Observable, fake: Observable) -> str:
    if not len(real.values) or not len(fake.values):
        return "No values on at least one side."
    return f"KS distance {ks_test(real.values, fake.values, real.value_weights, fake.value_weights)[0]:.3f}."
