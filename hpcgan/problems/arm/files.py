"""Files of showers in one layer or in all, in one or several geometries.

In the group `samples`: ``cells (N, C)``, the energies of a shower's cells in MeV, image (phi, eta) row after row, layer
after layer, and then zeros up to C, the cells of the largest geometry; ``geometry (N,)``, the number of its geometry;
``incident_energy (N,)``, the particle's energy in GeV, which files of models that do not see it lack. Attributes of the
group say `layer` and `geometries`, their texts (:mod:`hpcgan.problems.arm.geometry`) in order, with spaces between.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.data.layouts import tensors
from hpcgan.data.meaning import Meaning
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.storage import open_file, readable, refuse_foreign
from hpcgan.errors import InputError
from hpcgan.problems.arm.geometry import LAYERS, WHOLE, AnyGeometry, parse_all
from hpcgan.problems.calorimeter.files import refuse_negative

CELLS = "cells"
INCIDENT = "incident_energy"
GEOMETRY = "geometry"

LAYER_KEY = "layer"
GEOMETRIES_KEY = "geometries"
"""Attributes of the group."""


def widest(geometries: Sequence[AnyGeometry]) -> int:
    """Cells of the largest geometry."""
    return max(geometry.n_cells for geometry in geometries)


def schema_of(geometries: Sequence[AnyGeometry], has_energy: bool = True) -> Schema:
    """Tensors of a shower, with or without the particle's energy."""
    schema = {
        CELLS: TensorSpec((widest(geometries),), "MeV", sparse=True, meaning=Meaning("MeV")),
        GEOMETRY: TensorSpec((), role="condition"),
    }
    if has_energy:
        schema[INCIDENT] = TensorSpec((), "GeV", role="condition")
    return schema


def attributes_of(layer: str, geometries: Sequence[AnyGeometry]) -> dict[str, Any]:
    """What a file says of its geometries."""
    return {LAYER_KEY: layer, GEOMETRIES_KEY: " ".join(map(str, geometries))}


def read_geometries(path: Path) -> tuple[str, tuple[AnyGeometry, ...]]:
    """Layer and geometries of a file.

    Raises
    ------
    InputError
        Missing or broken file, or one that does not say its layer and geometries.
    """
    with tensors.open_tensors(path, group=tensors.GROUP) as file:
        layer, text = file.text(LAYER_KEY), file.text(GEOMETRIES_KEY)
    if layer not in (*LAYERS, WHOLE):
        names = ", ".join((*LAYERS, WHOLE))
        raise InputError(
            f"{path}: attribute {LAYER_KEY} is {layer[:20]!r}; needed is {names}, as 'hpcgan data arm' writes it"
        )
    try:
        return layer, parse_all(text.split(), layer)
    except InputError as error:
        raise InputError(f"{path}: attribute {GEOMETRIES_KEY}: {error}") from None


def names_geometries(path: Path) -> bool:
    """Whether a file says its geometries.

    Raises
    ------
    InputError
        Missing or broken file.
    """
    with open_file(path) as file, readable(path, tensors.GROUP):
        if tensors.GROUP not in list(file.keys()):
            return False
        refuse_foreign(path, file, tensors.GROUP, tensors.GROUP)
        return GEOMETRIES_KEY in file[tensors.GROUP].attrs


def check_numbers(numbers: np.ndarray, count: int, path: str, first: int = 0) -> None:
    """Refuse numbers (n,) of geometries that are none of the file's; `path` and `first` as of `check_sample`.

    Raises
    ------
    InputError
        The message names file, data set and shower.
    """
    unknown = np.flatnonzero(~np.isin(numbers.reshape(-1), np.arange(count)))
    if unknown.size:
        raise InputError(
            f"{path}: {GEOMETRY} of shower {first + unknown[0]} is {numbers.reshape(-1)[unknown[0]]:g}; the file names "
            f"{count}, from 0 on"
        )


def check_sample(sample: Sample, geometries: Sequence[AnyGeometry], path: str, first: int = 0) -> None:
    """Refuse showers that cannot be: negative energies, a geometry that is none, energy beyond its cells.

    Parameters
    ----------
    sample : Sample
    geometries : sequence of Geometry
        Of the file.
    path : str
        What the message calls the file.
    first : int
        Number of the first shower.

    Raises
    ------
    InputError
        The message names file, data set and shower.
    """
    cells, numbers = sample[CELLS], sample[GEOMETRY]
    if INCIDENT in sample:
        bad = np.flatnonzero(sample[INCIDENT] <= 0)
        if bad.size:
            energy = sample[INCIDENT][bad[0]]
            raise InputError(f"{path}: {INCIDENT} of shower {first + bad[0]} is {energy:g} GeV; it must be above 0")
    refuse_negative(sample, CELLS, path, first)
    check_numbers(numbers, len(geometries), path, first)
    counts = np.array([geometry.n_cells for geometry in geometries])[numbers.astype(np.int64)]
    beyond = np.flatnonzero(((cells > 0) & (np.arange(cells.shape[1]) >= counts[:, None])).any(axis=1))
    if beyond.size:
        at = beyond[0]
        raise InputError(
            f"{path}: {CELLS} of shower {first + at} has energy beyond the {counts[at]} cells of its geometry "
            f"{geometries[int(numbers[at])]}"
        )
