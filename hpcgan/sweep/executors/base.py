"""What the coordinator asks of whoever runs trials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

# What launchers set for their ranks. A trial that is started from a rank, or inside a job, is a job of its own.
_OF_LAUNCHERS = re.compile(r"OMPI_|PMIX_|PMI_|PMI2_|PRTE_|OPAL_|MV2_|HYDRA_|HYDI_|MPI_LOCAL|MPIR_|SLURM_|SLURMD_|ALPS_")
_KEPT = re.compile(r"OMPI_ALLOW_RUN_AS_ROOT|SLURM_CONF$")


class Executor(Protocol):
    """Runs trials, each in a process `python -m hpcgan.sweep.trial` somewhere.

    Attributes
    ----------
    slots : int or None
        Trials that it takes at a time; None: as many as there are, and it queues them itself.
    every : float
        Seconds between looks at it that are worth while.
    """

    slots: int | None
    every: float

    def start(self, numbers: Sequence[int]) -> None:
        """Hand in trials. HpcganError if that cannot be done."""
        ...

    def poll(self) -> dict[int, int | None]:
        """Trials that have ended since the last call, with the exit code of their process where it is known."""
        ...

    def in_flight(self) -> set[int]:
        """Trials that were handed in and have not ended, by an earlier coordinator, too, as far as it can be told."""
        ...

    def stop(self) -> None:
        """Ask all trials to stop in order. Those that wait will not be started."""
        ...

    def kill(self) -> None:
        """End all trials now, as far as that is possible."""
        ...

    def close(self) -> None:
        """Let go of everything; trials that are still there are not ended for it."""
        ...


def scrubbed(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without what MPI's and Slurm's launchers told this process of its own job."""
    return {k: v for k, v in env.items() if not _OF_LAUNCHERS.match(k) or _KEPT.match(k)}


def command(python: str, study: str, number: int, *options: str) -> list[str]:
    """The command line of a trial."""
    return [python, "-m", "hpcgan.sweep.trial", study, str(number), *options]
