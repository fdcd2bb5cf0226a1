"""Data sets of lognormal convergence maps, made on any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from hpcgan.data.generators import Block, DataSet, Generator
from hpcgan.data.layouts import tensors
from hpcgan.data.layouts.base import Layout
from hpcgan.data.layouts.tensor_layout import SAMPLES
from hpcgan.data.meaning import Meaning, Numbers
from hpcgan.data.schema import Sample, Schema, TensorSpec
from hpcgan.data.storage import SPLIT_EDGES, Target
from hpcgan.errors import InputError
from hpcgan.physics import lognormal
from hpcgan.physics.lognormal import LognormalMaps

SIDES = range(32, 4097, 16)

MEANING = Meaning(numbers={"areadeg2": Numbers(((lognormal.AREA_DEG2,),), 0.01 * lognormal.AREA_DEG2)})
"""Of convergence maps; their two axes are alike."""


def map_schema(side: int) -> Schema:
    """Schema of maps with `side` pixels along a side."""
    return {"kappa": TensorSpec((side, side), meaning=MEANING)}


@dataclass(frozen=True)
class Maps(DataSet):
    """Convergence maps; map number i is a function of (seed, i), whatever `n` is.

    Attributes
    ----------
    n, seed
        As of the base class.
    side : int
        Pixels along a side, a multiple of 16; the field is 12 square degrees all the same.
    """

    n: int
    seed: int = 1
    side: int = lognormal.SIDE
    layout: ClassVar[Layout] = SAMPLES
    noun: ClassVar[str] = "maps"
    #: 4 MB at full size. The files do not depend on it.
    block: ClassVar[int] = 16

    def check(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"side = {self.side}: use a multiple of 16 from {SIDES[0]} to {SIDES[-1]}")
        super().check()

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "lognormal convergence",
            "maps": self.n,
            "seed": self.seed,
            "side": self.side,
            "area_deg2": lognormal.AREA_DEG2,
            "shift": lognormal.SHIFT,
            "spectrum": [
                lognormal.AMPLITUDE,
                lognormal.PIVOT,
                lognormal.RISE,
                lognormal.SHARPNESS,
                lognormal.FALL,
            ],
            "split_edges": SPLIT_EDGES,
        }

    def attributes(self) -> dict[str, Any]:
        return {
            "problem": "cosmo",
            "contents": "weak-lensing convergence, shifted lognormal fields",
            "area_deg2": lognormal.AREA_DEG2,
            "shift": lognormal.SHIFT,
        }

    def make(self, task: Block, advance: Callable[[int], None]) -> Sample:
        maps = LognormalMaps(self.side).make(self.seed, task.first, task.n)
        advance(task.n)
        return {"kappa": maps}

    def writer(self, target: Target) -> tensors.Writer:
        return tensors.Writer(target, map_schema(self.side))


class CosmoGenerator(Generator):
    """Generate lognormal convergence maps of 12 square degrees and write train.h5, val.h5 and test.h5 (60/20/20
    percent).
    """

    summary: ClassVar[str] = "generate weak-lensing convergence maps"
    noun: ClassVar[str] = "maps"

    side: int = Field(lognormal.SIDE, ge=1, description="pixels along a side, a multiple of 16")

    def data_set(self, n: int, seed: int) -> Maps:
        return Maps(n, seed, self.side)
