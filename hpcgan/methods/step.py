"""A step as a list of updates, and the one runner that takes them: collect gradients, average over the ranks, apply.

A method says in :meth:`UpdateMethod.updates` what its step consists of; all else about a step is here. Gradients,
moving statistics and metrics of an update travel in one collective, so all ranks hold the same bits after it. A loss is
a mean over the rank's own batch, and the average over equally large ranks is the mean over the global batch; only batch
normalisation sees each rank's batch by itself.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hpcgan.comm.base import Comm
from hpcgan.config import TrainingSection
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.base import ATTENTION, NONFINITE, Method, StepResult, build_network
from hpcgan.networks.capabilities import Calibrated
from hpcgan.networks.layers import Batches, Network, Tensors
from hpcgan.problems.base import Problem


class Local(NamedTuple):
    """What this rank contributes to an update.

    Attributes
    ----------
    gradients : list of tensor
        One a weight of the network, in their order.
    metrics : dict of str to scalar tensor
        Means over this rank's batch, the update's loss among them.
    """

    gradients: list[tf.Tensor]
    metrics: dict[str, tf.Tensor]


@dataclass(frozen=True)
class Update:
    """One update of a network, on all ranks together.

    Attributes
    ----------
    network : str
        Name of the network that is updated.
    loss : str
        The metric that is minimised: with the gradients it says whether this rank's contribution is finite.
    collect : callable
        () -> Local, called when the updates before have been applied (unless a step's updates are simultaneous).
    collective : str
        Name of the collective, the same on all ranks and of no other update of the step.
    before, after : callable or None
        Called before gradients are collected, and when the update has been applied.
    """

    network: str
    loss: str
    collect: Callable[[], Local]
    collective: str
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None


class Outcome(NamedTuple):
    """What came of the updates of a step.

    Attributes
    ----------
    metrics : dict of str to scalar tensor
        Averaged over all ranks; what several updates report under one name is summed.
    finite_here : tensor
        False if this rank was the first whose contribution was not finite.
    """

    metrics: dict[str, tf.Tensor]
    finite_here: tf.Tensor


@dataclass(frozen=True)
class _UnderWay:
    """An update whose average has begun: `finish` wait for the parts of the buffer, `names` are of its metrics."""

    update: Update
    finish: list[Callable[[], tf.Tensor]]
    names: tuple[str, ...]
    finite: tf.Tensor


class Runner:
    """Takes updates.

    Parameters
    ----------
    comm : Comm
    compression : "none" or "fp16"
        How gradients travel between ranks.
    networks, optimizers : mapping
        By name of the network.

    Attributes
    ----------
    payload_bytes : dict of str to int
        Bytes of the largest buffer that was averaged for each network: known once its update has been built.

    Raises
    ------
    InputError
        A compression that the backend has not.
    """

    def __init__(
        self, comm: Comm, compression: str, networks: Mapping[str, Network], optimizers: Mapping[str, Adam]
    ) -> None:
        self._comm, self._networks, self._optimizers = comm, networks, optimizers
        self._half = compression == "fp16" and comm.size > 1
        self.payload_bytes: dict[str, int] = {}
        if self._half and not comm.supports_half:
            raise InputError(
                f"comm.compression: fp16 needs Horovod: comm.backend={comm.backend} has no half precision; use none"
            )

    def run(
        self, updates: Sequence[Update], rates: Tensors, attention: tf.Tensor, simultaneous: bool = False
    ) -> Outcome:
        """Take updates one after the other; simultaneous ones all begin before the first is applied.

        Parameters
        ----------
        updates : sequence of Update
        rates : mapping of str to tensor
            Learning rate of each network.
        attention : scalar tensor
            Above zero if this rank has something to say; travels with the first update.
        simultaneous : bool
        """
        under_way, averages = [], []
        for number, update in enumerate(updates):
            under_way.append(self._begin(update, {} if number else {ATTENTION: attention}))
            if not simultaneous:
                averages.append(self._apply(under_way[-1], rates))
        if simultaneous:
            averages = [self._apply(reduction, rates) for reduction in under_way]
        totals: dict[str, tf.Tensor] = {}
        for metrics in averages:
            for name, value in metrics.items():
                totals[name] = totals[name] + value if name in totals else value
        finite = [reduction.finite for reduction in under_way]
        return Outcome(totals, is_finite_here(finite, [metrics[NONFINITE] for metrics in averages]))

    def _begin(self, update: Update, flags: Mapping[str, tf.Tensor]) -> _UnderWay:
        """Collect this rank's contribution and start to average it: as one flat buffer, so one collective does it.

        With `comm.compression: fp16` the gradients are a buffer of their own, in half precision.
        """
        if update.before is not None:
            update.before()
        local = update.collect()
        finite = all_finite(local.metrics[update.loss], local.gradients)
        metrics = {**local.metrics, NONFINITE: 1.0 - tf.cast(finite, local.metrics[update.loss].dtype), **flags}
        statistics = [statistic.read_value() for statistic in self._networks[update.network].statistics]
        rest = [*statistics, tf.stack(list(metrics.values()))]
        if self._half:
            buffers = [tf.cast(flat(local.gradients), tf.float16), flat(rest)]
        else:
            buffers = [flat([*local.gradients, *rest])]
        size = sum(buffer.shape.num_elements() * buffer.dtype.size for buffer in buffers)
        self.payload_bytes[update.network] = max(size, self.payload_bytes.get(update.network, 0))
        finish = [self._comm.begin_average(buffer, update.collective) for buffer in buffers]
        return _UnderWay(update, finish, tuple(metrics), finite)

    def _apply(self, reduction: _UnderWay, rates: Tensors) -> dict[str, tf.Tensor]:
        """Update a network by the averages over all ranks, its moving statistics included; the averaged metrics."""
        name = reduction.update.network
        weights, statistics = self._networks[name].weights, self._networks[name].statistics
        count = sum(weight.shape.num_elements() for weight in weights)
        start = sum(statistic.shape.num_elements() for statistic in statistics)
        buffers = [finish() for finish in reduction.finish]
        gradients, rest = buffers if self._half else (buffers[0][:count], buffers[0][count:])
        for statistic, value in zip(statistics, like(rest[:start], statistics), strict=True):
            statistic.assign(value)
        metrics = dict(zip(reduction.names, tf.unstack(rest[start:], num=len(reduction.names)), strict=True))
        if self._half:  # which ends at 65504: a sum beyond is not finite
            metrics[NONFINITE] += 1.0 - tf.cast(tf.reduce_all(tf.math.is_finite(gradients)), rest.dtype)
        self._optimizers[name].apply(like(tf.cast(gradients, rest.dtype), weights), rates[name])
        if reduction.update.after is not None:
            reduction.update.after()
        return metrics


class UpdateMethod(Method):
    """A method whose step is a list of updates: networks, optimizers, average and the compiled step.

    Parameters
    ----------
    problem : Problem
    config : TrainingSection
        Of the method's own schema.
    comm : Comm
    seed : int
    symmetries : sequence of str
        Symmetries under which real samples are shown.
    compression : "none" or "fp16"
        How gradients travel between ranks.
    """

    def __init__(
        self,
        problem: Problem,
        config: TrainingSection,
        comm: Comm,
        seed: int,
        symmetries: Sequence[str] = (),
        compression: str = "none",
    ) -> None:
        self._problem, self._comm, self._seed, self._training = problem, comm, seed, config
        self.networks = {name: build_network(problem, name, seed, config.dtype) for name in config.networks}
        self._average: Average | None = None
        if config.average_half_life > 0:
            target = build_network(problem, self.sampled, seed, config.dtype)
            self._average = Average(self.networks[self.sampled], target)
            self.networks[f"{self.sampled}_average"] = target
        self.optimizers = {
            name: Adam(name, {k: v for k, v in self.networks[name].named.items() if v.trainable}, settings)
            for name, settings in config.optimizers.items()
        }
        self._runner = Runner(comm, compression, self.networks, self.optimizers)
        self._compiled: dict[Hashable, Any] = {}
        self._steps_between = config.cadences[1]  # updates of the averaged network

    # --- what a method says ------------------------------------------------------------------------

    #: Names of what `summary` gives, in the order of the records.
    metrics: Sequence[str]

    @abstractmethod
    def updates(self, real: Tensors, draws: Tensors, momentum: tf.Tensor, kind: Any) -> list[Update]:
        """The updates of a step, as it is compiled.

        Parameters
        ----------
        real : mapping of str to tensor
            Encoded samples of this rank.
        draws : mapping of str to tensor
        momentum : scalar tensor
            For `follow`.
        kind : hashable
            Of the step.
        """

    def kind(self, step: int) -> Hashable:
        """What kind of step number `step` is: each is compiled by itself."""
        return ()

    def draws_of(self, draws: Mapping[str, np.ndarray], epochs: float) -> Mapping[str, np.ndarray]:
        """The draws of a step that is taken after so many epochs."""
        return draws

    def summary(self, totals: dict[str, tf.Tensor], kind: Any) -> dict[str, tf.Tensor]:
        """The metrics of a step out of the sums over its updates, by the names in `metrics`."""
        return totals

    def result(self, metrics: dict[str, float], finite_here: bool) -> StepResult:
        """The metrics of a step, with what follows from them."""
        return StepResult(metrics, finite_here)

    # --- the step ----------------------------------------------------------------------------------

    def step(
        self,
        step: int,
        real: Sample,
        draws: Mapping[str, np.ndarray],
        *,
        learning_rates: Mapping[str, float],
        samples: int,
        attention: bool = False,
        epochs: float = 0.0,
    ) -> StepResult:
        dtype = self._training.dtype
        step_samples = len(next(iter(real.values()))) * self._comm.size
        momentum = decay(self._training.average_half_life, samples, step_samples * self._steps_between)
        metrics, finite_here = self.compiled(self.kind(step))(
            {name: tf.constant(values, dtype) for name, values in real.items()},
            {name: tf.constant(values) for name, values in self.draws_of(draws, epochs).items()},
            {name: tf.constant(rate, dtype) for name, rate in learning_rates.items()},
            tf.constant(momentum, dtype),
            tf.constant(float(attention), dtype),
        )
        named = dict(zip(self.metrics, metrics.numpy().tolist(), strict=True))
        return self.result(named, bool(finite_here.numpy()))

    def compiled(self, kind: Hashable) -> Any:
        """The compiled step of a kind: (real, draws, rates, momentum, attention) to (row of metrics, finite here)."""
        if kind not in self._compiled:
            # Without autograph, which would take seconds of each start to translate what has no branches on tensors.
            self._compiled[kind] = tf.function(
                functools.partial(self._step, kind=kind), autograph=False, reduce_retracing=True
            )
        return self._compiled[kind]

    def _step(
        self, real: Tensors, draws: Tensors, rates: Tensors, momentum: tf.Tensor, attention: tf.Tensor, kind: Hashable
    ) -> tuple[tf.Tensor, tf.Tensor]:
        updates = self.updates(real, draws, momentum, kind)
        outcome = self._runner.run(updates, rates, attention, self._training.is_simultaneous)
        metrics = self.summary(outcome.metrics, kind)
        return tf.stack([metrics[name] for name in self.metrics]), outcome.finite_here

    def follow(self, momentum: tf.Tensor) -> None:
        """Let the averaged network, if there is one, follow: `momentum` is the weight of its old values."""
        if self._average is not None:
            self._average.update(momentum)

    @property
    def payload_bytes(self) -> Mapping[str, int]:
        return self._runner.payload_bytes

    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
        for name in self._training.networks:
            network = self.networks[name]
            if isinstance(network, Calibrated) and network.constants:
                network.calibrate(Batches(batches, self._training.dtype))
        if self._average is not None:
            self._average.reset()


def is_finite_here(finite: Sequence[tf.Tensor], nonfinite: Sequence[tf.Tensor]) -> tf.Tensor:
    """False if this rank was the first whose contribution to the updates of a step was not finite.

    A bad update spoils all that come after it, on every rank: only its origin is to blame.

    Parameters
    ----------
    finite : sequence of tensor
        Whether this rank's contribution to each update was.
    nonfinite : sequence of tensor
        Share of all ranks whose was not.
    """
    here = finite[-1]
    for of_rank, of_all in zip(reversed(finite[:-1]), reversed(nonfinite[:-1]), strict=True):
        here = tf.where(of_all > 0, of_rank, here)
    return here


def in_parts(count: int, collect: Callable[[Tensors, Tensors], Local], real: Tensors, draws: Tensors) -> Local:
    """Mean of what is collected from each of `count` equal parts of the batch, one at a time, for less memory."""
    if count == 1:
        return collect(real, draws)
    shared = {k: v for k, v in draws.items() if v.shape.rank == 0}
    sliced = {k: v for k, v in draws.items() if k not in shared}

    def cut(tensors: Tensors, number: tf.Tensor) -> Tensors:
        size = {k: tf.shape(v)[0] // count for k, v in tensors.items()}
        return {k: v[number * size[k] : (number + 1) * size[k]] for k, v in tensors.items()}

    def part(number: tf.Tensor) -> Local:
        return collect(cut(real, number), {**shared, **cut(sliced, number)})

    def add(number: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        return number + 1, [s + more for s, more in zip(sums, tf.nest.flatten(part(number)), strict=True)]

    # The first one by itself: it says which tensors there are. A loop, so that one part is in memory at a time.
    first = part(tf.constant(0))
    begin = (tf.constant(1), tf.nest.flatten(first))
    _, sums = tf.while_loop(lambda number, sums: number < count, add, begin, parallel_iterations=1)
    mean: Local = tf.nest.pack_sequence_as(first, [s / count for s in sums])
    return mean


def flat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """All entries in one row."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def like(whole: tf.Tensor, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """A flat buffer cut into tensors of the variables' shapes."""
    sizes = [variable.shape.num_elements() for variable in variables]
    parts = tf.split(whole, sizes) if sizes else []
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables, strict=True)]


def all_finite(loss: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether a loss and the norm of its gradients are finite numbers."""
    return tf.math.is_finite(loss + tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))
