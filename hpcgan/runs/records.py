"""The records of a run: `metrics.jsonl`, append-only JSON lines, the source of truth; their types, writer and reader.

Every record has `kind`, `attempt`, `step` and `time`. An attempt begins with a `start` record at the step it resumes
from; what earlier attempts recorded beyond that step was replaced and is dropped by the reader, so that an interrupted
and an uninterrupted run read the same. The last record of an attempt that ended by itself says how (`End`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import pydantic

from hpcgan.errors import EnvironmentFailure
from hpcgan.system.failure import Failure
from hpcgan.system.files import sync

Outcome = Literal["done", "pruned", "interrupted", "stopped", "failed"]
"""Of an attempt: `pruned` ended by a verdict before its last epoch; `interrupted` by a signal, `stopped` by a command,
both with a checkpoint to go on from."""

SelectedBy = Literal["score", "held_out"]
"""What the epochs of a training are compared by: `scoring.select_by`."""

OVER: tuple[Outcome, ...] = ("done", "pruned")
"""Outcomes of a training that is over."""

EndKind = Literal["finished", "requested", "user", "training", "environment"]
Numbers = dict[str, float | None]
"""None for what is not finite, which JSON lacks, and for what there is none of."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has.

    Attributes
    ----------
    step : int
        Steps done.
    attempt : int
        Which attempt wrote it, from 1; set by the writer.
    time : float
        Seconds since 1970; set by the writer.
    """

    step: int
    attempt: int = 0
    time: float = 0.0


@dataclass(frozen=True)
class NodeCopy:
    """The copy of the data on a node's own storage (`data.stage`), and what it cost.

    Attributes
    ----------
    node : str
    folder : str
    copied_bytes : int
        0 where the copy was there already.
    seconds : float
        Until it was whole, the waiting for others included.
    """

    node: str
    folder: str
    copied_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Start(Record):
    """An attempt begins at a step, on so many ranks, with so many samples seen; `copies` of the data are read."""

    kind: Literal["start"] = "start"
    ranks: int = 1
    samples: int = 0
    copies: tuple[NodeCopy, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Begun(Record):
    """The first step of an attempt is done.

    Attributes
    ----------
    startup_s : float or None
        Seconds since its process was started, without a pause at its beginning.
    phases : dict of str to float
        Seconds of these, by what the process was at (`hpcgan.training.progress.Phases`); the first step took the rest.
    """

    kind: Literal["begun"] = "begun"
    startup_s: float | None = None
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step(Record):
    """A step, every so many.

    Attributes
    ----------
    samples : int
        Seen by all ranks.
    epoch : float
        Epochs done, fractional.
    metrics : dict of str to float
        Averaged over the ranks.
    """

    kind: Literal["step"] = "step"
    samples: int
    epoch: float
    metrics: Numbers = field(default_factory=dict)


def _nan(value: Any) -> Any:
    return math.nan if value is None else value


Number = Annotated[float, pydantic.BeforeValidator(_nan)]
"""Not a number where JSON has null."""


@dataclass(frozen=True)
class EpochScore:
    """A score of an epoch (`hpcgan.metrics.observable.Score`)."""

    total: Number
    parts: dict[str, Number] = field(default_factory=dict)
    n: int = 0
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut:
    """Mean loss of held-out events, with its statistical error, over `n` of them; `loss` is its name."""

    loss: str
    mean: Number
    error: Number
    n: int


@dataclass(frozen=True)
class Best:
    """The best epoch so far; `score` is what epochs are compared by (`Epoch.deciding`)."""

    score: Number
    epoch: int
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Epoch(Record):
    """An epoch is done.

    Attributes
    ----------
    epoch : int
        From 1.
    samples : int
        Seen by all ranks.
    losses, probabilities : dict of str to float
        Means over the epoch's steps; None if every step was bad.
    collapse : dict of str to float
        Signs of one: `diversity`, `nearest`, `saturation`.
    score : EpochScore or None
        The problem's; None if the epoch was not scored.
    selection : EpochScore or None
        Of `scoring.quantities`, where these are set: what epochs are compared by instead.
    held_out : HeldOut or None
        Of validation events, by methods that can tell.
    selected_by : "score" or "held_out"
        What epochs are compared by: scores (`score`, or the selection where there is one), or `held_out`.
    is_best : bool
    best : Best or None
        Of all epochs so far.
    learning_rates : dict of str to float
    samples_per_second : float or None
    scoring_seconds : float
    """

    kind: Literal["epoch"] = "epoch"
    epoch: int
    samples: int = 0
    losses: Numbers = field(default_factory=dict)
    probabilities: Numbers = field(default_factory=dict)
    collapse: Numbers = field(default_factory=dict)
    score: EpochScore | None = None
    selection: EpochScore | None = None
    held_out: HeldOut | None = None
    selected_by: SelectedBy = "score"
    is_best: bool = False
    best: Best | None = None
    learning_rates: Numbers = field(default_factory=dict)
    samples_per_second: float | None = None
    scoring_seconds: float = 0.0

    @property
    def deciding(self) -> float | None:
        """What epochs are compared by, if it is there and finite; smaller is better."""
        if self.selected_by == "held_out":
            value = None if self.held_out is None else self.held_out.mean
        else:
            score = self.score if self.selection is None else self.selection
            value = None if score is None else score.total
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Command(Record):
    """A command was obeyed, or refused (`hpcgan.runs.commands`).

    Attributes
    ----------
    id, name : str
    rates : dict of str to float
        Of `set`.
    refused : str or None
        Why it was not obeyed.
    paused : bool
        Whether the training pauses from here on.
    learning_rates : list of dict
        From here on, a rank each.
    """

    kind: Literal["command"] = "command"
    id: str
    name: str
    rates: dict[str, float] = field(default_factory=dict)
    refused: str | None = None
    paused: bool = False
    learning_rates: list[Numbers] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Record):
    """The state of a step is in a checkpoint; recorded when it is whole, some steps later if written beside them.

    Attributes
    ----------
    seconds : float
        How long the training waited for that.
    write_seconds : float
        How long the write took, whether the training waited or not.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    seconds: float = 0.0
    write_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rollback(Record):
    """The training went back to the weights of an earlier step, for the `count`-th time."""

    kind: Literal["rollback"] = "rollback"
    reason: str
    to_step: int
    count: int


