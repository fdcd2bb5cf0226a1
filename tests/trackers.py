"""Trackers that a process finds by their places: one that writes down what it hears, and bad ones; and a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgan.runs.curves import Point
from hpcgan.runs.directory import RunDirectory
from hpcgan.tracking.base import Status, Tracker

BATCH = 4
"""Samples a step of a run that is written."""


class Notebook(Tracker):
    """Writes a line for each call into the file `heard.jsonl` in `tracking.uri`."""

    @property
    def place(self) -> str:  # type: ignore[override]
        return f"{self.settings.uri} {self.settings.project}"

    def _note(self, call: str, *about: Any) -> None:
        with open(Path(str(self.settings.uri)) / "heard.jsonl", "a") as file:
            file.write(json.dumps([call, *about]) + "\n")

    def find(self, key: str) -> bool:
        known = any(call[:2] == ["begin", key] for call in heard(Path(str(self.settings.uri))))
        self._note("find", key)
        return known

    def begin(self, key: str, started: float) -> None:
        self._note("begin", key)

    def describe(self, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        self._note("describe", dict(parameters), dict(facts))

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            self._note("point", point.samples, point.values)

    def upload(self, path: Path, name: str) -> None:
        self._note("file", name, path.stat().st_size)

    def state(self, status: Status, when: float) -> None:
        self._note("state", status)

    def discard(self, key: str) -> None:
        self._note("discard", key)

    def address(self) -> str:
        return "here"


def heard(folder: Path) -> list[list[Any]]:
    """All calls, in order."""
    path = folder / "heard.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Hanging(Notebook):
    """Answers no more once it is told of points, as a server behind a broken network; prints, as libraries do."""

    def log(self, points: Sequence[Point]) -> None:
        print("connecting ...", flush=True)
        self._note("hangs", os.getpid())
        time.sleep(3600)


class Failing(Notebook):
    """Takes no points."""

    def log(self, points: Sequence[Point]) -> None:
        raise ConnectionError("no route to the server\nand many more lines")


class WrittenRun:
    """A run directory, written record by record."""

    def __init__(self, folder: Path) -> None:
        self.directory, self._attempt, self.clock = RunDirectory(folder / "run-1a2b"), 0, 1000.0
        self.directory.path.mkdir()
        self.directory.config_file.write_text("name: run\nmodel: {filters: 2}\ntracking: {to: mlflow}\n")

    def record(self, kind: str, step: int, **more: Any) -> None:
        self.clock += 1.0
        record = {"kind": kind, "attempt": self._attempt, "step": step, "time": self.clock, **more}
        with open(self.directory.metrics_file, "a") as file:
            file.write(json.dumps(record) + "\n")

    def attempt(
        self, start: int, steps: Sequence[int], checkpoints: Sequence[int] = (), end: str | None = None
    ) -> None:
        """Steps after `start`, with records of them; `end` is an outcome."""
        self._attempt += 1
        with open(self.directory.provenance_file, "a") as file:
            file.write(json.dumps({"attempt": self._attempt, "host": "node7", "ranks": 2}) + "\n")
        self.record("start", start, samples=start * BATCH)
        for step in steps:
            loss = self._attempt + step / 1000
            self.record("step", step, samples=step * BATCH, epoch=0.0, metrics={"d": loss, "bad": None})
            if step in checkpoints:
                self.record("checkpoint", step)
        if end is not None:
            self.record("end", max(steps), outcome=end)
