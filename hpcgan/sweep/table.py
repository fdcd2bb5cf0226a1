"""All trials of a study as a table, from the files of its directory and nothing else.

Reading never changes a study, so that it can be done at any time, by anybody, on any machine that sees the directory.
What cannot be read is said and counts as broken; the rest counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.launch import run_status
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state, attempts_made
from hpcgan.runs.records import Epoch, Reader, Start
from hpcgan.sweep import dimension
from hpcgan.sweep.dimension import Dimension
from hpcgan.sweep.labels import one_line
from hpcgan.sweep.store import Assignment, Description, Result, StudyDirectory

RowState = Literal["complete", "pruned", "failed", "running", "queued", "lost", "broken"]
ROW_STATES: tuple[RowState, ...] = ("complete", "pruned", "failed", "running", "queued", "lost", "broken")
ENDED: tuple[RowState, ...] = ("complete", "pruned", "failed")


@dataclass(frozen=True)
class Row:
    """A trial.

    Attributes
    ----------
    number : int
    params : dict
        Dotted key of the configuration to value.
    state : str
        How it ended (complete, pruned, failed), or stands: running; queued (not started, or interrupted in order);
        lost (started, no sign of life, no result: the sweep's command tries it again); broken (files that cannot be
        read).
    seed : int or None
    repeat_of : int or None
        For a repetition with a fresh seed: the trial that it repeats.
    score : float or None
        The best epoch's validation score; so far, if the trial has not ended.
    epoch : int or None
        That epoch, from 1.
    current : float or None
        The last epoch's validation score.
    epochs, wanted : int
        Epochs trained, and of the whole training; `wanted` is 0 if that is not known.
    curve : tuple of (int, float)
        Epoch and its score, as far as epochs were scored.
    attempts : int
        How often it was started.
    started : float or None
        When the last attempt of a trial that has ended began, seconds since 1970.
    seconds : float or None
        That the last attempt took, so far.
    left_s : float or None
        Seconds that the rest of a running training takes if its epochs are like the last one.
    reason : str or None
        Why it was pruned, failed or is broken, or what is to come; one line.
    test_score, test_spread : float or None
        Score on events not used for selection, mean and standard deviation over generated samples; where made.
    to_test : bool
        That score is still to come.
    """

    number: int
    state: RowState
    params: Mapping[str, Any]
    seed: int | None = None
    repeat_of: int | None = None
    score: float | None = None
    epoch: int | None = None
    current: float | None = None
    epochs: int = 0
    wanted: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    attempts: int = 0
    started: float | None = None
    seconds: float | None = None
    left_s: float | None = None
    reason: str | None = None
    test_score: float | None = None
    test_spread: float | None = None
    to_test: bool = False


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
        goal = None
        try:
            goal = self.study.goal()
        except InputError as error:
            problems.append(one_line(str(error)))
        return Table(self.study, self.description, tuple(rows), goal, tuple(one_line(p) for p in problems))

    def _strays(self) -> list[str]:
        if not self.study.trials.is_dir():
            return [f"{self.study.trials}: not a directory"] if self.study.trials.exists() else []
        entries = sorted(self.study.trials.iterdir())
        return [f"{p}: not a trial's directory" for p in entries if p.name.isdecimal() and not p.is_dir()]

    def _row(self, number: int) -> tuple[Row, list[str]]:
        try:
            version = _version(self.study.result_file(number).stat())
        except OSError:
            version = None
        if version is not None and number in self._ended and self._ended[number][0] == version:
            return self._ended[number][1:]
        row, problems = self._read(number)
        if version is not None and row.state in ENDED:
            self._ended[number] = (version, row, problems)
        return row, problems

    def _read(self, number: int) -> tuple[Row, list[str]]:
        run, problems = self.study.trial(number), list[str]()
        assignment = result = None
        broken: str | None = None
        try:
            assignment = self.study.assignment(number)
        except InputError as error:
            broken = one_line(str(error))
            problems.append(broken)
        try:
            result = self.study.result(number)
            broken = None if result is not None else broken  # which says what the trial was
        except InputError as error:
            broken = one_line(str(error))
            problems.append(broken)
        if broken is not None:
            params = assignment.params if assignment else {}
            repeat_of = assignment.repeat_of if assignment else None
            return Row(number, "broken", params, repeat_of=repeat_of, reason=broken), problems
        epochs, starts = _records(run, problems)
        planned_epochs = self._wanted(number, run)
        if result is not None:
            to_test = assignment is not None and assignment.test
            return _ended(result, planned_epochs, _curve(epochs), to_test), problems
        return _open(number, self.study, assignment, planned_epochs, epochs, starts), problems

    def _wanted(self, number: int, run: RunDirectory) -> int:
        """Epochs of a trial's configuration, which never changes; 0 if there is none (yet)."""
        if number not in self._epochs:
            epochs = run_status.wanted_epochs(run)
            if epochs < 1:
                return 0
            self._epochs[number] = epochs
        return self._epochs[number]


