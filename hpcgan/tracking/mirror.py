"""A run directory shown by a tracker: what is new in it since the last look is told, and remembered.

The records are the truth; the tracked run is made from them, whole or as they come, by `hpcgan track` and beside a
training alike. The tracked run is one for all attempts of a run directory: its key and what it has been told stand in
the directory (`hpcgan.tracking.memory`). What is told twice, as a process was killed in between, is told in the same
words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcgan.runs import records
from hpcgan.runs.curves import KEEP, Curved, point, settled
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import OVER, End, Reader
from hpcgan.system.files import version
from hpcgan.tracking.base import Status, Tracker
from hpcgan.tracking.memory import Entry, Memory

#: Points told at once.
CHUNK = 200
#: Of an attempt (provenance), what is told of the newest.
FACTS = ("attempt", "host", "ranks", "backend", "cores", "hpcgan", "python", "tensorflow", "identity", "slurm_job",
         "slurm_restarts", "command")  # fmt: skip


class Mirror:
    """Tells a tracker of a run.

    Parameters
    ----------
    run : RunDirectory
    tracker : Tracker
    memory : Memory
    """

    def __init__(self, run: RunDirectory, tracker: Tracker, memory: Memory) -> None:
        self._run, self._tracker, self._memory = run, tracker, memory
        self._reader = Reader(run.metrics_file, *KEEP)
        self._entry: Entry | None = None

    @property
    def points(self) -> int:
        """Points that the tracked run has."""
        return 0 if self._entry is None else self._entry.points

    def forget(self) -> None:
        """Put the tracked run that there is aside; the next look begins another."""
        entry = self._memory.read().get(self._tracker.place)
        if entry is not None:
            self._replace(entry)

    def look(self, alive: bool) -> None:
        """Tell what is new.

        Parameters
        ----------
        alive : bool
            Whether somebody trains, if the records do not say that the last attempt has ended.

        Raises
        ------
        InputError
            The run directory is broken.
        Exception
            Whatever the tracker raises; the next look goes on from there.
        """
        told = settled(self._reader.read())
        entry = self._open(told)
        self._describe(entry)
        for first in range(entry.points, len(told), CHUNK):
            chunk = [point(record) for record in told[first : first + CHUNK]]
            self._tracker.log(chunk)
            entry.points, entry.mark = first + len(chunk), chunk[-1].mark
            self._remember(entry)
        for name, path in artefacts(self._run):
            stamp = json.dumps(version(path))
            if entry.files.get(name) != stamp:
                self._tracker.upload(path, name)
                entry.files[name] = stamp
                self._remember(entry)
        last = self._reader.last
        status = status_of(self._reader, alive)
        if last is not None and entry.status != status:
            self._tracker.state(status, last.time)
            entry.status = status
            self._remember(entry)

    def _open(self, told: list[Curved]) -> Entry:
        entry = self._entry
        if entry is None:
            entry = self._memory.read().get(self._tracker.place)
        if entry is not None and not _is_of(entry, told):
            entry = self._replace(entry)
        if entry is not None and entry is self._entry:
            return entry
        if entry is None:
            entry = Entry()
            self._remember(entry)  # before the tracker hears of it: a killed process leaves no run that nobody knows
        if not self._tracker.find(entry.key):
            entry = Entry(key=entry.key)
            self._remember(entry)  # a killed process leaves no new run of which old points are remembered, either
            start = self._reader.of(records.Start)
            self._tracker.begin(entry.key, start[0].time if start else 0.0)
        self._entry = entry
        return entry

    def _replace(self, entry: Entry) -> Entry:
        """An entry for another tracked run, in place of one that is put aside."""
        self._tracker.discard(entry.key)
        self._entry, entry = None, Entry()
        self._remember(entry)
        return entry

    def _describe(self, entry: Entry) -> None:
        parameters, facts = description(self._run)
        digest = hashlib.sha256(json.dumps([parameters, facts], sort_keys=True).encode()).hexdigest()
        if entry.description != digest:
            self._tracker.describe(parameters, facts)
            entry.description = digest
            self._remember(entry)

    def _remember(self, entry: Entry) -> None:
        self._memory.write(self._tracker.place, entry)


def _is_of(entry: Entry, told: list[Curved]) -> bool:
    """Whether what was told is still what the records say."""
    if entry.points == 0:
        return True
    return len(told) >= entry.points and point(told[entry.points - 1]).mark == entry.mark


def status_of(reader: Reader, alive: bool) -> Status:
    """How a run is, by its last record."""
    end = reader.last
    if not isinstance(end, End):
        return "running" if alive else "failed"
    if end.outcome in OVER:
        return "finished"
    return "failed" if end.outcome == "failed" else "interrupted"


def description(run: RunDirectory) -> tuple[dict[str, str], dict[str, str]]:
    """The configuration by dotted keys, and facts of the newest attempt."""
    plain = run.read_config()
    plain.pop("tracking", None)
    provenance = records.read_lines(run.provenance_file)
    newest = provenance[-1] if provenance else {}
    facts = {name: str(newest[name]) for name in FACTS if newest.get(name) is not None}
    return dict(_flat(plain)), {"directory": str(run.path.absolute()), **facts}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)


def artefacts(run: RunDirectory) -> Iterator[tuple[str, Path]]:
    """Files that are shown with a run, by name: how it was made, generated events, reports."""
    for path in (run.config_file, run.data_file, run.provenance_file):
        if path.is_file():
            yield path.name, path
    for folder in (run.samples, run.report):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path.relative_to(run.path).as_posix(), path
