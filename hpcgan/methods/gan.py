"""The adversarial method: the updates of a training step, and sampling.

A step is the discriminator's update on a real and a fake batch, then the generator's against the updated
discriminator with the same fake batch (reference of the paper's authors). With `training.critic_steps` the
generator has its turn in every so many steps only, with `training.generator_steps` it then has several updates, each on
noise of its own, and with `training.discriminator_update: apart` the discriminator has one on the real batch and one on
the fake (CaloGAN's step is 2 and apart).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
import tensorflow as tf

from hpcgan import rng
from hpcgan.comm.base import Comm
from hpcgan.config import Config
from hpcgan.errors import InputError
from hpcgan.methods import instance_noise
from hpcgan.methods.base import ATTENTION, NONFINITE, LossCurve, StepResult
from hpcgan.methods.losses import LOSSES
from hpcgan.methods.penalties import gradient_penalty, r1_penalty
from hpcgan.methods.permute import inverse, permute
from hpcgan.methods.settings import GanSettings
from hpcgan.methods.step import Local, Update, UpdateMethod, in_parts
from hpcgan.networks import stateless
from hpcgan.networks.capabilities import Auxiliary, AuxiliaryClassifier, Origin, OwnCoordinates, Randomised
from hpcgan.networks.layers import Tensors, iterate_spectral_norms, synchronise
from hpcgan.problems.base import Problem

D_LOSS, G_LOSS = "discriminator_loss", "generator_loss"
REAL, FAKE = "real_probability", "fake_probability"
#: Averaged over all ranks in every step, in this order.
METRICS = (D_LOSS, G_LOSS, REAL, FAKE, NONFINITE, ATTENTION)
#: Averaged besides, where a network has such a loss (`Auxiliary`, `AuxiliaryClassifier`): a part of the generator's.
AUXILIARY = "auxiliary_loss"
#: What follows from them: how much more the discriminator takes real samples for real than fake ones, 1 at most.
SATURATION = "saturation"
#: How far the discriminator takes samples for real, as an update of it averages it: probabilities follow from both.
BELIEF = {"real": "belief_in_real", "fake": "belief_in_fake"}
Half = Literal["real", "fake"]
#: What the discriminator's updates of a step are on, and how their collectives are told apart.
HALVES: Mapping[str, tuple[Half | Literal[""], ...]] = {"joint": ("",), "apart": ("real", "fake")}


class Kind(NamedTuple):
    """What a step has: the R1 penalty, an update of the generator."""

    penalise: bool
    update_generator: bool


class Forward(NamedTuple):
    """A fake batch with its conditions, and the tape for gradients of the generator's weights."""

    fake: Tensors
    tape: tf.GradientTape


