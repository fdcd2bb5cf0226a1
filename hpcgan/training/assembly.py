"""An assembled training: the only place that knows all the parts. Trainings and timing studies take it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpcgan.comm.base import Comm, SerialComm
from hpcgan.config import Config
from hpcgan.data.pipeline import Pipeline
from hpcgan.data.schema import Sample
from hpcgan.data.sharding import Sharding
from hpcgan.errors import InputError
from hpcgan.evaluation import held_out
from hpcgan.evaluation.epoch import Diversity, DiversityMeter, EpochScores, Scorer
from hpcgan.evaluation.sampling import scored_network
from hpcgan.methods.base import Method, method_class
from hpcgan.methods.sampler import Sampler, make_sampler
from hpcgan.problems.base import Problem
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import HeldOut
from hpcgan.schedule import Rates
from hpcgan.system.files import warn
from hpcgan.training import warm_start
from hpcgan.training.inputs import Inputs
from hpcgan.training.state import TrainState

#: Samples of this rank, encoded, and the method's random numbers.
Batch = tuple[Sample, dict[str, np.ndarray]]


@dataclass
class Assembly:
    """A configuration with all that it takes to train it, as one of the ranks of `comm`.

    Attributes
    ----------
    config : Config
    comm : Comm
    inputs : Inputs
        The problem and its events.
    sharding : Sharding
        Which events are this rank's, in which step.
    method : Method
        Networks, optimizers and the step.
    state : TrainState
        What a checkpoint holds: their variables, and where the training stands.
    """

    config: Config
    comm: Comm
    inputs: Inputs
    sharding: Sharding
    method: Method
    state: TrainState

    @classmethod
    def of(cls, config: Config, comm: Comm, inputs: Inputs) -> Assembly:
        """Assemble a training with the initial weights."""
        sharding = inputs.sharding(comm.rank, comm.size)
        method, state = make_method(config, inputs.problem, comm)
        return cls(config, comm, inputs, sharding, method, state)

    def without_ranks(self) -> Assembly:
        """A copy with the same share of the events and the same weights, whose steps have no collectives."""
        method, state = make_method(self.config, self.inputs.problem, SerialComm())
        state.load_variables(self.state.arrays())
        return replace(self, comm=SerialComm(), method=method, state=state)

    @property
    def problem(self) -> Problem:
        return self.inputs.problem

    # --- weights to begin with ---------------------------------------------------------------------

    def calibrate(self) -> None:
        """Let the networks measure their constants on the events of the first epoch."""
        self.method.calibrate(lambda: self.inputs.encoded(self.sharding))

    def begin(self) -> Path | None:
        """Give the networks of a new run their constants and, with `training.start_from`, the weights of another.

        Returns
        -------
        Path or None
            The checkpoint of the other run.

        Raises
        ------
        InputError
            Its networks are others.
        """
        self.calibrate()
        if self.config.training.start_from is None:
            return None
        origin = warm_start.load(self.config, self.config.training.start_from, warn)
        try:
            self.method.adopt(origin.arrays)
        except InputError as error:
            raise InputError(f"{warm_start.KEY}: {origin.path} {error}") from None
        return origin.path

    def restore(self, run: RunDirectory) -> bool:
        """Load the newest intact checkpoint; False if there is none."""
        checkpoint = checkpoints.load_latest(run.checkpoints, warn)
        if checkpoint is not None:
            self.state.load(checkpoint.arrays, checkpoint.meta)
        return checkpoint is not None

    def share(self) -> None:
        """Put rank 0's variables and counters in place of those of the others."""
        self.comm.broadcast_variables(list(self.state.variables.values()))
        self.state.load_counters(self.comm.broadcast_json(self.state.meta()))
        self.state.check_equal(self.comm)

    # --- what a step takes ---------------------------------------------------------------------------

    @functools.cached_property
    def pipeline(self) -> Pipeline:
        """Batches of this rank, with the method's random numbers."""
        augment = self.config.data.augment
        return Pipeline(self.inputs.training, self.problem, self.sharding, augment, self.method.draws)

    @functools.cached_property
    def rates(self) -> Rates:
        return Rates(self.config.training, self.sharding.global_batch, self.sharding.batch_size)

    @property
    def epochs_done(self) -> float:
        """Epochs, fractional."""
        counters = self.state.counters
        return counters.epoch + counters.under_way.position / self.sharding.n

    def rest_of_epoch(self) -> Iterator[Batch]:
        """The batches of this epoch that are left."""
        counters = self.state.counters
        return self.pipeline.rest_of_epoch(counters.epoch, counters.under_way.position, counters.step)

    def learning_rates(self) -> dict[str, float]:
        """Of the next step."""
        counters = self.state.counters
        return self.rates.at(counters.step, self.epochs_done, counters.rollbacks, counters.commanded.changes)

    # --- what is made of it --------------------------------------------------------------------------

    @functools.cached_property
    def sampler(self) -> Sampler:
        """Of the network that is scored."""
        return make_sampler(self.config, self.problem, self.method.networks[scored_network(self.config)])

    @functools.cached_property
    def scorer(self) -> Scorer:
        """To be made on all ranks together, as they share the real events."""
        scoring = self.config.scoring
        return Scorer(
            self.problem,
            self.inputs.validation,
            self.comm,
            scoring.events,
            self.sampler.batch_size,
            scoring.samples,
            scoring.quantities,
        )

    @functools.cached_property
    def _held_out_losses(self) -> held_out.Losses | None:
        network = self.method.networks[scored_network(self.config)]
        return self.method.held_out_losses(network, self.config.training.dtype)

    @functools.cached_property
    def diversity_meter(self) -> DiversityMeter:
        """On the first of the events that are scored."""
        return DiversityMeter(self.problem, self.inputs.validation, self.comm, self.sampler.batch_size)

    def prepare_scoring(self) -> None:
        """Have the real events ready by which epochs are judged; on all ranks together."""
        _ = self.scorer, self.diversity_meter

    def generate(self, epoch: int, index: int, conditions: Sample) -> Sample:
        """Batch number `index` of the generated events by which an epoch is judged, in physical units."""
        return self.sampler.batch(self.config.seed, "score", epoch, index, conditions)

    def score(self, epoch: int) -> tuple[EpochScores, Diversity | None]:
        """The scores and the diversity of the generator, which has been measured, on all ranks."""
        return self.scorer(self.generate, epoch), self.diversity_meter(self.generate, epoch)

    def held_out(self) -> HeldOut | None:
        """The loss of the validation events that are scored, where the method's says something; on all ranks."""
        losses = self._held_out_losses
        if losses is None:
            return None
        events, size = self.config.scoring.events, self.sampler.batch_size
        name = self.method.losses[0].name
        return held_out.measure(name, losses, self.problem, self.inputs.validation, self.comm, events, size)


def make_method(config: Config, problem: Problem, comm: Comm) -> tuple[Method, TrainState]:
    """Networks and optimizers with their initial weights, and the step over the ranks of `comm`."""
    make: Callable[..., Method] = method_class(config.method)
    method = make(problem, config.training, comm, config.seed, config.data.augment, config.comm.compression)
    return method, TrainState(method.networks, method.optimizers)
