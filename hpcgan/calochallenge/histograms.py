"""Separation powers of single quantities, in the bins of the CaloChallenge's public `evaluate_plotting_helper.py`.

Each is 1/2 sum (h1 - h2)^2 / (h1 + h2) of histograms normalised to unit sum (eq. 15 of arXiv:2009.03796). What lies
outside of the bins is left out on both sides before that, as their `hist(..., density=True)` does. The tables of
arXiv:2410.21611 have more quantities (radii, sparsities), whose bins are not in the public script.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hpcgan.calochallenge.features import Array, HighLevel
from hpcgan.calochallenge.geometry import Geometry
from hpcgan.calochallenge.showers import Showers
from hpcgan.metrics.distances import separation_power

#: Edges of the response, and of the response at one energy of data set 1, wide and narrow.
RESPONSE, RESPONSE_AT, NARROW_AT = np.linspace(0.5, 1.5, 101), np.linspace(0.4, 1.4, 21), np.linspace(0.9, 1.1, 21)
#: Edges of a layer's energy and of a voxel's, equally far apart in the logarithm.
LAYER_EDGES, VOXEL_EDGES = 40, 50
#: Edges of centres and widths, and what they reach to in layers of a hadron calorimeter, mm.
LENGTH_EDGES, WIDE_CENTRE, WIDE_WIDTH = 101, 500.0, 400.0


def separation(first: NDArray[np.floating], second: NDArray[np.floating], edges: Array) -> float | None:
    """Separation power of two samples of a quantity; None where one has no value within the edges."""
    counts = [np.histogram(values, bins=edges)[0].astype(np.float64) for values in (first, second)]
    return separation_power(*counts) if all(count.any() for count in counts) else None


def separations(
    geometry: Geometry, real: tuple[Showers, HighLevel], fake: tuple[Showers, HighLevel]
) -> dict[str, float | None]:
    """Separation powers of showers by the quantity: `response`, `layer_i`, `centre_eta_i` ... `width_phi_i`, `voxels`.

    Parameters
    ----------
    geometry : Geometry
    real, fake : pair of Showers and HighLevel
        Energies are binned up to the largest real one.
    """
    quantities = (_quantities(geometry, *side) for side in (real, fake))
    powers: dict[str, float | None] = {}
    for (name, of_real, edges), (_, of_fake, _) in zip(*quantities, strict=True):
        if edges is None:  # energies
            number = VOXEL_EDGES if name == "voxels" else LAYER_EDGES
            edges = logarithmic(geometry.least_mev, float(of_real.max(initial=0.0)), number)
        powers[name] = None if edges is None else separation(of_real, of_fake, edges)
    return powers


def logarithmic(low: float, high: float, number: int) -> Array | None:
    """Edges equally far apart in the logarithm; None where there is nothing above the lowest."""
    return np.geomspace(low, high, number) if high > low else None


def _quantities(
    geometry: Geometry, showers: Showers, features: HighLevel
) -> Iterator[tuple[str, NDArray[np.floating], Array | None]]:
    """Name, values and edges of each quantity; those of energies depend on the real ones."""
    yield "response", features.response, RESPONSE
    for place, (low, high) in enumerate(zip(geometry.energies, geometry.energies[1:])):
        here = (showers.energy >= low) & (showers.energy < high)
        edges = NARROW_AT if place >= geometry.narrow else RESPONSE_AT
        yield f"response_at_{low:.0f}_mev", features.response[here], edges
    for number, layer in enumerate(geometry.layers):
        yield f"layer_{layer.number}", features.layers[:, number], None
    centred = [layer.number for layer in geometry.layers if layer.centred]
    for kind in ("centre_eta", "centre_phi", "width_eta", "width_phi"):
        for column, number in enumerate(centred):
            wide = WIDE_CENTRE if kind.startswith("centre") else WIDE_WIDTH
            end = wide if number in geometry.wide else geometry.window_mm
            edges = np.linspace(-end if kind.startswith("centre") else 0.0, end, LENGTH_EDGES)
            yield f"{kind}_{number}", getattr(features, kind)[:, column], edges
    yield "voxels", showers.voxels.reshape(-1), None
