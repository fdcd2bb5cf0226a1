"""Showers in one layer, summed into the cells of one or several geometries: parametrised ones, or those of a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from hpcgan.config.base import Option
from hpcgan.data.generators import Block, DataSet, Generator
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.schema import Sample
from hpcgan.data.storage import Target, split_sizes
from hpcgan.errors import InputError
from hpcgan.physics.calorimeter import FINE
from hpcgan.physics.electromagnetic import Recorded
from hpcgan.problems.arm import files
from hpcgan.problems.arm.geometry import ALL, FINEST, LAYERS, AnyGeometry, layers_of, parse_all, parts
from hpcgan.problems.calorimeter.files import ENERGY
from hpcgan.problems.calorimeter.files import LAYERS as IMAGES
from hpcgan.problems.calorimeter.generate import Beam, ShowerSet, energy_range
from hpcgan.problems.calorimeter.importing import open_reader
from hpcgan.system.files import sha256

SPLIT_EDGES = (0.0, 0.8, 0.9, 1.0)
"""Training, validation and test showers: 80, 10 and 10 percent, as published."""

PUBLISHED_GEV = 65.0

Assignment = Literal["turns", "all"]


class Origin(ABC):
    """Where showers on the finest cells come from."""

    @abstractmethod
    def describe(self) -> Mapping[str, Any]:
        """All that the showers depend on, as plain values."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What files say of it."""

    @abstractmethod
    def tasks(self) -> Sequence[Block]:
        """Units of work, in the order of the showers."""

    @abstractmethod
    def showers(self, task: Block) -> Iterator[Sample]:
        """Some showers of the task at a time, in the published layout."""


@dataclass(frozen=True)
class Parametrised(Origin):
    """The showers that `hpcgan data calo` makes."""

    of: ShowerSet

    def describe(self) -> Mapping[str, Any]:
        return self.of.settings()

    @property
    def title(self) -> str:
        return str(self.of.attributes()["generator"])

    def tasks(self) -> Sequence[Block]:
        return self.of.tasks()

    def showers(self, task: Block) -> Iterator[Sample]:
        yield self.of.make(task, lambda done: None)


@dataclass(frozen=True)
class OfFile(Origin):
    """The first `n` showers of a file in a format that `hpcgan data import` reads, on the finest cells."""

    path: Path
    n: int

    def describe(self) -> Mapping[str, Any]:
        return {"file": self.path.name, "sha256": sha256(self.path), "showers": self.n}

    @property
    def title(self) -> str:
        return f"showers of {self.path.name}"

    def tasks(self) -> Sequence[Block]:
        """One: formats are read from their beginning."""
        return [Block(0, 0, self.n)]

    def showers(self, task: Block) -> Iterator[Sample]:
        count = 0
        with open_reader(self.path) as reader:
            for sample in reader.pieces():
                some = {name: values[: self.n - count] for name, values in sample.items()}
                yield some
                count += len(some[ENERGY])
                if count == self.n:
                    return

    def check(self, layers: Iterable[int]) -> None:
        """Refuse a file with fewer showers, or whose cells in some layers are not the finest."""
        with open_reader(self.path) as reader:
            if reader.n < self.n:
                raise InputError(f"{self.path}: holds {reader.n} showers: ask for --events {reader.n} at most")
            if any(reader.segmentation.layers[layer] != FINE.layers[layer] for layer in layers):
                raise InputError(
                    f"{self.path}: has cells {reader.segmentation}, needed are {FINE} (phi x eta); "
                    "'hpcgan data import --segmentation fine' keeps those of a Geant4 file"
                )


