"""Figures of convergence maps, real against generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hpcgan.data.schema import Sample
from hpcgan.metrics.observable import UNWEIGHTED, Observable, SidesWeights
from hpcgan.physics.lognormal import FIELD, FUNDAMENTAL, pixel_sites, power_spectrum
from hpcgan.problems.figures import BEYOND, Canvas, Captioned, Figures
from hpcgan.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEGREES = float(np.rad2deg(FIELD))
EXTENT = (0.0, DEGREES, 0.0, DEGREES)
AXES = ("x [deg]", "y [deg]")
SITES = 32
"""The histogram shows 32 x 32 pixels of a map, the score 4 x 4: its intervals allow for correlations."""


class CosmoFigures(Figures):
    """Maps `kappa` (n, side, side), their power and their pixels."""

    canvas: ClassVar[Canvas] = Canvas(EXTENT, r"$\kappa$", AXES, linear=True)

    def compare(self, real: Sample, fake: Sample, weights: SidesWeights = UNWEIGHTED) -> list[Captioned]:
        maps = (real["kappa"], fake["kappa"])
        return [
            ("maps", *self.singles(real, fake)),
            _spectrum(*maps, weights),
            _pixels(*maps, weights),
            (
                "mean_map",
                "Mean of each pixel; the difference relative to real (around a mean of zero: large), and in units of "
                "its standard error.",
                plots.mean_images(*maps, EXTENT, r"Mean $\kappa$", AXES, weights=weights),
            ),
        ]

    def singles(self, real: Sample | None, fake: Sample) -> tuple[str, Figure]:
        maps = fake["kappa"]
        figure = plots.image_grid(
            maps[:0] if real is None else real["kappa"], maps, EXTENT, r"$\kappa$", AXES, linear=True
        )
        return "Maps side by side, unselected.", figure


def _spectrum(real: np.ndarray, fake: np.ndarray, weights: SidesWeights) -> Captioned:
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


def _pixels(real: np.ndarray, fake: np.ndarray, weights: SidesWeights) -> Captioned:
    rows, columns = pixel_sites(real.shape[1], SITES)

    def intensities(maps: np.ndarray, of_maps: np.ndarray | None) -> Observable:
        pixels = maps[:, rows, columns].astype(np.float64)
        return Observable(pixels.ravel(), np.full(len(maps), pixels.shape[1]), weights=of_maps)

    a, b = intensities(real, weights[0]), intensities(fake, weights[1])
    low, high = np.quantile(a.values, [0.0, 0.9999])
    edges = np.linspace(low, max(high, low + 1e-9), 61)
    figure = plots.histogram_ratio(a, b, r"Convergence $\kappa$", entries="Pixels", edges=edges, log_y=True)
    return "pixel_histogram", f"Intensities of {len(rows)} pixels of each map. {BEYOND}", figure
