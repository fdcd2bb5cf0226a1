"""Pools of minimum-bias events, made with PYTHIA and the parametrised calorimeter on any number of processes.

Events are made as those of :mod:`hpcgan.problems.detector_images.generate`, in the same blocks, and each goes through
the calorimeter by itself: its towers are smeared and cut as if there were no others (docs/pileup.md says what that
means for sums).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from hpcgan.data.generators import DataSet, Generator
from hpcgan.data.layouts.base import Layout
from hpcgan.data.storage import Target
from hpcgan.physics import detector
from hpcgan.physics.pileup import SparseImages
from hpcgan.physics.pythia import MinBiasProcess
from hpcgan.problems.detector_images.generate import Block, Events, image_batches
from hpcgan.problems.pileup import files
from hpcgan.problems.pileup.layout import POOL

MU = 20
"""Events of a pileup unless asked otherwise: what the authors trained on."""


@dataclass(frozen=True)
class Pools(DataSet):
    """Pools that share no event.

    Attributes
    ----------
    n, seed
        As of the base class.
    mu : int
        Written down as the number of events that make a pileup; the events do not depend on it.
    card : Card
        The detector.
    """

    n: int
    seed: int = 1
    mu: int = MU
    card: detector.Card = detector.ATLAS
    layout: ClassVar[Layout] = POOL

    @property
    def _events(self) -> Events:
        return Events([MinBiasProcess()], self.n, self.seed, self.card)

    def check(self) -> None:
        files.check_mu(self.mu)
        self._events.check()

    def settings(self) -> dict[str, Any]:
        return {"mu": self.mu, **self._events.settings()}

    def attributes(self) -> dict[str, Any]:
        return {
            **self._events.attributes(),
            "problem": "pileup",
            "contents": "minimum-bias events, each simulated by itself",
            "mu": np.int64(self.mu),
        }

    def tasks(self) -> list[Block]:
        return self._events.tasks()

    def make(self, task: Block, advance: Callable[[int], None]) -> SparseImages:
        return SparseImages.join([SparseImages.of(images) for images in image_batches(task, advance)])

    def writer(self, target: Target) -> files.Writer:
        return files.Writer(target)


class PileupGenerator(Generator):
    """Generate inelastic soft collisions of protons at 13 TeV, pass each through the parametrised calorimeter and write
    train.h5, val.h5 and test.h5 (60/20/20 percent): pools of events, of which trainings on 'problem: pileup' draw and
    sum mu at a time.
    """

    summary: ClassVar[str] = "generate minimum-bias events (pileup)"

    mu: int = Field(
        MU,
        ge=1,
        le=files.MU_MAX,
        description="events of a pileup unless a training says otherwise; the pools do not depend on it",
    )

    def data_set(self, n: int, seed: int) -> Pools:
        return Pools(n, seed, self.mu)
