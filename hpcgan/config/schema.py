"""The sections of a configuration, and the whole.

The `model:` section is the problem's own schema, the `training:` section that of the method. The sections `sweep:`,
`job:` and `scaling:` say how trainings are started; they are no part of a run and of its identity.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, PrivateAttr, SerializeAsAny, field_validator, model_validator

from hpcgan import yamlio
from hpcgan.config.base import Decrement, Fraction, ModelSection, NonNegative, Positive, Rate, Section
from hpcgan.config.job import JobSection
from hpcgan.config.studies import ScalingSection, SweepSection
from hpcgan.errors import InputError
from hpcgan.schedule import Decay, Scaling


class DataConfig(Section):
    """Where the samples are, and how real ones are shown to the discriminator."""

    path: Path = Field(description="folder with train.h5, val.h5 and test.h5")
    augment: tuple[str, ...] = Field((), description="symmetries of the problem applied at random to real samples")
    cache_mb: int = Field(1024, ge=0, description="memory a rank may use to hold a split, MiB")
    leave_out: list[dict[str, float]] = Field(
        [], description="points of the conditions whose events are neither trained on nor used for selection"
    )
    select: dict[str, float | list[float]] = Field(
        {}, description="events that are used: for each column named, such as y, the value or values it must have"
    )
    weights: Literal["use", "ignore"] = Field(
        "use", description="weights of events, where a file has them, count in training and scores, or all count alike"
    )

    @field_validator("select")
    @classmethod
    def _select_names_values(cls, value: dict[str, float | list[float]]) -> dict[str, float | list[float]]:
        for name, choice in value.items():
            values = choice if isinstance(choice, list) else [choice]
            if not values or not all(math.isfinite(number) for number in values):
                raise ValueError(f"'{name}' must have a number, or a list of numbers")
        return value

    _unusable: dict[str, str] = PrivateAttr(default_factory=dict)

    def require(self, split: str) -> None:
        """Refuse a split that is not the one that the run of this configuration was trained with.

        Only `hpcgan.problems.run_data.load` knows of any; a configuration that somebody wrote may mean any data.

        Raises
        ------
        InputError
            Naming the file, and what differs.
        """
        if split in self._unusable:
            raise InputError(self._unusable[split])


class AdamConfig(Section):
    """Adam (Kingma and Ba, arXiv:1412.6980) of one network."""

    learning_rate: Rate = 2.0e-4
    beta1: Decrement = 0.5
    beta2: Decrement = 0.999
    epsilon: Positive = 1.0e-8


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


class ChangeSection(Section):
    """Other learning rates from a step on, before scaling and decay: one key a network that is trained."""

    step: int = Field(ge=0, description="number of the first step, from 0, with these rates")


class ScheduleSection(Section):
    """Learning rates over the training; see `hpcgan.schedule.learning_rate`."""

    scaling: Scaling = Field("none", description="factor for a batch N times as large: none 1, sqrt N^(1/2), linear N")
    reference_batch: int | None = Field(
        None,
        ge=1,
        description="global batch that the rates are for; null: that of one rank, so N is the number of ranks",
    )
    warmup_epochs: NonNegative = Field(0.0, description="epochs from the rate without the factor to that with it")
    decay: Decay = "constant"
    decay_start: NonNegative = Field(0.0, description="epoch at which the decay begins")
    decay_epochs: Positive | None = Field(None, description="epoch at which it ends; null: training.epochs")
    final_fraction: Fraction = Field(0.0, description="rate at the end of the decay, as a fraction")
    changes: Sequence[ChangeSection] = Field(
        (), description="other rates from given steps on; the last that holds counts"
    )


class ChangeConfig(ChangeSection):
    """Rates of the adversarial networks."""

    generator: Rate | None = None
    discriminator: Rate | None = None


class ScheduleConfig(ScheduleSection):
    """Learning rates of an adversarial training."""

    changes: list[ChangeConfig] = Field([], description="other rates from given steps on; the last that holds counts")


class DensityChangeConfig(ChangeSection):
    """Rate of a density."""

    density: Rate


class DensityScheduleConfig(ScheduleSection):
    """Learning rates of a training by likelihood."""

    changes: list[DensityChangeConfig] = Field(
        [], description="other rates from given steps on; the last that holds counts"
    )


class RollbackConfig(Section):
    """Back to the best state, with lower learning rates, instead of ending a training that went astray.

    Steps go on counting, with other events and other noise than those that led there.
    """

    limit: int = Field(0, ge=0, description="times a training may go back; 0: never")
    rate_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.5, description="learning rates times this, each time")
    loss_above: Positive | None = Field(None, description="a step with a loss above this has gone astray, too")
    score_factor: Annotated[float, Field(gt=1)] | None = Field(
        None, description="an epoch with this many times the best score has gone astray, too"
    )
    diversity_below: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="an epoch whose generated samples are less diverse has gone astray, too, if the best were not"
    )


class TrainingSection(Section):
    """Base of the `training:` sections: what the engine has to know of a training, whatever the method.

    A network that is trained has a section of its own name, with its optimizer. `batch_size` is per rank.
    """

    #: Names of the networks that are trained.
    networks: ClassVar[tuple[str, ...]]
    #: What plots call the losses.
    loss_label: ClassVar[str] = "Mean loss of an epoch"
    later: ClassVar[tuple[str, ...]] = ("start_from",)

    epochs: int = Field(60, ge=1)
    batch_size: int = Field(64, ge=1, description="samples a rank and step (and samples generated at a time)")
    global_batch_size: int | None = Field(
        None, ge=1, description="samples of a step over all ranks, however many they are, instead of batch_size a rank"
    )
    accumulation: int = Field(
        1, ge=1, description="parts of a rank's batch that are worked off one after the other, for less memory"
    )
    average_half_life: NonNegative = Field(
        0.0, description="half-life in samples of the averaged network that is sampled; 0: no averaging"
    )
    start_from: Path | None = Field(
        None,
        description="run whose weights to begin with (of its best checkpoint), or one of its checkpoints; optimizers, "
        "rates and progress begin anew",
    )
    schedule: ScheduleSection = ScheduleSection()
    rollback: RollbackConfig = RollbackConfig()
    dtype: Literal["float32", "float64"] = "float32"
    steps_per_call: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1,
        description="most steps in one call of the compiled function; fewer where so many would take more than half a "
        "second, or 32 MiB of batches; auto: 64",
    )

    @field_validator("steps_per_call", mode="before")
    @classmethod
    def _steps_are_counted(cls, value: Any) -> Any:
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError("take a whole number from 1 on, or auto")
        return value

    @property
    def takes_several(self) -> bool:
        """Whether a call may take several steps."""
        return self.steps_per_call != 1

    @property
    def optimizers(self) -> dict[str, AdamConfig]:
        """Settings of the optimizer of each network that is trained."""
        return {name: getattr(self, name) for name in self.networks}

    @property
    def cadences(self) -> tuple[int, int]:
        """Steps between those with a penalty (0: there is none), and steps to one that updates every network."""
        return 0, 1

    @property
    def updates(self) -> dict[str, float]:
        """Updates of each network that is trained, in a mean step: so many collectives there are of it."""
        return dict.fromkeys(self.networks, 1.0)


class TrainingConfig(TrainingSection):
    """The adversarial method and its optimizers."""

    networks: ClassVar[tuple[str, ...]] = ("generator", "discriminator")
    later: ClassVar[tuple[str, ...]] = (*TrainingSection.later, "generator_steps", "discriminator_update")

    generator: AdamConfig = AdamConfig()
    discriminator: AdamConfig = AdamConfig(learning_rate=1.0e-4)
    loss: Literal["bce", "wgan_gp", "hinge", "least_squares"] = Field(
        "bce", description="bce: non-saturating binary cross-entropy; the others and when to take which: docs/losses.md"
    )
    gradient_penalty: GradientPenaltyConfig = GradientPenaltyConfig()
    label_flip: Fraction = Field(0.0, description="probability that a batch has real and fake swapped for D")
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
    schedule: ScheduleConfig = ScheduleConfig()

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


class LikelihoodConfig(TrainingSection):
    """Maximum likelihood: one density and its optimizer."""

    networks: ClassVar[tuple[str, ...]] = ("density",)
    loss_label: ClassVar[str] = "Negative log-likelihood [nats an event]"

    density: AdamConfig = AdamConfig(learning_rate=1.0e-3, beta1=0.9)
    schedule: DensityScheduleConfig = DensityScheduleConfig()


#: Schema of the `training:` section of each method (`hpcgan.methods.base.REGISTRY` has the methods themselves).
METHODS: dict[str, type[TrainingSection]] = {"gan": TrainingConfig, "nll": LikelihoodConfig}


class ScoringConfig(Section):
    """Scoring during the training, on the validation split."""

    events: int = Field(4096, ge=2, description="real events and as many generated ones")
    samples: int = Field(1, ge=1, description="generated samples whose scores are averaged")
    every_epochs: int = Field(1, ge=0, description="0: never; the last epoch is then the best")
    weights: Literal["auto", "average", "current"] = Field(
        "auto", description="generator scored and sampled; auto: the average where there is one"
    )
    statistics: Literal["moving", "batch"] = Field(
        "moving", description="batch-norm statistics in generation: moving averages, or those of each batch"
    )


class CommConfig(Section):
    """Communication between ranks."""

    backend: Literal["auto", "horovod", "mpi", "serial"] = "auto"
    compression: Literal["none", "fp16"] = Field("none", description="gradients travel in half precision")
    timeout_s: NonNegative = Field(
        900.0, description="seconds without progress after which the job is ended, naming the rank at fault; 0: never"
    )


class CheckpointConfig(Section):
    """Checkpoints; the best by score is kept besides."""

    every_epochs: int = Field(1, ge=1)
    keep: int = Field(2, ge=1, description="latest checkpoints kept")


#: Sections that say how trainings are started.
STARTING = ("sweep", "job", "scaling")


class Config(Section):
    """A whole configuration."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the run directory")
    problem: str
    method: str = Field("gan", description="how the networks are trained; by default, the first that the problem names")
    seed: int = Field(1, ge=0, lt=2**63)
    data: DataConfig
    model: SerializeAsAny[BaseModel]
    training: SerializeAsAny[TrainingSection] = TrainingConfig()
    scoring: ScoringConfig = ScoringConfig()
    comm: CommConfig = CommConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    sweep: SweepSection = SweepSection()
    job: JobSection = JobSection()
    scaling: ScalingSection = ScalingSection()

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        return str(value)

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Config:
        if self.scoring.weights == "average" and self.training.average_half_life == 0:
            raise ValueError("scoring.weights=average needs training.average_half_life > 0")
        if isinstance(self.training, TrainingConfig):
            self._batch_statistics_fit_together(self.training)
        schedule = self.training.schedule
        if self.training.global_batch_size is not None and schedule.scaling != "none" and not schedule.reference_batch:
            raise ValueError(
                "training.schedule.scaling is for a batch that grows with the ranks, not for "
                "training.global_batch_size: set it to none, or training.schedule.reference_batch"
            )
        if isinstance(self.training, TrainingConfig):
            self._updates_fit_together(self.training)
            self._loss_and_stabilisers_fit_together(self.training)
        return self

    def _batch_statistics_fit_together(self, training: TrainingConfig) -> None:
        if training.batch_norm == "synced" and self.scoring.statistics == "batch":
            raise ValueError(
                "scoring.statistics=batch generates on each rank by itself, which training.batch_norm=synced cannot: "
                "use scoring.statistics=moving"
            )

    def _updates_fit_together(self, training: TrainingConfig) -> None:
        if training.update == "simultaneous":
            for key, simple in (("generator_steps", 1), ("discriminator_update", "joint")):
                value = getattr(training, key)
                if value != simple:
                    raise ValueError(
                        f"training.{key}={value} are updates one after the other, training.update=simultaneous is not: "
                        f"set training.update=alternating, or {key} to {simple}"
                    )

    def _loss_and_stabilisers_fit_together(self, training: TrainingConfig) -> None:
        loss = training.loss
        if training.gradient_penalty.weight is not None and loss != "wgan_gp":
            raise ValueError(
                f"training.gradient_penalty.weight is of training.loss=wgan_gp, not {loss}: set it to null "
                "(training.r1 goes with every loss)"
            )
        if training.label_smoothing > 0 and loss not in ("bce", "least_squares"):
            raise ValueError(
                f"training.label_smoothing moves a target, which training.loss={loss} has not: "
                "set it to 0, or take bce or least_squares"
            )
        if training.label_flip > 0 and loss == "wgan_gp":
            raise ValueError(
                "training.label_flip would drive the critic of training.loss=wgan_gp away from its optimum without "
                "bound: set it to 0"
            )
        if training.discriminator_update == "apart" and loss == "wgan_gp":
            raise ValueError(
                "training.discriminator_update=apart: the penalty of training.loss=wgan_gp is between real and "
                "generated samples, which one update must see: set it to joint"
            )
        model = self.model if isinstance(self.model, ModelSection) else ModelSection()
        if loss == "wgan_gp":
            for setting, remedy in model.batch_coupling.items():
                raise ValueError(
                    f"training.loss=wgan_gp penalises the gradient of each event, but {setting} lets the "
                    f"discriminator's answer depend on the rest of the batch: set {remedy}"
                )
        if training.instance_noise.sigma > 0:
            for setting, remedy in model.noise_intolerance.items():
                raise ValueError(
                    f"training.instance_noise.sigma makes intensities below zero, for which {setting} is undefined: "
                    f"set {remedy}, or sigma to 0"
                )

    def dump(self, *starting: str) -> dict[str, Any]:
        """The training, defaults included, as plain values.

        Parameters
        ----------
        starting : str
            Those of `STARTING` that shall be there, too.
        """
        return self.model_dump(mode="json", exclude=set(STARTING) - set(starting))

    def to_yaml(self, *starting: str) -> str:
        """`dump` as YAML, in the order of the schema."""
        return yamlio.dump(self.dump(*starting))

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: everything but lengths, cadences, communication and where files lie.

        Of `training.steps_per_call` it is whether there are several, on which last bits depend, not how many. Data, and
        runs whose weights are taken, are known by their content, which is not looked at here
        (`hpcgan.problems.run_data`).
        """
        plain = self.dump()
        del plain["comm"], plain["checkpoint"]
        del plain["training"]["epochs"], plain["scoring"]["every_epochs"], plain["data"]["cache_mb"]
        del plain["data"]["path"]
        del plain["training"]["steps_per_call"]
        if self.training.takes_several:
            plain["training"]["takes_several"] = True
        # Runs from before a key keep their names.
        if not plain["data"]["leave_out"]:
            del plain["data"]["leave_out"]
        if plain["method"] == "gan":
            del plain["method"]
        for name in ("model", "training"):
            section = getattr(self, name)
            for key in section.later if isinstance(section, Section) else ():
                if getattr(section, key) == type(section).model_fields[key].default:
                    del plain[name][key]
        if self.training.start_from is not None:
            plain["training"]["start_from"] = "the weights of a run"
        return plain

    def with_data(self, path: Path, unusable: Mapping[str, str]) -> Config:
        """The same with another `data.path`, of which some splits cannot be used: by split, why."""
        data = self.data.model_copy(update={"path": path})
        data._unusable = dict(unusable)
        return self.model_copy(update={"data": data})

    def identity_hash(self) -> str:
        """Eight hex digits of `identity`."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]
