"""The directory of a study: what is where, and what a trial leaves behind.

    study.json      what is searched (`Description`), written once
    config.yaml     the configuration that trials change, as resolved when the study began
    space.yaml      the search space as it was given
    attempts/       which coordinator has the study (`hpcgan.runs.lease.Lease`)
    goal.json       how much the coordinator is to do (`SweepSection`), for those who watch
    jobs.jsonl      Slurm arrays that were submitted for it
    stop            wish that all trials stop, the coordinator's or anybody's; the next coordinator takes it away
    sweep.log       what the coordinator printed, where it was started from Python
    trials/0007/    an ordinary run directory, and in it
        trial.json    what the trial is (`Assignment`), written by the coordinator before it hands the trial out
        output.log    what the trial's processes printed
        runner/       who runs it, and how often it was started (`hpcgan.runs.lease.Lease`)
        verdict.json  that it shall end early, decided once, by the coordinator or by a person
        result.json   what came of it (`Result`), when it has ended

The trials' files are the only truth, each written as a whole: coordinators, samplers and reports go by them.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.files import write_atomic, write_once

VERSION = 1
State = Literal["complete", "pruned", "failed"]
STATES: tuple[State, ...] = get_args(State)
Whole = Annotated[int, Field(ge=0, lt=2**63)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Record = TypeVar("_Record")


@dataclass(frozen=True, config=_STRICT)
class Description:
    """What a study is. The same command continues it; another description in its directory is refused.

    Attributes
    ----------
    name : str
    seed : int
        From which, with a trial's number, random parameters derive.
    space : dict
        The search space as resolved: dotted key of the configuration to its dimension.
    sampler, pruner : str
        `random`, `grid` or a sampler of Optuna's; `none`, `median` or `halving`.
    identity : str
        Hash of the identity of the configuration that trials change.
    ranks, threads : int
        Of a trial, and of each of its ranks: with others the same trial has another score.
    version : int
        Of this format.
    """

    name: str
    seed: Whole
    space: dict[str, Any]
    sampler: str
    pruner: str
    identity: str
    version: Whole = VERSION
    ranks: Whole = 1
    threads: Whole = 1


@dataclass(frozen=True, config=_STRICT)
class Assignment:
    """What a trial is.

    Attributes
    ----------
    number : int
    params : dict
        Dotted key of the configuration to value.
    seed : int
        Of the training.
    index : int or None
        Place in the search, from 0, from which random parameters derive; None for a repetition.
    repeat_of : int or None
        For a repetition with a fresh seed: the trial that it repeats.
    test : bool
        Whether it shall be scored on test events, too, once it is trained.
    lost : int
        How often it was lost in what it has to do now.
    marks : dict
        What Optuna's sampler noted when it chose the parameters, for those that it chooses later.
    """

    number: Whole
    params: dict[str, Any]
    seed: Whole
    index: Whole | None
    repeat_of: Whole | None = None
    test: bool = False
    lost: Whole = 0
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def result(self, attempt: int, state: State, reason: str | None, **fields: Any) -> Result:
        """What came of it, as of now; without `fields`, nothing."""
        now = time.time()
        nothing = {"score": None, "epoch": None, "epochs": 0, "started": now, "ended": now}
        trial = {"number": self.number, "params": self.params, "seed": self.seed, "repeat_of": self.repeat_of}
        return Result(**{**nothing, **trial, "attempt": attempt, "state": state, "reason": reason, **fields})


@dataclass(frozen=True, config=_STRICT)
class Result:
    """What came of a trial.

    Attributes
    ----------
    number : int
    params : dict
        Dotted key of the configuration to value; what the space made conditional may be absent.
    seed : int
        Of the training.
    repeat_of : int or None
        For a repetition with a fresh seed: the trial that it repeats.
    attempt : int
        How often it was started, this time included.
    state : "complete", "pruned" or "failed"
    score : float or None
        The best epoch's validation score (lower is better); None if no epoch was scored.
    epoch : int or None
        That epoch, from 1.
    epochs : int
        Epochs that were trained.
    reason : str or None
        Why it was pruned, or failed.
    started, ended : float
        Seconds since 1970, of the last attempt.
    test_score, test_spread : float or None
        Score on events not used for selection, mean and standard deviation over generated samples; where made.
    """

    number: Whole
    params: dict[str, Any]
    seed: Whole
    repeat_of: Whole | None
    attempt: Whole
    state: State
    score: float | None
    epoch: Whole | None
    epochs: Whole
    reason: str | None
    started: float
    ended: float
    test_score: float | None = None
    test_spread: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def tested(self) -> bool:
        """Whether nothing more is to come of scoring it on test events."""
        return self.test_score is not None or "test_failed" in self.extra


class StudyDirectory:
    """Paths of one study.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.description_file = self.path / "study.json"
        self.config_file = self.path / "config.yaml"
        self.space_file = self.path / "space.yaml"
        self.trials = self.path / "trials"
        self.goal_file = self.path / "goal.json"
        self.jobs_file = self.path / "jobs.jsonl"
        self.stop_file = self.path / "stop"
        self.coordinator_log = self.path / "sweep.log"
        self.report = self.path / "report"

    @property
    def exists(self) -> bool:
        """True if there is a study here."""
        return self.description_file.is_file()

    def trial(self, number: int) -> RunDirectory:
        """The run directory of a trial, which need not exist yet."""
        return RunDirectory(self.trials / f"{number:04d}")

    def result_file(self, number: int) -> Path:
        """Where a trial leaves its result."""
        return self.trial(number).path / "result.json"

    def assignment_file(self, number: int) -> Path:
        """Where it says what a trial is."""
        return self.trial(number).path / "trial.json"

    def log_file(self, number: int) -> Path:
        """What a trial's processes print."""
        return self.trial(number).path / "output.log"

    def runner(self, number: int) -> RunDirectory:
        """Whose `attempts` are the starts of a trial, whoever started it."""
        return RunDirectory(self.trial(number).path / "runner")

    def numbers(self) -> list[int]:
        """Trials that have a directory, ascending."""
        if not self.trials.is_dir():
            return []
        return sorted({int(p.name) for p in self.trials.iterdir() if re.fullmatch(r"\d{4,}", p.name) and p.is_dir()})

    def description(self) -> Description:
        """What is searched.

        Raises
        ------
        InputError
            There is no study here, or its description cannot be read.
        """
        if not self.exists:
            raise InputError(f"{self.path}: not a study (no study.json in it)")
        description = _read(Description, self.description_file, "is no description of a study")
        assert description is not None  # it was there a moment ago
        return description

    def write_description(self, description: Description) -> None:
        """Write what is searched."""
        write_atomic(self.description_file, json.dumps(asdict(description), indent=2) + "\n")

    def goal(self) -> SweepSection | None:
        """How much is to be done; None if nobody has said so.

        Raises
        ------
        InputError
            Its file cannot be read.
        """
        return _read(SweepSection, self.goal_file, "does not say how much is to be done")

    def write_goal(self, goal: SweepSection) -> None:
        """Write how much is to be done."""
        write_atomic(self.goal_file, goal.model_dump_json(indent=2) + "\n")

    def assignment(self, number: int) -> Assignment | None:
        """What a trial is; None if nobody has said so yet.

        Raises
        ------
        InputError
            Its file cannot be read; the message says which.
        """
        file, remedy = self.assignment_file(number), f"; delete the directory of trial {number} to run it anew"
        assignment = _read(Assignment, file, "does not say what the trial is", remedy)
        if assignment is not None and assignment.number != number:
            raise InputError(f"{file}: says what trial {assignment.number} is{remedy}")
        return assignment

    def write_assignment(self, assignment: Assignment) -> None:
        """Write what a trial is."""
        text = json.dumps(asdict(assignment), indent=2, allow_nan=False) + "\n"
        write_atomic(self.assignment_file(assignment.number), text)

    def write_verdict(self, number: int, reason: str, epoch: int) -> bool:
        """Decide that a trial shall end before its next epoch; False if that was decided before, which stays as it is.

        Parameters
        ----------
        number : int
        reason : str
            One line, for the trial's result.
        epoch : int
            Epochs it has done as far as is known.
        """
        return write_once(self.trial(number).verdict_file, json.dumps({"reason": reason, "epoch": epoch}) + "\n")

    def result(self, number: int) -> Result | None:
        """What came of a trial; None if it has not ended.

        Raises
        ------
        InputError
            Its file cannot be read; the message says which.
        """
        file, remedy = self.result_file(number), f"; delete it to run trial {number} again"
        result = _read(Result, file, "is no result of a trial", remedy)
        if result is not None and result.number != number:
            raise InputError(f"{file}: is the result of trial {result.number}{remedy}")
        return result

    def write_result(self, result: Result) -> None:
        """Write what came of a trial, as a whole."""
        text = json.dumps(asdict(result), indent=2, allow_nan=False) + "\n"
        write_atomic(self.result_file(result.number), text)


def _read(record: type[_Record], file: Path, otherwise: str, remedy: str = "") -> _Record | None:
    """The record in a file; None if there is no file.

    Raises
    ------
    InputError
        One line with what is wrong first: with the file, or with the content, which is `otherwise` than it should be.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        check_json(content)
    except FileNotFoundError:
        return None
    except RecursionError:
        raise InputError(f"{file}: cannot be read (nested too deeply){remedy}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}){remedy}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: {otherwise} (no section of keys){remedy}")
    if record is Description and content.get("version") != VERSION:
        raise InputError(f"{file}: version {content.get('version')} of the format; this is version {VERSION}")
    try:
        return record(**content)
    except ValidationError as error:
        first = error.errors()[0]
    reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['type']}"
    raise InputError(f"{file}: {otherwise} ({reason}){remedy}")


def check_json(value: Any) -> None:
    """Refuse what readers let pass but no file may hold: NaN, 1e999, halves of characters, circles.

    Raises
    ------
    ValueError, TypeError
    """
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False, default=str).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
