"""Data to train on: jets of a few prongs, each a cloud of particles. `hpcgan data jets25` makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from hpcgan.data.generators import Block, DataSet, Generator
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.tensor_layout import SAMPLES, TensorLayout
from hpcgan.data.schema import Sample
from hpcgan.data.storage import Target
from jets25.problem import SCHEMA, SIDE


@dataclass(frozen=True)
class Jets(DataSet):
    """`n` jets of `prongs` prongs each."""

    n: int
    seed: int
    prongs: int
    layout: ClassVar[TensorLayout] = SAMPLES
    noun: ClassVar[str] = "jets"
    block: ClassVar[int] = 256

    def settings(self) -> Mapping[str, Any]:
        return {"kind": "jets25", "jets": self.n, "seed": self.seed, "prongs": self.prongs, "block": self.block}

    def attributes(self) -> Mapping[str, Any]:
        return {"problem": "jets25", "contents": f"jets of {self.prongs} prongs"}

    def make(self, task: Block, advance: Callable[[int], None]) -> Sample:
        rng = np.random.default_rng([self.seed, task.index])
        jets = np.zeros((task.n, SIDE, SIDE), np.float32)
        for jet in jets:
            centres = rng.normal(SIDE // 2, 3.0, (self.prongs, 2))
            for centre in centres:
                pt = rng.exponential(10.0, 20)
                rows, columns = np.clip(np.rint(rng.normal(centre, 1.0, (20, 2))), 0, SIDE - 1).astype(int).T
                np.add.at(jet, (rows, columns), pt)
        advance(task.n)
        return {"jet": jets}

    def writer(self, target: Target) -> tensors.Writer:
        return tensors.Writer(target, SCHEMA)


class Jets25Generator(Generator):
    """Generate images of jets with a given number of prongs."""

    summary: ClassVar[str] = "generate 25 x 25 images of jets"
    noun: ClassVar[str] = "jets"

    prongs: int = Field(2, ge=1, le=9, description="prongs of a jet")

    def data_set(self, n: int, seed: int) -> Jets:
        return Jets(n, seed, self.prongs)
