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
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from hpcgan import stateless
from hpcgan.comm.base import Comm
from hpcgan.config import TrainingConfig
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.methods import instance_noise
from hpcgan.methods.adam import Adam
from hpcgan.methods.average import Average, decay
from hpcgan.methods.losses import LOSSES
from hpcgan.methods.penalties import gradient_penalty, r1_penalty
from hpcgan.methods.permute import inverse, permute
from hpcgan.models.layers import Network, synchronise
from hpcgan.problems.base import Problem

Tensors = Mapping[str, tf.Tensor]

#: Averaged over all ranks in every step, in this order.
METRICS = (
    "discriminator_loss",
    "generator_loss",
    "real_probability",
    "fake_probability",
    "nonfinite",
    "attention",
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


@dataclass(frozen=True)
class StepResult:
    """What a step says.

    Attributes
    ----------
    metrics : dict
        `METRICS` and possibly `AUXILIARY`, averaged over all ranks, and `SATURATION`: the same numbers everywhere. The
        generator's losses are means over its updates of the step. In a step without any they are those of the
        discriminator's fake batch, before the discriminator's update.
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
    compression : "none" or "fp16"
        How gradients travel between ranks.

    Attributes
    ----------
    networks : dict of str to Network
        `generator`, `discriminator` and, with averaging, `generator_average`.
    optimizers : dict of str to Adam
    """

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
        self._half = compression == "fp16" and comm.size > 1
        if self._half and comm.backend == "mpi":
            raise InputError("comm.compression: fp16 needs Horovod: MPI has no half precision; use none")
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
        self._losses = 2 if generator.has_auxiliary_loss else 1
        self._names = (*METRICS, AUXILIARY)[: len(METRICS) + self._losses - 1]
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

    def adopt(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Begin with the weights and moving statistics of another training; what networks have measured stays.

        The averaged generator gets those of an averaged generator, or of the generator where there was none.

        Parameters
        ----------
        arrays : mapping of str to array
            By the names of a checkpoint.

        Raises
        ------
        InputError
            Networks of other variables or shapes.
        """
        owners = {name.split("/")[1] for name in arrays if name.startswith("network/")}
        for owner, network in self.networks.items():
            prefix = f"network/{owner if owner in owners else owner.removesuffix('_average')}/"
            theirs = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            odd = network.named.keys() ^ theirs.keys()
            if odd:
                raise InputError(f"has other networks: '{prefix}{min(odd)}' is only in one of them")
            measured = {variable.ref() for variable in network.constants}
            for name, variable in network.named.items():
                if variable.ref() in measured:
                    continue
                if tuple(variable.shape) != theirs[name].shape:
                    raise InputError(f"has other networks: '{prefix}{name}' has another shape")
                variable.assign(theirs[name].astype(variable.dtype.as_numpy_dtype))

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
        if self._config.generator_steps > 1 and self._is_turn(step):
            for turn in range(self._config.generator_steps):
                noise = stateless.normal(self._seed, f"noise/{turn}", step, first, n, self._problem.noise_dim)
                made[_noise_of(turn)] = noise.astype(dtype)
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

    def _is_turn(self, step: int) -> bool:
        """Whether the generator is updated in a step."""
        return step % self._config.critic_steps == self._config.critic_steps - 1

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
        """Update the discriminator, and the generator if it is its turn.

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
        attention : bool
            This rank has something to say (a signal, a command); all ranks learn of it in the step's own collective.
        epochs : float
            Epochs done before the step (paces the instance noise).
        """
        dtype, turns = self._config.dtype, self._config.critic_steps
        step_samples = len(draws["noise"]) * self._comm.size
        kept = decay(self._config.average_half_life, samples, step_samples * turns)
        due = self._config.r1.weight > 0 and step % self._config.r1.every == 0
        compiled = self._compiled[due, self._is_turn(step)]
        draws = self._with_noise_of(draws, epochs)
        metrics, finite = compiled(
            {k: tf.constant(v, dtype) for k, v in real.items()},
            {k: tf.constant(v) for k, v in draws.items()},
            {k: tf.constant(v, dtype) for k, v in learning_rates.items()},
            tf.constant(kept, dtype),
            tf.constant(float(attention), dtype),
        )
        said = dict(zip(self._names, metrics.numpy().tolist(), strict=True))
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
                r1 = settings.r1
                objective = loss + r1.every * r1_penalty(self._critic_given(real), self._made(real), r1.weight)
            if settings.penalty_weight is not None and epsilon is not None:
                made = self._made(real), self._made(fake)
                objective += gradient_penalty(self._critic_given(real), *made, epsilon, settings.penalty_weight)
        return tape.gradient(objective, network.weights), loss, real_logits, fake_logits

    def half_gradients(
        self, half: str, sample: Tensors, flip: tf.Tensor, penalise: bool = False
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Local gradients, loss (without penalties) and logits of the discriminator on `real` or `fake` samples."""
        network, r1 = self.networks["discriminator"], self._config.r1
        sample = {k: tf.stop_gradient(v) for k, v in sample.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(network.weights)
            logits = network(sample, training=True)
            loss = objective = (self._loss.on_real if half == "real" else self._loss.on_fake)(logits, flip)
            if penalise and half == "real":
                objective = loss + r1.every * r1_penalty(self._critic_given(sample), self._made(sample), r1.weight)
        return tape.gradient(objective, network.weights), loss, logits

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
                more = self._generator_losses(believed["fake"], made) if half != "real" else [none] * self._losses
            return [*gradients, loss, *beliefs, *more]

        if fake or self._config.accumulation == 1:
            found = part(real, draws, fake)
        else:
            found = self._accumulate(lambda r, d: part(r, d, {}), real, draws)
        gradients, (loss, on_real, on_fake, *more) = found[:count], found[count:]
        finite = _finite(loss, gradients)
        metrics = [loss, on_real, on_fake, 1.0 - tf.cast(finite, loss.dtype), attention, *more]
        return self._pack("discriminator", gradients, metrics), finite

    def _generator_local(
        self, gradients: Sequence[tf.Tensor], losses: Sequence[tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """What this rank contributes to an update of the generator, packed; whether it is finite."""
        loss, *auxiliary = losses
        finite = _finite(loss, gradients)
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
        count = self._config.accumulation
        shared = {k: v for k, v in draws.items() if v.shape.rank == 0}
        sliced = {k: v for k, v in draws.items() if k not in shared}

        def cut(tensors: Tensors, number: tf.Tensor) -> Tensors:
            size = {k: tf.shape(v)[0] // count for k, v in tensors.items()}
            return {k: v[number * size[k] : (number + 1) * size[k]] for k, v in tensors.items()}

        def again(number: tf.Tensor, sums: list[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
            more = part(cut(real, number), {**shared, **cut(sliced, number)})
            return number + 1, [s + m for s, m in zip(sums, more, strict=True)]

        # The first one by itself: it says which tensors there are. A loop, so that one part is in memory at a time.
        first = part(cut(real, tf.constant(0)), {**shared, **cut(sliced, tf.constant(0))})
        _, sums = tf.while_loop(
            lambda number, sums: number < count, again, (tf.constant(1), first), parallel_iterations=1
        )
        return [s / count for s in sums]

    # --- over the ranks ----------------------------------------------------------------------------

    def _pack(self, name: str, gradients: Sequence[tf.Tensor], metrics: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Gradients, moving statistics and metrics of a network's update as one flat buffer.

        With `comm.compression: fp16` the gradients are a buffer of their own, in half precision.
        """
        statistics = [s.read_value() for s in self.networks[name].statistics]
        if not self._half:
            return [_flat([*gradients, *statistics, tf.stack(metrics)])]
        return [tf.cast(_flat(gradients), tf.float16), _flat([*statistics, tf.stack(metrics)])]

    def _begin_mean(self, name: str, local: list[tf.Tensor], which: str = "") -> Callable[[], list[tf.Tensor]]:
        """Start to average a packed contribution over the ranks; what is returned waits for it."""
        begun = [self._comm.begin_average(tensor, f"{name}_{which}" if which else name) for tensor in local]
        return lambda: [finish() for finish in begun]

    def _apply(self, name: str, mean: list[tf.Tensor], rate: tf.Tensor, kept: tf.Tensor | None = None) -> tf.Tensor:
        """Update a network by the averages over all ranks; the averaged metrics."""
        network = self.networks[name]
        weights, statistics = network.weights, network.statistics
        count = sum(weight.shape.num_elements() for weight in weights)
        gradients, rest = (mean[0][:count], mean[0][count:]) if len(mean) == 1 else mean
        self.optimizers[name].apply(_like(tf.cast(gradients, rest.dtype), weights), rate)
        start = sum(statistic.shape.num_elements() for statistic in statistics)
        for statistic, value in zip(statistics, _like(rest[:start], statistics), strict=True):
            statistic.assign(value)
        if kept is not None and self._average is not None:
            self._average.update(kept)
        metrics = rest[start:]
        if len(mean) > 1:  # half precision ends at 65504: a sum beyond is not finite
            bad = 1.0 - tf.cast(tf.reduce_all(tf.math.is_finite(gradients)), rest.dtype)
            place = tf.one_hot(BAD[name], tf.shape(metrics)[0], dtype=rest.dtype)
            metrics += bad * place
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


def _flat(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _like(flat: tf.Tensor, variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """A flat buffer cut into tensors of the variables' shapes."""
    sizes = [variable.shape.num_elements() for variable in variables]
    parts = tf.split(flat, sizes) if sizes else []
    return [tf.reshape(part, variable.shape) for part, variable in zip(parts, variables, strict=True)]


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
            autograph=False,
            reduce_retracing=True,
        )

    def batch(self, seed: int, stream: str, step: int, index: int, conditions: Sample | None = None) -> Sample:
        """The samples of batch number `index` of a stream, in physical units.

        Parameters
        ----------
        seed, stream, step, index
            What the noise derives from.
        conditions : Sample, optional
            Of each of the `batch_size` samples, in physical units, where the problem has any; they are part of the
            result.
        """
        n, asked = self.batch_size, conditions or {}
        noise = stateless.normal(seed, stream, step, index * n, n, self._problem.noise_dim)
        given = {k: tf.constant(v, self._dtype) for k, v in self._problem.encode_conditions(asked).items()}
        encoded = self._compiled(tf.constant(noise, self._dtype), given)
        sample = {k: v.numpy() for k, v in encoded.items()}
        if self._symmetries:
            columns = len(self._problem.symmetries)
            draws = stateless.uniform(seed, f"{stream}/symmetries", step, index * n, n, columns)
            sample = self._problem.augment(sample, self._symmetries, draws)
        return {**self._problem.decode(sample), **asked}
