"""What the time of a run went to: how much of an allocation became epochs that count.

The time of a run goes from its first submission, or the start of its first process, to its last record. It is cut where
a record says that something has ended. Each piece belongs to one part, so the parts add up to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Begun, Checkpoint, Command, End, Epoch, Reader, Record, Start

#: The parts of a run's time.
PARTS: Mapping[str, str] = {
    "queue": "waiting in the queue for a job to start",
    "idle": "after a stop, until somebody started or submitted the training again",
    "startup": "from the start of a process to the end of its first step",
    "steps": "steps that count, with their data and their records",
    "scoring": "scoring of epochs",
    "checkpoint": "waiting for checkpoints",
    "paused": "paused by a command",
    "redone": "what no checkpoint had when an attempt failed: a later one did it again",
    "down": "from the last record of an attempt that failed to the start of the next",
}
#: Parts in which no process holds any cores.
WITHOUT_CORES = ("queue", "idle")
#: Phases of a start; the first step is what is not recorded as another.
PHASES = ("imports", "data", "state", "scoring", "first_step")


@dataclass(frozen=True)
class TimeSpent:
    """What the time of a run went to.

    Attributes
    ----------
    seconds : dict of str to float
        By part (`PARTS`).
    startup : dict of str to float
        The part of that name by phase (`PHASES`), s.
    attempts : int
    failures : int
        Attempts that were killed, or failed by their environment.
    core_seconds : float
        Of all ranks, from the starts of their processes to their last records; within a job, also in between.
    """

    seconds: dict[str, float]
    startup: dict[str, float]
    attempts: int
    failures: int
    core_seconds: float

    @property
    def whole(self) -> float:
        """All seconds of the run."""
        return sum(self.seconds.values())

    @property
    def held(self) -> float:
        """Seconds in which processes held cores, or a job waited for its next ones."""
        return sum(value for part, value in self.seconds.items() if part not in WITHOUT_CORES)

    @property
    def goodput(self) -> float | None:
        """Fraction of the held time that went into steps that count; None if there is no time."""
        return self.seconds["steps"] / self.held if self.held > 0 else None

    def plain(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "goodput": self.goodput,
            "whole_s": self.whole,
            "held_s": self.held,
            "core_hours": self.core_seconds / 3600,
            "attempts": self.attempts,
            "failures": self.failures,
            "seconds": dict(self.seconds),
            "startup": dict(self.startup),
        }


def time_spent(run: RunDirectory, until: float | None = None) -> TimeSpent | None:
    """What the time of a run went to so far; None if it has recorded nothing.

    Parameters
    ----------
    run : RunDirectory
    until : float, optional
        A moment at which its newest attempt is known to live, in seconds since 1970. By default, its last record.
    """
    attempts = _attempts(run)
    if not attempts:
        return None
    jobs = [(entry.get("job"), entry.get("time")) for entry in records.read_lines(run.jobs_file) if "script" in entry]
    submitted = {str(job): float(when) for job, when in jobs if job and isinstance(when, (int, float))}
    return _account(attempts, submitted, until)


@dataclass(frozen=True)
class _Attempt:
    """What one attempt has recorded, in order; `job` is its Slurm job with how often that was queued again."""

    records: list[Record]
    born: float
    cores: int
    job: tuple[str, int] | None
    phases: dict[str, float]

    @property
    def start(self) -> int:
        """Steps that were done before it."""
        return self.records[0].step

    @property
    def end(self) -> End | None:
        """How it ended, if it said so."""
        return next((record for record in reversed(self.records) if isinstance(record, End)), None)

    @property
    def failed(self) -> bool:
        """Whether it was killed, or failed for whatever reason."""
        return self.end is None or self.end.outcome == "failed"

    @property
    def was_hit(self) -> bool:
        """Whether it was killed, or failed by its environment: another try may do better."""
        return self.end is None or self.end.cause == "environment"


def _attempts(run: RunDirectory) -> list[_Attempt]:
    by_number: dict[int, list[Record]] = {}
    for record in Reader(run.metrics_file, replaced=True).read().of(Record):
        by_number.setdefault(record.attempt, []).append(record)
    origins = {entry.get("attempt"): entry for entry in records.read_lines(run.provenance_file)}
    return [_attempt(by_number[number], origins.get(number, {})) for number in sorted(by_number)]


def _attempt(entries: list[Record], origin: Mapping[str, Any]) -> _Attempt:
    first = entries[0]
    ranks = first.ranks if isinstance(first, Start) else 1
    job = origin.get("slurm_job")
    phases = next((record.phases for record in entries if isinstance(record, Begun)), origin.get("phases", {}))
    return _Attempt(
        entries,
        born=min(first.time, float(origin.get("born", first.time))),
        cores=int(origin.get("cores", ranks)),
        job=None if job is None else (str(job), int(origin.get("slurm_restarts") or 0)),
        phases={name: seconds for name, seconds in phases.items() if name in PHASES},
    )


@dataclass
class _Ledger:
    """Time so far, by part: a moment that lies before the last one takes no time, as clocks of hosts differ."""

    now: float
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def until(self, moment: float, part: str, last: str = "", length: float = 0.0) -> None:
        """Up to a moment all was `part`, but for the last seconds: so long, these were `last`."""
        for end, name in ((moment - length, part), (moment, last or part)):
            passed = max(0.0, end - self.now)
            self.now += passed
            self.seconds[name] += passed

    def move(self, seconds: float, part: str, other: str) -> None:
        """So many seconds that counted as one part were another."""
        moved = min(seconds, self.seconds[part])
        self.seconds[part] -= moved
        self.seconds[other] += moved


def _account(attempts: Sequence[_Attempt], submitted: Mapping[str, float], until: float | None) -> TimeSpent:
    ledger = _Ledger(attempts[0].born)
    startup = dict.fromkeys(PHASES, 0.0)
    core_seconds = 0.0
    # Each attempt counts as far as the earliest step from which a later one went on.
    starts = [attempt.start for attempt in attempts[1:]]
    limits: list[float] = [*reversed(list(accumulate(reversed(starts), min))), float("inf")]
    before: _Attempt | None = None
    paused_at: list[tuple[int, bool]] = []  # steps of commands, and whether the training paused from there on
    for attempt, limit in zip(attempts, limits, strict=True):
        if before is None and attempt.job is not None:
            ledger.now = min(ledger.now, submitted.get(attempt.job[0], ledger.now))
        core_seconds += _wait(ledger, before, attempt, submitted)
        born = ledger.now
        started = ledger.seconds["startup"]
        paused = next((paused for step, paused in reversed(paused_at) if step <= attempt.start), False)
        alive = until if attempt is attempts[-1] and attempt.end is None else None
        _walk(ledger, attempt, paused, limit, alive)
        _add_phases(startup, attempt.phases, ledger.seconds["startup"] - started)
        core_seconds += (ledger.now - born) * attempt.cores
        paused_at += [(record.step, record.paused) for record in attempt.records if isinstance(record, Command)]
        before = attempt
    hit = [attempt.was_hit for attempt in attempts]
    if until is not None and attempts[-1].end is None:
        hit[-1] = False
    return TimeSpent(ledger.seconds, startup, len(attempts), sum(hit), core_seconds)


def _wait(ledger: _Ledger, before: _Attempt | None, attempt: _Attempt, submitted: Mapping[str, float]) -> float:
    """The time from one attempt to the start of the next; the core-seconds that a job held meanwhile."""
    between = "idle" if before is None or not before.failed else "down"
    began, cores = ledger.now, 0
    if before is not None and attempt.job is not None and attempt.job == before.job:
        between, cores = "down", before.cores
    elif before is not None and attempt.job is not None and before.job is not None and attempt.job[0] == before.job[0]:
        between = "queue"  # the same job, queued again
    elif attempt.job is not None and attempt.job[0] in submitted:
        ledger.until(min(submitted[attempt.job[0]], attempt.born), between)
        between = "queue"
    ledger.until(attempt.born, between)
    return (ledger.now - began) * cores


def _walk(ledger: _Ledger, attempt: _Attempt, paused: bool, limit: float, alive: float | None) -> None:
    """From the start of an attempt's process to its last record, or to a moment at which it lives.

    Parameters
    ----------
    ledger : _Ledger
    attempt : _Attempt
    paused : bool
        Whether it begins in a pause.
    limit : float
        Its steps that count.
    alive : float or None
    """
    has_begun = is_lost = False
    current = "startup"
    for record in attempt.records:
        is_lost = is_lost or (record.step > limit and not isinstance(record, (Start, Begun)))
        current = "redone" if is_lost else "paused" if paused else "steps" if has_begun else "startup"
        if isinstance(record, Start):
            ledger.until(record.time, "startup")
        elif isinstance(record, Epoch) and not is_lost:
            ledger.until(record.time, current, "scoring", record.scoring_seconds)
        elif isinstance(record, Checkpoint) and not is_lost:
            # Not the last seconds before the record: a checkpoint is written beside steps, after a short wait.
            ledger.until(record.time, current)
            ledger.move(record.seconds, current, "checkpoint")
        else:
            ledger.until(record.time, current)
        if isinstance(record, Begun):
            has_begun = True
        elif isinstance(record, Command):
            paused = record.paused
    if alive is not None:
        ledger.until(alive, "paused" if paused else "steps" if has_begun else "startup")


def _add_phases(startup: dict[str, float], phases: Mapping[str, float], whole: float) -> None:
    """Add the phases of one start, which are at most as long as the whole; the first step has what is left."""
    for name in PHASES:
        seconds = min(phases.get(name, 0.0), whole) if name != "first_step" else whole
        startup[name] += seconds
        whole -= seconds
