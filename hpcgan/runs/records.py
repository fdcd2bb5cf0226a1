"""The metrics stream of a run: append-only JSON lines, the source of truth. A leaf.

Every record carries `kind`, `attempt`, `step` and `time`. An attempt begins with a `start` record at the
step it resumes from; what earlier attempts recorded beyond that step was replaced and is dropped by the
reader, so that an interrupted and an uninterrupted run read the same.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpcgan.errors import HpcganError
from hpcgan.system.files import sync


def _plain(value: Any) -> Any:
    """JSON-able copy; NaN and infinities, which JSON lacks, become None."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None


class MetricsWriter:
    """Appends records to `metrics.jsonl`.

    Parameters
    ----------
    path : Path
    attempt : int
        Written into every record.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self._attempt = attempt
        torn = path.exists() and path.stat().st_size > 0 and not _ends_with_newline(path)
        # Without a buffer, which would keep what a full disk refused and write it at another time.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for the life of the run
        if torn:  # a killed writer's last line: close it, the reader drops it
            self._write(b"\n")

    def write(self, kind: str, step: int, **fields: Any) -> dict[str, Any]:
        """Append one record and return it.

        Raises
        ------
        HpcganError
            The disk is full, or cannot be written.
        """
        record = {"kind": kind, "attempt": self._attempt, "step": step, "time": time.time(), **_plain(fields)}
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")
        return record

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError as error:
            raise HpcganError(f"{self._file.name}: cannot write: {error.strerror}") from None

    def sync(self) -> None:
        """Make what was written durable."""
        sync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Records in order, without torn lines and without what a later attempt replaced."""
    records = [r for r in read_lines(path) if {"kind", "attempt", "step"} <= r.keys()]
    return [r for r in drop_replaced(records) if kind is None or r["kind"] == kind]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines, in order, without torn lines; empty if there is no file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a killed writer
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def drop_replaced(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop records of earlier attempts beyond the step from which a later one started."""
    records = list(records)
    starts = [(r["attempt"], r["step"]) for r in records if r["kind"] == "start"]
    kept = []
    for record in records:
        later = [step for attempt, step in starts if attempt > record["attempt"]]
        if record["kind"] == "start" or not later or record["step"] <= min(later):
            kept.append(record)
    return kept


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line to another stream (provenance) and make it durable."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        file.flush()
        sync(file.fileno())
