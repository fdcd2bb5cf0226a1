"""The cylindrical mesh on which a simulation lays the energy of a shower. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShowerMesh:
    """Cells (rho, phi, z) around the axis of a particle, and how the cells of a sample's images lie in them.

    The energy of a cell is taken for even over its area and its depth.

    Attributes
    ----------
    energy : str
        The condition that is the particle's energy, GeV; the only one.
    cells : (int, int, int)
        Along rho, phi and z.
    rho_mm, z_mm : float
        Sizes of a cell along rho and z.
    across : mapping of str to (cells of the image, rho * phi) float64
        Share of each cell of an image, row after row, in the cells of the mesh at any depth. What is outside the
        cylinder counts for the outermost ones, so each row sums to 1.
    along : mapping of str to (z,) float64
        Share of each image in the depths; sums to 1.
    macro : str
        What a simulation of Geant4's example Par04 has to be told of the detector.
    """

    energy: str
    cells: tuple[int, int, int]
    rho_mm: float
    z_mm: float
    across: Mapping[str, np.ndarray]
    along: Mapping[str, np.ndarray]
    macro: str