@dataclass(frozen=True, kw_only=True)
class End(Record):
    """An attempt has ended by itself.

    Attributes
    ----------
    outcome : Outcome
    failure : Failure or None
        Why it failed, if it did: whose failure it was, in one line, and the rank.
    """

    kind: Literal["end"] = "end"
    outcome: Outcome
    failure: Failure | None = None

    @property
    def cause(self) -> EndKind:
        """What kind of end it was: `finished`, `requested`, or whose failure."""
        if self.outcome in OVER:
            return "finished"
        if self.outcome in ("interrupted", "stopped"):
            return "requested"
        return "training" if self.failure is None else self.failure.kind


AnyRecord = Start | Begun | Step | Epoch | Command | Checkpoint | Rollback | End
KINDS: dict[str, type[Record]] = {record.kind: record for record in get_args(AnyRecord)}
R = TypeVar("R", bound=Record)
_ANY: pydantic.TypeAdapter[AnyRecord] = pydantic.TypeAdapter(Annotated[AnyRecord, pydantic.Field(discriminator="kind")])


def plain(record: Record) -> dict[str, Any]:
    """A record as JSON has it: what all records have comes first."""
    values = dataclasses.asdict(record)
    first = {key: values.pop(key) for key in ("kind", "attempt", "step", "time")}
    return {**first, **_plain(values)}


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


class Writer:
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

    def write(self, record: R) -> R:
        """Append a record, with this attempt and the time now, and return it.

        Raises
        ------
        EnvironmentFailure
            The disk is full, or cannot be written.
        """
        stamped = dataclasses.replace(record, attempt=self._attempt, time=time.time())
        self._write(json.dumps(plain(stamped), allow_nan=False).encode() + b"\n")
        return stamped

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError as error:
            raise EnvironmentFailure(f"{self._file.name}: cannot write: {error.strerror}") from None

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


