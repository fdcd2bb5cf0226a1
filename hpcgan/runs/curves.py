"""The curves of a run: the numbers of its records by name, as TensorBoard and trackers show them.

A tracker such as MLflow cannot take a number back. So what is tracked is *settled*: a checkpoint holds it, and the next
attempt goes on behind it. What an attempt recorded after its last checkpoint is done again, and counts then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hpcgan.runs.records import OVER, Checkpoint, End, Epoch, Reader, Record, Start, Step

#: What a reader has to keep for `settled`.
KEEP = (Start, Step, Epoch, Checkpoint, End)
Curved = Step | Epoch
"""A record that has points of curves."""


@dataclass(frozen=True)
class Point:
    """Numbers of one moment.

    Attributes
    ----------
    samples : int
        Seen by all ranks until then: the horizontal axis, which means the same on any number of ranks.
    time : float
        Seconds since 1970.
    values : dict of str to float
        By curve; finite.
    """

    samples: int
    time: float
    values: dict[str, float]

    @property
    def mark(self) -> tuple[int, float]:
        """What tells the point from others of the run."""
        return self.samples, self.time


def values(record: Curved) -> dict[str, float]:
    """The numbers of a record by curve, `losses/generator` say; what is not known is left out."""
    if isinstance(record, Step):
        return {f"step/{name}": value for name, value in record.metrics.items() if value is not None}
    groups: dict[str, Mapping[str, float | None]] = {
        "losses": record.losses,
        "probabilities": record.probabilities,
        "collapse": record.collapse,
        "learning_rates": record.learning_rates,
        **{
            name: {"total": score.total, **score.parts}
            for name, score in (("score", record.score), ("selection", record.selection))
            if score is not None
        },
    }
    if record.held_out is not None:
        groups["held_out"] = {record.held_out.loss: record.held_out.mean}
    flat = {f"{group}/{name}": value for group, numbers in groups.items() for name, value in numbers.items()}
    rate = record.samples_per_second
    return {name: value for name, value in {"samples_per_second": rate, **flat}.items() if value is not None}


def point(record: Curved) -> Point:
    """The numbers of a record that can be drawn."""
    finite = {name: value for name, value in values(record).items() if math.isfinite(value)}
    return Point(record.samples, record.time, finite)


def settled(reader: Reader) -> list[Curved]:
    """The records that stay, in order; a later look has the same ones and more, unless a checkpoint was lost.

    Parameters
    ----------
    reader : Reader
        That keeps `KEEP`, without what later attempts replaced.
    """
    limit = _limit(reader)
    return [record for record in reader.of(Record) if isinstance(record, Curved) and record.step <= limit]


def _limit(reader: Reader) -> float:
    """The last step that no attempt will do again."""
    if isinstance(reader.last, End) and reader.last.outcome in OVER:
        return math.inf
    starts = reader.of(Start)
    return max([*(start.step for start in starts[-1:]), *(record.step for record in reader.of(Checkpoint))], default=-1)
