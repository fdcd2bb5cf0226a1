"""Quantities of showers in a geometry by which samples are compared. NumPy only."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcgan.metrics.observable import Observable
from hpcgan.problems.arm.geometry import LAYERS, WHOLE, AnyGeometry, Geometry, layers_of, parts

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


def names_of(layer: str) -> tuple[str, ...]:
    """What is compared of showers in a layer; of whole showers that of each layer, and distances between layers."""
    if layer != WHOLE:
        return SCORED
    of_layers = [f"{name}_{of_layer}" for of_layer in LAYERS for name in SCORED]
    return (*of_layers, *(f"distance_{a}_{b}" for a, b in itertools.pairwise(LAYERS)))


def observables(
    cells: NDArray[Any], numbers: NDArray[Any], geometries: Sequence[AnyGeometry], layer: str
) -> dict[str, Observable]:
    """`names_of` showers in several geometries; those that a shower does not have are left out.

    The distance of two layers is that of the means weighted by energy, as in figure 5 of the paper.

    Parameters
    ----------
    cells : (n, C) array
        MeV, zeros beyond the cells of a shower's geometry.
    numbers : (n,) array
        Of each shower's geometry.
    geometries : sequence of geometries
    layer : str
        Of all of them.
    """
    whole = {name: np.full(len(cells), np.nan) for name in names_of(layer)}
    for number, geometry in enumerate(geometries):
        rows = np.flatnonzero(numbers == number)
        for of_layer, cells_of, which in parts(geometry, layer):
            for name, values in quantities(cells[rows, which], cells_of).items():
                whole[name if layer != WHOLE else f"{name}_{of_layer}"][rows] = values
    for a, b in itertools.pairwise(layers_of(layer)):
        steps = (whole[f"mean_{axis}_{b}"] - whole[f"mean_{axis}_{a}"] for axis in ("eta", "phi"))
        whole[f"distance_{a}_{b}"] = np.hypot(*steps)
    return {
        name: Observable(values, unit=unit_of(name)) if name.startswith(ALWAYS) else _of_some(values, unit_of(name))
        for name, values in whole.items()
    }


def unit_of(name: str) -> str:
    """The unit of one of `names_of`."""
    return next((unit for begin, unit in UNITS.items() if name.startswith(begin)), "mm")


def _of_some(values: NDArray[np.float64], unit: str) -> Observable:
    """A quantity that not every shower has: NaN where it has not."""
    has_value = np.isfinite(values)
    return Observable(values[has_value], has_value.astype(np.int64), unit)
