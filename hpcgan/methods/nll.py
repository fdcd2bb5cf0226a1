"""Training by likelihood: one density, updated by the gradient of the mean negative log-likelihood of the batch.

Autoregressive models, flows and whatever else is a :class:`hpcgan.networks.density.Density` under the name `density`
among the networks of a problem. The loss is a mean over the rank's own batch and has no term across samples, so the
average over equally large ranks is that of one rank with all of them. Gradients, moving statistics and metrics travel
in one collective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import tensorflow as tf

from hpcgan.comm.base import Comm
from hpcgan.config import LikelihoodConfig
from hpcgan.data.schema import Sample
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.base import ATTENTION, NONFINITE, Loss, Method, StepInput, StepResult, build_network
from hpcgan.methods.gradient_average import Exchange, accumulate, finite
from hpcgan.methods.repeat import Arguments, Repeated
from hpcgan.networks.density import Density
from hpcgan.networks.layers import Batches, Network, Tensors
from hpcgan.problems.base import Problem

NAME = "density"
#: Averaged over all ranks in every step, in this order; the first is in nats an event, for the units of the encoding.
METRICS = ("nll", NONFINITE, ATTENTION)


class Likelihood(Method):
    """A density, its optimizer, and the step.

    Parameters
    ----------
    problem : Problem
    config : LikelihoodConfig
    comm : Comm
    seed : int
    symmetries : sequence of str
        Symmetries under which samples are shown; nothing here depends on them.
    compression : "none" or "fp16"
        How gradients travel between ranks.

    Attributes
    ----------
    networks : dict of str to Network
        `density` and, with averaging, `density_average`.
    optimizers : dict of str to Adam
    """

    sampled = NAME
    losses = (Loss("nll", "nll", "NLL"),)
    reported: Mapping[str, int] = {NAME: len(METRICS)}

    def __init__(
        self,
        problem: Problem,
        config: LikelihoodConfig,
        comm: Comm,
        seed: int,
        symmetries: Sequence[str] = (),
        compression: str = "none",
    ) -> None:
        self._config, self._comm = config, comm
        self._exchange = Exchange(comm, compression)
        self._density = cast(Density, build_network(problem, NAME, seed, config.dtype))
        self.networks: dict[str, Network] = {NAME: self._density}
        self._average: Average | None = None
        if config.average_half_life > 0:
            self._average = Average(self._density, build_network(problem, NAME, seed, config.dtype))
            self.networks[f"{NAME}_average"] = self._average.network
        trained = {name: v for name, v in self._density.named.items() if v.trainable}
        self.optimizers = {NAME: Adam(NAME, trained, config.density)}
        self._compiled = tf.function(self._step, autograph=False, reduce_retracing=True)
        losses = [loss.metric for loss in self.losses]
        self._repeated = Repeated(self._compiled, METRICS, losses, config.dtype, config.takes_several)

    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
        if self._density.constants:
            self._density.calibrate(Batches(batches, self._config.dtype))
        if self._average is not None:
            self._average.reset()

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        """None: a step takes no random numbers."""
        return {}

    def steps(
        self, inputs: Sequence[StepInput], *, attention: bool = False, loss_above: float = math.inf
    ) -> list[StepResult]:
        """Update the density once in each step; the metrics are `METRICS`."""
        prepared = [self._prepared(given) for given in inputs]
        return [_result(*said) for said in self._repeated(prepared, attention, loss_above)]

    def _prepared(self, given: StepInput) -> Arguments:
        """The arrays that the compiled step takes."""
        dtype = self._config.dtype
        step_samples = len(next(iter(given.real.values()))) * self._comm.size
        kept = decay(self._config.average_half_life, given.samples, step_samples)
        real = {k: np.asarray(v, dtype) for k, v in given.real.items()}
        return real, np.asarray(given.learning_rates[NAME], dtype), np.asarray(kept, dtype)

    def gradients(self, real: Tensors) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients on this rank, and the mean negative log-likelihood of its samples."""
        weights = self._density.weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            nll = -tf.reduce_mean(self._density.log_prob(real))
        return tape.gradient(nll, weights), nll

    def _step(
        self, real: Tensors, rate: tf.Tensor, kept: tf.Tensor, attention: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The whole step, as it is compiled."""

        def part(real: Tensors, draws: Tensors) -> list[tf.Tensor]:
            gradients, nll = self.gradients(real)
            return [*gradients, nll]

        count = self._config.accumulation
        *gradients, nll = part(real, {}) if count == 1 else accumulate(count, part, real, {})
        finite_here = finite(nll, gradients)
        metrics = [nll, 1.0 - tf.cast(finite_here, nll.dtype), attention]
        mean = self._exchange.begin(NAME, self._exchange.pack(self._density, gradients, metrics))()
        averaged, everywhere = self._exchange.unpack(self._density, mean, METRICS.index(NONFINITE))
        self.optimizers[NAME].apply(averaged, rate)
        if self._average is not None:
            self._average.update(kept)
        return everywhere, finite_here


def _result(metrics: Sequence[float], finite_here: bool) -> StepResult:
    return StepResult(dict(zip(METRICS, metrics, strict=True)), finite_here)
