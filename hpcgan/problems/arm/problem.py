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
from hpcgan.problems.arm.files import CELLS, GEOMETRY, INCIDENT
from hpcgan.problems.arm.geometry import ALL, INNER, WHOLE, AnyGeometry, parse_all, parts
from hpcgan.problems.arm.quantities import MEV_PER_GEV
from hpcgan.problems.arm.source import CoarserSource, GeometrySource, geometries_of, numbers_among
from hpcgan.problems.base import Observables, Problem

MOST_CATEGORIES = 65536
DENSE_LAYERS = {INNER: 1}
"""Masked dense layers of the published model, where they are not `DENSE_LAYERS_ELSEWHERE`."""

DENSE_LAYERS_ELSEWHERE = 5

OF_SPIRAL = ("unit_mev", "categories", "dense_layers", "features", "sees_sizes", "first_cell", "kernel")
OF_BOXES = ("hidden_units", "threshold_mev")
"""Options of either architecture."""


class ArmModel(ModelSection):
    """The autoregressive model of a layer. The paper leaves `features`, `kernel` and `unit_mev` open."""

    layer: Literal["inner", "middle", "outer", "whole"] = Field(
        "middle", description="layer of the calorimeter; whole: all layers, each of which knows those before it"
    )
    geometries: tuple[str, ...] = Field(
        (ALL,),
        description="segmentations that the model can be asked for, as 'hpcgan data arm --segmentation' takes them; "
        "their numbers, from 0 on, are the condition 'geometry'",
    )
    also_as: tuple[str, ...] = Field(
        (),
        description="of these geometries, those in which training showers are seen, too, where the cells are sums of a "
        "shower's own: each shower in one of them or in its own, drawn anew in every epoch",
    )
    architecture: Literal["spiral", "boxes"] = Field(
        "spiral",
        description="spiral: as published, cell after cell from the centre, in whole numbers; boxes: the layer's "
        "energy is shared by ever smaller boxes until they are cells, by one network for boxes of all sizes",
    )
    hidden_units: int = Field(0, ge=0, le=4096, description="boxes: units of either hidden layer")
    threshold_mev: Positive = Field(0.01, description="boxes: energy that a cell with energy has at least, MeV")
    sees_energy: bool = Field(
        False, description="the particle's energy is a condition; else showers of all energies are alike to the model"
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
    sees_sizes: bool = Field(
        True, description="spiral: the network sees the sizes of cells, as published; else it is blind to the geometry"
    )
    first_cell: Literal["histogram", "learned"] = Field(
        "histogram",
        description="spiral: the first cell is drawn from the histogram of the training showers, as published, or from "
        "what the network says, which knows its size, and the particle's energy, if it sees that",
    )
    kernel: int = Field(3, ge=1, le=64, description="cells that the convolution sees: the latest ones of the order")

    @model_validator(mode="after")
    def _options_of_the_architecture(self) -> ArmModel:
        is_spiral = self.architecture == "spiral"
        for option in OF_BOXES if is_spiral else OF_SPIRAL:
            if getattr(self, option) != type(self).model_fields[option].default:
                other = "boxes" if is_spiral else "spiral"
                raise ValueError(
                    f"model.{option} is of model.architecture={other}, here it is {self.architecture}: leave it out"
                )
        if is_spiral and self.layer == WHOLE:
            raise ValueError("model.layer=whole needs model.architecture=boxes: spirals are of one layer each")
        if is_spiral and self.sees_energy and self.first_cell != "learned":
            raise ValueError("model.sees_energy needs model.first_cell=learned: the histogram is that of all energies")
        if not is_spiral and not self.hidden_units:
            raise ValueError("model.architecture=boxes needs model.hidden_units, e.g. 128")
        return self

    @model_validator(mode="after")
    def _geometries_are_known(self) -> ArmModel:
        try:
            self.cells  # noqa: B018
        except InputError as error:
            raise ValueError(f"geometries: {error}") from None
        try:
            self.also_seen  # noqa: B018
        except InputError as error:
            raise ValueError(f"also_as: {error}") from None
        return self

    @cached_property
    def cells(self) -> tuple[AnyGeometry, ...]:
        """The geometries."""
        return parse_all(self.geometries, self.layer)

    @cached_property
    def also_seen(self) -> tuple[int, ...]:
        """Numbers of the geometries of `also_as`."""
        geometries = parse_all(self.also_as, self.layer) if self.also_as else ()
        for geometry in geometries:
            if geometry not in self.cells:
                raise InputError(f"geometry '{geometry}' is none of model.geometries: add it there")
        return tuple(self.cells.index(geometry) for geometry in geometries)

    @property
    def least_gev(self) -> float:
        """`threshold_mev` in GeV."""
        return self.threshold_mev / MEV_PER_GEV

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
    figures: ClassVar[str] = "hpcgan.problems.arm.figures:ArmFigures"
    noun: ClassVar[str] = "showers"
    model: ArmModel

    @classmethod
    def of_file(cls, path: Path) -> ArmProblem:
        """The problem of the geometries that a file has; no network is built of it."""
        return cls._of(*files.read_geometries(path))

    @classmethod
    def of_files(cls, real: Path, fake: Path) -> ArmProblem:
        """The problem of the geometries that either file has; those that only one has are not compared."""
        layer, geometries = files.read_geometries(real)
        layer_of_fake, more = files.read_geometries(fake)
        # Of another layer, reading will say so.
        return cls._of(layer, geometries if layer_of_fake != layer else (*dict.fromkeys((*geometries, *more)),))

    @classmethod
    def _of(cls, layer: str, geometries: Sequence[AnyGeometry]) -> ArmProblem:
        # Of boxes, which may have any energies. The particle's is not seen: files to be compared may lack it.
        model = {
            "layer": layer,
            "geometries": tuple(map(str, geometries)),
            "architecture": "boxes",
            "hidden_units": 1,
        }
        return cls(ArmModel.model_validate(model))

    # --- data ------------------------------------------------------------------------------------

    @property
    def schema(self) -> Schema:
        return files.schema_of(self.model.cells, self.model.sees_energy)

    @property
    def file_attributes(self) -> dict[str, Any]:
        return files.attributes_of(self.model.layer, self.model.cells)

    def open(self, path: Path, split: str, cache_mb: int = 1024) -> Source:
        file = self.existing(path, split)
        if self.model.also_as and split == "train":
            return CoarserSource(file, self.model, cache_mb)
        return GeometrySource(file, self.model.layer, self.model.cells, self.model.sees_energy, cache_mb)

    def validate(self, path: Path, split: str) -> None:
        file = self.existing(path, split)
        geometries = self._geometries_of(file)

        def check(sample: Sample, name: str, first: int) -> None:
            files.check_sample(sample, geometries, name, first)
            self._check_categories(sample[CELLS], name, first)

        tensors.validate(file, files.schema_of(geometries, self.model.sees_energy), check, tensors.GROUP)

    def _geometries_of(self, path: Path) -> tuple[AnyGeometry, ...]:
        """Geometries of a file, all of which the model has."""
        return geometries_of(path, self.model.layer, self.model.cells)

    def _check_categories(self, cells: np.ndarray, path: str, first: int) -> None:
        if not self._is_spiral:
            return
        largest = self._numbers(cells).max(axis=1, initial=0.0)
        beyond = np.flatnonzero(largest >= self.model.categories)
        if beyond.size:
            at = beyond[np.argmax(largest[beyond])]
            raise InputError(
                f"{path}: shower {first + at} has a cell of {cells[at].max():g} MeV, the number {largest[at]:g} where "
                f"model.unit_mev is {self.model.unit_mev:g}: set model.categories to at least {largest[at] + 1:g}, or "
                "a larger model.unit_mev"
            )

    @property
    def _is_spiral(self) -> bool:
        """Whether the network is that of the paper, which has whole numbers."""
        return self.model.architecture == "spiral"

    def _numbers(self, cells: np.ndarray) -> np.ndarray:
        return np.rint(np.sqrt(cells / cells.dtype.type(self.model.unit_mev)))

    def encode(self, sample: Sample) -> Sample:
        """Square roots of the energies in units of `unit_mev`, rounded to whole numbers; of boxes, GeV."""
        cells = sample[CELLS]
        cells = self._numbers(cells) if self._is_spiral else cells * cells.dtype.type(1.0 / MEV_PER_GEV)
        return {CELLS: cells, **self.encode_conditions(sample)}

    def decode(self, sample: Sample) -> Sample:
        """MeV, float32."""
        cells = sample[CELLS].astype(np.float64)
        cells = self.model.unit_mev * cells**2 if self._is_spiral else MEV_PER_GEV * cells
        return {CELLS: cells.astype(np.float32)}

    def encode_conditions(self, conditions: Sample) -> Sample:
        """A number of a geometry, whatever synthetic samples hold (`hpcgan.data.source.SyntheticSource`), and GeV."""
        geometry = np.clip(np.rint(conditions[GEOMETRY]), 0, len(self.model.cells) - 1)
        return {GEOMETRY: geometry, **({INCIDENT: conditions[INCIDENT]} if self.model.sees_energy else {})}

    def conditions_of_file(self, conditions: Sample, path: Path) -> Sample:
        """Numbers of geometries in the model's list, where the file has a list of its own."""
        if not files.names_geometries(path):
            return conditions
        of_file, numbers = self._geometries_of(path), conditions[GEOMETRY]
        files.check_numbers(numbers, len(of_file), str(path))
        return {**conditions, GEOMETRY: numbers_among(of_file, self.model.cells)[numbers.astype(np.int64)]}

    def check_conditions(self, conditions: Sample) -> None:
        if self.model.sees_energy:
            energies = np.asarray(conditions[INCIDENT], np.float64).reshape(-1)
            bad = np.flatnonzero(~(energies > 0))
            if bad.size:
                raise InputError(f"{INCIDENT} = {energies[bad[0]]:g} GeV: must be above 0")
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
    def networks(self) -> Mapping[str, str]:
        name = "network:Arm" if self._is_spiral else "network_boxes:Boxwise"
        return {"density": f"hpcgan.problems.arm.{name}"}

    @property
    def noise_dim(self) -> int:
        """One number a cell; of boxes, one for the energy and two for each share of a layer and for each box."""
        if self._is_spiral:
            return files.widest(self.model.cells)
        layers = [[part.geometry.n_cells for part in parts(g, self.model.layer)] for g in self.model.cells]
        return 1 + 2 * sum(max(cells) for cells in zip(*layers, strict=True)) - 2

    # --- physics ---------------------------------------------------------------------------------

    @property
    def quantities(self) -> Sequence[str]:  # type: ignore[override]
        return quantities.names_of(self.model.layer)

    def observables(self, sample: Sample) -> Observables:
        """Energy, occupancy, means and widths of each shower, and its geometry."""
        numbers = sample[GEOMETRY].reshape(-1)
        of_geometry = Observable(numbers.astype(np.float64), condition=True)
        of_cells = quantities.observables(sample[CELLS], numbers, self.model.cells, self.model.layer)
        return {**of_cells, GEOMETRY: of_geometry}
