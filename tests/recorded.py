"""What a run has recorded, as plain values: tests look at single fields of many records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcgan.runs import records


def recorded(path: Path, kind: str | None = None, *, replaced: bool = False) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, of one kind or of all, in order."""
    wanted = records.Record if kind is None else records.KINDS[kind]
    return [records.plain(record) for record in records.Reader(path, replaced=replaced).read().of(wanted)]
