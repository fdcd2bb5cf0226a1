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
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PrivateAttr, SerializeAsAny, field_validator, model_validator

from hpcgan import yamlio
from hpcgan.config.base import InputPath, NonNegative, Positive, Section
from hpcgan.config.job import JobSection
from hpcgan.config.registries import BACKENDS, TRACKERS
from hpcgan.config.studies import ScalingSection, SweepSection
from hpcgan.config.training import TrainingSection
from hpcgan.errors import InputError
from hpcgan.suggest import did_you_mean


class DataConfig(Section):
    """Where the samples are, and how real ones are shown to the discriminator."""

    path: InputPath = Field(description="folder with train.h5, val.h5 and test.h5")
    augment: tuple[str, ...] = Field((), description="symmetries of the problem applied at random to real samples")
    cache_mb: int = Field(1024, ge=0, description="memory a rank may use to hold a split, MiB")
    stage: str | None = Field(
        None,
        min_length=1,
        description="folder on each node to which the files are copied first; $VARIABLES are those of the node",
    )
    stage_keep: bool = Field(True, description="whether these copies stay there for the next training")
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


class ScoringConfig(Section):
    """Scoring during the training, on the validation split."""

    events: int = Field(4096, ge=2, description="real events and as many generated ones")
    samples: int = Field(1, ge=1, description="generated samples whose scores are averaged")
    every_epochs: int = Field(1, ge=0, description="0: never; the last epoch is then the best")
    quantities: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="what counts for the best epoch, of the problem's observables; null: its score"
    )
    select_by: Literal["score", "held_out"] = Field(
        "score",
        description="what the best epoch is best by; held_out: the loss of validation events, by method nll",
    )
    weights: Literal["auto", "average", "current"] = Field(
        "auto", description="generator scored and sampled; auto: the average where there is one"
    )
    statistics: Literal["moving", "batch"] = Field(
        "moving", description="batch-norm statistics in generation: moving averages, or those of each batch"
    )

    @property
    def deciding(self) -> Literal["score", "selection", "held_out"]:
        """What epochs are compared by, as their records call it."""
        if self.select_by == "held_out":
            return "held_out"
        return "score" if self.quantities is None else "selection"

    @property
    def criterion(self) -> str:
        """The same, as people call it."""
        return "held-out loss" if self.deciding == "held_out" else self.deciding


class CommConfig(Section):
    """Communication between ranks."""

    backend: str = Field("auto", description="auto, horovod, mpi, serial, or somebody's own: package.module:Class")
    compression: Literal["none", "fp16"] = Field("none", description="gradients travel in half precision")
    timeout_s: NonNegative = Field(
        900.0, description="seconds without progress after which the job is ended, naming the rank at fault; 0: never"
    )

    @field_validator("backend")
    @classmethod
    def _backend_exists(cls, value: str) -> str:
        return _one_of(["auto", *BACKENDS.names()], value)


class TrackingConfig(Section):
    """Where the run is shown besides, by a process of its own that never holds up the training."""

    to: str | None = Field(
        None, description="mlflow, wandb, or somebody's own tracker: package.module:Class; null: nowhere"
    )
    uri: str | None = Field(
        None, min_length=1, description="server or database; null: what the variables of the tracker say"
    )
    project: str = Field("hpcgan", min_length=1, description="experiment of MLflow, project of Weights & Biases")
    python: InputPath | None = Field(
        None, description="Python that has the tracker's package; null: the one that trains"
    )
    wait_s: NonNegative = Field(10.0, description="seconds that the end of a training waits for the tracker")

    @field_validator("to")
    @classmethod
    def _tracker_exists(cls, value: str | None) -> str | None:
        return None if value is None else _one_of(TRACKERS.names(), value)

    @model_validator(mode="after")
    def _no_password(self) -> TrackingConfig:
        if self.uri is not None and "@" in (place := urlsplit(self.uri).netloc) and ":" in place.rpartition("@")[0]:
            # Of the whole section, as a message of a key shows its value.
            raise ValueError(
                "tracking.uri: has a password, which the configuration and lists of processes would show; leave the "
                "key out, and give the address in the tracker's own variable, such as MLFLOW_TRACKING_URI"
            )
        return self


