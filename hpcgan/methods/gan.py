"""The adversarial method: the updates of a training step, and sampling.

A step is the discriminator's update on a real and a fake batch, then the generator's against the updated
discriminator with the same fake batch (reference of the paper's authors). Each update averages gradients,
moving statistics and metrics over all ranks in one collective, so all ranks hold the same bits after it.
The loss is a mean over the rank's own batch and the average over equally large ranks is the mean over the
global batch; only batch normalisation sees each rank's batch by itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hpcgan import stateless
from hpcgan.comm.base import Comm
from hpcgan.config import TrainingConfig
from hpcgan.data.schema import Sample
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.losses import LOSSES
from hpcgan.models.layers import Network
from hpcgan.problems.base import Problem

#: Averaged over all ranks in every step, in this order.
METRICS = (
    "discriminator_loss",
    "generator_loss",
    "real_probability",
    "fake_probability",
    "nonfinite",
    "stop",
)


@dataclass(frozen=True)
class StepResult:
    """What a step says.

    Attributes
    ----------
    metrics : dict
        `METRICS`, averaged over all ranks: the same numbers everywhere.
    finite_here : bool
        False if this rank's own losses or gradients were not finite.
    """

    metrics: dict[str, float]
    finite_here: bool


def build_network(problem: Problem, name: str, seed: int, dtype: str) -> Network:
    """Build one of the problem's networks; the weights are a function of seed and variable name."""
    module, _, builder = problem.networks[name].partition(":")
    network: Network = getattr(importlib.import_module(module), builder)(problem.model, seed, dtype)
    return network


