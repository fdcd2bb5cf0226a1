"""What a report needs of a trained run, whoever has it. A leaf of the package."""

from __future__ import annotations

from typing import Any, Protocol

from hpcgan.data.schema import Sample
from hpcgan.evaluation.conditions import Conditions
from hpcgan.problems.base import Problem


class CheckpointInfo(Protocol):
    """Which weights a sampler uses."""

    @property
    def step(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def score(self) -> float | None: ...


class Sampler(Protocol):
    """What a report needs of a trained run (`hpcgan.evaluation.sample.RunSampler`)."""

    problem: Problem
    config: Any
    checkpoint: Any

    def sample(self, n: int, seed: int, first: int = 0, conditions: Conditions | None = None) -> Sample:
        """The first `n` samples of the sequence of a seed, in physical units."""
        ...