class Gan(UpdateMethod):
    """Networks and optimizers of one adversarial training, and its step.

    In a step without an update of the generator, its losses are those of the discriminator's fake batch, before the
    discriminator's update; in one with several, they are means over them.

    Parameters
    ----------
    problem : Problem
    config : GanSettings
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
    probabilities: Mapping[str, str] = {"real": REAL, "fake": FAKE}

    def __init__(
        self,
        problem: Problem,
        config: GanSettings,
        comm: Comm,
        seed: int,
        symmetries: Sequence[str] = (),
        compression: str = "none",
    ) -> None:
        super().__init__(problem, config, comm, seed, symmetries=symmetries, compression=compression)
        self._config = config
        self._symmetries = tuple(symmetries) if config.augment_generated else ()
        self.losses = [LossCurve("discriminator", D_LOSS, "D"), LossCurve("generator", G_LOSS, "G")]
        self.metrics = METRICS
        generator = self.networks["generator"]
        self._auxiliary = generator if isinstance(generator, Auxiliary) and generator.has_auxiliary_loss else None
        self._discriminator = self.networks["discriminator"]
        if self._auxiliary is not None or isinstance(self._discriminator, AuxiliaryClassifier):
            self.losses.append(LossCurve("auxiliary", AUXILIARY, "auxiliary"))
            self.metrics += (AUXILIARY,)
        self._loss = LOSSES[config.loss].smoothed(config.label_smoothing)
        self._penalty_weight, self._noise_is_over = config.penalty_weight, False
        for name in config.networks:
            synchronise(self.networks[name], comm, "global" if config.batch_norm == "synced" else "local")

    # --- random draws: functions of seed, step and global sample index -----------------------------

    def draws(self, step: int, first: int, n: int) -> dict[str, np.ndarray]:
        noise = rng.normal(self._seed, "noise", step, first, n, self._problem.noise_dim)
        dtype = self._config.dtype
        draws = {"noise": noise.astype(dtype), "flip": self._flips(step, first, n)}
        if isinstance(self._discriminator, Randomised):
            for origin in ("real", "fake", *(_generator_of(turn) for turn in range(self._config.generator_steps))):
                name = _random_of(origin)
                draws[name] = stateless.source(self._seed, name, step, first, n)
        if self._config.generator_steps > 1 and self._is_turn(step):
            for turn in range(self._config.generator_steps):
                noise = rng.normal(self._seed, f"noise/{turn}", step, first, n, self._problem.noise_dim)
                draws[_noise_of(turn)] = noise.astype(dtype)
        if self._penalty_weight is not None:
            draws["epsilon"] = rng.uniform(self._seed, "interpolation", step, first, n, 1)[:, 0].astype(dtype)
        if self._config.instance_noise.sigma > 0 and not self._noise_is_over:
            draws.update(instance_noise.draw(self._problem.schema, self._seed, step, first, n, dtype))
        if self._symmetries:
            columns = len(self._problem.symmetries)
            uniforms = rng.uniform(self._seed, "augment-generated", step, first, n, columns)
            for name, order in self._problem.permutations(self._symmetries, uniforms).items():
                draws[f"order/{name}"], draws[f"inverse/{name}"] = order, inverse(order)
        return draws

    def _flips(self, step: int, first: int, n: int) -> np.ndarray:
        """Whether labels are swapped: one number, or (n,), as `label_flip_unit` says."""
        if self._config.label_flip_unit == "batch":
            uniforms = rng.uniform(self._seed, "label-flip", step, 0, 1, 1)[0, 0]
        else:
            uniforms = rng.uniform(self._seed, "label-flip/sample", step, first, n, 1)[:, 0]
        return np.array(uniforms < self._config.label_flip, self._config.dtype)

    # --- sampling ----------------------------------------------------------------------------------

    @classmethod
    def symmetries(cls, config: Config) -> tuple[str, ...]:
        """Those under which the discriminator saw generated samples."""
        return tuple(config.data.augment) if cast(GanSettings, config.training).augment_generated else ()

    def _is_turn(self, step: int) -> bool:
        """Whether the generator is updated in a step."""
        return step % self._config.critic_steps == self._config.critic_steps - 1

    def kind(self, step: int) -> Kind:
        r1 = self._config.r1
        return Kind(r1.weight > 0 and step % r1.every == 0, self._is_turn(step))

    def draws_of(self, draws: Mapping[str, np.ndarray], epochs: float) -> Mapping[str, np.ndarray]:
        """The draws with the strength of the instance noise; without any of it from its end on."""
        if self._config.instance_noise.sigma == 0:
            return draws
        sigma = instance_noise.sigma(self._config, epochs)
        if sigma > 0:
            return {**draws, instance_noise.SIGMA: np.array(sigma, self._config.dtype)}
        self._noise_is_over = True  # epochs only grow: nothing more is drawn for nothing
        return {k: v for k, v in draws.items() if not k.startswith(instance_noise.PREFIX)}

    # --- the updates of a step ---------------------------------------------------------------------

    def updates(self, real: Tensors, draws: Tensors, momentum: tf.Tensor, kind: Kind) -> list[Update]:
        """The discriminator's, and the generator's if it is its turn."""
        settings = self._config
        # Whether the generator is updated on the samples that the discriminator is shown.
        is_shared = kind.update_generator and settings.generator_steps == 1
        # A batch in parts has a forward pass for each part of each update. The generator's moving statistics follow
        # the passes of its own updates, which is this one if it is shared.
        forward = self._forward(real, draws, update=is_shared) if settings.accumulation == 1 else None

        def of_discriminator(half: Half | Literal[""], real: Tensors, draws: Tensors) -> Local:
            fake: Tensors = {}
            if half != "real":
                fake = self._generate(real, draws, update=is_shared) if forward is None else forward.fake
            return self._discriminator_local(half, real, fake, draws, kind)

        def of_generator(real: Tensors, draws: Tensors) -> Local:
            own = forward if forward is not None and is_shared else self._forward(real, draws, update=not is_shared)
            return Local(*self.generator_gradients(own.fake, own.tape, draws))

        updates: list[Update] = []
        iterate = functools.partial(iterate_spectral_norms, self.networks["discriminator"])
        for half in HALVES[settings.discriminator_update]:
            part = functools.partial(of_discriminator, half)
            collect = functools.partial(in_parts, settings.accumulation, part, real, draws)
            name = f"discriminator_{half}" if half else "discriminator"
            updates.append(Update("discriminator", D_LOSS, collect, name, before=iterate))
        for turn in range(settings.generator_steps if kind.update_generator else 0):
            own = draws if is_shared else {**draws, "noise": draws[_noise_of(turn)]}
            random = draws.get(_random_of(_generator_of(turn)))
            if random is not None:
                own = {**own, _random_of("generator"): random}
            collect = functools.partial(in_parts, settings.accumulation, of_generator, real, own)
            name = f"generator_{turn}" if turn else "generator"
            follow = functools.partial(self.follow, momentum) if turn == settings.generator_steps - 1 else None
            updates.append(Update("generator", G_LOSS, collect, name, after=follow))
        return updates

    def summary(self, totals: dict[str, tf.Tensor], kind: Kind) -> dict[str, tf.Tensor]:
        """Sums over the discriminator's updates, means over the generator's."""
        metrics = dict(totals)
        metrics[REAL], metrics[FAKE] = self._loss.probabilities(metrics[BELIEF["real"]], metrics[BELIEF["fake"]])
        if kind.update_generator and self._config.generator_steps > 1:
            for loss in self.losses[1:]:
                metrics[loss.metric] /= self._config.generator_steps
        return metrics

    def result(self, metrics: dict[str, float], finite_here: bool) -> StepResult:
        return StepResult({**metrics, SATURATION: metrics[REAL] - metrics[FAKE]}, finite_here)

    # --- gradients of this rank --------------------------------------------------------------------

    def _generate(self, real: Tensors, draws: Tensors, update: bool = True) -> Tensors:
        """A fake batch, under the symmetries that were drawn, with the conditions of `real`."""
        conditions = self._conditions(real)
        fake = self.networks["generator"](draws["noise"], conditions, training=True, update=update)
        return {**conditions, **permute(fake, draws)}

    def _forward(self, real: Tensors, draws: Tensors, update: bool = True) -> Forward:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.networks["generator"].weights)
            fake = self._generate(real, draws, update)
        return Forward(fake, tape)

    def _discriminator_local(
        self, half: Half | Literal[""], real: Tensors, fake: Tensors, draws: Tensors, kind: Kind
    ) -> Local:
        """Contribution to an update of the discriminator on a real and a fake batch, or on the `half` of them."""
        view = {"real": self._view(real, draws, "real"), "fake": self._view(fake, draws, "fake")}
        logits: dict[str, tf.Tensor] = {}
        if half:
            gradients, loss, logits[half], conditions_loss = self.half_gradients(
                half, view[half], draws["flip"], kind.penalise
            )
        else:
            gradients, loss, logits["real"], logits["fake"], conditions_loss = self.discriminator_gradients(
                view["real"], view["fake"], draws["flip"], kind.penalise, draws.get("epsilon")
            )
        metrics = {D_LOSS: loss}
        metrics |= {BELIEF[origin]: tf.reduce_mean(self._loss.belief(values)) for origin, values in logits.items()}
        if "fake" in logits and not kind.update_generator:
            metrics |= self._generator_losses(logits["fake"], conditions_loss, fake)
        return Local(gradients, metrics)

    def _view(self, sample: Tensors, draws: Tensors, origin: Origin) -> Tensors:
        """What the discriminator is shown: with noise, and with what it draws its own random numbers by."""
        view = instance_noise.add(sample, draws, "real" if origin == "real" else "fake")
        random = draws.get(_random_of(origin)) if sample else None
        return view if random is None else {**view, stateless.RANDOM: random}

    def _judge(self, sample: Tensors, origin: Origin, update: bool = True) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The discriminator's logits, and its loss of telling the conditions if it is one that does."""
        network = self._discriminator
        if isinstance(network, AuxiliaryClassifier):
            return network.judge(sample, origin, training=True, update=update)
        return network(sample, training=True, update=update), None

    def discriminator_gradients(
        self,
        real: Tensors,
        fake: Tensors,
        flip: tf.Tensor,
        penalise: bool = False,
        epsilon: tf.Tensor | None = None,
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Local gradients, loss (without penalties), logits of real and of fake samples, loss of the fake's conditions.

        That is None unless the discriminator tells conditions (`AuxiliaryClassifier`), and is a part of the loss.
        `penalise` is for R1; `epsilon`, (n,), says where between real and fake samples the gradient penalty is taken.
        """
        network = self.networks["discriminator"]
        fake = {k: tf.stop_gradient(v) for k, v in fake.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            if isinstance(network, AuxiliaryClassifier):
                real_logits, of_real = self._judge(real, "real")
                fake_logits, of_fake = self._judge(fake, "fake")
                loss = self._loss.discriminator(real_logits, fake_logits, flip) + of_real + of_fake
            else:
                real_logits, fake_logits = network.pair(real, fake)
                loss, of_fake = self._loss.discriminator(real_logits, fake_logits, flip), None
            objective = loss
            if penalise:
                objective = loss + self._r1(real)
            if self._penalty_weight is not None and epsilon is not None:
                data = self._made(real), self._made(fake)
                objective += gradient_penalty(self._critic_given(real), *data, epsilon, self._penalty_weight)
        return tape.gradient(objective, network.weights), loss, real_logits, fake_logits, of_fake

    def half_gradients(
        self, half: Half, sample: Tensors, flip: tf.Tensor, penalise: bool = False
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """The same on `real` or on `fake` samples, with the logits and the loss of the conditions of these."""
        network = self.networks["discriminator"]
        sample = {k: tf.stop_gradient(v) for k, v in sample.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            logits, of_conditions = self._judge(sample, half)
            loss = (self._loss.on_real if half == "real" else self._loss.on_fake)(logits, flip)
            if of_conditions is not None:
                loss += of_conditions
            objective = loss + self._r1(sample) if penalise and half == "real" else loss
        return tape.gradient(objective, network.weights), loss, logits, of_conditions

    def _r1(self, real: Tensors) -> tf.Tensor:
        """R1 in the discriminator's own coordinates, for all the steps until it is due again."""
        r1, critic = self._config.r1, self._critic_given(real)
        network, data = self.networks["discriminator"], self._made(real)
        if not isinstance(network, OwnCoordinates):
            return r1.every * r1_penalty(critic, data, r1.weight)
        seen, back = network.coordinates(data)
        return r1.every * r1_penalty(lambda point: critic(back(point)), seen, r1.weight)

    def _critic_given(self, real: Tensors) -> Callable[[Tensors], tf.Tensor]:
        """The discriminator as a function of the tensors that a generator makes, under the conditions of `real`."""
        conditions = self._conditions(real)
        return lambda tensors: self._critic({**conditions, **tensors})

    def _critic(self, sample: Tensors) -> tf.Tensor:
        return self.networks["discriminator"](sample, training=True, update=False)

    def _made(self, sample: Tensors) -> Tensors:
        """The tensors that a generator makes (not its conditions)."""
        schema = self._problem.schema
        return {k: v for k, v in sample.items() if k in schema and schema[k].role == "data"}

    def generator_gradients(
        self, fake: Tensors, tape: tf.GradientTape, draws: Tensors | None = None
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """Local gradients and losses of the generator, whose forward pass `tape` has recorded."""
        tensors = self._made(fake)
        with tf.GradientTape(watch_accessed_variables=False) as upstream:
            upstream.watch(list(tensors.values()))
            # Its statistics follow the discriminator's own update only.
            view = self._view({**fake, **tensors}, draws or {}, "generator")
            logits, of_conditions = self._judge(view, "generator", update=False)
            losses = self._generator_losses(logits, of_conditions, {**fake, **tensors})
        gradient = upstream.gradient(losses[G_LOSS], tensors)
        return tape.gradient(tensors, self.networks["generator"].weights, output_gradients=gradient), losses

    def _generator_losses(
        self, logits: tf.Tensor, of_conditions: tf.Tensor | None, fake: Tensors
    ) -> dict[str, tf.Tensor]:
        """The generator's loss; with auxiliary ones (its own, that of the conditions), the sum of all and theirs."""
        loss = self._loss.generator(logits)
        own = None if self._auxiliary is None else self._auxiliary.auxiliary_loss(fake)
        parts = [part for part in (own, of_conditions) if part is not None]
        if not parts:
            return {G_LOSS: loss}
        auxiliary = parts[0] if len(parts) == 1 else tf.add_n(parts)
        return {G_LOSS: loss + auxiliary, AUXILIARY: auxiliary}

    def _conditions(self, sample: Tensors) -> dict[str, tf.Tensor]:
        names = [name for name, spec in self._problem.schema.items() if spec.role == "condition"]
        missing = ", ".join(name for name in names if name not in sample)
        if missing:
            raise InputError(f"problem '{self._problem.name}': its encode has to return the conditions, too: {missing}")
        return {name: sample[name] for name in names}


def _generator_of(turn: int) -> str:
    """Name of one of several updates of the generator."""
    return f"generator/{turn}"


def _random_of(origin: str) -> str:
    """Name among the draws of what the discriminator draws its own numbers by in an update."""
    return f"random/{origin}"


def _noise_of(turn: int) -> str:
    """Name among the draws of the noise of one of several updates of the generator."""
    return f"noise/{turn}"
