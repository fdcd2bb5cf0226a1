"""Figures of convergence maps, real against generated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights
from hpcgan.physics.lognormal import FIELD, FUNDAMENTAL, pixel_sites, power_spectrum
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEGREES = float(np.rad2deg(FIELD))
EXTENT = (0.0, DEGREES, 0.0, DEGREES)
AXES = ("x [deg]", "y [deg]")
SITES = 32
"""The histogram shows 32 x 32 pixels of a map, the score 4 x 4: its intervals allow for correlations."""


def figures(real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[tuple[str, str, Figure]]:
    """All figures of a report on convergence maps.

    Parameters
    ----------
    real, fake : Sample
        `kappa` (n, side, side); the numbers of maps may differ.
    weights : pair of (n,) array or None
        Of the maps.

    Returns
    -------
    list of (identifier, caption, Figure)
    """
    maps = (real["kappa"], fake["kappa"])
    return [
        ("maps", *maps_figure(*maps)),
        _spectrum(*maps, weights),
        _pixels(*maps, weights),
        (
            "mean_map",
            "Mean of each pixel; the difference relative to real (around a mean of zero: large), and in units of its "
            "standard error.",
            plots.mean_images(*maps, EXTENT, r"Mean $\kappa$", AXES, weights=weights),
        ),
    ]


def maps_figure(real: np.ndarray, fake: np.ndarray) -> tuple[str, Figure]:
    """Caption and figure of single maps (n, side, side); there may be none of one kind."""
    return "Maps side by side, unselected.", plots.image_grid(real, fake, EXTENT, r"$\kappa$", AXES, linear=True)


def _spectrum(real: np.ndarray, fake: np.ndarray, weights: SidesWeights) -> tuple[str, str, Figure]:
    spectra = [power_spectrum(maps) for maps in (real, fake)]
    ell = spectra[0][0]
    scaled = [power * (ell * (ell + 1) / (2 * np.pi)) for _, power in spectra]
    rings = _joined(len(ell))
    joined = [np.stack([side[:, low:high].mean(axis=1) for low, high in rings], axis=1) for side in scaled]
    centres = np.array([ell[low:high].mean() for low, high in rings])
    labels = (r"Multipole $\ell$", r"$\ell(\ell+1)\,C_\ell/2\pi$")
    figure = plots.spectrum_ratio(centres, joined[0], joined[1], *labels, weights)
    caption = (
        f"Power spectrum of the maps, in rings of width {FUNDAMENTAL:.1f} in l, joined to steps of a tenth at large l: "
        "mean and central 68% of the maps; the ratio of the means with its standard error."
    )
    return "power_spectrum", caption, figure


def _joined(n: int) -> list[tuple[int, int]]:
    """Groups of rings, single ones first and then a tenth of their number wide."""
    bands, low = [], 0
    while low < n:
        high = min(n, max(low + 1, round(1.1 * low)))
        bands.append((low, high))
        low = high
    return bands


def _pixels(real: np.ndarray, fake: np.ndarray, weights: SidesWeights) -> tuple[str, str, Figure]:
    rows, columns = pixel_sites(real.shape[1], SITES)

    def intensities(maps: np.ndarray, of_maps: np.ndarray | None) -> Observable:
        pixels = maps[:, rows, columns].astype(np.float64)
        return Observable(pixels.ravel(), np.full(len(maps), pixels.shape[1]), weights=of_maps)

    a, b = intensities(real, weights[0]), intensities(fake, weights[1])
    low, high = np.quantile(a.values, [0.0, 0.9999])
    edges = np.linspace(low, max(high, low + 1e-9), 61)
    figure = plots.histogram_ratio(a, b, r"Convergence $\kappa$", entries="Pixels", edges=edges, log_y=True)
    caption = (
        f"Intensities of {len(rows)} pixels of each map. Values beyond the axis are counted in the outermost bins."
    )
    return "pixel_histogram", caption, figure
