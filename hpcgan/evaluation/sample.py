"""Samples of a trained run: its generator from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpcgan.config import Config
from hpcgan.data.schema import Sample, concatenate, take
from hpcgan.errors import HpcganError
from hpcgan.evaluation.conditions import Conditions, drawn, training_conditions
from hpcgan.methods.base import build_network, method_class
from hpcgan.methods.sampler import Sampler as NetworkSampler
from hpcgan.problems.base import Problem, Problems, problem_class
from hpcgan.rundir import RunDirectory
from hpcgan.training import checkpoint as checkpoints


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a sampler's weights come from."""

    path: Path
    step: int
    epoch: int
    score: float | None


class RunSampler:
    """Draws samples from a run's generator.

    Attributes
    ----------
    problem : Problem
    config : Config
    checkpoint : CheckpointInfo
    """

    def __init__(self, problem: Problem, config: Config, checkpoint: CheckpointInfo, network: NetworkSampler) -> None:
        self.problem, self.config, self.checkpoint = problem, config, checkpoint
        self._network = network
        self._available: Sample | None = None

    @property
    def batch_size(self) -> int:
        """Samples that are made at a time."""
        return self._network.batch_size

    def training_conditions(self) -> Sample:
        """Conditions of the events that the model was trained on, in physical units; read once.

        Raises
        ------
        InputError
            The training data are not where they were.
        """
        if self._available is None:
            self._available = training_conditions(self.problem, self.config)
        return self._available

    def sample(self, n: int, seed: int, first: int = 0, conditions: Conditions | None = None) -> Sample:
        """Samples first ... first + n - 1 of the sequence of a seed, in physical units.

        Parameters
        ----------
        n, seed, first : int
            `first` must be a multiple of `batch_size`.
        conditions : Conditions, optional
            By default those of random training events, where the problem has any.
        """
        if first % self.batch_size:
            raise ValueError(f"first={first} is not a multiple of the batch size {self.batch_size}")
        start = first // self.batch_size
        count = -(-n // self.batch_size)
        if conditions is None and self.problem.conditions:
            conditions = drawn(self.training_conditions(), seed)
        made = []
        for index in range(start, start + count):
            asked = None if conditions is None else conditions(index * self.batch_size, self.batch_size)
            made.append(self._network.batch(seed, "sample", 0, index, asked))
        return take(concatenate(made), slice(0, n))


def load_sampler(run_dir: Path, checkpoint: Literal["best", "latest"] = "best", warn: Any = print) -> RunSampler:
    """Load the generator of a run.

    Raises
    ------
    InputError
        Not a run directory, or no checkpoint yet.
    HpcganError
        Every checkpoint is damaged.
    """
    run = RunDirectory(Path(run_dir))
    config = run.load_config(Problems())
    problem = problem_class(config.problem)(config.model)
    if checkpoint == "best":
        found = checkpoints.load_best(run.checkpoints, warn)
    else:
        latest = checkpoints.load_latest(run.checkpoints, warn)
        found = latest if latest is not None else checkpoints.load_best(run.checkpoints, warn)
    method = method_class(config.method)
    network = build_network(problem, method.sampled, config.seed, config.training.dtype)
    prefix = f"network/{scored_network(config)}/"
    for name, variable in network.named.items():
        try:
            variable.assign(found.arrays[prefix + name])
        except (KeyError, ValueError):
            raise HpcganError(f"{found.path}: belongs to another model than {run.config_file} ('{name}')") from None
    sampler = method.sampler(problem, network, config)
    info = CheckpointInfo(found.path, found.step, found.meta["epoch"], found.score)
    return RunSampler(problem, config, info, sampler)


def scored_network(config: Config) -> str:
    """Name of the network that is scored and sampled."""
    averaged = config.scoring.weights == "average" or (
        config.scoring.weights == "auto" and config.training.average_half_life > 0
    )
    name = method_class(config.method).sampled
    return f"{name}_average" if averaged else name
