"""Figures of whole-detector calorimeter images, real against generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.physics.images import ETA_RANGE, MEV_PER_GEV, PHI_RANGE
from hpcgan.physics.jets import JET_PT_MIN_GEV, cluster
from hpcgan.problems.figures import BEYOND, Canvas, Captioned, Figures, distance
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hpcgan.problems.detector_images.rpv import RpvProblem

EXTENT = (*ETA_RANGE, *PHI_RANGE)
AXES = (r"$\eta$", r"$\phi$")
GEV = 1 / MEV_PER_GEV


def image_quantities(images: np.ndarray) -> dict[str, Observable]:
    """What can be read off an image without clustering.

    Parameters
    ----------
    images : (n, 64, 64) array
        Energies in MeV.

    Returns
    -------
    dict
        `total_energy` (GeV, sum over the pixels) and `occupancy` (number of non-zero pixels), one value
        an event; `pixel_energy` (MeV), one value a non-zero pixel.
    """
    lit = images > 0
    counts = np.count_nonzero(lit, axis=(1, 2))
    return {
        "total_energy": Observable(images.sum(axis=(1, 2), dtype=np.float64) * GEV, unit="GeV"),
        "occupancy": Observable(counts),
        "pixel_energy": Observable(images[lit], counts, "MeV"),
    }


def jet_observables(images: np.ndarray, pt_min_gev: float = JET_PT_MIN_GEV) -> dict[str, Observable]:
    """Jet quantities of images (n, 64, 64) in MeV, of jets above a pT in GeV.

    Returns
    -------
    dict
        `jet_multiplicity`, `summed_jet_mass` (GeV), one value an event; `jet_pt` (GeV), one a jet;
        `leading_jet_pt` (GeV), one an event with a jet.
    """
    jets = cluster(images, pt_min_gev)
    has_jet = jets.counts > 0
    return {
        "jet_multiplicity": Observable(jets.counts),
        "summed_jet_mass": Observable(jets.summed_mass, unit="GeV"),
        "jet_pt": Observable(jets.pt, jets.counts, "GeV"),
        "leading_jet_pt": Observable(jets.leading_pt()[has_jet], has_jet.astype(np.int64), "GeV"),
    }


class ImageFigures(Figures):
    """Jets, sums and pixels of whole-detector images (n, 64, 64) in MeV, axes [eta, phi]."""

    canvas: ClassVar[Canvas] = Canvas(EXTENT, "Energy [MeV]", AXES)
    problem: RpvProblem

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        images = (real["hist"], fake["hist"])
        quantities = [
            weighted({**jet_observables(side, self.problem.jet_pt_min_gev), **image_quantities(side)}, w)
            for side, w in zip(images, weights, strict=True)
        ]
        panels = [
            _comparison(quantities, "jet_multiplicity", "Jet multiplicity", "Number of jets in an event."),
            _comparison(quantities, "summed_jet_mass", "Summed jet mass", "Sum of the masses of an event's jets."),
            _comparison(quantities, "jet_pt", "Jet $p_T$", "Transverse momentum of every jet.", log_of="Jets"),
            _comparison(
                quantities, "leading_jet_pt", "Leading jet $p_T$", "Transverse momentum of an event's hardest jet."
            ),
            _comparison(quantities, "total_energy", "Total energy", "Energy summed over the pixels of an image."),
            _comparison(quantities, "occupancy", "Non-zero pixels", "Number of pixels with energy in an image."),
            _pixel_spectrum(quantities),
            (
                "mean_image",
                "Mean energy of each pixel; the difference relative to real, and in units of its standard error.",
                plots.mean_images(images[0] * GEV, images[1] * GEV, EXTENT, "Mean energy [GeV]", AXES, weights=weights),
            ),
        ]
        for name, axis, (low, high), zoom in (("eta", 2, ETA_RANGE, None), ("phi", 1, PHI_RANGE, 0.9)):
            a, b = (side.sum(axis=axis, dtype=np.float64) * GEV for side in images)
            edges = np.linspace(low, high, a.shape[1] + 1)
            figure = plots.profile_ratio(edges, a, b, rf"$\{name}$", "Mean energy [GeV]", zoom=zoom, weights=weights)
            note = " The outermost bins reach beyond the circle." if name == "phi" else ""
            panels.append((f"{name}_profile", f"Mean energy of an event in bins of {name}.{note}", figure))
        panels.append(("images", *self.singles(real, fake)))
        return panels

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        images = fake["hist"]
        of_real, canvas = images[:0] if real is None else real["hist"], self.canvas
        figure = plots.image_grid(of_real, images, canvas.extent, canvas.value, canvas.axes)
        return "Events side by side, unselected; empty pixels are white.", figure


def _comparison(
    sides: Sequence[Mapping[str, Observable]], name: str, label: str, caption: str, log_of: str = ""
) -> Captioned:
    """Histograms of a quantity; with `log_of`, of what there are several in an event, on a logarithmic axis."""
    real, fake = (side[name] for side in sides)
    figure = plots.histogram_ratio(real, fake, label, entries=log_of or "Events", log_y=bool(log_of))
    return name, f"{caption} {distance(real, fake)} {BEYOND}", figure


def _pixel_spectrum(pixels: Sequence[Mapping[str, Observable]]) -> Captioned:
    energies = np.concatenate([side["pixel_energy"].values for side in pixels])
    low, high = (float(energies.min()), float(energies.max())) if len(energies) else (1.0, 10.0)
    low = max(low, 1e-6 * high)
    edges = np.geomspace(low, max(high, 1.001 * low), 46)
    real, fake = (side["pixel_energy"] for side in pixels)
    figure = plots.histogram_ratio(real, fake, "Pixel energy", entries="Pixels", edges=edges, log_x=True, log_y=True)
    return "pixel_spectrum", "Energies of all non-zero pixels.", figure
