"""Data to train on: jets of a few prongs, each a cloud of particles. `hpcgan data jets25` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from hpcgan.data.generators import DataSet, Generator
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.tensor_layout import SAMPLES, TensorLayout
from hpcgan.data.schema import Sample
from hpcgan.data.storage import Target
from jets25.problem import SCHEMA, SIDE

BLOCK = 256
"""Jets of a unit of work."""


@dataclass(frozen=True)
class Task:
    """A unit of work: `n` jets with random numbers of their own."""

    seed: int
    index: int
    n: int
    prongs: int


def make_jets(task: Task, advance: Callable[[int], None]) -> Sample:
    """The jets of a unit of work."""
    rng = np.random.default_rng([task.seed, task.index])
    jets = np.zeros((task.n, SIDE, SIDE), np.float32)
    for jet in jets:
        centres = rng.normal(SIDE // 2, 3.0, (task.prongs, 2))
        for centre in centres:
            pt = rng.exponential(10.0, 20)
            rows, columns = np.clip(np.rint(rng.normal(centre, 1.0, (20, 2))), 0, SIDE - 1).astype(int).T
            np.add.at(jet, (rows, columns), pt)
    advance(task.n)
    return {"jet": jets}


@dataclass(frozen=True)
class Jets(DataSet):
    """`n` jets of `prongs` prongs each."""

    n: int
    seed: int
    prongs: int
    layout: ClassVar[TensorLayout] = SAMPLES
    noun: ClassVar[str] = "jets"

    def settings(self) -> Mapping[str, Any]:
        return {"kind": "jets25", "jets": self.n, "seed": self.seed, "prongs": self.prongs, "block": BLOCK}

    def attributes(self) -> Mapping[str, Any]:
        return {"problem": "jets25", "contents": f"jets of {self.prongs} prongs"}

    def tasks(self) -> list[Task]:
        return [
            Task(self.seed, first // BLOCK, min(BLOCK, self.n - first), self.prongs)
            for first in range(0, self.n, BLOCK)
        ]

    @property
    def make(self) -> Callable[[Task, Callable[[int], None]], Sample]:
        return make_jets

    def writer(self, target: Target) -> tensors.Writer:
        return tensors.Writer(target, SCHEMA)


class Jets25Generator(Generator):
    """Generate images of jets with a given number of prongs."""

    summary: ClassVar[str] = "generate 25 x 25 images of jets"
    noun: ClassVar[str] = "jets"

    prongs: int = Field(2, ge=1, le=9, description="prongs of a jet")

    def data_set(self, n: int, seed: int) -> Jets:
        return Jets(n, seed, self.prongs)
