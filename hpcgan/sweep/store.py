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
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from pydantic import dataclasses as validated

from hpcgan import rng
from hpcgan.config import SweepSection
from hpcgan.errors import InputError
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.files import write_atomic, write_once

VERSION = 2
State = Literal["complete", "pruned", "failed"]
Whole = Annotated[int, Field(ge=0, lt=2**63)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Record = TypeVar("_Record")


@validated.dataclass(frozen=True, kw_only=True, config=_STRICT)
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
    """

    name: str
    seed: Whole
    space: dict[str, Any]
    sampler: str
    pruner: str
    identity: str
    ranks: Whole = 1
    threads: Whole = 1

    def trial_seed(self, index: int) -> int:
        """Seed of the training of a trial of the search."""
        return int(rng.uniform(self.seed, "sweep/seed", 0, index, 1, 1)[0, 0] * 2**31)

    def repeat_seed(self, number: int, repetition: int) -> int:
        """Seed of the training of a repetition, from 0, of a trial."""
        return int(rng.uniform(self.seed, "sweep/repeat", number, repetition, 1, 1)[0, 0] * 2**31)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The hyper-parameters of a trial.

    Attributes
    ----------
    number : int
        Of the trial.
    params : mapping
        Dotted key of the configuration to value; what the space made conditional may be absent.
    repeat_of : int or None
        For a repetition with a fresh seed: the trial that it repeats.
    """

    number: Whole
    params: Mapping[str, Any]
    repeat_of: Whole | None = None


@validated.dataclass(frozen=True, kw_only=True, config=_STRICT)
class Assignment(Candidate):
    """What a trial is.

    Attributes
    ----------
    seed : int
        Of the training.
    index : int or None
        Place in the search, from 0, from which random parameters derive; None for a repetition.
    test : bool
        Whether it shall be scored on test events, too, once it is trained.
    lost : int
        How often it was lost in what it has to do now.
    marks : dict
        What Optuna's sampler noted when it chose the parameters, for those that it chooses later.
    """

    seed: Whole
    index: Whole | None
    test: bool = False
    lost: Whole = 0
    marks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def has_ended(self, result: Result | None) -> bool:
        """Whether nothing is left to do of it, given what came of it so far."""
        return result is not None and (result.tested or not self.test)

    def result(self, state: State, reason: str | None, **fields: Any) -> Result:
        """What came of it, as of now; without `fields`, nothing."""
        now = time.time()
        trial = {"number": self.number, "params": self.params, "seed": self.seed, "repeat_of": self.repeat_of}
        return Result(**{"started": now, "ended": now, **trial, "state": state, "reason": reason, **fields})


@dataclass(frozen=True, kw_only=True)
class Outcome(Candidate):
    """What has come of a trial.

    Attributes
    ----------
    attempts : int
        How often it was started.
    score : float or None
        The best epoch's validation score (lower is better), so far if the trial has not ended; None without any.
    epoch : int or None
        That epoch, from 1.
    epochs : int
        Epochs that were trained.
    reason : str or None
        Why it was pruned, failed or is broken, or what is to come; one line.
    test_score, test_spread : float or None
        Score on events not used for selection, mean and standard deviation over generated samples; where there is one.
    """

    attempts: Whole = 0
    score: float | None = None
    epoch: Whole | None = None
    epochs: Whole = 0
    reason: str | None = None
    test_score: float | None = None
    test_spread: float | None = None


@validated.dataclass(frozen=True, kw_only=True, config=_STRICT)
class Result(Outcome):
    """What came of a trial that has ended.

    Attributes
    ----------
    seed : int
        Of the training.
    state : "complete", "pruned" or "failed"
    started, ended : float
        Seconds since 1970, of the last attempt.
    test_failed : str or None
        Why it could not be scored on test events.
    """

    seed: Whole
    state: State
    started: float
    ended: float
    test_failed: str | None = None

    @property
    def tested(self) -> bool:
        """Whether nothing more is to come of scoring it on test events."""
        return self.test_score is not None or self.test_failed is not None


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
        _write(self.description_file, {"version": VERSION, **asdict(description)})

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
        _write(self.goal_file, goal.model_dump(mode="json"))

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
        _write(self.assignment_file(assignment.number), asdict(assignment))

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
        _write(self.result_file(result.number), asdict(result))


def _write(file: Path, content: dict[str, Any]) -> None:
    write_atomic(file, json.dumps(content, indent=2, allow_nan=False) + "\n")


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
    if record is Description and (version := content.pop("version", None)) != VERSION:
        raise InputError(f"{file}: version {version} of the format; this is version {VERSION}")
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
