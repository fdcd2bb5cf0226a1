"""Whole-detector images: calorimeter towers summed on a regular grid in eta and phi."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

N_ETA = 64
N_PHI = 64
ETA_RANGE = (-2.5, 2.5)
PHI_RANGE = (-3.15, 3.15)
"""A little more than the circle: the range of the published images. The outermost columns are narrower for
it."""

MEV_PER_GEV = 1000.0

_ETA_EDGES = np.linspace(*ETA_RANGE, N_ETA + 1)
_PHI_EDGES = np.linspace(*PHI_RANGE, N_PHI + 1)


def image_attributes() -> dict[str, Any]:
    """What the numbers of an image mean, for file attributes."""
    return {
        "units": "MeV",
        "axes": "eta, phi",
        "eta_range": list(ETA_RANGE),
        "phi_range": list(PHI_RANGE),
        "image_shape": [N_ETA, N_PHI],
    }


def grid_difference(attributes: Mapping[str, Any]) -> str | None:
    """What images of a file have different from ours, as far as its attributes say anything.

    Parameters
    ----------
    attributes : mapping
        Those that :func:`image_attributes` makes, or some of them.

    Returns
    -------
    str or None
        For a message, e.g. ``units = GeV instead of MeV``.
    """
    for name, wanted in image_attributes().items():
        found = attributes.get(name, wanted)
        found = found.decode(errors="replace") if isinstance(found, bytes) else found
        if isinstance(wanted, str):
            same = found == wanted
        else:
            same = np.shape(found) == np.shape(wanted) and bool(np.allclose(found, wanted, rtol=1e-6, atol=1e-9))
        if not same:
            return f"{name} = {_plain(found)} instead of {_plain(wanted)}"
    return None


def _plain(value: Any) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def pixel_index(eta: ArrayLike, phi: ArrayLike) -> NDArray[np.int64]:
    """Flat pixel number (eta * N_PHI + phi) of directions; -1 outside the image.

    Bins are closed below and open above, except the last ones, which include the upper edge (as numpy's
    histograms).
    """
    index = np.zeros(np.shape(eta), dtype=np.int64)
    inside = np.ones(np.shape(eta), dtype=bool)
    for values, edges in ((np.asarray(eta), _ETA_EDGES), (np.asarray(phi), _PHI_EDGES)):
        bins, low, high = len(edges) - 1, edges[0], edges[-1]
        within = (values >= low) & (values <= high)
        position = np.where(within, (values - low) / (high - low) * bins, 0.0).astype(np.int64)
        position = np.minimum(position, bins - 1)
        # Rounding may have put a direction next to an edge on its other side.
        position -= within & (values < edges[position])
        position += within & (values >= edges[position + 1]) & (position < bins - 1)
        index = index * bins + position
        inside &= within
    return np.where(inside, index, -1)


def bin_towers(
    event_index: ArrayLike, eta: ArrayLike, phi: ArrayLike, energy_gev: ArrayLike, n_events: int
) -> NDArray[np.float32]:
    """Images of a batch of events.

    Parameters
    ----------
    event_index : (K,) int
        Event of each tower, 0 to `n_events` - 1, in any order.
    eta, phi : (K,) float
        Directions; towers outside the image are left out.
    energy_gev : (K,) float
        Energies, GeV.
    n_events : int

    Returns
    -------
    (n_events, 64, 64) float32
        Energy in MeV, axes [event, eta, phi].
    """
    pixel = pixel_index(eta, phi)
    inside = pixel >= 0
    flat = np.asarray(event_index, dtype=np.int64)[inside] * (N_ETA * N_PHI) + pixel[inside]
    energy = np.asarray(energy_gev, dtype=np.float64)[inside]
    images = np.bincount(flat, weights=energy, minlength=n_events * N_ETA * N_PHI)
    return (MEV_PER_GEV * images).astype(np.float32).reshape(n_events, N_ETA, N_PHI)
