"""The one process that decides in a study: what is tried, what is tried again, what ends early, what has won.

Everything it knows is in the study's directory. It can be killed at any time; the next one reads the directory, sees
which trials have ended, which are still run by somebody, and which were lost, and goes on.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpcgan.config import SweepSection
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, HpcganError, Interrupted
from hpcgan.launch.process import GRACE, Requests
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs.lease import attempt_state
from hpcgan.sweep import optuna_study, pruning
from hpcgan.sweep.executors.base import Executor
from hpcgan.sweep.search import OWN_SAMPLERS, hand_out, known_params, repeat_seed, trial_seed
from hpcgan.sweep.space import Space
from hpcgan.sweep.statistics import Standing, ranking
from hpcgan.sweep.store import Assignment, Result, StudyDirectory
from hpcgan.sweep.table import TableReader
from hpcgan.sweep.trial import failure_file, standing
from hpcgan.system import failure

#: The longest wait before a lost trial is started again, seconds.
LONGEST_BACKOFF = 60.0
#: Stops without a new checkpoint in between after which a trial counts as lost, as one whose time limit is too short.
FRUITLESS = 3


@dataclass
class _OpenTrial:
    """What the coordinator remembers of a trial that has not ended.

    Attributes
    ----------
    not_before : float
        When it may be started again, on this process's clock.
    stops : int
        In a row, without a new checkpoint in between.
    step : int
        Of its newest checkpoint when it was stopped last.
    judged : int
        Epochs that the pruner has seen.
    elsewhere : bool
        Somebody runs it who is not this coordinator's executor.
    """

    not_before: float = 0.0
    stops: int = 0
    step: int = -1
    judged: int = 0
    elsewhere: bool = False


class Coordinator:
    """Runs a study to its end.

    Parameters
    ----------
    study : StudyDirectory
        Whose lease the caller holds.
    space : Space
    executor : Executor
    plan : SweepSection
        How much is to be done: `trials`, `top`, `repeats`, `retries`.
    requests : Requests
        Requests to stop that this process has got.
    report : callable
        Takes one line for the user.
    check : callable
        Raises when another coordinator has taken the study over.

    Attributes
    ----------
    backoff : float
        Seconds before a lost trial is started again, more before each time after it.
    grace : float
        Seconds for trials to end after they were asked to.
    """

    backoff = 2.0
    grace = GRACE

    def __init__(
        self,
        study: StudyDirectory,
        space: Space,
        executor: Executor,
        plan: SweepSection,
        requests: Requests,
        report: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.space, self.executor, self.plan = study, space, executor, plan
        self.requests, self.report, self.check = requests, report, check
        self._reader = TableReader(study.path)
        self.description = self._reader.description
        self._assignments: dict[int, Assignment] = {}
        self._results: dict[int, Result] = {}
        self._open: dict[int, _OpenTrial] = {}
        self._flying: set[int] = set()
        self._sizes: dict[int, int] = {}  # of metrics when they were last looked at
        self._started = False

    def run(self) -> int:
        """Until everything is done; the exit code.

        Raises
        ------
        Interrupted
            A stop was requested: all trials have checkpoints.
        HpcganError
            The study's directory cannot be written, or belongs to another coordinator by now.
        """
        self._read()
        count = sum(1 for n in self._results if self._assignments[n].repeat_of is None)
        if self._assignments:
            self.report(f"{count} of {self._wanted} trials have ended before")
        while not self.requests.pending():
            self.check()
            self._heed()
            self._harvest()
            self._observe()
            if self.requests.pending():
                break
            self._hand_in()
            if not self._open and not self._next_phase():
                return EXIT_DONE if self._best() else EXIT_FAILED  # not one trial is complete
            self._pause(self.executor.every)
        self._stop()
        raise Interrupted(f"{self.study.path}: stopped on request; run the same command to go on")

    # --- what there is -----------------------------------------------------------------------------

    def _read(self) -> None:
        """Take up what an earlier coordinator has left."""
        for number in self.study.numbers():
            assignment = self.study.assignment(number)
            if assignment is None:  # its directory was made, and nothing said of it
                continue
            self._assignments[number] = assignment
            if (result := self.study.result(number)) is not None:
                self._results[number] = result
            if not self._ended(number):
                self._open[number] = _OpenTrial()
        self._flying = self.executor.in_flight() & set(self._open)
        for number in self._open:
            if attempt_state(self.study.runner(number)) == "running":
                self._open[number].elsewhere = number not in self._flying
                self._flying.add(number)
        if self._flying:
            self.report(f"still running: {_numbers(self._flying)}")

    def _ended(self, number: int) -> bool:
        """Whether nothing is left to do of a trial."""
        result = self._results.get(number)
        return result is not None and (result.tested or not self._assignments[number].test)

    def _begin(self, params: dict[str, Any], seed: int, **fields: Any) -> Assignment:
        """A new trial; its number is the first that is free, so that one whose directory was deleted comes back."""
        number = _free(self._assignments)
        assignment = Assignment(number, params, seed, **fields)
        hand_out(self.study, self.space, assignment)
        self._assignments[number], self._open[number] = assignment, _OpenTrial()
        self._look(number)  # one that the configuration refuses has its result by now
        return assignment

    # --- what has ended ------------------------------------------------------------------------------

    def _harvest(self) -> None:
        """Find out which trials are done, and which are lost."""
        for number, code in self.executor.poll().items():
            if number in self._flying and not self._look(number):
                self._came_back(number, code)
        for number in sorted(self._flying):
            if not self._open[number].elsewhere or attempt_state(self.study.runner(number)) == "running":
                continue
            if not self._look(number):
                self._came_back(number, None)

    def _look(self, number: int) -> bool:
        """Whether a trial has come to its end, which is then told."""
        result = self.study.result(number)
        if result is None:
            return False
        new = number not in self._results
        self._results[number] = result
        if new:
            self.report(self._line(result))
        if self._ended(number):
            self._flying.discard(number)
            self._open.pop(number, None)
            return True
        return False

    def _came_back(self, number: int, code: int | None) -> None:
        """A trial's process has ended, and there is no result."""
        trial, state = self._open[number], attempt_state(self.study.runner(number))
        if state == "running":  # by somebody else, who was there first: see how that ends
            trial.elsewhere = True
            return
        if self._look(number):  # by then
            return
        trial.elsewhere = False
        self._flying.discard(number)
        self._heed()
        if self.requests.pending():  # that is why
            return
        if code == EXIT_INTERRUPTED or (code is None and state == "interrupted"):
            step = checkpoints.newest_step(self.study.trial(number).checkpoints)
            trial.stops = 1 if step > trial.step else trial.stops + 1
            trial.step = step
            if trial.stops < FRUITLESS:
                self.report(f"trial {number} was stopped: it is started again")
                return
        lost = self._assignments[number].lost + 1
        self._assign(replace(self._assignments[number], lost=lost))
        reason = failure.read(failure_file(self.study, number))
        why = f"exit code {code}" if code is not None else "its process is gone"
        why += f": {reason}" if reason is not None else ""
        if lost <= self.plan.retries:
            trial.not_before = time.monotonic() + min(self.backoff * lost, LONGEST_BACKOFF)
            self.report(f"trial {number} was lost ({why}); {lost} of {self.plan.retries} retries")
            return
        self._give_up(number, f"lost {lost} times, the last time with {why}")

    def _give_up(self, number: int, reason: str) -> None:
        """Record a trial that cannot be brought to an end as failed."""
        if (result := self._results.get(number)) is not None:  # trained, but it could not be scored on test events
            self.study.write_result(replace(result, extra={**result.extra, "test_failed": reason}))
        else:
            score, epoch, epochs = standing(self.study, number)
            assignment = self._assignments[number]
            self.study.write_result(
                assignment.result(assignment.lost, "failed", reason, score=score, epoch=epoch, epochs=epochs)
            )
        self._assign(replace(self._assignments[number], lost=0))  # who deletes the result has it tried anew
        self._look(number)

    def _assign(self, assignment: Assignment) -> None:
        """Say something else of a trial."""
        self._assignments[assignment.number] = assignment
        self.study.write_assignment(assignment)

    # --- pruning -------------------------------------------------------------------------------------

    def _observe(self) -> None:
        """Judge trials by their new epochs."""
        if self.description.pruner == "none":
            return
        judged = [n for n in sorted(self._flying) if self._assignments[n].repeat_of is None]
        sizes = {number: _size(self.study.trial(number).metrics_file) for number in judged}
        if sizes == self._sizes:
            return
        self._sizes, rows = sizes, self._reader.read().rows
        for row in (row for row in rows if row.number in judged and row.curve):
            if self.study.trial(row.number).verdict_file.exists():
                continue
            reason = pruning.verdict(self.description.pruner, row, rows, self._open[row.number].judged)
            self._open[row.number].judged = row.epochs
            if reason is not None and self.study.write_verdict(row.number, reason, row.epochs):
                self.report(f"trial {row.number} shall end: {reason}")

    # --- what is next --------------------------------------------------------------------------------

    def _hand_in(self) -> None:
        """Start what waits, and ask for new trials while there is room."""
        waiting = [n for n in sorted(self._open) if n not in self._flying]
        own = self.description.sampler in OWN_SAMPLERS
        indices = {a.index for a in self._assignments.values()}
        while (index := _free(indices)) < self._wanted and self._room(len(waiting), own) > 0:
            assignment = self._search(index)
            indices.add(index)
            if assignment.number in self._open:
                waiting.append(assignment.number)
            if not own and self.requests.pending():
                break
        now = time.monotonic()
        ready = [n for n in waiting if self._open[n].not_before <= now]
        if not self.executor.queues:
            ready = ready[: max(0, self.executor.concurrency - len(self._flying))]
        if not ready:
            return
        try:
            self.executor.start(ready)
        except HpcganError as error:
            if not self._started:  # it never will, as it is
                raise
            self.report(f"cannot start trials now: {error}")
            for number in ready:
                self._open[number].not_before = now + LONGEST_BACKOFF / 4
            return
        self._started = True
        self._flying.update(ready)
        for number in ready:
            self._open[number].elsewhere = False

    def _search(self, index: int) -> Assignment:
        """The next trial of the search."""
        seed = trial_seed(self.description.seed, index)
        if self.description.sampler in OWN_SAMPLERS:
            return self._begin(known_params(self.space, self.description, index), seed, index=index)
        marks = {number: assignment.marks for number, assignment in self._assignments.items()}
        number = _free(self._assignments)
        params, noted = optuna_study.ask(self.space, self._reader.read(), number, marks)
        return self._begin(params, seed, index=index, marks=noted)

    def _room(self, waiting: int, own: bool) -> int:
        """For how many more trials parameters are wanted now."""
        if self.executor.queues and own:  # others learn from what has ended
            return 1
        return self.executor.concurrency - len(self._flying) - waiting

    def _next_phase(self) -> bool:
        """When all that was begun has ended: repetitions, then test events; False if there is nothing more."""
        if not self.plan.repeats:
            return False
        chosen = self._best()[: self.plan.top]
        if repeated := [number for number in chosen if self._repeat(number)]:
            which = ", ".join(str(number) for number in repeated)
            self.report(f"trained again with {self.plan.repeats} fresh seeds each: trial {which}")
            return True
        first = next(iter(self.ranking()), None)
        if first is None or first.repeats is None:
            return False
        untested = [
            a for a in self._assignments.values()
            if a.repeat_of == first.number and not a.test and self._results[a.number].state == "complete"
        ]  # fmt: skip
        for assignment in untested:
            self._assign(replace(assignment, test=True, lost=0))
            if not self._ended(assignment.number):
                self._open[assignment.number] = _OpenTrial()
        if self._open:
            self.report(f"trial {first.number} has the best mean: its repetitions are scored on test events")
        return bool(self._open)

    def _repeat(self, number: int) -> bool:
        """Begin the repetitions that a trial still lacks; False if it lacks none."""
        seeds = {a.seed for a in self._assignments.values() if a.repeat_of == number}
        planned_seeds = [repeat_seed(self.description.seed, number, i) for i in range(self.plan.repeats)]
        missing = [seed for seed in planned_seeds if seed not in seeds]
        for seed in missing:
            self._begin(self._results[number].params, seed, index=None, repeat_of=number)
        return bool(missing)

    def ranking(self) -> list[Standing]:
        """Configurations by what came of them, the best first."""
        return ranking(self._results.values())

    def _best(self) -> list[int]:
        """Complete trials of the search by their own score, by which they are chosen for repetitions."""
        scored = [(s.score, s.number) for s in self.ranking() if s.score is not None]
        return [number for _, number in sorted(scored)]

    @property
    def _wanted(self) -> int:
        """Trials of the search."""
        return self.plan.trials or 0

    # --- the end -------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Ask all trials to stop, and wait until they have."""
        end = time.monotonic() + self.grace
        self.study.stop_file.touch()
        self.executor.stop()
        if self._flying:
            self.report(f"stopping: {_numbers(self._flying)} write checkpoints")
        while self._flying:
            if self.requests.hurry or time.monotonic() > end:
                self.executor.kill()
                self.report("ended without waiting for checkpoints")
                break
            self._harvest()
            self._pause(0.2, stopping=True)
        self._harvest()

    def _heed(self) -> None:
        """Take the stop file, which was not there when this coordinator began, for a request to it."""
        if self.study.stop_file.exists() and not self.requests.pending():
            self.report(f"{self.study.stop_file} is there: somebody asks all trials to stop")
            self.requests.at = time.monotonic()

    def _pause(self, seconds: float, stopping: bool = False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (stopping or not self.requests.pending()):
            time.sleep(min(0.1, seconds))

    def _line(self, result: Result) -> str:
        count = sum(1 for r in self._results.values() if r.repeat_of is None)
        what = f"trial {result.number}"
        if result.repeat_of is not None:
            what += f" (repeats {result.repeat_of})"
        score = "" if result.score is None else f" score {result.score:.2f} in epoch {result.epoch},"
        reason = f" ({result.reason})" if result.reason else ""
        return f"{what} {result.state}:{score} {count} of {self._wanted} done{reason}"


def _numbers(numbers: set[int]) -> str:
    listed = sorted(numbers)
    if len(listed) > 8:
        return f"{len(listed)} trials"
    return f"trial{'s' * (len(listed) > 1)} " + ", ".join(str(n) for n in listed)


def _free(busy_slots: Container[int | None]) -> int:
    """The first whole number that is not taken."""
    return next(number for number in itertools.count() if number not in busy_slots)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
