"""The adversarial method: the updates of a training step, and sampling.

A step is the discriminator's update on a real and a fake batch, then the generator's against the updated
discriminator with the same fake batch (reference of the paper's authors). Each update averages gradients,
moving statistics and metrics over all ranks in one collective, so all ranks hold the same bits after it.
The loss is a mean over the rank's own batch and the average over equally large ranks is the mean over the
global batch; only batch normalisation sees each rank's batch by itself.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hpcgan import stateless
from hpcgan.comm.base import Comm
from hpcgan.config import TrainingConfig
from hpcgan.data.schema import Sample
from hpcgan.methods import losses
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
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
    symmetries : sequence of str
        Symmetries under which real samples are shown; with `augment_generated`, generated ones, too.

    Attributes
    ----------
    networks : dict of str to Network
        `generator`, `discriminator` and, with averaging, `generator_average`.
    optimizers : dict of str to Adam
    """

    def __init__(
        self, problem: Problem, config: TrainingConfig, comm: Comm, seed: int, symmetries: Sequence[str] = ()
    ) -> None:
        self._problem, self._config, self._comm, self._seed = problem, config, comm, seed
        self._symmetries = tuple(symmetries) if config.augment_generated else ()
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
        self._discriminator_loss, self._generator_loss = losses.LOSSES[config.loss]
        self._compiled = tf.function(self._step, reduce_retracing=True)
        self._compiled_penalised = tf.function(functools.partial(self._step, penalise=True), reduce_retracing=True)

    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
        """Let the networks measure their constants.

        Parameters
        ----------
        batches : callable
            Gives the encoded samples of the training split, batch by batch, each time it is called.
        """
        for name in ("generator", "discriminator"):
            network = self.networks[name]
            if network.constants:
                tensors = ({k: tf.constant(v, self._config.dtype) for k, v in batch.items()} for batch in batches())
                network.calibrate(tensors)
        if self._average is not None:
            self._average.reset()

    # --- random draws: functions of seed, step and global sample index -----------------------------

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        """Random numbers of this rank's share of a step.

        Parameters
        ----------
        step : int
        first, n : int
            Position of the share in the global batch, and its size.
        """
        noise = stateless.normal(self._seed, "noise", step, first, n, self._problem.noise_dim)
        flip = stateless.uniform(self._seed, "label-flip", step, 0, 1, 1)[0, 0] < self._config.label_flip
        made = {"noise": noise.astype(self._config.dtype), "flip": np.array(flip, self._config.dtype)}
        if self._symmetries:
            columns = len(self._problem.symmetries)
            uniforms = stateless.uniform(self._seed, "augment-generated", step, first, n, columns)
            for name, order in self._problem.permutations(self._symmetries, uniforms).items():
                made[f"order/{name}"], made[f"inverse/{name}"] = order, _inverse(order)
        return made

    # --- training ----------------------------------------------------------------------------------

    def step(
        self,
        step: int,
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
        step : int
            Number of the step, from 0.
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
        due = self._config.r1.weight > 0 and step % self._config.r1.every == 0
        compiled = self._compiled_penalised if due else self._compiled
        metrics, finite = compiled(
            {k: tf.constant(v, dtype) for k, v in real.items()},
            {k: tf.constant(v) for k, v in draws.items()},
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
        penalise: bool = False,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        generator = self.networks["generator"]
        with tf.GradientTape(watch_accessed_variables=False) as generator_tape:
            generator_tape.watch(generator.weights)
            fake = generator(draws["noise"], self._conditions(real), training=True)
            fake = _permute(fake, draws)
        d_metrics, d_finite = self._update_discriminator(
            real, fake, draws["flip"], rates["discriminator"], stop, penalise
        )
        g_loss, g_finite = self._update_generator(real, fake, generator_tape, rates["generator"])
        if self._average is not None:
            self._average.update(kept)
        d_loss, probability_real, probability_fake, d_bad, stopping = tf.unstack(d_metrics)
        g_loss, g_bad = tf.unstack(g_loss)
        metrics = tf.stack([d_loss, g_loss, probability_real, probability_fake, d_bad + g_bad, stopping])
        # A bad discriminator update spoils the generator's on every rank: only its origin is to blame.
        return metrics, tf.where(d_bad > 0, d_finite, g_finite)

    def discriminator_gradients(
        self,
        real: Mapping[str, tf.Tensor],
        fake: Mapping[str, tf.Tensor],
        flip: tf.Tensor,
        penalise: bool = False,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]:
        """Local gradients, loss (without the penalty) and logits of the discriminator."""
        network = self.networks["discriminator"]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            real_logits, fake_logits = network.pair(real, {k: tf.stop_gradient(v) for k, v in fake.items()})
            loss = objective = self._discriminator_loss(real_logits, fake_logits, flip)
            if penalise:
                r1 = self._config.r1
                objective = loss + r1.every * losses.r1_penalty(self._critic, self._made(real), r1.weight)
        return tape.gradient(objective, network.weights), loss, real_logits, fake_logits

    def _critic(self, sample: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return self.networks["discriminator"](sample, training=True, update=False)

    def _made(self, sample: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The tensors that a generator makes (not its conditions)."""
        return {k: v for k, v in sample.items() if self._problem.schema[k].role == "data"}

    def generator_gradients(
        self, real: Mapping[str, tf.Tensor], fake: Mapping[str, tf.Tensor], generator_tape: tf.GradientTape
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Local gradients and loss of the generator, whose forward pass `generator_tape` has recorded."""
        made = self._made(fake)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(made.values()))
            # Its statistics follow the discriminator's own update only.
            loss = self._generator_loss(self._critic({**fake, **made}))
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
        penalise: bool,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gradients, loss, real_logits, fake_logits = self.discriminator_gradients(real, fake, flip, penalise)
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
        reduced = self._comm.grouped_allreduce([*gradients, *(s.read_value() for s in statistics), local], name=name)
        self.optimizers[name].apply(reduced[: len(gradients)], rate)
        for variable, mean in zip(statistics, reduced[len(gradients) : -1], strict=True):
            variable.assign(mean)
        return reduced[-1]

    def _conditions(self, sample: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {k: sample[k] for k, spec in self._problem.schema.items() if spec.role == "condition"}


def _inverse(order: np.ndarray) -> np.ndarray:
    """Inverse of each row's permutation."""
    inverse = np.empty_like(order)
    np.put_along_axis(inverse, order, np.broadcast_to(np.arange(order.shape[1], dtype=order.dtype), order.shape), 1)
    return inverse


def _permute(sample: Mapping[str, tf.Tensor], draws: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Apply the permutations among the draws, if any, to generated samples."""
    changed = dict(sample)
    for name, tensor in sample.items():
        if f"order/{name}" in draws:
            changed[name] = _reorder(tensor, draws[f"order/{name}"], draws[f"inverse/{name}"])
    return changed


def _reorder(tensor: tf.Tensor, order: tf.Tensor, inverse: tf.Tensor) -> tf.Tensor:
    """Permute the cells of each sample; the gradient is gathered back, where TensorFlow would scatter."""
    shape = tf.shape(tensor)

    @tf.custom_gradient
    def gather(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        def backward(upstream: tf.Tensor) -> tf.Tensor:
            flat = tf.reshape(upstream, tf.shape(inverse))
            return tf.reshape(tf.gather(flat, inverse, axis=1, batch_dims=1), shape)

        flat = tf.reshape(x, tf.shape(order))
        return tf.reshape(tf.gather(flat, order, axis=1, batch_dims=1), shape), backward

    return tf.ensure_shape(gather(tensor), tensor.shape)


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
    symmetries : sequence of str
        Applied at random to each sample: those under which the discriminator saw generated samples, since
        what was trained is the distribution after them.
    dtype : str
    """

    def __init__(
        self,
        problem: Problem,
        network: Network,
        *,
        statistics: str,
        batch_size: int,
        symmetries: Sequence[str] = (),
        dtype: str = "float32",
    ) -> None:
        self._problem, self._network, self._dtype = problem, network, dtype
        self._symmetries = tuple(symmetries)
        self.batch_size = batch_size
        self._compiled = tf.function(
            lambda noise, conditions: network(noise, conditions, training=statistics == "batch", update=False),
            reduce_retracing=True,
        )

    def batch(self, seed: int, stream: str, step: int, index: int) -> Sample:
        """The samples of batch number `index` of a stream, in physical units."""
        n = self.batch_size
        noise = stateless.normal(seed, stream, step, index * n, n, self._problem.noise_dim)
        encoded = self._compiled(tf.constant(noise, self._dtype), {})
        sample = {k: v.numpy() for k, v in encoded.items()}
        if self._symmetries:
            columns = len(self._problem.symmetries)
            draws = stateless.uniform(seed, f"{stream}/symmetries", step, index * n, n, columns)
            sample = self._problem.augment(sample, self._symmetries, draws)
        return self._problem.decode(sample)
