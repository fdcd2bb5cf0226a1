"""The sections of a training that all methods have; each method's own schema is a subclass of `TrainingSection`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from hpcgan.config.base import Decrement, Fraction, InputPath, NonNegative, Positive, Rate, Section
from hpcgan.suggest import did_you_mean

Scaling = Literal["none", "sqrt", "linear"]
Decay = Literal["constant", "linear", "cosine"]


class AdamConfig(Section):
    """Adam (Kingma and Ba, arXiv:1412.6980) of one network."""

    learning_rate: Rate = 2.0e-4
    beta1: Decrement = 0.5
    beta2: Decrement = 0.999
    epsilon: Positive = 1.0e-8


class RateChange(Section):
    """Other learning rates from a step on, before scaling and decay."""

    step: int = Field(ge=0, description="number of the first step, from 0, with these rates")
    rates: dict[str, Rate] = Field(min_length=1, description="learning rate by network; the others keep theirs")


class ScheduleSection(Section):
    """Learning rates over the training; see `hpcgan.schedule.Rates`."""

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
    changes: tuple[RateChange, ...] = Field(
        (), description="other rates from given steps on; the last that holds counts"
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

    #: The method that trains by these settings, as "module:class" (a subclass of `hpcgan.methods.base.Method`).
    trainer: ClassVar[str]
    #: Names of the networks that are trained.
    networks: ClassVar[tuple[str, ...]]
    #: What plots call the losses.
    loss_label: ClassVar[str] = "Mean loss of an epoch"
    #: Whether the loss of events that are not trained on says how good the method's samples are.
    has_held_out_loss: ClassVar[bool] = False

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
    start_from: InputPath | None = Field(
        None,
        description="run whose weights to begin with (of its best checkpoint), or one of its checkpoints; optimizers, "
        "rates and progress begin anew",
    )
    schedule: ScheduleSection = ScheduleSection()
    rollback: RollbackConfig = RollbackConfig()
    dtype: Literal["float32", "float64"] = "float32"

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

    @property
    def is_simultaneous(self) -> bool:
        """Whether the updates of a step are all of the same weights."""
        return False

    def check(self, config: Any) -> None:
        """Check what these settings ask of the rest of the configuration.

        Parameters
        ----------
        config : Config
            The whole, with these settings in it.

        Raises
        ------
        ValueError
            With the keys, and the remedy.
        """

    @model_validator(mode="after")
    def _changes_are_of_networks(self) -> TrainingSection:
        for number, change in enumerate(self.schedule.changes):
            for network in change.rates:
                if network not in self.networks:
                    raise ValueError(
                        f"training.schedule.changes.{number}.rates: '{network}' is not trained; "
                        f"choose one of: {', '.join(self.networks)}{did_you_mean(network, self.networks)}"
                    )
        return self
