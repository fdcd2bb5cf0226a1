"""The `training:` sections of the methods: each class names the method that trains by it. No TensorFlow here."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hpcgan.config import (
    AdamConfig,
    Config,
    Decrement,
    Fraction,
    ModelSection,
    NonNegative,
    Positive,
    Section,
    TrainingSection,
)


class R1Config(Section):
    """Penalty on the discriminator's gradient at real samples (Mescheder et al., arXiv:1801.04406)."""

    weight: NonNegative = Field(0.0, description="gamma: weight / 2 times the mean squared gradient; 0: none")
    every: int = Field(16, ge=1, description="steps between penalties, each counted `every` times")


class GradientPenaltyConfig(Section):
    """Penalty on the critic's gradient between real and generated samples (Gulrajani et al., arXiv:1704.00028)."""

    weight: Positive | None = Field(
        None,
        description="lambda: weight times the mean of (norm of the gradient - 1)^2; null: 10, with loss wgan_gp, which "
        "alone has it",
    )


class InstanceNoiseConfig(Section):
    """Gaussian noise on all that the discriminator sees (Sonderby et al., arXiv:1610.04490), fading out linearly."""

    sigma: NonNegative = Field(0.0, description="standard deviation at the beginning, in encoded units; 0: none")
    epochs: Positive | None = Field(None, description="epoch at which it has faded out; null: training.epochs")


class GanSettings(TrainingSection):
    """The adversarial method and its optimizers."""

    trainer: ClassVar[str] = "hpcgan.methods.gan:Gan"
    networks: ClassVar[tuple[str, ...]] = ("generator", "discriminator")

    generator: AdamConfig = AdamConfig()
    discriminator: AdamConfig = AdamConfig(learning_rate=1.0e-4)
    loss: Literal["bce", "wgan_gp", "hinge", "least_squares"] = Field(
        "bce", description="bce: non-saturating binary cross-entropy; the others and when to take which: docs/losses.md"
    )
    gradient_penalty: GradientPenaltyConfig = GradientPenaltyConfig()
    label_flip: Fraction = Field(0.0, description="probability that D is told real for fake and fake for real")
    label_flip_unit: Literal["batch", "sample"] = Field(
        "batch", description="what label_flip draws for: all samples of a batch at once, or each of them"
    )
    label_smoothing: Decrement = Field(
        0.0, description="s: D is told that real samples are real with 1 - s (bce and least_squares)"
    )
    instance_noise: InstanceNoiseConfig = InstanceNoiseConfig()
    r1: R1Config = R1Config()
    critic_steps: int = Field(
        1,
        ge=1,
        description="steps, each an update of D on samples of its own, to one update of the generator",
    )
    generator_steps: int = Field(
        1,
        ge=1,
        description="updates of the generator when it is its turn; 1: on the samples that D was shown, more: each on "
        "noise of its own",
    )
    discriminator_update: Literal["joint", "apart"] = Field(
        "joint", description="one update of D on real and generated samples, or two: on real ones, then on generated"
    )
    update: Literal["alternating", "simultaneous"] = Field(
        "alternating",
        description="the generator's gradient is taken after the discriminator's update, or at the weights before it",
    )
    batch_norm: Literal["local", "synced"] = Field(
        "local", description="batch statistics (also minibatch_stddev) of a rank's own batch, or of all ranks'"
    )
    augment_generated: bool = Field(
        False, description="show generated samples to the discriminator under data.augment's symmetries, too"
    )

    @property
    def penalty_weight(self) -> float | None:
        """Weight of the gradient penalty; None with a loss that has none."""
        if self.loss != "wgan_gp":
            return None
        return self.gradient_penalty.weight or 10.0  # Gulrajani et al., section 4

    @property
    def cadences(self) -> tuple[int, int]:
        return self.r1.every if self.r1.weight > 0 else 0, self.critic_steps

    @property
    def updates(self) -> dict[str, float]:
        return {
            "generator": self.generator_steps / self.critic_steps,
            "discriminator": 2.0 if self.discriminator_update == "apart" else 1.0,
        }

    @property
    def is_simultaneous(self) -> bool:
        return self.update == "simultaneous"

    def check(self, config: Config) -> None:
        self._batch_statistics_fit_together(config)
        self._updates_fit_together()
        self._loss_and_stabilisers_fit_together(config)

    def _batch_statistics_fit_together(self, config: Config) -> None:
        if self.batch_norm == "synced" and config.scoring.statistics == "batch":
            raise ValueError(
                "scoring.statistics=batch generates on each rank by itself, which training.batch_norm=synced cannot: "
                "use scoring.statistics=moving"
            )

    def _updates_fit_together(self) -> None:
        if self.update == "simultaneous":
            for key, simple in (("generator_steps", 1), ("discriminator_update", "joint")):
                value = getattr(self, key)
                if value != simple:
                    raise ValueError(
                        f"training.{key}={value} are updates one after the other, training.update=simultaneous is not: "
                        f"set training.update=alternating, or {key} to {simple}"
                    )

    def _loss_and_stabilisers_fit_together(self, config: Config) -> None:
        loss = self.loss
        if self.gradient_penalty.weight is not None and loss != "wgan_gp":
            raise ValueError(
                f"training.gradient_penalty.weight is of training.loss=wgan_gp, not {loss}: set it to null "
                "(training.r1 goes with every loss)"
            )
        if self.label_smoothing > 0 and loss not in ("bce", "least_squares"):
            raise ValueError(
                f"training.label_smoothing moves a target, which training.loss={loss} has not: "
                "set it to 0, or take bce or least_squares"
            )
        if self.label_flip > 0 and loss == "wgan_gp":
            raise ValueError(
                "training.label_flip would drive the critic of training.loss=wgan_gp away from its optimum without "
                "bound: set it to 0"
            )
        if self.discriminator_update == "apart" and loss == "wgan_gp":
            raise ValueError(
                "training.discriminator_update=apart: the penalty of training.loss=wgan_gp is between real and "
                "generated samples, which one update must see: set it to joint"
            )
        model = config.model if isinstance(config.model, ModelSection) else ModelSection()
        if loss == "wgan_gp":
            for setting, remedy in model.batch_coupling.items():
                raise ValueError(
                    f"training.loss=wgan_gp penalises the gradient of each event, but {setting} lets the "
                    f"discriminator's answer depend on the rest of the batch: set {remedy}"
                )
        if self.instance_noise.sigma > 0:
            for setting, remedy in model.noise_intolerance.items():
                raise ValueError(
                    f"training.instance_noise.sigma makes intensities below zero, for which {setting} is undefined: "
                    f"set {remedy}, or sigma to 0"
                )


class LikelihoodSettings(TrainingSection):
    """Maximum likelihood: one density and its optimizer."""

    trainer: ClassVar[str] = "hpcgan.methods.nll:Likelihood"
    networks: ClassVar[tuple[str, ...]] = ("density",)
    loss_label: ClassVar[str] = "Negative log-likelihood [nats an event]"
    has_held_out_loss: ClassVar[bool] = True

    density: AdamConfig = AdamConfig(learning_rate=1.0e-3, beta1=0.9)
    augment_generated: bool = Field(
        False, description="generated samples are shown under data.augment's symmetries at random, as real ones are"
    )
