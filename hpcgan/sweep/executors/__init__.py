"""Where trials of a sweep run: what the coordinator asks of whoever runs them.

An executor is a class by its name in `hpcgan.sweep.executors.EXECUTORS`, by an entry point of the group
`hpcgan.executors` in any installed package, or by its place, `sweep.executor=package.module:Class`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from hpcgan.config import Config, SweepSection
from hpcgan.errors import InputError
from hpcgan.plugins import Plugins
from hpcgan.sweep.store import StudyDirectory


class Executor(ABC):
    """Runs trials, each in a process `python -m hpcgan.sweep.trial STUDY NUMBER` somewhere.

    Whoever sees the study's directory can run a trial: its processes need nothing else of the executor.

    Parameters
    ----------
    study : StudyDirectory
        Which need not exist yet.
    config : Config
        What trials change. Its section `sweep:` has the number of trials and the `ranks` of each; its section `job:`
        what is asked of a batch system, `threads` of a rank included.
    report : callable
        Takes one line for the user.

    Attributes
    ----------
    every : float
        Seconds between looks at it that are worth while.
    concurrency : int
        Trials at a time.
    queues : bool
        It takes all trials there are, and queues by itself what is beyond `concurrency`.
    """

    every: float = 0.5
    queues: ClassVar[bool] = False

    def __init__(self, study: StudyDirectory, config: Config, report: Callable[[str], None]) -> None:
        self.study, self.config, self.report = study, config, report
        self.concurrency = config.sweep.concurrency or self.default_concurrency(config.sweep)

    # --- what it does where nobody says otherwise ---------------------------------------------------

    @classmethod
    def default_concurrency(cls, sweep: SweepSection) -> int:
        """Trials at a time."""
        return 4

    @classmethod
    def default_threads(cls, sweep: SweepSection) -> int:
        """Threads of a rank in a new study, which all its trials have, whoever runs them."""
        return 1

    def open(self) -> None:
        """Get hold of whoever runs trials, before anything is asked of it but `script`; InputError if there is none."""

    def warnings(self) -> list[str]:
        """What the user should know before trials begin, a line each."""
        return []

    def script(self, numbers: Sequence[int]) -> str:
        """The batch script for some trials.

        Raises
        ------
        InputError
            It has none.
        """
        raise InputError(f"--print: --executor {self.config.sweep.executor} has no batch script")

    # --- trials -------------------------------------------------------------------------------------

    @abstractmethod
    def start(self, numbers: Sequence[int]) -> None:
        """Hand in trials. HpcganError if that cannot be done."""

    @abstractmethod
    def poll(self) -> dict[int, int | None]:
        """Trials that have ended since the last call, with the exit code of their process where it is known."""

    @abstractmethod
    def in_flight(self) -> set[int]:
        """Trials that were handed in and have not ended, by an earlier coordinator, too, as far as it can be told."""

    def stop(self) -> None:
        """Ask all trials to stop in order, beyond the study's stop file. Those that wait will not be started."""

    def kill(self) -> None:
        """End all trials now, as far as that is possible."""

    def close(self) -> None:
        """Let go of everything; trials that are still running are not ended for it."""


def command(python: str, study: str, number: int, *options: str) -> list[str]:
    """The command line of a trial."""
    return [python, "-m", "hpcgan.sweep.trial", study, str(number), *options]


EXECUTORS = Plugins(
    "hpcgan.executors",
    "executor",
    {
        "ipyparallel": "hpcgan.sweep.executors.ipyparallel:IpyparallelExecutor",
        "local": "hpcgan.sweep.executors.local:LocalExecutor",
        "slurm": "hpcgan.sweep.executors.slurm:SlurmExecutor",
    },
    lambda cls: issubclass(cls, Executor),
)
