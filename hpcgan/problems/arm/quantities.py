"""Quantities of showers in a geometry by which samples are compared. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgan.metrics.observable import Observable
from hpcgan.problems.arm.geometry import Geometry

MEV_PER_GEV = 1000.0

ALWAYS = ("energy", "occupancy")
"""What every shower has; the others take energy."""

UNITS = {"energy": "GeV", "occupancy": "", "mean_eta": "mm", "mean_phi": "mm", "width_eta": "mm", "width_phi": "mm"}
SCORED = tuple(UNITS)
"""Energy in the layer, share of cells with energy, means and widths weighted by energy (Liu et al. 2022)."""


def quantities(cells: NDArray[Any], geometry: Geometry) -> dict[str, NDArray[np.float64]]:
    """`SCORED` of showers in one geometry.

    The mean along an axis is sum(x E) / sum(E) over the cells, the width the square root of
    sum(E (x - mean)^2) / ((M - 1) / M sum(E)), with the M cells that have energy: equations 1 and 2 of the paper.

    Parameters
    ----------
    cells : (n, n_cells) array
        MeV.
    geometry : Geometry

    Returns
    -------
    dict of str to (n,) float64
        In `UNITS`; means are NaN without energy, widths also with energy in one cell only.
    """
    energies = np.asarray(cells, np.float64)
    total, lit = energies.sum(axis=1), np.count_nonzero(energies > 0, axis=1)
    values = {"energy": total / MEV_PER_GEV, "occupancy": lit / geometry.n_cells}
    for axis, along in zip(("eta", "phi"), geometry.centres.T, strict=True):
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = energies @ along / total
            spread = np.maximum(energies @ along**2 / total - mean**2, 0.0)
            width = np.where(lit > 1, np.sqrt(spread * lit / (lit - 1.0)), np.nan)
        values[f"mean_{axis}"], values[f"width_{axis}"] = mean, width
    return values


def observables(cells: NDArray[Any], numbers: NDArray[Any], geometries: Sequence[Geometry]) -> dict[str, Observable]:
    """`SCORED` of showers in several geometries; those that a shower does not have are left out.

    Parameters
    ----------
    cells : (n, C) array
        MeV, zeros beyond the cells of a shower's geometry.
    numbers : (n,) array
        Of each shower's geometry.
    geometries : sequence of Geometry
    """
    whole = {name: np.full(len(cells), np.nan) for name in SCORED}
    for number, geometry in enumerate(geometries):
        rows = np.flatnonzero(numbers == number)
        for name, values in quantities(cells[rows, : geometry.n_cells], geometry).items():
            whole[name][rows] = values
    always = {name: Observable(whole[name], unit=UNITS[name]) for name in ALWAYS}
    return {name: always[name] if name in always else _of_some(whole[name], UNITS[name]) for name in SCORED}


def _of_some(values: NDArray[np.float64], unit: str) -> Observable:
    """A quantity that not every shower has: NaN where it has not."""
    has_value = np.isfinite(values)
    return Observable(values[has_value], has_value.astype(np.int64), unit)
