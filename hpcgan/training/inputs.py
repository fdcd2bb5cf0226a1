"""What a training reads: the problem of a configuration and its events, with all checks that need no TensorFlow.

The same checks refuse a training before its ranks start (`hpcgan.api.preflight`) and on each rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.data.sharding import Sharding, rank_batch
from hpcgan.data.source import Source, SyntheticSource
from hpcgan.errors import InputError
from hpcgan.problems import run_data
from hpcgan.problems.base import Problem, problem_class
from hpcgan.problems.events import open_split, weights_of_first
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.files import warn
from hpcgan.training import warm_start
from hpcgan.training.staged import Staged

ENCODED_AT_ONCE = 512  # events


@dataclass(frozen=True)
class Inputs:
    """The problem of a configuration and its open splits; a context that closes them.

    Attributes
    ----------
    config : Config
    problem : Problem
    splits : dict of str to Source
        `train` and, unless only steps are timed, `val`.
    staged : Staged
        Where they are read.
    """

    config: Config
    problem: Problem
    splits: dict[str, Source]
    staged: Staged

    @classmethod
    def open(cls, config: Config, names: Sequence[str] = ("train", "val"), staged: Staged | None = None) -> Inputs:
        """Open splits, by default where `data.path` says.

        Raises
        ------
        InputError
            Missing or broken data.
        """
        problem, staged = problem_class(config.problem)(config.model), staged or Staged(config)
        with contextlib.ExitStack() as refused:
            splits = {}
            for name in names:
                splits[name] = open_split(problem, staged.config.data, name)
                refused.callback(splits[name].close)
            refused.pop_all()
        return cls(config, problem, splits, staged)

    @classmethod
    def synthetic(cls, config: Config, ranks: int) -> Inputs:
        """Made-up training events, enough for some steps."""
        problem = problem_class(config.problem)(config.model)
        size = config.training.global_batch_size or config.training.batch_size * ranks
        source = SyntheticSource(problem.schema, max(4096, 32 * size), config.seed)
        return cls(config, problem, {"train": source}, Staged(config))

    @property
    def training(self) -> Source:
        return self.splits["train"]

    @property
    def validation(self) -> Source:
        return self.splits["val"]

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the splits."""
        for source in self.splits.values():
            source.close()

    def batch_size(self, ranks: int) -> int:
        """Samples of a step on each of so many ranks.

        Raises
        ------
        InputError
            Fewer events than a global batch, or one that cannot be shared evenly.
        """
        settings, source = self.config.training, self.training
        batch = rank_batch(source.path, len(source), settings.batch_size, settings.global_batch_size, ranks)
        if batch % settings.accumulation:
            raise InputError(
                f"training.accumulation: {settings.accumulation} parts of a rank's batch of {batch} cannot be equal; "
                "take a divisor of it"
            )
        return batch

    def sharding(self, rank: int, ranks: int) -> Sharding:
        """Epoch order of the training split over the ranks; errors as of `batch_size`."""
        weights = self.training.weights()
        return Sharding(len(self.training), self.batch_size(ranks), rank, ranks, self.config.seed, weights)

    def encoded(self, sharding: Sharding | None = None, at_once: int = ENCODED_AT_ONCE) -> Iterator[Sample]:
        """All training events as the networks see them, in order; with a sharding, those of its first epoch."""
        events = np.arange(len(self.training)) if sharding is None else sharding.resampled(0)
        for first in range(0, len(events), at_once):
            yield self.problem.encode(self.training.read(events[first : first + at_once]))

    def check(self, run: RunDirectory, data: run_data.RunData | None = None) -> str | None:
        """Check the run directory against the configuration and the data, before anything is written.

        Returns
        -------
        str or None
            What to warn of: another test split than that of the run.

        Raises
        ------
        InputError
            A run of another configuration or with other data is there, validation events have no weight, or
            `training.start_from` is of no use.
        """
        warning = None
        if run.exists:
            run.check_config(self.config, run.load_config())
            warning = run_data.check(run, self.config, data or run_data.identify(self.config))
        if self.config.scoring.every_epochs:
            weights_of_first(self.validation, self.config.scoring.events)
        if not checkpoints.steps(run.checkpoints):  # a run that goes on needs it no more
            warm_start.check(self.config)
        return warning

    def check_events(self) -> None:
        """Read the files through: for a new run, whose data nobody has read before.

        Raises
        ------
        InputError
            The data cannot be trained on.
        """
        for split, source in self.splits.items():
            self.problem.validate(self.staged.config.data.path, split)
            self.problem.check_events(source)
        try:
            open_split(self.problem, self.config.data, "test").close()
        except InputError as error:
            warn(f"{error} ('hpcgan evaluate' will need it)")
