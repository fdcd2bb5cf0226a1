"""Showers of one file as a training sees them: with the geometries of the model, whatever their order in the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpcgan import rng
from hpcgan.data.layouts.tensor_source import TensorSource
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.problems.arm import files
from hpcgan.problems.arm.files import CELLS, GEOMETRY
from hpcgan.problems.arm.geometry import WHOLE, AnyGeometry, parts

if TYPE_CHECKING:
    from hpcgan.problems.arm.problem import ArmModel


class GeometrySource(TensorSource):
    """Showers whose `geometry` is the number among those of the model, and whose `cells` are as many as it has.

    Parameters
    ----------
    path : Path
    layer : str
    geometries : sequence of Geometry
        Of the model; the file may have fewer.
    has_energy : bool
        With the particle's energy.
    cache_mb : int
        Files that fit are read into memory at the first access; larger ones are read from disk every time.

    Raises
    ------
    InputError
        Missing or broken file, another layer, or a geometry that the model does not have.
    """

    def __init__(
        self, path: Path, layer: str, geometries: Sequence[AnyGeometry], has_energy: bool = False, cache_mb: int = 1024
    ) -> None:
        of_file = geometries_of(path, layer, geometries)
        super().__init__(path, files.schema_of(of_file, has_energy), cache_mb)
        self._numbers = numbers_among(of_file, geometries)
        self._width = files.widest(geometries)

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """`cells` (n, C) float32 in MeV with the C cells of the model's largest geometry, and conditions (n,)."""
        sample = super().read(indices)
        cells = np.zeros((len(indices), self._width), np.float32)
        held = min(self._width, sample[CELLS].shape[1])
        cells[:, :held] = sample[CELLS][:, :held]
        return {**sample, CELLS: cells, GEOMETRY: self._ours(sample[GEOMETRY])}

    def conditions(self) -> Sample:
        conditions = super().conditions()
        return {**conditions, GEOMETRY: self._ours(conditions[GEOMETRY])}

    def _ours(self, numbers: np.ndarray) -> np.ndarray:
        return self._numbers[numbers.astype(np.int64)]


class CoarserSource(GeometrySource):
    """Showers that are seen in some coarser geometries, too: in which of them, or in their own, is drawn for each
    shower anew in every epoch.

    Parameters
    ----------
    path : Path
    model : ArmModel
    cache_mb : int
        As of :class:`GeometrySource`.
    """

    def __init__(self, path: Path, model: ArmModel, cache_mb: int = 1024) -> None:
        super().__init__(path, model.layer, model.cells, model.sees_energy, cache_mb)
        self._geometries, self._layer = model.cells, model.layer
        self._choices = [[number, *_coarser(number, model)] for number in range(len(model.cells))]

    def read(self, indices: np.ndarray, epoch: int = 0) -> Sample:
        """As `GeometrySource.read`, in geometries of the epoch."""
        sample = super().read(indices, epoch)
        cells, own = sample[CELLS].copy(), sample[GEOMETRY].astype(np.int64)
        draws = rng.uniform_at(0, "coarser geometry", epoch, np.asarray(indices), 1)[:, 0]
        seen = np.array([self._choices[n][int(u * len(self._choices[n]))] for n, u in zip(own, draws, strict=True)])
        for before, after in {(a, b) for a, b in zip(own.tolist(), seen.tolist(), strict=True) if a != b}:
            rows = np.flatnonzero((own == before) & (seen == after))
            sums = np.zeros((len(rows), self._width), np.float32)
            pairs = zip(*(parts(self._geometries[number], self._layer) for number in (before, after)), strict=True)
            for finer, coarser in pairs:
                sums[:, coarser.cells] = coarser.geometry.sums(cells[rows][:, finer.cells], finer.geometry)
            cells[rows] = sums
        return {**sample, CELLS: cells, GEOMETRY: seen.astype(np.float32)}


def _coarser(number: int, model: ArmModel) -> list[int]:
    """Of the geometries in which showers are seen, too, those whose cells are sums of one's."""
    own = parts(model.cells[number], model.layer)
    return [
        other
        for other in model.also_seen
        if other != number
        and all(
            part.geometry.is_sum_of(finer.geometry)
            for part, finer in zip(parts(model.cells[other], model.layer), own, strict=True)
        )
    ]


def numbers_among(of_file: Sequence[AnyGeometry], geometries: Sequence[AnyGeometry]) -> np.ndarray:
    """Of each of a file's geometries its number in the model's list, (geometries of the file,) float32."""
    return np.array([geometries.index(geometry) for geometry in of_file], np.float32)


def geometries_of(path: Path, layer: str, geometries: Sequence[AnyGeometry]) -> tuple[AnyGeometry, ...]:
    """Geometries of a file, all of which the model must have.

    Raises
    ------
    InputError
        It has not, or the file is of another layer, missing or broken.
    """
    layer_of_file, of_file = files.read_geometries(path)
    if layer_of_file != layer:
        held = "whole showers" if layer_of_file == WHOLE else f"the {layer_of_file} layer"
        raise InputError(f"{path}: holds {held}, model.layer is {layer}")
    for geometry in of_file:
        if geometry not in geometries:
            raise InputError(
                f"{path}: has showers in the geometry {geometry}, of which model.geometries does not say the cells: "
                "add it there (data.leave_out keeps it out of the training)"
            )
    return of_file
