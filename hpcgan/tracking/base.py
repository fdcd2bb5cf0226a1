"""What a tracker is: one tracked run, that of a run directory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hpcgan.config import TrackingConfig
from hpcgan.runs.curves import Point

Status = Literal["running", "finished", "interrupted", "failed"]
"""Of a run: `interrupted` with a checkpoint to go on from."""


class Tracker(ABC):
    """The tracked run of a run directory. Any method may raise whatever its library raises.

    Parameters
    ----------
    settings : TrackingConfig
    folder : Path
        The run directory.

    Attributes
    ----------
    package : str
        What is installed by pip for it.
    place : str
        Where runs are tracked, without passwords; other places have tracked runs of their own.
    """

    package = ""
    place = ""

    def __init__(self, settings: TrackingConfig, folder: Path) -> None:
        self.settings, self.folder = settings, folder

    @property
    def name(self) -> str:
        """What the tracked run is called: as the run directory."""
        return self.folder.absolute().name

    @abstractmethod
    def find(self, key: str) -> bool:
        """Open the tracked run of a key, hex digits that the run directory remembers; whether it is there."""

    @abstractmethod
    def begin(self, key: str, started: float) -> None:
        """Begin and open the tracked run of a key; the run began at `started`, in seconds since 1970."""

    @abstractmethod
    def describe(self, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        """Say what is trained, by key of the configuration, and where and with what."""

    @abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Add points to the curves. Points that were added before, and no other process knows of, may come again."""

    @abstractmethod
    def upload(self, path: Path, name: str) -> None:
        """Keep a copy of a file, `samples/epoch-0001.h5` say, in place of an earlier one of this name."""

    @abstractmethod
    def state(self, status: Status, when: float) -> None:
        """Say how the run is, since a moment in seconds since 1970."""

    @abstractmethod
    def discard(self, key: str) -> None:
        """Put the tracked run of a key aside: what it shows was replaced by a later attempt."""

    @abstractmethod
    def address(self) -> str:
        """Where people find the tracked run, which is open."""

    def close(self) -> None:
        """Let go of the tracker."""
