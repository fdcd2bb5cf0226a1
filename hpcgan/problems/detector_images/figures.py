"""Figures of whole-detector calorimeter images, real against generated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.ks import ks_test
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights, weighted
from hpcgan.physics.images import ETA_RANGE, MEV_PER_GEV, PHI_RANGE
from hpcgan.physics.jets import JET_PT_MIN_GEV, cluster
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXTENT = (*ETA_RANGE, *PHI_RANGE)
AXES = (r"$\eta$", r"$\phi$")
GEV = 1 / MEV_PER_GEV
_FOLDED = "Values beyond the axis are counted in the outermost bins."


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


def figures(
    real: Sample, fake: Sample, pt_min_gev: float = JET_PT_MIN_GEV, weights: SidesWeights = UNWEIGHTED
) -> list[tuple[str, str, Figure]]:
    """All figures of a report on RPV-SUSY (or any other whole-detector) images.

    Parameters
    ----------
    real, fake : Sample
        `hist` (n, 64, 64) in MeV, axes [eta, phi]; the numbers of events may differ.
    pt_min_gev : float
        Jets below are left out.
    weights : pair of (n,) array or None
        Of the events.

    Returns
    -------
    list of (identifier, caption, Figure)
    """
    images = (real["hist"], fake["hist"])
    sides = list(zip(images, weights, strict=True))
    jets = [weighted(jet_observables(side, pt_min_gev), w) for side, w in sides]
    pixels = [weighted(image_quantities(side), w) for side, w in sides]
    captioned_figures: list[tuple[str, str, Figure]] = []

    def compare(
        name: str,
        sides: list[dict[str, Observable]],
        label: str,
        caption: str,
        entries: str = "Events",
        log_y: bool = False,
    ) -> None:
        a, b = sides[0][name], sides[1][name]
        figure = plots.histogram_ratio(a, b, label, entries=entries, log_y=log_y)
        captioned_figures.append((name, f"{caption} {_distance(a, b)} {_FOLDED}", figure))

    compare("jet_multiplicity", jets, "Jet multiplicity", "Number of jets in an event.")
    compare("summed_jet_mass", jets, "Summed jet mass", "Sum of the masses of an event's jets.")
    compare("jet_pt", jets, "Jet $p_T$", "Transverse momentum of every jet.", "Jets", log_y=True)
    compare("leading_jet_pt", jets, "Leading jet $p_T$", "Transverse momentum of an event's hardest jet.")
    compare("total_energy", pixels, "Total energy", "Energy summed over the pixels of an image.")
    compare("occupancy", pixels, "Non-zero pixels", "Number of pixels with energy in an image.")
    captioned_figures.append(_pixel_spectrum(pixels))
    captioned_figures.append(
        (
            "mean_image",
            "Mean energy of each pixel; the difference relative to real, and in units of its standard error.",
            plots.mean_images(images[0] * GEV, images[1] * GEV, EXTENT, "Mean energy [GeV]", AXES, weights=weights),
        )
    )
    for name, axis, (low, high), zoom in (("eta", 2, ETA_RANGE, None), ("phi", 1, PHI_RANGE, 0.9)):
        a, b = (side.sum(axis=axis, dtype=np.float64) * GEV for side in images)
        edges = np.linspace(low, high, a.shape[1] + 1)
        figure = plots.profile_ratio(edges, a, b, rf"$\{name}$", "Mean energy [GeV]", zoom=zoom, weights=weights)
        note = " The outermost bins reach beyond the circle." if name == "phi" else ""
        captioned_figures.append((f"{name}_profile", f"Mean energy of an event in bins of {name}.{note}", figure))
    captioned_figures.append(("images", *images_figure(*images)))
    return captioned_figures


def images_figure(real: np.ndarray, fake: np.ndarray) -> tuple[str, Figure]:
    """Caption and figure of single images (n, 64, 64) in MeV; there may be none of one kind."""
    figure = plots.image_grid(real, fake, EXTENT, "Energy [MeV]", AXES)
    return "Events side by side, unselected; empty pixels are white.", figure


def _pixel_spectrum(pixels: list[dict[str, Observable]]) -> tuple[str, str, Figure]:
    energies = np.concatenate([side["pixel_energy"].values for side in pixels])
    low, high = (float(energies.min()), float(energies.max())) if len(energies) else (1.0, 10.0)
    low = max(low, 1e-6 * high)
    edges = np.geomspace(low, max(high, 1.001 * low), 46)
    real, fake = (side["pixel_energy"] for side in pixels)
    figure = plots.histogram_ratio(real, fake, "Pixel energy", entries="Pixels", edges=edges, log_x=True, log_y=True)
    return "pixel_spectrum", "Energies of all non-zero pixels.", figure


def _distance(real: Observable, fake: Observable) -> str:
    if not len(real.values) or not len(fake.values):
        return "No values on at least one side."
    return f"KS distance {ks_test(real.values, fake.values, real.value_weights, fake.value_weights)[0]:.3f}."
