"""The adversarial method: the updates of a training step, and sampling.

A step is the discriminator's update on a real and a fake batch, then the generator's against the updated
discriminator with the same fake batch (reference of the paper's authors). With `training.critic_steps` the
generator has its update in every so many steps only. Each update averages gradients,
moving statistics and metrics over all ranks in one collective, so all ranks hold the same bits after it.
The loss is a mean over the rank's own batch and the average over equally large ranks is the mean over the
global batch; only batch normalisation sees each rank's batch by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import tensorflow as tf

from hpcgan import stateless
from hpcgan.comm.base import Comm
from hpcgan.config import Config, TrainingConfig
from hpcgan.data.schema import Sample
from hpcgan.methods import instance_noise
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.base import Loss, Method, StepResult, build_network
from hpcgan.methods.exchange import Exchange, Tensors, accumulate
from hpcgan.methods.exchange import finite as all_finite
from hpcgan.methods.losses import LOSSES
from hpcgan.methods.penalties import gradient_penalty, r1_penalty
from hpcgan.methods.permute import inverse, permute
from hpcgan.models.layers import Network, synchronise
from hpcgan.problems.base import Problem

#: Averaged over all ranks in every step, in this order.
METRICS = (
    "discriminator_loss",
    "generator_loss",
    "real_probability",
    "fake_probability",
    "nonfinite",
    "attention",
)
#: What follows from them: how much more the discriminator takes real samples for real than fake ones, 1 at most.
SATURATION = "saturation"

#: Place of "not finite" among the metrics that each network's update averages.
BAD = {"discriminator": 3, "generator": 1}


class Gan(Method):
    """Networks and optimizers of one adversarial training, and its step.

    Parameters
    ----------
    problem : Problem
    config : TrainingConfig
    comm : Comm
    seed : int
    symmetries : sequence of str
        Symmetries under which real samples are shown; with `augment_generated`, generated ones, too.
    compression : "none" or "fp16"
        How gradients travel between ranks.

    Attributes
    ----------
    networks : dict of str to Network
        `generator`, `discriminator` and, with averaging, `generator_average`.
    optimizers : dict of str to Adam
    """

    sampled = "generator"
    losses = (Loss("discriminator", "discriminator_loss", "D"), Loss("generator", "generator_loss", "G"))
    probabilities: ClassVar[Mapping[str, str]] = {"real": "real_probability", "fake": "fake_probability"}
    reported: ClassVar[Mapping[str, int]] = {"discriminator": 5, "generator": 2}

    def __init__(
        self,
        problem: Problem,
        config: TrainingConfig,
        comm: Comm,
        seed: int,
        symmetries: Sequence[str] = (),
        compression: str = "none",
    ) -> None:
        self._problem, self._config, self._comm, self._seed = problem, config, comm, seed
        self._symmetries = tuple(symmetries) if config.augment_generated else ()
        self._exchange = Exchange(comm, compression)
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
        self._loss = LOSSES[config.loss].smoothed(config.label_smoothing)
        self._noise_is_over = False
        for network in (generator, discriminator):
            synchronise(network, comm, "global" if config.batch_norm == "synced" else "local")
        # Without autograph, which would take seconds of each start to translate what has no branches on tensors.
        self._compiled = {
            (penalise, generate): tf.function(
                functools.partial(self._step, penalise=penalise, update_generator=generate),
                autograph=False,
                reduce_retracing=True,
            )
            for penalise in (False, True)
            for generate in (False, True)
        }

    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
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
        dtype = self._config.dtype
        made = {"noise": noise.astype(dtype), "flip": np.array(flip, dtype)}
        if self._config.penalty_weight is not None:
            made["epsilon"] = stateless.uniform(self._seed, "interpolation", step, first, n, 1)[:, 0].astype(dtype)
        if self._config.instance_noise.sigma > 0 and not self._noise_is_over:
            made.update(instance_noise.draw(self._problem.schema, self._seed, step, first, n, dtype))
        if self._symmetries:
            columns = len(self._problem.symmetries)
            uniforms = stateless.uniform(self._seed, "augment-generated", step, first, n, columns)
            for name, order in self._problem.permutations(self._symmetries, uniforms).items():
                made[f"order/{name}"], made[f"inverse/{name}"] = order, inverse(order)
        return made

    # --- sampling ----------------------------------------------------------------------------------

    @classmethod
    def symmetries(cls, config: Config) -> tuple[str, ...]:
        """Those under which the discriminator saw generated samples."""
        return tuple(config.data.augment) if cast(TrainingConfig, config.training).augment_generated else ()

    # --- training ----------------------------------------------------------------------------------

    def step(
        self,
        step: int,
        real: Sample,
        draws: Mapping[str, np.ndarray],
        *,
        learning_rates: Mapping[str, float],
        samples: int,
        attention: bool,
        epochs: float = 0.0,
    ) -> StepResult:
        """Update the discriminator once, and the generator if it is its turn.

        The metrics are `METRICS` and `SATURATION`. In a step without an update of the generator its loss is that of the
        discriminator's fake batch, before the discriminator's update.
        """
        dtype, turns = self._config.dtype, self._config.critic_steps
        step_samples = len(draws["noise"]) * self._comm.size
        kept = decay(self._config.average_half_life, samples, step_samples * turns)
        due = self._config.r1.weight > 0 and step % self._config.r1.every == 0
        compiled = self._compiled[due, step % turns == turns - 1]
        draws = self._with_noise_of(draws, epochs)
        metrics, finite = compiled(
            {k: tf.constant(v, dtype) for k, v in real.items()},
            {k: tf.constant(v) for k, v in draws.items()},
            {k: tf.constant(v, dtype) for k, v in learning_rates.items()},
            tf.constant(kept, dtype),
            tf.constant(float(attention), dtype),
        )
        said = dict(zip(METRICS, metrics.numpy().tolist(), strict=True))
        said[SATURATION] = said["real_probability"] - said["fake_probability"]
        return StepResult(said, bool(finite.numpy()))

    def _with_noise_of(self, draws: Mapping[str, np.ndarray], epochs: float) -> Mapping[str, np.ndarray]:
        """The draws with the strength of the instance noise; without any of it from its end on."""
        if self._config.instance_noise.sigma == 0:
            return draws
        sigma = instance_noise.sigma(self._config, epochs)
        if sigma > 0:
            return {**draws, instance_noise.SIGMA: np.array(sigma, self._config.dtype)}
        self._noise_is_over = True  # epochs only grow: nothing more is drawn for nothing
        return {k: v for k, v in draws.items() if not k.startswith(instance_noise.PREFIX)}

    def _step(
        self,
        real: Tensors,
        draws: Tensors,
        rates: Tensors,
        kept: tf.Tensor,
        attention: tf.Tensor,
        penalise: bool = False,
        update_generator: bool = True,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The whole step, as it is compiled."""
        self.networks["discriminator"].iterate()
        if not update_generator:
            return self._discriminator_step(real, draws, rates, attention, penalise)
        weights = self.networks["generator"].weights
        simultaneous, accumulating = self._config.update == "simultaneous", self._config.accumulation > 1
        fake: Tensors = {}
        if not accumulating:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                fake = self._generate(self._conditions(real), draws)

        d_local, d_finite = self._discriminator_local(real, fake, draws, attention, penalise)
        d_mean = self._begin_mean("discriminator", d_local)
        if not simultaneous:
            d_metrics = self._apply("discriminator", d_mean(), rates["discriminator"])
        if accumulating:
            g_local, g_finite = self._generator_accumulated(real, draws)
        else:
            upstream, g_loss = self._upstream(real, fake, draws)
            gradients = tape.gradient(self._made(fake), weights, output_gradients=upstream)
            g_local, g_finite = self._generator_local(gradients, g_loss)
        g_mean = self._begin_mean("generator", g_local)
        if simultaneous:  # the discriminator's average was under way beside the generator's gradients
            d_metrics = self._apply("discriminator", d_mean(), rates["discriminator"])
        g_metrics = self._apply("generator", g_mean(), rates["generator"], kept)

        d_loss, probability_real, probability_fake, d_bad, attending = tf.unstack(d_metrics)
        g_loss, g_bad = tf.unstack(g_metrics)
        probabilities = self._loss.probabilities(probability_real, probability_fake)
        metrics = tf.stack([d_loss, g_loss, *probabilities, d_bad + g_bad, attending])
        # A bad discriminator update spoils the generator's on every rank: only its origin is to blame.
        return metrics, tf.where(d_bad > 0, d_finite, g_finite)

    def _discriminator_step(
        self, real: Tensors, draws: Tensors, rates: Tensors, attention: tf.Tensor, penalise: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A step in which the generator only makes samples; its statistics follow its own updates."""
        fake: Tensors = {}
        if self._config.accumulation == 1:
            fake = self._generate(self._conditions(real), draws, update=False)
        local, finite = self._discriminator_local(real, fake, draws, attention, penalise, with_generator_loss=True)
        mean = self._begin_mean("discriminator", local)
        d_loss, on_real, on_fake, bad, attending, g_loss = tf.unstack(
            self._apply("discriminator", mean(), rates["discriminator"])
        )
        probabilities = self._loss.probabilities(on_real, on_fake)
        return tf.stack([d_loss, g_loss, *probabilities, bad, attending]), finite

    # --- gradients of this rank --------------------------------------------------------------------

    def _generate(self, conditions: Tensors, draws: Tensors, update: bool = True) -> Tensors:
        """A fake batch, under the symmetries that were drawn, with the conditions that it was asked for."""
        fake = self.networks["generator"](draws["noise"], conditions, training=True, update=update)
        return {**conditions, **permute(fake, draws)}

    def discriminator_gradients(
        self,
        real: Tensors,
        fake: Tensors,
        flip: tf.Tensor,
        penalise: bool = False,
        epsilon: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]:
        """Local gradients, loss (without penalties) and logits of the discriminator.

        `penalise` is for R1; `epsilon`, (n,), says where between real and fake samples the gradient penalty is taken.
        """
        network, settings = self.networks["discriminator"], self._config
        fake = {k: tf.stop_gradient(v) for k, v in fake.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            real_logits, fake_logits = network.pair(real, fake)
            loss = objective = self._loss.discriminator(real_logits, fake_logits, flip)
            if penalise:
                r1 = settings.r1
                objective = loss + r1.every * r1_penalty(self._critic_given(real), self._made(real), r1.weight)
            if settings.penalty_weight is not None and epsilon is not None:
                made = self._made(real), self._made(fake)
                objective += gradient_penalty(self._critic_given(real), *made, epsilon, settings.penalty_weight)
        return tape.gradient(objective, network.weights), loss, real_logits, fake_logits

    def _critic_given(self, real: Tensors) -> Callable[[Tensors], tf.Tensor]:
        """The discriminator as a function of the tensors that a generator makes, under the conditions of `real`."""
        conditions = self._conditions(real)
        return lambda made: self._critic({**conditions, **made})

    def _critic(self, sample: Tensors) -> tf.Tensor:
        return self.networks["discriminator"](sample, training=True, update=False)

    def _made(self, sample: Tensors) -> Tensors:
        """The tensors that a generator makes (not its conditions)."""
        return {k: v for k, v in sample.items() if self._problem.schema[k].role == "data"}

    def generator_gradients(
        self, real: Tensors, fake: Tensors, generator_tape: tf.GradientTape, draws: Tensors | None = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Local gradients and loss of the generator, whose forward pass `generator_tape` has recorded."""
        upstream, loss = self._upstream(real, fake, draws or {})
        weights = self.networks["generator"].weights
        return generator_tape.gradient(self._made(fake), weights, output_gradients=upstream), loss

    def _upstream(self, real: Tensors, fake: Tensors, draws: Tensors) -> tuple[Tensors, tf.Tensor]:
        """Gradient of the generator's loss with respect to what it made, and the loss."""
        made = self._made(fake)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(made.values()))
            # Its statistics follow the discriminator's own update only.
            loss = self._loss.generator(self._critic(instance_noise.add({**fake, **made}, draws, "fake")))
        return tape.gradient(loss, made), loss

    def _discriminator_local(
        self,
        real: Tensors,
        fake: Tensors,
        draws: Tensors,
        attention: tf.Tensor,
        penalise: bool = False,
        with_generator_loss: bool = False,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What this rank contributes to the discriminator's update, packed; whether it is finite."""
        count = len(self.networks["discriminator"].weights)

        def part(real: Tensors, draws: Tensors, fake: Tensors) -> list[tf.Tensor]:
            if not fake:
                fake = self._generate(self._conditions(real), draws, update=not with_generator_loss)
            real, fake = instance_noise.add(real, draws, "real"), instance_noise.add(fake, draws, "fake")
            gradients, loss, on_real, on_fake = self.discriminator_gradients(
                real, fake, draws["flip"], penalise, draws.get("epsilon")
            )
            beliefs = [tf.reduce_mean(self._loss.belief(logits)) for logits in (on_real, on_fake)]
            more = [self._loss.generator(on_fake)] if with_generator_loss else []
            return [*gradients, loss, *beliefs, *more]

        if fake:
            found = part(real, draws, fake)
        else:
            found = self._accumulate(lambda r, d: part(r, d, {}), real, draws)
        gradients, (loss, on_real, on_fake, *more) = found[:count], found[count:]
        finite = all_finite(loss, gradients)
        metrics = [loss, on_real, on_fake, 1.0 - tf.cast(finite, loss.dtype), attention, *more]
        return self._pack("discriminator", gradients, metrics), finite

    def _generator_local(self, gradients: Sequence[tf.Tensor], loss: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What this rank contributes to the generator's update, packed; whether it is finite."""
        finite = all_finite(loss, gradients)
        return self._pack("generator", gradients, [loss, 1.0 - tf.cast(finite, loss.dtype)]), finite

    def _generator_accumulated(self, real: Tensors, draws: Tensors) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The same, part by part of the batch, with a forward pass of its own for each."""
        weights = self.networks["generator"].weights

        def part(real: Tensors, draws: Tensors) -> list[tf.Tensor]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                fake = self._generate(self._conditions(real), draws, update=False)
            gradients, loss = self.generator_gradients(real, fake, tape, draws)
            return [*gradients, loss]

        *gradients, loss = self._accumulate(part, real, draws)
        return self._generator_local(gradients, loss)

    def _accumulate(
        self, part: Callable[[Tensors, Tensors], list[tf.Tensor]], real: Tensors, draws: Tensors
    ) -> list[tf.Tensor]:
        """Mean of what `part` gives for each of `training.accumulation` equal parts of the batch, one at a time."""
        return accumulate(self._config.accumulation, part, real, draws)

    # --- over the ranks ----------------------------------------------------------------------------

    def _pack(self, name: str, gradients: Sequence[tf.Tensor], metrics: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return self._exchange.pack(self.networks[name], gradients, metrics)

    def _begin_mean(self, name: str, local: list[tf.Tensor]) -> Callable[[], list[tf.Tensor]]:
        return self._exchange.begin(name, local)

    def _apply(self, name: str, mean: list[tf.Tensor], rate: tf.Tensor, kept: tf.Tensor | None = None) -> tf.Tensor:
        """Update a network by the averages over all ranks; the averaged metrics."""
        gradients, metrics = self._exchange.unpack(self.networks[name], mean, BAD[name])
        self.optimizers[name].apply(gradients, rate)
        if kept is not None and self._average is not None:
            self._average.update(kept)
        return metrics

    def _conditions(self, sample: Tensors) -> dict[str, tf.Tensor]:
        return {k: sample[k] for k, spec in self._problem.schema.items() if spec.role == "condition"}
