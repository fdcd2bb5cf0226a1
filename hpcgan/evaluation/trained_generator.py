"""Samples of a trained run: its generator from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm, SerialComm
from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.conditions import Conditions, from_random_events, training_conditions
from hpcgan.methods.base import build_network, method_class
from hpcgan.methods.sampler import make_sampler
from hpcgan.networks.layers import BatchNorm, Network
from hpcgan.problems import run_data
from hpcgan.problems.base import Problem, problem_class
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.checkpoint import Checkpoint
from hpcgan.runs.directory import RunDirectory


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a sampler's weights come from."""

    path: Path
    step: int
    epoch: int
    score: float | None


@dataclass(frozen=True)
class TrainedGenerator:
    """A run's generator with the weights of a checkpoint.

    Attributes
    ----------
    problem : Problem
    config : Config
    checkpoint : CheckpointInfo
    network : Network
        The averaged generator where the run scores that one.
    symmetries : tuple of str
        Symmetries that are applied to its samples at random: those under which the discriminator saw them, since what
        was trained is the distribution after them.
    """

    problem: Problem
    config: Config
    checkpoint: CheckpointInfo
    network: Network
    symmetries: tuple[str, ...]

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether the samples of a batch depend on one another, as they do in a training."""
        return self.config.scoring.statistics == "batch" and any(
            isinstance(module, BatchNorm) for module in self.network.submodules
        )


class RunSampler:
    """Draws samples from a run's generator.

    Attributes
    ----------
    problem : Problem
    config : Config
    checkpoint : CheckpointInfo
    """

    def __init__(self, generator: TrainedGenerator, batch_size: int) -> None:
        self.problem, self.config, self.checkpoint = generator.problem, generator.config, generator.checkpoint
        self._network = make_sampler(generator.config, generator.problem, generator.network, batch_size)
        self._available: Sample | None = None

    @property
    def batch_size(self) -> int:
        """Samples that are made at a time."""
        return self._network.batch_size

    @property
    def table(self) -> tf.Variable | None:
        """What a `hpcgan.networks.capabilities.Matching` has to know of the network; None where there is none."""
        return self._network.table

    def training_conditions(self) -> Sample:
        """Conditions of the events that the model was trained on, in physical units; read once.

        Raises
        ------
        InputError
            The training data are not found any more, or are others now.
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
            conditions = from_random_events(self.training_conditions(), seed)
        samples: Sample = {}
        for index in range(start, start + count):
            values_of_batch = None if conditions is None else conditions(index * self.batch_size, self.batch_size)
            batch = self._network.batch(seed, "sample", 0, index, values_of_batch)
            position = (index - start) * self.batch_size
            for name, values in batch.items():
                if name not in samples:
                    samples[name] = np.empty((n, *values.shape[1:]), values.dtype)
                samples[name][position : position + self.batch_size] = values[: n - position]
        return samples


def load_generator(
    run_dir: Path, checkpoint: Literal["best", "latest"] = "best", warn: Any = print, comm: Comm | None = None
) -> TrainedGenerator:
    """Load the generator of a run: on rank 0, which hands its weights to the others.

    A run that is still being trained gets new checkpoints, of which ranks that read for themselves could find
    different ones.

    Raises
    ------
    InputError
        Not a run directory, or no checkpoint yet.
    HpcganError
        Every checkpoint is damaged.
    """
    comm = SerialComm() if comm is None else comm
    origin = None
    with agreed(comm):
        run = RunDirectory(Path(run_dir))
        config = run_data.load(run)
        problem = problem_class(config.problem)(config.model)
        method = method_class(config.method)
        network = build_network(problem, method.sampled, config.seed, config.training.dtype)
        if comm.is_root:
            loaded = _find(run, checkpoint, warn)
            prefix = f"network/{scored_network(config)}/"
            for name, variable in network.named.items():
                try:
                    variable.assign(loaded.arrays[prefix + name])
                except (KeyError, ValueError):
                    raise HpcganError(
                        f"{loaded.path}: belongs to another model than {run.config_file} ('{name}')"
                    ) from None
            epoch = loaded.meta["epoch"]
            origin = {"path": str(loaded.path), "step": loaded.step, "epoch": epoch, "score": loaded.score}
    comm.broadcast_variables(list(network.named.values()))
    origin = comm.broadcast_json(origin)
    info = CheckpointInfo(Path(origin["path"]), origin["step"], origin["epoch"], origin["score"])
    return TrainedGenerator(problem, config, info, network, method.symmetries(config))


def _find(run: RunDirectory, checkpoint: Literal["best", "latest"], warn: Any) -> Checkpoint:
    if checkpoint == "best":
        return checkpoints.load_best(run.checkpoints, warn)
    latest = checkpoints.load_latest(run.checkpoints, warn)
    return latest if latest is not None else checkpoints.load_best(run.checkpoints, warn)


def load_sampler(
    run_dir: Path,
    checkpoint: Literal["best", "latest"] = "best",
    warn: Any = print,
    comm: Comm | None = None,
    batch_size: int | None = None,
) -> RunSampler:
    """Load a run's generator to draw samples from, on all ranks alike.

    Parameters
    ----------
    run_dir : Path
    checkpoint : "best" or "latest"
    warn : callable
        Takes a line about a damaged checkpoint.
    comm : Comm, optional
        By default this process is alone.
    batch_size : int, optional
        Samples made at a time; by default `training.batch_size` of the run. The samples are the same, to rounding.

    Raises
    ------
    InputError
        Not a run directory, no checkpoint yet, a batch size below one, or another one than the run's where it scores
        with the statistics of batches of that size.
    HpcganError
        Every checkpoint is damaged.
    """
    comm = SerialComm() if comm is None else comm
    generator = load_generator(run_dir, checkpoint, warn, comm)
    trained_size = generator.config.training.batch_size
    with agreed(comm):
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size {batch_size}: give at least 1")
        if batch_size not in (None, trained_size) and generator.uses_batch_statistics:
            raise InputError(
                f"batch size {batch_size}: the run generates with the statistics of batches of {trained_size} "
                "(scoring.statistics=batch), so no other size will do"
            )
    return RunSampler(generator, batch_size or trained_size)


def scored_network(config: Config) -> str:
    """Name of the network that is scored and sampled."""
    averaged = config.scoring.weights == "average" or (
        config.scoring.weights == "auto" and config.training.average_half_life > 0
    )
    name = method_class(config.method).sampled
    return f"{name}_average" if averaged else name