class Reader:
    """The records of a run, all at once or as they come: a look at a file costs what was appended since the last one.

    A file that was replaced by another one, or was shortened, is read anew.

    Parameters
    ----------
    path : Path
    *keep : type of Record
        What `of`, `paused`, `outcome` and `epochs_done` shall know; by default all kinds. A long run has a hundred
        thousand `Step` records.
    replaced : bool
        Whether to keep what later attempts replaced.

    Attributes
    ----------
    last : Record or None
        The newest record, of whatever kind.
    epochs_done : float
        With the part of the epoch that is under way, as far as it is recorded.
    rate : float or None
        Samples/s, between the last two steps that are recorded, or of the last epoch.
    unusable : int
        Records that lack what they must have, and do not count. Torn lines are none: a killed writer leaves one.
    """

    def __init__(self, path: Path, *keep: type[Record], replaced: bool = False) -> None:
        self._path, self._replaced = path, replaced
        self._keep = keep or tuple(KINDS.values())
        self._begin(None)

    def _begin(self, file: tuple[int, int] | None) -> None:
        self._file, self._offset = file, 0
        self._starts: list[tuple[int, int]] = []
        self._kept: list[Record] = []
        self._step = 0
        self.last: Record | None = None
        self.epochs_done, self.unusable = 0.0, 0
        self.rate: float | None = None

    def read(self) -> Reader:
        """Take in what was appended; this reader.

        Raises
        ------
        OSError
            The file is there and cannot be read.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._begin(None)
            return self
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._offset:
            self._begin(file)
        if status.st_size == self._offset:
            return self
        with open(self._path, "rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(line)
                self._take(line)
        return self

    def of(self, kind: type[R]) -> list[R]:
        """The records of a kind that is kept, in order."""
        return [record for record in self._kept if isinstance(record, kind)]

    @property
    def step(self) -> int:
        """The last step that is recorded."""
        return self._step

    @property
    def paused(self) -> bool:
        """Whether the last command left the training paused."""
        commands = self.of(Command)
        return bool(commands) and commands[-1].paused

    def outcome(self, command_id: str) -> Command | None:
        """The record of a command that was obeyed or refused; None as long as it was not."""
        return next((record for record in reversed(self.of(Command)) if record.id == command_id), None)

    def _take(self, line: bytes) -> None:
        try:
            record = _ANY.validate_json(line)
        except pydantic.ValidationError as error:
            # Problems without a place are of what is no record, such as the torn line of a killed writer.
            self.unusable += all(problem["loc"] for problem in error.errors(include_url=False))
            return
        if isinstance(record, Start):
            self._starts.append((record.attempt, record.step))
            if not self._replaced:
                self._drop_replaced(record)
            self.rate, self.epochs_done = None, max((e.epoch for e in self.of(Epoch)[-1:]), default=0.0)
        elif not self._replaced and any(record.attempt < n and record.step > step for n, step in self._starts):
            return
        if isinstance(record, Epoch):
            self.epochs_done, self.rate = float(record.epoch), record.samples_per_second
        elif isinstance(record, Step):
            self._measure(record)
            self.epochs_done = record.epoch
        # A checkpoint is of a step that may be recorded already.
        self._step = max(self._step, record.step) if isinstance(record, Checkpoint) else record.step
        self.last = record
        if isinstance(record, self._keep):
            self._kept.append(record)

    def _measure(self, record: Step) -> None:
        """The rate between two `step` records with nothing in between, such as a pause or a scoring."""
        last = self.last
        if isinstance(last, Step) and last.attempt == record.attempt and record.time > last.time:
            self.rate = (record.samples - last.samples) / (record.time - last.time)

    def _drop_replaced(self, start: Start) -> None:
        """Drop what earlier attempts recorded beyond the step from which a later one starts."""
        self._kept = [
            r for r in self._kept if isinstance(r, Start) or r.attempt >= start.attempt or r.step <= start.step
        ]


def read(path: Path, kind: type[R]) -> list[R]:
    """The records of a kind, in order, without what later attempts replaced; none if there is no file."""
    return Reader(path, kind).read().of(kind)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of another file of JSON lines (provenance, jobs), in order, without torn lines; empty without a file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the last line of a killed writer
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def append(path: Path, entry: dict[str, Any]) -> None:
    """Append one JSON line to another file of them (provenance, jobs) and make it durable."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(_plain(entry), allow_nan=False) + "\n")
        file.flush()
        sync(file.fileno())
