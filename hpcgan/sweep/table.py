"""All trials of a study as a table, from the files of its directory and nothing else.

Reading never changes a study, so that it can be done at any time, by anybody, on any machine that sees the directory.
What cannot be read is said and counts as broken; the rest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.launch import run_status
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state, attempts_made
from hpcgan.runs.records import Epoch, Reader, Start
from hpcgan.sweep import dimension
from hpcgan.sweep.dimension import Dimension
from hpcgan.sweep.labels import one_line
from hpcgan.sweep.store import Assignment, Candidate, Description, Outcome, Result, StudyDirectory

RowState = Literal["complete", "pruned", "failed", "running", "queued", "lost", "broken"]
ROW_STATES: tuple[RowState, ...] = get_args(RowState)
ENDED: tuple[RowState, ...] = ("complete", "pruned", "failed")
_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class Row(Outcome):
    """A trial.

    Attributes
    ----------
    state : str
        How it ended (complete, pruned, failed), or stands: running; queued (not started, or interrupted in order);
        lost (started, no sign of life, no result: the sweep's command tries it again); broken (files that cannot be
        read).
    seed : int or None
        Of the training.
    wanted : int
        Epochs of the whole training; 0 if that is not known.
    curve : tuple of (int, float)
        Epoch and its score, as far as epochs were scored.
    started : float or None
        When the last attempt of a trial that has ended began, seconds since 1970.
    seconds : float or None
        That the last attempt took, so far.
    left_s : float or None
        Seconds that the rest of a running training takes if its epochs are like the last one.
    to_test : bool
        Its score on test events is still to come.
    """

    state: RowState
    seed: int | None = None
    wanted: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    started: float | None = None
    seconds: float | None = None
    left_s: float | None = None
    to_test: bool = False

    @property
    def current(self) -> float | None:
        """The last epoch's validation score."""
        return self.curve[-1][1] if self.curve else None

    @property
    def final_score(self) -> float | None:
        """The score, of a trial that was trained to the end."""
        return self.score if self.state == "complete" else None


@dataclass(frozen=True)
class Table:
    """All trials of a study.

    Attributes
    ----------
    study : StudyDirectory
    description : Description
    rows : tuple of Row
        By number.
    goal : SweepSection or None
        How much there shall be.
    problems : tuple of str
        One line for each file that cannot be read; it names the file.
    """

    study: StudyDirectory
    description: Description
    rows: tuple[Row, ...]
    goal: SweepSection | None = None
    problems: tuple[str, ...] = ()

    def row(self, number: int) -> Row | None:
        """The trial of that number."""
        return next((r for r in self.rows if r.number == number), None)

    def searched(self) -> list[Row]:
        """Trials of the search, without repetitions."""
        return [r for r in self.rows if r.repeat_of is None]

    @property
    def planned_trials(self) -> int | None:
        """Trials that there shall be, repetitions included; None if nobody has said so."""
        goal = self.goal
        return None if goal is None or goal.trials is None else goal.trials + goal.top * goal.repeats

    def dimensions(self) -> list[Dimension]:
        """All keys that the space names or a trial has, in the order of the space.

        A dimension of another form is taken for what the values look like, so that a report never fails for it.
        """
        values: dict[str, list[Any]] = {key: [] for key in self.description.space}
        for row in self.rows:
            for key, value in row.params.items():
                values.setdefault(key, []).append(value)
        return [self._dimension(key, of_key) for key, of_key in values.items()]

    def _dimension(self, key: str, values: list[Any]) -> Dimension:
        try:
            return dimension.read(key, self.description.space.get(key), key)
        except InputError:
            return dimension.observed(key, values)

    def varied(self) -> list[Dimension]:
        """Dimensions of the keys that differ among the trials of the search."""
        rows = self.searched()
        return [d for d in self.dimensions() if len({d.place(r.params.get(d.key)) for r in rows} - {None}) > 1]

    def counts(self, rows: Iterable[Row] | None = None) -> dict[str, int]:
        """Number of trials (all, by default) in each state."""
        states = [r.state for r in (self.rows if rows is None else rows)]
        return {state: states.count(state) for state in ROW_STATES}


