"""One generative model for many calorimeter geometries (Liu, Ghosh, Smith, Baldi and Whiteson 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hpcgan.config import ModelSection, Positive
from hpcgan.data.layouts import tensors
from hpcgan.data.schema import Sample, Schema
from hpcgan.data.source import Source
from hpcgan.errors import InputError
from hpcgan.metrics.observable import Observable
from hpcgan.problems.arm import files, quantities
from hpcgan.problems.arm.files import CELLS, GEOMETRY
from hpcgan.problems.arm.geometry import ALL, INNER, Geometry, parse_all
from hpcgan.problems.arm.source import GeometrySource, geometries_of
from hpcgan.problems.base import Observables, Problem

MOST_CATEGORIES = 65536
DENSE_LAYERS = {INNER: 1}
"""Masked dense layers of the published model, where they are not `DENSE_LAYERS_ELSEWHERE`."""

DENSE_LAYERS_ELSEWHERE = 5


class ArmModel(ModelSection):
    """The autoregressive model of a layer. The paper leaves `features`, `kernel` and `unit_mev` open."""

    layer: Literal["inner", "middle", "outer"] = Field("middle", description="layer of the calorimeter")
    geometries: tuple[str, ...] = Field(
        (ALL,),
        description="segmentations that the model can be asked for, as 'hpcgan data arm --segmentation' takes them; "
        "their numbers, from 0 on, are the condition 'geometry'",
    )
    unit_mev: Positive = Field(
        1.0, description="the network sees the square root of a cell's energy in this unit, rounded; MeV"
    )
    categories: int = Field(
        256, ge=2, le=MOST_CATEGORIES, description="whole numbers that a cell may have: from 0 to one less"
    )
    dense_layers: int | None = Field(
        None, ge=1, le=64, description="masked dense layers; null: as published, 1 for the inner layer, else 5"
    )
    features: int = Field(1, ge=1, le=256, description="units of a masked dense layer for each cell")
    kernel: int = Field(3, ge=1, le=64, description="cells that the convolution sees: the latest ones of the order")

    @model_validator(mode="after")
    def _geometries_are_known(self) -> ArmModel:
        try:
            self.cells  # noqa: B018
        except InputError as error:
            raise ValueError(f"geometries: {error}") from None
        return self

    @cached_property
    def cells(self) -> tuple[Geometry, ...]:
        """The geometries."""
        return parse_all(self.geometries, self.layer)

    @property
    def depth(self) -> int:
        """Masked dense layers."""
        return self.dense_layers or DENSE_LAYERS.get(self.layer, DENSE_LAYERS_ELSEWHERE)


class ArmProblem(Problem):
    """Energies of the cells of one layer in MeV, and the number of the geometry of these cells as condition."""

    name: ClassVar[str] = "arm"
    Model: ClassVar[type[ArmModel]] = ArmModel
    methods: ClassVar[Sequence[str]] = ("nll",)
    generators: ClassVar[Mapping[str, str]] = {"arm": "hpcgan.problems.arm.generate:GeometryGenerator"}
    networks: ClassVar[Mapping[str, str]] = {"density": "hpcgan.problems.arm.network:Arm"}
    quantities: ClassVar[Sequence[str]] = quantities.SCORED
    figures: ClassVar[str] = "hpcgan.problems.arm.figures:ArmFigures"
    noun: ClassVar[str] = "showers"
    model: ArmModel

    @classmethod
    def of_file(cls, path: Path) -> ArmProblem:
        """The problem of the geometries that a file has; no network is built of it."""
        layer, geometries = files.read_geometries(path)
        model = {"layer": layer, "geometries": tuple(map(str, geometries)), "categories": MOST_CATEGORIES}
        return cls(ArmModel.model_validate(model))

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return files.schema_of(self.model.cells)

    @property
    def file_attributes(self) -> dict[str, Any]:
        return files.attributes_of(self.model.layer, self.model.cells)

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        return GeometrySource(self.existing(path, split), self.model.layer, self.model.cells, cache_mb)

    def validate(self, path: Path, split: str) -> None:
        file = self.existing(path, split)
        geometries = geometries_of(file, self.model.layer, self.model.cells)

        def check(sample: Sample, name: str, first: int) -> None:
            files.check_sample(sample, geometries, name, first)
            self._check_categories(sample[CELLS], name, first)

        tensors.validate(file, files.schema_of(geometries), check, tensors.GROUP)

    def _check_categories(self, cells: np.ndarray, path: str, first: int) -> None:
        largest = self._numbers(cells).max(axis=1, initial=0.0)
        beyond = np.flatnonzero(largest >= self.model.categories)
        if beyond.size:
            at = beyond[np.argmax(largest[beyond])]
            raise InputError(
                f"{path}: shower {first + at} has a cell of {cells[at].max():g} MeV, the number {largest[at]:g} where "
                f"model.unit_mev is {self.model.unit_mev:g}: set model.categories to at least {largest[at] + 1:g}, or "
                "a larger model.unit_mev"
            )

    def _numbers(self, cells: np.ndarray) -> np.ndarray:
        return np.rint(np.sqrt(cells / cells.dtype.type(self.model.unit_mev)))

    def encode(self, sample: Sample) -> Sample:
        """Square roots of the energies in units of `unit_mev`, rounded to whole numbers."""
        return {CELLS: self._numbers(sample[CELLS]), **self.encode_conditions(sample)}

    def decode(self, sample: Sample) -> Sample:
        """MeV, float32."""
        return {CELLS: (self.model.unit_mev * sample[CELLS].astype(np.float64) ** 2).astype(np.float32)}

    def encode_conditions(self, conditions: Sample) -> Sample:
        """A number of a geometry, whatever synthetic samples hold (`hpcgan.data.source.SyntheticSource`)."""
        return {GEOMETRY: np.clip(np.rint(conditions[GEOMETRY]), 0, len(self.model.cells) - 1)}

    def check_conditions(self, conditions: Sample) -> None:
        numbers, count = np.asarray(conditions[GEOMETRY], np.float64).reshape(-1), len(self.model.cells)
        unknown = np.flatnonzero(~np.isin(numbers, np.arange(count)))
        if unknown.size:
            names = ", ".join(f"{number} ({geometry})" for number, geometry in enumerate(self.model.cells))
            raise InputError(
                f"{GEOMETRY} = {numbers[unknown[0]]:g}: the model knows the cells of {names}; others have to be in "
                "model.geometries"
            )

    # --- networks --------------------------------------------------------------------------------

    @property
    def noise_dim(self) -> int:
        """One number a cell."""
        return files.widest(self.model.cells)

    # --- physics ---------------------------------------------------------------------------------

    def observables(self, sample: Sample) -> Observables:
        """Energy, occupancy, means and widths of each shower, and its geometry."""
        numbers = sample[GEOMETRY].reshape(-1)
        of_geometry = Observable(numbers.astype(np.float64), condition=True)
        return {**quantities.observables(sample[CELLS], numbers, self.model.cells), GEOMETRY: of_geometry}