@dataclass(frozen=True)
class GeometrySet(DataSet):
    """Showers in geometries.

    Attributes
    ----------
    origin : Origin
    layer : "inner", "middle", "outer" or "whole"
    geometries : tuple of geometries
    assignment : "turns" or "all"
        Whether each shower is in one geometry, and these take turns, or in all of them, one after the other.
    showers, seed : int
        `n` samples come of them.
    """

    origin: Origin
    layer: str
    geometries: tuple[AnyGeometry, ...]
    assignment: Assignment
    showers: int
    seed: int = 1
    layout: ClassVar[Layout] = SAMPLES
    noun: ClassVar[str] = "showers"

    @property
    def n(self) -> int:  # type: ignore[override]
        """Samples over all three files."""
        return self.showers * self._each

    @property
    def _each(self) -> int:
        return len(self.geometries) if self.assignment == "all" else 1

    def check(self) -> None:
        if self.showers < 10:
            raise InputError(
                f"{self.showers} showers: at least 10 are needed to fill train, validation and test (80/10/10 percent)"
            )
        if isinstance(self.origin, OfFile):
            self.origin.check([LAYERS.index(layer) for layer in layers_of(self.layer)])

    def sizes(self) -> Mapping[str, int]:
        """Samples of each file; all of one shower are in one."""
        return {name: size * self._each for name, size in split_sizes(self.showers, SPLIT_EDGES).items()}

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "showers in geometries",
            "layer": self.layer,
            "geometries": [str(geometry) for geometry in self.geometries],
            "assignment": self.assignment,
            "showers": self.showers,
            "split_edges": SPLIT_EDGES,
            "origin": dict(self.origin.describe()),
        }

    def attributes(self) -> dict[str, Any]:
        return {
            "problem": "arm",
            "generator": self.origin.title,
            **files.attributes_of(self.layer, self.geometries),
        }

    def tasks(self) -> Sequence[Block]:
        return self.origin.tasks()

    def make(self, task: Block, advance: Callable[[int], None]) -> Sample:
        cells = np.zeros((task.n * self._each, files.widest(self.geometries)), np.float32)
        if self.assignment == "all":
            numbers = np.tile(np.arange(self._each), task.n)
        else:
            numbers = np.arange(task.first, task.first + task.n) % len(self.geometries)
        incident = np.zeros(len(cells), np.float32)
        count = 0
        for some in self.origin.showers(task):
            energies = some[ENERGY].reshape(-1)
            new = len(energies) * self._each
            incident[count : count + new] = np.repeat(energies, self._each)
            for number, geometry in enumerate(self.geometries):
                rows = count + np.flatnonzero(numbers[count : count + new] == number)
                for layer, of_layer, which in parts(geometry, self.layer):
                    images = some[IMAGES[LAYERS.index(layer)]][(rows - count) // self._each]
                    cells[rows, which] = of_layer.sum_of(images, FINEST[layer])
            count += new
            advance(new)
        return {files.CELLS: cells, files.GEOMETRY: numbers.astype(np.float32), files.INCIDENT: incident}

    def writer(self, target: Target) -> tensors.Writer:
        return tensors.Writer(target, files.schema_of(self.geometries), noun=self.noun)


class GeometryGenerator(Generator):
    """Write showers in one layer of the lead / liquid-argon calorimeter, or in all, summed into the cells of one or
    several geometries, as train.h5, val.h5 and test.h5 (80/10/10 percent). They are parametrised, or those of a file.
    """

    summary: ClassVar[str] = "calorimeter showers in several segmentations of a layer"

    layer: Literal["inner", "middle", "outer", "whole"] = Field(
        "middle", description="layer of the calorimeter; whole: all layers"
    )
    segmentation: Annotated[tuple[str, ...], Option(metavar="CELLS")] = Field(
        (ALL,),
        description="a geometry: eta48_phi24; eta12+24_phi48 with 12 cells in the left half and 24 in the right one; "
        "edges in mm, eta=-240:0:12,0:240:24_phi=-240:240:48; or published, all of the paper. Of the whole calorimeter "
        "one for each layer, eta48_phi12/eta12_phi12/eta24_phi24. May be given several times",
    )
    assignment: Assignment = Field(
        "turns", description="geometries take turns from shower to shower, or every shower is in all of them"
    )
    showers: Annotated[str, Option(metavar="FILE")] = Field(
        "", description="the showers of a file (Geant4, CaloGAN or CaloChallenge) on the finest cells, in its order"
    )
    particle: Literal["gamma", "eplus", "piplus"] = Field("gamma", description="what parametrised showers are of")
    energy: Annotated[tuple[float, float], Option(metavar="LOW:HIGH")] = Field(
        (PUBLISHED_GEV, PUBLISHED_GEV),
        description="incident energies of parametrised showers in GeV, as of 'data calo'",
    )
    recorded: Recorded = Field("total", description="of parametrised showers, as of 'data calo'")

    @field_validator("segmentation", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("energy", mode="before")
    @classmethod
    def _one_or_two_energies(cls, value: Any) -> Any:
        return energy_range(value)

    def data_set(self, n: int, seed: int) -> GeometrySet:
        geometries = parse_all(self.segmentation, self.layer)
        origin: Origin
        if self.showers:
            for key in sorted(self.model_fields_set & {"particle", "energy", "recorded"}):
                raise InputError(f"--{key} is of parametrised showers, but --showers {self.showers} names a file")
            origin = OfFile(Path(self.showers), n)
        else:
            origin = Parametrised(ShowerSet(Beam(self.particle, self.energy, FINE, self.recorded), n, seed))
        return GeometrySet(origin, self.layer, geometries, self.assignment, n, seed)
