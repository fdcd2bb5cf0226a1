"""Data sets of parametrised calorimeter showers, made on any number of processes.

Showers come in fixed blocks, each with random numbers of its own that depend only on the seed, what is simulated and
the number of the block. The blocks are written in order, so the files do not depend on how many processes made them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import hpcgan
from hpcgan.data import storage
from hpcgan.data.schema import Sample
from hpcgan.data.workers import Progress, check_jobs, in_order
from hpcgan.errors import InputError
from hpcgan.physics import electromagnetic, showers
from hpcgan.physics.calorimeter import CALORIMETER, PLANES, PUBLISHED, Segmentation
from hpcgan.physics.electromagnetic import Recorded
from hpcgan.problems.calorimeter import files as calo

BLOCK_SHOWERS = 512
"""Showers of a block: a second of work at full energy, 1 MB at the published segmentation."""

ENERGY_RANGE = (1.0, 100.0)
"""Incident energies, GeV."""

ENERGY_LIMITS = (0.1, 1000.0)
"""Energies that are accepted, GeV. The constants were fitted to showers of 0.4 to 400 GeV (hep-ex/0001020)."""


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


@dataclass(frozen=True)
class Block:
    """A unit of work: `n` showers, the `index`-th block of them."""

    beam: Beam
    seed: int
    index: int
    n: int

    def random(self) -> np.random.Generator:
        """Random numbers of the block, from a hash of everything that names it but the cells, which need none."""
        name = {**replace(self.beam, segmentation=PUBLISHED).describe(), "seed": self.seed, "block": self.index}
        digest = hashlib.sha256(json.dumps(name, sort_keys=True).encode()).digest()
        return np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "little")))


def make_block(block: Block, advance: Callable[[int], None]) -> Sample:
    """Showers of a unit of work."""
    rng = block.random()
    energy = rng.uniform(*block.beam.energy, block.n).astype(np.float32).astype(np.float64)  # as the file will say
    made = showers.simulate(block.beam.particle, energy, rng, block.beam.segmentation, block.beam.recorded)
    advance(block.n)
    return calo.to_sample(made, energy)


def settings_of(beam: Beam, events: int, seed: int) -> str:
    """Everything the files' contents depend on, as JSON."""
    return json.dumps(
        {
            "kind": "parametrised showers",
            **beam.describe(),
            "events": events,
            "seed": seed,
            "block_showers": BLOCK_SHOWERS,
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
            "sampling_fluctuation": electromagnetic.SAMPLING_FLUCTUATION if beam.recorded == "active" else 0.0,
            "split_edges": storage.SPLIT_EDGES,
        }
    )


def generate(
    beam: Beam,
    out: str | os.PathLike[str],
    events: int,
    seed: int = 1,
    jobs: int = 1,
    progress: Progress | None = None,
    force: bool = False,
) -> bool:
    """Write ``train.h5``, ``val.h5`` and ``test.h5`` (60/20/20 percent) of parametrised showers.

    The same arguments give the same bytes whatever `jobs` is. With more than one job a script that calls this needs the
    usual ``if __name__ == "__main__":`` guard, since the workers are spawned.

    Parameters
    ----------
    beam : Beam
    out : path
        Folder of the files.
    events : int
        Total number.
    seed : int
        0 or more.
    jobs : int
        Processes that make showers; 1 works in this process.
    progress : callable(done, total), optional
    force : bool
        Replace existing files.

    Returns
    -------
    bool
        False if `out` already held exactly this data and nothing was done.

    Raises
    ------
    InputError
        Arguments out of range, an `out` that holds other data, no room on its disk.
    HpcganError
        The disk became full, or a worker process died. Nothing is left under the final names in any case.
    """
    check_jobs(seed, jobs)
    if events < 5:
        raise InputError(f"events = {events}: at least 5 are needed to fill train, validation and test")
    settings = settings_of(beam, events, seed)
    sizes = storage.split_sizes(events)
    if calo.check_target(out, settings, sizes, force):
        return False
    attributes = {
        "generator": _GENERATORS.get(beam.particle, "parametrised showers of Grindhammer and Peters, hep-ex/0001020"),
        "recorded": _SAID[beam.recorded],
        "energy_range_gev": list(beam.energy),
        "overflow_means": "energy at the depth of the layer, further than the window from the axis in x or y",
        "seed": seed,
        "hpcgan": hpcgan.__version__,
        "settings": settings,
    }
    with calo.Writer(out, sizes, beam.segmentation, beam.particle, attributes, force) as writer:
        tasks = [
            Block(beam, seed, index, min(BLOCK_SHOWERS, events - index * BLOCK_SHOWERS))
            for index in range(-(-events // BLOCK_SHOWERS))
        ]
        with contextlib.closing(in_order(make_block, tasks, jobs, events, progress)) as results:
            for sample in results:
                writer.append(sample)
    return True


_GENERATORS = {"piplus": "parametrised showers, hpcgan.physics.hadronic"}
_SAID = {
    "total": "energy lost in lead and liquid argon",
    "active": "signal of the liquid argon on the scale of the incident energy",
}
