"""What the coordinator asks of whoever runs trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


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


def command(python: str, study: str, number: int, *options: str) -> list[str]:
    """The command line of a trial."""
    return [python, "-m", "hpcgan.sweep.trial", study, str(number), *options]