def _one_of(names: Sequence[str], value: str) -> str:
    """A name of a plug-in, or the place of one."""
    if value not in names and ":" not in value:
        raise ValueError(f"choose one of: {', '.join(names)}, or package.module:Class{did_you_mean(value, names)}")
    return value


class CheckpointConfig(Section):
    """Checkpoints; the best by score is kept besides."""

    every_epochs: int = Field(1, ge=1)
    every: Literal["auto"] | Positive | None = Field(
        None,
        description="seconds between checkpoints, in the middle of epochs, too; auto: from what a checkpoint costs and "
        "mtbf; null: after epochs only",
    )
    mtbf: Positive | None = Field(
        None, description="mean time between failures for every: auto, s; null: that of the run so far"
    )
    keep: int = Field(2, ge=1, description="latest checkpoints kept")
    beside: bool = Field(
        True, description="written by a thread while steps go on, from a copy of the state; false: all ranks wait"
    )


class ProfileConfig(Section):
    """A profile of some steps, in the run's folder `profile`; it changes nothing of the training."""

    steps: int = Field(0, ge=0, le=10_000, description="steps to profile; 0: none")
    after: int = Field(20, ge=1, description="steps of the attempt before the first that is profiled")


#: Sections that say how trainings are started.
STARTING = ("sweep", "job", "scaling")


class Config(Section):
    """A whole configuration."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="names the run directory")
    problem: str
    method: str = Field(description="how the networks are trained; by default, the first that the problem names")
    seed: int = Field(1, ge=0, lt=2**63)
    data: DataConfig
    model: SerializeAsAny[BaseModel]
    training: SerializeAsAny[TrainingSection]
    scoring: ScoringConfig = ScoringConfig()
    comm: CommConfig = CommConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    profile: ProfileConfig = ProfileConfig()
    tracking: TrackingConfig = TrackingConfig()
    sweep: SweepSection = SweepSection()
    job: JobSection = JobSection()
    scaling: ScalingSection = ScalingSection()

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        return value if value is None else str(value)

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Config:
        if self.scoring.weights == "average" and self.training.average_half_life == 0:
            raise ValueError("scoring.weights=average needs training.average_half_life > 0")
        if self.scoring.select_by == "held_out":
            self._check_held_out()
        schedule = self.training.schedule
        if self.training.global_batch_size is not None and schedule.scaling != "none" and not schedule.reference_batch:
            raise ValueError(
                "training.schedule.scaling is for a batch that grows with the ranks, not for "
                "training.global_batch_size: set it to none, or training.schedule.reference_batch"
            )
        self.training.check(self)
        return self

    def _check_held_out(self) -> None:
        key = "scoring.select_by=held_out"
        if not self.training.has_held_out_loss:
            raise ValueError(f"{key}: method {self.method} has no loss that says how good samples are; use score")
        if self.scoring.quantities is not None:
            raise ValueError(f"{key} and scoring.quantities exclude one another: leave one of them out")
        if self.training.rollback.score_factor is not None:
            raise ValueError(
                f"{key}: training.rollback.score_factor is a ratio of scores, which a loss has not; "
                "leave it out, or use training.rollback.loss_above"
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
        """What makes two runs the same run: all but lengths, cadences, ranks, trackers, profiles, and where files lie.

        Data, and runs whose weights are taken, are known by their content, which is not looked at here
        (`hpcgan.problems.run_data`).
        """
        plain = self.dump()
        del plain["comm"], plain["checkpoint"], plain["profile"], plain["tracking"]
        del plain["training"]["epochs"], plain["scoring"]["every_epochs"], plain["data"]["cache_mb"]
        del plain["data"]["path"], plain["data"]["stage"], plain["data"]["stage_keep"]
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