class Gan:
    """Networks and optimizers of one adversarial training, and its step.

    Parameters
    ----------
    problem : Problem
    config : TrainingConfig
    comm : Comm
    seed : int

    Attributes
    ----------
    networks : dict of str to Network
        `generator`, `discriminator` and, with averaging, `generator_average`.
    optimizers : dict of str to Adam
    """

    def __init__(self, problem: Problem, config: TrainingConfig, comm: Comm, seed: int) -> None:
        self._problem, self._config, self._comm, self._seed = problem, config, comm, seed
        generator = build_network(problem, "generator", seed, config.dtype)
        discriminator = build_network(problem, "discriminator", seed, config.dtype)
        self.networks: dict[str, Network] = {"generator": generator, "discriminator": discriminator}
        self._average: Average | None = None
        if config.average_half_life > 0:
            self._average = Average(generator, build_network(problem, "generator", seed, config.dtype))
            self.networks["generator_average"] = self._average.network
        self.optimizers = {
            name: Adam(name, {k: v for k, v in self.networks[name].named.items() if v.trainable}, settings)
            for name, settings in (("generator", config.generator), ("discriminator", config.discriminator))
        }
        self._discriminator_loss, self._generator_loss = LOSSES[config.loss]
        self._compiled = tf.function(self._step, reduce_retracing=True)

    # --- random draws: functions of seed, step and global sample index -----------------------------

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        """Random numbers of this rank's share of a step.

        Parameters
        ----------
        step : int
        first, n : int
            Position of the share in the global batch, and its size.
        """
        noise = stateless.normal(self._seed, "noise", step, first, n, self._problem.latent_dim)
        flip = stateless.uniform(self._seed, "label-flip", step, 0, 1, 1)[0, 0] < self._config.label_flip
        return {"noise": noise.astype(self._config.dtype), "flip": np.array(flip, self._config.dtype)}

    # --- training ----------------------------------------------------------------------------------

    def step(
        self,
        real: Sample,
        draws: Mapping[str, np.ndarray],
        *,
        learning_rates: Mapping[str, float],
        samples: int,
        stop: bool,
    ) -> StepResult:
        """Update all networks once.

        Parameters
        ----------
        real : Sample
            Encoded samples of this rank.
        draws : mapping
            From `draws`.
        learning_rates : mapping
            Scheduled rates of `generator` and `discriminator`.
        samples : int
            Samples seen by all ranks, this step's included (paces the averaged generator).
        stop : bool
            This rank asks to stop; all ranks learn of it in the step's own collective.
        """
        dtype = self._config.dtype
        step_samples = len(draws["noise"]) * self._comm.size
        kept = decay(self._config.average_half_life, samples, step_samples)
        metrics, finite = self._compiled(
            {k: tf.constant(v, dtype) for k, v in real.items()},
            {k: tf.constant(v, dtype) for k, v in draws.items()},
            {k: tf.constant(v, dtype) for k, v in learning_rates.items()},
            tf.constant(kept, dtype),
            tf.constant(float(stop), dtype),
        )
        return StepResult(dict(zip(METRICS, metrics.numpy().tolist(), strict=True)), bool(finite.numpy()))

    def _step(
        self,
        real: Mapping[str, tf.Tensor],
        draws: Mapping[str, tf.Tensor],
        rates: Mapping[str, tf.Tensor],
        kept: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        generator = self.networks["generator"]
        with tf.GradientTape(watch_accessed_variables=False) as generator_tape:
            generator_tape.watch(generator.weights)
            fake = generator(draws["noise"], self._conditions(real), training=True)
        d_metrics, d_finite = self._update_discriminator(real, fake, draws["flip"], rates["discriminator"], stop)
        g_loss, g_finite = self._update_generator(real, fake, generator_tape, rates["generator"])
        if self._average is not None:
            self._average.update(kept)
        d_loss, probability_real, probability_fake, d_bad, stopping = tf.unstack(d_metrics)
        g_loss, g_bad = tf.unstack(g_loss)
        metrics = tf.stack([d_loss, g_loss, probability_real, probability_fake, d_bad + g_bad, stopping])
        return metrics, tf.logical_and(d_finite, g_finite)

    def discriminator_gradients(
        self, real: Mapping[str, tf.Tensor], fake: Mapping[str, tf.Tensor], flip: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]:
        """Local gradients, loss and logits of the discriminator; separate passes over real and fake."""
        network = self.networks["discriminator"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            real_logits = network(real, training=True)
            fake_logits = network({k: tf.stop_gradient(v) for k, v in fake.items()}, training=True)
            loss = self._discriminator_loss(real_logits, fake_logits, flip)
        return tape.gradient(loss, network.weights), loss, real_logits, fake_logits

    def generator_gradients(
        self, real: Mapping[str, tf.Tensor], fake: Mapping[str, tf.Tensor], generator_tape: tf.GradientTape
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Local gradients and loss of the generator, whose forward pass `generator_tape` has recorded."""
        made = {k: v for k, v in fake.items() if self._problem.schema[k].role == "data"}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(made.values()))
            # Its statistics follow the discriminator's own update only.
            loss = self._generator_loss(
                self.networks["discriminator"]({**fake, **made}, training=True, update=False)
            )
        upstream = tape.gradient(loss, made)
        weights = self.networks["generator"].weights
        return generator_tape.gradient(made, weights, output_gradients=upstream), loss

    def _update_discriminator(
        self,
        real: Mapping[str, tf.Tensor],
        fake: Mapping[str, tf.Tensor],
        flip: tf.Tensor,
        rate: tf.Tensor,
        stop: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gradients, loss, real_logits, fake_logits = self.discriminator_gradients(real, fake, flip)
        finite = _finite(loss, gradients)
        local = tf.stack(
            [
                loss,
                tf.reduce_mean(tf.sigmoid(real_logits)),
                tf.reduce_mean(tf.sigmoid(fake_logits)),
                1.0 - tf.cast(finite, loss.dtype),
                stop,
            ]
        )
        return self._reduce_and_apply("discriminator", gradients, local, rate), finite

    def _update_generator(
        self,
        real: Mapping[str, tf.Tensor],
        fake: Mapping[str, tf.Tensor],
        generator_tape: tf.GradientTape,
        rate: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gradients, loss = self.generator_gradients(real, fake, generator_tape)
        finite = _finite(loss, gradients)
        local = tf.stack([loss, 1.0 - tf.cast(finite, loss.dtype)])
        return self._reduce_and_apply("generator", gradients, local, rate), finite

    def _reduce_and_apply(
        self, name: str, gradients: Sequence[tf.Tensor], local: tf.Tensor, rate: tf.Tensor
    ) -> tf.Tensor:
        """Average over the ranks in one collective, update the network, return the averaged metrics."""
        statistics = self.networks[name].statistics
        reduced = self._comm.grouped_allreduce(
            [*gradients, *(s.read_value() for s in statistics), local], name=name
        )
        self.optimizers[name].apply(reduced[: len(gradients)], rate)
        for variable, mean in zip(statistics, reduced[len(gradients) : -1], strict=True):
            variable.assign(mean)
        return reduced[-1]

    def _conditions(self, sample: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {k: sample[k] for k, spec in self._problem.schema.items() if spec.role == "condition"}


def _finite(loss: tf.Tensor, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Whether a loss and the norm of its gradients are finite numbers."""
    return tf.math.is_finite(loss + tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients]))


class Sampler:
    """Draws samples from a generator; needs no training state.

    Parameters
    ----------
    problem : Problem
    network : Network
        A generator.
    statistics : "moving" or "batch"
        What batch normalisation uses. Batches are cut at multiples of `batch_size` of the global sample
        index, so that the result does not depend on who draws which batch.
    batch_size : int
    dtype : str
    """

    def __init__(
        self, problem: Problem, network: Network, *, statistics: str, batch_size: int, dtype: str = "float32"
    ) -> None:
        self._problem, self._network, self._dtype = problem, network, dtype
        self.batch_size = batch_size
        self._compiled = tf.function(
            lambda noise, conditions: network(noise, conditions, training=statistics == "batch", update=False),
            reduce_retracing=True,
        )

    def batch(self, seed: int, stream: str, step: int, index: int) -> Sample:
        """The samples of batch number `index` of a stream, in physical units."""
        n = self.batch_size
        noise = stateless.normal(seed, stream, step, index * n, n, self._problem.latent_dim)
        encoded = self._compiled(tf.constant(noise, self._dtype), {})
        return self._problem.decode({k: v.numpy() for k, v in encoded.items()})
