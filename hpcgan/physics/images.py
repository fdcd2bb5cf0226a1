"""Whole-detector images: calorimeter towers summed on a regular grid in eta and phi."""

from __future__ import annotations

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
_PI_AS_FLOAT32 = float(np.float32(np.pi))

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


def wrap(phi: ArrayLike) -> NDArray[np.float64]:
    """Angles (...) in radians, brought to the circle from -pi to pi.

    What is there already keeps its bits, the float32 next to pi, which is a little above it, included.
    """
    angle = np.asarray(phi, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # an infinite angle is none
        turned = np.remainder(angle + np.pi, 2 * np.pi) - np.pi
    return np.where(np.abs(angle) <= _PI_AS_FLOAT32, angle, turned)


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
        Directions; towers outside of the image's eta are left out. Where phi is beyond the image, it is brought into it
        by whole turns.
    energy_gev : (K,) float
        Energies, GeV.
    n_events : int

    Returns
    -------
    (n_events, 64, 64) float32
        Energy in MeV, axes [event, eta, phi].
    """
    phi = np.asarray(phi, dtype=np.float64)
    pixel = pixel_index(eta, np.where(np.abs(phi) <= PHI_RANGE[1], phi, wrap(phi)))
    inside = pixel >= 0
    flat = np.asarray(event_index, dtype=np.int64)[inside] * (N_ETA * N_PHI) + pixel[inside]
    energy = np.asarray(energy_gev, dtype=np.float64)[inside]
    images = np.bincount(flat, weights=energy, minlength=n_events * N_ETA * N_PHI)
    return (MEV_PER_GEV * images).astype(np.float32).reshape(n_events, N_ETA, N_PHI)
