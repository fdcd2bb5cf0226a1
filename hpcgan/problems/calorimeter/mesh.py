"""Layers of rectangular cells on the cylindrical mesh of Geant4's example Par04."""

from __future__ import annotations

import math

import numpy as np

from hpcgan.physics.calorimeter import CALORIMETER, HALF_SIDE, LAYER_EDGES, PLANES, Grid, Segmentation
from hpcgan.problems.calorimeter.files import ENERGY, LAYERS
from hpcgan.problems.mesh import ShowerMesh

CELLS = (18, 50, 48)
"""Along rho and phi as in the example, along z in steps of 10 mm."""
STEP = 2.0
"""mm between the points by which areas are measured."""
MACRO = f"""\
# The calorimeter of CaloGAN: plates of lead and of liquid argon
/Par04/detector/setNbOfLayers {PLANES}
/Par04/detector/setAbsorber 0 G4_Pb {CALORIMETER.absorber_mm:g} mm true
/Par04/detector/setAbsorber 1 G4_lAr {CALORIMETER.active_mm:g} mm true
"""


def mesh_of(segmentation: Segmentation) -> ShowerMesh:
    """The mesh of three layers of cells, whose axis is that of the particle."""
    rho, _, z = CELLS
    rho_mm, z_mm = HALF_SIDE / rho, (LAYER_EDGES[-1] - LAYER_EDGES[0]) / z
    edges = LAYER_EDGES[0] + z_mm * np.arange(z + 1)
    along = {}
    for name, begin, end in zip(LAYERS, LAYER_EDGES[:-1], LAYER_EDGES[1:], strict=True):
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin)
        along[name] = np.maximum(overlap, 0.0) / (end - begin)
    across = {name: _across(grid, rho_mm) for name, grid in zip(LAYERS, segmentation.layers, strict=True)}
    return ShowerMesh(ENERGY, CELLS, rho_mm, z_mm, across, along, MACRO)


def _across(grid: Grid, rho_mm: float) -> np.ndarray:
    """Shares of the cells of a layer, rows y and columns x, in rings and sectors: (cells, rho * phi).

    Sectors begin at -pi, as the example counts them.
    """
    rho, phi, _ = CELLS
    (y, row), (x, column) = (_points(n) for n in grid.shape)
    radius = np.hypot(y[:, None], x)
    angle = np.arctan2(y[:, None], x) + math.pi
    ring = np.minimum((radius / rho_mm).astype(np.int64), rho - 1)
    sector = np.minimum((angle * (phi / (2.0 * math.pi))).astype(np.int64), phi - 1)
    cell = row[:, None] * grid.n_eta + column
    places = rho * phi
    counts = np.bincount((cell * places + ring * phi + sector).ravel(), minlength=grid.n_cells * places)
    shares = counts.reshape(grid.n_cells, places).astype(np.float64)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _points(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Points at equal distances along a side, mm, as many in each cell; and the cell that each is in."""
    each = math.ceil(2.0 * HALF_SIDE / cells / STEP)
    total = cells * each
    return (np.arange(total) + 0.5) * (2.0 * HALF_SIDE / total) - HALF_SIDE, np.arange(total) // each
