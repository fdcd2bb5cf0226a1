"""Showers of one file as a training sees them: with the geometries of the model, whatever their order in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.problems.arm import files
from hpcgan.problems.arm.files import CELLS, GEOMETRY
from hpcgan.problems.arm.geometry import Geometry


class GeometrySource(TensorSource):
    """Showers whose `geometry` is the number among those of the model, and whose `cells` are as many as it has.

    Parameters
    ----------
    path : Path
    layer : str
    geometries : sequence of Geometry
        Of the model; the file may have fewer.
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.

    Raises
    ------
    InputError
        Missing or broken file, another layer, or a geometry that the model does not have.
    """

    def __init__(self, path: Path, layer: str, geometries: Sequence[Geometry], cache_mb: int = 1024) -> None:
        of_file = geometries_of(path, layer, geometries)
        super().__init__(path, files.schema_of(of_file), cache_mb)
        self._numbers = np.array([geometries.index(geometry) for geometry in of_file], np.float32)
        self._width = files.widest(geometries)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """`cells` (n, C) float32 in MeV with the C cells of the model's largest geometry, and `geometry` (n,)."""
        sample = super().read(indices)
        cells = np.zeros((len(indices), self._width), np.float32)
        held = min(self._width, sample[CELLS].shape[1])
        cells[:, :held] = sample[CELLS][:, :held]
        return {CELLS: cells, GEOMETRY: self._ours(sample[GEOMETRY])}

    def conditions(self) -> Sample:
        return {GEOMETRY: self._ours(super().conditions()[GEOMETRY])}

    def _ours(self, numbers: np.ndarray) -> np.ndarray:
        return self._numbers[numbers.astype(np.int64)]


def geometries_of(path: Path, layer: str, geometries: Sequence[Geometry]) -> tuple[Geometry, ...]:
    """Geometries of a file, all of which the model must have.

    Raises
    ------
    InputError
        It has not, or the file is of another layer, missing or broken.
    """
    layer_of_file, of_file = files.read_geometries(path)
    if layer_of_file != layer:
        raise InputError(f"{path}: holds the {layer_of_file} layer, model.layer is {layer}")
    for geometry in of_file:
        if geometry not in geometries:
            raise InputError(
                f"{path}: has showers in the geometry {geometry}, of which model.geometries does not say the cells: "
                "add it there (data.leave_out keeps it out of the training)"
            )
    return of_file
