"""Shower-shape variables of CaloGAN (Paganini, de Oliveira and Nachman, PRD 97 (2018) 014021). NumPy only.

All take the images of the three layers, (n, n_phi, n_eta) each, in any one unit of energy, and give one value a shower.
A variable that a shower does not have (the width of a layer without energy) is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcgan.physics.calorimeter import Segmentation

Array = NDArray[np.float64]
Images = Sequence[NDArray[Any]]
Axis = Literal["eta", "phi"]


def layer_energies(images: Images) -> Array:
    """Energy E_i of each layer: (n, 3)."""
    return np.stack([image.sum(axis=(1, 2), dtype=np.float64) for image in images], axis=1)


def layer_fractions(energies: Array) -> Array:
    """f_i = E_i / E_tot of layer energies (n, 3): (n, 3)."""
    return _ratio(energies, energies.sum(axis=1, keepdims=True))


def depth(energies: Array) -> Array:
    """Number of the last layer with energy, max {i: E_i > 0}: (n,)."""
    lit = energies > 0
    last = energies.shape[1] - 1 - np.argmax(lit[:, ::-1], axis=1)
    return np.where(lit.any(axis=1), last.astype(np.float64), np.nan)


def depth_weighted_energy(energies: Array) -> Array:
    """l_d = sum of i E_i = E_1 + 2 E_2: (n,)."""
    return energies @ np.arange(energies.shape[1], dtype=np.float64)


def shower_depth(energies: Array) -> Array:
    """s_d = l_d / E_tot, the mean layer number weighted by energy: (n,)."""
    return _ratio(depth_weighted_energy(energies), energies.sum(axis=1))


def shower_depth_width(energies: Array) -> Array:
    """sigma_sd = sqrt((E_1 + 4 E_2) / E_tot - s_d^2), the standard deviation of the layer number: (n,)."""
    squares = np.arange(energies.shape[1], dtype=np.float64) ** 2
    return np.sqrt(np.maximum(_ratio(energies @ squares, energies.sum(axis=1)) - shower_depth(energies) ** 2, 0.0))


def lateral_width(image: NDArray[Any], centres: Array, axis: Axis) -> Array:
    """sigma_i = sqrt(<x^2> - <x>^2) of a layer, weighted by energy, along one axis.

    Parameters
    ----------
    image : (n, n_phi, n_eta) array
    centres : (n_phi,) or (n_eta,) array
        Centres of the cells along that axis, mm.
    axis : "eta" (x, columns) or "phi" (y, rows)

    Returns
    -------
    (n,) array
        mm; NaN without energy.
    """
    along = image.sum(axis=1 if axis == "eta" else 2, dtype=np.float64)
    total = along.sum(axis=1)
    mean = _ratio(along @ centres, total)
    return np.sqrt(np.maximum(_ratio(along @ centres**2, total) - mean**2, 0.0))


def energy_ratio(image: NDArray[Any]) -> Array:
    """E_ratio = (E_1st - E_2nd) / (E_1st + E_2nd) of the two brightest cells of a layer: (n,); NaN without energy."""
    cells = image.reshape(len(image), image.shape[1] * image.shape[2]).astype(np.float64)
    first, second = cells.max(axis=1), np.zeros(len(cells))
    if cells.shape[1] > 1:
        second = np.partition(cells, cells.shape[1] - 2, axis=1)[:, -2]
    return _ratio(first - second, first + second)


def occupancy(image: NDArray[Any]) -> Array:
    """Share of the cells of a layer with energy: (n,)."""
    return np.count_nonzero(image > 0, axis=(1, 2)) / float(image.shape[1] * image.shape[2])


def shower_shapes(images: Images, segmentation: Segmentation) -> dict[str, Array]:
    """All variables of showers.

    Parameters
    ----------
    images : sequence of (n, n_phi, n_eta) arrays
        One a layer, MeV.
    segmentation : Segmentation
        Of the images.

    Returns
    -------
    dict of str to (n,) float64
        `total` and `depth_weighted` in GeV, `fraction_i`, `depth`, `shower_depth`, `shower_depth_width`, and for each
        layer i `width_eta_i`, `width_phi_i` in mm, `ratio_i`, `occupancy_i`.
    """
    energies = layer_energies(images)
    fractions = layer_fractions(energies)
    shapes = {"total": energies.sum(axis=1) / 1000.0, "depth_weighted": depth_weighted_energy(energies) / 1000.0}
    shapes |= {f"fraction_{i}": fractions[:, i] for i in range(energies.shape[1])}
    shapes["depth"] = depth(energies)
    shapes["shower_depth"] = shower_depth(energies)
    shapes["shower_depth_width"] = shower_depth_width(energies)
    for i, (image, grid) in enumerate(zip(images, segmentation.layers, strict=True)):
        shapes[f"width_eta_{i}"] = lateral_width(image, grid.eta_centres, "eta")
        shapes[f"width_phi_{i}"] = lateral_width(image, grid.phi_centres, "phi")
        shapes[f"ratio_{i}"] = energy_ratio(image)
        shapes[f"occupancy_{i}"] = occupancy(image)
    return shapes


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
