"""Samples of a trained run: its generator from a checkpoint."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm, SerialComm
from hpcgan.config import Config
from hpcgan.data.schema import Sample, take
from hpcgan.errors import HpcganError, InputError
from hpcgan.evaluation.conditions import Conditions, from_random_events, training_conditions
from hpcgan.evaluation.held_out import Losses
from hpcgan.methods.base import build_network, method_class
from hpcgan.methods.sampler import Sampler, make_sampler
from hpcgan.networks.layers import BatchNorm, Network
from hpcgan.problems import run_data
from hpcgan.problems.base import Problem, problem_class
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.directory import trained_run


@dataclass(frozen=True)
class CheckpointInfo:
    """Where a sampler's weights come from."""

    path: Path
    step: int
    epoch: int
    score: float | None


@dataclass(frozen=True)
class RunSampler:
    """Draws samples from a run's generator with the weights of a checkpoint.

    Attributes
    ----------
    problem : Problem
    config : Config
    checkpoint : CheckpointInfo
    network : Network
        The averaged generator where the run scores that one.
    sampler : hpcgan.methods.sampler.Sampler
        Makes the batches.
    """

    problem: Problem
    config: Config
    checkpoint: CheckpointInfo
    network: Network
    sampler: Sampler

    @property
    def batch_size(self) -> int:
        """Samples that are made at a time."""
        return self.sampler.batch_size

    @property
    def symmetries(self) -> tuple[str, ...]:
        """Symmetries that are applied to its samples at random: those under which the discriminator saw them."""
        return method_class(self.config.method).symmetries(self.config)

    @functools.cached_property
    def held_out_losses(self) -> Losses | None:
        """What tells the loss of each encoded sample, where that says how good the network is."""
        return method_class(self.config.method).held_out_losses(self.network, self.config.training.dtype)

    @functools.cached_property
    def training_conditions(self) -> Sample:
        """Conditions of the events that the model was trained on, in physical units; read once.

        Raises
        ------
        InputError
            The training data are not found any more, or are others now.
        """
        return training_conditions(self.problem, self.config)

    def sample(self, n: int, seed: int, first: int = 0, conditions: Conditions | None = None) -> Sample:
        """Samples first ... first + n - 1 of the sequence of a seed, in physical units.

        Parameters
        ----------
        n, seed, first : int
            `first` must be a multiple of `batch_size`.
        conditions : Conditions, optional
            By default those of random training events, where the problem has any.
        """
        size = self.batch_size
        if first % size:
            raise ValueError(f"first={first} is not a multiple of the batch size {size}")
        if conditions is None and self.problem.conditions:
            try:
                conditions = from_random_events(self.training_conditions, seed)
            except InputError as error:
                raise InputError(f"{error}; say which conditions to make, e.g. with --condition") from None
        samples: Sample = {}
        for start in range(first, first + n, size):
            values_of_batch = None if conditions is None else conditions(start, size)
            batch = self.sampler.batch(seed, "sample", 0, start // size, values_of_batch)
            position = start - first
            for name, values in batch.items():
                if name not in samples:
                    samples[name] = np.empty((n, *values.shape[1:]), values.dtype)
                samples[name][position : position + size] = values[: n - position]
        return samples

    def at(self, seeds: np.ndarray, indices: np.ndarray, conditions: Sample | None = None) -> Sample:
        """Samples of any seeds and numbers, in physical units: each is that which `sample` makes of them.

        Parameters
        ----------
        seeds, indices : (n,) int64
            Of each sample: its seed, and its number in the sequence of that seed. `n` is at most `batch_size`; the
            network is given a full batch all the same, so that what it makes does not depend on n.
        conditions : Sample, optional
            Of each sample, where the problem has any.
        """
        n, size = len(seeds), self.batch_size
        if not 0 < n <= size:
            raise ValueError(f"{n} samples: give from 1 to {size}")
        filled = np.minimum(np.arange(size), n - 1)  # the last one over and over
        values = None if not conditions else take(conditions, filled)
        return take(self.sampler.at(seeds[filled], indices[filled], "sample", 0, values), slice(n))


def load_sampler(
    run_dir: Path,
    checkpoint: Literal["best", "latest"] = "best",
    warn: Any = print,
    comm: Comm | None = None,
    batch_size: int | None = None,
    statistics: Literal["batch", "moving"] | None = None,
) -> RunSampler:
    """Load a run's generator to draw samples from: on rank 0, which hands its weights to the others.

    A run that is still being trained gets new checkpoints, of which ranks that read for themselves could find
    different ones.

    Parameters
    ----------
    run_dir : Path
        Or `pretrained:NAME`.
    checkpoint : "best" or "latest"
    warn : callable
        Takes a line about a damaged checkpoint.
    comm : Comm, optional
        By default this process is alone.
    batch_size : int, optional
        Samples made at a time; by default `training.batch_size` of the run. The samples are the same, to rounding.
    statistics : "batch" or "moving", optional
        What batch normalisation uses; by default `scoring.statistics` of the run. A sample depends on the others of its
        batch with "batch", and with "moving" it does not.

    Raises
    ------
    InputError
        Not a run directory, no checkpoint yet, a batch size below one, or another one than the run's where it scores
        with the statistics of batches of that size.
    HpcganError
        Every checkpoint is damaged.
    """
    comm = SerialComm() if comm is None else comm
    origin = None
    with agreed(comm):
        run = trained_run(run_dir)
        config = run_data.load(run)
        if statistics is not None:
            scoring = config.scoring.model_copy(update={"statistics": statistics})
            config = config.model_copy(update={"scoring": scoring})
        problem = problem_class(config.problem)(config.model)
        network = build_network(problem, method_class(config.method).sampled, config.seed, config.training.dtype)
        _check_batch_size(batch_size, config, network)
        if comm.is_root:
            loaded = checkpoints.load_latest(run.checkpoints, warn) if checkpoint == "latest" else None
            loaded = loaded or checkpoints.load_best(run.checkpoints, warn)
            prefix = f"network/{scored_network(config)}/"
            for name, variable in network.named.items():
                try:
                    variable.assign(loaded.arrays[prefix + name])
                except (KeyError, ValueError):
                    raise HpcganError(
                        f"{loaded.path}: belongs to another model than {run.config_file} ('{name}')"
                    ) from None
            origin = [str(loaded.path), loaded.step, loaded.meta["epoch"], loaded.score]
    comm.broadcast_variables(list(network.named.values()))
    path, *numbers = comm.broadcast_json(origin)
    sampler = make_sampler(config, problem, network, batch_size)
    return RunSampler(problem, config, CheckpointInfo(Path(path), *numbers), network, sampler)


def _check_batch_size(batch_size: int | None, config: Config, network: Network) -> None:
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch size {batch_size}: give at least 1")
    trained_size = config.training.batch_size
    if batch_size not in (None, trained_size) and uses_batch_statistics(config, network):
        raise InputError(
            f"batch size {batch_size}: the run generates with the statistics of batches of {trained_size} "
            "(scoring.statistics=batch), so no other size will do"
        )


def uses_batch_statistics(config: Config, network: Network) -> bool:
    """Whether the samples of a batch depend on one another, as they do in a training."""
    return config.scoring.statistics == "batch" and any(isinstance(module, BatchNorm) for module in network.submodules)


def scored_network(config: Config) -> str:
    """Name of the network that is scored and sampled."""
    averaged = config.scoring.weights == "average" or (
        config.scoring.weights == "auto" and config.training.average_half_life > 0
    )
    name = method_class(config.method).sampled
    return f"{name}_average" if averaged else name
