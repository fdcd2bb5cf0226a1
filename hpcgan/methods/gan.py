"""The adversarial method: the updates of a training step, and sampling.

A step is the discriminator's update on a real and a fake batch, then the generator's against the updated
discriminator with the same fake batch (reference of the paper's authors). With `training.critic_steps` the
generator has its turn in every so many steps only, with `training.generator_steps` it then has several updates, each on
noise of its own, and with `training.discriminator_update: apart` the discriminator has one on the real batch and one on
the fake (CaloGAN's step is 2 and apart). Each update averages gradients,
moving statistics and metrics over all ranks in one collective, so all ranks hold the same bits after it.
The loss is a mean over the rank's own batch and the average over equally large ranks is the mean over the
global batch; only batch normalisation sees each rank's batch by itself.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.comm.base import Comm
from hpcgan.config import Config, TrainingConfig
from hpcgan.data.schema import Sample
from hpcgan.methods import instance_noise
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.base import ATTENTION, NONFINITE, Loss, Method, StepInput, StepResult, build_network
from hpcgan.methods.gradient_average import Exchange, accumulate
from hpcgan.methods.gradient_average import finite as all_finite
from hpcgan.methods.losses import LOSSES
from hpcgan.methods.penalties import gradient_penalty, r1_penalty
from hpcgan.methods.permute import inverse, permute
from hpcgan.methods.repeat import Arguments, Repeated
from hpcgan.networks.layers import Batches, Network, Tensors, synchronise
from hpcgan.problems.base import Problem

#: Averaged over all ranks in every step, in this order.
METRICS = (
    "discriminator_loss",
    "generator_loss",
    "real_probability",
    "fake_probability",
    NONFINITE,
    ATTENTION,
)
#: Averaged besides, where the generator's network has such a loss; it is a part of the generator's.
AUXILIARY = "auxiliary_loss"
#: What follows from them: how much more the discriminator takes real samples for real than fake ones, 1 at most.
SATURATION = "saturation"

#: Place of "not finite" among the metrics that each network's update averages.
BAD = {"discriminator": 3, "generator": 1}
#: What the discriminator's updates of a step are on, and how their collectives are told apart.
HALVES = {"joint": ("",), "apart": ("real", "fake")}


@dataclass
class _Update:
    """One update of a network: its contribution on the way to the other ranks, and what came of it.

    Attributes
    ----------
    network : str
    mean : callable
        Waits for the averages over all ranks.
    finite : tensor
        Whether this rank's contribution is finite.
    metrics : tensor
        Averaged, once it is applied.
    """

    network: str
    mean: Callable[[], list[tf.Tensor]]
    finite: tf.Tensor
    metrics: tf.Tensor | None = None

    @property
    def bad(self) -> tf.Tensor:
        """Above zero if any rank's contribution was not finite."""
        return tf.gather(self.metrics, BAD[self.network])


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
    probabilities: Mapping[str, str] = {"real": "real_probability", "fake": "fake_probability"}

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
        self.losses = [Loss("discriminator", "discriminator_loss", "D"), Loss("generator", "generator_loss", "G")]
        self._names: tuple[str, ...] = METRICS
        if generator.has_auxiliary_loss:
            self.losses.append(Loss("auxiliary", AUXILIARY, "auxiliary"))
            self._names += (AUXILIARY,)
        self.reported = {"discriminator": 5, "generator": len(self.losses)}  # "not finite" among them
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
        losses = [loss.metric for loss in self.losses]
        self._repeated = {
            kind: Repeated(compiled, self._names, losses, config.dtype, config.takes_several)
            for kind, compiled in self._compiled.items()
        }

    def calibrate(self, batches: Callable[[], Iterable[Sample]]) -> None:
        for name in ("generator", "discriminator"):
            network = self.networks[name]
            if network.constants:
                network.calibrate(Batches(batches, self._config.dtype))
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
        noise = rng.normal(self._seed, "noise", step, first, n, self._problem.noise_dim)
        flip = rng.uniform(self._seed, "label-flip", step, 0, 1, 1)[0, 0] < self._config.label_flip
        dtype = self._config.dtype
        made = {"noise": noise.astype(dtype), "flip": np.array(flip, dtype)}
        if self._config.generator_steps > 1 and self._is_turn(step):
            for turn in range(self._config.generator_steps):
                noise = rng.normal(self._seed, f"noise/{turn}", step, first, n, self._problem.noise_dim)
                made[_noise_of(turn)] = noise.astype(dtype)
        if self._config.penalty_weight is not None:
            made["epsilon"] = rng.uniform(self._seed, "interpolation", step, first, n, 1)[:, 0].astype(dtype)
        if self._config.instance_noise.sigma > 0 and not self._noise_is_over:
            made.update(instance_noise.draw(self._problem.schema, self._seed, step, first, n, dtype))
        if self._symmetries:
            columns = len(self._problem.symmetries)
            uniforms = rng.uniform(self._seed, "augment-generated", step, first, n, columns)
            for name, order in self._problem.permutations(self._symmetries, uniforms).items():
                made[f"order/{name}"], made[f"inverse/{name}"] = order, inverse(order)
        return made

    # --- sampling ----------------------------------------------------------------------------------

    @classmethod
    def symmetries(cls, config: Config) -> tuple[str, ...]:
        """Those under which the discriminator saw generated samples."""
        return tuple(config.data.augment) if cast(TrainingConfig, config.training).augment_generated else ()

    def _is_turn(self, step: int) -> bool:
        """Whether the generator is updated in a step."""
        return step % self._config.critic_steps == self._config.critic_steps - 1

    # --- training ----------------------------------------------------------------------------------

    def steps(
        self, inputs: Sequence[StepInput], *, attention: bool = False, loss_above: float = math.inf
    ) -> list[StepResult]:
        """Update the discriminator, and the generator if it is its turn, in each step.

        The steps of a call are of one kind: with or without a penalty, with or without an update of the generator. The
        metrics are `METRICS`, possibly `AUXILIARY`, and `SATURATION`. The generator's losses are means over its updates
        of the step. In a step without any they are those of the discriminator's fake batch, before the discriminator's
        update.
        """
        prepared = [self._prepared(given) for given in inputs]
        kind = prepared[0][0]
        alike = [arguments for _, arguments in itertools.takewhile(lambda one: one[0] == kind, prepared)]
        return [self._result(*said) for said in self._repeated[kind](alike, attention, loss_above)]

    def _prepared(self, given: StepInput) -> tuple[tuple[bool, bool], Arguments]:
        """Which of the compiled steps is to be taken, and the arrays that it takes."""
        settings, step_samples = self._config, len(given.draws["noise"]) * self._comm.size
        kept = decay(settings.average_half_life, given.samples, step_samples * settings.critic_steps)
        due = settings.r1.weight > 0 and given.step % settings.r1.every == 0
        arguments = (
            {k: np.asarray(v, settings.dtype) for k, v in given.real.items()},
            dict(self._with_noise_of(given.draws, given.epochs)),
            {k: np.asarray(v, settings.dtype) for k, v in given.learning_rates.items()},
            np.asarray(kept, settings.dtype),
        )
        return (due, self._is_turn(given.step)), arguments

    def _result(self, metrics: Sequence[float], finite_here: bool) -> StepResult:
        said = dict(zip(self._names, metrics, strict=True))
        said[SATURATION] = said["real_probability"] - said["fake_probability"]
        return StepResult(said, finite_here)

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
        settings, conditions = self._config, self._conditions(real)
        simultaneous, accumulating = settings.update == "simultaneous", settings.accumulation > 1
        # Whether the generator is updated on the samples that the discriminator is shown.
        shared = update_generator and settings.generator_steps == 1
        fake: Tensors = {}
        if not accumulating:
            fake, tape = self._recorded(conditions, draws, update=shared)

        discriminator: list[_Update] = []
        for half in HALVES[settings.discriminator_update]:
            self.networks["discriminator"].iterate()
            heard = tf.zeros_like(attention) if discriminator else attention
            local, finite = self._discriminator_local(
                real, fake, draws, heard, penalise, half, shared=shared, with_generator_loss=not update_generator
            )
            update = _Update("discriminator", self._begin_mean("discriminator", local, half), finite)
            if not simultaneous:
                update.metrics = self._apply("discriminator", update.mean(), rates["discriminator"])
            discriminator.append(update)

        generator: list[_Update] = []
        for turn in range(settings.generator_steps if update_generator else 0):
            given = draws if shared else {**draws, "noise": draws[_noise_of(turn)]}
            if accumulating:
                local, finite = self._generator_accumulated(real, given, update=not shared)
            else:
                if not shared:
                    fake, tape = self._recorded(conditions, given)
                upstream, losses = self._upstream(real, fake, given)
                weights = self.networks["generator"].weights
                gradients = tape.gradient(self._made(fake), weights, output_gradients=upstream)
                local, finite = self._generator_local(gradients, losses)
            update = _Update("generator", self._begin_mean("generator", local, str(turn or "")), finite)
            if simultaneous:  # the discriminator's average was under way beside the generator's gradients
                self._finish(discriminator, rates)
            last = turn == settings.generator_steps - 1
            update.metrics = self._apply("generator", update.mean(), rates["generator"], kept if last else None)
            generator.append(update)
        self._finish(discriminator, rates)
        return self._said(discriminator, generator)

    def _finish(self, updates: Sequence[_Update], rates: Tensors) -> None:
        """Apply the discriminator's updates that are still under way."""
        for update in updates:
            if update.metrics is None:
                update.metrics = self._apply(update.network, update.mean(), rates[update.network])

    def _said(self, discriminator: Sequence[_Update], generator: Sequence[_Update]) -> tuple[tf.Tensor, tf.Tensor]:
        """Metrics of a step out of those of its updates; False if this rank was the first that was not finite."""
        d_loss, on_real, on_fake, bad, attending, *of_generator = _sum(discriminator)
        if generator:
            g_loss, g_bad, *auxiliary = _sum(generator)
            of_generator, bad = [g_loss, *auxiliary], bad + g_bad
            if len(generator) > 1:
                of_generator = [loss / len(generator) for loss in of_generator]
        g_loss, *auxiliary = of_generator
        probabilities = self._loss.probabilities(on_real, on_fake)
        # A bad update spoils all that come after it, on every rank: only its origin is to blame.
        *earlier, last = [*discriminator, *generator]
        finite = last.finite
        for update in reversed(earlier):
            finite = tf.where(update.bad > 0, update.finite, finite)
        return tf.stack([d_loss, g_loss, *probabilities, bad, attending, *auxiliary]), finite

    # --- gradients of this rank --------------------------------------------------------------------

    def _generate(self, conditions: Tensors, draws: Tensors, update: bool = True) -> Tensors:
        """A fake batch, under the symmetries that were drawn, with the conditions that it was asked for."""
        fake = self.networks["generator"](draws["noise"], conditions, training=True, update=update)
        return {**conditions, **permute(fake, draws)}

    def _recorded(self, conditions: Tensors, draws: Tensors, update: bool = True) -> tuple[Tensors, tf.GradientTape]:
        """A fake batch, and the tape for gradients of the generator's weights."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.networks["generator"].weights)
            fake = self._generate(conditions, draws, update)
        return fake, tape

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
                objective = loss + self._r1(real)
            if settings.penalty_weight is not None and epsilon is not None:
                made = self._made(real), self._made(fake)
                objective += gradient_penalty(self._critic_given(real), *made, epsilon, settings.penalty_weight)
        return tape.gradient(objective, network.weights), loss, real_logits, fake_logits

    def half_gradients(
        self, half: str, sample: Tensors, flip: tf.Tensor, penalise: bool = False
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Local gradients, loss (without penalties) and logits of the discriminator on `real` or `fake` samples."""
        network = self.networks["discriminator"]
        sample = {k: tf.stop_gradient(v) for k, v in sample.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            logits = network(sample, training=True)
            loss = objective = (self._loss.on_real if half == "real" else self._loss.on_fake)(logits, flip)
            if penalise and half == "real":
                objective = loss + self._r1(sample)
        return tape.gradient(objective, network.weights), loss, logits

    def _r1(self, real: Tensors) -> tf.Tensor:
        """R1 in the discriminator's own coordinates, for all the steps until it is due again."""
        r1, critic = self._config.r1, self._critic_given(real)
        seen, back = self.networks["discriminator"].coordinates(self._made(real))
        return r1.every * r1_penalty(lambda there: critic(back(there)), seen, r1.weight)

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
        upstream, (loss, *_) = self._upstream(real, fake, draws or {})
        weights = self.networks["generator"].weights
        return generator_tape.gradient(self._made(fake), weights, output_gradients=upstream), loss

    def _generator_losses(self, logits: tf.Tensor, fake: Tensors) -> list[tf.Tensor]:
        """The generator's loss; with an auxiliary one, their sum and the auxiliary one."""
        loss, network = self._loss.generator(logits), self.networks["generator"]
        if not network.has_auxiliary_loss:
            return [loss]
        auxiliary = network.auxiliary_loss(fake)
        return [loss + auxiliary, auxiliary]

    def _upstream(self, real: Tensors, fake: Tensors, draws: Tensors) -> tuple[Tensors, list[tf.Tensor]]:
        """Gradient of the generator's loss with respect to what it made, and its losses."""
        made = self._made(fake)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(made.values()))
            # Its statistics follow the discriminator's own update only.
            logits = self._critic(instance_noise.add({**fake, **made}, draws, "fake"))
            losses = self._generator_losses(logits, {**fake, **made})
        return tape.gradient(losses[0], made), losses

    def _discriminator_local(
        self,
        real: Tensors,
        fake: Tensors,
        draws: Tensors,
        attention: tf.Tensor,
        penalise: bool,
        half: str,
        *,
        shared: bool,
        with_generator_loss: bool,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What this rank contributes to an update of the discriminator, packed; whether it is finite.

        `half` is of `HALVES`. Without a `fake` batch, each part of the real one (`training.accumulation`) has one made,
        which the generator's statistics follow if the generator's own update is on the same (`shared`).
        """
        count = len(self.networks["discriminator"].weights)

        def part(real: Tensors, draws: Tensors, fake: Tensors) -> list[tf.Tensor]:
            if not fake and half != "real":
                fake = self._generate(self._conditions(real), draws, update=shared)
            made = fake
            real, fake = instance_noise.add(real, draws, "real"), instance_noise.add(fake, draws, "fake")
            believed = {}
            if half:
                gradients, loss, believed[half] = self.half_gradients(
                    half, real if half == "real" else fake, draws["flip"], penalise
                )
            else:
                gradients, loss, believed["real"], believed["fake"] = self.discriminator_gradients(
                    real, fake, draws["flip"], penalise, draws.get("epsilon")
                )
            none = tf.zeros_like(loss)
            beliefs = [
                tf.reduce_mean(self._loss.belief(believed[kind])) if kind in believed else none
                for kind in ("real", "fake")
            ]
            more: list[tf.Tensor] = []
            if with_generator_loss:
                more = (
                    self._generator_losses(believed["fake"], made)
                    if half != "real"
                    else [none] * (len(self.losses) - 1)
                )
            return [*gradients, loss, *beliefs, *more]

        if fake or self._config.accumulation == 1:
            found = part(real, draws, fake)
        else:
            found = self._accumulate(lambda r, d: part(r, d, {}), real, draws)
        gradients, (loss, on_real, on_fake, *more) = found[:count], found[count:]
        finite = all_finite(loss, gradients)
        metrics = [loss, on_real, on_fake, 1.0 - tf.cast(finite, loss.dtype), attention, *more]
        return self._pack("discriminator", gradients, metrics), finite

    def _generator_local(
        self, gradients: Sequence[tf.Tensor], losses: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What this rank contributes to an update of the generator, packed; whether it is finite."""
        loss, *auxiliary = losses
        finite = all_finite(loss, gradients)
        return self._pack("generator", gradients, [loss, 1.0 - tf.cast(finite, loss.dtype), *auxiliary]), finite

    def _generator_accumulated(self, real: Tensors, draws: Tensors, update: bool) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The same, part by part of the batch, with a forward pass of its own for each."""
        count = len(self.networks["generator"].weights)

        def part(real: Tensors, draws: Tensors) -> list[tf.Tensor]:
            fake, tape = self._recorded(self._conditions(real), draws, update)
            upstream, losses = self._upstream(real, fake, draws)
            weights = self.networks["generator"].weights
            return [*tape.gradient(self._made(fake), weights, output_gradients=upstream), *losses]

        found = self._accumulate(part, real, draws)
        return self._generator_local(found[:count], found[count:])

    def _accumulate(
        self, part: Callable[[Tensors, Tensors], list[tf.Tensor]], real: Tensors, draws: Tensors
    ) -> list[tf.Tensor]:
        """Mean of what `part` gives for each of `training.accumulation` equal parts of the batch, one at a time."""
        return accumulate(self._config.accumulation, part, real, draws)

    # --- over the ranks ----------------------------------------------------------------------------

    def _pack(self, name: str, gradients: Sequence[tf.Tensor], metrics: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        return self._exchange.pack(self.networks[name], gradients, metrics)

    def _begin_mean(self, name: str, local: list[tf.Tensor], which: str = "") -> Callable[[], list[tf.Tensor]]:
        """Start to average a contribution over the ranks; `which` tells the collectives of several updates apart."""
        return self._exchange.begin(f"{name}_{which}" if which else name, local)

    def _apply(self, name: str, mean: list[tf.Tensor], rate: tf.Tensor, kept: tf.Tensor | None = None) -> tf.Tensor:
        """Update a network by the averages over all ranks; the averaged metrics."""
        gradients, metrics = self._exchange.unpack(self.networks[name], mean, BAD[name])
        self.optimizers[name].apply(gradients, rate)
        if kept is not None and self._average is not None:
            self._average.update(kept)
        return metrics

    def _conditions(self, sample: Tensors) -> dict[str, tf.Tensor]:
        return {k: sample[k] for k, spec in self._problem.schema.items() if spec.role == "condition"}


def _noise_of(turn: int) -> str:
    """Name among the draws of the noise of one of several updates of the generator."""
    return f"noise/{turn}"


def _sum(updates: Sequence[_Update]) -> list[tf.Tensor]:
    """Sums of the metrics of updates of one network."""
    found = [tf.unstack(update.metrics) for update in updates]
    return [functools.reduce(lambda a, b: a + b, values) for values in zip(*found, strict=True)]
