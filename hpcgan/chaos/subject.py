"""What a campaign hits: a training, or a search for hyper-parameters."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

from hpcgan.runs import checkpoint
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Reader
from hpcgan.sweep.store import StudyDirectory


class Subject(ABC):
    """What has a directory, in which it goes on.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self.path.name

    @property
    @abstractmethod
    def trainings(self) -> list[RunDirectory]:
        """Those that are under way: whose files a fault may damage."""

    @abstractmethod
    def seen(self) -> dict[str, int]:
        """How far it is, for the log."""

    @abstractmethod
    def recorded(self) -> int:
        """Bytes of its records: while they grow, it does not hang."""


class Training(Subject):
    """One run."""

    @property
    def trainings(self) -> list[RunDirectory]:
        return [RunDirectory(self.path)]

    def seen(self) -> dict[str, int]:
        """Step of the last record, and of the newest checkpoint, -1 if there is none."""
        run = RunDirectory(self.path)
        step = Reader(run.metrics_file, replaced=True).read().step
        return {"step": step, "checkpoint": checkpoint.newest_step(run.checkpoints)}

    def recorded(self) -> int:
        return _size(RunDirectory(self.path).metrics_file)


class Search(Subject):
    """One study."""

    @property
    def trainings(self) -> list[RunDirectory]:
        """Of trials without a result."""
        study = StudyDirectory(self.path)
        return [study.trial(n) for n in study.numbers() if not study.result_file(n).exists()]

    def seen(self) -> dict[str, int]:
        """Trials that were begun, and that have a result; it may be one that cannot be read."""
        study = StudyDirectory(self.path)
        numbers = study.numbers()
        return {"trials": len(numbers), "ended": sum(study.result_file(n).exists() for n in numbers)}

    def recorded(self) -> int:
        study = StudyDirectory(self.path)
        return sum(_size(study.trial(n).metrics_file) + _size(study.result_file(n)) for n in study.numbers())


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
