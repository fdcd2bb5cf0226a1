"""A campaign: a training or a search is hit by one fault after another, and goes on whenever it has ended early."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcgan.chaos import processes
from hpcgan.chaos.faults import Scene
from hpcgan.chaos.plan import Planned
from hpcgan.chaos.subject import Subject
from hpcgan.chaos.venue import Venue
from hpcgan.errors import EXIT_DONE, HpcganError
from hpcgan.runs import records

#: Seconds between two looks.
LOOK_S = 0.1
#: Seconds between two looks at what processes have outside of the run directory.
SCAN_S = 1.0
#: Seconds in which all processes of an attempt must have ended after the command that started them.
GONE_S = 60.0
#: Attempts in a row that end though nothing was done to them, after which a campaign gives up.
UNPROVOKED = 3


class Hung(HpcganError):
    """A training records nothing any more, and does not end."""


@dataclass
class Findings:
    """What is not as it should be.

    Attributes
    ----------
    unprovoked : list of str
        Attempts that ended, or were not started, though nothing was done to them.
    left : list of str
        Processes that outlived their attempt, and files outside of the run directory that nobody removed.
    gave_up : str or None
        Why the campaign ended early.
    """

    unprovoked: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    gave_up: str | None = None


class Later:
    """What is to be done at a later time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def add(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something in so many seconds."""
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._count), action))

    def run(self, *, everything: bool = False) -> None:
        """Do what is due, or everything."""
        while self._waiting and (everything or self._waiting[0][0] <= time.monotonic()):
            heapq.heappop(self._waiting)[2]()


@dataclass
class Limits:
    """How long things may take.

    Attributes
    ----------
    longest_stop : float
        Seconds for which a process is stopped at most.
    patience : float
        Seconds without a record after which a training counts as hung.
    """

    longest_stop: float
    patience: float


class Campaign:
    """Faults, one after another.

    Parameters
    ----------
    venue : Venue
    plan : iterator of Planned
        The faults.
    folder : Path
        Where runs, log and `campaign.jsonl` go.
    limits : Limits
    report : callable
        Takes a line for who watches.

    Attributes
    ----------
    subjects : list of Subject
        What was brought to the end: one after another, as long as faults are left.
    findings : Findings
    """

    def __init__(
        self, venue: Venue, plan: Iterator[Planned], folder: Path, limits: Limits, report: Callable[[str], None]
    ) -> None:
        self._venue, self._plan, self._folder, self._limits, self._report = venue, plan, folder, limits, report
        self._mark = secrets.token_hex(8)
        self._env = {processes.MARK: self._mark}
        self._later = Later()
        self._next: Planned | None = next(plan, None)
        self._worked = 0.0  # since the last fault
        self._outside: set[Path] = set()
        self.subjects: list[Subject] = []
        self.findings = Findings()

    @property
    def log_file(self) -> Path:
        """What was done and seen, a line each."""
        return self._folder / "campaign.jsonl"

    def go_undisturbed(self, path: Path) -> None:
        """Bring one to the end, with nothing done to it.

        Raises
        ------
        HpcganError
            It fails.
        """
        pending, self._next = self._next, None
        try:
            with self._cleaning_up():
                self._see_through(self._venue.subject(path))
        finally:
            self._next = pending

    def run(self) -> None:
        """Go on until no fault is left and what was begun is done, or the campaign gives up."""
        with self._cleaning_up():
            for number in itertools.count(1):
                self.subjects.append(self._venue.subject(self._folder / f"run-{number:02d}"))
                due = self._next if self._is_due() else None
                try:
                    self._see_through(self.subjects[-1])
                except HpcganError as error:
                    self.findings.gave_up = str(error)
                    self._note("gave up", why=str(error))
                    return
                if due is not None and due is self._next:  # all the way there was nothing to hit
                    self._note("skipped", number=due.number, fault=due.fault.name)
                    self._report(f"fault {due.number}: {due.fault.name} has found nothing to hit: skipped")
                    self._advance()
                if self._next is None:
                    return

    def _is_due(self) -> bool:
        return self._next is not None and self._worked >= self._next.after_s

    def _advance(self) -> None:
        self._next = next(self._plan, None)
        self._worked = 0.0

    def _see_through(self, subject: Subject) -> None:
        in_a_row = 0
        for attempt in itertools.count(1):
            hits: list[int] = []
            with open(self._folder / f"{subject.name}.log", "ab") as log:
                self._note("start", run=subject.name, attempt=attempt, **subject.seen())
                started = time.monotonic()
                job = self._venue.start(subject.path, self._env, log)
                code = self._attend(job, subject, hits)
            self._check_all_gone(f"{subject.name}, attempt {attempt}")
            seconds = round(time.monotonic() - started, 3)
            ends = {"attempt": attempt, "code": code, "after_s": seconds, "faults": hits}
            self._note("end", run=subject.name, **ends, **subject.seen())
            if code == EXIT_DONE:
                self._check_files_gone(subject.name)
                return
            in_a_row = 0 if hits else in_a_row + 1
            if not hits:
                text = f"{subject.name}, attempt {attempt} ended with exit code {code} though nothing was done to it"
                self.findings.unprovoked.append(text)
                self._report(f"{text}; see {subject.name}.log")
            if in_a_row == UNPROVOKED:
                raise HpcganError(f"{UNPROVOKED} attempts in a row ended though nothing was done to them")

    def _attend(self, job: subprocess.Popen[bytes], subject: Subject, hits: list[int]) -> int:
        """Until an attempt has ended; its exit code. Adds the numbers of the faults that hit it."""
        last = heard = time.monotonic()
        size, scan_at = -1, last
        while (code := job.poll()) is None:
            time.sleep(LOOK_S)
            now = time.monotonic()
            self._worked += now - last
            last = now
            self._later.run()
            if now >= scan_at:
                self._outside |= processes.outside_files(processes.marked(self._mark))
                scan_at = now + SCAN_S
            if self._next is not None and self._is_due() and self._strike(self._next, subject, job):
                hits.append(self._next.number)
                self._advance()
                last = time.monotonic()
            if (grown := subject.recorded()) != size:
                size, heard = grown, time.monotonic()
            elif time.monotonic() - heard > self._limits.patience:
                self._end_all()
                job.wait()
                raise Hung(f"{subject.name} recorded nothing for {self._limits.patience:.0f} s and did not end")
        return code

    def _strike(self, planned: Planned, subject: Subject, job: subprocess.Popen[bytes]) -> bool:
        """Hit, if there is something to hit; whether there was."""
        fault = planned.fault
        scene = Scene(subject, lambda: processes.marked(self._mark), self._later.add, self._limits.longest_stop)
        if not fault.ready(scene):
            return False
        before = subject.seen()
        if fault.between:
            self._end_all()
            if job.wait() == EXIT_DONE:
                return False  # it was done before it could be killed: what is finished is not damaged
            self._settle(subject)
        target = fault.strike(scene, planned.chance)
        if target is None and not fault.between:
            return False  # it has just ended
        self._note("fault", number=planned.number, fault=fault.name, run=subject.name, target=target, **before)
        what = " ".join(f"{key}={value}" for key, value in (target or {}).items())
        place = " ".join(f"{key} {value}" for key, value in before.items())
        self._report(f"fault {planned.number}: {fault.name} {what} at {place} of {subject.name}")
        return True

    def _settle(self, subject: Subject) -> None:
        """What was killed is not started again by anybody else; daemons that were away must be back to say so."""
        self._later.run(everything=True)
        self._venue.settle(subject.path)

    def _check_all_gone(self, when: str) -> None:
        """All processes of an attempt end with it. Those that do not are remembered, and ended."""
        end = time.monotonic() + GONE_S
        while remaining := processes.marked(self._mark):
            self._later.run()  # what is stopped may be about to go on
            if time.monotonic() > end:
                for process in remaining:
                    self.findings.left.append(f"{when}: process {process.pid} ({' '.join(process.argv)[:200]})")
                self._end_all()
                break
            time.sleep(LOOK_S)

    def _check_files_gone(self, name: str) -> None:
        """What killed processes left on this machine went with the attempts after them."""
        self.findings.left += [f"{name}: {path}" for path in sorted(self._outside) if path.exists()]
        self._outside.clear()

    def _end_all(self) -> None:
        """Kill every process of this campaign, as a machine that stops would."""
        while remaining := processes.marked(self._mark):
            for process in remaining:
                process.send(signal.SIGKILL)
            time.sleep(LOOK_S / 10)

    @contextlib.contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._end_all()
            self._later.run(everything=True)
            for subject in self.subjects[-1:]:
                self._venue.settle(subject.path)

    def _note(self, event: str, **values: object) -> None:
        records.append(self.log_file, {"time": time.time(), "event": event, **values})
