"""What the CaloChallenge's classifiers and distances see of a shower.

From the challenge's public `evaluate.py` and `HighLevelFeatures.py` (github.com/CaloChallenge/homepage, code/):

- low level: log10 E_inc, then 100 E / E_inc of every voxel. An earlier version of the script has no factor 100; which
  of them the tables of arXiv:2410.21611 were made with is not known here.
- high level: log10 E_inc; log10(E + 1e-8) of each layer; and of each layer with bins in alpha, over 100 mm, the centre
  of energy in eta, that in phi, the width in eta, and that in phi. Energies in MeV, lengths in mm.

The widths are sqrt(<x^2> - <x>^2), weighted by energy, and 0 where rounding or an empty layer leaves less. The script
also has the energy of the whole shower, radii and sparsities, which no classifier takes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpcgan.calochallenge.geometry import Geometry
from hpcgan.calochallenge.showers import Showers

Array = NDArray[np.float64]

#: Showers in double precision at a time.
CHUNK = 1024
_TINY = 1e-16


@dataclass(frozen=True)
class HighLevel:
    """High-level features of showers; a column a layer, of `centred` ones for all but `layers`.

    Attributes
    ----------
    response : (n,) array
        Energy in all voxels over the incident one.
    layers : (n, layers) array
        MeV.
    centre_eta, centre_phi, width_eta, width_phi : (n, centred layers) arrays
        mm.
    """

    response: Array
    layers: Array
    centre_eta: Array
    centre_phi: Array
    width_eta: Array
    width_phi: Array


def low_level(showers: Showers) -> NDArray[np.float32]:
    """Inputs of the classifier on voxels: (n, 1 + voxels)."""
    inputs = np.empty((len(showers), 1 + showers.voxels.shape[1]), np.float32)
    inputs[:, 0] = np.log10(showers.energy)
    np.multiply(showers.voxels, (100.0 / showers.energy)[:, None], out=inputs[:, 1:])
    return inputs


def high_level(showers: Showers, geometry: Geometry) -> HighLevel:
    """High-level features of showers."""
    n, centred = len(showers), sum(layer.centred for layer in geometry.layers)
    layers = np.empty((n, len(geometry.layers)))
    centre_eta, centre_phi, width_eta, width_phi = (np.empty((n, centred)) for _ in range(4))
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        voxels = showers.voxels[rows].astype(np.float64)
        column = 0
        for number, (layer, where) in enumerate(zip(geometry.layers, geometry.slices, strict=True)):
            energies = voxels[:, where]
            layers[rows, number] = total = energies.sum(axis=1)
            if layer.centred:
                centre_eta[rows, column], width_eta[rows, column] = _moments(energies, layer.eta, total)
                centre_phi[rows, column], width_phi[rows, column] = _moments(energies, layer.phi, total)
                column += 1
    response = layers.sum(axis=1) / showers.energy
    return HighLevel(response, layers, centre_eta, centre_phi, width_eta, width_phi)


def _moments(energies: Array, x: Array, total: Array) -> tuple[Array, Array]:
    """Centre and width, weighted by energy, along one axis: (n,) each."""
    centre = energies @ x / (total + _TINY)
    square = energies @ (x * x) / (total + _TINY)
    return centre, np.sqrt(np.maximum(square - centre**2, 0.0))


def high_level_inputs(showers: Showers, features: HighLevel) -> Array:
    """Inputs of the classifier on high-level features, and what FPD, KPD and neighbours are made of: (n, features)."""
    lengths = (features.centre_eta, features.centre_phi, features.width_eta, features.width_phi)
    return np.concatenate(
        [
            np.log10(showers.energy)[:, None],
            np.log10(features.layers + 1e-8),
            *(length / 100.0 for length in lengths),
        ],
        axis=1,
    )


def input_names(geometry: Geometry) -> list[str]:
    """Names of the columns of `high_level_inputs`."""
    centred = [layer.number for layer in geometry.layers if layer.centred]
    names = ["log10_energy", *(f"log10_layer_{layer.number}" for layer in geometry.layers)]
    kinds = ("centre_eta", "centre_phi", "width_eta", "width_phi")
    return names + [f"{kind}_{number}" for kind in kinds for number in centred]
