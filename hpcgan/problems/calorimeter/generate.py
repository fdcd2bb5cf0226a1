"""Data sets of parametrised calorimeter showers, made on any number of processes.

Showers come in fixed blocks, each with random numbers of its own that depend only on the seed, what is simulated and
the number of the block. The blocks are written in order, so the files do not depend on how many processes made them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from hpcgan.config.base import Option
from hpcgan.data.generators import Block, DataSet, Generator
from hpcgan.data.layouts.base import Layout
from hpcgan.data.schema import Sample
from hpcgan.data.storage import SPLIT_EDGES, Target
from hpcgan.errors import InputError
from hpcgan.physics import electromagnetic, showers
from hpcgan.physics.calorimeter import CALORIMETER, PLANES, PUBLISHED, Segmentation, parse_segmentation
from hpcgan.physics.electromagnetic import Recorded
from hpcgan.problems.calorimeter import files
from hpcgan.problems.calorimeter.files import ENERGY_LIMITS
from hpcgan.problems.calorimeter.importing import CELLS
from hpcgan.problems.calorimeter.layout import SHOWERS

ENERGY_RANGE = (1.0, 100.0)
"""Incident energies, GeV."""


@dataclass(frozen=True)
class Beam:
    """What is shot at the calorimeter, and what is recorded.

    Attributes
    ----------
    particle : "gamma", "eplus" or "piplus"
    energy : (float, float)
        GeV; uniform in between.
    segmentation : Segmentation
    recorded : "total" or "active"
    """

    particle: str
    energy: tuple[float, float] = ENERGY_RANGE
    segmentation: Segmentation = PUBLISHED
    recorded: Recorded = "total"

    def __post_init__(self) -> None:
        showers.check_recorded(self.particle, self.recorded)
        low, high = self.energy
        if not ENERGY_LIMITS[0] <= low <= high <= ENERGY_LIMITS[1]:
            raise InputError(
                f"energy = {low:g}:{high:g} GeV: use LOW:HIGH from {ENERGY_LIMITS[0]:g} to {ENERGY_LIMITS[1]:g} GeV"
            )

    def describe(self) -> dict[str, Any]:
        """All of it, for the file's settings."""
        return {
            "particle": self.particle,
            "energy_gev": [float(value) for value in self.energy],
            "segmentation": str(self.segmentation),
            "recorded": self.recorded,
        }


_GENERATORS = {"piplus": "parametrised showers, hpcgan.physics.hadronic"}
_RECORDED = {
    "total": "energy lost in lead and liquid argon",
    "active": "signal of the liquid argon on the scale of the incident energy",
}


@dataclass(frozen=True)
class ShowerSet(DataSet):
    """Parametrised showers.

    Attributes
    ----------
    beam : Beam
    n, seed
        As of the base class.
    """

    beam: Beam
    n: int
    seed: int = 1
    layout: ClassVar[Layout] = SHOWERS
    noun: ClassVar[str] = "showers"
    #: A second of work at full energy, 1 MB at the published segmentation.
    block: ClassVar[int] = 512

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "parametrised showers",
            **self.beam.describe(),
            "events": self.n,
            "seed": self.seed,
            "block_showers": self.block,
            "batch_energy_gev": showers.BATCH_ENERGY,
            "batch_showers": showers.BATCH_SHOWERS,
            "threshold_mev": showers.THRESHOLD,
            "planes": PLANES,
            "absorber_mm": CALORIMETER.absorber_mm,
            "active_mm": CALORIMETER.active_mm,
            "radiation_length_mm": CALORIMETER.radiation_length,
            "moliere_radius_mm": CALORIMETER.moliere_radius,
            "critical_energy_mev": CALORIMETER.critical_energy,
            "interaction_length_mm": CALORIMETER.interaction_length,
            "pion_interaction_length_mm": CALORIMETER.pion_interaction_length,
            "sampling_fluctuation": (electromagnetic.SAMPLING_FLUCTUATION if self.beam.recorded == "active" else 0.0),
            "split_edges": SPLIT_EDGES,
        }

    def attributes(self) -> dict[str, Any]:
        parametrised = "parametrised showers of Grindhammer and Peters, hep-ex/0001020"
        return {
            "generator": _GENERATORS.get(self.beam.particle, parametrised),
            "recorded": _RECORDED[self.beam.recorded],
            "energy_range_gev": list(self.beam.energy),
            "overflow_means": "energy at the depth of the layer, further than the window from the axis in x or y",
        }

    def make(self, task: Block, advance: Callable[[int], None]) -> Sample:
        rng = self._random(task.index)
        energy = rng.uniform(*self.beam.energy, task.n).astype(np.float32).astype(np.float64)  # as the file will say
        simulated = showers.simulate(self.beam.particle, energy, rng, self.beam.segmentation, self.beam.recorded)
        advance(task.n)
        return files.to_sample(simulated.layers, energy, simulated.overflow)

    def _random(self, block: int) -> np.random.Generator:
        """Random numbers of a block, from a hash of everything that names it but the cells, which need none."""
        name = {**replace(self.beam, segmentation=PUBLISHED).describe(), "seed": self.seed, "block": block}
        digest = hashlib.sha256(json.dumps(name, sort_keys=True).encode()).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "little")))

    def writer(self, target: Target) -> files.Writer:
        return files.Writer(target, self.beam.segmentation, self.beam.particle)


def energy_range(value: Any) -> Any:
    """Lowest and highest energy of a text LOW:HIGH or of a single number; what is no text stays as it is.

    Raises
    ------
    ValueError
        A text of neither form.
    """
    if not isinstance(value, str):
        return value
    try:
        ends = [float(part) for part in value.split(":")]
        low, high = ends if len(ends) == 2 else ends * 2
    except ValueError:
        raise ValueError("write it as LOW:HIGH or as a single energy, for example 1:100") from None
    return low, high


class ShowerGenerator(Generator):
    """Generate parametrised showers in the lead / liquid-argon calorimeter of CaloGAN and write train.h5, val.h5 and
    test.h5 (60/20/20 percent) in the layout of the published data.
    """

    summary: ClassVar[str] = "generate parametrised calorimeter showers"

    particle: Annotated[Literal["gamma", "eplus", "piplus"] | None, Option(metavar="PARTICLE")] = Field(
        None, description="gamma, eplus or piplus"
    )
    energy: Annotated[tuple[float, float], Option(metavar="LOW:HIGH")] = Field(
        ENERGY_RANGE, description="incident energies in GeV, uniform in between, or a single one"
    )
    segmentation: Annotated[str, Option(metavar="CELLS")] = Field("published", description=CELLS)
    recorded: Recorded = Field(
        "total",
        description="energy lost in lead and argon (total), or the signal of the argon and its sampling fluctuations",
    )

    @field_validator("energy", mode="before")
    @classmethod
    def _one_or_two_energies(cls, value: Any) -> Any:
        return energy_range(value)

    def data_set(self, n: int, seed: int) -> ShowerSet:
        if self.particle is None:
            raise InputError(f"--particle is missing: choose one of {', '.join(showers.PARTICLES)}")
        beam = Beam(self.particle, self.energy, parse_segmentation(self.segmentation), self.recorded)
        return ShowerSet(beam, n, seed)
