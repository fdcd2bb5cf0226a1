"""The `sweep:` and `scaling:` sections: how many trainings, of what kind, and who runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from hpcgan.config.base import Option, Positive, Section


class SweepSection(Section):
    """A search for hyper-parameters; what is searched is in the section `search:`."""

    trials: int | None = Field(None, ge=1, description="trials of the search (of a grid, by default all)")
    executor: Annotated[str, Option(metavar="NAME")] = Field(
        "local", description="who runs them: local, slurm, ipyparallel, or package.module:Class"
    )
    concurrency: Annotated[int | None, Option(metavar="K")] = Field(
        None,
        ge=1,
        le=100_000,
        description="trials at a time; by default what the cores, or the engines, allow; Slurm: 4",
    )
    ranks: Annotated[int | None, Option(metavar="R")] = Field(
        None, ge=1, le=100_000, description="ranks of a trial; by default those of its job: 1"
    )
    seed: Annotated[int, Option(metavar="S")] = Field(1, ge=0, lt=2**63, description="of the study")
    sampler: Annotated[str, Option(metavar="NAME")] = Field(
        "random", description="random, grid, or one of Optuna's: tpe ..."
    )
    pruner: Literal["none", "median", "halving"] = Field("none", description="end bad trials early")
    top: Annotated[int, Option(metavar="K")] = Field(3, ge=1, description="so many of the best are trained again")
    repeats: Annotated[int, Option(metavar="R")] = Field(0, ge=0, description="with so many fresh seeds each")
    retries: int = Field(3, ge=0, description="starts of a lost trial")
    cluster: Annotated[Path | None, Option(metavar="FILE")] = Field(
        None, description="ipcontroller-client.json of the IPython cluster"
    )


class ScalingSection(Section):
    """A scaling study: the numbers of ranks, and how each is measured."""

    ranks: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Option(metavar="N,...")] = Field(
        (), description="numbers of ranks, e.g. 1,2,4"
    )
    mode: Literal["weak", "strong"] = Field(
        "weak", description="keep the batch of a rank (weak) or of all ranks together (strong)"
    )
    comm: Annotated[tuple[str, ...], Option(metavar="NAME,...")] = Field(
        (), description="backends; by default that of the configuration"
    )
    repeats: Annotated[int, Option(metavar="R")] = Field(3, ge=1, description="measurements of each point")
    steps: int = Field(100, ge=1, description="timed steps of a point")
    warm_up: int = Field(20, ge=2, description="steps before, not timed")
    synthetic_data: bool = Field(False, description="random samples: needs no data")
    isolated: bool = Field(False, description="also as many processes at once without communication: the ceiling")
    allreduce: Annotated[bool, Option("no-allreduce")] = Field(
        True, description="false: leave out the timing of bare collectives, which the model needs"
    )
    limit_s: Annotated[Positive, Option("limit", "S")] = Field(1800.0, le=1e9, description="seconds for a point")
    executor: Literal["local", "slurm"] = Field(
        "local", description="measure here (or in the job this runs in), or submit a job that does"
    )

    @field_validator("ranks", "comm", mode="before")
    @classmethod
    def _lists_are_written_with_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",")]
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("ranks")
    @classmethod
    def _ranks_ascend(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))