class TableReader:
    """Reads a study as often as wanted; trials that have ended are read once.

    Parameters
    ----------
    path : Path
        The study's directory.

    Raises
    ------
    InputError
        There is no study, or its description cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.study = StudyDirectory(path)
        self.description = self.study.description()
        self._ended: dict[int, tuple[tuple[int, ...], Row, list[str]]] = {}
        self._epochs: dict[int, int] = {}

    def read(self) -> Table:
        """The table as it is now."""
        rows, problems = [], self._strays()
        for number in self.study.numbers():
            row, wrong = self._row(number)
            rows.append(row)
            problems += wrong
        numbers = {r.number for r in rows}
        problems += [
            f"{self.study.result_file(r.number)}: repeats trial {r.repeat_of}, which is not there"
            for r in rows
            if r.repeat_of is not None and r.repeat_of not in numbers
        ]
        goal = _readable(self.study.goal, problems)
        return Table(self.study, self.description, tuple(rows), goal, tuple(one_line(p) for p in problems))

    def _strays(self) -> list[str]:
        if not self.study.trials.is_dir():
            return [f"{self.study.trials}: not a directory"] if self.study.trials.exists() else []
        entries = sorted(self.study.trials.iterdir())
        return [f"{p}: not a trial's directory" for p in entries if p.name.isdecimal() and not p.is_dir()]

    def _row(self, number: int) -> tuple[Row, list[str]]:
        try:
            stat = self.study.result_file(number).stat()
        except OSError:
            return self._read(number)
        # What changes when a file is replaced, however coarse the times of a file system are.
        version = stat.st_mtime_ns, stat.st_ino, stat.st_size
        if number in self._ended and self._ended[number][0] == version:
            return self._ended[number][1:]
        row, problems = self._read(number)
        if row.state in ENDED:
            self._ended[number] = (version, row, problems)
        return row, problems

    def _read(self, number: int) -> tuple[Row, list[str]]:
        run, problems = self.study.trial(number), list[str]()
        assignment = _readable(lambda: self.study.assignment(number), problems)
        result = _readable(lambda: self.study.result(number), problems)
        if problems and result is None:  # a result says what the trial was
            trial = _fields(Candidate, assignment) if assignment else {"number": number, "params": {}}
            return Row(**trial, state="broken", reason=problems[-1]), problems
        epochs, starts = _records(run, problems)
        if number not in self._epochs and (count := run_status.wanted_epochs(run)) > 0:
            self._epochs[number] = count  # of its configuration, which never changes
        planned_epochs = self._epochs.get(number, 0)
        if result is not None:
            return _ended(result, planned_epochs, _curve(epochs), assignment is not None and assignment.test), problems
        return self._open(number, assignment, planned_epochs, epochs, starts), problems

    def _open(
        self, number: int, assignment: Assignment | None, planned_epochs: int, epochs: list[Epoch], starts: list[float]
    ) -> Row:
        """A trial without a result."""
        runner, run = self.study.runner(number), self.study.trial(number)
        state, reason = _standing(attempt_state(runner) or attempt_state(run))
        trial = _fields(Candidate, assignment) if assignment else {"number": number, "params": {}}
        curve, now, rest_s = _curve(epochs), time.time(), None
        epoch, score = min(curve, key=lambda point: point[1], default=(None, None))
        if state == "running" and epochs and epochs[-1].epoch < planned_epochs:
            whole = run_status.training_left(epochs[-1], planned_epochs - epochs[-1].epoch)
            rest_s = None if whole is None else max(0.0, whole - max(0.0, now - epochs[-1].time))
        return Row(
            **trial,
            state=state,
            seed=assignment.seed if assignment else None,
            attempts=attempts_made(runner) or attempts_made(run),
            score=score,
            epoch=epoch,
            epochs=epochs[-1].epoch if epochs else 0,
            wanted=planned_epochs,
            curve=curve,
            seconds=max(0.0, now - starts[-1]) if starts and state == "running" else None,
            left_s=rest_s,
            reason=reason,
        )


def read_table(path: Path) -> Table:
    """All trials of a study.

    Raises
    ------
    InputError
        There is no study, or its description cannot be read.
    """
    return TableReader(path).read()


def _readable(reader: Callable[[], _Record | None], problems: list[str]) -> _Record | None:
    """What is read; None, and one more problem, if it cannot be."""
    try:
        return reader()
    except InputError as error:
        problems.append(one_line(str(error)))
        return None


def _fields(kind: type[Candidate], record: Candidate) -> dict[str, Any]:
    """Those fields of a record that records of this kind have."""
    return {field.name: getattr(record, field.name) for field in fields(kind)}


def _records(run: RunDirectory, problems: list[str]) -> tuple[list[Epoch], list[float]]:
    """Epochs in order, and when attempts began; what makes no sense is left out and said."""
    reader = Reader(run.metrics_file, Epoch, Start)
    try:
        reader.read()
    except OSError as error:
        problems.append(f"{run.metrics_file}: cannot be read ({error.strerror}); no learning curve")
    if n := reader.unusable:
        problems.append(f"{run.metrics_file}: {n} record{'s' * (n > 1)} of no sense left out")
    epochs = {record.epoch: record for record in reader.of(Epoch)}
    return [epochs[epoch] for epoch in sorted(epochs)], [record.time for record in reader.of(Start)]


def _curve(epochs: list[Epoch]) -> tuple[tuple[int, float], ...]:
    return tuple((e.epoch, e.deciding) for e in epochs if e.deciding is not None)


def _standing(attempt: str | None) -> tuple[RowState, str | None]:
    """State of a trial without a result after that of its last attempt, and what there is to say about it."""
    if attempt is None:
        return "queued", None
    if attempt == "running":
        return "running", None
    if attempt in ("interrupted", "stopped"):
        return "queued", "interrupted: the sweep's command goes on with it"
    return "lost", "ended without a result: the sweep's command tries it again"


def _ended(result: Result, planned_epochs: int, curve: tuple[tuple[int, float], ...], to_test: bool) -> Row:
    reason, to_test = result.reason, to_test and not result.tested
    if to_test:
        reason = "its score on test events is to come"
    elif result.test_score is None and result.test_failed is not None:
        reason = f"no score on test events: {result.test_failed}"
    outcome = {**_fields(Outcome, result), "reason": None if reason is None else one_line(reason)}
    if result.repeat_of == result.number:  # a file that somebody has edited
        outcome["repeat_of"] = None
    return Row(
        **outcome,
        state=result.state,
        seed=result.seed,
        wanted=max(planned_epochs, result.epochs),
        curve=curve,
        started=result.started,
        seconds=max(0.0, result.ended - result.started),
        to_test=to_test,
    )
