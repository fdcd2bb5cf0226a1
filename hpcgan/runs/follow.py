"""The records of a run that grows, read as they come: what is new, and no line twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Follower:
    """What a dashboard knows of `metrics.jsonl`; a look at a file of 100,000 records costs what was appended since.

    Of `step` records, which are most of them, only the newest counts. What a later attempt replaced is dropped as
    `hpcgan.runs.records.read` drops it. A file that was replaced by another one, or was shortened, is read anew.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    epochs, commands : list of dict
        The records of these kinds; of an epoch `attempt`, `step`, `epoch` and `best`.
    step : int
        The last one that is recorded.
    epochs_done : float
        With the part of the epoch that is under way, as far as it is recorded.
    rate : float or None
        Samples/s, between the last two steps that are recorded, or of the last epoch.
    unusable : int
        Records that lack what they must have, and do not count. Torn lines are none: a killed writer leaves one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin(None)

    def _begin(self, file: tuple[int, int] | None) -> None:
        self._file, self._offset = file, 0
        self._starts: list[tuple[int, int]] = []
        self._last_step: dict[str, Any] | None = None
        self.epochs: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.step, self.epochs_done, self.unusable = 0, 0.0, 0
        self.rate: float | None = None

    def read(self) -> None:
        """Take in what was appended.

        Raises
        ------
        OSError
            The file is there and cannot be read.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._begin(None)
            return
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._offset:
            self._begin(file)
        if status.st_size == self._offset:
            return
        with open(self._path, "rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(line)
                self._take(line)

    def outcome(self, command_id: str) -> dict[str, Any] | None:
        """As `hpcgan.runs.commands.outcome`, from what was read."""
        return next((r for r in reversed(self.commands) if r.get("id") == command_id), None)

    @property
    def paused(self) -> bool:
        """Whether the last command left the training paused."""
        return bool(self.commands) and bool(self.commands[-1].get("paused"))

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not (isinstance(record, dict) and {"kind", "attempt", "step"} <= record.keys()):
            return
        try:
            self._add(record)
        except (AttributeError, KeyError, TypeError, ValueError):
            self.unusable += 1

    def _add(self, record: Mapping[str, Any]) -> None:
        kind, attempt, step = record["kind"], int(record["attempt"]), int(record["step"])
        if kind == "start":
            self._starts.append((attempt, step))
            self._drop_replaced(attempt, step)
            self.step, self._last_step = step, None
            return
        if any(attempt < other and step > first for other, first in self._starts):
            return
        if kind == "epoch":
            kept = {key: record[key] for key in ("attempt", "step", "epoch", "best")}
            rate = record["samples_per_second"]
            self.epochs_done, self.rate = float(record["epoch"]), None if rate is None else float(rate)
            self.epochs.append(kept)
        elif kind == "step":
            self._measure(record)
            self.epochs_done = float(record["epoch"])
        elif kind == "command":
            self.commands.append({**record, "rates": dict(record["rates"]), "name": str(record["name"])})
        self._last_step = dict(record) if kind == "step" else None
        self.step = step

    def _measure(self, record: Mapping[str, Any]) -> None:
        """The rate between two `step` records with nothing in between, such as a pause or a scoring."""
        last = self._last_step
        if last is not None and last["attempt"] == record["attempt"] and record["time"] > last["time"]:
            self.rate = (record["samples"] - last["samples"]) / (record["time"] - last["time"])

    def _drop_replaced(self, attempt: int, step: int) -> None:
        for kept in (self.epochs, self.commands):
            kept[:] = [r for r in kept if r["attempt"] >= attempt or r["step"] <= step]
        self.rate, self.epochs_done = None, float(self.epochs[-1]["epoch"]) if self.epochs else 0.0