def read_table(path: Path) -> Table:
    """All trials of a study.

    Raises
    ------
    InputError
        There is no study, or its description cannot be read.
    """
    return TableReader(path).read()


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
    return tuple((e.epoch, e.total) for e in epochs if e.total is not None)


def _open(
    number: int,
    study: StudyDirectory,
    assignment: Assignment | None,
    planned_epochs: int,
    epochs: list[Epoch],
    starts: list[float],
) -> Row:
    """A trial without a result."""
    state, reason = _standing(study, number)
    curve, now, rest_s = _curve(epochs), time.time(), None
    best = min(curve, key=lambda point: point[1]) if curve else None
    if state == "running" and epochs and epochs[-1].epoch < planned_epochs:
        whole = run_status.training_left(epochs[-1], planned_epochs - epochs[-1].epoch)
        rest_s = None if whole is None else max(0.0, whole - max(0.0, now - epochs[-1].time))
    return Row(
        number,
        state,
        assignment.params if assignment else {},
        seed=assignment.seed if assignment else None,
        repeat_of=assignment.repeat_of if assignment else None,
        score=best[1] if best else None,
        epoch=best[0] if best else None,
        current=curve[-1][1] if curve else None,
        epochs=epochs[-1].epoch if epochs else 0,
        wanted=planned_epochs,
        curve=curve,
        attempts=attempts_made(study.runner(number)) or attempts_made(study.trial(number)),
        seconds=max(0.0, now - starts[-1]) if starts and state == "running" else None,
        left_s=rest_s,
        reason=reason,
    )


def _standing(study: StudyDirectory, number: int) -> tuple[RowState, str | None]:
    """State of a trial without a result, and what there is to say about it."""
    state = attempt_state(study.runner(number)) or attempt_state(study.trial(number))
    if state is None:
        return "queued", None
    if state == "running":
        return "running", None
    if state in ("interrupted", "stopped"):
        return "queued", "interrupted: the sweep's command goes on with it"
    return "lost", "ended without a result: the sweep's command tries it again"


def _version(stat: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is replaced, however coarse the times of a file system are."""
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _ended(result: Result, planned_epochs: int, curve: tuple[tuple[int, float], ...], to_test: bool) -> Row:
    reason = result.reason
    if result.test_score is None and (failed := result.extra.get("test_failed")) is not None:
        reason = f"no score on test events: {failed}"
        to_test = False
    to_test = to_test and result.test_score is None
    if to_test:
        reason = "its score on test events is to come"
    return Row(
        result.number,
        result.state,
        dict(result.params),
        seed=result.seed,
        repeat_of=result.repeat_of if result.repeat_of != result.number else None,
        score=result.score,
        epoch=result.epoch,
        current=curve[-1][1] if curve else None,
        epochs=result.epochs,
        wanted=max(planned_epochs, result.epochs),
        curve=curve,
        attempts=result.attempt,
        started=result.started,
        seconds=max(0.0, result.ended - result.started),
        reason=None if reason is None else one_line(reason),
        test_score=result.test_score,
        test_spread=result.test_spread,
        to_test=to_test,
    )
